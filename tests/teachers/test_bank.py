"""The teacher bank: encoded once, never stale, never half-written, and read by row as if it were an array in memory."""

import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from datasets import Dataset
from huggingface_hub import DatasetCard
from PIL import Image

import tiny
import tiny_teachers
from docstrings import run_example
from hf_colearn import TeacherBank
from hf_colearn.teachers.bank import default_cache_dir
from hf_colearn.teachers.bank_writing import write_bank
from hub_double import HubDouble, run_child
from refusals import Refusals, assert_refused


ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a dog", "a cat", "a dog", "an elephant in a very small boat"]


def encode(encoder=None, inputs=TEXTS, cache_dir="banks", **kwargs):
    return TeacherBank.encode(encoder or tiny_teachers.bert(), inputs, cache_dir, show_progress=False, **kwargs)


def everything(bank):
    return bank.lookup(range(len(bank)))


def files(folder="banks"):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# ---- encoding once ----
def test_rows_are_the_latents_of_the_inputs_in_their_order():
    encoder = tiny_teachers.bert()

    bank = encode(encoder, batch_size=2)

    assert (len(bank), bank.num_distinct, bank.dim, bank.inputs) == (4, 3, 32, TEXTS)
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(bank.lookup([row]), encoder.encode([text]))


def test_distinct_inputs_are_encoded_once():
    # 128,000 prompts over 1000 classes, a tenth of what ImageNet has, cost the encodings of 1000.
    encoder = tiny_teachers.bert()
    classes = np.random.default_rng(0).permutation(128_000) % 1000
    prompts = [tiny.TEMPLATE.format(label) for label in range(1000)]
    assert encoder.dim == 32  # by a probe of its own
    sizes = tiny_teachers.count_inputs(encoder)

    bank = encode(encoder, [prompts[label] for label in classes])

    assert sum(sizes) == 1000
    assert (len(bank), bank.num_distinct) == (128_000, 1000)
    chosen = [0, 1, 64_000, 127_999]
    wanted = torch.cat([encoder.encode([prompts[classes[row]]]) for row in chosen])
    torch.testing.assert_close(bank.lookup(chosen), wanted)


def test_the_second_call_makes_no_forward_pass():
    first = encode()
    again = tiny_teachers.bert()
    sizes = tiny_teachers.count_inputs(again)

    second = encode(again)

    assert sizes == []
    assert torch.equal(everything(first), everything(second))
    assert second.fingerprint == first.fingerprint


def test_a_bank_is_cached_in_the_home_of_hugging_face():
    bank = encode(cache_dir=None)

    assert default_cache_dir() == os.path.join(os.environ["HF_HOME"], "colearn", "banks")
    assert (Path(default_cache_dir()) / bank.fingerprint / "bank.json").is_file()


def test_images_and_audio_have_banks():
    pictures = tiny_teachers.images(3)
    waves = [
        {"array": tiny_teachers.noise(seconds), "sampling_rate": 16_000} for seconds in (0.1, 0.2, 0.1)
    ]  # two distinct

    for encoder, inputs, distinct in ((tiny_teachers.vit(), pictures, 3), (tiny_teachers.wav2vec2("group"), waves, 2)):
        bank = encode(encoder, inputs)
        assert (len(bank), bank.num_distinct, len(bank.inputs)) == (3, distinct, 3)
        torch.testing.assert_close(everything(bank), torch.cat([encoder.encode([item]) for item in inputs]))


# ---- the fingerprint ----
def shorter_texts():
    encoder = tiny_teachers.bert()
    encoder.processor.model_max_length = 4
    return encoder


def nudged_weight():
    encoder = tiny_teachers.bert()
    encoder.model.embeddings.LayerNorm.bias[0] += 1e-3
    return encoder


def in_bfloat16():
    encoder = tiny_teachers.bert()
    encoder.model.to(torch.bfloat16)
    return encoder


CHANGES = {
    "an input": lambda: encode(inputs=["a dog", "a cat", "a dog", "an elephant in a very small car"]),
    "the order": lambda: encode(inputs=[TEXTS[1], TEXTS[0], *TEXTS[2:]]),
    "the repeats": lambda: encode(inputs=[*TEXTS, TEXTS[0]]),
    "the pooling": lambda: encode(tiny_teachers.bert("cls")),
    "the dtype": lambda: encode(in_bfloat16()),
    "a weight by 1e-3": lambda: encode(nudged_weight()),
    "the tokenizer's max_length": lambda: encode(shorter_texts()),
}


