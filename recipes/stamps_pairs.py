"""Few labels and many pairs: Tux Paint's stamps, where speech, sentence or picture learns from another of the three.

Every stamp is a picture, an English sentence and a spoken French one; a few of every category are labelled, the others are
pairs without a label. The student is a small network on frozen features of its modality, and the teacher another frozen
encoder. Beside it stand what needs no pairs (self-training, FixMatch) and what has wrong ones. The split is drawn by sentence
with the first seed: settings are chosen on one split, and confirmed on another.

    python recipes/stamps_pairs.py --data_dir /usr/share/tuxpaint/stamps --student image --teacher text --seeds 5
    python recipes/stamps_pairs.py --data_dir STAMPS --student speech --teacher text --seed 0 --seeds 5 --choose true
    python recipes/stamps_pairs.py --data_dir STAMPS --student speech --teacher text --seed 100 --seeds 20 \\
        --labels_per_class 1 2 5 10
"""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, concatenate_datasets

from hf_colearn import FrozenEncoder, TeacherBank, classification_metrics, with_sample_ids
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
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
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, PACKAGED_VISION, language_teacher, vision_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import SemiSupervised
from hf_colearn.utils.command_line import run_script


COLUMNS = {"speech": "audio", "text": "text", "image": "image"}
# Of the standardised features: with these, labels alone are worth as much as to a linear classifier of the same features.
SCALES = {"speech": 1.0, "text": 0.1, "image": 0.1}


@dataclass
class Options(SemiSupervisedOptions):
    student: str = field(default="speech", metadata={"help": "What learns: speech, text or image."})
    teacher: str = field(default="text", metadata={"help": "What it learns from: another of the three."})
    speech_model: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "Encoder of speech; tiny: random weights."}
    )
    text_model: str = field(default=PACKAGED_LANGUAGE, metadata={"help": "Encoder of sentences, a package's."})
    image_model: str = field(default=PACKAGED_VISION, metadata={"help": "Encoder of pictures, a package's."})
    seconds: int = field(default=4, metadata={"help": "Of speech; longer recordings lose their end."})
    min_per_class: int = field(default=16, metadata={"help": "Categories with fewer stamps are left out."})
    views: int = field(default=4, metadata={"help": "Augmented copies of every input, for FixMatch."})
    feature_scale: float | None = field(
        default=None, metadata={"help": "Of the standardised features; by default 1 (speech) or 0.1."}
    )
    hidden_dim: int = field(default=128, metadata={"help": "Width of the student's hidden layer."})

    def __post_init__(self):
        super().__post_init__()
        if self.student == self.teacher or not {self.student, self.teacher} <= set(COLUMNS):
            raise ValueError(f"{self.student} from {self.teacher} is no pair: choose two of {', '.join(COLUMNS)}.")

    def encoder(self, modality: str) -> FrozenEncoder:
        if modality == "speech":
            return speech_encoder(self.speech_model, self.seconds)
        if modality == "text":
            return language_teacher(self.text_model, pooling="mean")
        return vision_teacher(self.image_model, pooling="pooler")


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    comparison = f"{options.student} from {options.teacher}"
    plans = options.plans(__file__, comparison)
    needs_stamps(options.data_dir)
    seed = training.get("seed", 0)
    raw = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
    names = dict(enumerate(raw["train"].features["label"].names))
    rest = concatenate_datasets([raw["train"].remove_columns("sample_id"), raw["validation"]])  # nothing to validate
    train, test = with_sample_ids(rest), raw["test"]

    def inputs(part: Dataset, modality: str) -> list[Any]:
        return list(part[COLUMNS[modality]])

    encoder = options.encoder(options.student)
    views_NVF = encoded_views(encoder, inputs(train, options.student), options.views)
    test_NF = encoded_views(encoder, inputs(test, options.student), views=0)[:, 0]
    features_NF = views_NVF[:, 0].contiguous()
    bank = TeacherBank.encode(options.encoder(options.teacher), inputs(train, options.teacher))

    scale = SCALES[options.student] if options.feature_scale is None else options.feature_scale
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
    models = {"speech": options.speech_model, "text": options.text_model, "image": options.image_model}
    models = {name: encoder_in_words(model) for name, model in models.items()}
    info = ExperimentInfo(
        recipe="stamps_pairs",
        title=f"Stamps: {comparison}, few labels and many pairs",
        pipeline_tag="feature-classification",
        **named_data("Tux Paint stamps", {"train": train, "test": test}, "stamps", "English sentences, French speech"),
        teacher=f"{models[options.teacher]} ({options.teacher}), frozen; the student reads features of "
        f"{models[options.student]}",
        pairing="real triples, split by sentence",
        language={"speech": "fr", "text": "en"}.get(options.student),
    )
    run_recipe(options, training, info, plans, semi.make_trainer, {"train": train, "test": test_features})


if __name__ == "__main__":
    run_script(main)
