"""Samples that cannot be read are left out, counted and named."""

import io

import datasets
import numpy as np
import pytest
from datasets import Audio, Dataset
from PIL import Image
from torch.utils.data import DataLoader

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.images import as_rgb
from hf_colearn.data.text import read_text


soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def logged(caplog):
    """The warnings of the module."""
    return lambda: [record.message for record in caplog.records if record.name == "hf_colearn.data.bad_samples"]


def jpeg(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def wav(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV")
    return file.getvalue()


def tone(hertz):
    return wav(np.sin(np.arange(800) * hertz / 1000))


def images(*cells, decode=True):
    cells = [{"bytes": cell, "path": f"{row}.jpg"} for row, cell in enumerate(cells)]
    dataset = Dataset.from_dict({"image": cells, "row": list(range(len(cells)))})
    return dataset.cast_column("image", datasets.Image(decode=decode))


@pytest.mark.parametrize("num_proc", [None, 2])
def test_images_that_cannot_be_decoded_are_left_out_and_named(logged, num_proc):
    data = images(jpeg(0), b"no image", jpeg(1), jpeg(2)[:100])

    good, bad = without_bad_samples(data, as_rgb, "image", num_proc)

    assert good["row"][:] == [0, 2]
    assert good.features == data.features  # still an image, decoded when asked for
    assert good[1]["image"].size == (8, 8)
    assert [sample.row for sample in bad] == [1, 3]
    assert all(f"the image in row {sample.row}" in sample.problem for sample in bad)
    (message,) = logged()
    assert message.startswith("2 of 4 samples of column 'image' are skipped:\n  the image in row 1")


def test_audio_that_no_one_could_hear_is_left_out():
    cells = [tone(1), wav(np.zeros(800)), wav(np.zeros(0)), b"no audio", tone(2)]
    data = Dataset.from_dict({"audio": cells, "row": list(range(5))})

    good, bad = without_bad_samples(data, read_waveform, "audio")

    assert good["row"][:] == [0, 4]
    for sample, (row, problem) in zip(bad, [(1, "is silent"), (2, "has no samples"), (3, "is no audio")], strict=True):
        assert sample.row == row and problem in sample.problem


def test_files_are_read_where_they_lie(tmp_path):
    for row, content in enumerate((tone(1), b"no audio")):
        (tmp_path / f"{row}.wav").write_bytes(content)
    Dataset.from_dict({"audio": [str(tmp_path / f"{row}.wav") for row in range(2)]}).save_to_disk(tmp_path / "data")
    data = Dataset.load_from_disk(tmp_path / "data").cast_column(
        "audio", Audio()
    )  # on disk, `datasets` caches results

    good, bad = without_bad_samples(data, read_waveform, "audio")

    assert len(good) == 1 and "1.wav" in bad[0].problem
    (tmp_path / "1.wav").write_bytes(tone(2))
    assert len(without_bad_samples(data, read_waveform, "audio")[0]) == 2  # mended: nothing is remembered


def test_only_the_first_bad_samples_are_shown(logged):
    data = Dataset.from_dict({"text": ["a"] * 1000 + [None] * 5})

    _, bad = without_bad_samples(data, read_text, "text")

    assert len(bad) == 5
    (message,) = logged()
    assert message.startswith("5 of 1,005 samples of column 'text' are skipped:\n  the text in row 1000 is missing")
    assert message.count("the text in row") == 3
    assert message.endswith("\n  and 2 more")


def test_without_bad_samples_nothing_is_said_or_changed(logged):
    data = images(jpeg(0), jpeg(1))

    good, bad = without_bad_samples(data, as_rgb, "image")

    assert good is data and bad == [] and logged() == []


def test_only_bad_samples_are_an_error():
    with pytest.raises(ValueError, match="all 2 samples of column 'image' are bad; the first: the image in row 0"):
        without_bad_samples(images(b"no image", b"neither"), as_rgb, "image")


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="no column 'picture'.*'image', 'row'"):
        without_bad_samples(images(jpeg(0)), as_rgb, "picture")
    with pytest.raises(ValueError, match="no column 'picture'"):
        without_bad_samples(images(jpeg(0)).to_iterable_dataset(), as_rgb, "picture")


def test_an_error_of_the_program_is_no_bad_sample():
    def read(cell, row):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        without_bad_samples(images(jpeg(0), jpeg(1)), read, "image")


# ---- streams ----
@pytest.mark.parametrize("decode", [True, False])
def test_a_stream_leaves_bad_samples_out_as_they_come(logged, decode):
    stream = images(jpeg(0), b"no image", jpeg(1), b"neither", decode=decode).to_iterable_dataset()

    good, bad = without_bad_samples(stream, as_rgb, "image")

    assert bad == [] and logged() == []  # nothing is read yet
    rows = list(good)
    assert [row["row"] for row in rows] == [0, 2]
    assert rows[0]["image"] == {"bytes": jpeg(0), "path": "0.jpg"}
    assert [sample.row for sample in bad] == [1, 3]
    assert logged()[0].startswith(
        "1 of 2 samples of column 'image' are skipped in this pass so far: the image in row 1"
    )
    assert [row["row"] for row in good] == [0, 2]
    assert logged()[2] == "2 of 4 samples of column 'image' were skipped in the last pass."
    assert logged()[3].startswith("1 of 2 samples")  # counted anew


def test_a_stream_tells_the_running_count_ever_more_rarely(logged):
    data = Dataset.from_dict({"text": [None] * 20, "row": list(range(20))})

    assert list(without_bad_samples(data.to_iterable_dataset(), read_text, "text")[0]) == []

    assert [int(message.split()[0]) for message in logged()] == [1, 2, 3, 4, 8, 16]


def test_a_shuffled_stream_in_shards_and_workers_gives_every_good_sample_once():
    data = Dataset.from_dict({"text": [None if row % 7 == 0 else "a" for row in range(40)], "row": list(range(40))})
    stream = without_bad_samples(data.to_iterable_dataset(num_shards=4), read_text, "text")[0]
    wanted = [row for row in range(40) if row % 7]

    shuffled = stream.shuffle(seed=0, buffer_size=8)
    shuffled.set_epoch(1)

    assert sorted(row["row"] for row in shuffled) == wanted
    loader = DataLoader(stream.select_columns("row"), batch_size=None, num_workers=2)
    assert sorted(int(row["row"]) for row in loader) == wanted
