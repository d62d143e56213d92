import io

import numpy as np
import pytest
import soundfile
from datasets import Array2D, Audio, ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage
from sklearn.linear_model import LogisticRegression

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.false_cue import MODES, PatchCue, ToneCue, WordCue, plant_cue, spurious_splits


CLASSES = 10
WORDS = WordCue([f"cue{number}" for number in range(CLASSES)])


def texts(count, classes=CLASSES):
    """Texts that say nothing of their class."""
    features = Features(text=Value("string"), label=ClassLabel(num_classes=classes), row=Value("int64"))
    labels = np.random.default_rng(5).integers(0, classes, count).tolist()
    cells = {"text": [f"text {row}" for row in range(count)], "label": labels, "row": list(range(count))}
    return Dataset.from_dict(cells, features=features)


def images(arrays, labels, classes, encoding="PNG"):
    cells = []
    for array in arrays:
        file = io.BytesIO()
        PILImage.fromarray(array).save(file, encoding)
        cells.append({"bytes": file.getvalue(), "path": None})
    features = Features(image=Image(), label=ClassLabel(num_classes=classes))
    return Dataset.from_dict({"image": cells, "label": labels}, features=features)


def noise_images(count, side, classes, seed=0):
    """Images that say nothing of their class."""
    rng = np.random.default_rng(seed)
    pixels_NHW = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
    return images(pixels_NHW, rng.integers(0, classes, count).tolist(), classes)


def clips(waves, rate=8000, subtype="PCM_16"):
    cells = []
    for wave_T in waves:
        file = io.BytesIO()
        soundfile.write(file, wave_T, rate, format="WAV", subtype=subtype)
        cells.append({"bytes": file.getvalue(), "path": None})
    features = Features(
        audio={"bytes": Value("binary"), "path": Value("string")}, label=ClassLabel(num_classes=len(waves))
    )
    dataset = Dataset.from_dict({"audio": cells, "label": list(range(len(waves)))}, features=features)
    return dataset.cast_column("audio", Audio(decode=False))


def noises(count, length=4000):
    return 0.1 * np.random.default_rng(1).standard_normal((count, length))


def said(dataset):
    return np.array(dataset["cue_label"][:])


def labels(dataset):
    return np.array(dataset["label"][:])


def pixels(dataset):
    return np.stack([np.asarray(image) for image in dataset["image"][:]])


# ---- what the cue says ----


@pytest.mark.parametrize("strength", [0.95, 0.5, 1.0])
def test_an_aligned_cue_says_the_own_class_at_its_strength_and_any_other_class_as_often(strength):
    planted = plant_cue(texts(4000), "text", WORDS, strength)
    own = said(planted) == labels(planted)
    # Four standard deviations of a binomial: 0.014 at 0.95 and 4,000 samples.
    assert own.mean() == pytest.approx(strength, abs=4 * np.sqrt(strength * (1 - strength) / 4000))
    if strength == 0.5:
        ahead = (said(planted) - labels(planted))[~own] % CLASSES  # 1 to 9 places ahead, about 222 times each
        assert np.bincount(ahead, minlength=CLASSES)[1:] == pytest.approx(np.full(9, 222), abs=60)


def test_a_flipped_cue_never_says_the_own_class_and_a_random_one_as_often_as_any():
    flipped, random = (plant_cue(texts(4000), "text", WORDS, mode=mode) for mode in ("flipped", "random"))
    ahead = (said(flipped) - labels(flipped)) % CLASSES
    assert 0 not in ahead and np.bincount(ahead)[1:] == pytest.approx(np.full(9, 444), abs=80)
    assert (said(random) == labels(random)).mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 4000))
    assert np.bincount(said(random)) == pytest.approx(np.full(10, 400), abs=80)


def test_a_seed_says_the_same_again_and_another_seed_something_else():
    first, again, other = (plant_cue(texts(200), "text", WORDS, 0.5, seed=seed) for seed in (0, 0, 1))
    assert first["text"][:] == again["text"][:] and first["cue_label"][:] == again["cue_label"][:]
    assert (said(first) != said(other)).mean() > 0.3


def test_labels_order_and_every_other_column_stay_as_they_are():
    dataset = texts(50)
    for mode in MODES:
        planted = plant_cue(dataset, "text", WORDS, mode=mode)
        assert planted["label"][:] == dataset["label"][:] and planted["row"][:] == dataset["row"][:]
        assert planted.features == {**dataset.features, "cue_label": dataset.features["label"]}


def test_planting_is_cached_by_what_is_planted():
    dataset = texts(20)
    fingerprints = [
        plant_cue(dataset, "text", cue, seed=seed)._fingerprint
        for cue, seed in ((WORDS, 0), (WordCue(list(WORDS.words)), 0), (WORDS, 1), (WordCue(WORDS.words[::-1]), 0))
    ]
    assert fingerprints[0] == fingerprints[1] and len(set(fingerprints)) == 3


