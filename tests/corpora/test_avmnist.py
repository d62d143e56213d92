"""AVMNIST's .npy release, in miniature: same files, shapes, types and ranges, fewer samples."""

import numpy as np
import pytest
from datasets import Array3D, Image

from hf_colearn.corpora.avmnist import load_avmnist


def write_release(folder, train=60, test=20, **changed):
    """As the release: centred images in float64, uint8 spectrograms and labels, all classes equally often."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        arrays[f"image/{split}_data"] = rng.normal(scale=60, size=(count, 784))
        arrays[f"audio/{split}_data"] = rng.integers(0, 256, (count, 112, 112), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in {**arrays, **{name.replace("__", "/"): array for name, array in changed.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix()[:-4]: np.load(path) for path in folder.rglob("*.npy")}


def rows_by_content(dataset, spectrograms):
    """The file's row of every sample, found by its spectrogram."""
    rows = {array.tobytes(): row for row, array in enumerate(spectrograms)}
    stored = np.asarray(dataset.with_format("numpy")["spectrogram"][:])
    return [rows[np.rint(image[0] * 255).astype(np.uint8).tobytes()] for image in stored]


def test_images_sounds_and_labels_stay_together(tmp_path):
    arrays = files(write_release(tmp_path))

    built = load_avmnist(tmp_path, num_validation=10)

    assert {split: len(data) for split, data in built.items()} == {"train": 50, "validation": 10, "test": 20}
    low, high = arrays["image/train_data"].min(), arrays["image/train_data"].max()
    for split, source in (("train", "train"), ("validation", "train"), ("test", "test")):
        rows = rows_by_content(built[split], arrays[f"audio/{source}_data"])
        assert built[split]["label"][:] == arrays[f"{source}_labels"][rows].tolist()
        # Centred images: the train file's range, here some -230..230, becomes 0..255.
        expected = (arrays[f"image/{source}_data"][rows] - low) / (high - low) * 255
        stored = np.stack([np.asarray(image).ravel() for image in built[split]["image"]])
        np.testing.assert_allclose(stored, np.clip(expected, 0, 255), atol=0.51)
    assert low < 0 and np.ptp(np.stack([np.asarray(image) for image in built["train"]["image"]])) > 240


def test_the_columns_are_what_students_and_teachers_take(tmp_path):
    built = load_avmnist(write_release(tmp_path), num_validation=10)

    sample = built["train"].with_format("numpy")[0]
    assert isinstance(built["train"].features["image"], Image) and built["train"][0]["image"].mode == "L"
    assert built["train"][0]["image"].size == (28, 28)
    assert built["train"].features["spectrogram"] == Array3D((1, 112, 112), "float32")
    assert sample["spectrogram"].dtype == np.float32 and sample["spectrogram"].max() <= 1
    assert built["train"].features["label"].names == list("0123456789")
    assert built["train"]["sample_id"][:] == list(range(50))
    assert built["test"].column_names == ["image", "spectrogram", "label"]


def test_validation_is_cut_by_class_and_by_seed(tmp_path):
    arrays = files(write_release(tmp_path))

    def validation_rows(seed):
        built = load_avmnist(tmp_path, seed=seed, num_validation=20)
        rows = {split: rows_by_content(built[split], arrays["audio/train_data"]) for split in ("train", "validation")}
        assert sorted(rows["train"] + rows["validation"]) == list(range(60))
        assert np.bincount(arrays["train_labels"][rows["validation"]]).tolist() == [2] * 10
        return rows["validation"]

    assert validation_rows(0) == validation_rows(0) != validation_rows(1)