def test_the_fingerprint_changes_with_all_that_shapes_the_latents():
    fingerprints = {"nothing": encode().fingerprint} | {what: change().fingerprint for what, change in CHANGES.items()}

    assert len(set(fingerprints.values())) == len(fingerprints), fingerprints


def test_the_fingerprint_changes_with_the_image_processors_size():
    pictures = tiny_teachers.images(1)
    smaller = tiny_teachers.resnet()
    smaller.processor = tiny_teachers.image_processor(16)

    assert encode(tiny_teachers.resnet(), pictures).fingerprint != encode(smaller, pictures).fingerprint


@pytest.fixture(scope="module")
def worker():
    """A spawned process, as data loaders have them; its hash seed is another one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda function, *args: pool.submit(function, *args).result(timeout=120)


def fingerprint_and_forward_passes(cache_dir):
    encoder = tiny_teachers.bert()
    sizes = tiny_teachers.count_inputs(encoder)
    return encode(encoder, cache_dir=cache_dir).fingerprint, sizes


def test_another_process_finds_the_bank_and_makes_no_forward_pass(worker):
    bank = encode()

    assert worker(fingerprint_and_forward_passes, os.path.abspath("banks")) == (bank.fingerprint, [])


# ---- nothing half-written ----
def encode_until_killed():
    encoder = tiny_teachers.bert()
    assert encoder.dim == 32  # by a probe of its own
    sizes = tiny_teachers.count_inputs(encoder)
    encoder.model.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL) if len(sizes) == 2 else None)
    encode(encoder, batch_size=1)


def test_a_run_that_is_killed_leaves_no_bank_and_the_next_one_succeeds():
    run = get_context("fork").Process(target=encode_until_killed)
    run.start()
    run.join(60)

    assert run.exitcode == -signal.SIGKILL
    (partial,) = Path("banks").iterdir()
    assert partial.name.endswith(".partial") and not (partial / "bank.json").exists()

    bank = encode()
    assert torch.equal(everything(bank), everything(encode(cache_dir="elsewhere")))
    # For all that is known, the other run goes on; after a day of silence it does not.
    assert partial.exists()
    encode(inputs=["something else"])
    assert partial.exists()
    yesterday = partial.stat().st_mtime - 25 * 3600
    for path in (*partial.iterdir(), partial):
        os.utime(path, (yesterday, yesterday))
    unrelated = Path("banks") / "download.zip.partial"
    unrelated.mkdir()
    os.utime(unrelated, (yesterday, yesterday))
    encode(inputs=["something else again"])
    assert not partial.exists() and unrelated.exists()


def test_a_teacher_that_fails_in_the_middle_leaves_nothing():
    encoder = tiny_teachers.bert()
    sizes = tiny_teachers.count_inputs(encoder)

    def fail(*_):
        if len(sizes) == 3:
            raise RuntimeError("out of memory")

    encoder.model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        encode(encoder, batch_size=1)

    assert os.listdir("banks") == []


@pytest.mark.parametrize("name", ["latents.arrow", "index.arrow"])
@pytest.mark.parametrize("cut", ["half", "all"])
def test_a_truncated_file_is_refused(name, cut):
    file = Path("banks") / encode().fingerprint / name
    size = file.stat().st_size
    if cut == "half":
        os.truncate(file, size // 2)
    else:
        file.unlink()

    with pytest.raises(ValueError, match=f"{name}' has \\d+ bytes, {size} were written.*Delete the folder"):
        encode()


def test_a_latent_file_of_the_right_size_but_other_content_is_refused():
    bank = encode(inputs=["a dog", "a cat"])
    file = Path("banks") / bank.fingerprint / "latents.arrow"
    file.write_bytes(bytes(file.stat().st_size))

    with pytest.raises(ValueError, match="holds no complete bank of latents"):
        TeacherBank.load(file.parent)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"name": "another program\'s"}',
        '{"format": 1, "fingerprint": "f", "files": ["latents.arrow"]}',
        '{"format": 1, "fingerprint": "f", "files": {}}',
        '{"format": 999, "fingerprint": "f", "files": {"latents.arrow": 1}}',
        '{"format": 1, "files": {"latents.arrow": 1}}',
    ],
)
def test_a_foreign_or_damaged_description_is_refused(content):
    Path("bank").mkdir()
    (Path("bank") / "bank.json").write_text(content)

    with pytest.raises(ValueError, match="bank.json' is no description of a bank of this version"):
        TeacherBank.load("bank")


def test_a_folder_without_a_bank_is_named():
    with pytest.raises(FileNotFoundError, match="'nowhere' holds no teacher bank"):
        TeacherBank.load("nowhere")


def test_a_cache_entry_that_was_put_there_by_hand_is_refused():
    first, second = encode(), encode(inputs=["something else"])
    Path("banks", second.fingerprint).rename("banks/away")
    Path("banks", first.fingerprint).rename(f"banks/{second.fingerprint}")

    with pytest.raises(ValueError, match=f"says that it is the bank {first.fingerprint}"):
        encode(inputs=["something else"])


def test_a_cache_folder_that_cannot_be_written_is_named():
    Path("a_file").write_text("")

    with pytest.raises(OSError, match="the bank's folder 'a_file/banks' cannot be written.*pass another `cache_dir`"):
        encode(cache_dir="a_file/banks")


@pytest.fixture
def largest_file():
    """Limits the size of files that this process may write, as a full disk or quota would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("limit", [5_000, 13_000], ids=["before encoding", "after encoding"])
