"""Do pairs matter? A student with few labels learns from a bag of sentences of which none belongs to any of its samples.

The student is a small network on frozen features of pictures or speech; a few samples of every class are labelled. In training
the distribution of its latents is pulled to that of the sentences' latents, as a whole or class by class, and the shares of
the classes that it predicts to theirs; of the sentences as many are labelled. Beside it stand random prompts (every
sample sees the prompt of a random class; Lee & Yoon, ICLR 2025), true pairs, and null controls. Data are emoji with their
names, from packages alone, or Tux Paint's stamps with a sentence each. Settings are chosen on a validation part of training.

    python recipes/unpaired_distribution.py --seeds 5                                    # emoji
    python recipes/unpaired_distribution.py --seed 0 --seeds 2 --choose true
    python recipes/unpaired_distribution.py --data stamps --data_dir STAMPS --student speech --labels_per_class 5 --seeds 5
"""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.splits import few_per_class, with_validation
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.frozen_features import encoded_splits, feature_dataset, feature_student, trained_and_tested
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import BUDGET
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.experiments.stamps import COLUMNS, LANGUAGES, StampOptions
from hf_colearn.experiments.unpaired_distribution import PROMPTS, UnpairedDistributions, unpaired_arms
from hf_colearn.objectives.distribution_matching import DISTANCES
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.command_line import run_script


NAMES = {"emoji": "Emoji", "stamps": "Tux Paint stamps"}


@dataclass
class Options(StampOptions):
    data: str = field(default="emoji", metadata={"help": "emoji (with their names) or stamps (with a sentence each)."})
    student: str = field(default="image", metadata={"help": "What learns: image, of stamps also speech."})
    teacher: str = field(default="text", metadata={"help": "What it learns from: text, which prompts are, too."})
    classes: str = field(default="subgroup", metadata={"help": "Of emoji: subgroup or category (8)."})
    min_per_class: int = field(default=12, metadata={"help": "Classes with fewer samples are left out."})
    labels_per_class: int = field(default=3, metadata={"help": "Samples of every class that have a label."})
    samples_per_class: int | None = field(default=None, metadata={"help": "Of every split; all by default."})
    distance: str = field(default="sliced_wasserstein", metadata={"help": "sliced_wasserstein, sinkhorn or mmd."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("data", self.data, NAMES)
        check_choice("student", self.student, ("image",) if self.data == "emoji" else ("image", "speech"))
        check_choice("teacher", self.teacher, ("text",))
        check_choice("distance", self.distance, DISTANCES)


def load(options: Options, seed: int) -> tuple[dict[str, Dataset], str]:
    """`train`, `validation` and `test` with `image`, `text` and `label`, and the column that names a sample."""
    if options.data == "stamps":
        needs_stamps(options.data_dir)
        splits = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
        name = "stamp_id"
    else:
        raw = load_emoji(options.data_dir, classes=options.classes, seed=seed, min_per_class=options.min_per_class)
        splits, name = with_validation(raw, 0.3, seed), "emoji"
    if options.samples_per_class is not None:
        splits = {split: few_per_class(part, options.samples_per_class, seed) for split, part in splits.items()}
    return dict(splits), name


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    seed, comparison = training.get("seed") or 0, f"{options.data}, {options.student}"
    splits, sample = load(options, seed)
    names = dict(enumerate(splits["train"].features["label"].names))
    arms = unpaired_arms([name.replace("-", " ") for name in names.values()])
    plans = [arm.at(BUDGET, options.labels_per_class) for arm in pick(arms, options.arms)]
    text = options.encoder("text")
    own = encoded_splits(splits, options.encoder(options.student), COLUMNS[options.student], sample)
    other = encoded_splits(splits, text, "text", sample)
    prompts = next(arm.pairing.prompts for arm in arms if arm.method == PROMPTS)
    (own_NF, other_ND), labels_N, test = trained_and_tested(splits, (own, other), options.choose)

    def make_student() -> Any:
        return options.adapted(feature_student(own_NF, [options.hidden_dim], other_ND.shape[1], names, options.scale))

    unpaired = UnpairedDistributions(
        feature_dataset(own_NF, labels_N),
        TeacherBank.from_latents(other_ND),
        make_student,
        own_NF.numpy(),
        TeacherBank.encode(text, prompts, show_progress=False),
        options.distance,
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    test_features = feature_dataset(own[test], splits[test]["label"][:]).remove_columns("sample_id")
    file = options.settings_file(__file__)
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, unpaired.make_trainer, test_features, file, comparison)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="unpaired_distribution",
        title=f"{NAMES[options.data]}: {options.student} from text without pairs, few labels",
        pipeline_tag="feature-classification",
        **named_data(NAMES[options.data], splits, "samples", "English sentences"),
        teacher=options.teacher_in_words,
        pairing="none; true pairs in the reference",
        language=LANGUAGES.get(options.student),
    )
    data = {"train": unpaired.train, "test": test_features}
    run_recipe(options, training, info, with_chosen(plans, file, comparison), unpaired.make_trainer, data)


if __name__ == "__main__":
    run_script(main)
