"""Language-shaped learning: pictures whose captions a small decoder writes in training, with few labels and many captions.

The student is a small network on frozen features of pictures. A few pictures of every class are labelled, and all of training
have a caption, which a decoder writes from the student's latent (LSL, Mu et al., ACL 2020); it is dropped afterwards, and the
student sees pictures alone. Captions of other pictures must not help; captions whose words are in another order should not
hurt much. Data are emoji with their names, from packages alone, or Tux Paint's stamps with a sentence each. Settings are chosen
on a validation part of the training pictures.

    python recipes/language_shaped.py --seeds 5                                          # emoji
    python recipes/language_shaped.py --data stamps --data_dir /usr/share/tuxpaint/stamps --seeds 5
    python recipes/language_shaped.py --data stamps --data_dir STAMPS --seed 0 --seeds 2 --choose true
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset

from hf_colearn import classification_metrics
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.splits import cut_validation
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.captions import word_tokenizer
from hf_colearn.experiments.frozen_features import encoder_in_words, feature_dataset, feature_student
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.language_shaped import Captioned, caption_arms
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_VISION
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import BUDGET
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.experiments.stamps import encoded_splits
from hf_colearn.experiments.vokens import picture_encoder
from hf_colearn.utils.command_line import run_script


NAMES = {"emoji": "Emoji", "stamps": "Tux Paint stamps"}


@dataclass
class Options(SettingsOptions):
    data: str = field(default="emoji", metadata={"help": "emoji (with their names) or stamps (with a sentence each)."})
    image_model: str = field(default=PACKAGED_VISION, metadata={"help": "Encoder of pictures; tiny: random weights."})
    labels_per_class: int = field(default=5, metadata={"help": "Pictures of every class that have a label."})
    min_per_class: int = field(default=16, metadata={"help": "Classes with fewer pictures are left out."})
    hidden_dim: int = field(default=128, metadata={"help": "Width of the student's hidden layer."})
    latent_dim: int = field(default=64, metadata={"help": "Width of the latent that the decoder begins with."})
    decoder_dim: int = field(default=128, metadata={"help": "Width of the decoder."})
    feature_scale: float = field(default=0.1, metadata={"help": "Of the standardised features."})

    def __post_init__(self):
        super().__post_init__()
        if self.data not in NAMES:
            raise ValueError(f"data='{self.data}' is unknown: choose {' or '.join(NAMES)}.")


def load(options: Options, seed: int) -> tuple[dict[str, Dataset], str]:
    """`train`, `validation` and `test` with `image`, `text` and `label`, and the column that names a picture."""
    if options.data == "stamps":
        needs_stamps(options.data_dir)
        stamps = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
        return dict(stamps), "stamp_id"
    emoji = load_emoji(options.data_dir, seed=seed, min_per_class=options.min_per_class)
    train, validation = cut_validation(emoji["train"], 0.25, seed)
    return {"train": train, "validation": validation, "test": emoji["test"]}, "emoji"


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    seed = training.get("seed") or 0
    plans = [arm.at(BUDGET, options.labels_per_class) for arm in pick(caption_arms(), options.arms)]
    splits, id_column = load(options, seed)
    features = encoded_splits(splits, picture_encoder(options.image_model), "image", id_column)
    # Settings are chosen on the validation part, which is trained on afterwards.
    train, test = (["train"], "validation") if options.choose else (["train", "validation"], "test")
    train_NF = torch.cat([features[split] for split in train])
    labels_N, captions = ([cell for split in train for cell in splits[split][of]] for of in ("label", "text"))
    test_features = feature_dataset(features[test], splits[test]["label"][:]).remove_columns("sample_id")

    tokenizer = word_tokenizer(captions)
    names = dict(enumerate(splits["train"].features["label"].names))

    def make_student(with_decoder: bool) -> Any:
        decoder = {"captions": {"vocab_size": len(tokenizer), "hidden_size": options.decoder_dim}}
        heads, hidden = decoder if with_decoder else None, [options.hidden_dim]
        student = feature_student(
            train_NF, hidden, options.latent_dim, names, options.feature_scale, training_heads=heads
        )
        return options.adapted(student)

    captioned = Captioned(
        feature_dataset(train_NF, labels_N),
        tokenizer,
        captions,
        splits[test]["text"],
        make_student,
        train_NF.numpy(),
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    file = options.settings_file(__file__)
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, captioned.make_trainer, test_features, file, options.data)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="language_shaped",
        title=f"{NAMES[options.data]}: pictures shaped by their captions, few labels and many captions",
        pipeline_tag="feature-classification",
        **named_data(NAMES[options.data], splits, options.data, f"{len(tokenizer)} words"),
        teacher=f"captions, without a model; the student reads features of {encoder_in_words(options.image_model)}",
        pairing="every picture with its caption",
    )
    data = {"train": captioned.train, "test": test_features}
    plans = with_chosen(plans, file, options.data)
    runs = run_recipe(options, training, info, plans, captioned.make_trainer, data, score=captioned.score)
    if runs:  # of the main process
        print(f"\n{captioned.table(runs)}")


if __name__ == "__main__":
    run_script(main)
