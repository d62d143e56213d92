"""AV-digits: handwritten and spoken digits paired by class, without a shared image, clip or noise between splits."""

import hashlib
import io
from collections import Counter

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Image

from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.corpora.spoken_digits import with_spoken_digits
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.noise import add_noise
from tiny_corpora import write_dtmf_digits


SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    """12 takes of each of 6 phones and 10 digits: by FSDD's rule, takes 0 to 4 are the test set."""
    folder = tmp_path_factory.mktemp("phones")
    write_dtmf_digits(folder, clips_per_digit=72)
    return folder


@pytest.fixture(scope="module")
def built(phones):
    return load_av_digits(phones, seed=3)


@pytest.fixture(scope="module")
def whole(phones):
    """The same cuts and pairs, with all the images' energy and no noise."""
    return load_av_digits(phones, seed=3, image_energy=1.0, noise_snr_db=None)


def tiny_images(per_class=4):
    """Distinct 28 x 28 noise, so that nothing is resized."""
    rng = np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))})
    labels = np.repeat(np.arange(10), per_class).tolist()
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {"image": list(rng.integers(0, 256, (10 * per_class, 28, 28), np.uint8)), "label": labels}, features
            )
            for split in ("train", "test")
        }
    )


def write_tone(path, hertz=440.0, seconds=0.05, rate=8000, level=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate)
    return path


def write_class_folders(folder, names="0123456789", clips=5):
    for i, name in enumerate(names):
        for clip in range(clips):
            write_tone(folder / name / f"clip{clip}.wav", 200 + 50 * i + clip)
    return folder


def content(cells):
    return {hashlib.sha256(cell["bytes"]).hexdigest() for cell in cells}


# ---- pairs and splits ----
def test_every_pair_is_of_one_class_and_the_label_is_right(built):
    truth = {
        f"{split}-{row}": label
        for split, data in load_handwritten_digits().items()
        for row, label in enumerate(data["label"])
    }

    for split in SPLITS:
        for sample in built[split].select_columns(["label", "image_id", "clip_id", "speaker"]):
            assert truth[sample["image_id"]] == sample["label"]
            assert sample["clip_id"].split("_")[:2] == [str(sample["label"]), sample["speaker"]]


def test_no_image_and_no_clip_is_in_two_splits(whole):
    raw = whole.cast_column("image", Image(decode=False))
    for column in ("image", "audio"):
        hashes = [content(raw[split][column]) for split in SPLITS]
        assert sum(map(len, hashes)) == len(set.union(*hashes)) > 600
    for column in ("image_id", "clip_id"):
        ids = [set(whole[split][column]) for split in SPLITS]
        assert sum(map(len, ids)) == len(set.union(*ids))


def test_fsdd_names_give_the_official_test_set(built):
    takes = {split: {int(name[:-4].rsplit("_", 1)[1]) for name in built[split]["clip_id"]} for split in SPLITS}

    assert takes["test"] == {0, 1, 2, 3, 4}
    assert min(takes["train"] | takes["validation"]) == 5
    assert len(set(built["test"]["clip_id"])) == 10 * 6 * 5


def test_the_smaller_side_is_repeated_evenly(built):
    # Of 72 clips a digit 42 are for training; 10 % of them, rounded, are 4 for validation.
    assert Counter(Counter(built["validation"]["label"]).values()).keys() <= {8, 9}  # 10 % of some 90 images
    for split, clips in (("train", 38), ("validation", 4), ("test", 30)):
        labels = np.array(built[split]["label"])
        for digit in range(10):
            rows = np.flatnonzero(labels == digit)
            used = {name: Counter(np.array(built[split][name])[rows]) for name in ("image_id", "clip_id")}
            assert len(used["clip_id"]) == clips
            assert len(rows) == max(len(used["image_id"]), clips)
            for counts in used.values():
                assert max(counts.values()) - min(counts.values()) <= 1


def test_all_test_images_are_tested_once(built):
    assert Counter(built["test"]["image_id"]) == {f"test-{row}": 1 for row in range(899)}


def test_training_samples_are_numbered(built):
    assert built["train"]["sample_id"][:] == list(range(len(built["train"])))
    assert "sample_id" not in built["test"].column_names


def test_a_seed_gives_the_same_bytes_and_another_other_cuts_and_noise(phones):
    built, again, other = (load_av_digits(phones, images=tiny_images(), seed=seed) for seed in (3, 3, 4))

    for split in SPLITS:
        for column in ("image_id", "clip_id", "snr_db", "label", "audio"):
            assert again[split][column][:] == built[split][column][:]
        for column in ("image_id", "clip_id"):
            assert (set(other[split][column]) == set(built[split][column])) == (split == "test")
        assert not content(other[split]["audio"]) & content(built[split]["audio"])


