"""AVMNIST, as its .npy release is distributed. Shapes: N samples.

Source: Vielzeuf et al., "CentralNet: a Multilayer Approach for Multimodal Fusion" (ECCV workshops, 2018), in the files
that MultiBench reads (github.com/pliang279/MultiBench) and github.com/slyviacassell/_MFAS made. By the published code:

- images: MNIST's without 75 % of their energy, a PCA fitted on each file by itself, and *without the mean*: floats, with
  negative values, to which /255 gives no range;
- spectrograms: matplotlib's, of FSDD's spoken digits, drawn in grayscale into uint8 (dark is loud);
- labels: MNIST's, uint8. Image and sound are paired by class, takes 40 to 49 of FSDD are the test sounds, and each of the
  1600 training clips is used about 37 times: **a validation split shares clips with train**, the test split does not.

The release holds no waveforms. A teacher that hears needs spoken digits from elsewhere (`with_spoken_digits`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Array3D, Dataset, DatasetDict, Features, Image, NamedSplit

from hf_colearn.corpora.base import finish
from hf_colearn.corpora.handwritten_digits import DIGIT
from hf_colearn.data.splits import cut_validation


_FILES = {
    "train": ("image/train_data.npy", "audio/train_data.npy", "train_labels.npy"),
    "test": ("image/test_data.npy", "audio/test_data.npy", "test_labels.npy"),
}
_SHAPES = (((784,), (28, 28)), ((112, 112),), ((),))  # of one sample


def is_avmnist(splits: Mapping[str, Dataset]) -> bool:
    """Whether these are the release's 60,000 training and 10,000 test samples, which published numbers are of."""
    sizes = {split: len(part) for split, part in splits.items()}
    is_release = "spectrogram" in splits["train"].column_names
    return is_release and sizes["train"] + sizes["validation"] == 60_000 and sizes["test"] == 10_000