def test_a_full_disk_is_named_and_nothing_stays_behind(largest_file, limit):
    # 100 latents of 32 float32 are 12,800 bytes; with their texts they are more than 13,000.
    encoder = tiny_teachers.bert()
    assert encoder.dim == 32
    sizes = tiny_teachers.count_inputs(encoder)
    texts = [f"a text, number {number}" for number in range(100)]
    largest_file(limit)

    with pytest.raises(OSError, match="the disk under 'banks' is full, the bank was not written") as caught:
        encode(encoder, texts)

    assert caught.value.errno == errno.EFBIG
    assert sum(sizes) == (0 if limit == 5_000 else 100)
    assert os.listdir("banks") == []
    largest_file(resource.RLIM_INFINITY)
    assert len(encode(encoder, texts)) == 100


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # the bank is still open


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is of Linux")
def test_a_disk_that_fills_up_is_named_and_nothing_stays_behind(small_disk):
    texts = [f"{number} " + "x" * 20_000 for number in range(60)]  # 1.2 MB beside 8 kB of latents

    with pytest.raises(OSError, match="is full, the bank was not written .*Free some space") as caught:
        encode(shorter_texts(), texts, cache_dir=small_disk / "banks")

    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk / "banks") == []
    assert len(encode(shorter_texts(), texts[:20], cache_dir=small_disk / "banks")) == 20


# ---- what is refused ----
def test_no_inputs_or_a_single_text_are_refused():
    with pytest.raises(ValueError, match="there are no inputs to encode"):
        encode(inputs=[])
    with pytest.raises(ValueError, match="inputs='a dog' is a single text: pass a list"):
        encode(inputs="a dog")


