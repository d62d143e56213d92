"""Reading audio, the student's inputs made of it, and its noise."""

import io
import math
import sys
import types
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Array3D, Audio, ClassLabel, Dataset, Features, List, Value
from transformers import ASTFeatureExtractor, DataCollatorWithPadding

import families
import tiny_teachers
from hf_colearn import FrozenEncoder, TeacherBank
from hf_colearn.data.audio import (
    NoisyWaveforms,
    WaveformNoise,
    read_waveform,
    with_input_values,
)
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.teachers.inputs import digest, waveform
from refusals import Refusals, assert_refused
from tiny_teachers import RATE, noise, sound


soundfile = pytest.importorskip("soundfile")


def wav(samples, rate=RATE, kind="WAV", **kwargs) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **kwargs)
    return file.getvalue()


def tone(hertz=440.0, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def audio_dataset(cells, **columns):
    columns = {"label": [0] * len(cells), **columns}
    return Dataset.from_dict({"audio": [cell if isinstance(cell, bytes) else wav(cell) for cell in cells], **columns})


# ---- reading ----
def test_a_clip_is_the_same_whatever_holds_it(tmp_path):
    samples = (noise(0.1) * 32767).astype(np.int16)
    (tmp_path / "clip.wav").write_bytes(wav(samples))
    column = Dataset.from_dict({"audio": [str(tmp_path / "clip.wav")]}).cast_column("audio", Audio(decode=False))
    cells = [
        str(tmp_path / "clip.wav"),
        tmp_path / "clip.wav",
        wav(samples),
        {"bytes": wav(samples), "path": None},
        {"bytes": None, "path": str(tmp_path / "clip.wav")},
        column[0]["audio"],
        {"array": samples, "sampling_rate": RATE},
        wav(samples, kind="FLAC"),
        Decoder(torch.from_numpy(samples[None] / np.float32(32768)), RATE),
    ]

    for cell in cells:
        wave, rate = read_waveform(cell, 0)
        assert (rate, wave.dtype, wave.ndim) == (RATE, np.float32, 1)
        np.testing.assert_array_equal(wave, samples / np.float32(32768))
    np.testing.assert_array_equal(read_waveform(samples, 0, array_rate=RATE)[0], samples / np.float32(32768))


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 22_254, 32_000, 44_100, 44_101, 48_000])
def test_any_rate_sounds_the_same_at_16_khz(rate):
    wave, found = read_waveform(wav(tone(rate=rate), rate, subtype="FLOAT"), 0, RATE)

    assert (found, wave.dtype, len(wave)) == (RATE, np.float32, 8000)
    inside = slice(300, -300)  # the filter rings at the ends
    np.testing.assert_allclose(wave[inside], tone()[inside], atol=5e-3)


@pytest.mark.parametrize("samples", [2, 1600])  # two samples of two channels: only the file knows which is which
def test_stereo_is_averaged(samples):
    left, right = noise(0.1, seed=1)[:samples], noise(0.1, seed=2)[:samples]

    wave, _ = read_waveform(wav(np.stack([left, right], axis=1), subtype="FLOAT"), 0)

    np.testing.assert_allclose(wave, (left + right) / 2, atol=1e-7)


