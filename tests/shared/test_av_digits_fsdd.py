"""AV-digits from all of FSDD: its official test set, its six speakers, and the time that it takes."""

import hashlib
import time
from pathlib import Path

import pytest

from hf_colearn.corpora.av_digits import load_av_digits


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

RECORDINGS = SHARED / "data" / "fsdd" / "recordings"
SPEAKERS = {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}


def test_all_of_fsdd_is_used_and_its_test_set_is_the_official_one():
    began = time.process_time()
    built = load_av_digits(RECORDINGS)
    seconds = time.process_time() - began

    clips = {split: set(data["clip_id"]) for split, data in built.items()}
    assert {split: len(names) for split, names in clips.items()} == {"train": 2430, "validation": 270, "test": 300}
    assert set.union(*clips.values()) == {path.name for path in RECORDINGS.glob("*.wav")}
    official = {f"{digit}_{speaker}_{take}.wav" for digit in range(10) for speaker in SPEAKERS for take in range(5)}
    assert clips["test"] == official
    assert {split: len(data) for split, data in built.items()} == {"train": 2430, "validation": 270, "test": 899}
    for split, data in built.items():
        assert set(data["speaker"]) == SPEAKERS, split
    assert seconds < 15  # 3 s were measured on one core


def test_no_recording_is_in_two_splits():
    built = load_av_digits(RECORDINGS, noise_snr_db=None)

    heard = [{hashlib.sha256(cell["bytes"]).hexdigest() for cell in data["audio"]} for data in built.values()]
    assert [len(hashes) for hashes in heard] == [2430, 270, 300]
    assert len(set.union(*heard)) == 3000


def test_a_speaker_can_be_left_out():
    built = load_av_digits(RECORDINGS, test_speakers=["theo"])

    assert set(built["test"]["speaker"]) == {"theo"}
    assert set(built["train"]["speaker"]) == set(built["validation"]["speaker"]) == SPEAKERS - {"theo"}
    assert len(set(built["test"]["clip_id"])) == 500
