"""How hard labels are fitted, and how far one modality runs ahead: the motivation of Yang et al. (NeurIPS 2024).

A late-fusion model of handwritten and spoken digits is trained with labels from one-hot to uniform, and the gap between
the accuracies of its two heads is followed over the epochs. Uniform labels say nothing and leave both at chance.

    accelerate launch recipes/label_fitting.py --small                      # a first try: dialled digits
    accelerate launch recipes/label_fitting.py --audio_dir FSDD --seeds 5
    accelerate launch recipes/label_fitting.py --audio_dir FSDD --smoothing 0.1 0.9
"""

from dataclasses import dataclass, field
from pathlib import Path

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from hf_colearn import CoLearningForMultimodalClassification
from hf_colearn.analysis.plots.training_curves import plot_head_gaps
from hf_colearn.corpora.av_digits import AVDigitsOptions, av_processors, with_av_inputs
from hf_colearn.data.soft_labels import SmoothedLabels
from hf_colearn.experiments.multimodal import MultimodalArm, MultimodalOptions, run_multimodal_recipe
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.recipe import ExperimentInfo, chosen_arms, quiet
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.distributed import destroy_process_group, rank


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
        MultimodalArm("one-hot", "baseline"),
        *(MultimodalArm(f"smoothed {s:g}", "reference", augment=SmoothedLabels(10, s)) for s in options.smoothing),
        MultimodalArm("uniform", "reference", augment=SmoothedLabels(10, 1.0)),
    ]
    plans = chosen_arms(options, arms)
    raw = options.load(options.small, options.skip_bad_samples)
    processors = av_processors(options.spectrogram_size)

    def make_model() -> CoLearningForMultimodalClassification:
        backbones = {modality: resnet_tiny(num_channels=1) for modality in MODALITIES}
        return options.make_model(backbones, id2label={digit: str(digit) for digit in range(10)})

    facts = ExperimentInfo(
        recipe="label_fitting",
        title="Label fitting and the gap between modalities",
        pipeline_tag="image-classification",
        dataset_name=f"AV-digits (handwritten and {options.sound})",
        dataset_type="av-digits",
        teacher="none",
        pairing="by class, at random within a split",
    )
    runs = run_multimodal_recipe(
        options, training, facts=facts, plans=plans, data=with_av_inputs(raw, processors),
        make_model=make_model, collators=dict.fromkeys(MODALITIES), processors=processors,
        metrics=("accuracy",),
    )  # fmt: skip
    if rank() == 0:
        path = Path(training["output_dir"]) / "gaps.png"
        histories = {name: [run.history for run in runs if run.arm == name] for name in (p.name for p in plans)}
        plot_head_gaps(histories, MODALITIES, path)
        print(f"  {path}")
    destroy_process_group()


if __name__ == "__main__":
    main()