LEFT, OFFSET = tone(), np.float32(0.25)
OTHER = noise(0.5)


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [
        ([LEFT, -LEFT], LEFT),
        ([-0.5 * LEFT, LEFT, -0.5 * LEFT], LEFT),  # the loudest of three
        ([OFFSET + LEFT, OFFSET - LEFT], OFFSET + LEFT),  # an offset is no sound
        # The mean keeps .025**2 of the power, and the left channel alone would give it .5**2: 1/400 is below 1/100.
        ([LEFT, -0.95 * LEFT], LEFT),
        ([LEFT, -0.7 * LEFT], 0.15 * LEFT),  # .15**2 / .5**2 = 9/100 is not
        ([LEFT, 0 * LEFT], LEFT / 2),
        ([0 * LEFT] * 3 + [LEFT] + [0 * LEFT] * 2, LEFT / 6),
        ([LEFT + OTHER, OTHER - LEFT], OTHER),
    ],
)
def test_channels_are_averaged_where_they_do_not_cancel(channels, wanted):
    stereo = np.stack(channels)

    for array in (stereo, stereo.T):
        np.testing.assert_allclose(read_waveform(array, 0, array_rate=RATE)[0], wanted, atol=1e-6)
    np.testing.assert_allclose(read_waveform(wav(stereo.T, subtype="FLOAT"), 0)[0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "samples", "wanted"),
    [
        ("int8", [-128, 0, 64], [-1, 0, 0.5]),
        ("uint8", [0, 128, 192], [-1, 0, 0.5]),  # as WAV files of 8 bits hold them
        ("int16", [-32768, 0, 16384], [-1, 0, 0.5]),
        ("int32", [-(2**31), 0, 2**30], [-1, 0, 0.5]),
        ("float16", [-1, 0, 0.5], [-1, 0, 0.5]),
        ("float64", [-1.5, 0, 0.5], [-1.5, 0, 0.5]),  # beyond full scale, which floats may be
    ],
)
def test_samples_are_scaled_by_their_types_range(dtype, samples, wanted):
    array = np.array(samples, dtype=dtype)

    for cell in (array, torch.from_numpy(array)):
        assert read_waveform({"array": cell, "sampling_rate": torch.tensor(8000)}, 0)[0].tolist() == wanted
    assert read_waveform(torch.tensor([-1, 0, 0.5], dtype=torch.bfloat16), 0, array_rate=8000)[0].tolist() == [
        -1,
        0,
        0.5,
    ]


def test_files_of_8_to_64_bits_are_one_clip():
    samples = np.array([-0.5, 0, 0.25, 0.75])

    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        assert read_waveform(wav(samples, subtype=subtype), 0)[0].tolist() == samples.tolist()


BROKEN = np.where(np.arange(1600) % 800 == 5, np.nan, noise(0.1))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b"no audio", r"the audio in row 7 is no audio that can be decoded \(soundfile: .*remove or mend it"),
        (wav(noise(0.1))[:30], "the audio in row 7 is no audio that can be decoded"),
        ("nowhere.wav", r"row 7 \('nowhere.wav'\) is no audio that can be decoded \(there is no such file\)"),
        (wav(np.zeros(0)), "the audio in row 7 has no samples: remove or mend it"),
        (wav(np.zeros((0, 2))), "the audio in row 7 has no samples: remove or mend it"),
        (wav(np.zeros(1600)), r"the audio in row 7 is silent \(all its 1600 samples are 0\): remove or mend it"),
        (wav(np.full(1600, 0.5)), r"row 7 is silent \(all its 1600 samples are 0.5\)"),
        (wav(np.zeros((8000, 2))), r"row 7 is silent \(all its 8000 samples are 0\)"),
        (wav(BROKEN, subtype="FLOAT"), "row 7 has 2 samples of 1600 that are NaN or infinite"),
        ({"array": np.array([np.inf, 0.0]), "sampling_rate": 8000}, "row 7 has 1 samples of 2 that are NaN"),
        ({"array": noise(0.1), "sampling_rate": None}, "row 7 has sampling_rate=None: pass its rate in Hz"),
        ({"array": noise(0.1)}, "row 7 has sampling_rate=None: pass its rate in Hz"),
        ({"array": noise(0.1), "sampling_rate": float("nan")}, "row 7 has sampling_rate=nan: pass its rate in Hz"),
        ({"array": [0.1, 0.2], "sampling_rate": 22_050.5}, "row 7 has sampling_rate=22050.5: pass .* a whole number"),
        ({"array": np.zeros((2, 2, 2)), "sampling_rate": 8000}, r"row 7 is a waveform of shape \(2, 2, 2\)"),
        (
            noise(0.1),
            "row 7 is a bare array, whose rate is unknown: pass {'array': samples, 'sampling_rate': rate in Hz}",
        ),
        (None, "row 7 is of type NoneType, where a waveform is needed: cast the column"),
        ({"bytes": None, "path": None}, r"row 7 is \{'bytes': None, 'path': None\}, where a waveform is needed"),
    ],
)
def test_bad_audio_is_refused_by_its_row(cell, message):
    with pytest.raises(ValueError, match=message):
        read_waveform(cell, 7)


