"""AV-digits: handwritten digits paired by class with spoken ones, made hard as AVMNIST was, from data at hand.

Source: AVMNIST of Vielzeuf et al., "CentralNet: a Multilayer Approach for Multimodal Fusion" (ECCV workshops, 2018).
Shapes: N images, H x W pixels, K principal components, T samples of a waveform.
"""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from datasets import Audio, Dataset, DatasetDict, Image, Value
from PIL import Image as PILImage

from hf_colearn.corpora.base import SPLITS, dataset_of, finish
from hf_colearn.corpora.dtmf import dtmf_digits
from hf_colearn.corpora.handwritten_digits import DIGIT, load_handwritten_digits
from hf_colearn.corpora.spoken_digits import Clip, drawn_evenly, read_noises, read_spoken_digits
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.columns import as_stored
from hf_colearn.data.images import as_rgb
from hf_colearn.data.noise import add_noise, wav_bytes
from hf_colearn.utils.extras import extra


NUM_CLASSES, IMAGE_SIZE = 10, 28
OFFICIAL_TEST_TAKES = 5  # FSDD: takes 0 to 4 of every speaker and digit are its test set
_BABBLERS = 3


class Picture(NamedTuple):
    """An image of one digit, `(H, W)` uint8."""

    image_id: str
    label: int
    pixels: np.ndarray


Item = TypeVar("Item", Picture, Clip)


def load_av_digits(
    audio_dir: str | Path | None = None,
    image_energy: float = 0.25,
    noise_snr_db: float | tuple[float, float] | None = (-5.0, 5.0),
    images: str | DatasetDict = "sklearn",
    seed: int = 0,
    *,
    noise_dir: str | Path | None = None,
    test_speakers: Sequence[str] | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    sampling_rate: int = 8000,
    skip_bad_samples: bool = False,
) -> DatasetDict:
    """Pairs of a handwritten and a spoken digit of one class, both made hard: what AVMNIST is, with data at hand.

    *Splits.* Images and clips are cut into train, validation and test separately and only then paired within a split,
    so that no image, clip or noise is in two splits. Test clips are those of `test_speakers`; else, where every file name
    is FSDD's, takes 0 to 4 (its official test set); else `test_share` of every class. They do not depend on the seed.

    *Pairs.* By class and at random; the smaller side is repeated, every item equally often (give or take one). An image
    student's test set is thus all test images, an audio student's all test clips.

    *Images* (28 x 28, bicubic) are projected on the leading principal components of the **train** images, as many as it
    takes to hold more than `image_energy` of the variance, plus the mean; rounded and clipped to 8 bits. AVMNIST's generator
    stops one component earlier, leaves the mean out and fits the test images on their own.

    *Sound.* Every sample gets its own noise, white and babble (3 other clips of the split; with `noise_dir`, one noise
    recording instead) at equal power, scaled so that clip over noise, in mean power over the clip, is `snr_db`.

    With the defaults, a small ResNet (0.1 M weights) tells 64 % of the test images and, from spectrograms over 30 epochs,
    78 % of FSDD's test clips. Everything is held in memory: about 15 kB a sample with FSDD.

    Args:
        audio_dir (`str` or `Path`, *optional*): Spoken digits, see
            [`~hf_colearn.corpora.spoken_digits.read_spoken_digits`]. By default **synthetic** telephone tones
            ([`~hf_colearn.corpora.dtmf.dtmf_digits`]) stand in for speech.
        image_energy (`float`, *optional*, defaults to 0.25): In (0, 1]; 1 leaves the images as they are.
        noise_snr_db (`float` or `tuple[float, float]`, *optional*, defaults to (-5, 5)): In dB, -40 to 80: the ratio, or
            the range that every sample draws its own from. `None` adds no noise (`snr_db` is then infinite).
        images (`str` or `DatasetDict`, *optional*, defaults to `"sklearn"`): scikit-learn's 1797 digits, half of them
            for testing; or your own `train` and `test` with `image` and `label` (`load_dataset("ylecun/mnist")`).
        seed (`int`, *optional*, defaults to 0): Draws the validation splits, pairs and noise.
        noise_dir (`str` or `Path`, *optional*): Recordings of noise, such as ESC-50's `audio`, at least 3.
        test_speakers (`Sequence[str]`, *optional*): Whose clips are the test set, for a speaker-independent score.
        validation_share (`float`, *optional*, defaults to 0.1): Of every class of the training images and clips.
        test_share (`float`, *optional*, defaults to 0.1): Of the clips, where nothing else decides on the test set.
        sampling_rate (`int`, *optional*, defaults to 8000): In Hz, what all sounds are resampled to.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out and counts silent and unreadable clips.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `image` (grayscale, 28 x 28), `audio`
        (`Audio(decode=False)`: the bytes of a WAV of 32-bit floats), `label`, `speaker`, `snr_db`, `image_id`,
        `clip_id` and, in `train`, `sample_id`.

    Raises:
        FileNotFoundError, ValueError: If a folder, a class or a digit is missing, a value out of range, or a clip bad.
    """
    lowest, highest = np.broadcast_to(np.inf if noise_snr_db is None else noise_snr_db, 2).tolist()
    if noise_snr_db is not None and not -40 <= lowest <= highest <= 80:
        raise ValueError(
            f"noise_snr_db={noise_snr_db} is no range: pass dB between -40 and 80, the lower first, or `None` for no noise."
        )
    if not 0 < image_energy <= 1:
        raise ValueError(f"image_energy={image_energy} is no share of the variance: pass a number in (0, 1].")
    if sampling_rate < 1000:
        raise ValueError(f"sampling_rate={sampling_rate} Hz holds no speech: pass at least 1000.")
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 < share < 1:
            raise ValueError(f"{name}={share} is no share of the samples: pass a number between 0 and 1.")

    pictures = _cut_pictures(images, validation_share, np.random.default_rng([seed, 0]))
    _reduce_energy(pictures, image_energy)
    spoken = None if audio_dir is None else read_spoken_digits(audio_dir, sampling_rate, skip_bad_samples)
    found = spoken or _dtmf_clips(sampling_rate)
    clips = _cut_clips(found, test_speakers, validation_share, test_share, np.random.default_rng([seed, 1]))
    noises = None
    if noise_dir is not None:
        recordings = read_noises(noise_dir, sampling_rate, skip_bad_samples)
        noises = _cut_noises(recordings, validation_share, test_share, np.random.default_rng([seed, 2]))

    features = {"image": Image(), "audio": Audio(sampling_rate, decode=False), "label": DIGIT}
    features |= {"speaker": Value("string"), "snr_db": Value("float32")}
    features |= {"image_id": Value("string"), "clip_id": Value("string")}
    built = {}
    for number, split in enumerate(SPLITS):
        rng, rows = np.random.default_rng([seed, 3, number]), []
        for row, other in _pair(pictures[split], clips[split], rng):
            picture, clip = pictures[split][row], clips[split][other]
            snr_db = lowest if noise_snr_db is None else rng.uniform(lowest, highest)
            if noises is None:
                others = rng.choice(len(clips[split]) - 1, _BABBLERS, replace=False)
                sources = [clips[split][i + (i >= other)].wave for i in others]
            else:
                sources = [noises[split][rng.integers(len(noises[split]))]]
            audio = wav_bytes(add_noise(clip.wave, snr_db, sources, rng), sampling_rate)
            cells = (picture.pixels, {"bytes": audio, "path": None}, clip.label, clip.speaker, snr_db)
            rows.append(dict(zip(features, (*cells, picture.image_id, clip.clip_id), strict=True)))
        built[split] = dataset_of(rows, features)
    return finish(built)


