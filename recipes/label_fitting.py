"""How hard labels are fitted, and how far one modality runs ahead: the motivation of Yang et al. (NeurIPS 2024).

A late-fusion model of handwritten and spoken digits is trained with labels from one-hot to uniform, and the gap between
the accuracies of its two heads is followed over the epochs. Uniform labels say nothing and leave both at chance.

    accelerate launch recipes/label_fitting.py --small                      # a smoke test: DTMF digits
    accelerate launch recipes/label_fitting.py --audio_dir FSDD --seeds 5
    accelerate launch recipes/label_fitting.py --audio_dir FSDD --smoothing 0.1 0.9
"""

from dataclasses import dataclass, field
from pathlib import Path

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.analysis.plots.training_curves import plot_head_gaps
from hf_colearn.corpora.image_audio import AVDigitsOptions, av_processors, with_av_inputs
from hf_colearn.data.soft_labels import SmoothedLabels
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.command_line import run_script


MODALITIES = ("image", "audio")


@dataclass
class Options(AVDigitsOptions, MultimodalOptions):
    smoothing: list[float] = field(
        default_factory=lambda: [0.5, 0.9],
        metadata={"help": "Arms between one-hot (0) and uniform (1): the share of the labels that is spread evenly."},
    )


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    arms = [
        ArmPlan("one-hot", "baseline"),
        *(ArmPlan(f"smoothed {s:g}", "reference", augment=SmoothedLabels(10, s)) for s in options.smoothing),
        ArmPlan("uniform", "reference", augment=SmoothedLabels(10, 1.0)),
    ]
    plans = chosen_arms(options, arms)
    raw = options.load(options.small, options.skip_bad_samples)
    processors = av_processors(options.spectrogram_size)
    data = with_av_inputs(raw, processors)

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        backbones = {modality: resnet_tiny(num_channels=1) for modality in MODALITIES}
        model = options.make_model(backbones, id2label={digit: str(digit) for digit in range(10)})
        return multimodal_trainer(options, arm, args, model, data, dict.fromkeys(MODALITIES), ("accuracy",))

    info = ExperimentInfo(
        recipe="label_fitting",
        title="Label fitting and the gap between modalities",
        pipeline_tag="image-classification",
        **named_data("AV-digits", raw, "pairs", f"handwritten and {options.sound}"),
        pairing="by class, at random within a split",
    )
    runs = run_recipe(options, training, info, plans, make_trainer, data, processors)
    if runs:  # on the main process
        path = Path(training["output_dir"]) / "gaps.png"
        histories = {plan.name: [run.history for run in runs if run.arm == plan.name] for plan in plans}
        plot_head_gaps(histories, MODALITIES, path)
        print(f"  {path}")


if __name__ == "__main__":
    run_script(main)
