"""Positives that another modality finds: a few labels, and a contrastive loss whose positives are neighbours in text.

A few samples of every class are labelled, and all others are pairs with a text but without a label. The student is a small
network on frozen features of pictures or speech. Beside its labels it has a contrastive loss: of a sample that lacks some
features the positives are the whole sample, as a momentum encoder sees it, and its nearest neighbours in the space of a frozen
language model that reads the texts (CoCLR, Han et al., NeurIPS 2020). The same loss stands beside it without neighbours, with
neighbours at random, with the student's own modality's, and with those of wrong texts. Settings are chosen on a validation
part of training. Emoji are drawn from OpenMoji's font (CC BY-SA 4.0) and nothing is downloaded; stamps need a folder.

    python recipes/mined_positives.py --seeds 5                            # pictures of emoji, by their names
    python recipes/mined_positives.py --seed 0 --seeds 2 --choose true     # into mined_positives_settings.yaml
    python recipes/mined_positives.py --data stamps --data_dir STAMPS --labels_per_class 5 --seed 100 --seeds 10
    python recipes/mined_positives.py --data stamps --data_dir STAMPS --labels_per_class 5 --student image
"""

from dataclasses import dataclass, field
from typing import Any

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.splits import few_per_class, with_validation
from hf_colearn.data.views import TwoViews
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.frozen_features import encoded_splits, feature_dataset, feature_student, trained_and_tested
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.mined_positives import FeatureDropout, MinedPositives, mining_arms
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import BUDGET
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.experiments.stamps import COLUMNS, LANGUAGES, StampOptions
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(StampOptions):
    data: str = field(default="emoji", metadata={"help": "emoji (pictures and names) or stamps."})
    student: str | None = field(
        default=None, metadata={"help": "What learns: image (emoji), speech (stamps) or text."}
    )
    labels_per_class: int = field(default=3, metadata={"help": "Samples of every class that have a label."})
    classes: str = field(default="subgroup", metadata={"help": "Of emoji: subgroup (49) or category (8)."})
    images_per_class: int | None = field(default=None, metadata={"help": "Of emoji; all by default."})
    dropout: float = field(default=0.3, metadata={"help": "Share of features that the query lacks."})
    latent_dim: int = field(default=64, metadata={"help": "Width of the latent that is compared."})
    neighbours: int = field(default=5, metadata={"help": "Samples that are mined as positives."})
    queue_size: int = field(default=256, metadata={"help": "Keys of earlier batches."})
    temperature: float = field(default=1.0, metadata={"help": "What cosines are divided by."})
    decay: float = field(default=0.95, metadata={"help": "Of the momentum encoder."})

    def __post_init__(self):
        check_choice("data", self.data, ("emoji", "stamps"))
        self.student = self.student or {"emoji": "image", "stamps": "speech"}[self.data]
        super().__post_init__()
        if self.data == "emoji" and "speech" in (self.student, self.teacher):
            raise ValueError(f"emoji have no speech, and {self.student} from {self.teacher} needs it: --data stamps.")


def load_splits(options: Options, seed: int) -> tuple[dict, str]:
    """Training, validation and test, and the column that names a sample."""
    if options.data == "stamps":
        needs_stamps(options.data_dir)
        of_classes = {"test_share": 0.25, "min_per_class": options.min_per_class}
        return dict(load_stamps(options.data_dir, seed=seed, **of_classes)), "stamp_id"
    raw = dict(load_emoji(options.data_dir, classes=options.classes, test_share=0.25, seed=seed))
    if options.images_per_class is not None:
        raw = {split: few_per_class(part, options.images_per_class, seed) for split, part in raw.items()}
    return with_validation(raw, 0.3, seed), "emoji"


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    data = f"emoji, {options.classes}" if options.data == "emoji" else options.data
    comparison, seed = f"{data}: {options.student} from {options.teacher}", training.get("seed") or 0
    plans = [arm.at(BUDGET, options.labels_per_class) for arm in pick(mining_arms(), options.arms)]
    if not options.choose:
        check_comparable(plans, options.seeds)
    splits, id_column = load_splits(options, seed)
    own, other = (
        encoded_splits(splits, options.encoder(of), COLUMNS[of], id_column)
        for of in (options.student, options.teacher)
    )
    (features_NF, other_ND), labels_N, test = trained_and_tested(splits, (own, other), options.choose)
    test_features = feature_dataset(own[test], splits[test]["label"][:]).remove_columns("sample_id")
    bank, names = TeacherBank.from_latents(other_ND), dict(enumerate(splits["train"].features["label"].names))

    def make_student(latent_dim: int) -> Any:
        return options.adapted(feature_student(features_NF, [options.hidden_dim], latent_dim, names, options.scale))

    mined = MinedPositives(
        feature_dataset(features_NF, labels_N),
        bank,
        lambda: make_student(options.latent_dim),
        (features_NF / features_NF.std(dim=0).clamp(min=1e-6)).numpy(),
        TwoViews(strong=FeatureDropout(features_NF, options.dropout)),
        {name: getattr(options, name) for name in ("neighbours", "queue_size", "temperature", "decay")},
        make_matching_student=lambda: make_student(bank.dim),
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    file = options.settings_file(__file__)
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, mined.make_trainer, test_features, file, comparison)
        return
    texts = {"emoji": ("emoji", "English names"), "stamps": ("Tux Paint stamps", "English sentences, French speech")}
    name, of_texts = texts[options.data]
    info = ExperimentInfo(
        recipe="mined_positives",
        title=f"{name}: {options.student} with positives that {options.teacher} finds, few labels and many pairs",
        pipeline_tag="feature-classification",
        **named_data(name, splits, options.data, of_texts),
        teacher=options.teacher_in_words,
        pairing="real pairs",
        language=LANGUAGES.get(options.student),
    )
    data = {"train": mined.train, "test": test_features}
    run_recipe(options, training, info, with_chosen(plans, file, comparison), mined.make_trainer, data)


if __name__ == "__main__":
    run_script(main)
