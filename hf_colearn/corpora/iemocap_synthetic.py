"""A small synthetic folder in IEMOCAP's layout, for smoke tests of a recipe without the corpus's licence.

Recordings are sums of harmonics under formants, sentences are drawn from word lists: scores on it say nothing about emotion.
"""

from pathlib import Path

import numpy as np

from hf_colearn.utils import distributed


RATE = 16_000

# How an emotion is voiced: pitch over the speaker's own, its range and slope (in e-folds), how fast the harmonics fade,
# level in dB and syllables per second. Neighbours overlap once the utterance's own scatter is added.
_VOICES = {
    "ang": (0.20, 0.16, -0.10, 0.8, 3, 6.0),
    "fru": (0.10, 0.12, -0.18, 1.0, 1, 5.0),
    "exc": (0.30, 0.22, 0.15, 1.0, 2, 6.0),
    "hap": (0.20, 0.18, 0.10, 1.2, 0, 5.0),
    "neu": (0.00, 0.06, -0.05, 1.3, -1, 4.5),
    "sad": (-0.12, 0.04, -0.12, 1.7, -4, 3.5),
}
_SCATTER = np.array([0.10, 0.05, 0.10, 0.25, 2.0, 0.8])
# Formants in Hz, by Peterson & Barney.
_VOWELS = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480]])

_WORDS = {
    "ang": "hate furious enough stop never liar shut",
    "fru": "again enough useless tired still never wrong",
    "exc": "amazing wow finally great won best believe",
    "hap": "great glad lovely nice best smile thanks",
    "neu": "maybe table tuesday form number office fine",
    "sad": "gone miss alone cry tired sorry lost",
}
_SHARED = "well really about them today thing you know time home maybe think"


def write_smoke_test_tree(folder: str | Path, utterances_per_session: int = 60, seed: int = 0) -> Path:
    """Writes five sessions of two synthetic speakers each, as `load_iemocap(data_dir=folder)` reads them.

    Pitch, loudness, timbre and tempo depend on the emotion and the speaker, words on the emotion, with scatter. Every
    dialogue has one turn more, without agreement (`xxx`). Of several processes the main one writes.

    Args:
        folder (`str` or `Path`): Where the returned `IEMOCAP_full_release` is written.
        utterances_per_session (`int`, *optional*, defaults to 60): Of the six emotions in turn, at least 12.
        seed (`int`, *optional*, defaults to 0): Draws everything.
    """
    if utterances_per_session < 2 * len(_VOICES):
        raise ValueError(
            f"utterances_per_session={utterances_per_session} gives no two of each of {len(_VOICES)} emotions: pass at least "
            f"{2 * len(_VOICES)}."
        )
    release = Path(folder) / "IEMOCAP_full_release"
    with distributed.raise_on_all_ranks():
        if distributed.rank() == 0:
            release.mkdir(parents=True, exist_ok=True)
            readme = "Synthetic, by hf_colearn.corpora.iemocap_synthetic: this is not IEMOCAP.\n"
            (release / "README.txt").write_text(readme)
            for session in range(1, 6):
                _write_session(release / f"Session{session}", session, utterances_per_session, seed)
    return release


def _write_session(root: Path, session: int, utterances: int, seed: int) -> None:
    import soundfile

    rng = np.random.default_rng([seed, session])
    voices = {sex: _speaker(rng, sex) for sex in "FM"}
    codes = rng.permutation(np.resize(list(_VOICES), utterances))
    for part, codes_of_dialogue in zip("FM", np.array_split(codes, 2), strict=True):
        dialogue = f"Ses{session:02d}{part}_impro01"
        folders = [root / f"sentences/wav/{dialogue}", root / "dialog/transcriptions", root / "dialog/EmoEvaluation"]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        transcript, evaluation, clock = [], ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], 0.0
        for number, code in enumerate([*codes_of_dialogue, "xxx"]):
            sex = "FM"[number % 2]
            turn = f"{dialogue}_{sex}{number // 2:03d}"
            played = rng.choice(list(_VOICES)) if code == "xxx" else code
            wave = _utterance(rng, played, voices[sex])
            soundfile.write(folders[0] / f"{turn}.wav", wave, RATE, subtype="PCM_16")
            end = clock + len(wave) / RATE
            transcript.append(f"{turn} [{clock:08.4f}-{end:08.4f}]: {_sentence(rng, played)}")
            evaluation.append(f"[{clock:.4f} - {end:.4f}]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]")
            clock = end + 0.2
        (folders[1] / f"{dialogue}.txt").write_text("\n".join(transcript) + "\n")
        (folders[2] / f"{dialogue}.txt").write_text("\n".join(evaluation) + "\n")


def _speaker(rng: np.random.Generator, sex: str) -> tuple[float, float]:
    """Mean pitch in Hz, and the scale of the formants."""
    pitch, formants = {"F": (205.0, 1.15), "M": (120.0, 1.0)}[sex]
    return pitch * float(np.exp(rng.normal(0, 0.1))), formants * float(np.exp(rng.normal(0, 0.04)))


def _utterance(rng: np.random.Generator, code: str, speaker: tuple[float, float]) -> np.ndarray:
    """A voice-like sound `(T,)` of 0.45 to 0.75 s: harmonics of a moving pitch under the formants of one vowel a syllable."""
    shift, spread, slope, tilt, level, tempo = np.array(_VOICES[code]) + rng.normal(size=6) * _SCATTER
    pitch, scale = speaker
    time = np.arange(round(rng.uniform(0.45, 0.75) * RATE)) / RATE
    swing = spread * np.sin(2 * np.pi * rng.uniform(1.5, 2.5) * time + rng.uniform(0, 2 * np.pi))
    f0_T = pitch * np.exp(shift + swing + slope * (time / time[-1] - 0.5))
    phase_T = 2 * np.pi * np.cumsum(f0_T) / RATE
    syllable_T = np.floor(time * max(tempo, 2.0)).astype(int)
    vowels = _VOWELS[rng.integers(len(_VOWELS), size=syllable_T[-1] + 1)] * scale
    harmonics = np.arange(1, 25)[:, None]
    # Gains are worked out once a syllable, at its mean pitch, which is fast and close enough.
    mean_f0 = np.bincount(syllable_T, f0_T) / np.bincount(syllable_T)
    distance = (harmonics[..., None] * mean_f0[:, None] - vowels) / 150.0
    gains = (1 / (1 + distance**2)).sum(axis=-1) * harmonics**-tilt  # [harmonics, syllables]
    overtones = np.cumprod(np.broadcast_to(np.exp(1j * phase_T), (len(harmonics), len(time))), axis=0).imag
    wave = (gains[:, syllable_T] * overtones).sum(axis=0)
    wave *= np.abs(np.sin(np.pi * time * max(tempo, 2.0))) ** 0.4
    wave *= 10 ** ((level - 20) / 20) / wave.std()
    noise = rng.normal(size=len(wave)) * wave.std() * 10 ** (-rng.uniform(3, 12) / 20)
    return np.clip(wave + noise, -1, 1)


def _sentence(rng: np.random.Generator, code: str) -> str:
    """Five to eight words, of which about one leans on the emotion."""
    lists = [_WORDS[code] if rng.random() < 0.16 else _SHARED for _ in range(rng.integers(5, 9))]
    words = " ".join(str(rng.choice(words.split())) for words in lists)
    return words.capitalize() + "."