def test_test_speakers_are_heard_in_no_other_split(phones):
    built = load_av_digits(phones, images=tiny_images(), image_energy=1.0, test_speakers=["phone2", "phone5"])

    assert set(built["test"]["speaker"]) == {"phone2", "phone5"}
    assert set(built["train"]["speaker"]) == set(built["validation"]["speaker"]) == {f"phone{i}" for i in (0, 1, 3, 4)}


def test_class_folders_are_cut_by_class(tmp_path):
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    built = load_av_digits(write_class_folders(tmp_path, words, clips=10), images=tiny_images(), test_share=0.3)

    other = load_av_digits(tmp_path, images=tiny_images(), test_share=0.3, seed=1)
    assert set(other["test"]["clip_id"]) == set(built["test"]["clip_id"])  # results of several seeds compare
    for split, clips in (("train", 6), ("validation", 1), ("test", 3)):  # 3 of 10, then 10 % of 7, rounded
        assert len(set(built[split]["clip_id"])) == 10 * clips
        for name, label in zip(built[split]["clip_id"], built[split]["label"], strict=True):
            assert name.split("/")[0] == words[label]
    assert set(built["train"]["speaker"]) == {None}


# ---- images ----
def test_images_keep_the_energy_that_numpy_finds(whole, built):
    by_id = dict(zip(whole["train"]["image_id"], map(np.asarray, whole["train"]["image"]), strict=True))
    x_NP = np.stack([by_id[name].ravel() for name in sorted(by_id)]).astype(np.float64)

    mean_P = x_NP.mean(axis=0)
    _, values_K, axes_KP = np.linalg.svd(x_NP - mean_P, full_matrices=False)
    energy_K = np.cumsum(values_K**2) / np.sum(values_K**2)
    kept = int(np.argmax(energy_K > 0.25)) + 1  # the fewest that hold more than a quarter

    assert kept == 2 and energy_K[0] < 0.25
    for split in SPLITS:
        originals = dict(zip(whole[split]["image_id"], whole[split]["image"], strict=True))
        for name, image in zip(built[split]["image_id"], built[split]["image"], strict=True):
            centred_P = np.asarray(originals[name]).ravel() - mean_P
            expected_P = mean_P + centred_P @ axes_KP[:kept].T @ axes_KP[:kept]
            np.testing.assert_allclose(np.asarray(image).ravel(), np.clip(expected_P, 0, 255), atol=0.51)


def test_whole_energy_leaves_the_digits_of_scikit_learn_as_they_are_but_larger(whole):
    image = whole["test"][0]["image"]
    source = load_handwritten_digits()["test"][int(whole["test"][0]["image_id"].split("-")[1])]["image"]

    assert (image.size, image.mode) == ((28, 28), "L")
    small = np.asarray(image.resize((8, 8), 4)).astype(float)  # box filter: means of 3.5 x 3.5 pixels
    assert np.corrcoef(small.ravel(), np.asarray(source).ravel())[0, 1] > 0.98


def test_own_images_can_take_the_place_of_scikit_learns(phones):
    images = tiny_images()

    built = load_av_digits(phones, image_energy=1.0, images=images)

    for split, source in (("train", "train"), ("validation", "train"), ("test", "test")):
        for sample in built[split].select(range(5)):
            row = int(sample["image_id"].split("-")[1])
            assert np.array_equal(np.asarray(sample["image"]), np.asarray(images[source][row]["image"]))
    assert len(set(built["validation"]["image_id"])) == 10  # at least one of every class


# ---- sound ----
def noise_of(sample, phones):
    """The noise, and the clip without it."""
    clean = soundfile.read(phones / sample["clip_id"], dtype="float32")[0].astype(np.float64)
    noisy, rate = soundfile.read(io.BytesIO(sample["audio"]["bytes"]), dtype="float32")
    assert rate == 8000 and len(noisy) == len(clean)
    return noisy - clean, clean


def test_the_noise_has_the_ratio_that_the_sample_tells(built, phones):
    for split in SPLITS:
        assert min(built[split]["snr_db"]) >= -5 and max(built[split]["snr_db"]) <= 5
        assert np.ptp(built[split]["snr_db"][:]) > 9  # the range is used
        for sample in built[split].select_columns(["audio", "clip_id", "snr_db"]).select(range(30)):
            noise, clean = noise_of(sample, phones)
            measured = 10 * np.log10(np.sum(clean**2) / np.sum(noise**2))
            assert measured == pytest.approx(sample["snr_db"], abs=0.1)