def _drawn_by_class(items: Sequence[Item], share: float, what: str, rng: np.random.Generator) -> np.ndarray:
    """Whether an item is in a random `share` of its class, which holds at least one and leaves at least one."""
    drawn_N = np.zeros(len(items), dtype=bool)
    for label in range(NUM_CLASSES):
        of_class = np.flatnonzero([item.label == label for item in items])
        if len(of_class) < 2:
            raise ValueError(
                f"digit {label} has {len(of_class)} {what} to cut a split from, and needs 2: add some, or name another folder."
            )
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        drawn_N[rng.choice(of_class, count, replace=False)] = True
    return drawn_N


def _cut(items: Sequence[Item], is_cut_N: np.ndarray) -> tuple[list[Item], list[Item]]:
    """What is left, and what is cut."""
    return list(compress(items, ~is_cut_N)), list(compress(items, is_cut_N))


def _check_test_classes(items: Sequence[Picture] | Sequence[Clip], what: str, way_out: str) -> None:
    if absent := sorted(set(range(NUM_CLASSES)) - {item.label for item in items}):
        raise ValueError(f"digit {absent[0]} has no test {what}: {way_out}.")


def _cut_pictures(
    images: str | DatasetDict, validation_share: float, rng: np.random.Generator
) -> dict[str, list[Picture]]:
    if images == "sklearn":
        images = load_handwritten_digits()
    if not isinstance(images, dict) or not {"train", "test"} <= set(images):
        raise ValueError(
            f"images={images!r} are no handwritten digits: pass 'sklearn', or a `DatasetDict` with 'train' and 'test'."
        )
    read, test = (_pictures(images[split], split) for split in ("train", "test"))
    _check_test_classes(test, "image", "cut the images' splits by class")
    train, validation = _cut(read, _drawn_by_class(read, validation_share, "training images", rng))
    return {"train": train, "validation": validation, "test": test}