def load_avmnist(data_dir: str | Path, seed: int = 0, num_validation: int | None = None) -> DatasetDict:
    """AVMNIST's images and spectrograms, from the folder `avmnist` of its release.

    The arrays are memory-mapped and written once into the cache of `datasets` (50 kB a sample, 3.5 GB in all).

    Args:
        data_dir (`str` or `Path`): With `image/train_data.npy` `(N, 784)`, `audio/train_data.npy` `(N, 112, 112)`,
            `train_labels.npy` `(N,)`, and the same for `test`; N is 60,000 and 10,000.
        seed (`int`, *optional*, defaults to 0): Draws the validation split.
        num_validation (`int`, *optional*): How many training samples validate, the same share of every class; 5,000 by
            default, or a tenth of fewer than 50,000. (MultiBench takes the last 5,000.)

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `image` (grayscale, 28 x 28), `spectrogram`
        `(1, 112, 112)` float32 in [0, 1], `label` and, in `train`, `sample_id`. Values that lie in 0..255 (uint8) or 0..1
        keep their meaning. Images that leave 0..255, as the release's do, are mapped linearly, the train file's lowest
        value to 0 and its highest to 255, so that they fit into 8 bits; other splits' values outside are clipped.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or no array, or shapes, labels or values are not AVMNIST's.
    """
    arrays = {split: _open(Path(data_dir), split) for split in _FILES}
    labels = arrays["train"][2]
    if num_validation is None:
        num_validation = min(5000, max(10, len(labels) // 10))
    if not 10 <= num_validation <= len(labels) // 2:
        raise ValueError(
            f"num_validation={num_validation} of {len(labels)} training samples: pass 10, one a class, up to half of them."
        )
    numbered = Dataset.from_dict({"row": np.arange(len(labels)), "label": labels.astype(np.int64)})
    kept, cut = cut_validation(numbered, num_validation, seed)
    image_range = _image_range(arrays["train"][0], _FILES["train"][0])
    spectrogram_range = max(_spectrogram_range(arrays[split][1], _FILES[split][1]) for split in _FILES)
    features = Features(image=Image(), spectrogram=Array3D((1, 112, 112), "float32"), label=DIGIT)
    rows = {"train": kept["row"], "validation": cut["row"], "test": range(len(arrays["test"][2]))}
    built = {}
    for split, of_split in rows.items():
        file_split = "test" if split == "test" else "train"
        # The cache is known by these arguments: the stamp renews it when a file changes.
        files = [(Path(data_dir) / name).stat() for name in _FILES[file_split]]
        arguments = {
            "data_dir": str(Path(data_dir).resolve()),
            "file_split": file_split,
            "rows": tuple(of_split),
            "image_range": image_range,
            "spectrogram_range": spectrogram_range,
            "stamp": tuple((file.st_size, file.st_mtime_ns) for file in files),
        }
        built[split] = Dataset.from_generator(_samples, features, gen_kwargs=arguments, split=NamedSplit(split))
    return finish(built)


def _open(data_dir: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, spectrograms and labels of a split, memory-mapped."""
    if missing := [name for name in _FILES[split] if not (data_dir / name).is_file()]:
        raise FileNotFoundError(f"'{data_dir}' has no {', '.join(missing)}: pass the unpacked folder `avmnist`.")
    arrays = []
    for name, shapes in zip(_FILES[split], _SHAPES, strict=True):
        try:
            array = np.load(data_dir / name, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"'{data_dir / name}' is no .npy array ({error}): unpack the release anew.") from error
        if array.shape[1:] not in shapes or not len(array) or array.dtype.kind not in "uif":
            raise ValueError(
                f"'{data_dir / name}' holds {array.dtype} of shape {array.shape}, where numbers of shape "
                f"{' or '.join(str(('N', *shape)) for shape in shapes)} were expected: this is not AVMNIST's file."
            )
        arrays.append(array)
    images, spectrograms, labels = arrays
    if not len(images) == len(spectrograms) == len(labels):
        raise ValueError(
            f"the {split} files of '{data_dir}' disagree: {len(images)} images, {len(spectrograms)} spectrograms and "
            f"{len(labels)} labels. Unpack the release anew."
        )
    if bad := sorted(set(np.unique(labels).tolist()) - set(range(10))):
        where = f"'{data_dir / _FILES[split][2]}' has label {bad[0]} in row {int(np.argmax(labels == bad[0]))}"
        raise ValueError(f"{where}: digits run from 0 to 9.")
    return images, spectrograms, labels


def _image_range(images: np.ndarray, name: str) -> tuple[float, float]:
    """The values that become 0 and 255."""
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all() or low == high:
        raise ValueError(f"the images of '{name}' run from {low} to {high}: unpack the release anew.")
    return (low, high) if low < 0 or high > 255 else (0.0, 255.0 if high > 1 else 1.0)


def _spectrogram_range(spectrograms: np.ndarray, name: str) -> float:
    """The value that becomes 1."""
    low, high = float(spectrograms.min()), float(spectrograms.max())
    if not (low >= 0 and 0 < high <= 255):
        raise ValueError(f"the spectrograms of '{name}' run from {low} to {high}, not from 0 to 255 or 1.")
    return 255.0 if high > 1 else 1.0


def _samples(
    data_dir: str,
    file_split: str,
    rows: tuple[int, ...],
    image_range: tuple[float, float],
    spectrogram_range: float,
    stamp: tuple,
) -> Iterator[dict[str, Any]]:
    images, spectrograms, labels = _open(Path(data_dir), file_split)
    low, high = image_range
    for row in rows:
        pixels = (images[row].reshape(28, 28).astype(np.float64) - low) * (255 / (high - low))
        yield {
            "image": np.clip(np.rint(pixels), 0, 255).astype(np.uint8),
            "spectrogram": spectrograms[row][None].astype(np.float32) / np.float32(spectrogram_range),
            "label": int(labels[row]),
        }
