"""Audio helps vision on AVMNIST: a ResNet-18 of handwritten digits learns with the latents of a frozen speech teacher.

Published (Lee & Yoon, ICLR 2025): 65.18 -> 66.69 % accuracy, the teacher hearing the raw waveform of a *random other*
sample plus noise. Hyperparameters are in avmnist_a2v.yaml; each can be given on the command line, too.

    accelerate launch recipes/avmnist_a2v.py --small                        # a smoke test: handwritten and DTMF digits
    accelerate launch recipes/avmnist_a2v.py --audio_dir FSDD --seeds 5     # AV-digits: handwritten and spoken digits
    accelerate launch recipes/avmnist_a2v.py --data_dir AVMNIST --audio_dir FSDD   # the release holds no waveforms
"""

from dataclasses import dataclass, field

from hf_colearn import (
    CoLearningArguments,
    CoLearningForImageClassification,
    CoLearningTrainer,
    Paired,
    Shuffled,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.corpora.avmnist import is_avmnist
from hf_colearn.corpora.spoken_digits import with_spoken_digits
from hf_colearn.data.audio import NoisyWaveforms
from hf_colearn.data.images import with_pixel_values
from hf_colearn.experiments.arms import ArmPlan, chosen_arms, transfer_arms
from hf_colearn.experiments.avmnist import DIGITS, AvmnistOptions
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import speech_teacher
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.command_line import run_script


PUBLISHED = "65.18 -> 66.69 % (Lee & Yoon, ICLR 2025)"
TRAINED = "a tiny wav2vec2 trained on these clips' digits"  # with `--teacher train`


@dataclass
class Options(AvmnistOptions):
    pooling: str = field(default="mean", metadata={"help": "How the teacher's features become one latent."})
    noise_std: float = field(default=1e-3, metadata={"help": "Of the noise on the teacher's waveforms."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    if options.data_dir is not None and options.audio_dir is None:
        raise ValueError("AVMNIST's release holds no waveforms for the teacher: pass --audio_dir (spoken digits).")
    raw = options.load()
    if options.data_dir is not None:
        raw["train"] = with_spoken_digits(raw["train"], options.audio_dir, skip_bad_samples=options.skip_bad_samples)
    pairings = {"random other": Shuffled(), "true pairing": Paired()}
    plans = chosen_arms(options, transfer_arms(pairings, raw["train"]["label"], num_classes=10))

    folder = f"{training['output_dir']}/teacher"
    teacher = speech_teacher(options.teacher, options.pooling, folder, raw["train"], num_labels=10, max_steps=150)
    heard = NoisyWaveforms(raw["train"]["audio"], options.noise_std, teacher.processor.sampling_rate)
    bank = TeacherBank.encode(teacher, heard)  # row i: what the teacher hears of sample i

    processor = GrayscaleImageProcessor(size={"height": 28, "width": 28})
    kept = ("image", "label", "sample_id")
    data = {
        split: with_pixel_values(part.select_columns([c for c in kept if c in part.column_names]), processor)
        for split, part in raw.items()
    }

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        student = CoLearningForImageClassification.from_backbone(
            options.backbone(), bank.dim, id2label=DIGITS, latent_norm="none"
        )
        return CoLearningTrainer(
            options.adapted(student),
            args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            bank=bank if arm.pairing else None,
            pairing=arm.pairing,
            optimizer_cls_and_kwargs=options.optimizer_for(args),
            compute_metrics=classification_metrics(("accuracy", "macro_f1")),
        )

    heard_by = TRAINED if options.teacher == "train" else without_folders(str(options.teacher))
    info = ExperimentInfo(
        recipe="avmnist_a2v",
        title="Handwritten digits, trained with a speech teacher",
        pipeline_tag="image-classification",
        **options.described(raw),
        teacher=f"{heard_by}, pooling '{teacher.pooling}', frozen, hearing waveforms",
        pairing=f"a random other sample's waveform plus noise of {options.noise_std:g}, by a new permutation every epoch",
        published=PUBLISHED if is_avmnist(raw) else None,
    )
    run_recipe(options, training, info, plans, make_trainer, data, processor)


if __name__ == "__main__":
    run_script(main)