def test_a_bad_file_is_named(tmp_path):
    (tmp_path / "hush.wav").write_bytes(wav(np.zeros(100)))

    with pytest.raises(ValueError, match="hush.wav'\\) is silent"):
        read_waveform(tmp_path / "hush.wav", 0)


def test_a_teacher_hears_what_a_student_hears():
    cell = {"bytes": wav(np.stack([noise(0.2, seed=1, rate=44_100)] * 2, axis=1), 44_100), "path": "a.wav"}

    np.testing.assert_array_equal(waveform(cell, 0, RATE)[0], read_waveform(cell, 0, RATE)[0])


def test_a_silent_recording_is_no_teacher_input():
    recordings = [{"bytes": wav(noise(0.1)), "path": None}, {"bytes": wav(np.zeros(1600)), "path": "b.wav"}]

    with pytest.raises(ValueError, match="teacher input 1 \\('b.wav'\\) is silent"):
        TeacherBank.encode(tiny_teachers.wav2vec2(), recordings)


def test_an_audio_column_is_a_teachers_input_with_torchcodec_or_without(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav(noise(0.1)))
    stored = Dataset.from_dict({"audio": [str(tmp_path / "a.wav")]})
    teacher = tiny_teachers.wav2vec2()
    wanted = teacher.encode([str(tmp_path / "a.wav")])
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)

    banks = [
        TeacherBank.encode(teacher, stored.cast_column("audio", Audio())["audio"]),
        TeacherBank.encode(teacher, stored["audio"]),  # paths
        TeacherBank.encode(teacher, [(tmp_path / "a.wav").read_bytes()]),
    ]

    for bank in banks:
        torch.testing.assert_close(bank.lookup([0]), wanted)
    assert len({bank.fingerprint for bank in banks}) == 1


def test_a_decoded_clip_is_that_of_its_file_for_student_and_teacher(tmp_path):
    pytest.importorskip("torchcodec")
    (tmp_path / "a.wav").write_bytes(wav(noise(0.1)))
    column = Dataset.from_dict({"audio": [str(tmp_path / "a.wav")]}).cast_column("audio", Audio(sampling_rate=8000))
    decoded = column[0]["audio"]

    np.testing.assert_array_equal(read_waveform(decoded, 0)[0], read_waveform(tmp_path / "a.wav", 0)[0])
    assert digest(decoded, 0, "audio") == digest(tmp_path / "a.wav", 0, "audio")


# torchcodec is optional, and its registry build needs CUDA and FFmpeg: this stands for its decoder.
class Decoder:
    def __init__(self, data_CT, sample_rate):
        self.samples = types.SimpleNamespace(data=data_CT, sample_rate=sample_rate)

    def get_all_samples(self):
        return self.samples


def install_torchcodec(monkeypatch, audio_decoder):
    decoders = types.ModuleType("torchcodec.decoders")
    decoders.AudioDecoder = audio_decoder
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)


def test_what_soundfile_does_not_know_goes_to_torchcodec(monkeypatch):
    read = []
    install_torchcodec(
        monkeypatch, lambda source: read.append(source) or Decoder(torch.tensor([[0.1, 1], [0.3, 0]]), 8)
    )

    wave, rate = read_waveform(b"an m4a", 0)

    assert (read, rate) == ([b"an m4a"], 8)
    np.testing.assert_allclose(wave, [0.2, 0.5])
    read_waveform(wav(noise(0.1)), 0)
    assert len(read) == 1  # soundfile comes first


