"""Few labels and many pairs of one class: spoken digits learn from written ones, or the other way round.

The pairs are drawn *by class*, so the pairing itself carries the label of samples that have none: this shows what such pairs
are worth, not what a teacher knows of them. The student's input is made hard (noise, or pictures that lost most of their
energy), the teacher's is clean. The student is a small network on frozen features of its modality.

    python recipes/digits_pairs.py --data_dir FSDD --student speech --seeds 5
    python recipes/digits_pairs.py --data_dir FSDD --student image --image_energy 0.2
    python recipes/digits_pairs.py --student image --small          # a smoke test: DTMF tones stand in for speech
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn import FrozenEncoder, TeacherBank, classification_metrics
from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.data.views import StoredViews, TwoViews
from hf_colearn.experiments.chosen_settings import SemiSupervisedOptions, ask
from hf_colearn.experiments.frozen_features import (
    encoded_views,
    encoder_in_words,
    feature_dataset,
    feature_student,
    speech_encoder,
)
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_VISION, vision_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import SemiSupervised
from hf_colearn.utils.command_line import run_script


COLUMNS, IDS = {"speech": "audio", "image": "image"}, {"speech": "clip_id", "image": "image_id"}
SCALES = {"speech": 1.0, "image": 0.1}  # of the standardised features, as in stamps_pairs.py


@dataclass
class Options(SemiSupervisedOptions):
    student: str = field(default="speech", metadata={"help": "What learns, speech or image; the other one teaches."})
    speech_model: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "Encoder of speech; tiny: random weights."}
    )
    image_model: str = field(default=PACKAGED_VISION, metadata={"help": "Encoder of pictures, a package's."})
    noise: float = field(
        default=0.0, metadata={"help": "Of a student of speech: the ratio of clip over noise, in dB."}
    )
    image_energy: float = field(default=0.25, metadata={"help": "Of a student of images: the variance that is left."})
    max_samples: int = field(default=800, metadata={"help": "Training samples, labelled or not."})
    views: int = field(default=4, metadata={"help": "Augmented copies of every input, for FixMatch."})
    hidden_dim: int = field(default=128, metadata={"help": "Width of the student's hidden layer."})

    def __post_init__(self):
        super().__post_init__()
        if self.student not in COLUMNS:
            raise ValueError(f"student='{self.student}' is unknown: choose speech or image.")

    def encoder(self, modality: str) -> FrozenEncoder:
        if modality == "speech":
            return speech_encoder(self.speech_model, seconds=1)
        return vision_teacher(self.image_model, pooling="pooler")


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    teacher = "image" if options.student == "speech" else "speech"
    comparison = f"{options.student} from {teacher}"
    plans = options.plans(__file__, comparison)
    seed, is_speech = training.get("seed", 0), options.student == "speech"
    raw = load_av_digits(
        options.data_dir,
        image_energy=1.0 if is_speech else options.image_energy,
        noise_snr_db=options.noise if is_speech else None,
        seed=seed,
        skip_bad_samples=options.skip_bad_samples,
    )

    def once(part: Dataset) -> Dataset:
        """The rows in which an input of the student is for the first time."""
        _, first = np.unique(np.asarray(part[IDS[options.student]][:]), return_index=True)
        return part.select(np.sort(first))

    train, test = once(raw["train"]), once(raw["test"])
    train = train.select(range(min(options.max_samples, len(train))))

    def inputs(part: Dataset, modality: str) -> list[Any]:
        return list(part[COLUMNS[modality]])

    encoder = options.encoder(options.student)
    views_NVF = encoded_views(encoder, inputs(train, options.student), options.views, mirror=False)
    test_NF = encoded_views(encoder, inputs(test, options.student), views=0)[:, 0]
    features_NF = views_NVF[:, 0].contiguous()
    bank = TeacherBank.encode(options.encoder(teacher), inputs(train, teacher))

    names = {digit: str(digit) for digit in range(10)}
    scale = SCALES[options.student]
    semi = SemiSupervised(
        feature_dataset(features_NF, train["label"][:]),
        bank,
        lambda: options.adapted(feature_student(features_NF, [options.hidden_dim], bank.dim, names, scale)),
        (features_NF / features_NF.std(dim=0).clamp(min=1e-6)).numpy(),
        TwoViews(strong=StoredViews(views_NVF[:, 1:].contiguous())),
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    test_features = feature_dataset(test_NF, test["label"][:]).remove_columns("sample_id")
    if options.choose or options.check_teacher:
        return ask(options, training, plans, semi, test_features, __file__, comparison)
    sound = "synthetic DTMF tones" if options.data_dir is None else "spoken digits"
    hard = f"noise at {options.noise:g} dB" if is_speech else f"{options.image_energy:.0%} of the pictures' energy"
    info = ExperimentInfo(
        recipe="digits_pairs",
        title=f"Digits: {comparison}, few labels and many pairs by class",
        pipeline_tag="feature-classification",
        **named_data("AV-digits", {"train": train, "test": test}, "samples", f"handwritten and {sound}", hard),
        teacher=f"{encoder_in_words(options.image_model if is_speech else options.speech_model)} ({teacher}), frozen",
        pairing="by class, at random within a split: the pairing itself carries the label of unlabelled samples",
        language="en" if is_speech else None,
    )
    run_recipe(options, training, info, plans, semi.make_trainer, {"train": train, "test": test_features})


if __name__ == "__main__":
    run_script(main)
