"""Real spoken digits and the real Whisper: the teacher's frames are those that the student hears."""

from pathlib import Path

import numpy as np
import pytest

from hf_colearn.corpora.spoken_digits import read_spoken_digits
from hf_colearn.experiments.dense_signal import encoded_frames, heard
from hf_colearn.experiments.frozen_features import speech_encoder


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

RECORDINGS = SHARED / "data" / "fsdd" / "recordings"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdd")
    for name in ("0_george_0.wav", "3_theo_7.wav", "7_jackson_12.wav", "9_lucas_40.wav"):
        (folder / name).symlink_to(RECORDINGS / name)
    return read_spoken_digits(folder, 8000)


@pytest.fixture(scope="module")
def encoder():
    return speech_encoder(str(SHARED / "models" / "whisper-tiny-en-encoder"), 1)


def test_whisper_gives_a_frame_every_20_ms_of_a_clip_as_the_student_hears_one(clips, encoder):
    frames = encoded_frames(encoder, clips)

    assert [each.shape[1] for each in frames] == [384] * 4
    for own, of_teacher in zip(heard(clips), frames, strict=True):
        assert abs(len(own) - len(of_teacher)) <= 1  # at 16 kHz a clip may begin one frame less


def test_frames_do_not_depend_on_what_else_is_encoded(clips, encoder):
    alone, together = encoded_frames(encoder, clips[:1])[0], encoded_frames(encoder, clips)[0]
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-3)