def test_what_neither_can_read_tells_both_reasons(monkeypatch):
    def fail(source):
        raise RuntimeError("Invalid data found\nlong traceback")

    install_torchcodec(monkeypatch, fail)
    with pytest.raises(
        ValueError, match="soundfile: Format not recognised. torchcodec: Invalid data found\\): remove"
    ):
        read_waveform(b"no audio", 0)


# ---- input_values ----
def test_input_values_are_resampled_normalised_and_of_their_own_length():
    waves = [noise(0.1, seed=1), noise(0.2, seed=2), 3 * noise(0.05, seed=3, rate=8000)]
    features = Features({"audio": Value("binary"), "label": ClassLabel(names=["a", "b"]), "who": Value("string")})
    cells = [wav(waves[0], subtype="FLOAT"), wav(waves[1], subtype="FLOAT"), wav(waves[2], 8000, subtype="FLOAT")]
    dataset = Dataset.from_dict({"audio": cells, "label": [0, 1, 0], "who": ["x", "y", "z"]}, features=features)

    found = with_input_values(dataset, tiny_teachers.wav2vec2_extractor(True))

    assert set(found.column_names) == {"input_values", "labels", "who"}
    assert found.features["labels"] == ClassLabel(names=["a", "b"])
    assert found.features["input_values"] == List(Value("float32"))
    assert [len(values) for values in found["input_values"]] == [1600, 3200, 800]
    assert (found["labels"][:].tolist(), found["who"][:]) == ([0, 1, 0], ["x", "y", "z"])
    for row, wave in enumerate(waves[:2]):
        wanted = (wave - wave.mean()) / math.sqrt(wave.var() + 1e-7)
        torch.testing.assert_close(found[row]["input_values"], torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)


def test_a_column_of_decoded_audio_is_read_as_it_is_stored(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(noise(0.1)))
    dataset = Dataset.from_dict({"clip": [str(tmp_path / "a.wav")], "emotion": [3]}).cast_column("clip", Audio())

    found = with_input_values(dataset, tiny_teachers.wav2vec2_extractor(True), "clip", "emotion")

    assert len(found[0]["input_values"]) == 1600
    assert found[0]["labels"] == 3


def test_long_clips_lose_their_end_before_they_are_normalised():
    loud_end = np.concatenate([noise(0.1), 10 * noise(0.1, seed=1)])
    extractor = tiny_teachers.wav2vec2_extractor(True)

    cut = with_input_values(audio_dataset([wav(loud_end / 10, subtype="FLOAT")]), extractor, max_seconds=0.1)
    short = with_input_values(audio_dataset([wav(noise(0.1) / 10, subtype="FLOAT")]), extractor)

    torch.testing.assert_close(cut[0]["input_values"], short[0]["input_values"])


def test_an_extractor_of_windows_gives_its_own_column():
    found = with_input_values(audio_dataset([noise(0.1), noise(0.3)]), tiny_teachers.whisper_extractor())

    assert found[:]["input_features"].shape == (2, 80, 100)


