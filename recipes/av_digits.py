"""Handwritten and spoken digits together: the label loss and a contrastive loss, mixed by a constant, heuristic, fitted or
learned alpha (Yang et al., NeurIPS 2024), on small real data.

    accelerate launch recipes/av_digits.py --small                      # a first try: handwritten and dialled digits
    accelerate launch recipes/av_digits.py --audio_dir FSDD --seeds 5   # handwritten digits, and FSDD's spoken ones
    accelerate launch recipes/av_digits.py --audio_dir FSDD --fusion film --arms ce learned --alpha_solver cg
"""

from dataclasses import dataclass

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from hf_colearn import CoLearningForMultimodalClassification
from hf_colearn.corpora.av_digits import AVDigitsOptions, av_processors, with_av_inputs
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, run_multimodal_recipe
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.recipe import ExperimentInfo, chosen_arms, quiet
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.distributed import destroy_process_group


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

    def make_model() -> CoLearningForMultimodalClassification:
        backbones = {modality: resnet_tiny(num_channels=1) for modality in MODALITIES}
        return options.make_model(backbones, id2label={digit: str(digit) for digit in range(10)})

    facts = ExperimentInfo(
        recipe="av_digits",
        title="Digits, handwritten and spoken",
        pipeline_tag="image-classification",
        dataset_name=f"AV-digits (handwritten and {options.sound})",
        dataset_type="av-digits",
        teacher="none",
        pairing="by class, at random within a split",
    )
    run_multimodal_recipe(
        options, training, facts=facts, plans=plans, data=data, make_model=make_model,
        collators=dict.fromkeys(MODALITIES), processors=processors, metrics=("accuracy", "map"),
        groups={"speaker": raw["test"]["speaker"]} if options.audio_dir else None,
    )  # fmt: skip
    destroy_process_group()


if __name__ == "__main__":
    main()
