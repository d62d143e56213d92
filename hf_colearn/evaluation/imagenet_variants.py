"""The accuracy of an ImageNet classifier of transformers on ImageNet's variants.

Every image is counted once on any number of processes, every accuracy has an interval, and a result that is not that of
the whole benchmark has a caveat. Shapes: B images, C outputs of the model, K classes that may be the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, IterableDataset
from tqdm.auto import tqdm

from hf_colearn.corpora.imagenet_classes import imagenet_classes_of, imagenet_names, imagenet_wnids, outputs_of_model
from hf_colearn.evaluation.corruptions import Condition, all_conditions, check_can_corrupt
from hf_colearn.evaluation.image_scoring import ScoringSamples, UnreadImage, columns_of
from hf_colearn.evaluation.imagenet_results import CorruptionResult, RobustnessResult
from hf_colearn.models.image_modes import WHITE, Colour, rgb_of
from hf_colearn.utils import distributed


SHOWN_BAD_SAMPLES = 20  # the report names that many


@dataclass(frozen=True)
class Variant:
    """One of ImageNet's test sets."""

    title: str  # as it stands in tables
    samples: int | None = None  # images of the whole set; without, its size is not judged
    masked: bool = False  # the answer is sought among the set's own 200 classes only
    source: str | None = None  # a dataset of the Hub; none where we know of no sound one
    split: str | None = None


VARIANTS = {
    "val": Variant("ImageNet val", 50_000, source="ILSVRC/imagenet-1k", split="validation"),
    "v2": Variant("ImageNet-V2", 10_000, source="clip-benchmark/wds_imagenetv2", split="test"),
    "r": Variant("ImageNet-R", 30_000, masked=True, source="axiong/imagenet-r", split="test"),
    "sketch": Variant("ImageNet-Sketch", 50_889, source="clip-benchmark/wds_imagenet_sketch", split="test"),
    "a": Variant("ImageNet-A", 7_500, masked=True, source="barkermrl/imagenet-a", split="train"),
    "stylized": Variant("Stylized-ImageNet", 50_000),
    "c": Variant("ImageNet-C", 50_000),
}


