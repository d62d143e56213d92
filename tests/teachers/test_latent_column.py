"""Latents in a column of the data: read in every form, scaled, shown by pairings that need no other rows, refused by name."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value

from docstrings import run_example
from hf_colearn import (
    ConstantTarget,
    Drawn,
    LatentColumn,
    Mismatched,
    Noisy,
    Paired,
    PairedFraction,
    Pairing,
    Permuted,
    RandomPrompt,
    RandomPrototypes,
    Shuffled,
    Teacher,
    TeacherBank,
)
from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.stored_latents import stored_latents


IDS = np.arange(4)
LATENTS = np.array([[1, 2], [3, -4], [np.nan, np.nan], [254, 0]], dtype=np.float32)
MOMENTS = {"mean": [1.0, 2.0], "std": [2.0, 4.0]}


def stored(dtype, fmt=None):
    """The latents in a data set as `hf-colearn encode` writes them, and their column; sample 2 has none."""
    values, scales = stored_latents(np.nan_to_num(LATENTS), dtype)
    columns = {"t": [None if i == 2 else row for i, row in enumerate(values.tolist())]}
    features = {"t": List(Value(dtype), length=2)}
    if scales is not None:
        columns["t_scale"] = [None if i == 2 else scale for i, scale in enumerate(scales.tolist())]
        features["t_scale"] = Value("float32")
    return Dataset.from_dict(columns, features=Features(features)).with_format(fmt), LatentColumn("t", 2, dtype)


@pytest.mark.parametrize("fmt", [None, "numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_targets_are_the_latents_of_the_samples_as_they_were_stored(dtype, fmt):
    dataset, column = stored(dtype, fmt)
    streamed = dataset.to_iterable_dataset().with_format(fmt)
    # int8: rows divided by 2 / 127, 4 / 127 and 2, and rounded; 1 is 63.5 steps, which rounds to 64, and 3 is 95.25.
    expected = LATENTS.copy()
    if dtype == "int8":
        expected[:2] = [[64 * np.float32(2 / 127), 2], [95 * np.float32(4 / 127), -4]]

    for samples in (list(dataset), list(streamed)):
        targets = Teacher(column).targets(IDS, 0, 0, samples)
        assert targets.dtype == torch.float32
        np.testing.assert_allclose(targets, expected, rtol=1e-6)
        assert dtype == "int8" or np.array_equal(targets, LATENTS, equal_nan=True)


def test_scaling_is_that_of_a_bank():
    bank = TeacherBank.from_latents(LATENTS[[0, 1, 3]])
    dataset, column = stored("float32")
    samples = list(dataset)
    for how, scaled in (
        ("l2", column.scaled("l2")),
        ("standardized", column.measured(dataset).scaled("standardized")),
    ):
        targets = Teacher(scaled).targets(IDS, 0, 0, samples)
        assert torch.equal(targets[[0, 1, 3]], bank.scaled(how).lookup([0, 1, 2]))
        assert targets[2].isnan().all() and scaled.scaling == how
    # Of what is given: (1 - 1) / 2, (2 - 2) / 4; (3 - 1) / 2, (-4 - 2) / 4.
    given = Teacher(LatentColumn("t", 2, **MOMENTS).scaled("standardized")).targets(IDS[:2], 0, 0, samples[:2])
    assert given.tolist() == [[0, 0], [1, -1.5]]
    assert len({c.fingerprint for c in (column, column.scaled("l2"), LatentColumn("t", 2, **MOMENTS))}) == 3


def test_measured_moments_are_those_of_the_rows_that_have_a_latent():
    for dtype in ("float32", "int8"):
        dataset, column = stored(dtype)
        measured = column.measured(dataset)
        latents = Teacher(column).targets(IDS, 0, 0, list(dataset))[[0, 1, 3]]
        torch.testing.assert_close(measured.mean(), latents.mean(0))
        torch.testing.assert_close(measured.std(), latents.std(0, correction=0))


class Halved(Pairing):
    """A pairing of the user's that shows something else than the bank's rows."""

    def targets(self, bank, sample_ids, epoch, seed):
        return bank.lookup(sample_ids) / 2


@pytest.mark.parametrize(
    "pairing",
    [Paired(), Noisy(Paired(), 0.5), PairedFraction(Paired(), 0.5), Permuted(Paired(), [0, 1, 0, 1]), Halved()],
    ids=lambda pairing: type(pairing).__name__,
)
def test_what_needs_no_other_rows_shows_what_it_shows_of_a_bank(pairing):
    samples = [{"t": row.tolist()} for row in np.nan_to_num(LATENTS)]
    teacher = Teacher(LatentColumn("t", 2), pairing)
    teacher.check(np.zeros(0, dtype=np.int64))
    teacher.check(IDS)

    of_bank = Teacher(TeacherBank.from_latents(np.nan_to_num(LATENTS)), pairing).targets(IDS, 3, 7)
    torch.testing.assert_close(teacher.targets(IDS, 3, 7, samples), of_bank, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "pairing", [ConstantTarget(), RandomPrototypes(num_prototypes=3), RandomPrototypes([0, 1, 0, 1])]
)
def test_controls_of_moments_leave_samples_without_a_latent_without_a_target(pairing):
    column = LatentColumn("t", 2, **MOMENTS)
    targets = Teacher(column, pairing).targets(IDS, 0, 0, [{"t": None if i == 2 else [0, 1]} for i in IDS])

    assert targets.isnan().any(dim=1).tolist() == [False, False, True, False]
    if isinstance(pairing, ConstantTarget):
        assert targets[0].tolist() == MOMENTS["mean"]


@pytest.mark.parametrize(
    ("pairing", "name"),
    [
        (Shuffled(), "Shuffled"),
        (Paired([0, 1, 2, 3]), r"Paired\(rows\)"),
        (Noisy(Mismatched(Paired(), 0.5)), r"Noisy\(Mismatched\)"),
        (Drawn(), "Drawn"),
        (RandomPrompt("class {}", 4), "RandomPrompt"),
    ],
)
@pytest.mark.parametrize("ids", [IDS, IDS[:0]], ids=["ids", "stream"])
def test_what_needs_other_rows_is_refused_by_name(pairing, name, ids):
    with pytest.raises(
        ValueError, match=f"^{name} shows samples other latents than their own, and column 't'.*a bank"
    ):
        Teacher(LatentColumn("t", 2), pairing).check(ids)


def test_unknown_moments_are_refused_with_the_way_out():
    for call in (
        lambda: LatentColumn("t", 2).scaled("standardized"),
        lambda: Teacher(LatentColumn("t", 2), ConstantTarget()).check(IDS),
    ):
        with pytest.raises(ValueError, match=r"of column 't' are not known: .*LatentColumn.of\(folder\).*mean=.*'l2'"):
            call()
    with pytest.raises(ValueError, match="of vectors of length 1 are not known: use latent_scaling='standardized'"):
        Teacher(LatentColumn("t", 2, **MOMENTS).scaled("l2"), ConstantTarget()).check(IDS)
    with pytest.raises(ValueError, match="the data are a IterableDataset"):
        LatentColumn("t", 2).measured(stored("float32")[0].to_iterable_dataset())
    with pytest.raises(ValueError, match="no variance"):
        LatentColumn("t", 2, mean=[1, 1], std=[0, 0]).scaled("standardized")


@pytest.mark.parametrize(
    ("column", "sample", "text"),
    [
        (LatentColumn("t", 3), {"t": [1, 2]}, "column 't' has 2 numbers in sample id 5, and dim=3"),
        (LatentColumn("t", 2), {"u": [1, 2]}, "no column 't' .they have 'u'"),
        (LatentColumn("t", 2, "int8"), {"t": [1, 2]}, "no column 't_scale'"),
        (LatentColumn("t", 2), {"t": [1, 2], "t_scale": 0.5}, "pass LatentColumn.*dtype='int8'"),
        (LatentColumn("t", 2), {"t": [1, np.nan]}, "the latent of sample id 5 in column 't' has numbers that are not"),
        (LatentColumn("t", 2).scaled("l2"), {"t": [0, 0]}, "sample id 5 in column 't' is 0 in every dimension"),
    ],
)
def test_cells_that_do_not_fit_are_refused(column, sample, text):
    with pytest.raises(ValueError, match=text):
        Teacher(column).targets(np.array([5]), 0, 0, [sample])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"column": ""}, "column='' is no name"),
        ({"dim": 0}, "dim=0"),
        ({"dtype": "int4"}, "dtype='int4' is unknown: choose one of float32, float16, int8"),
        ({"mean": [1.0, 2.0]}, "mean and std belong together, and std is missing"),
        ({"mean": [1.0], "std": [1.0]}, "mean has the shape .1,.: pass 2 finite numbers"),
    ],
)
def test_bad_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        LatentColumn(**{"column": "t", "dim": 2, **arguments})


def test_the_manifest_tells_what_the_column_is(tmp_path):
    numbers = {
        "rows": 4,
        "paired": 3,
        "distinct": 3,
        "dim": 2,
        "mean": np.array([1.0, 2.0]),
        "std": np.array([2.0, 4.0]),
    }
    words = {"input_column": "text", "column": "t", "id_column": "sample_id", "keep": "all", "dtype": "int8"}
    teacher = {"teacher": "a language model", "dtype": "float32", "pooling": "mean"}
    manifest = Manifest(job="1234", teacher=teacher, source={}, shards=[], **numbers, **words)
    (tmp_path / "manifest.json").write_text(manifest.as_json())

    column = LatentColumn.of(str(tmp_path))
    assert column.columns == ("t", "t_scale") and column.dim == 2
    assert column.mean().tolist() == [1, 2] and column.std().tolist() == [2, 4]
    assert column.fingerprint == "1234"
    assert teacher.items() <= column.description.items()


def test_a_column_that_is_shown_as_it_is_needs_no_ids():
    column = LatentColumn("t", 2)
    assert not Teacher(column).needs_ids and Teacher(column, Noisy(Paired())).needs_ids


def test_the_example():
    run_example(LatentColumn)
