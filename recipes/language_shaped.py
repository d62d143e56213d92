"""Language-shaped learning: pictures whose captions a small decoder writes in training, with few labels and many captions.

The student is a small convolutional network from scratch. A few pictures of every class are labelled, and all of training have
a caption, which a decoder writes from the student's latent (LSL, Mu et al., ACL 2020); it is dropped afterwards, and the
student sees pictures alone. Captions of other pictures must not help; captions whose words are in another order should not
hurt much. Data are emoji with their names, from packages alone, or Tux Paint's stamps with a sentence each. Settings are chosen
on a validation part of the training pictures.

    python recipes/language_shaped.py --seeds 5                                          # emoji
    python recipes/language_shaped.py --seed 0 --seeds 2 --choose true
    python recipes/language_shaped.py --data stamps --data_dir /usr/share/tuxpaint/stamps --seeds 5
"""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn import CoLearningForImageClassification, classification_metrics, with_sample_ids
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.splits import cut_validation
from hf_colearn.data.views import FlipAndShift
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.captions import word_tokenizer
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.language_shaped import Captioned, caption_arms
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import BUDGET
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.command_line import run_script


NAMES = {"emoji": "Emoji", "stamps": "Tux Paint stamps"}


@dataclass
class Options(SettingsOptions):
    data: str = field(default="emoji", metadata={"help": "emoji (with their names) or stamps (with a sentence each)."})
    image_size: int = field(default=32, metadata={"help": "Pixels of a picture's side."})
    labels_per_class: int = field(default=5, metadata={"help": "Pictures of every class that have a label."})
    min_per_class: int = field(default=16, metadata={"help": "Classes with fewer pictures are left out."})
    latent_dim: int = field(default=64, metadata={"help": "Width of the latent that the decoder begins with."})
    decoder_dim: int = field(default=64, metadata={"help": "Width of the decoder."})
    max_tokens: int = field(default=16, metadata={"help": "Of a caption; longer ones lose their end."})

    def __post_init__(self):
        super().__post_init__()
        if self.data not in NAMES:
            raise ValueError(f"data='{self.data}' is unknown: choose {' or '.join(NAMES)}.")


def load(options: Options, seed: int) -> dict[str, Dataset]:
    """`train` and `test` with `image`, `text` and `label`. Settings are chosen on a validation part of training."""
    if options.data == "stamps":
        needs_stamps(options.data_dir)
        raw = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
        train, validation = raw["train"], raw["validation"]
    else:
        raw = load_emoji(options.data_dir, size=options.image_size, seed=seed, min_per_class=options.min_per_class)
        train, validation = cut_validation(raw["train"], 0.25, seed)
    parts = [train, validation, raw["test"]]
    train, validation, test = (part.select_columns(["image", "text", "label"]) for part in parts)
    if options.choose:
        return {"train": with_sample_ids(train), "test": validation}
    return {"train": with_sample_ids(concatenate_datasets([train, validation])), "test": test}


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    seed, size = training.get("seed") or 0, options.image_size
    plans = [arm.at(BUDGET, options.labels_per_class) for arm in pick(caption_arms(), options.arms)]
    splits = load(options, seed)
    processor = ViTImageProcessorPil(size={"height": size, "width": size})
    data = {split: with_pixel_values(part.remove_columns("text"), processor) for split, part in splits.items()}
    names = dict(enumerate(splits["train"].features["label"].names))
    tokenizer = word_tokenizer(splits["train"]["text"][:])

    def make_student(with_decoder: bool) -> Any:
        decoder = {"captions": {"vocab_size": len(tokenizer), "hidden_size": options.decoder_dim}}
        student = CoLearningForImageClassification.from_backbone(
            resnet_tiny(),
            options.latent_dim,
            id2label=names,
            latent_norm="none",
            training_heads=decoder if with_decoder else None,
            problem_type="single_label_classification",
        )
        return options.adapted(student)

    captioned = Captioned(
        data["train"],
        tokenizer,
        splits["train"]["text"][:],
        splits["test"]["text"][:],
        make_student,
        options.max_tokens,
        augment=FlipAndShift(),
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    file = options.settings_file(__file__)
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, captioned.make_trainer, data["test"], file, options.data)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="language_shaped",
        title=f"{NAMES[options.data]}: pictures shaped by their captions, few labels and many captions",
        pipeline_tag="image-classification",
        **named_data(NAMES[options.data], splits, "pictures", f"captions of {len(tokenizer)} words"),
        teacher="captions, without a model",
        pairing="every picture with its caption",
    )
    plans = with_chosen(plans, file, options.data)
    runs = run_recipe(options, training, info, plans, captioned.make_trainer, data, processor, score=captioned.score)
    if runs:  # of the main process
        print(f"\n{captioned.table(runs)}")


if __name__ == "__main__":
    run_script(main)