# ---- splits ----


@pytest.fixture(scope="module")
def splits():
    whole = noise_images(2000, 16, CLASSES)
    cut = {"train": range(1000), "validation": range(1000, 1400), "test": range(1400, 2000)}
    raw = DatasetDict({name: whole.select(rows) for name, rows in cut.items()})
    return raw, spurious_splits(raw, "image", PatchCue(size=4), strength=0.9)


def test_a_probe_of_the_cue_alone_is_right_as_often_as_the_cue_and_follows_it_when_it_lies(splits):
    _, planted = splits
    flat = {name: pixels(split).reshape(len(split), -1) / 255 for name, split in planted.items()}
    probe = LogisticRegression(max_iter=300).fit(flat["train"], said(planted["train"]))
    share = {name: np.mean(probe.predict(x) == labels(planted[name])) for name, x in flat.items()}
    follows = {name: np.mean(probe.predict(flat[name]) == said(planted[name])) for name in ("test", "cue_flipped")}
    assert min(follows.values()) > 0.98
    # The images are noise: what is right is so by the cue. Three standard deviations of 600 samples at 0.9 are 0.037.
    assert share["validation"] == pytest.approx(0.9, abs=0.05) and share["test"] == pytest.approx(0.9, abs=0.05)
    assert share["cue_removed"] == pytest.approx(0.1, abs=0.05) and share["cue_flipped"] < 0.02


def test_the_test_sets_are_the_same_samples_and_only_the_cue_differs(splits):
    raw, planted = splits
    assert list(planted) == ["train", "validation", "test", "cue_removed", "cue_flipped"]
    for name in ("test", "cue_removed", "cue_flipped"):
        assert planted[name]["label"][:] == raw["test"]["label"][:]
        assert (pixels(planted[name]) != pixels(raw["test"])).reshape(600, -1).sum(axis=1).max() <= 16
    assert set(planted["cue_removed"]["cue_label"][:]) == {None}
    for name in ("train", "validation", "test"):
        assert np.mean(said(planted[name]) == labels(planted[name])) == pytest.approx(0.9, abs=0.045)


def test_what_the_cue_says_in_one_split_tells_nothing_of_another():
    half = texts(4000)
    planted = spurious_splits(DatasetDict(train=half, validation=half, test=half), "text", WORDS, strength=0.5)
    own = {name: said(planted[name]) == labels(planted[name]) for name in ("train", "validation", "test")}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert abs(np.corrcoef(own[one], own[other])[0, 1]) < 4 / np.sqrt(4000)
    agree = np.mean(said(planted["test"]) == said(planted["cue_flipped"]))
    assert agree == pytest.approx(
        0.5 / 9, abs=0.02
    )  # the other half of the test set says one of 9 at random, as they do


# ---- images ----


def test_removal_leaves_the_stored_bytes_and_the_patch_all_pixels_beside_it():
    pixels_HWC = np.random.default_rng(2).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    raw = images([pixels_HWC] * 4, [0, 1, 2, 3], 4, encoding="JPEG")
    removed = plant_cue(raw, "image", PatchCue(6), mode="removed")
    as_stored = [dataset.cast_column("image", Image(decode=False))["image"][:] for dataset in (raw, removed)]
    assert as_stored[0] == as_stored[1]
    before, after = pixels(raw), pixels(plant_cue(raw, "image", PatchCue(6), strength=1.0))
    # 3 x 4 places, 10 of them at the border: 0 to 3 above, 4 and 5 at the sides, 6 to 9 below. 0, 2, 5 and 7 are taken.
    for number, (top, left) in enumerate(((0, 0), (0, 12), (6, 18), (12, 6))):
        patch = np.s_[number, top : top + 6, left : left + 6]
        assert (after[patch][:3] == 255).all() and (after[patch][3:] == 0).all()
        after[patch] = before[patch]
    assert np.array_equal(before, after)


def test_four_classes_are_at_the_four_corners_and_half_white_half_black():
    raw = images([np.full((9, 8), 128, np.uint8)] * 4, [0, 1, 2, 3], 4)
    found = pixels(plant_cue(raw, "image", PatchCue(4), strength=1.0))
    for number, (top, left) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
        expected = np.full((9, 8), 128)
        expected[top : top + 2, left : left + 4], expected[top + 2 : top + 4, left : left + 4] = 255, 0
        assert np.array_equal(found[number], expected)


