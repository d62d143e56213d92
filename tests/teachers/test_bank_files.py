"""A bank in one or several files, as float32, float16 or int8; one made of an encoded data set; memory while encoding."""

import hashlib
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import tiny_teachers
from hf_colearn import Paired, Shuffled, Teacher, TeacherBank
from hf_colearn.objectives.objective import have_target
from hf_colearn.teachers import bank_files, bank_writing, distinct, encoding
from hf_colearn.teachers.distinct import find_distinct
from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.stored_latents import restored_latents, stored_latents
from refusals import Refusals, assert_refused


DTYPES = ["float32", "float16", "int8"]
LATENTS = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
INPUTS = [f"text {row}" for row in range(100)]


@pytest.fixture(params=[True, False], ids=["on disk", "in memory"])
def is_on_disk(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(bank_files, "IN_MEMORY", 0)


def saved(folder, dtype="float32", rows_per_file=30, latents=LATENTS):
    TeacherBank.from_latents(latents, inputs=INPUTS[: len(latents)]).save(folder, dtype, rows_per_file)
    return TeacherBank.load(folder)


def as_read(dtype):
    return restored_latents(*stored_latents(LATENTS, dtype))


# ---- several files ----
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_several_files_are_those_of_one_array(dtype, is_on_disk, tmp_path):
    bank = saved(tmp_path, dtype)
    rows = np.array([99, 0, 29, 30, 31, 30, 59, 60, 89, 90])  # both sides of every border

    assert sorted(path.name for path in tmp_path.glob("*.arrow")) == [
        f"latents-{file:05d}-of-00004.arrow" for file in range(4)
    ]
    assert (bank.dtype, len(bank), bank.dim) == (dtype, 100, 8)
    for read in (bank, pickle.loads(pickle.dumps(bank))):
        assert read.lookup(rows).dtype == torch.float32
        np.testing.assert_array_equal(read.lookup(rows), as_read(dtype)[rows])
    assert bank.inputs == INPUTS and bank.rows_of(["text 77", "text 2"]).tolist() == [77, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_and_scaling_are_of_the_latents_as_they_are_read(dtype, is_on_disk, tmp_path):
    bank, expected = saved(tmp_path, dtype), as_read(dtype).astype(np.float64)
    deviation = (expected - expected.mean(axis=0)) / expected.std(axis=0)

    np.testing.assert_allclose(bank.mean(), expected.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bank.std(), expected.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(bank.scaled("standardized").lookup(range(100)), deviation, rtol=1e-4, atol=1e-5)
    norms = bank.scaled("l2").lookup(range(100)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(100))


def test_a_bank_that_is_saved_again_is_not_rounded_again(is_on_disk, tmp_path):
    first = saved(tmp_path / "first", "int8")
    first.save(tmp_path / "second")
    second = TeacherBank.load(tmp_path / "second")

    assert (second.dtype, second.fingerprint) == ("int8", first.fingerprint)
    assert torch.equal(second.lookup(range(100)), first.lookup(range(100)))
    assert [path.name for path in (tmp_path / "second").glob("*.arrow")] == ["latents.arrow"]


def test_the_fingerprint_tells_the_dtypes_apart(tmp_path):
    fingerprints = [saved(tmp_path / dtype, dtype).fingerprint for dtype in DTYPES]

    assert fingerprints[0] == TeacherBank.from_latents(LATENTS, inputs=INPUTS).fingerprint
    assert len(set(fingerprints)) == 3
    scaled = TeacherBank.load(tmp_path / "int8").scaled("standardized")
    scaled.save(tmp_path / "scaled")  # in 8 bits, hence rounded anew
    assert TeacherBank.load(tmp_path / "scaled").fingerprint != scaled.fingerprint


def test_a_bank_of_fewer_files_leaves_none_of_more(tmp_path):
    saved(tmp_path, rows_per_file=30)
    bank = saved(tmp_path, rows_per_file=60)

    assert len(list(tmp_path.glob("*.arrow"))) == 2
    np.testing.assert_array_equal(bank.lookup([59, 60]), LATENTS[[59, 60]])


def test_files_are_cut_at_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(bank_writing, "FILE_BYTES", 400)  # of rows of 8 + 4 bytes: 33

    saved(tmp_path, "int8", None)

    assert len(list(tmp_path.glob("latents-*-of-00004.arrow"))) == 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_encoding_stores_what_is_asked_for(dtype, tmp_path):
    encoder, texts = tiny_teachers.bert(), ["a dog", "a cat", "a dog"]

    bank = TeacherBank.encode(encoder, texts, tmp_path, show_progress=False, dtype=dtype)

    exact = torch.cat([encoder.encode([text]) for text in texts]).numpy()
    np.testing.assert_allclose(bank.lookup(range(3)), restored_latents(*stored_latents(exact, dtype)), atol=1e-2)
    assert (bank.dtype, bank.num_distinct, bank.inputs) == (dtype, 2, texts)
    assert bank.description.get("latent_dtype", "float32") == dtype
    assert TeacherBank.encode(encoder, texts, tmp_path, dtype=dtype).fingerprint == bank.fingerprint
    assert len(os.listdir(tmp_path)) == 1


# ---- an encoded data set ----
HAVE = np.array([True, True, False, True, True, True])  # row 2 has no latent


def encoded(folder, dtype):
    """Six rows in two shards and their manifest, by hand."""
    folder.mkdir(exist_ok=True)
    values, scales = stored_latents(LATENTS[:6], dtype)
    shards = []
    for shard, rows in enumerate((slice(0, 4), slice(4, 6))):
        mask = pa.array(~HAVE[rows])
        flat = pa.array(np.ascontiguousarray(values[rows]).reshape(-1))
        table = {"sample_id": pa.array(np.arange(6)[rows])}
        table["teacher_latents"] = pa.FixedSizeListArray.from_arrays(flat, 8, mask=mask)
        if scales is not None:
            table["teacher_latents_scale"] = pa.array(scales[rows], mask=~HAVE[rows])
        path = folder / f"data-{shard:05d}-of-00002.parquet"
        pq.write_table(pa.table(table), path)
        content = path.read_bytes()
        facts = {"file": path.name, "rows": rows.stop - rows.start, "paired": int(HAVE[rows].sum())}
        shards.append({**facts, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    manifest = Manifest(
        job="job", teacher={"teacher": "by hand", "modality": "text"}, source={}, input_column="text",
        column="teacher_latents", id_column="sample_id", keep="ids", dim=8, dtype=dtype, rows=6, paired=5, distinct=5,
        mean=np.zeros(8), std=np.ones(8), shards=shards,
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.as_json())
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bank_of_an_encoded_data_set_has_its_rows(dtype, is_on_disk, tmp_path):
    folder = encoded(tmp_path / "encoded", dtype)

    bank = TeacherBank.from_encoded(folder, tmp_path / "banks")

    assert (len(bank), bank.dtype, bank.description["teacher"]) == (6, dtype, "by hand")
    targets = bank.lookup(range(6))
    assert have_target(targets).tolist() == HAVE.tolist()
    np.testing.assert_array_equal(targets[HAVE], as_read(dtype)[:6][HAVE])
    expected = as_read(dtype)[:6][HAVE].astype(np.float64)
    np.testing.assert_allclose(bank.mean(), expected.mean(axis=0), rtol=1e-5, atol=1e-7)
    again = TeacherBank.from_encoded(folder, tmp_path / "banks")
    assert again.fingerprint == bank.fingerprint and len(os.listdir(tmp_path / "banks")) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_without_a_latent_stays_one_scaled_saved_and_shuffled(dtype, tmp_path):
    bank = TeacherBank.from_encoded(encoded(tmp_path / "encoded", dtype), tmp_path / "banks")

    for how in ("standardized", "l2"):
        scaled = bank.scaled(how)
        scaled.save(tmp_path / how, dtype="int8")
        for each in (scaled, TeacherBank.load(tmp_path / how)):
            assert have_target(Teacher(each, Paired()).targets(np.arange(6), 0, 0)).tolist() == HAVE.tolist()
    shuffled = Teacher(bank, Shuffled()).targets(np.arange(6), epoch=0, seed=0)
    assert sorted(have_target(shuffled).tolist()) == [False] + [True] * 5


# ---- memory and distinct inputs ----
class Texts:
    """N texts, made when they are read, so that they take no memory."""

    def __init__(self, number, different):
        self.number, self.different = number, different

    def __len__(self):
        return self.number

    def __getitem__(self, row):
        if row >= self.number:
            raise IndexError
        return f"text {row * 7919 % self.different}"


def peak_of_encoding(encoder, number, folder):
    texts = Texts(number, number * 3 // 4)
    tracemalloc.start()
    bank = TeacherBank.encode(encoder, texts, folder, show_progress=False)
    assert len(bank) == number
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_encoding_takes_a_few_bytes_an_input(tmp_path, monkeypatch):
    # 4 of the index, 4 of the positions, 8 of the batches, and blocks so small that they do not count.
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 32_768)
    monkeypatch.setattr(bank_files, "IN_MEMORY", 0)
    for name, value in {"IN_MEMORY": 0, "_BLOCK": 256, "_PART": 512}.items():
        monkeypatch.setattr(distinct, name, value)
    encoder = tiny_teachers.bert()
    assert encoder.dim == 32
    encoder.encode = lambda batch, positions: torch.ones(len(batch), 32)
    peak_of_encoding(encoder, 100, tmp_path)  # imports

    small, large = (peak_of_encoding(encoder, number, tmp_path) for number in (1_000, 4_000))

    assert (large - small) / 3_000 < 40


@pytest.mark.parametrize("part", [3, 1 << 21])
@pytest.mark.parametrize("block", [7, 1 << 16])
def test_distinct_inputs_are_numbered_as_they_first_occur(block, part, monkeypatch):
    monkeypatch.setattr(distinct, "_BLOCK", block)
    monkeypatch.setattr(distinct, "_PART", part)
    letters = np.random.default_rng(0).integers(0, 20, 300)
    numbers = {}
    index = [numbers.setdefault(letter, len(numbers)) for letter in letters.tolist()]

    found = find_distinct([str(letter) for letter in letters])

    assert found.index.tolist() == index
    assert list(found.positions) == [index.index(number) for number in range(len(numbers))]
    # what the version before gave, which names the caches
    assert found.fingerprint == "403a4c37d84991c667a62555ddc408f2"
    assert find_distinct(["a", "b"]).positions == range(2)


# ---- what is refused ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_a_bank_that_cannot_be_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(ValueError, "latents-00001-of-00004.arrow' has 0 bytes", "Delete the folder")
def a_file_that_is_gone(folder):
    saved(folder / "bank")
    (folder / "bank" / "latents-00001-of-00004.arrow").unlink()
    yield
    TeacherBank.load(folder / "bank")


@case(ValueError, "it lists no latents.arrow", "Delete the folder")
def a_file_that_is_not_listed(folder):
    saved(folder)
    described = json.loads((folder / "bank.json").read_text())
    del described["files"]["latents-00001-of-00004.arrow"]
    (folder / "bank.json").write_text(json.dumps(described))
    yield
    TeacherBank.load(folder)


def mix(folder, dtype, width):
    """The second of two files is another bank's."""
    saved(folder / "bank", rows_per_file=50)
    saved(folder / "other", dtype, rows_per_file=50, latents=np.ones((100, width)))
    name = "latents-00001-of-00002.arrow"
    os.replace(folder / "other" / name, folder / "bank" / name)
    described = json.loads((folder / "bank" / "bank.json").read_text())
    described["files"][name] = Path(folder / "bank" / name).stat().st_size
    (folder / "bank" / "bank.json").write_text(json.dumps(described))


@case(ValueError, "one type and one width", "float32 of shape [8]", "int8 of shape [8]", "latents-00001-of-00002")
def files_of_two_types(folder):
    mix(folder, "int8", 8)
    yield
    TeacherBank.load(folder / "bank")


@case(ValueError, "float32 of shape [8]", "float32 of shape [9]", "latents-00001-of-00002")
def files_of_two_widths(folder):
    mix(folder, "float32", 9)
    yield
    TeacherBank.load(folder / "bank")


@case(ValueError, "dtype='int4' is unknown", "float16, int8")
def a_dtype_that_is_none(folder):
    yield
    TeacherBank.from_latents(LATENTS).save(folder / "bank", "int4")


@case(ValueError, "dtype='half' is unknown", "float16, int8")
def an_encoding_in_a_dtype_that_is_none(folder):
    yield
    TeacherBank.encode(tiny_teachers.bert(), ["a"], folder / "banks", dtype="half")


@case(ValueError, "rows_per_file=0", "at least 1")
def files_without_rows(folder):
    yield
    TeacherBank.from_latents(LATENTS).save(folder / "bank", rows_per_file=0)


@case(ValueError, "dimension 0 of latent 1 is 70000", "store float32 or int8")
def a_latent_that_half_precision_cannot_hold(folder):
    yield
    TeacherBank.from_latents(np.array([[1.0], [7e4]])).save(folder, "float16")


@case(ValueError, "data-00001-of-00002.parquet' has 7 bytes", "the manifest says", "repeat its `hf-colearn encode`")
def a_shard_that_is_truncated(folder):
    os.truncate(encoded(folder / "encoded", "float32") / "data-00001-of-00002.parquet", 7)
    yield
    TeacherBank.from_encoded(folder / "encoded", folder / "banks")


@case(ValueError, "has no 'manifest.json'", "hf-colearn encode")
def a_folder_without_a_manifest(folder):
    (folder / "empty").mkdir()
    yield
    TeacherBank.from_encoded(folder / "empty", folder / "banks")
