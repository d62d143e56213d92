"""Vision helps audio on AVMNIST: a ResNet-18 of spoken digits learns with the latents of a frozen vision teacher.

Published (Lee & Yoon, ICLR 2025): 41.28 -> 42.44 % accuracy, the teacher looking at the image of a *random other* sample.
Hyperparameters are in avmnist_v2a.yaml; each can be given on the command line, too.

    accelerate launch recipes/avmnist_v2a.py --small                        # a smoke test: handwritten and DTMF digits
    accelerate launch recipes/avmnist_v2a.py --audio_dir FSDD --seeds 5     # AV-digits: handwritten and spoken digits
    accelerate launch recipes/avmnist_v2a.py --data_dir AVMNIST --seeds 5   # the .npy release
"""

from dataclasses import dataclass, field

from hf_colearn import (
    CoLearningArguments,
    CoLearningForAudioClassification,
    CoLearningTrainer,
    Paired,
    Shuffled,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.corpora.avmnist import is_avmnist
from hf_colearn.data.audio import with_input_values
from hf_colearn.experiments.arms import ArmPlan, chosen_arms, transfer_arms
from hf_colearn.experiments.avmnist import DIGITS, AvmnistOptions
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import vision_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.command_line import run_script


PUBLISHED = "41.28 -> 42.44 % (Lee & Yoon, ICLR 2025)"
EXTRACTOR = SpectrogramFeatureExtractor(sampling_rate=8000, n_fft=2048)  # 112 x 112, as the release's spectrograms


@dataclass
class Options(AvmnistOptions):
    pooling: str = field(default="pooler", metadata={"help": "How the teacher's features become one latent."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    raw = options.load()
    if options.data_dir is None:
        data = {split: with_input_values(part.remove_columns("image"), EXTRACTOR) for split, part in raw.items()}
    else:
        columns = {"spectrogram": "pixel_values", "label": "labels"}
        data = {
            split: part.remove_columns("image").rename_columns(columns).with_format("torch")
            for split, part in raw.items()
        }

    pairings = {"random other": Shuffled(), "true pairing": Paired()}
    plans = chosen_arms(options, transfer_arms(pairings, raw["train"]["label"], num_classes=10))

    teacher = vision_teacher(options.teacher, options.pooling)
    bank = TeacherBank.encode(teacher, raw["train"]["image"])  # row i: what the teacher sees of sample i

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        student = CoLearningForAudioClassification.from_backbone(
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

    info = ExperimentInfo(
        recipe="avmnist_v2a",
        title="Spoken digits, trained with a vision teacher",
        pipeline_tag="audio-classification",
        **options.described(raw),
        teacher=f"{without_folders(str(options.teacher))}, pooling '{options.pooling}', frozen, looking at images",
        pairing="the image of a random other sample, by a new permutation every epoch",
        published=PUBLISHED if is_avmnist(raw) else None,
    )
    extractor = None if options.data_dir else EXTRACTOR  # how the release's spectrograms were made is not known
    run_recipe(options, training, info, plans, make_trainer, data, extractor)


if __name__ == "__main__":
    run_script(main)
