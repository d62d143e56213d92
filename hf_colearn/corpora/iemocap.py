"""IEMOCAP (Busso et al., 2008): acted dialogues of ten speakers, as audio, transcripts and emotions.

The University of Southern California licenses and distributes the folder that [`load_iemocap`] reads (or a mirror on the Hub).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, Literal

from datasets import Audio, ClassLabel, Dataset, DatasetDict, Value, concatenate_datasets, load_dataset

from hf_colearn.corpora.base import dataset_of, finish, refuse_or_warn, warn
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.splits import at_least_one_a_class, cut_validation


EMOTIONS = ("angry", "happy", "sad", "neutral", "frustrated", "excited")
NUM_UTTERANCES = 7380  # of these emotions, in the release
CODES = dict(zip(("ang", "hap", "sad", "neu", "fru", "exc"), EMOTIONS, strict=True))
_OTHERS = "sur fea dis oth xxx surprise surprised fear fearful disgust disgusted other"  # known, and left out

RELEASE = "IEMOCAP_full_release"
_TURN = re.compile(r"(Ses(\d\d)[FM]_\w+)_([FM])(?:\d{3}|XX\d)")  # dialogue, session, who speaks
_LABEL = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\S+)\s+\[")
_SENTENCE = re.compile(r"(\S+) \[[\d.]+-[\d.]+\]: ?(.*)")
_MIRROR_COLUMNS = {  # what mirrors call them
    "audio": ("audio", "file", "path"),
    "text": ("transcription", "text", "transcript"),
    "label": ("major_emotion", "emotion", "label"),
}
_FEATURES = {
    "text": Value("string"),
    "label": ClassLabel(names=list(EMOTIONS)),
    "session": Value("int64"),
    "speaker": Value("string"),
    "utterance": Value("string"),
}


def is_iemocap(splits: Mapping[str, Sized]) -> bool:
    """Whether these are all 7,380 utterances of six emotions, which published numbers are of."""
    return sum(map(len, splits.values())) == NUM_UTTERANCES


def load_iemocap(
    data_dir: str | Path | None = None,
    repo: str = "AbstractTTS/IEMOCAP",
    split: Literal["session", "random"] = "session",
    test_session: int = 5,
    seed: int = 0,
    validation_share: float = 0.1,
    skip_bad_samples: bool = False,
) -> DatasetDict:
    """The utterances of six emotions, 7,380 of the release's 10,039, with their transcripts.

    Utterances of other emotions, and those whose annotators did not agree (`xxx`), are left out and counted in the log.

    Args:
        data_dir (`str` or `Path`, *optional*): The folder as it is distributed, `IEMOCAP_full_release`, or its parent; by
            default the Hub's `repo`.
        repo (`str`, *optional*, defaults to `"AbstractTTS/IEMOCAP"`): A mirror as a dataset of the Hub.
        split (`str`, *optional*, defaults to `"session"`): `"session"` tests on the two speakers of one session, unseen
            in training. `"random"` tests on a stratified fifth of all utterances, as the released code of Lee & Yoon
            (ICLR 2025) does: its speakers, and most of the dialogues around them, are in the training set too.
        test_session (`int`, *optional*, defaults to 5): The session, 1 to 5, of the session split.
        seed (`int`, *optional*, defaults to 0): Draws the validation split, and the random test split.
        validation_share (`float`, *optional*, defaults to 0.1): Of what is not for testing, stratified by emotion.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out and counts utterances without a recording
            or transcript and, after reading each, those whose audio is bad.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `audio` (`Audio(decode=False)`), `text`, `label`
        (six classes), `speaker` (such as `Ses05_F`), `session` (1 to 5), `utterance` and, in `train`, `sample_id`.

    Raises:
        FileNotFoundError, ValueError: If the folder or mirror is not IEMOCAP's, or an utterance is incomplete or unknown.
    """
    if split not in ("session", "random"):
        raise ValueError(f"split='{split}' is unknown: choose 'session' or 'random'.")
    dataset, problems = _from_mirror(repo) if data_dir is None else _from_release(Path(data_dir))
    refuse_or_warn("utterances of IEMOCAP", problems, skip_bad_samples)
    if skip_bad_samples:
        dataset, _ = without_bad_samples(dataset, read_waveform, "audio")
    if split == "random":
        rest, test = cut_validation(dataset, 0.2, seed)
    else:
        sessions = dataset["session"][:]
        if test_session not in sessions or len(set(sessions)) < 2:
            raise ValueError(f"test_session={test_session} cannot be held out: sessions are {sorted(set(sessions))}.")
        rest = dataset.select([row for row, session in enumerate(sessions) if session != test_session])
        test = dataset.select([row for row, session in enumerate(sessions) if session == test_session])
    train, validation = cut_validation(rest, at_least_one_a_class(rest, validation_share), seed)
    return finish({"train": train, "validation": validation, "test": test})


# ---- the folder as it is distributed ----
def _from_release(folder: Path) -> tuple[Dataset, list[str]]:
    release = folder if _sessions(folder) else folder / RELEASE
    if not _sessions(release):
        found = sorted(path.name for path in folder.iterdir())[:10] if folder.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"'{folder}' holds no folders Session1 to Session5 ({found}): pass '{RELEASE}' or its parent as data_dir."
        )
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    others = Counter[str]()
    for session in _sessions(release):
        labels_dir = session / "dialog" / "EmoEvaluation"
        # macOS leaves "._*" beside real files.
        files = [path for path in sorted(labels_dir.glob("*.txt")) if not path.name.startswith("._")]
        if not files:
            raise FileNotFoundError(f"'{labels_dir}' holds no evaluations (*.txt): unpack the release again.")
        for file in files:
            sentences = _read_transcript(session / "dialog" / "transcriptions" / file.name)
            for turn, code in _read_evaluation(file):
                emotion = _emotion_of(code, f"'{turn}' in '{file}'")
                if emotion is None:
                    others[code] += 1
                    continue
                facts = _facts_of(turn, f"'{file}'")
                wav = session / "sentences" / "wav" / turn.rsplit("_", 1)[0] / f"{turn}.wav"
                if not wav.is_file():
                    problems.append(f"'{turn}' of '{file}' has no recording '{wav}'")
                elif not sentences.get(turn):
                    problems.append(f"'{turn}' of '{file}' has no sentence in its transcript")
                else:
                    rows.append({"audio": wav, "text": sentences[turn], "label": emotion, **facts})
    _warn_of_others(others)
    if not rows:
        raise ValueError(f"'{release}' has no complete utterance of {', '.join(EMOTIONS)}: unpack the release again.")
    return dataset_of(rows, {"audio": Audio(decode=False), **_FEATURES}), problems


def _sessions(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("Session[0-9]") if path.is_dir())


def _read_evaluation(file: Path) -> list[tuple[str, str]]:
    """The turns and codes of an evaluation, `[6.2901 - 8.2357]\\tSes01F_impro01_F000\\tneu\\t[2.5, 2.5, 2.5]`."""
    turns = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.startswith("["):  # the other lines are single annotators' and a header
            found = _LABEL.match(line)
            if not found:
                raise ValueError(f"line {number} of '{file}' is no evaluation ('{line[:60]}'): unpack it again.")
            turns.append((found[1], found[2]))
    return turns


def _read_transcript(file: Path) -> dict[str, str]:
    """The sentences of a dialogue, `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.`; other lines are comments."""
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return {found[1]: found[2].strip() for found in map(_SENTENCE.match, lines) if found}


# ---- a mirror ----
def _from_mirror(repo: str) -> tuple[Dataset, list[str]]:
    # With a format, `flatten` would hide columns.
    mirror = concatenate_datasets(list(load_dataset(repo).values())).with_format(None)
    names = {}
    for ours, theirs in _MIRROR_COLUMNS.items():
        found = [name for name in theirs if name in mirror.column_names]
        if not found:
            raise ValueError(
                f"'{repo}' has no column of the {ours} (one of {', '.join(theirs)}): it has {mirror.column_names}. Pass "
                "another mirror, or the licensed folder as data_dir."
            )
        names[ours] = found[0]
    audio = mirror.select_columns(names["audio"]).cast_column(names["audio"], Audio(decode=False))
    audio = audio.rename_column(names["audio"], "audio") if names["audio"] != "audio" else audio
    files = mirror["file"] if "file" in mirror.column_names else audio.flatten()["audio.path"]  # without the bytes
    label = mirror.features[names["label"]]
    rows: list[dict[str, Any]] = []
    kept: list[int] = []
    problems: list[str] = []
    others = Counter[str]()
    texts, emotions = mirror[names["text"]], mirror[names["label"]]
    for row, (file, text, value) in enumerate(zip(files, texts, emotions, strict=True)):
        code = label.int2str(value) if isinstance(label, ClassLabel) else str(value)
        emotion = _emotion_of(code, f"row {row} of '{repo}'")
        facts = _facts_of(str(file), f"row {row} of '{repo}'")
        if emotion is None:
            others[code] += 1
        elif text is None or not text.strip():
            problems.append(f"'{facts['utterance']}' in row {row} of '{repo}' has no transcript")
        else:
            kept.append(row)
        rows.append({"text": text, "label": emotion or EMOTIONS[0], **facts})
    _warn_of_others(others)
    return concatenate_datasets([audio, dataset_of(rows, _FEATURES)], axis=1).select(kept), problems


# ---- what both have ----
def _emotion_of(code: str, where: str) -> str | None:
    """The emotion of a code or name, `None` where it is known but not one of the six; refuses an unknown one."""
    name = code.strip().lower()
    emotion = CODES.get(name, name)
    if emotion in EMOTIONS:
        return emotion
    if name in _OTHERS.split():
        return None
    known = ", ".join([*CODES, *EMOTIONS, *_OTHERS.split()])
    raise ValueError(f"the emotion '{code}' of {where} is unknown: mend it; known are {known}.")


def _facts_of(name: str, where: str) -> dict[str, Any]:
    """Utterance, speaker and session, of a name or path with a turn such as `Ses01F_impro01_M003` in it."""
    found = _TURN.search(Path(name).name)
    if not found:
        raise ValueError(f"'{name}' of {where} names no turn such as 'Ses01F_impro01_F000', so no session: mend it.")
    # The letter of the dialogue is who wears the markers, that of the turn who speaks.
    return {"utterance": found[0], "speaker": f"Ses{found[2]}_{found[3]}", "session": int(found[2])}


def _warn_of_others(others: Counter[str]) -> None:
    if others:
        shown = ", ".join(f"{count:,} {code}" for code, count in others.most_common())
        warn(f"{others.total():,} utterances of IEMOCAP are of no emotion in use and left out: {shown}.")