class Augmented:
    """Two images that are a little brighter whenever they are read."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 2

    def __getitem__(self, row):
        if row >= 2:
            raise IndexError
        self.reads += 1
        return Image.new("L", (8, 8), self.reads)


def test_inputs_that_change_between_two_reads_are_refused():
    with pytest.raises(ValueError, match="teacher input 0 changed between two reads: it is augmented"):
        encode(tiny_teachers.vit(), Augmented())
    assert os.listdir("banks") == []


def test_a_latent_that_is_not_finite_is_refused_with_its_input():
    encoder = tiny_teachers.bert()
    elephant = encoder.processor.convert_tokens_to_ids("elephant")
    encoder.model.embeddings.word_embeddings.weight[elephant] = float("inf")

    with pytest.raises(
        ValueError, match="NaN or infinite values for input 3 \\('an elephant in a very small boat'\\)"
    ):
        encode(encoder)
    assert os.listdir("banks") == []


def test_an_image_that_cannot_be_decoded_is_named_by_its_place_among_the_inputs():
    garbage = {"bytes": b"garbage", "path": None}

    with pytest.raises(ValueError, match="teacher input 5 is no image that can be decoded"):
        encode(tiny_teachers.vit(), [*tiny_teachers.images(5), garbage], batch_size=2)
    assert os.listdir("banks") == []


# ---- look-ups ----
def test_a_look_up_keeps_order_and_repeats():
    bank = TeacherBank.from_latents(np.arange(12).reshape(4, 3))

    assert bank.lookup([2, 0, 2]).tolist() == [[6, 7, 8], [0, 1, 2], [6, 7, 8]]
    assert bank.lookup(torch.tensor([3])).tolist() == [[9, 10, 11]]
    assert bank.lookup(np.array([], dtype=np.int64)).shape == (0, 3)
    assert bank.lookup([0]).dtype == torch.float32


@pytest.mark.parametrize("row", [-1, 4, 2**40])
def test_a_row_out_of_range_is_refused(row):
    bank = encode()

    with pytest.raises(IndexError, match=f"row {row} is out of range: the bank has 4 rows"):
        bank.lookup([0, row])


def test_a_look_up_is_a_copy():
    bank = TeacherBank.from_latents(np.zeros((2, 3)))

    bank.lookup([0]).fill_(7)

    assert bank.lookup([0]).tolist() == [[0, 0, 0]]


LARGE_ROWS, LARGE_DIM = 80_000, 1024  # 328 MB


def large_rows(start, stop):
    """Rows that can be told from their number: i + j / 1024, exact in float32 for i below 2^14, else rounded alike."""
    return np.arange(start, stop, dtype=np.float32)[:, None] + np.arange(LARGE_DIM, dtype=np.float32) / LARGE_DIM


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    chunks = ((large_rows(start, start + 2000), None) for start in range(0, LARGE_ROWS, 2000))
    write_bank(folder, chunks, None, None, {"format": 1, "fingerprint": "large"})
    return folder


def test_a_bank_on_disk_equals_one_in_memory_row_by_row(large_folder):
    bank = TeacherBank.load(large_folder)
    rows = np.random.default_rng(0).integers(0, LARGE_ROWS, 500)

    assert (len(bank), bank.dim, bank.inputs) == (LARGE_ROWS, LARGE_DIM, None)
    assert np.array_equal(bank.lookup(rows).numpy(), np.concatenate([large_rows(row, row + 1) for row in rows]))
    edges = [0, 1999, 2000, LARGE_ROWS - 1]
    assert np.array_equal(bank.lookup(edges).numpy(), np.concatenate([large_rows(row, row + 1) for row in edges]))
    with pytest.raises(IndexError, match="row -1 is out of range"):
        bank.lookup([-1])


def test_resident_memory_stays_flat_over_many_look_ups(large_folder):
    bank = TeacherBank.load(large_folder)
    bank.lookup([0])
    before = psutil.Process().memory_info().rss
    rng, most = np.random.default_rng(0), 0

    for _ in range(400):  # 102,400 rows: all pages of the file
        bank.lookup(rng.integers(0, LARGE_ROWS, 256))
        most = max(most, psutil.Process().memory_info().rss - before)

    assert most < 110e6, f"{most / 1e6:.0f} MB of a file of 328 MB stayed in memory"


def test_moments_and_scaling_of_a_bank_on_disk_leave_memory_flat(large_folder):
    bank = TeacherBank.load(large_folder)
    before = psutil.Process().memory_info().rss

    mean, std = bank.mean(), bank.std()
    scaled = bank.scaled("standardized", np.arange(0, LARGE_ROWS, 4))

    # 0, 1, ..., N - 1 have the mean (N - 1) / 2 and the variance (N^2 - 1) / 12.
    offset_D = torch.arange(LARGE_DIM) / LARGE_DIM
    torch.testing.assert_close(mean, (LARGE_ROWS - 1) / 2 + offset_D, rtol=1e-6, atol=0)
    torch.testing.assert_close(std, torch.full((LARGE_DIM,), ((LARGE_ROWS**2 - 1) / 12) ** 0.5), rtol=1e-5, atol=0)
    # 0, 4, ..., 4 (n - 1) with n = N / 4: the mean is 2 (n - 1), the deviation 4 sqrt((n^2 - 1) / 12), so 0 becomes -sqrt(3).
    torch.testing.assert_close(scaled.lookup([0]), torch.full((1, LARGE_DIM), -(3**0.5)), rtol=1e-3, atol=0)
    assert psutil.Process().memory_info().rss - before < 110e6


def test_a_bank_is_pickled_for_a_spawned_worker(large_folder, worker):
    on_disk, in_memory = TeacherBank.load(large_folder), encode()
    assert len(pickle.dumps(on_disk)) < 10_000  # the files' names, not their content

    far_row, rows = worker(on_disk.lookup, [LARGE_ROWS - 1]), worker(in_memory.lookup, [3, 0])

    assert np.array_equal(far_row.numpy(), large_rows(LARGE_ROWS - 1, LARGE_ROWS))
    assert torch.equal(rows, in_memory.lookup([3, 0]))


def test_mean_and_std_count_repeated_inputs_as_often_as_they_occur():
    bank = encode()
    rows = everything(bank).numpy().astype(np.float64)

    np.testing.assert_allclose(bank.mean(), rows.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(bank.std(), rows.std(axis=0), rtol=1e-5, atol=1e-7)


def test_mean_and_std_of_latents_far_from_zero_keep_their_digits():
    latents = (1e4 + np.random.default_rng(0).normal(scale=0.1, size=(3000, 8))).astype(np.float32)
    bank = TeacherBank.from_latents(latents)

    np.testing.assert_allclose(bank.mean(), latents.astype(np.float64).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(bank.std(), latents.astype(np.float64).std(axis=0), rtol=1e-6)


# ---- rows by their inputs ----
@pytest.mark.parametrize("how", ["encoded", "loaded", "scaled", "by hand"])
def test_rows_are_found_by_their_inputs(how):
    bank = encode()  # rows 0 and 2 are "a dog"
    if how == "loaded":
        bank.save("saved")
        bank = TeacherBank.load("saved")
    elif how == "scaled":
        bank = bank.scaled("standardized")
    elif how == "by hand":
        bank = TeacherBank.from_latents(np.arange(8).reshape(4, 2), inputs=TEXTS)

    assert bank.rows_of([TEXTS[3], "a dog", "a cat", "a dog"]).tolist() == [3, 0, 1, 0]
    assert bank.rows_of(Dataset.from_dict({"text": TEXTS})["text"]).tolist() == [0, 1, 0, 3]
    bank.check_inputs(TEXTS)
    bank.check_inputs(["a dog", "a dog", "a cat"], rows=[2, 0, 1])
    with pytest.raises(
        ValueError, match=r"input 1 \('a dog'\) is paired with row 1 .* 'a cat': this one's is row 0. 1 of 2 do"
    ):
        bank.check_inputs(["a dog", "a dog"], rows=[0, 1])


def test_rows_of_images_and_audio_are_found_by_their_content():
    deep = [Image.fromarray(np.full((4, 4), value, np.uint16)) for value in (1000, 1001)]  # equal in their high bytes
    palettes = [Image.new("P", (4, 4)), Image.new("P", (4, 4))]
    for picture, colour in zip(palettes, ([255, 0, 0], [0, 255, 0]), strict=True):
        picture.putpalette(colour)
    wave = tiny_teachers.noise(0.1)
    clips = [{"array": wave, "sampling_rate": rate} for rate in (16_000, 8_000)]

    for modality, inputs in (("vision", deep), ("vision", palettes), ("audio", clips)):
        bank = TeacherBank.from_latents(np.eye(2), inputs=inputs, modality=modality)
        bank.save("saved")
        loaded = TeacherBank.load("saved")
        assert loaded.rows_of([inputs[1], inputs[0], inputs[1]]).tolist() == [1, 0, 1]
        with pytest.raises(ValueError, match="input 0 is paired with row 0 .* from another one: this one's is row 1"):
            loaded.check_inputs(inputs[::-1])


def test_the_example_of_rows_of_is_right():
    run_example(TeacherBank.rows_of)


def test_the_column_of_the_inputs_is_remembered():
    column = Dataset.from_dict({"text": TEXTS})["text"]

    assert encode(inputs=column).description["input_column"] == "text"
    assert encode(inputs=column).fingerprint == encode().fingerprint  # which has none
    assert "input_column" not in encode().description


def test_rows_of_many_texts_are_found():
    texts = [f"text {number}" for number in range(50_000)]
    bank = TeacherBank.from_latents(np.zeros((50_000, 1)), inputs=texts)
    bank.save("saved")

    assert TeacherBank.load("saved").rows_of(texts[::-1]).tolist() == list(range(50_000))[::-1]


# ---- keeping and giving ----
@pytest.mark.parametrize("inputs", [TEXTS, ["a dog", "a cat"]], ids=["repeated", "distinct"])
def test_a_saved_bank_comes_back(inputs):
    bank = encode(inputs=inputs)

    bank.save("saved")
    loaded = TeacherBank.load("saved")

    assert torch.equal(everything(loaded), everything(bank))
    assert (loaded.inputs, loaded.fingerprint, loaded.num_distinct) == (inputs, bank.fingerprint, bank.num_distinct)
    assert loaded.description["teacher"] == "BertModel"
    assert files("saved") == ["bank.json", *(["index.arrow"] if inputs is TEXTS else []), "latents.arrow"]


def test_latents_without_inputs_come_back_without():
    TeacherBank.from_latents(np.eye(3), teacher="by hand").save("saved")

    loaded = TeacherBank.load("saved")

    assert loaded.inputs is None
    assert everything(loaded).tolist() == np.eye(3).tolist()
    assert loaded.description["teacher"] == "by hand"


def test_a_bank_can_be_saved_over_itself_and_over_another(large_folder, tmp_path):
    on_disk = TeacherBank.load(large_folder)
    on_disk.save(large_folder)

    assert np.array_equal(on_disk.lookup([70_000]).numpy(), large_rows(70_000, 70_001))
    assert np.array_equal(TeacherBank.load(large_folder).lookup([70_000]).numpy(), large_rows(70_000, 70_001))
    encode().save("saved")
    TeacherBank.from_latents(np.eye(2)).save("saved")
    assert everything(TeacherBank.load("saved")).tolist() == np.eye(2).tolist()


def test_a_save_that_fails_leaves_the_earlier_bank(largest_file):
    TeacherBank.from_latents(np.eye(2)).save("saved")
    before = files("saved")
    largest_file(50_000)

    with pytest.raises(OSError):
        TeacherBank.from_latents(np.ones((1000, 100))).save("saved")

    assert files("saved") == before
    assert everything(TeacherBank.load("saved")).tolist() == np.eye(2).tolist()


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (2, 2, 2), ()])
def test_latents_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match="latents of shape .* are no bank: pass \\[N, D\\]"):
        TeacherBank.from_latents(np.zeros(shape))


def test_latents_that_are_not_finite_are_refused():
    latents = torch.zeros(4, 3)
    latents[2, 1], latents[3, 0] = float("nan"), float("-inf")

    with pytest.raises(ValueError, match="2 of 4 latents hold NaN or infinite values \\(the first is row 2\\)"):
        TeacherBank.from_latents(latents)


def test_inputs_of_another_number_than_the_latents_are_refused():
    with pytest.raises(ValueError, match="2 inputs for 3 latents"):
        TeacherBank.from_latents(np.zeros((3, 2)), inputs=["a", "b"])


def test_latents_are_copied_and_told_apart_by_value_and_shape():
    latents = torch.arange(6.0).reshape(2, 3)
    bank = TeacherBank.from_latents(latents)
    latents[0, 0] = 7

    assert bank.lookup([0]).tolist() == [[0, 1, 2]]
    same = torch.arange(6.0).reshape(2, 3)
    others = [TeacherBank.from_latents(other) for other in (same, same.reshape(3, 2), same + 1e-3)]
    assert [other.fingerprint == bank.fingerprint for other in others] == [True, False, False]


# ---- the Hub ----
ON_THE_HUB = f"""
import json
import numpy as np
import torch
import tiny_teachers
from hf_colearn import TeacherBank
from hf_colearn.teachers import bank_files
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi

def same(one, other):
    assert torch.equal(one.lookup(range(len(one))), other.lookup(range(len(other))))
    assert (one.inputs, one.fingerprint) == (other.inputs, other.fingerprint), (one, other)
    assert (one.num_distinct, one.description["teacher"]) == (other.num_distinct, other.description["teacher"])

repeated = TeacherBank.encode(tiny_teachers.bert(), {TEXTS!r}, "banks")
metadata = dict(inputs="prompts of classes", license="apache-2.0", language="en", source_datasets=["someone/texts"])
for _ in range(2):  # publishing again keeps the card and the configurations
    commit = repeated.push_to_hub("tester/repeated", private=True, **metadata)
same(repeated, TeacherBank.from_hub("tester/repeated"))
assert load_dataset("tester/repeated", "latents", split="train").num_rows == 3
assert load_dataset("tester/repeated", "index", split="train")["row"][:] == list(repeated._index)
DatasetCard.load("tester/repeated").validate()
same(repeated, TeacherBank.from_hub("tester/repeated", revision=commit))

latents = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
distinct = TeacherBank.from_latents(latents, teacher="by hand").scaled("standardized")
distinct.push_to_hub("tester/distinct")
same(distinct, TeacherBank.from_hub("tester/distinct"))

bank_files.IN_MEMORY = 0  # from here on, all stay on disk
distinct.save("saved")
TeacherBank.load("saved").push_to_hub("tester/mapped")
mapped = TeacherBank.from_hub("tester/mapped")
same(distinct, mapped)
assert mapped._rows.paths

