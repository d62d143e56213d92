"""A data set with a teacher's latents in a column: what is written, once a distinct input, and what a repeat does."""

import hashlib
import json
import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from PIL import Image as Picture

import tiny_teachers
from hf_colearn import LatentColumn, TeacherBank
from hf_colearn.teachers.encoded import shard as one_shard
from hf_colearn.teachers.encoded.job import Part, encode_dataset, encode_source
from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.encoded.moments import Moments
from hf_colearn.teachers.encoded.outputs import FolderOutput, told
from hf_colearn.teachers.encoded.plan import EncodingOptions
from hf_colearn.teachers.encoded.source import Source
from hf_colearn.teachers.stored_latents import restored_latents
from refusals import Refusals, assert_refused


TEXT = Features({"text": Value("string"), "label": Value("int64")})
# Two shards with inputs that repeat and one that is missing, and a shard without rows: 4 + 3 rows, 3 + 2 distinct inputs.
SHARDS = [["a dog", None, "a cat", "a dog"], ["a boat", "a dog", "a boat"], []]
SHARDS[0].append("a very small elephant")
ROWS = [text for shard in SHARDS for text in shard]


@pytest.fixture(scope="module")
def encoder():
    return tiny_teachers.bert()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of Parquet files."""
    folder = tmp_path_factory.mktemp("source") / "texts"
    folder.mkdir()
    for number, rows in enumerate(SHARDS):
        columns = {"text": rows, "label": list(range(len(rows)))}
        Dataset.from_dict(columns, features=TEXT).to_parquet(folder / f"{number}.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def encoded(texts, encoder, tmp_path_factory):
    """The folder of an encoding, which the tests do not change."""
    folder = tmp_path_factory.mktemp("encoded") / "out"
    encode(texts, encoder, folder)
    return folder


def encode(source, encoder, output="out", column="text", **options):
    return encode_dataset(source, encoder, column, output, **{"show_progress": False, **options})


def rows_of(folder):
    return list(load_dataset(str(folder), split="train", streaming=True))


def sizes_of(encoder, run):
    """How many inputs the model has seen in each forward pass of `run()`."""
    sizes = []
    hook = encoder.model.register_forward_pre_hook(
        lambda model, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    run()
    hook.remove()
    return sizes


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# ---- what is written ----
@pytest.mark.parametrize(("dtype", "steps"), [("float32", 1e-6), ("float16", 2.0**-11), ("int8", 0.5 / 127)])
def test_latents_are_those_of_a_bank_as_they_are_stored(texts, encoder, dtype, steps):
    manifest = encode(texts, encoder, dtype=dtype)

    stream = load_dataset("out", split="train", streaming=True)
    assert stream.features["teacher_latents"] == List(Value(dtype), length=32)
    bank = TeacherBank.encode(encoder, [text for text in ROWS if text is not None], "banks", show_progress=False)
    rows = list(stream)
    assert [row["text"] for row in rows] == ROWS
    assert [row["teacher_latents"] is None for row in rows] == [text is None for text in ROWS]
    rows = [row for row in rows if row["text"] is not None]
    scales = np.array([row["teacher_latents_scale"] for row in rows]) if dtype == "int8" else None
    found = restored_latents(np.array([row["teacher_latents"] for row in rows]), scales)
    wanted = bank.lookup(range(len(bank))).numpy()
    # A row's largest number bounds the rounding of each: half a unit of float16's 11 bits, half a step of int8's 127.
    assert (np.abs(found - wanted) <= steps * np.abs(wanted).max(axis=1, keepdims=True) + 1e-7).all()
    assert (manifest.column, manifest.dtype, manifest.dim) == ("teacher_latents", dtype, 32)
    np.testing.assert_allclose(manifest.mean, found.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(manifest.std, found.std(axis=0), rtol=1e-5)


def test_distinct_inputs_of_a_shard_are_encoded_once(texts, encoder):
    encoder.dim  # noqa: B018  (one forward pass, once)

    sizes = sizes_of(encoder, lambda: encode(texts, encoder))

    # "a dog", "a cat" and the elephant; "a boat" and "a dog".
    assert sizes == [3, 2]


def test_blocks_of_a_shard_share_their_inputs_and_number_its_rows(texts, encoder, encoded, monkeypatch):
    monkeypatch.setattr(one_shard, "_BLOCK_ROWS", 2)

    sizes = sizes_of(encoder, lambda: encode(texts, encoder))

    # "a dog"; "a cat", where the dog is known; the elephant; and "a boat" and a dog of the second shard, a boat that is known.
    assert sizes == [1, 1, 1, 2]
    assert [row["sample_id"] for row in rows_of("out")] == [row["sample_id"] for row in rows_of(encoded)]
    np.testing.assert_allclose(Manifest.read("out").std, Manifest.read(encoded).std, rtol=1e-5)


def test_the_manifest_counts_and_fingerprints_what_is_there(encoded, encoder):
    manifest = Manifest.read(encoded)

    assert (manifest.rows, manifest.paired, manifest.distinct) == (8, 7, 5)
    assert [(shard["rows"], shard["paired"]) for shard in manifest.shards] == [(5, 4), (3, 3), (0, 0)]
    for shard in manifest.shards:
        content = (encoded / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest.teacher == encoder.description()
    assert (manifest.input_column, manifest.id_column, manifest.keep) == ("text", "sample_id", "all")
    column = LatentColumn.of(str(encoded))
    assert (column.column, column.dim, column.description["fingerprint"]) == ("teacher_latents", 32, manifest.job)


def test_ids_count_the_rows_of_each_shard_of_a_stream(encoded):
    assert [row["sample_id"] for row in rows_of(encoded)] == [0, 1, 2, 3, 4, 2**32, 2**32 + 1, 2**32 + 2]


def test_ids_of_the_source_are_kept_and_columns_beside_them_left_out(encoder):
    source = Dataset.from_dict({"text": ["a", "b"], "number": [7, 5], "other": [1, 2]})

    encode(source, encoder, keep="ids", id_column="number", latent_column="seen")

    rows = rows_of("out")
    assert [row["number"] for row in rows] == [7, 5]
    assert [sorted(row) for row in rows] == [["number", "seen"]] * 2


def test_rows_in_ranges_are_numbered_through(texts, encoder):
    manifest = encode(texts, encoder, num_shards=4)

    # 8 rows in 4 shards, which is more than there are files.
    assert [shard["rows"] for shard in manifest.shards] == [2, 2, 2, 2]
    rows = rows_of("out")
    assert [row["text"] for row in rows] == ROWS
    assert [row["sample_id"] for row in rows] == list(range(8))


def test_images_and_sounds_are_kept_as_they_were(tmp_path):
    Path("pictures").mkdir()
    drawn = np.random.default_rng(0)
    for number in range(2):
        Picture.fromarray(drawn.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(f"pictures/{number}.png")
        soundfile.write(f"{number}.wav", drawn.normal(size=1600) / 9, tiny_teachers.RATE)
    sounds = Dataset.from_dict({"sound": ["0.wav", "1.wav", None]}).cast_column("sound", Audio())
    teachers = {"image": tiny_teachers.vit(), "sound": tiny_teachers.wav2vec2()}

    for column, kind, source in (("image", Image, "pictures"), ("sound", Audio, sounds)):
        encode(source, teachers[column], column, column=column)

        stream = load_dataset(column, split="train", streaming=True)
        assert isinstance(stream.features[column], kind)
        rows = list(stream.cast_column(column, kind(decode=False)))
        files = sorted(tmp_path.rglob({"image": "*.png", "sound": "*.wav"}[column]))
        assert [row[column]["bytes"] for row in rows[:2]] == [file.read_bytes() for file in files]
        wanted = torch.cat([teachers[column].encode([str(file)]) for file in files])
        torch.testing.assert_close(torch.tensor([row["teacher_latents"] for row in rows[:2]]), wanted)
    assert rows[2]["teacher_latents"] is None


def test_columns_of_a_stream_without_features_are_found_and_rows_of_other_types_refused(encoder):
    Path("lines").mkdir()
    Path("lines/0.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b", "n": 2}\n')
    Path("lines/1.jsonl").write_text('{"text": "c", "n": "two"}\n')

    with pytest.raises(ValueError, match="shard 1 of 2: its rows cannot be read in the types of the first rows"):
        encode("lines", encoder)

    assert [path.name for path in Path("out").glob("*.parquet")] == ["data-00000-of-00002.parquet"]
    Path("lines/1.jsonl").write_text('{"text": "c", "n": 13456}\n')  # of the same size
    encode("lines", encoder)
    assert [(row["text"], row["n"]) for row in rows_of("out")] == [("a", 1), ("b", 2), ("c", 13456)]


def test_moments_of_parts_are_those_of_the_whole():
    rows = np.random.default_rng(0).normal(size=(50, 3)) + [0, 1e6, -5]
    ones = np.ones(50)

    parts = Moments.none(3) + Moments.of(rows[:7], ones[:7]) + Moments.none(3) + Moments.of(rows[7:], ones[7:])

    np.testing.assert_allclose(parts.mean_D, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(parts.std_D, rows.std(axis=0), rtol=1e-9)
    again = Moments.from_json(json.loads(json.dumps(parts.as_json())))
    assert np.array_equal(again.squares_D, parts.squares_D)


# ---- again ----
def test_a_repeat_encodes_what_is_not_there(texts, encoder, encoded):
    encode(texts, encoder)
    assert bytes_of("out") == bytes_of(encoded)

    assert sizes_of(encoder, lambda: encode(texts, encoder)) == []

    Path("out/data-00001-of-00003.parquet").unlink()
    assert sizes_of(encoder, lambda: encode(texts, encoder, batch_size=1)) == [1, 1]
    assert sorted(bytes_of("out")) == sorted(bytes_of(encoded))


def test_what_killed_runs_left_is_removed_and_what_living_ones_write_is_not(texts, encoder):
    ended = multiprocessing.get_context("fork").Process(target=os.getpid)
    ended.start()
    ended.join()
    output = FolderOutput("out")
    output.folder.mkdir()
    left, living, elsewhere, old = (
        Path("out", f".data-00001-of-00003.parquet~{host}~{process}~.partial")
        for host, process in (
            (socket.gethostname(), ended.pid),
            (socket.gethostname(), os.getppid()),
            ("elsewhere", ended.pid),
            ("elsewhere", 1),
        )
    )
    for path in (left, living, elsewhere, old):
        path.touch()
    os.utime(old, (0, 0))

    encode(texts, encoder)

    assert [path.exists() for path in (left, living, elsewhere, old)] == [False, True, True, False]
    assert len(rows_of("out")) == 8


def test_runs_share_the_shards_and_the_last_one_writes_the_manifest(texts, encoder, encoded):
    source, options = Source.open(texts), EncodingOptions("text")

    first, last = (
        encode_source(source, encoder, options, FolderOutput("out"), Part.parse(part), show_progress=False)
        for part in ("0/2", "1/2")
    )

    # Shards 0 and 2, then shard 1.
    assert (first.encoded, first.missing, first.manifest) == (2, 1, None)
    assert (last.encoded, last.missing) == (1, 0)
    assert last.manifest.rows == 8
    assert bytes_of("out") == bytes_of(encoded)


def test_a_row_that_cannot_be_encoded_is_named_and_leaves_nothing_of_its_shard(encoder):
    def samples(shards):
        for shard in shards:
            yield from ({"image": image} for image in shard)

    good = {"bytes": tiny_png(), "path": None}
    shards = [[good], [good, {"bytes": b"no image", "path": None}]]
    features = Features({"image": Image(decode=False)})
    stream = IterableDataset.from_generator(samples, gen_kwargs={"shards": shards}, features=features)

    with pytest.raises(ValueError, match="shard 1 of 2: teacher input 1 is no image that can be decoded"):
        encode(stream, tiny_teachers.vit(), column="image")

    assert sorted(path.name for path in Path("out").iterdir()) == ["data-00000-of-00002.parquet", "job.json"]


def tiny_png():
    Picture.new("RGB", (8, 8)).save("tiny.png")
    return Path("tiny.png").read_bytes()


def test_a_full_disk_is_told():
    said = "the disk under 'out' is full .* shards that are done are not encoded again"
    with pytest.raises(OSError, match=said), told(Path("out")), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"0")


# ---- refused ----
refusals = Refusals()


def one(**columns):
    return Dataset.from_dict({"text": ["a"], **columns})


@refusals.case(ValueError, "has no column 'caption'", "choose one of text")
def a_missing_column(folder):
    yield
    encode(one(), tiny_teachers.bert(), folder / "out" / "new", "caption")


@refusals.case(ValueError, "dtype='int4' is unknown", "int8")
def an_unknown_dtype(folder):
    yield
    encode(one(), tiny_teachers.bert(), folder / "out" / "new", dtype="int4")


@refusals.case(ValueError, "has a column 'teacher_latents' already", "another `latent_column`")
def latents_that_are_there(folder):
    yield
    encode(one(teacher_latents=[1]), tiny_teachers.bert(), folder / "out" / "new")


@refusals.case(ValueError, "has a column 't_scale' already", "another `latent_column`")
def scales_that_are_there(folder):
    yield
    encode(one(t_scale=[1]), tiny_teachers.bert(), folder / "out" / "new", latent_column="t", dtype="int8")


@refusals.case(ValueError, "the ids in column 'sample_id' are string", "another `id_column`")
def ids_that_are_names(folder):
    yield
    encode(one(sample_id=["x"]), tiny_teachers.bert(), folder / "out" / "new")


@refusals.case(ValueError, "are both 'x'", "another name")
def one_name_for_two_columns(folder):
    yield
    encode(one(), tiny_teachers.bert(), folder / "out" / "new", id_column="x", latent_column="x")


@refusals.case(ValueError, "num_shards=2, and the source has 1 rows", "choose fewer")
def more_shards_than_rows(folder):
    yield
    encode(one(), tiny_teachers.bert(), folder / "out" / "new", num_shards=2)


@refusals.case(ValueError, "is a file", "pass a folder")
def an_output_that_is_a_file(folder):
    (folder / "out" / "file").touch()
    yield
    encode(one(), tiny_teachers.bert(), folder / "out" / "file")


@refusals.case(ValueError, "holds 'mine.txt'", "a folder of its own")
def a_folder_of_something_else(folder):
    (folder / "out" / "mine.txt").touch()
    yield
    encode(one(), tiny_teachers.bert(), folder / "out")


@refusals.case(ValueError, "teacher.weights", "pass another output")
def another_teacher(folder):
    encode(one(), tiny_teachers.bert(), folder / "out" / "new")
    yield
    encode(one(), tiny_teachers.bert(seed=1), folder / "out" / "new")


@refusals.case(ValueError, "dtype 'float32' there, 'int8' here", "source.rows")
def another_source_and_dtype(folder):
    encode(one(), tiny_teachers.bert(), folder / "out" / "new")
    yield
    encode(one(other=[1]), tiny_teachers.bert(), folder / "out" / "new", dtype="int8")


@refusals.case(ValueError, "part='2/2'", "'0/16' to '15/16'")
def a_part_beyond_the_last(folder):
    yield
    Part.parse("2/2")


@refusals.case(ValueError, "has no 'manifest.json'", "is not finished")
def an_unfinished_encoding(folder):
    FolderOutput(folder / "out").begin({"job": "x"})
    yield
    Manifest.read(folder / "out")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
