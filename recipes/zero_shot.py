"""Classes without a training sample: pictures of emoji or stamps, known by class vectors that a language model gives.

A share of the classes is held out, drawn anew by every seed. The student, a small network on frozen features of the pictures,
is trained on the other classes: its logits are cosines between its latent and the class vectors, of the classes' names or of
their members'. It is tested on the held-out classes by their vectors, and on all of them behind a gate of novelty. Beside it
stand learned vectors, permuted and random ones, wrong pairs, and a ridge regression.

    python recipes/zero_shot.py --small                                       # a smoke test on random features
    python recipes/zero_shot.py --seed 100 --seeds 10                         # OpenMoji's font, subgroups of emoji
    python recipes/zero_shot.py --data_dir EMOJI --seed 100 --seeds 10        # a folder of two drawings
    python recipes/zero_shot.py --data_dir EMOJI --classes category --seeds 10
    python recipes/zero_shot.py --data stamps --data_dir STAMPS --seed 100 --seeds 10
    python recipes/zero_shot.py --data_dir EMOJI --seed 0 --seeds 2 --choose true     # on classes that are put aside for it
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from safetensors.torch import save_file

from hf_colearn import TeacherBank, class_means, class_vectors
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.frozen_features import encoder_in_words, feature_dataset, picture_encoder
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, PACKAGED_VISION, language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.experiments.zero_shot import ZeroShot, zero_shot_arms
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.command_line import run_script


DATA = ("emoji", "stamps")


@dataclass
class Options(SettingsOptions):
    data: str = field(default="emoji", metadata={"help": "emoji or stamps."})
    classes: str = field(default="subgroup", metadata={"help": "Of emoji: subgroup or category (8)."})
    unseen_share: float = field(default=0.25, metadata={"help": "Of the classes, held out."})
    test_share: float = field(
        default=0.4, metadata={"help": "Of the emoji of every class; of stamps it is a quarter."}
    )
    min_per_class: int = field(default=12, metadata={"help": "Classes with fewer samples are left out."})
    image_model: str = field(default=PACKAGED_VISION, metadata={"help": "Encoder of pictures; tiny: random weights."})
    text_model: str = field(default=PACKAGED_LANGUAGE, metadata={"help": "Teacher that reads names, a package's."})
    hidden_dim: int = field(default=256, metadata={"help": "Width of the student's hidden layer; 0 for none."})
    feature_scale: float = field(default=0.1, metadata={"help": "Of the standardised features."})
    logit_scale: float = field(default=10.0, metadata={"help": "Of the cosines."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("data", self.data, DATA)

    @property
    def comparison(self) -> str:
        """The entry in a file of settings."""
        source = "openmoji" if self.data_dir is None else "emoji"
        return "stamps" if self.data == "stamps" else f"{source}, {self.classes}"

    def load(self, seed: int) -> DatasetDict:
        """The pictures with `text` and `label`: train and test."""
        if self.data == "emoji":
            kept: dict[str, Any] = {"classes": self.classes, "min_per_class": self.min_per_class}
            return load_emoji(self.data_dir, test_share=self.test_share, seed=seed, **kept)
        needs_stamps(self.data_dir)
        raw = load_stamps(self.data_dir or "", seed, test_share=0.25, min_per_class=self.min_per_class)
        rest = concatenate_datasets(
            [raw["train"].remove_columns("sample_id"), raw["validation"]]
        )  # nothing to validate
        return DatasetDict(train=rest, test=raw["test"])


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    plans = pick(zero_shot_arms(), options.arms)
    if not options.choose:
        check_comparable(plans, options.seeds)
        plans = with_chosen(plans, options.settings_file(__file__), options.comparison)
    first = training.get("seed") or 0
    raw = options.load(first)
    names = [name.replace("-", " ") for name in raw["train"].features["label"].names]
    labels = np.asarray(raw["train"]["label"][:])

    encoder, teacher = picture_encoder(options.image_model), language_teacher(options.text_model, pooling="mean")
    banks = {
        split: TeacherBank.encode(encoder, list(part["image"]))
        for split, part in raw.items()
        if split in ("train", "test")
    }
    features = {split: bank.lookup(np.arange(len(bank))) for split, bank in banks.items()}
    texts = TeacherBank.encode(teacher, list(raw["train"]["text"]))
    vectors = {"names": class_vectors(teacher, names), "members": class_means(texts.scaled("l2"), labels, names)}
    shared = {name: getattr(options, name) for name in ("unseen_share", "logit_scale")}
    experiment = ZeroShot(
        features["train"],
        labels,
        names,
        texts,
        encoder_in_words(options.text_model),
        vectors,
        plans,
        hidden_dims=[options.hidden_dim] if options.hidden_dim else [],
        scale=options.feature_scale,
        for_choice=options.choose,
        **shared,
    )
    if options.choose:
        seeds, file = range(first, first + options.seeds), options.settings_file(__file__)
        metric = "unseen_accuracy"
        choose_settings(plans, seeds, training, experiment.make_trainer, None, file, options.comparison, metric)
        return
    test = feature_dataset(features["test"], raw["test"]["label"][:]).remove_columns("sample_id")
    info = ExperimentInfo(
        recipe="zero_shot",
        title=f"Zero-shot: {options.data} by class vectors",
        pipeline_tag="feature-classification",
        **named_data(
            "Tux Paint stamps" if options.data == "stamps" else "emoji", raw, "pictures", "unseen classes by seed"
        ),
        teacher=f"{encoder_in_words(options.text_model)}, frozen, of names; the student reads features of "
        f"{encoder_in_words(options.image_model)}",
        pairing="every picture's own name",
        language="en",
    )
    data = {"train": raw["train"], "test": test}
    if run_recipe(options, training, info, plans, experiment.make_trainer, data, score=experiment):
        seen, unseen = experiment.class_vectors(experiment.kept, first)
        file = Path(training["output_dir"]) / "unseen_vectors.safetensors"  # what `student.with_classes` takes
        save_file({name: vector.contiguous() for name, vector in unseen.items()}, file)
        print(f"  {file}")


if __name__ == "__main__":
    run_script(main)