distinct.save("in_8_bits", dtype="int8", rows_per_file=2000)
in_8_bits = TeacherBank.load("in_8_bits")
in_8_bits.push_to_hub("tester/in_8_bits")
back = TeacherBank.from_hub("tester/in_8_bits")
same(in_8_bits, back)
assert back.dtype == "int8" and back.fingerprint != distinct.fingerprint

messages = []
HfApi().create_repo("tester/other", repo_type="dataset")
for content in (b"[1, 2]", b'{{"format": 7}}'):
    HfApi().upload_file(path_or_fileobj=content, path_in_repo="bank.json", repo_id="tester/other", repo_type="dataset")
    try:
        TeacherBank.from_hub("tester/other")
    except ValueError as error:
        messages.append(str(error))
print(json.dumps([commit, messages]))
"""


def test_a_bank_comes_back_from_the_hub_as_parquet_and_json_and_another_dataset_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    with HubDouble() as hub:
        commit, messages = run_child(ON_THE_HUB, hub, tmp_path)

        assert hub.unhandled == []
        repeated = hub.files("tester/repeated", "dataset")
        assert hub.repos["dataset", "tester/repeated"].private
        assert hub.repos["dataset", "tester/repeated"].branches["main"] == commit
        distinct = hub.files("tester/distinct", "dataset")
        assert {Path(name).suffix or name for name in repeated | distinct} <= {
            ".parquet",
            ".json",
            ".md",
            ".gitattributes",
        }
        assert any(name.startswith("index/") for name in repeated)
        assert not any(name.startswith("index/") for name in distinct)
        description = json.loads(repeated["bank.json"])
        assert (description["pooling"], description["num_rows"], description["num_distinct"]) == ("mean", 4, 3)
        card = DatasetCard(repeated["README.md"].decode())
        assert (card.data.license, card.data.language, card.data.source_datasets) == (
            "apache-2.0",
            "en",
            ["someone/texts"],
        )
        assert {config["config_name"] for config in card.data.configs} == {"latents", "index"}
        assert {info["config_name"] for info in card.data.dataset_info} == {"latents", "index"}
        rows = ("| inputs | prompts of classes; from someone/texts |", "| pooling | mean |", "| rows | 4 |")
        for row in (*rows, "| scaling of the latents | none |"):
            assert row in card.text
        unnamed = DatasetCard(distinct["README.md"].decode())
        assert "| scaling of the latents | standardized: mean 0 and standard deviation 1 over 3000 dis" in unnamed.text
        assert "| teacher | by hand |" in unnamed.text and "| licence | not recorded;" in unnamed.text
        assert len(messages) == 2
        assert all("'tester/other' holds no bank of this version" in message for message in messages)


# ---- bad input ----
REFUSALS = Refusals()
case = REFUSALS.case
SMALL = TeacherBank.from_latents(np.eye(3), inputs=["a cat", "a dog", "a fox"])


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(ValueError, "repo_id='bank' is not of the form 'owner/name'", "such as 'me/digits'")
def a_hub_id_without_an_owner(folder):
    yield
    SMALL.push_to_hub("bank")  # of a user who is not logged in, and learns of the id first


@case(ValueError, "repo_id='me/my bank' is not of the form", "letters, digits")
def a_hub_id_with_a_space(folder):
    yield
    SMALL.scaled("l2").push_to_hub("me/my bank")


@case(ValueError, "repo_id=None is not of the form", "'owner/name'")
def no_hub_id(folder):
    yield
    TeacherBank.from_hub(None)


@case(ValueError, "1 of 2 inputs are not among those", "such as input 1, 'a wolf'", "encode a bank of all of them")
def rows_of_an_input_that_the_bank_lacks(folder):
    yield
    SMALL.rows_of(["a cat", "a wolf"])


@case(ValueError, "does not know what its rows were encoded from", "inputs=inputs")
def rows_of_inputs_that_are_unknown(folder):
    bank = TeacherBank.from_latents(np.eye(3))
    yield
    bank.rows_of(["a cat"])


@case(ValueError, "inputs='a cat' is a single text", "pass a list")
def rows_of_a_single_text(folder):
    yield
    SMALL.rows_of("a cat")


@case(ValueError, "teacher input 1 is of type int", "mend the inputs")
def rows_of_a_number(folder):
    yield
    SMALL.rows_of(["1", 1])


@case(ValueError, "2 inputs for 3 rows", "or the `rows` of these inputs")
def inputs_of_some_rows(folder):
    yield
    SMALL.check_inputs(["a cat", "a dog"])


@case(ValueError, "input 2 ('a dog') is paired with row 2", "'a fox': this one's is row 1", "`bank.rows_of(inputs)`")
def an_input_of_another_row(folder):
    yield
    SMALL.check_inputs(["a cat", "a dog", "a dog"])


@case(ValueError, "inputs='abc' is a single text", "pass a list")
def a_text_for_the_inputs_of_three_latents(folder):
    yield
    TeacherBank.from_latents(np.eye(3), inputs="abc")


@case(TypeError, "latents is a list that makes no array of numbers", "pass a tensor or array [N, D]")
def latents_that_are_texts(folder):
    yield
    TeacherBank.from_latents(["a cat", "a dog"])


@case(TypeError, "they are torch.complex128", "[N, D]")
def complex_latents(folder):
    yield
    TeacherBank.from_latents(np.fft.fft(np.eye(3)))  # whose imaginary parts would be lost


@case(TypeError, "rows=[0.5] are float64 of shape (1,)", "0 to 2")
def half_a_row(folder):
    yield
    SMALL.lookup([0.5])  # would be row 0


@case(TypeError, "rows=[True, False, True] are bool", "a list of row numbers")
def a_mask_for_rows(folder):
    yield
    SMALL.lookup([True, False, True])  # would be the rows 1, 0 and 1


@case(TypeError, "folder is a NoneType", "pass a path")
def a_bank_of_no_folder(folder):
    yield
    TeacherBank.load(None)


@case(TypeError, "encoder is the text 'bert-base-uncased'", "`FrozenEncoder.from_pretrained(name_or_folder)`")
def a_teacher_by_name(folder):
    yield
    TeacherBank.encode("bert-base-uncased", TEXTS, folder / "banks")


@case(TypeError, "inputs is a Dataset", "`dataset['text']`")
def a_dataset_for_its_column(folder):
    yield
    encode(inputs=Dataset.from_dict({"text": TEXTS}), cache_dir=folder / "banks")


@case(TypeError, "inputs is a generator", "pass a list or column")
def inputs_that_can_be_read_once(folder):
    yield
    encode(inputs=(text for text in TEXTS), cache_dir=folder / "banks")


@case(ValueError, "batch_size=-1", "a whole number, at least 1")
def batches_of_less_than_nothing(folder):
    yield
    encode(batch_size=-1, cache_dir=folder / "banks")  # would encode nothing, and keep a bank of zeros
