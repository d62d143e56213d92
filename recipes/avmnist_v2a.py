"""Vision helps audio on AVMNIST: a ResNet-18 of spoken digits learns with the latents of a frozen vision teacher.

Published (Lee & Yoon, ICLR 2025): 41.28 -> 42.44 % accuracy, the teacher looking at the image of a *random other* sample.
Hyperparameters are in avmnist_v2a.yaml; each can be given on the command line, too.

    accelerate launch recipes/avmnist_v2a.py --small                        # a first try: handwritten and dialled digits
    accelerate launch recipes/avmnist_v2a.py --audio_dir FSDD --seeds 5     # AV-digits: handwritten and spoken digits
    accelerate launch recipes/avmnist_v2a.py --data_dir AVMNIST --seeds 5   # the .npy release
"""

from dataclasses import dataclass, field

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from datasets import Dataset
from transformers import ResNetConfig

from hf_colearn import CoLearningForAudioClassification, Paired, Shuffled, TeacherBank
from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.avmnist import load_avmnist
from hf_colearn.data.audio import with_input_values
from hf_colearn.experiments.experiment import ArmPlan
from hf_colearn.experiments.options import RecipeOptions, parse_recipe
from hf_colearn.experiments.recipe import ExperimentInfo, chosen_arms, null_controls, quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny, vision_teacher
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.utils.distributed import destroy_process_group


STUDENTS = {
    "resnet18": ResNetConfig(
        num_channels=1, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    ),
    "resnet_tiny": resnet_tiny(num_channels=1),
}

EXTRACTOR = SpectrogramFeatureExtractor(sampling_rate=8000, n_fft=2048)  # 112 x 112, as the release's spectrograms


@dataclass
class Options(RecipeOptions):
    audio_dir: str | None = field(default=None, metadata={"help": "Spoken digits: FSDD's files, or a folder a digit."})
    pooling: str = field(default="pooler", metadata={"help": "How the teacher's features become one latent."})


def load_data(options: Options) -> tuple[dict[str, Dataset], dict[str, Dataset], str]:
    """The splits as they are, in the student's inputs, and what they are called."""
    if options.data_dir is not None:
        raw = load_avmnist(options.data_dir, seed=0)
        inputs = {
            split: part.remove_columns("image").rename_columns({"spectrogram": "pixel_values", "label": "labels"})
            for split, part in raw.items()
        }
        return raw, {split: part.with_format("torch") for split, part in inputs.items()}, "AVMNIST"
    if options.audio_dir is None and not options.small:
        raise SystemExit("no data: pass --data_dir (AVMNIST's release), --audio_dir (spoken digits) or --small.")
    raw = load_av_digits(options.audio_dir, skip_bad_samples=options.skip_bad_samples)
    inputs = {split: with_input_values(part.remove_columns("image"), EXTRACTOR) for split, part in raw.items()}
    return raw, inputs, f"AV-digits (handwritten and {'spoken' if options.audio_dir else 'dialled'})"


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    raw, inputs, name = load_data(options)
    arms = [
        ArmPlan("baseline", "baseline"),
        ArmPlan("random other", "colearned", Shuffled()),
        ArmPlan("true pairing", "colearned", Paired()),
        *null_controls(10, Paired(), raw["train"]["label"]),
    ]
    plans = chosen_arms(options, arms)

    teacher = vision_teacher(options.teacher, options.pooling)
    bank = TeacherBank.encode(teacher, raw["train"]["image"])  # row i: what the teacher sees of sample i

    def make_student() -> CoLearningForAudioClassification:
        names = {digit: str(digit) for digit in range(10)}
        backbone = STUDENTS.get(options.student, options.student)
        return CoLearningForAudioClassification.from_backbone(backbone, bank.dim, id2label=names, latent_norm="none")

    facts = ExperimentInfo(
        recipe="avmnist_v2a",
        title="Spoken digits, trained with a vision teacher",
        pipeline_tag="audio-classification",
        dataset_name=name,
        dataset_type="avmnist" if options.data_dir else "av-digits",
        teacher=f"{options.teacher}, pooling '{options.pooling}', frozen, looking at images",
        pairing="the image of a random other sample, by a new permutation every epoch",
        published="41.28 -> 42.44 % on AVMNIST (Lee & Yoon, ICLR 2025)",
    )
    run_recipe(
        options, training, facts=facts, plans=plans, bank=bank, data=inputs, make_student=make_student,
        processor=None if options.data_dir else EXTRACTOR,  # how the release's spectrograms were made is not told
    )  # fmt: skip
    destroy_process_group()


if __name__ == "__main__":
    main()