@pytest.mark.parametrize(
    "images, expected",
    [
        (np.tile(np.arange(256.0)[:784 // 4], (60, 4)), np.arange(196)),  # floats of 0..255: as they are
        (np.tile(np.arange(196, dtype=np.uint8), (60, 4)), np.arange(196)),
        (np.tile(np.arange(196) / 195, (60, 4)), np.rint(np.arange(196) / 195 * 255)),  # 0..1
        (np.tile(np.linspace(-100, 155, 196), (60, 4)), np.rint(np.linspace(0, 255, 196))),  # centred
    ],
    ids=["floats to 255", "uint8", "floats to 1", "centred"],
)  # fmt: skip
def test_images_of_any_range_are_mapped_as_documented(tmp_path, images, expected):
    built = load_avmnist(write_release(tmp_path, image__train_data=images), num_validation=10)

    np.testing.assert_array_equal(np.asarray(built["train"][0]["image"]).ravel()[:196], expected)


def test_spectrograms_between_0_and_1_stay(tmp_path):
    values = np.random.default_rng(1).random((60, 112, 112), np.float32)
    test = np.random.default_rng(2).random((20, 112, 112), np.float32)

    built = load_avmnist(write_release(tmp_path, audio__train_data=values, audio__test_data=test), num_validation=10)

    np.testing.assert_array_equal(np.asarray(built["test"].with_format("numpy")["spectrogram"][:])[:, 0], test)


def test_images_stored_as_28_by_28_read_alike(tmp_path):
    flat = load_avmnist(write_release(tmp_path), num_validation=10)
    arrays = files(tmp_path)
    square = {f"image__{split}_data": arrays[f"image/{split}_data"].reshape(-1, 28, 28) for split in ("train", "test")}

    again = load_avmnist(write_release(tmp_path / "square", **square), num_validation=10)

    assert np.array_equal(np.asarray(flat["test"][3]["image"]), np.asarray(again["test"][3]["image"]))


def test_a_changed_file_is_read_anew(tmp_path):
    write_release(tmp_path)
    before = load_avmnist(tmp_path, num_validation=10)["test"]["label"][:]
    np.save(tmp_path / "test_labels.npy", (np.arange(20)[::-1] % 10).astype(np.int64))

    after = load_avmnist(tmp_path, num_validation=10)["test"]["label"][:]

    assert after == before[::-1] != before


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"image__train_data": np.zeros((60, 783))}, r"shape \(60, 783\).*\('N', 784\)"),
        ({"audio__test_data": np.zeros((20, 112))}, r"audio/test_data.npy' holds float64 of shape \(20, 112\)"),
        ({"audio__train_data": np.zeros((59, 112, 112), np.uint8)}, "60 images, 59 spectrograms and 60 labels"),
        ({"train_labels": np.zeros((60, 1), np.uint8)}, r"train_labels.npy' holds uint8 of shape \(60, 1\)"),
        ({"train_labels": np.array([*range(10)] * 5 + [10] * 10)}, "label 10 in row 50"),
        ({"test_labels": np.array([*range(10), -1] + [0] * 9)}, "label -1 in row 10"),
        ({"train_labels": np.array(["a"] * 60)}, "holds <U1"),
        ({"image__train_data": np.full((60, 784), np.nan)}, "images of 'image/train_data.npy' run from nan"),
        ({"audio__train_data": np.full((60, 112, 112), 300.0)}, "run from 300.0 to 300.0, not from 0 to 255"),
        ({"audio__test_data": np.full((20, 112, 112), -1.0)}, "spectrograms of 'audio/test_data.npy' run from -1.0"),
    ],
)
def test_files_that_are_not_avmnists_are_named(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        load_avmnist(write_release(tmp_path, **changed), num_validation=10)


def test_missing_and_broken_files_are_named(tmp_path):
    write_release(tmp_path, audio__train_data=None, train_labels=None)
    with pytest.raises(FileNotFoundError, match="has no audio/train_data.npy, train_labels.npy"):
        load_avmnist(tmp_path)
    write_release(tmp_path)
    (tmp_path / "test_labels.npy").write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(ValueError, match="test_labels.npy' is no .npy array"):
        load_avmnist(tmp_path)


@pytest.mark.parametrize("count", [0, 9, 31])
def test_validation_needs_a_sample_of_every_class_and_leaves_most(tmp_path, count):
    with pytest.raises(ValueError, match=f"num_validation={count} of 60 training samples"):
        load_avmnist(write_release(tmp_path), num_validation=count)