@dataclass(frozen=True)
class EvaluationOptions:
    """How to go through a dataset.

    Args:
        batch_size (`int`, *optional*, defaults to 64): Images a forward pass, on every process.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode, beside each process that computes.
        max_samples (`int`, *optional*): The first of a stream, else evenly spread ones; the result has a caveat.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Count unreadable images instead of stopping.
        label_column (`str`, *optional*): By default the first of `wnid`, `label`, `labels`, `cls`.
        background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): What is behind transparent images,
            as in training.
    """

    batch_size: int = 64
    num_workers: int = 0
    max_samples: int | None = None
    skip_bad_samples: bool = False
    label_column: str | None = None
    background: Colour = WHITE

    def __post_init__(self):
        for name in ("batch_size", "max_samples"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: it must be at least 1.")
        rgb_of(self.background)


def evaluate_classifier(
    model: Any,
    processor: Any,
    dataset: Dataset | IterableDataset,
    options: EvaluationOptions | None = None,
    variant: Variant | None = None,
    is_cropped: bool = False,
) -> RobustnessResult:
    """Scores an image classifier on a dataset whose labels are ImageNet's classes.

    The answer is sought among the ImageNet classes that the model knows; with `variant.masked`, among the dataset's
    own classes alone, as ImageNet-R and -A define it. All processes of the run (of torch's default group) share the
    work, each image is counted once, and all of them return the same result.

    Args:
        model ([`PreTrainedModel`]): With `logits` `[B, C]` and labels in its config that name ImageNet's classes.
        processor: The model's image processor.
        dataset ([`datasets.Dataset`] or [`datasets.IterableDataset`]): With one `Image` column and labels that
            [`~hf_colearn.corpora.imagenet_classes.imagenet_classes_of`] understands.
        options ([`EvaluationOptions`], *optional*): Batch size and so on.
        variant ([`Variant`], *optional*): What the dataset is; without, its size is not judged.
        is_cropped (`bool`, *optional*, defaults to `False`): For ImageNet-C's files, which are 224 x 224 crops.

    Raises:
        ValueError: If labels are unknown or unknown to the model, an image cannot be read (it names the file), or the
            logits are not finite.

    Example:

    ```python
    result = evaluate_classifier(model, processor, load_dataset("axiong/imagenet-r", split="test"), variant=VARIANTS["r"])
    print(result.accuracy, result.interval)
    ```
    """
    return _evaluate(model, processor, dataset, options, variant, (), is_cropped)[0]


def evaluate_corruptions(
    model: Any,
    processor: Any,
    dataset: Dataset | IterableDataset,
    options: EvaluationOptions | None = None,
    conditions: Sequence[Condition] | None = None,
) -> CorruptionResult:
    """Scores a classifier as [`evaluate_classifier`] on ImageNet's validation images, each decoded once and corrupted here.

    Args:
        conditions (`Sequence`, *optional*): Corruptions and severities; all 75 by default.

    Raises:
        ImportError: If corrupt-tta is not installed.
    """
    check_can_corrupt()
    conditions = all_conditions() if conditions is None else list(conditions)
    results = _evaluate(model, processor, dataset, options, VARIANTS["c"], conditions)
    return CorruptionResult(dict(zip(conditions, results, strict=True)), "made on the fly by corrupt-tta")


def evaluate_archive(
    model: Any,
    processor: Any,
    datasets: Mapping[Condition, Dataset | IterableDataset],
    options: EvaluationOptions | None = None,
) -> CorruptionResult:
    """Scores a classifier as [`evaluate_classifier`] on the files of ImageNet-C, one dataset a corruption and severity.

    Args:
        datasets (`Mapping`): Opened from the folders that [`~hf_colearn.evaluation.corruptions.find_archive`] finds.
    """
    results = {
        condition: evaluate_classifier(model, processor, dataset, options, VARIANTS["c"], is_cropped=True)
        for condition, dataset in datasets.items()
    }
    return CorruptionResult(results, "the archive's files")


def _evaluate(
    model: Any,
    processor: Any,
    dataset: Dataset | IterableDataset,
    options: EvaluationOptions | None,
    variant: Variant | None,
    conditions: Sequence[Condition],
    is_cropped: bool = False,
) -> list[RobustnessResult]:
    options = EvaluationOptions() if options is None else options
    variant = Variant("dataset") if variant is None else variant
    image_column, label_column = columns_of(dataset, options.label_column)
    label_feature = dataset.features[label_column]
    class_of = imagenet_classes_of(dataset, label_column, only_present=variant.masked)
    outputs, notes = outputs_of_model(model.config)
    if isinstance(dataset, Dataset) or isinstance(label_feature, ClassLabel) or variant.masked:  # all labels are known
        _check_known(set(class_of.values()) - outputs.keys(), len(class_of))
    competing = sorted(set(class_of.values()) if variant.masked else outputs)
    if variant.masked and len(competing) != 200:
        notes += (f"masked to the {len(competing)} classes that are there, where the set has 200",)
    if not isinstance(label_feature, ClassLabel) and label_feature.dtype != "string":
        notes += (f"the integers of column '{label_column}' are taken for ImageNet's class indices",)
    samples = ScoringSamples(
        dataset,
        image_column,
        label_column,
        class_of,
        processor,
        conditions,
        is_cropped,
        options.max_samples,
        options.background,
    )
    answers = (torch.tensor(competing), torch.tensor([outputs[index] for index in competing]))
    was_training = model.training
    try:
        with distributed.raise_on_all_ranks():
            own = _count(model.eval(), samples, answers, options, len(conditions) or 1)
    finally:
        model.train(was_training)
    counts, bad = zip(*distributed.from_all_processes(own), strict=True)
    seen, correct = np.sum(counts, axis=0)
    if not seen.all():
        raise ValueError(f"{variant.title} has no image that can be read: there is nothing to score.")
    names = sorted(f"{image.name}: {image.reason}" for of_process in bad for image in of_process)
    return [
        RobustnessResult(
            title=variant.title,
            samples=samples,
            correct=right,
            classes=len(competing),
            skipped=len(names),
            bad_samples=tuple(names[:SHOWN_BAD_SAMPLES]),
            whole=variant.samples,
            is_first_look=options.max_samples is not None,
            notes=notes,
        )
        for samples, right in zip(seen.tolist(), correct.tolist(), strict=True)
    ]


def _check_known(unknown: set[int], classes: int) -> None:
    if unknown:
        shown = ", ".join(f"{imagenet_wnids()[i]} ({imagenet_names()[i]})" for i in sorted(unknown)[:5])
        raise ValueError(
            f"the model has no output for {len(unknown)} of the dataset's {classes} classes, such as {shown}: score it "
            "on its own classes, or name its outputs in `config.id2label`."
        )


@torch.inference_mode()
def _count(
    model: Any,
    samples: ScoringSamples,
    answers: tuple[torch.Tensor, torch.Tensor],
    options: EvaluationOptions,
    views: int,
) -> tuple[np.ndarray, list[UnreadImage]]:
    """This process's counts of images and of hits, `(2, views)`, and what it could not read."""
    classes_K, outputs_K = (indices.to(model.device) for indices in answers)
    counts = torch.zeros(2, views, dtype=torch.int64, device=model.device)  # on the device: no wait for every batch
    is_finite = torch.ones((), dtype=torch.bool, device=model.device)
    bad: list[UnreadImage] = []
    with tqdm(unit="image", leave=False, disable=distributed.rank() > 0) as bar:
        for batch in samples.loader(options.batch_size, options.num_workers):
            if batch.bad and not options.skip_bad_samples:
                raise ValueError(
                    f"'{batch.bad[0].name}' cannot be read ({batch.bad[0].reason}): mend or remove it, or count such "
                    "images with `skip_bad_samples=True` (`--skip_bad_samples`)."
                )
            bad += batch.bad
            if batch.pixel_values is None:
                continue
            logits_BC = model(pixel_values=batch.pixel_values.to(model.device, model.dtype)).logits
            logits_BK = logits_BC[:, outputs_K].float()
            is_finite &= logits_BK.isfinite().all()
            hits_B = classes_K[logits_BK.argmax(dim=1)] == batch.targets.to(model.device)
            views_B = batch.views.to(model.device)
            counts[0].index_add_(0, views_B, torch.ones_like(views_B))
            counts[1].index_add_(0, views_B, hits_B.long())
            bar.update(len(views_B))
    if not is_finite:
        raise ValueError("the model gives NaN or infinite logits: look at its weights, or load it in float32.")
    return counts.cpu().numpy(), bad
