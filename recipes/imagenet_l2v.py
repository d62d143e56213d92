"""Language helps vision on ImageNet: ViT and ResNet learn from scratch with the latents of a frozen language teacher.

Published (Lee & Yoon, ICLR 2025): ResNet-50 77.83 -> 78.54, ViT-B/32 75.04 -> 76.75, ViT-B/16 80.07 -> 81.90 % top-1,
with "This is about class {#}." of a *random* class. Hyperparameters are in imagenet_l2v.yaml (ViT) and
imagenet_l2v_resnet50.yaml; each can be given on the command line, too.

    accelerate launch recipes/imagenet_l2v.py --small                       # a smoke test: handwritten digits, MiniLM
    accelerate launch recipes/imagenet_l2v.py --data_dir IMAGENET           # an image folder with train/ and val/
    accelerate launch recipes/imagenet_l2v.py --data_dir MINE --small --template "a photo of {name}"   # any other one
    accelerate launch recipes/imagenet_l2v.py --data_dir IMAGENET --streaming --max_steps 375000
    accelerate launch recipes/imagenet_l2v.py --streaming --max_steps 375000 --eval_strategy no \\
        --load_best_model_at_end false                                      # the Hub's, without a copy on disk
    accelerate launch recipes/imagenet_l2v.py --config recipes/imagenet_l2v_resnet50.yaml
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, ResNetConfig, ViTConfig

from hf_colearn import (
    CoLearningArguments,
    CoLearningForImageClassification,
    CoLearningTrainer,
    Paired,
    RandomPrompt,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.corpora.imagenet import IMAGENET_1K, is_imagenet_1k, load_imagenet
from hf_colearn.corpora.imagenet_classes import words_of
from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.images import ImageTransform, as_rgb, make_image_processor, with_image_transform
from hf_colearn.data.sample_ids import labels_by_id
from hf_colearn.data.splits import cut_validation
from hf_colearn.experiments.arms import ArmPlan, chosen_arms, transfer_arms
from hf_colearn.experiments.info import ExperimentInfo, folder_name, named_data
from hf_colearn.experiments.options import RecipeOptions, parse_recipe
from hf_colearn.experiments.packaged_models import language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny, vit_tiny
from hf_colearn.models.backbones import is_convolutional
from hf_colearn.models.stochastic_depth import add_stochastic_depth
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.command_line import run_script


PUBLISHED = "ResNet-50 77.83 -> 78.54, ViT-B/32 75.04 -> 76.75, ViT-B/16 80.07 -> 81.90 % (Lee & Yoon, ICLR 2025)"


@dataclass
class Options(RecipeOptions):
    repo: str | None = field(
        default=None,
        metadata={"help": f"The Hub's dataset, where there is no --data_dir; {IMAGENET_1K} by default."},
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read while training, nothing is copied; needs --max_steps."}
    )
    shuffle_buffer: int = field(default=10_000, metadata={"help": "Samples that a stream is shuffled among."})
    num_validation: float | None = field(
        default=None,
        metadata={"help": "Training samples that choose the checkpoint, or their share; 10,000, or a tenth of fewer."},
    )
    image_size: int = field(default=224, metadata={"help": "Height and width that the student sees."})
    crop_pct: float = field(default=0.875, metadata={"help": "The centre crop's share of the short side, in tests."})
    min_crop: float = field(default=0.08, metadata={"help": "Least share of the area of a random training crop."})
    template: str = field(
        default="This is about class {}.",
        metadata={"help": "The prompt of a class: {} is its number, {name} its name, as in 'a photo of {name}'."},
    )
    pooling: str = field(default="cls", metadata={"help": "How the teacher's tokens become one latent."})
    hflip: bool = field(default=True, metadata={"help": "Mirror half of the training images."})
    drop_path: float = field(default=0.0, metadata={"help": "Stochastic depth of a ViT, in its last layer."})
    rand_ops: int = field(default=2, metadata={"help": "RandAugment's operations an image; 0 is off."})
    rand_magnitude: float = field(default=9.0, metadata={"help": "RandAugment's magnitude, 0 to 10."})
    rand_magnitude_std: float = field(default=0.5, metadata={"help": "Its standard deviation."})
    random_erasing: float = field(default=0.0, metadata={"help": "Share of images with a rectangle erased."})
    mixup: float = field(default=0.0, metadata={"help": "Beta distribution's parameter; 0 is off."})
    cutmix: float = field(default=0.0, metadata={"help": "Beta distribution's parameter; 0 is off."})
    label_smoothing: float = field(default=0.0, metadata={"help": "Share of a label spread over all classes."})


def student_config(options: Options) -> PreTrainedConfig | str:
    """A configuration (random weights, as published), or the checkpoint that `--student` names."""
    size = options.image_size
    configs: dict[str, Any] = {
        "vit_b16": lambda: ViTConfig(image_size=size, patch_size=16),
        "vit_b32": lambda: ViTConfig(image_size=size, patch_size=32),
        "resnet50": ResNetConfig,
        "vit_tiny": lambda: vit_tiny(image_size=size),
        "resnet_tiny": resnet_tiny,
    }
    return configs[options.student]() if options.student in configs else options.student


def load_data(options: Options) -> tuple[Any, dict[str, Any]]:
    """The pictures by split, and the fields of [`ExperimentInfo`] that name them, with published numbers of ImageNet alone."""
    if options.small and options.data_dir is None:
        digits = load_handwritten_digits()
        digits["train"], digits["validation"] = cut_validation(digits["train"], 0.2, seed=0)
        return digits, {"dataset_name": "handwritten digits (scikit-learn)", "dataset_type": "sklearn-digits"}
    repo = options.repo or IMAGENET_1K
    raw = load_imagenet(
        options.data_dir,
        repo,
        options.streaming,
        options.shuffle_buffer,
        seed=0,
        num_validation=options.num_validation,
    )
    if is_imagenet_1k(raw, repo if options.data_dir is None else None):
        return raw, {"dataset_name": "ImageNet-1k", "dataset_type": IMAGENET_1K, "published": PUBLISHED}
    if options.data_dir is None:
        return raw, named_data(repo, raw, "pictures", hub_id=repo)
    return raw, named_data(folder_name(options.data_dir), raw, "pictures")


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    if options.streaming and training["max_steps"] <= 0:
        raise ValueError("a stream has no length: pass --max_steps (300 epochs of ImageNet on 4 x 256 are 375,000).")
    if options.streaming and options.data_dir is None and training["eval_strategy"] != "no":
        raise ValueError(
            "a validation split of the Hub's stream is known by its ids, so each evaluation would read the whole training "
            "stream: pass --eval_strategy no --load_best_model_at_end false (the last weights are taken), or --data_dir."
        )
    raw, described = load_data(options)
    names = raw["train"].features["label"].names
    skipped: dict[str, list] = {}
    if options.skip_bad_samples:
        looked = {split: without_bad_samples(part, as_rgb, "image") for split, part in raw.items()}
        raw = {split: good for split, (good, _) in looked.items()}
        skipped = {split: bad for split, (_, bad) in looked.items()}

    prompt = RandomPrompt(options.template, names=words_of(names))
    # By class: in a stream a sample is known by a hash, and its class by a copy of the label.
    labels = np.arange(len(names)) if options.streaming else labels_by_id(raw["train"])
    class_id = "class_id" if options.streaming else None
    pairings = {"random prompts": prompt, "paired prompts": Paired(labels)}
    plans = chosen_arms(options, transfer_arms(pairings, labels, len(names), class_id))
    teacher = language_teacher(options.teacher, options.pooling)
    bank = TeacherBank.encode(teacher, prompt.prompts)
    config = student_config(options)
    statistics = {}
    if isinstance(config, str):  # a pretrained student goes on seeing what it has seen
        own = AutoImageProcessor.from_pretrained(config)
        statistics = {"mean": own.image_mean, "std": own.image_std}
    processor = make_image_processor(options.image_size, options.crop_pct, **statistics)
    crop = {"scale": (options.min_crop, 1.0), "hflip": options.hflip, "id_columns": ("sample_id", "class_id")}
    transforms = {"train": ImageTransform(processor, train=True, **crop)}
    data = {
        split: with_image_transform(part, transforms.get(split) or ImageTransform(processor, train=False))
        for split, part in raw.items()
    }
    augment = ImageAugmentation(
        len(names), processor.image_mean, processor.image_std, magnitude=options.rand_magnitude,
        magnitude_std=options.rand_magnitude_std, num_ops=options.rand_ops, erasing=options.random_erasing,
        mixup=options.mixup, cutmix=options.cutmix, label_smoothing=options.label_smoothing,
    )  # fmt: skip

    metrics = ("accuracy", "top5") if len(names) > 5 else ("accuracy", "macro_f1")  # of five, all are in the top 5

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        backbone = AutoConfig.from_pretrained(config) if isinstance(config, str) else config
        norm = "none" if is_convolutional(backbone) else "layernorm"
        student = CoLearningForImageClassification.from_backbone(
            config, bank.dim, id2label=dict(enumerate(names)), latent_norm=norm
        )
        if options.drop_path:
            add_stochastic_depth(student, options.drop_path)
        train = data["train"]
        if options.streaming:  # both ids are there, and the student would be handed the one that is not asked for
            train = train.remove_columns("class_id" if args.id_column == "sample_id" else "sample_id")
        return CoLearningTrainer(
            options.adapted(student),
            args,
            train_dataset=train,
            eval_dataset=data["validation"],
            bank=bank if arm.pairing else None,
            pairing=arm.pairing,
            augment=augment,
            optimizer_cls_and_kwargs=options.optimizer_for(args),
            compute_metrics=classification_metrics(metrics),
        )

    info = ExperimentInfo(
        recipe="imagenet_l2v",
        title=f"{without_folders(str(options.student))}, trained with a language teacher",
        pipeline_tag="image-classification",
        **described,
        teacher=f"{without_folders(str(options.teacher))}, pooling '{options.pooling}', frozen",
        pairing=f"a random class in '{options.template}', anew every epoch",
    )
    notes = {"skipped": {split: len(bad) for split, bad in skipped.items()}}
    run_recipe(options, training, info, plans, make_trainer, data, processor, notes=notes)


if __name__ == "__main__":
    run_script(main)
