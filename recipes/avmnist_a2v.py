"""Audio helps vision on AVMNIST: a ResNet-18 of handwritten digits learns with the latents of a frozen speech teacher.

Published (Lee & Yoon, ICLR 2025): 65.18 -> 66.69 % accuracy, the teacher hearing the raw waveform of a *random other*
sample plus noise. Hyperparameters are in avmnist_a2v.yaml; each can be given on the command line, too.

    accelerate launch recipes/avmnist_a2v.py --small                        # a first try: handwritten and dialled digits
    accelerate launch recipes/avmnist_a2v.py --audio_dir FSDD --seeds 5     # AV-digits: handwritten and spoken digits
    accelerate launch recipes/avmnist_a2v.py --data_dir AVMNIST --audio_dir FSDD   # the release holds no waveforms
"""

from dataclasses import dataclass, field

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from datasets import Dataset
from transformers import ResNetConfig

from hf_colearn import CoLearningForImageClassification, FrozenEncoder, Paired, Shuffled, TeacherBank
from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.avmnist import load_avmnist
from hf_colearn.corpora.spoken_digits import with_spoken_digits
from hf_colearn.data.audio import NoisyWaveforms
from hf_colearn.data.images import with_pixel_values
from hf_colearn.experiments.experiment import ArmPlan
from hf_colearn.experiments.options import RecipeOptions, parse_recipe
from hf_colearn.experiments.recipe import ExperimentInfo, chosen_arms, null_controls, quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny, speech_teacher
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from hf_colearn.utils.distributed import destroy_process_group


STUDENTS = {
    "resnet18": ResNetConfig(
        num_channels=1, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    ),
    "resnet_tiny": resnet_tiny(num_channels=1),
}


TRAINED = "a tiny wav2vec2 trained on these clips' digits"  # with `--teacher train`


@dataclass
class Options(RecipeOptions):
    audio_dir: str | None = field(default=None, metadata={"help": "Spoken digits: FSDD's files, or a folder a digit."})
    pooling: str = field(default="mean", metadata={"help": "How the teacher's features become one latent."})
    noise_std: float = field(default=1e-3, metadata={"help": "Of the noise on the teacher's waveforms."})


def load_data(options: Options) -> tuple[dict[str, Dataset], str]:
    """The splits with `image`, `label` and, in train, `audio`; and what they are called."""
    if options.data_dir is None:
        if options.audio_dir is None and not options.small:
            raise SystemExit("no data: pass --data_dir (AVMNIST's release), --audio_dir (spoken digits) or --small.")
        raw = load_av_digits(options.audio_dir, skip_bad_samples=options.skip_bad_samples)
        return raw, f"AV-digits (handwritten and {'spoken' if options.audio_dir else 'dialled'})"
    if options.audio_dir is None:
        raise SystemExit("AVMNIST's release holds no waveforms for the teacher: pass --audio_dir (spoken digits).")
    raw = load_avmnist(options.data_dir, seed=0)
    return {
        **raw,
        "train": with_spoken_digits(raw["train"], options.audio_dir, skip_bad_samples=options.skip_bad_samples),
    }, "AVMNIST"


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    raw, name = load_data(options)
    arms = [
        ArmPlan("baseline", "baseline"),
        ArmPlan("random other", "colearned", Shuffled()),
        ArmPlan("true pairing", "colearned", Paired()),
        *null_controls(10, Paired(), raw["train"]["label"]),
    ]
    plans = chosen_arms(options, arms)

    trained = options.teacher == "train"
    if trained:
        teacher = speech_teacher(f"{training['output_dir']}/teacher", raw["train"], 10, max_steps=150)
    else:
        teacher = FrozenEncoder.from_pretrained(options.teacher, pooling=options.pooling)
    heard = NoisyWaveforms(raw["train"]["audio"], options.noise_std, teacher.processor.sampling_rate)
    bank = TeacherBank.encode(teacher, heard)  # row i: what the teacher hears of sample i

    processor = GrayscaleImageProcessor(size={"height": 28, "width": 28})
    kept = ("image", "label", "sample_id")
    inputs = {
        split: with_pixel_values(part.select_columns([c for c in kept if c in part.column_names]), processor)
        for split, part in raw.items()
    }

    def make_student() -> CoLearningForImageClassification:
        names = {digit: str(digit) for digit in range(10)}
        backbone = STUDENTS.get(options.student, options.student)
        return CoLearningForImageClassification.from_backbone(backbone, bank.dim, id2label=names, latent_norm="none")

    facts = ExperimentInfo(
        recipe="avmnist_a2v",
        title="Handwritten digits, trained with a speech teacher",
        pipeline_tag="image-classification",
        dataset_name=name,
        dataset_type="avmnist" if options.data_dir else "av-digits",
        teacher=f"{TRAINED if trained else options.teacher}, pooling '{teacher.pooling}', frozen, hearing waveforms",
        pairing=f"a random other sample's waveform plus noise of {options.noise_std:g}, by a new permutation every epoch",
        published="65.18 -> 66.69 % on AVMNIST (Lee & Yoon, ICLR 2025)",
    )
    run_recipe(
        options, training, facts=facts, plans=plans, bank=bank, data=inputs, make_student=make_student,
        processor=processor,
    )  # fmt: skip
    destroy_process_group()


if __name__ == "__main__":
    main()