@pytest.mark.parametrize("reads_mask", [True, False])
def test_batches_are_padded_with_a_mask_only_where_the_student_reads_one(reads_mask):
    extractor = tiny_teachers.wav2vec2_extractor(reads_mask)
    data = with_input_values(audio_dataset([noise(0.1), noise(0.2)], label=[2, 1]), extractor)

    batch = DataCollatorWithPadding(extractor)([data[0], data[1]])

    assert batch["input_values"].shape == (2, 3200)
    assert batch["input_values"].dtype == torch.float32
    assert batch["input_values"][0, 1600:].abs().max() == 0
    assert batch["labels"].tolist() == [2, 1]
    assert ("attention_mask" in batch) == reads_mask
    if reads_mask:
        assert batch["attention_mask"].sum(dim=1).tolist() == [1600, 3200]
    assert families.student("wav2vec2")(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("dataset", "kwargs", "message"),
    [
        (audio_dataset([noise(0.1)]), {"column": "sound"}, "no column 'sound'.*'audio', 'label'"),
        (audio_dataset([noise(0.1)]), {"label_column": "y"}, "no column 'y'"),
        (audio_dataset([noise(0.1)]).select([]), {}, "the dataset is empty, so there is no audio"),
        (audio_dataset([noise(0.1)] * 70 + [b"no audio"]), {}, "the audio in row 70 is no audio"),
        (audio_dataset([noise(0.1)]), {"max_seconds": 0}, "max_seconds=0 leaves no audio"),
        (
            audio_dataset([noise(0.1), np.concatenate([np.zeros(1600), noise(0.1)])]),
            {"max_seconds": 0.1},
            "the first 0.1 s of the audio in row 1 are silent: take more seconds",
        ),
    ],
)
def test_bad_input_is_refused(dataset, kwargs, message):
    with pytest.raises(ValueError, match=message):
        with_input_values(dataset, tiny_teachers.wav2vec2_extractor(True), **kwargs)


def test_a_column_of_bare_arrays_needs_its_rate():
    data = Dataset.from_dict({"audio": [tone(440, rate=8000).tolist()], "label": [0]})
    extractor = tiny_teachers.wav2vec2_extractor(True)

    found = with_input_values(data, extractor, array_rate=8000)

    assert len(found[0]["input_values"]) == 8000  # half a second at 16 kHz
    inside = slice(300, -300)
    np.testing.assert_allclose(found[0]["input_values"][inside], tone()[inside] * 2**0.5, atol=2e-2)  # of deviation 1


def test_a_clip_longer_than_the_window_is_named(caplog):
    data = audio_dataset([noise(0.1), noise(1.5), noise(2.0)])

    for kwargs, said in (
        ({}, ["row 1 lasts 1.5 s, longer than the window of 1 s of Whisper"]),
        ({"max_seconds": 1.0}, []),
    ):
        caplog.clear()
        with_input_values(data, tiny_teachers.whisper_extractor(), **kwargs)
        messages = [record.getMessage() for record in caplog.records if record.name == "hf_colearn.data.audio"]
        assert len(messages) == len(said) and all(part in text for part, text in zip(said, messages, strict=True))


def test_filter_banks_of_a_clip_below_a_frame_are_those_of_the_clip_and_zeros():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    extractor = ASTFeatureExtractor(max_length=4, num_mel_bins=16)
    clip = noise(0.01)  # 160 samples of the 400 that a frame of 25 ms has

    found = with_input_values(audio_dataset([wav(clip, subtype="FLOAT")]), extractor)[0]["input_values"]

    filled = torch.nn.functional.pad(torch.from_numpy(clip), (0, 240))[None]
    frame_1M = kaldi.fbank(filled, sample_frequency=16_000, window_type="hanning", num_mel_bins=16)
    wanted = (torch.nn.functional.pad(frame_1M, (0, 0, 0, 3)) - extractor.mean) / (2 * extractor.std)
    torch.testing.assert_close(found, wanted)


# ---- spectrograms ----
def with_spectrograms(dataset, column="audio", seconds=1.0, **kwargs):
    extractor = SpectrogramFeatureExtractor(seconds=seconds, **kwargs)
    return with_input_values(dataset, extractor, column, max_seconds=seconds)


def spectrogram(*cells, **kwargs):
    return with_spectrograms(audio_dataset(list(cells)), **kwargs)[:]["pixel_values"]


