"""Handwritten and spoken digits together: the label loss and a contrastive loss, mixed by a constant, heuristic, fitted or
learned alpha (Yang et al., NeurIPS 2024), on small real data.

    accelerate launch recipes/av_digits.py --small                      # a smoke test: handwritten and DTMF digits
    accelerate launch recipes/av_digits.py --audio_dir FSDD --seeds 5   # handwritten digits, and FSDD's spoken ones
    accelerate launch recipes/av_digits.py --audio_dir FSDD --fusion film --arms ce learned --alpha_solver cg
"""

from dataclasses import dataclass

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.image_audio import AVDigitsOptions, av_processors, with_av_inputs
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.command_line import run_script


MODALITIES = ("image", "audio")


@dataclass
class Options(AVDigitsOptions, MultimodalOptions):
    pass


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    raw = options.load(options.small, options.skip_bad_samples)
    processors = av_processors(options.spectrogram_size)
    data = with_av_inputs(raw, processors)

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        backbones = {modality: resnet_tiny(num_channels=1) for modality in MODALITIES}
        model = options.make_model(backbones, id2label={digit: str(digit) for digit in range(10)})
        return multimodal_trainer(options, arm, args, model, data, dict.fromkeys(MODALITIES), ("accuracy", "map"))

    info = ExperimentInfo(
        recipe="av_digits",
        title="Digits, handwritten and spoken",
        pipeline_tag="image-classification",
        **named_data("AV-digits", raw, "pairs", f"handwritten and {options.sound}"),
        pairing="by class, at random within a split",
    )
    groups = {"speaker": raw["test"]["speaker"]} if options.audio_dir else None
    run_recipe(options, training, info, plans, make_trainer, data, processors, groups=groups)


if __name__ == "__main__":
    run_script(main)
