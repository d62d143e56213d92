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

from hf_colearn import TeacherBank, classification_metrics, with_sample_ids
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.views import StoredViews, TwoViews
from hf_colearn.experiments.chosen_settings import SemiSupervisedOptions, ask
from hf_colearn.experiments.frozen_features import (
    encoded_views,
    feature_dataset,
    feature_student,
)
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import SemiSupervised
from hf_colearn.experiments.stamps import COLUMNS, LANGUAGES, StampOptions
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(StampOptions, SemiSupervisedOptions):
    views: int = field(default=4, metadata={"help": "Augmented copies of every input, for FixMatch."})


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

    semi = SemiSupervised(
        feature_dataset(features_NF, train["label"][:]),
        bank,
        lambda: options.adapted(feature_student(features_NF, [options.hidden_dim], bank.dim, names, options.scale)),
        (features_NF / features_NF.std(dim=0).clamp(min=1e-6)).numpy(),
        TwoViews(strong=StoredViews(views_NVF[:, 1:].contiguous())),
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    test_features = feature_dataset(test_NF, test["label"][:]).remove_columns("sample_id")
    if options.choose or options.check_teacher:
        return ask(options, training, plans, semi, test_features, __file__, comparison)
    info = ExperimentInfo(
        recipe="stamps_pairs",
        title=f"Stamps: {comparison}, few labels and many pairs",
        pipeline_tag="feature-classification",
        **named_data("Tux Paint stamps", {"train": train, "test": test}, "stamps", "English sentences, French speech"),
        teacher=options.teacher_in_words,
        pairing="real triples, split by sentence",
        language=LANGUAGES.get(options.student),
    )
    run_recipe(options, training, info, plans, semi.make_trainer, {"train": train, "test": test_features})


if __name__ == "__main__":
    run_script(main)