def test_a_spectrogram_is_a_standardised_image():
    data = with_spectrograms(audio_dataset([noise(1.0), noise(1.0, seed=1)], label=[3, 4], who=["x", "y"]))

    assert data.features["pixel_values"] == Array3D((1, 112, 112), "float32")
    assert set(data.column_names) == {"pixel_values", "labels", "who"}
    images = data[:]["pixel_values"]
    assert (images.shape, images.dtype) == ((2, 1, 112, 112), torch.float32)
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std(dim=(1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("hertz", [500, 1500, 4000])
def test_a_tone_lights_the_row_of_its_pitch(hertz):
    # mel(f) = 2595 log10(1 + f / 700); band i of H is centred on (i + 1) / (H + 1) of mel(8000).
    place = 41 * math.log10(1 + hertz / 700) / math.log10(1 + 8000 / 700) - 1

    rows = spectrogram(tone(hertz, seconds=1.0), size=(40, 20))[0, 0].mean(dim=1)

    assert abs(int(rows.argmax()) - place) <= 0.75


def test_a_click_lights_the_column_of_its_time():
    # 20 frames over 0.5 s at 16 kHz: 8000 // 19 = 421 samples apart. Frame 18 is centred on sample 18 * 421 = 7578.
    click = np.zeros(8000)
    click[7578] = 0.9

    columns = spectrogram(wav(click), size=(40, 20), seconds=0.5)[0, 0].mean(dim=0)

    assert int(columns.argmax()) == 18


def test_a_spectrogram_reaches_80_db_down():
    # Half a second of a tone, then padding: the darkest and the brightest point are 80 dB apart, before standardising.
    quiet, loud = spectrogram(wav(tone() / 1000, subtype="FLOAT"), wav(tone() / 2, subtype="FLOAT"), size=(40, 20))

    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)  # loudness is no matter
    assert (quiet[0, :, 15:] == quiet.min()).all()


def test_a_spectrogram_does_not_depend_on_the_other_clips():
    quiet, loud = wav(noise(1.0) / 1000, subtype="FLOAT"), wav(noise(1.0, seed=1), subtype="FLOAT")

    torch.testing.assert_close(spectrogram(quiet), spectrogram(quiet, loud)[:1])


def test_a_long_clip_loses_its_end():
    long = np.concatenate([noise(1.0), 5 * noise(0.5, seed=1)]) / 8

    torch.testing.assert_close(
        spectrogram(wav(long, subtype="FLOAT")), spectrogram(wav(noise(1.0) / 8, subtype="FLOAT"))
    )


def test_8_khz_and_16_khz_look_alike_in_the_bands_of_both():
    slow, fast = (spectrogram(wav(tone(1000, 1.0, rate), rate), size=(40, 20), n_fft=512) for rate in (8000, 16_000))

    assert slow.argmax() // 20 == fast.argmax() // 20


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")  # torchaudio says it too
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_fft": 128, "window_seconds": 0.005}, "of the 112 mel bands hold no frequency of n_fft=128 at 16000 Hz"),
        ({"n_fft": 256}, "a window of 400 samples does not fit n_fft=256: pass n_fft of at least 400"),
        ({"seconds": 0.001}, r"size=\(112, 112\) does not fit 16 samples"),
        ({"size": (112, 1)}, r"size=\(112, 1\) does not fit"),
        ({"column": "sound"}, "no column 'sound'"),
        ({"seconds": 0.5}, "the first 0.5 s of the audio in row 1 are silent"),
    ],
)
def test_what_gives_no_spectrogram_is_refused(kwargs, message):
    late = np.concatenate([np.zeros(8000), noise(0.5)])

    with pytest.raises(ValueError, match=message):
        with_spectrograms(audio_dataset([noise(1.0), late]), **kwargs)


# ---- noise ----
@pytest.mark.parametrize("name", ["input_values", "pixel_values"])
def test_the_students_noise_has_its_deviation_and_leaves_the_rest_alone(name):
    batch = {name: torch.randn(4, 10_000), "labels": torch.arange(4), "teacher_latents": torch.randn(4, 3)}
    before = batch[name].clone()

    torch.manual_seed(0)
    noisy = WaveformNoise(0.01)(batch)

    added = noisy[name] - before
    assert abs(added.std() - 0.01) < 2e-4  # 40,000 draws: the deviation is known to 0.4 %
    assert abs(added.mean()) < 2e-4
    assert torch.equal(batch[name], before)
    assert noisy["labels"] is batch["labels"] and noisy["teacher_latents"] is batch["teacher_latents"]
    torch.manual_seed(0)
    assert torch.equal(WaveformNoise(0.01)(batch)[name], noisy[name])