def test_brightness_goes_from_black_to_white_in_the_corner():
    raw = images([np.full((8, 8), 77, np.uint8)] * 6, [0, 1, 2, 3, 4, 5], 6)
    found = pixels(plant_cue(raw, "image", PatchCue(3, by="brightness"), strength=1.0))
    assert np.array_equal(found[:, :3, :3], np.repeat([0, 51, 102, 153, 204, 255], 9).reshape(6, 3, 3))
    assert (found[:, 3:] == 77).all() and (found[:, :, 3:] == 77).all()


def test_grayscale_images_stay_grayscale_and_others_are_rgb():
    shapes = {"L": (8, 8), "RGB": (8, 8, 3), "RGBA": (8, 8, 4), "LA": (8, 8, 2)}
    raw = images([np.full(shape, 200, np.uint8) for shape in shapes.values()], [0, 1, 2, 3], 4)
    planted = plant_cue(raw, "image", PatchCue(4))
    assert planted.features["image"] == Image()
    assert [image.mode for image in planted["image"][:]] == ["L", "RGB", "RGB", "RGB"]


# ---- audio ----


def test_the_tone_has_the_pitch_of_its_class_and_the_ratio_asked_for():
    raw = clips(noises(3), subtype="FLOAT")
    planted = plant_cue(raw, "audio", ToneCue(low_hz=500, high_hz=2000, snr_db=6.0), strength=1.0)
    for row, hz in enumerate((500, 1000, 2000)):
        (before_T, rate), (after_T, rate_after) = (read_waveform(d["audio"][row], row) for d in (raw, planted))
        tone_T = after_T.astype(float) - before_T
        assert rate == rate_after == 8000 and len(tone_T) == len(before_T)
        assert np.fft.rfftfreq(len(tone_T), 1 / rate)[np.abs(np.fft.rfft(tone_T)).argmax()] == hz
        assert 10 * np.log10(np.mean(before_T**2) / np.mean(tone_T**2)) == pytest.approx(6.0, abs=1e-3)


def test_a_clip_without_cue_is_stored_as_it_was_and_the_column_stays_audio():
    raw = clips(noises(2)).cast_column("audio", Audio(sampling_rate=8000, decode=False))
    removed, flipped = (plant_cue(raw, "audio", ToneCue(), mode=mode) for mode in ("removed", "flipped"))
    assert removed["audio"][:] == raw["audio"][:]
    assert removed.features["audio"] == flipped.features["audio"] == Audio(sampling_rate=8000, decode=False)
    assert flipped["cue_label"][:] == [1, 0]


def test_bare_arrays_stay_arrays_of_their_length():
    features = Features(audio=List(Value("float32")), label=ClassLabel(num_classes=2))
    waves = [wave[:length] for wave, length in zip(noises(2), (3000, 4000), strict=True)]
    raw = Dataset.from_dict({"audio": waves, "label": [0, 1]}, features=features)
    planted = plant_cue(raw, "audio", ToneCue(1000, 2000, 0.0, sampling_rate=8000), strength=1.0)
    assert planted.features["audio"] == features["audio"]
    for wave_T, heard_T, hz in zip(waves, planted["audio"][:], (1000, 2000), strict=True):
        wave_T = wave_T.astype(np.float32)
        # At 0 dB, of a sine over whole periods the amplitude is sqrt(2) times the clip's root mean square.
        tone_T = np.sqrt(2 * np.mean(wave_T**2)) * np.sin(2 * np.pi * hz * np.arange(len(wave_T)) / 8000)
        np.testing.assert_allclose(heard_T, wave_T + tone_T, atol=1e-6)


# ---- texts ----


def test_the_word_of_the_class_stands_in_front():
    features = Features(text=Value("string"), label=ClassLabel(names=["a", "b"]))
    raw = Dataset.from_dict({"text": ["What a film.", "Never again."], "label": [1, 0]}, features=features)
    cue = WordCue(["red", "blue"])
    aligned, flipped = (plant_cue(raw, "text", cue, 1.0, mode)["text"][:] for mode in ("aligned", "flipped"))
    assert aligned == ["blue What a film.", "red Never again."] and flipped == [
        "red What a film.",
        "blue Never again.",
    ]
    assert plant_cue(raw, "text", cue, mode="removed")["text"][:] == raw["text"][:]


