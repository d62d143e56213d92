"""Precomputed features of any data set, from npz and Parquet."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_colearn.corpora.features import load_features, modalities_of
from refusals import Refusals, assert_refused


refusals = Refusals()


def arrays(count=20, first=0, **changed):
    """Two modalities, two classes, an id of its own for every sample; None takes an array away."""
    drawn = np.random.default_rng(first)
    made = {
        "image": drawn.normal(size=(count, 3)).astype(np.float32),
        "speech": drawn.normal(size=(count, 2)),
        "label": np.arange(count) % 2,
        "id": np.arange(first, first + count),
    }
    return {name: value for name, value in {**made, **changed}.items() if value is not None}


def write(folder, train=None, test=None, **others):
    folder.mkdir(exist_ok=True)
    splits = {"train": train or arrays(), "test": test or arrays(6, 100), **others}
    for split, made in splits.items():
        np.savez(folder / f"{split}.npz", **made)
    return folder


def write_parquet(folder, split, made):
    columns = {name: (x.tolist() if isinstance(x, np.ndarray) else x) for name, x in made.items()}
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def test_npz_and_parquet_give_the_same_samples_with_none_where_a_modality_is_missing(tmp_path):
    made = arrays()
    made["speech"][4] = np.nan
    npz = load_features(write(tmp_path / "npz", made, valid=arrays(8, 50)))
    folder = tmp_path / "parquet"
    folder.mkdir()
    as_lists = {**made, "speech": [None if np.isnan(row).any() else row.tolist() for row in made["speech"]]}
    for split, one in {"train": as_lists, "val": arrays(8, 50), "test": arrays(6, 100)}.items():
        write_parquet(folder, split, one)
    parquet = load_features(folder)
    assert list(npz) == ["train", "validation", "test"] and modalities_of(npz["train"]) == ("image", "speech")
    for split in npz:
        assert npz[split].features == parquet[split].features
        assert npz[split][:] == parquet[split][:]
    assert npz["train"]["speech_features"][4] is None and npz["train"]["sample_id"][:] == list(range(20))
    np.testing.assert_array_equal(npz["train"]["image_features"][4], made["image"][4])
    np.testing.assert_allclose(npz["train"]["speech_features"][5], made["speech"][5], rtol=1e-6)


def test_classes_may_have_names_and_a_validation_split_is_cut_where_there_is_none(tmp_path):
    names = np.array(["cat", "ant"])
    data = load_features(
        write(tmp_path / "x", arrays(label=names[np.arange(20) % 2]), arrays(6, 100, label=names[[0] * 6]))
    )
    assert data["train"].features["label"].names == ["ant", "cat"] and data["test"]["label"][:] == [1] * 6
    assert len(data["train"]) == 18 and sorted(data["validation"]["label"][:]) == [0, 1]  # a tenth, by class
    assert not set(data["train"]["id"][:]) & set(data["validation"]["id"][:])


def test_a_validation_split_has_groups_of_its_own(tmp_path):
    speakers = np.arange(40) // 2 % 10  # ten speakers with both classes
    train = arrays(40, label=np.arange(40) % 2, group=speakers)
    data = load_features(write(tmp_path / "x", train, arrays(6, 100, group=np.full(6, 77))))
    sides = [set(data[split]["group"][:]) for split in ("train", "validation")]
    assert len(sides[0]) == 9 and len(sides[1]) == 1 and not sides[0] & sides[1]


# ---- bad files ----
def refused(error, at_fault, *way_out):
    """A case of what a function writes into the folder."""

    def register(make):
        def situation(folder):
            make(folder / "x")
            yield
            load_features(folder / "x")

        situation.__name__ = make.__name__
        refusals.case(error, at_fault, *way_out)(situation)
        return make

    return register


@refused(FileNotFoundError, "there is no folder", "train, test and", ".parquet")
def no_folder(folder):
    pass


@refused(FileNotFoundError, "has no test.npz and no test.parquet", "['train.npz']")
def no_test(folder):
    write(folder)
    (folder / "test.npz").unlink()


@refused(ValueError, "are both the train split", "remove one")
def two_of_one_split(folder):
    write_parquet(write(folder), "train", arrays())


@refused(ValueError, "has no `label`", "image, speech, id", "add the classes")
def no_label(folder):
    write(folder, arrays(label=None))


@refused(ValueError, "20 rows of `label` and 19 of `speech`", "a row a sample")
def rows_that_disagree(folder):
    write(folder, arrays(speech=np.zeros((19, 2))))


@refused(ValueError, "has 1 modality (image)", "two or more")
def one_modality(folder):
    write(folder, arrays(speech=None))


@refused(ValueError, "row 3 of `speech`", "NaN in part", "the whole row NaN")
def nan_in_part(folder):
    made = arrays()
    made["speech"][3, 0] = np.nan
    write(folder, made)


@refused(ValueError, "row 2 of `image`", "is infinite")
def infinite(folder):
    made = arrays()
    made["image"][2, 1] = np.inf
    write(folder, made)


@refused(ValueError, "row 1 of", "has none of the modalities image, speech")
def a_sample_of_nothing(folder):
    made = arrays()
    made["image"][1], made["speech"][1] = np.nan, np.nan
    write(folder, made)


@refused(ValueError, "no sample of", "has the modality `speech`: leave it out")
def a_modality_of_nobody(folder):
    write(folder, arrays(speech=np.full((20, 2), np.nan)))


@refused(ValueError, "`speech` of", "array of Python objects", "dtype=np.float32")
def objects(folder):
    write(folder, arrays(speech=np.array([[1.0, 2.0], None] * 10, dtype=object)))


@refused(ValueError, "of shape (20, 2, 2)", "(N, F) numbers", "label, id, group")
def many_steps(folder):
    write(folder, arrays(speech=np.zeros((20, 2, 2))))


@refused(ValueError, "compute all splits alike", "{'image': 3, 'speech': 2}", "'speech': 4")
def widths_that_disagree(folder):
    write(folder, test=arrays(6, 100, speech=np.zeros((6, 4))))


@refused(ValueError, "`id` 105 is in", "in one split, once")
def a_sample_in_two_splits(folder):
    write(folder, validation=arrays(4, 105))


@refused(ValueError, "holds values such as 0.5", "number the classes from 0")
def values(folder):
    write(folder, arrays(label=np.arange(20) + 0.5))


@refused(ValueError, "'2' of column 'label' is in the split 'test'", "never in 'train'")
def a_new_class(folder):
    write(folder, test=arrays(6, 100, label=np.full(6, 2)))


@refused(ValueError, "is no npz file", "np.savez")
def no_npz(folder):
    write(folder)
    (folder / "train.npz").write_bytes(b"image,label\n")


@refused(ValueError, "cannot be read as Parquet")
def no_parquet(folder):
    write(folder)
    (folder / "train.npz").unlink()
    (folder / "train.parquet").write_bytes(b"image,label\n")


@refused(ValueError, "of 3 groups", "10 parts", "add a validation file")
def too_few_groups(folder):
    write(folder, arrays(group=np.arange(20) % 3), arrays(6, 100, group=np.zeros(6)))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_a_bad_file_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