def test_the_students_noise_leaves_the_padding_alone():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    batch = {"input_values": mask.float(), "attention_mask": mask}

    added = WaveformNoise(1.0)(batch)["input_values"] - mask

    assert ((added != 0) == (mask == 1)).all()


def test_noise_for_no_audio_is_refused():
    with pytest.raises(ValueError, match="the batch has none of input_values.*it has \\['labels'\\]"):
        WaveformNoise()({"labels": torch.arange(2)})
    with pytest.raises(ValueError, match="std=-1 is no standard deviation"):
        WaveformNoise(-1)
    with pytest.raises(ValueError, match="std=inf is no standard deviation"):
        NoisyWaveforms([], float("inf"), RATE)


def test_the_teachers_noise_is_drawn_once_for_every_row():
    waves = [wav(noise(0.5, rate=8000), 8000, subtype="FLOAT")] * 3
    clean = read_waveform(waves[0], 0, RATE)[0]

    noisy = NoisyWaveforms(waves, std=0.01, sampling_rate=RATE, seed=3)

    first, last = noisy[0], noisy[-1]
    assert (len(noisy), first["sampling_rate"], first["array"].dtype) == (3, RATE, np.float32)
    assert abs((first["array"] - clean).std() - 0.01) < 4e-4  # 8,000 draws
    np.testing.assert_array_equal(noisy[0]["array"], first["array"])
    np.testing.assert_array_equal(noisy[2]["array"], last["array"])
    correlation = np.corrcoef(first["array"] - clean, last["array"] - clean)[0, 1]
    assert abs(correlation) < 0.05
    other = NoisyWaveforms(waves, std=0.01, sampling_rate=RATE, seed=4)[0]["array"] - clean
    assert abs(np.corrcoef(first["array"] - clean, other)[0, 1]) < 0.05
    assert len(list(noisy)) == 3
    with pytest.raises(IndexError, match="row 3 is out of range: there are 3 recordings"):
        noisy[3]


def test_a_bank_is_encoded_from_noisy_recordings_and_cached(tmp_path):
    paths = [str(tmp_path / f"{row}.wav") for row in range(3)]
    for row, path in enumerate(paths):
        Path(path).write_bytes(wav(noise(0.1, seed=row)))
    column = Dataset.from_dict({"audio": paths}).cast_column("audio", Audio(decode=False))["audio"]
    teacher = tiny_teachers.wav2vec2()

    banks = [
        TeacherBank.encode(teacher, NoisyWaveforms(column, std, RATE, seed))
        for std, seed in ((0.1, 0), (0.1, 0), (0.1, 1), (0.0, 0))
    ]

    assert banks[0].fingerprint == banks[1].fingerprint
    assert len({bank.fingerprint for bank in banks}) == 3
    clean = teacher.encode(paths)
    torch.testing.assert_close(banks[3].lookup([0, 1, 2]), clean, atol=1e-5, rtol=1e-5)
    assert (banks[0].lookup([0, 1, 2]) - clean).abs().max() > 1e-3


def test_a_silent_recording_gets_no_noise():
    with pytest.raises(ValueError, match="the audio in row 1 is silent"):
        NoisyWaveforms([wav(noise(0.1)), wav(np.zeros(1600))], 1e-3, RATE)[1]


# ---- what is refused, with nothing written ----
refusals = Refusals()


def bank_of(*recordings, teacher=None):
    return TeacherBank.encode(teacher or tiny_teachers.wav2vec2(), list(recordings), "banks", show_progress=False)