def _pictures(dataset: Dataset, split: str) -> list[Picture]:
    """A split's images in grayscale, resized."""
    if missing := {"image", "label"} - set(dataset.column_names):
        raise ValueError(f"the images' {split} split has no column {sorted(missing)} (it has {dataset.column_names}).")
    pictures = []
    for row, sample in enumerate(as_stored(dataset, "image").with_format(None).select_columns(["image", "label"])):
        if sample["label"] not in range(NUM_CLASSES):
            raise ValueError(f"row {row} of the images' {split} split has label {sample['label']}, which is no digit.")
        image = as_rgb(sample["image"], row).convert("L")
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), PILImage.Resampling.BICUBIC)
        pictures.append(Picture(f"{split}-{row}", sample["label"], np.asarray(image)))
    return pictures


def _reduce_energy(pictures: dict[str, list[Picture]], image_energy: float) -> None:
    """Projects all images, in place, on the components of the training images that hold the energy."""
    if image_energy == 1:
        return
    with extra("demo", "the PCA is scikit-learn's"):
        from sklearn.decomposition import PCA
    flat = {split: np.array([one.pixels.ravel() for one in part], np.float64) for split, part in pictures.items()}
    pca = PCA(n_components=image_energy, svd_solver="full").fit(flat["train"])
    for split, x_NP in flat.items():
        kept_NP = np.clip(np.rint(pca.inverse_transform(pca.transform(x_NP))), 0, 255).astype(np.uint8)
        kept = kept_NP.reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
        pictures[split] = [one._replace(pixels=kept_HW) for one, kept_HW in zip(pictures[split], kept, strict=True)]


def _dtmf_clips(sampling_rate: int) -> list[Clip]:
    """What [`read_spoken_digits`] would read of them from a folder, in its order."""
    clips = []
    for name, samples_T in sorted(dtmf_digits(sampling_rate=sampling_rate)):
        digit, speaker, take = Path(name).stem.split("_")
        clips.append(
            Clip(name, int(digit), speaker, int(take), read_waveform(samples_T, name, array_rate=sampling_rate)[0])
        )
    return clips


def _cut_clips(
    clips: list[Clip],
    test_speakers: Sequence[str] | None,
    validation_share: float,
    test_share: float,
    rng: np.random.Generator,
) -> dict[str, list[Clip]]:
    if test_speakers is not None:
        speakers = {clip.speaker for clip in clips}
        if not test_speakers or isinstance(test_speakers, str) or not set(test_speakers) <= speakers:
            raise ValueError(
                f"test_speakers={test_speakers!r}, but the clips are of {sorted(map(str, speakers))}: pass a list of some "
                "of these (files in class folders tell no speaker)."
            )
        is_test_N = np.array([clip.speaker in test_speakers for clip in clips])
    elif all(clip.take is not None for clip in clips):
        is_test_N = np.array([clip.take for clip in clips]) < OFFICIAL_TEST_TAKES
    else:
        is_test_N = _drawn_by_class(clips, test_share, "clips", np.random.default_rng(0))
    rest, test = _cut(clips, is_test_N)
    way_out = f"takes 0 to {OFFICIAL_TEST_TAKES - 1} where every file is named as in FSDD, there must be at least one"
    _check_test_classes(test, "clip", f"of the test speakers, or of {way_out}")
    train, validation = _cut(rest, _drawn_by_class(rest, validation_share, "training clips", rng))
    return {"train": train, "validation": validation, "test": test}


def _cut_noises(
    noises: list[np.ndarray], validation_share: float, test_share: float, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    if len(noises) < len(SPLITS):
        raise ValueError(f"noise_dir holds {len(noises)} usable recordings: pass at least {len(SPLITS)}, one a split.")
    shuffled = [noises[i] for i in rng.permutation(len(noises))]
    test = max(1, round(test_share * len(noises)))
    validation = test + max(1, round(validation_share * len(noises)))
    return {"test": shuffled[:test], "validation": shuffled[test:validation], "train": shuffled[validation:]}


def _pair(pictures: list[Picture], clips: list[Clip], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Places of an image and a clip of one class, in random order."""
    pairs: list[tuple[int, int]] = []
    for label in range(NUM_CLASSES):
        sides = [np.flatnonzero([item.label == label for item in items]) for items in (pictures, clips)]
        count = max(map(len, sides))
        drawn = [drawn_evenly(side, count, rng) for side in sides]
        pairs.extend(zip(*(side.tolist() for side in drawn), strict=True))
    return [pairs[i] for i in rng.permutation(len(pairs))]