def test_one_ratio_for_all(phones):
    built = load_av_digits(phones, noise_snr_db=12, images=tiny_images(), image_energy=1.0)

    assert set(built["train"]["snr_db"]) == {12.0}
    noise, clean = noise_of(built["train"][0], phones)
    assert 10 * np.log10(np.sum(clean**2) / np.sum(noise**2)) == pytest.approx(12, abs=0.1)


def test_the_babble_is_three_other_clips_of_the_split(tmp_path):
    # Every clip is a tone of its own, of 300, 360, ... Hz; the loudest tones of a sample's noise tell who babbles.
    for clip in range(60):
        write_tone(tmp_path / str(clip // 6) / f"{clip}.wav", 300 + 60 * clip, seconds=0.5)

    built = load_av_digits(tmp_path, images=tiny_images(), test_share=0.3, validation_share=0.3)

    for split in SPLITS:
        clips = {int(name[2:-4]) for name in built[split]["clip_id"]}
        heard = Counter()
        for sample in built[split].select_columns(["audio", "clip_id"]):
            noise, _ = noise_of(sample, tmp_path)
            tones = np.abs(np.fft.rfft(noise))[150:1950:30]  # bins of 2 Hz
            babblers = set(np.argsort(tones)[-3:].tolist())
            assert np.sort(tones)[-3] > 3 * np.sort(tones)[-4]
            assert babblers <= clips - {int(sample["clip_id"][2:-4])}
            heard.update(babblers)
        assert len(heard) > len(clips) / 2


def test_no_noise_leaves_the_clip(phones):
    built = load_av_digits(phones, noise_snr_db=None, images=tiny_images(), image_energy=1.0)

    assert set(built["test"]["snr_db"]) == {np.inf}
    for sample in built["test"].select(range(5)):
        assert not noise_of(sample, phones)[0].any()


def test_half_of_the_noise_is_white_and_half_is_babble():
    # A tone of 1000 Hz as the only babbler: half the noise's power lies there, half is spread over all frequencies.
    rate, length = 8000, 8000
    tone = np.sin(2 * np.pi * 1000 * np.arange(length) / rate)
    clean = np.sin(2 * np.pi * 300 * np.arange(length) / rate)

    noise = add_noise(clean, 0.0, [0.01 * tone], np.random.default_rng(0)) - clean

    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[995:1006].sum() / power.sum() == pytest.approx(0.5, abs=0.03)


def test_a_repeated_clip_is_heard_under_different_noise(phones):
    built = load_av_digits(phones, images=tiny_images(per_class=60), image_energy=1.0)

    audio, clips = built["train"]["audio"][:], built["train"]["clip_id"][:]
    assert len(set(clips)) < len(clips) == len(content(audio))


def test_noise_recordings_replace_babble_and_are_not_shared_between_splits(phones, tmp_path):
    # Recording k is a tone of 1000 + 250 k Hz: the loudest bin of the noise tells which one was added.
    for k in range(10):
        write_tone(tmp_path / "noises" / f"{k}.wav", 1000 + 250 * k, seconds=0.5)

    built = load_av_digits(
        phones, noise_dir=tmp_path / "noises", images=tiny_images(), image_energy=1.0, validation_share=0.2
    )

    heard = {}
    for split in SPLITS:
        heard[split] = set()
        for sample in built[split].select_columns(["audio", "clip_id"]):
            noise, _ = noise_of(sample, phones)
            heard[split].add(round((np.argmax(np.abs(np.fft.rfft(noise))) * 8000 / len(noise) - 1000) / 250))
    assert [len(heard[split]) for split in SPLITS] == [7, 2, 1]
    assert heard["train"] | heard["validation"] | heard["test"] == set(range(10))


def test_the_sound_is_read_by_the_path_of_teachers_and_students(built):
    assert built["train"].features["audio"] == Audio(8000, decode=False)

    wave, rate = read_waveform(built["train"][0]["audio"], 0, 16_000)

    stored, _ = soundfile.read(io.BytesIO(built["train"][0]["audio"]["bytes"]))
    assert rate == 16_000 and len(wave) == 2 * len(stored) and wave.dtype == np.float32


def test_clips_of_any_rate_are_resampled(tmp_path):
    for digit in range(10):
        for clip, rate in enumerate((8000, 16_000, 48_000, 22_050)):
            write_tone(tmp_path / str(digit) / f"{clip}.wav", 300 + digit, seconds=0.1, rate=rate)

    built = load_av_digits(tmp_path, images=tiny_images(), sampling_rate=16_000, noise_snr_db=None)

    for sample in built["train"]:
        wave, rate = soundfile.read(io.BytesIO(sample["audio"]["bytes"]))
        assert rate == 16_000 and abs(len(wave) - 1600) <= 1
        assert np.argmax(np.abs(np.fft.rfft(wave, 16_000))) == pytest.approx(300 + sample["label"], abs=6)


def test_the_default_needs_nothing_but_the_package():
    built = load_av_digits()

    assert len(set(built["train"]["clip_id"])) == 810  # of 6 phones x 20 takes, 15 train; 10 % of these validate
    assert len(set(built["test"]["clip_id"])) == 300
    assert all("_phone" in name for name in built["train"]["clip_id"])


# ---- recordings for other images ----
def test_other_images_get_recordings_of_their_class(tmp_path):
    folder = write_class_folders(tmp_path / "clips", clips=3)
    images = tiny_images(per_class=7)["train"]

    heard = with_spoken_digits(images, folder, seed=1)

    assert heard["image"][:] == images["image"][:] and heard["label"][:] == images["label"][:]
    assert heard.features["audio"] == Audio(decode=False)
    for sample in heard.select_columns(["audio", "label", "clip_id"]):
        assert sample["clip_id"].split("/")[0] == str(sample["label"])
        wave, rate = read_waveform(sample["audio"], 0)
        assert np.array_equal(wave, soundfile.read(folder / sample["clip_id"], dtype="float32")[0]) and rate == 8000
    assert sorted(Counter(heard["clip_id"]).values()) == [2] * 20 + [3] * 10  # 7 images and 3 clips a class
    assert with_spoken_digits(images, folder, seed=1)["clip_id"][:] == heard["clip_id"][:]
    assert with_spoken_digits(images, folder, seed=2)["clip_id"][:] != heard["clip_id"][:]


def test_other_images_without_a_recording_are_named(tmp_path):
    folder = write_class_folders(tmp_path / "clips", "012345678")
    with pytest.raises(ValueError, match="digit 9 has 4 images and no clip"):
        with_spoken_digits(tiny_images()["train"], folder)


# ---- bad input ----
def test_a_silent_clip_is_refused_or_counted(tmp_path, caplog):
    folder = write_class_folders(tmp_path / "clips")
    soundfile.write(folder / "3" / "clip2.wav", np.zeros(400), 8000)
    (folder / "4" / "clip1.wav").write_bytes(b"RIFF, but no more than that")

    with pytest.raises(ValueError, match=r"3/clip2\.wav'\) is silent.*skip_bad_samples=True"):
        load_av_digits(folder, images=tiny_images())

    from transformers.utils import logging

    logging.enable_propagation()
    try:
        built = load_av_digits(folder, images=tiny_images(), skip_bad_samples=True)
    finally:
        logging.disable_propagation()
    assert "2 of 50 audio files are skipped" in caplog.text and "clip2.wav" in caplog.text
    used = {name for split in SPLITS for name in built[split]["clip_id"]}
    assert len(used) == 48 and not used & {"3/clip2.wav", "4/clip1.wav"}


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"image_energy": 0}, "image_energy=0 is no share"),
        ({"image_energy": 1.5}, "image_energy=1.5 is no share"),
        ({"noise_snr_db": (5, -5)}, r"noise_snr_db=\(5, -5\)"),
        ({"noise_snr_db": float("nan")}, "noise_snr_db=nan"),
        ({"noise_snr_db": 200}, "noise_snr_db=200 .*between -40 and 80"),
        ({"validation_share": 0}, "validation_share=0"),
        ({"test_share": 1.0}, "test_share=1.0"),
        ({"sampling_rate": 0}, "sampling_rate=0 Hz"),
        ({"images": "mnist"}, "images='mnist' are no handwritten digits"),
        ({"test_speakers": ["phone1", "george"]}, r"\['phone1', 'george'\].*'phone0', 'phone1'"),
        ({"test_speakers": "phone1"}, "pass a list"),
        ({"test_speakers": [f"phone{i}" for i in range(6)]}, "digit 0 has 0 training clips"),
    ],
)
def test_values_out_of_range_are_named(phones, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_av_digits(phones, **{"images": tiny_images(), **wrong})


def test_a_folder_that_holds_no_digits_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '.*missing'"):
        load_av_digits(tmp_path / "missing", images=tiny_images())
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty' .*hold no audio \(\.wav"):
        load_av_digits(tmp_path / "empty", images=tiny_images())
    write_tone(tmp_path / "words" / "happy" / "a.wav")
    with pytest.raises(ValueError, match="'happy/a.wav' tells no digit"):
        load_av_digits(tmp_path / "words", images=tiny_images())
    write_tone(tmp_path / "both" / "3" / "4_george_0.wav")
    with pytest.raises(ValueError, match="tells two digits, 3 by its folder and 4 by its name"):
        load_av_digits(tmp_path / "both", images=tiny_images())


def test_a_class_without_clips_is_named(tmp_path):
    write_class_folders(tmp_path / "nine", "012345678")
    with pytest.raises(ValueError, match="digit 9 has 0 clips"):
        load_av_digits(tmp_path / "nine", images=tiny_images())
    for digit in range(10):
        for take in range(3, 8):
            write_tone(tmp_path / "takes" / f"{digit}_ann_{take + 5 * (digit == 7)}.wav", 300 + take)
    with pytest.raises(ValueError, match="digit 7 has no test clip"):
        load_av_digits(tmp_path / "takes", images=tiny_images())


def test_too_few_noise_recordings_are_refused(phones, tmp_path):
    write_tone(tmp_path / "noises" / "rain.wav")
    with pytest.raises(ValueError, match="noise_dir holds 1 usable recordings"):
        load_av_digits(phones, noise_dir=tmp_path / "noises", images=tiny_images())


def test_images_that_are_no_digits_are_refused(phones):
    images = tiny_images()
    with pytest.raises(ValueError, match="test split has no column.*'label'"):
        load_av_digits(phones, images=DatasetDict(train=images["train"], test=images["test"].remove_columns("label")))
    few = DatasetDict(
        train=images["train"], test=images["test"].filter(lambda label: label != 6, input_columns="label")
    )
    with pytest.raises(ValueError, match="digit 6 has no test image"):
        load_av_digits(phones, images=few)
    cells = images["test"].cast_column("image", Image(decode=False))["image"][:]
    cells[13] = {"bytes": b"no image", "path": None}
    raw = Dataset.from_dict({"image": cells, "label": images["test"]["label"][:]}).cast_column("image", Image())
    with pytest.raises(ValueError, match="the image in row 13 cannot be decoded"):
        load_av_digits(phones, images=DatasetDict(train=images["train"], test=raw))
    wrong = DatasetDict(train=Dataset.from_dict({"image": [], "label": []}), test=images["test"])
    with pytest.raises(ValueError, match="digit 0 has 0 training images"):
        load_av_digits(phones, images=wrong)


# ---- DTMF digits ----
def test_dtmf_digits_are_the_tones_of_the_recommendation(phones):
    # ITU-T Q.23, by key: 1 2 3 / 4 5 6 / 7 8 9 / * 0 #.
    low, high = (697, 770, 852, 941), (1209, 1336, 1477)
    keys = {
        1: (0, 0),
        2: (0, 1),
        3: (0, 2),
        4: (1, 0),
        5: (1, 1),
        6: (1, 2),
        7: (2, 0),
        8: (2, 1),
        9: (2, 2),
        0: (3, 1),
    }
    hits = []
    for path in sorted(phones.glob("*.wav")):
        wave, rate = soundfile.read(path)
        power = np.abs(np.fft.rfft(wave, 8000)) ** 2  # one bin a Hz
        for tones, place in ((low, keys[int(path.name[0])][0]), (high, keys[int(path.name[0])][1])):
            # A receiver has to take what is off by up to 1.5 %.
            energies = [power[round(0.98 * hz) : round(1.02 * hz) + 1].sum() for hz in tones]
            hits.append(int(np.argmax(energies)) == place)
    assert rate == 8000 and len(hits) == 1440
    assert np.mean(hits) > 0.9  # a key's crosstalk is at times longer, and then stronger


def test_dtmf_digits_are_many_and_all_different(phones):
    files = sorted(phones.glob("*.wav"))
    waves = [soundfile.read(path)[0] for path in files]

    assert len(files) == 720
    assert len({path.read_bytes() for path in files}) == 720
    seconds = [len(wave) / 8000 for wave in waves]
    assert 0.25 <= min(seconds) < 0.27 and 0.48 < max(seconds) <= 0.5
    levels = 20 * np.log10([np.abs(wave).max() for wave in waves])
    assert -30.1 < levels.min() < -29 and -7 < levels.max() < -5.9


def test_dtmf_digits_come_back_from_their_seed(tmp_path):
    first, again, other = (
        [path.read_bytes() for path in write_dtmf_digits(tmp_path / name, 6, seed)]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert not set(first) & set(other)


def test_dtmf_digits_refuse_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="clips_per_digit=0"):
        write_dtmf_digits(tmp_path, 0)
    with pytest.raises(ValueError, match="sampling_rate=2000 Hz"):
        write_dtmf_digits(tmp_path, 1, sampling_rate=2000)
