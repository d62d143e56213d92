"""Real teachers on real data: their latents know what the inputs are about."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_colearn import FrozenEncoder, TeacherBank


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

RECORDINGS = SHARED / "data" / "fsdd" / "recordings"
WHISPER = SHARED / "models" / "whisper-tiny-en-encoder"


def encode(encoder, inputs):
    return TeacherBank.encode(encoder, inputs, "banks", show_progress=False)


def cosines_within_and_between(latents, classes):
    """The mean cosine of two latents of one class, and of two classes."""
    unit = torch.nn.functional.normalize(latents, dim=1)
    cosines = (unit @ unit.T).numpy()
    same, other = np.equal.outer(classes, classes), ~np.eye(len(classes), dtype=bool)
    return cosines[same & other].mean(), cosines[~same].mean()


def test_whisper_tells_spoken_digits_apart():
    pytest.importorskip("soundfile")
    digits = [0, 0, 3, 3, 8, 8]
    names = [f"{digit}_jackson_{take}.wav" for digit, take in zip(digits, [0, 1] * 3, strict=True)]
    encoder = FrozenEncoder.from_pretrained(str(WHISPER), device="cpu", max_length_s=2)

    bank = encode(encoder, [{"bytes": None, "path": str(RECORDINGS / name)} for name in names])

    assert (len(bank), bank.num_distinct, bank.dim) == (6, 6, 384)
    assert (bank.description["architecture"], bank.description["modality"]) == ("WhisperEncoder", "audio")
    within, between = cosines_within_and_between(bank.lookup(range(6)), np.array(digits))
    assert within > between + 0.1  # 0.89 and 0.73 were measured for the same speaker's 0, 3 and 8


def test_whisper_averages_over_the_recording_and_not_over_the_silence_behind():
    soundfile = pytest.importorskip("soundfile")
    import torchaudio
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    path = RECORDINGS / "0_jackson_0.wav"
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 8000
    wave = torchaudio.functional.resample(torch.from_numpy(samples), 8000, 16000).numpy()
    whisper = AutoModelForAudioClassification.from_pretrained(WHISPER, dtype="float32").encoder.eval()
    features = AutoFeatureExtractor.from_pretrained(WHISPER)(wave, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        hidden_TH = whisper(features["input_features"]).last_hidden_state[0]

    latent = FrozenEncoder.from_pretrained(str(WHISPER), device="cpu").encode([{"bytes": None, "path": str(path)}])

    # 20 ms, that is 320 samples, a token; the one that has begun counts.
    tokens = -(-len(wave) // 320)
    assert hidden_TH.shape == (1500, 384) and tokens < 50
    torch.testing.assert_close(latent[0], hidden_TH[:tokens].mean(dim=0), atol=1e-4, rtol=1e-4)


def test_whispers_window_of_two_seconds_is_that_of_a_model_with_a_hundred_positions(tmp_path, caplog):
    from short_whisper import write_short_whisper

    pytest.importorskip("soundfile")
    paths = [str(RECORDINGS / f"{digit}_jackson_0.wav") for digit in (0, 3, 8)]

    short = FrozenEncoder.from_pretrained(str(WHISPER), device="cpu", max_length_s=2)
    latents = short.encode(paths)

    assert "decoder" not in caplog.text  # which the folder lacks, and the teacher does not have
    by_hand = FrozenEncoder.from_pretrained(write_short_whisper(str(WHISPER), str(tmp_path)), device="cpu")
    torch.testing.assert_close(latents, by_hand.encode(paths), atol=1e-5, rtol=1e-5)
    assert short.preprocess(paths)["input_features"].shape == (3, 80, 200)


def test_minilm_tells_what_the_stamps_show(minilm):
    with open(SHARED / "data" / "tuxpaint-stamps-128" / "metadata.csv", newline="") as file:
        stamps = [stamp for stamp in csv.DictReader(file) if stamp["category"] in ("animals", "food", "vehicles")]
    sentences = [stamp["text_en"] for stamp in stamps]

    bank = encode(minilm, sentences)

    assert (len(bank), bank.dim, bank.inputs) == (len(stamps), 384, sentences)
    assert bank.num_distinct == len(set(sentences)) < len(stamps)
    assert sentences[0] == sentences[1] == "A frog."
    assert torch.equal(bank.lookup([0]), bank.lookup([1]))
    first = [sentences.index(sentence) for sentence in dict.fromkeys(sentences)]
    within, between = cosines_within_and_between(bank.lookup(first), np.array([stamps[i]["category"] for i in first]))
    assert within > between + 0.1  # 0.38 and 0.26 were measured