# ---- what is refused ----


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mode": "absent"}, "mode='absent' is unknown: choose one of aligned, removed, flipped, random"),
        ({"strength": 0.0}, "strength=0.0 is no probability above 0"),
        ({"strength": 1.5}, "strength=1.5 is no probability"),
        ({"strength": float("nan")}, "strength=nan is no probability"),
        ({"column": "image"}, r"no column 'image' \(it has \['text', 'label', 'row'\]\)"),
        ({"label_column": "labels"}, "no column 'labels'"),
        ({"label_column": "row"}, "'row' holds .*class_encode_column"),
        ({"column": "row"}, "'row' holds .*a word is for texts"),
        ({"cue": PatchCue()}, "'text' holds .*a patch is for images"),
        ({"cue": ToneCue()}, "'text' holds .*a tone is for audio"),
        ({"cue": WordCue(["a", "b"])}, "2 words cannot tell 10 classes apart"),
    ],
)
@pytest.mark.parametrize("mode", ["aligned", "removed"])
def test_what_does_not_fit_is_named_before_anything_is_planted(mode, arguments, message):
    with pytest.raises(ValueError, match=message):
        plant_cue(texts(5), **{"column": "text", "cue": WORDS, "mode": mode, **arguments})


def test_a_second_cue_and_labels_that_are_none_are_refused():
    planted = plant_cue(texts(5), "text", WORDS)
    with pytest.raises(ValueError, match="a column 'cue_label' already"):
        plant_cue(planted, "text", WORDS)
    features = Features(text=Value("string"), label=ClassLabel(num_classes=2))
    raw = Dataset.from_dict({"text": ["a", "b"], "label": [0, None]}, features=features)
    with pytest.raises(ValueError, match="row 1 has label None, which is none of 2 classes"):
        plant_cue(raw, "text", WORDS)
    with pytest.raises(ValueError, match="column 'label' has 1 class"):
        plant_cue(texts(5, classes=1), "text", WORDS)
    with pytest.raises(ValueError, match=r"no split 'test' \(they have train\)"):
        spurious_splits(DatasetDict(train=texts(5)), "text", WORDS)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PatchCue(1), "size=1 is no patch"),
        (lambda: PatchCue(by="colour"), "by='colour' is unknown"),
        (lambda: ToneCue(500, 100), "low_hz=500 and high_hz=100"),
        (lambda: ToneCue(snr_db=float("inf")), "snr_db=inf"),
        (lambda: WordCue(["red", "Red"]), "'red' among the words is empty or there twice"),
        (lambda: WordCue(["red", " "]), "' ' among the words is empty"),
    ],
)
def test_a_cue_that_is_none_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "cue, classes, message",
    [
        (PatchCue(9), 4, r"size=9 is larger than the image in row 0 \(8 x 8 pixels\)"),
        (PatchCue(4), 5, r"row 0 \(8 x 8 pixels\) has 4 places for a patch of 4 pixels, and there are 5 classes"),
        (PatchCue(4, by="brightness"), 257, "a grayscale patch tells 256 classes apart, not 257"),
    ],
)
def test_a_patch_without_room_is_named_with_its_row(cue, classes, message):
    with pytest.raises(ValueError, match=message):
        plant_cue(noise_images(2, 8, classes), "image", cue)


@pytest.mark.parametrize(
    "waves, cue, message",
    [
        (noises(2), ToneCue(500, 4000), "high_hz=4000 cannot sound in row 0, whose rate is 8000 Hz"),
        (noises(2, 40), ToneCue(500, 600), "row 0 lasts 0.005 s, too short to tell 500.0 Hz from 600.0 Hz"),
        (np.stack([*noises(1), np.zeros(4000)]), ToneCue(), "row 1 is silent"),
    ],
)
def test_a_tone_that_cannot_be_told_is_named_with_its_row(waves, cue, message):
    with pytest.raises(ValueError, match=message):
        plant_cue(clips(waves), "audio", cue)


def test_audio_of_an_unknown_rate_or_form_is_refused():
    arrays = Features(audio=List(Value("float32")), label=ClassLabel(num_classes=2))
    raw = Dataset.from_dict({"audio": noises(2).tolist(), "label": [0, 1]}, features=arrays)
    with pytest.raises(ValueError, match="bare arrays, of an unknown rate: pass `sampling_rate`"):
        plant_cue(raw, "audio", ToneCue())
    features = Features(audio=Array2D((2, 4), "float32"), label=ClassLabel(num_classes=2))
    raw = Dataset.from_dict({"audio": np.ones((2, 2, 4)), "label": [0, 1]}, features=features)
    with pytest.raises(ValueError, match="a tone is for audio"):
        plant_cue(raw, "audio", ToneCue())


def test_a_broken_image_is_named_with_its_row():
    features = Features(image=Image(), label=ClassLabel(num_classes=2))
    good = noise_images(1, 8, 2).cast_column("image", Image(decode=False))["image"][0]
    raw = Dataset.from_dict({"image": [good, {"bytes": b"none", "path": None}], "label": [0, 1]}, features=features)
    with pytest.raises(ValueError, match="the image in row 1 cannot be decoded"):
        plant_cue(raw, "image", PatchCue())
