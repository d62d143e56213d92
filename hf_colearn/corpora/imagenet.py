"""ImageNet: from the Hub, from a folder of images, as a stream."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import xxhash
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    Value,
    load_dataset,
)
from datasets.exceptions import DatasetNotFoundError
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from hf_colearn.corpora.imagenet_classes import meanings_of
from hf_colearn.data.columns import as_stored
from hf_colearn.data.sample_ids import with_sample_ids
from hf_colearn.data.splits import cut_validation
from hf_colearn.utils.draws import draw_bits


IMAGENET_1K = "ILSVRC/imagenet-1k"
_SIZES = {"train": 1_281_167, "test": 50_000}  # of ImageNet-1k
TEST_FOLDERS = ("val", "validation", "test")  # ImageNet's own validation split is what one tests on
SHARDS = 1024  # of a folder's stream: enough for the workers of any number of processes


def load_imagenet(
    data_dir: str | Path | None = None,
    repo: str = IMAGENET_1K,
    streaming: bool = False,
    shuffle_buffer: int = 10_000,
    seed: int = 0,
    num_validation: int | float | None = None,
) -> DatasetDict | IterableDatasetDict:
    """ImageNet-1k, or any set of images with its columns or in its folders, with a validation split cut from `train`.

    Choose checkpoints and settings on `validation`. `test` is ImageNet's own validation split, which publications report.

    **Streams.** A folder is listed at once and read in 1024 shards of random files; ids and splits are those without
    streaming. From the Hub nothing is listed, so that an id is not a row but 63 bits of a hash of the file's name and
    content: the same in every epoch, process and run, and alike for two samples with a probability of about 1e-7 in all of
    ImageNet. There, `validation` takes the samples whose hashed id falls below a threshold: about as many as asked for, not
    stratified, never in `train`; to read it is to read the whole training stream, so keep it,
    `Dataset.from_list(list(data["validation"]))`. Pairings that need a row a sample (`Paired()`, `Shuffled()`) have none in
    such a stream: train with `id_column="class_id"` to pair by class, with a bank of one row a class.

    Args:
        data_dir (`str` or `Path`, *optional*): A folder with `train` and `val` (or `validation`, or `test`), each with one
            folder a class; instead of the Hub.
        repo (`str`, *optional*, defaults to `"ILSVRC/imagenet-1k"`): A dataset of the Hub, or a folder with its files,
            with the splits `train` and `validation` and the columns `image` and `label`. ImageNet's is gated.
        streaming (`bool`, *optional*, defaults to `False`): Read as it goes instead of downloading first.
        shuffle_buffer (`int`, *optional*, defaults to 10_000): Samples (still encoded, 0.1 MB each) among which a stream
            is shuffled, by another order every epoch.
        seed (`int`, *optional*, defaults to 0): Draws the validation split, and shuffles a stream.
        num_validation (`int` or `float`, *optional*): Samples of `validation`, from 1, or their share, below 1. By default
            10,000, or a tenth of fewer than 100,000, and at least as many as there are classes.

    Returns:
        [`datasets.DatasetDict`] or [`datasets.IterableDatasetDict`]: `train`, `validation` and `test` with `image` (not
        decoded) and `label`; `train` has `sample_id` as well, and in a stream `class_id`, a copy of the label.

    Raises:
        FileNotFoundError, PermissionError: If there is no such folder, or the Hub does not let you in.
        ValueError: If folders or columns do not fit, or no such validation split can be cut.

    Example:

    ```python
    data = load_imagenet("/data/imagenet")
    processor = make_image_processor(224)
    train = with_image_transform(data["train"], ImageTransform(processor, train=True))
    ```
    """
    train, test = _from_hub(repo, streaming) if data_dir is None else _from_folder(Path(data_dir))
    features = train.features or {}  # those of all splits: a builder has one set
    if not isinstance(features.get("image"), Image) or not isinstance(features.get("label"), ClassLabel):
        raise ValueError(
            f"'{data_dir or repo}' has the columns {features}, where 'image' (an Image) and 'label' (a ClassLabel) are "
            "needed: rename and cast them, and save the dataset."
        )
    train, test = (as_stored(dataset.select_columns(["image", "label"]), "image") for dataset in (train, test))
    if isinstance(train, IterableDataset):
        split = (train.info.splits or {}).get("train")
        length = split.num_examples if split is not None else None
        number = _number_of(num_validation, length, features["label"].num_classes)
        return _stream_by_hash(train, test, shuffle_buffer, seed, number, length)
    num_validation = _number_of(num_validation, len(train), features["label"].num_classes)
    train = with_sample_ids(train)
    if streaming:
        train = train.add_column("class_id", train["label"][:])
    try:
        train, validation = cut_validation(train, num_validation, seed)
    except ValueError as error:
        raise ValueError(f"num_validation={num_validation} cannot be cut from the training set: {error}") from error
    splits = {"train": train, "validation": validation.select_columns(["image", "label"]), "test": test}
    if not streaming:
        return DatasetDict(splits)
    # The files lie class by class, so that a buffer would hold only a few classes at a time.
    splits["train"] = train.shuffle(seed=seed)
    streams = {name: part.to_iterable_dataset(num_shards=min(SHARDS, len(part))) for name, part in splits.items()}
    streams["train"] = streams["train"].shuffle(seed=seed, buffer_size=shuffle_buffer)
    return IterableDatasetDict(streams)


def is_imagenet_1k(splits: Mapping[str, Any], repo: str | None = None) -> bool:
    """Whether these are ImageNet-1k's own data, which published numbers are of: its 1000 classes in their order, and all of
    its 1,281,167 training and 50,000 validation samples, as [`load_imagenet`] splits them.

    Of a stream from the Hub, whose samples nobody counts, the name of the repository decides.
    """
    names = splits["train"].features["label"].names
    if meanings_of(names) != [[index] for index in range(1000)]:
        return False
    if not all(hasattr(part, "__len__") for part in splits.values()):
        return repo == IMAGENET_1K
    return (
        len(splits["train"]) + len(splits["validation"]) == _SIZES["train"] and len(splits["test"]) == _SIZES["test"]
    )


# ---- a folder ----
def _from_folder(folder: Path) -> list[Dataset]:
    if not folder.is_dir():
        raise FileNotFoundError(f"data_dir='{folder}' is no folder: pass the one that holds 'train' and 'val'.")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    test = next((name for name in TEST_FOLDERS if name in found), None)
    if "train" not in found or test is None:
        raise FileNotFoundError(
            f"'{folder}' holds the folders {found}, where 'train' and 'val' (or 'validation', or 'test') are needed."
        )
    classes = {name: _class_folders(folder / name) for name in ("train", test)}
    for name, other in (("train", test), (test, "train")):
        if alone := sorted(classes[name] - classes[other]):
            raise ValueError(
                f"'{folder / name}' has {len(alone)} class folders that '{folder / other}' has not, such as "
                f"{alone[:3]}: both splits need the same classes."
            )
    files = {"train": str(folder / "train" / "**"), "test": str(folder / test / "**")}
    loaded = load_dataset("imagefolder", data_files=files, drop_labels=False, drop_metadata=True)
    return [loaded["train"], loaded["test"]]


def _class_folders(split: Path) -> set[str]:
    """The names of the classes, each of which must have an image."""
    folders = sorted(path for path in split.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(
            f"'{split}' has no class folders: sort its images into one folder a class (ImageNet's validation images come "
            "in one heap, with their classes in the devkit)."
        )
    for path in folders:
        if not any(file.suffix.lower() in ImageFolder.EXTENSIONS for file in path.rglob("*")):
            raise ValueError(f"the class folder '{path}' holds no image: remove it in both splits, or fill it.")
    return {path.name for path in folders}


# ---- the Hub ----
def _from_hub(repo: str, streaming: bool) -> list[Dataset] | list[IterableDataset]:
    try:
        return [load_dataset(repo, split=split, streaming=streaming) for split in ("train", "validation")]
    except DatasetNotFoundError as error:
        raise PermissionError(
            f"'{repo}' cannot be read from the Hub ({error}) If it is gated, as ImageNet is: accept its terms on its page "
            "once, log in with `hf auth login` on this machine, and check the spelling; or pass `data_dir=`."
        ) from error


def _number_of(asked: int | float | None, length: int | None, num_classes: int) -> int | float:
    """The validation samples, from 1, or their share, below 1: as asked, or 10,000 and less of a smaller set."""
    if asked is None:
        return 10_000 if not length else min(10_000, max(length // 10, num_classes))
    return int(asked) if asked >= 1 and float(asked).is_integer() else float(asked)


def _stream_by_hash(
    train: IterableDataset,
    test: IterableDataset,
    shuffle_buffer: int,
    seed: int,
    num_validation: int | float,
    length: int | None,
) -> IterableDatasetDict:
    share = num_validation
    if not isinstance(num_validation, float):
        if not length:
            raise ValueError(
                f"num_validation={num_validation} of a stream that does not tell its length: pass a share, such as 0.01."
            )
        share = num_validation / length
    if not 0 < share < 1:
        raise ValueError(f"num_validation={num_validation} is {share:.3g} of the stream: pass less, and more than 0.")
    features = Features({**train.features, "sample_id": Value("int64"), "class_id": Value("int64")})
    numbered = train.map(_add_ids, batched=True, batch_size=32, features=features)
    columns = {"input_columns": ["sample_id"], "batched": True, "batch_size": 32}
    sides = (partial(_is_on_side, share=share, seed=seed, held_out=held_out) for held_out in (False, True))
    kept, validation = (numbered.filter(is_on_side, **columns) for is_on_side in sides)
    return IterableDatasetDict(
        train=kept.shuffle(seed=seed, buffer_size=shuffle_buffer),
        validation=validation.remove_columns(["sample_id", "class_id"]),
        test=test,
    )


def _add_ids(batch: dict[str, list]) -> dict[str, list]:
    return {**batch, "sample_id": [stream_id(cell) for cell in batch["image"]], "class_id": batch["label"]}


def stream_id(cell: dict) -> int:
    """63 bits of a hash of an encoded image: of its file's name with that of its folder, and of its bytes if at hand."""
    digest = xxhash.xxh3_64()
    if cell.get("path"):
        digest.update("/".join(PurePosixPath(cell["path"]).parts[-2:]).encode())
    digest.update(cell.get("bytes") or b"")
    return digest.intdigest() >> 1


def _is_on_side(sample_ids: list[int], share: float, seed: int, held_out: bool) -> list[bool]:
    bits = draw_bits(np.asarray(sample_ids, dtype=np.int64), epoch=0, seed=seed)
    return ((bits / 2.0**64 < share) == held_out).tolist()