@refusals.case(
    ValueError, "row 0 is a bare array, whose rate is unknown", "{'array': samples, 'sampling_rate': rate in Hz}"
)
def a_bare_array_in_a_data_set(folder):
    data = Dataset.from_dict({"audio": [noise(0.1).tolist()], "label": [0]})
    yield
    with_input_values(data, tiny_teachers.wav2vec2_extractor(True))


@refusals.case(ValueError, "teacher input 1 is a bare array, whose rate is unknown", "'sampling_rate': rate in Hz")
def a_bare_array_for_a_teacher(folder):
    yield
    tiny_teachers.wav2vec2().encode([sound(0.1), noise(0.1)])


@refusals.case(ValueError, "sampling_rate='16 kHz'", "pass its rate in Hz, a whole number")
def a_rate_in_words(folder):
    yield
    bank_of({"array": noise(0.1), "sampling_rate": "16 kHz"})


@refusals.case(ValueError, "teacher input 1 has sampling_rate=0", "pass its rate in Hz")
def a_rate_of_zero(folder):
    yield
    bank_of(sound(0.1), {"array": noise(0.1), "sampling_rate": 0})


@refusals.case(ValueError, "teacher input 0 has samples of up to 12000, where full scale is 1", "divide", "int16")
def integers_that_became_floats(folder):
    yield
    bank_of({"array": np.array([0.0, 12_000.0, -500.0]), "sampling_rate": RATE})


@refusals.case(ValueError, "samples of int64, whose full scale is unknown", "pass floats in [-1, 1], int16 or int32")
def integers_of_an_unknown_range(folder):
    yield
    read_waveform({"array": [0, 1000, -1000], "sampling_rate": RATE}, 3)


@refusals.case(ValueError, "row 3 is a waveform of shape (2, 2)", "fewer channels than samples")
def channels_that_cannot_be_told_from_samples(folder):
    yield
    read_waveform({"array": np.eye(2), "sampling_rate": RATE}, 3)


@refusals.case(ValueError, "the audio in row 3 is no array of samples", "pass one of shape (T,), (C, T) or (T, C)")
def channels_of_several_lengths(folder):
    yield
    read_waveform({"array": [[0.1, 0.2], [0.3]], "sampling_rate": RATE}, 3)


@refusals.case(
    ValueError,
    "teacher input 1 ('gone.wav') is no audio that can be decoded (there is no such file)",
    "remove or mend",
)
def a_recording_that_is_gone(folder):
    yield
    tiny_teachers.wav2vec2().encode([sound(0.1), "gone.wav"])


@refusals.case(ValueError, "teacher input 1 has 1 samples of 1600 that are NaN or infinite", "remove or mend it")
def a_recording_with_a_hole(folder):
    hole = sound(0.1, seed=1)
    hole["array"][7] = np.nan
    yield
    bank_of(sound(0.1), hole)


@refusals.case(ValueError, "the first 0.05 s of teacher input 0 are silent", "take more seconds, or remove or mend it")
def a_recording_that_begins_after_the_limit(folder):
    teacher = tiny_teachers.wav2vec2()
    teacher = FrozenEncoder(teacher.model, teacher.processor, max_length_s=0.05)
    late = {"array": np.concatenate([np.zeros(1600, np.float32), noise(0.1)]), "sampling_rate": RATE}
    yield
    bank_of(late, teacher=teacher)


@refusals.case(ValueError, "max_length_s=0 leaves no audio", "pass a positive number of seconds, or None")
def a_window_of_nothing(folder):
    teacher = tiny_teachers.wav2vec2()
    yield
    FrozenEncoder(teacher.model, teacher.processor, max_length_s=0)


@refusals.case(ValueError, "max_length_s=3 is for audio, and BertModel takes text", "leave it out")
def seconds_of_a_text(folder):
    yield
    FrozenEncoder(tiny_teachers.bert_model(), tiny_teachers.tokenizer(), max_length_s=3)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_bad_audio_is_refused_with_nothing_written(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
