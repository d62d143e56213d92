"""Frames and sound of real encoded videos, as a data loader reads them."""

import pickle
import sys

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, Features, Value, Video
from PIL import Image
from transformers import default_data_collator
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.data.audio import log_magnitude, with_log_magnitude
from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.video import read_frames, read_soundtrack, spread, with_frames
from tiny_videos import levels, needs_ffmpeg, ramp, texture, tone, write_video


def plain_processor(size=16, channels=3):
    """Resizes, and maps 0..255 to -1..1."""
    return ViTImageProcessorPil(
        size={"height": size, "width": size}, image_mean=[0.5] * channels, image_std=[0.5] * channels
    )


def dataset_of(**columns):
    return Dataset.from_dict({name: [str(cell) for cell in cells] for name, cells in columns.items()})


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A video in three formats, 20 frames of brightness 0, 10, ..., 190 and 0.8 s of a tone."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        suffix: write_video(folder / f"ramp.{suffix}", ramp(20), tone(440, 0.8)) for suffix in ("mp4", "flv", "avi")
    }


# ---- frames ----
@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp4", "flv", "avi"])
def test_the_frame_in_the_centre_of_each_segment_is_taken(clips, suffix):
    frames = read_frames(clips[suffix], 4)

    assert frames.shape == (4, 3, 32, 32) and frames.dtype == torch.uint8
    # Segments of 5 frames: 0-4, 5-9, 10-14, 15-19.
    assert levels(frames) == pytest.approx([20, 70, 120, 170], abs=3)
    assert levels(read_frames(str(clips[suffix]), 1)) == pytest.approx([100], abs=3)


@needs_ffmpeg
def test_encoded_bytes_and_dataset_cells_give_the_same_frames_as_the_file(clips):
    expected = read_frames(clips["mp4"], 5)
    content = clips["mp4"].read_bytes()

    for cell in (content, {"bytes": content, "path": "elsewhere.mp4"}, {"bytes": None, "path": str(clips["mp4"])}):
        assert torch.equal(read_frames(cell, 5), expected)


@needs_ffmpeg
def test_a_clip_of_a_longer_video_is_cut_before_its_frames_are_taken(clips):
    cell = {"path": str(clips["avi"]), "start": 10, "end": 14}

    assert levels(read_frames(cell, 4)) == pytest.approx([100, 110, 120, 130], abs=3)
    assert levels(read_frames(cell, 2)) == pytest.approx([110, 130], abs=3)


def test_random_frames_are_one_of_each_segment_and_reach_every_frame():
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(200):
        taken = spread(range(7), 3, "the video", generator)
        assert taken[0] in (0, 1) and taken[1] in (2, 3) and taken[2] in (4, 5, 6)  # 7 * k // 3: 0, 2, 4, 7
        seen.update(taken)
    assert seen == set(range(7))
    first = spread(range(100), 8, "the video", torch.Generator().manual_seed(1))
    assert first == spread(range(100), 8, "the video", torch.Generator().manual_seed(1))
    assert first != spread(range(100), 8, "the video", torch.Generator().manual_seed(2))


def test_as_many_frames_as_there_are_give_every_frame_once():
    for generator in (None, torch.Generator().manual_seed(0)):
        assert spread(range(3, 16), 13, "the video", generator) == list(range(3, 16))


def test_a_folder_of_frames_is_read_in_natural_order(tmp_path):
    for number in range(12):
        Image.new("RGB", (24, 16), (number * 20,) * 3).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")

    assert levels(read_frames(tmp_path, 12)) == [number * 20 for number in range(12)]  # frame_10 after frame_9
    assert levels(read_frames({"path": str(tmp_path), "start": 8, "end": 12}, 4)) == [160, 180, 200, 220]


@needs_ffmpeg
def test_what_cannot_be_read_is_named(tmp_path, clips):
    (tmp_path / "corrupt.mp4").write_bytes(b"\x00" * 500)
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("corrupt.mp4", "empty.mp4"):
        with pytest.raises(ValueError, match=f"{name}.*no video that can be decoded"):
            read_frames(tmp_path / name, 1)
    with pytest.raises(ValueError, match="row 7.*gone.mp4.*neither a file nor a folder"):
        read_frames({"path": str(tmp_path / "gone.mp4")}, 1, 7)
    with pytest.raises(ValueError, match="ramp.mp4.*20 frames, fewer than the 21"):
        read_frames(clips["mp4"], 21)
    with pytest.raises(ValueError, match="ramp.mp4.*20 frames.*no clip from 15 to 25"):
        read_frames({"path": str(clips["mp4"]), "start": 15, "end": 25}, 2)
    with pytest.raises(ValueError, match="count=0"):
        read_frames(clips["mp4"], 0)
    with pytest.raises(ValueError, match="row 3 is of type NoneType"):
        read_frames(None, 1, 3)


def test_without_torchcodec_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # what Python does where it is not installed
    (tmp_path / "clip.mp4").write_bytes(b"some video")

    with pytest.raises(ImportError, match=r"pip install 'hf-colearn\[video\]', and install FFmpeg"):
        read_frames(tmp_path / "clip.mp4", 1)


def test_folders_of_frames_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="0 frames, fewer than the 1"):
        read_frames(tmp_path, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.jpg")
    Image.new("RGB", (9, 8)).save(tmp_path / "2.jpg")
    with pytest.raises(ValueError, match="frames of .8, 8. and of .8, 9. pixels"):
        read_frames(tmp_path, 2)
    (tmp_path / "2.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="frame '2.jpg' that cannot be decoded"):
        read_frames(tmp_path, 2)


@needs_ffmpeg
def test_bad_videos_are_skipped_and_counted_on_request(tmp_path, clips):
    short = write_video(tmp_path / "short.mp4", ramp(3))
    (tmp_path / "corrupt.mp4").write_bytes(b"x" * 99)
    dataset = dataset_of(video=[clips["mp4"], short, tmp_path / "corrupt.mp4", clips["flv"]])

    good, bad = without_bad_samples(dataset, lambda cell, row: read_frames(cell, 4, row), "video")

    assert good["video"][:] == [str(clips["mp4"]), str(clips["flv"])]
    assert [sample.row for sample in bad] == [1, 2] and "3 frames" in bad[0].problem


# ---- sound ----
def loudest_frequency(wave, rate):
    return np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave)


@needs_ffmpeg
def test_the_sound_of_a_video_is_decoded_and_resampled(clips):
    for path in clips.values():
        wave, rate = read_soundtrack(path, 8_000)
        assert rate == 8_000 and wave.dtype == np.float32 and len(wave) == pytest.approx(6_400, abs=800)
        assert loudest_frequency(wave, rate) == pytest.approx(440, abs=5)
    assert loudest_frequency(*read_soundtrack({"bytes": clips["mp4"].read_bytes()}, 8_000)) == pytest.approx(
        440, abs=5
    )


@needs_ffmpeg
def test_a_wav_beside_the_video_is_taken_instead(tmp_path):
    video = write_video(tmp_path / "clip.mp4", ramp(5), tone(440, 0.2))
    soundfile.write(tmp_path / "clip.wav", tone(880, 0.2), 16_000)

    assert loudest_frequency(*read_soundtrack(video)) == pytest.approx(880, abs=5)


def test_a_folder_of_frames_has_its_sound_beside_it(tmp_path):
    (tmp_path / "clip.v2").mkdir()
    with pytest.raises(ValueError, match="no '.*clip.v2.wav' beside it"):
        read_soundtrack(tmp_path / "clip.v2")
    soundfile.write(tmp_path / "clip.v2.wav", tone(880, 0.2), 16_000)

    assert loudest_frequency(*read_soundtrack(tmp_path / "clip.v2")) == pytest.approx(880, abs=5)


@needs_ffmpeg
def test_a_video_without_sound_is_named(tmp_path):
    silent = write_video(tmp_path / "mute.mp4", ramp(5))

    with pytest.raises(ValueError, match="mute.mp4.*no audio that can be decoded"):
        read_soundtrack(silent)


# ---- inputs ----
@needs_ffmpeg
def test_frames_are_what_the_processor_makes_of_them_also_a_single_one(clips):
    dataset = dataset_of(video=[clips["mp4"], clips["flv"]])

    four = with_frames(dataset, plain_processor(), 4)[1]["video_pixel_values"]
    one = with_frames(dataset, plain_processor(), 1)[:2]["video_pixel_values"]

    assert four.shape == (4, 3, 16, 16) and four.dtype == torch.float32
    # Brightness 20, 70, 120, 170 of 255, from -1 to 1.
    assert four.mean(dim=(1, 2, 3)).tolist() == pytest.approx([v / 127.5 - 1 for v in (20, 70, 120, 170)], abs=0.03)
    assert [pixels.shape for pixels in one] == [(1, 3, 16, 16)] * 2


@needs_ffmpeg
@pytest.mark.parametrize("train", [False, True])
def test_a_processor_of_one_channel_gives_grey_frames(clips, train):
    pixels = with_frames(dataset_of(video=[clips["mp4"]]), plain_processor(channels=1), 20, train=train)[0]

    assert pixels["video_pixel_values"].shape == (20, 1, 16, 16)
    means = pixels["video_pixel_values"].mean(dim=(1, 2, 3)).tolist()
    assert means == pytest.approx([10 * index / 127.5 - 1 for index in range(20)], abs=0.03)


def test_training_crops_and_flips_all_frames_of_a_clip_alike_and_every_reading_anew(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for number in range(6):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    dataset = with_frames(dataset_of(video=[tmp_path]), plain_processor(), 4, train=True)

    torch.manual_seed(0)
    first, second = dataset[0]["video_pixel_values"], dataset[0]["video_pixel_values"]
    torch.manual_seed(0)
    again = dataset[0]["video_pixel_values"]

    assert all(torch.equal(first[0], frame) for frame in first)
    assert not torch.equal(first, second) and torch.equal(first, again)


def test_without_hflip_no_clip_is_mirrored(tmp_path):
    ascending = np.tile(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (40, 1, 3))
    Image.fromarray(ascending).save(tmp_path / "1.png")

    def directions(**options):
        dataset = with_frames(dataset_of(video=[tmp_path]), plain_processor(), 1, train=True, **options)
        torch.manual_seed(0)
        clips = [dataset[0]["video_pixel_values"] for _ in range(20)]
        return {bool(clip[0, 0, 0, 0] < clip[0, 0, 0, -1]) for clip in clips}

    assert directions() == {True, False} and directions(hflip=False) == {True}


@needs_ffmpeg
def test_several_modalities_are_read_from_one_sample_by_workers(tmp_path, clips):
    soundfile.write(tmp_path / "clip.wav", tone(300, 1.0), 16_000)
    data = {
        "rgb": [str(clips["mp4"])] * 3,
        "depth": [str(clips["avi"])] * 3,
        "audio": [str(tmp_path / "clip.wav")] * 3,
    }
    features = Features({name: Value("string") for name in data} | {"label": Value("int64"), "actor": Value("string")})
    dataset = Dataset.from_dict({**data, "label": [4, 5, 6], "actor": ["a", "b", "c"]}, features=features)
    dataset = dataset.cast_column("rgb", Video(decode=False)).cast_column("audio", Audio(decode=False))

    dataset = with_frames(dataset, plain_processor(), 2, column="rgb", out="rgb_pixel_values")
    dataset = with_frames(dataset, plain_processor(8, 1), 3, column="depth", out="depth_pixel_values")
    dataset = with_log_magnitude(dataset).select([2, 0]).add_column("sample_id", [7, 8])
    dataset = pickle.loads(pickle.dumps(dataset))  # as it reaches a worker that is spawned

    loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=default_data_collator, num_workers=1)
    (batch,) = loader
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "labels": (2,),
        "sample_id": (2,),
        "rgb_pixel_values": (2, 2, 3, 16, 16),
        "depth_pixel_values": (2, 3, 1, 8, 8),
        "audio_pixel_values": (2, 1, 257, 188),
    }
    assert batch["labels"].tolist() == [6, 4] and batch["sample_id"].tolist() == [7, 8]


@needs_ffmpeg
def test_a_missing_modality_stays_missing(clips):
    features = Features(video=Value("string"), audio=Value("string"))
    dataset = Dataset.from_dict(
        {"video": [str(clips["mp4"]), None], "audio": [None, str(clips["mp4"])]}, features=features
    )

    dataset = with_log_magnitude(with_frames(dataset, plain_processor(), 2), seconds=0.5)

    first, second = dataset[0], dataset[1]
    assert first["audio_pixel_values"] is None and first["video_pixel_values"].shape == (2, 3, 16, 16)
    assert second["video_pixel_values"] is None and second["audio_pixel_values"].shape[:2] == (1, 257)


@needs_ffmpeg
def test_videos_that_datasets_would_decode_are_read_as_they_are_stored(clips):
    dataset = dataset_of(video=[clips["mp4"]]).cast_column("video", Video())

    assert with_frames(dataset, plain_processor(), 2)[0]["video_pixel_values"].shape == (2, 3, 16, 16)


def test_columns_that_clash_or_are_gone_are_named():
    dataset = dataset_of(video=["a.mp4"], video_pixel_values=["x"])
    with pytest.raises(ValueError, match="no column 'film' .it has .'video'"):
        with_frames(dataset, plain_processor(), 1, column="film")
    with pytest.raises(ValueError, match="'video_pixel_values' already"):
        with_frames(dataset, plain_processor(), 1)
    with pytest.raises(ValueError, match="'a' is made of column 'video' already"):
        with_frames(with_frames(dataset, plain_processor(), 1, out="a"), plain_processor(), 1, out="b")
    with pytest.raises(ValueError, match="has a transform already, function"):
        with_frames(dataset.with_transform(lambda batch: batch), plain_processor(), 1, out="a")
    with pytest.raises(ValueError, match="count=0"):
        with_frames(dataset, plain_processor(), 0, out="a")
    with pytest.raises(ValueError, match="without 'video'.*remove_unused_columns=False"):
        with_frames(dataset, plain_processor(), 1, out="a").remove_columns("video")[0]


# ---- log-magnitude spectrograms ----
def numpy_log_magnitude(wave, n_fft, hop):
    """By the definition: centred frames, zeros beyond the ends, a periodic Hann window."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(wave.astype(np.float64), n_fft // 2)
    frames = [padded[start : start + n_fft] * window for start in range(0, len(wave) + 1, hop)]
    return np.log(np.abs(np.fft.rfft(frames, axis=1)).T + 1e-7)


def test_the_spectrogram_is_the_published_one(tmp_path):
    rng = np.random.default_rng(0)
    wave = (0.6 * rng.standard_normal(44_100)).astype(np.float32)  # 2 s, and beyond full scale in places
    soundfile.write(tmp_path / "clip.wav", wave, 22_050, subtype="FLOAT")
    assert np.abs(wave).max() > 1

    made = with_log_magnitude(dataset_of(audio=[tmp_path / "clip.wav"]))[0]["audio_pixel_values"]

    repeated = np.clip(np.tile(wave, 3)[: 3 * 22_050], -1, 1)
    assert made.shape == (1, 257, 188) and made.dtype == torch.float32
    np.testing.assert_allclose(made[0].numpy(), numpy_log_magnitude(repeated, 512, 353), atol=2e-3)


def test_the_settings_of_vggsound_give_its_shape_and_random_starts_move(tmp_path):
    wave = np.random.default_rng(0).uniform(-1, 1, 160_000).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", wave, 16_000, subtype="FLOAT")
    dataset = dataset_of(audio=[tmp_path / "clip.wav"])
    settings = {"seconds": 5, "sampling_rate": 16_000, "n_fft": 256, "hop_length": 128}

    first = with_log_magnitude(dataset, **settings)[0]["audio_pixel_values"]
    moving = with_log_magnitude(dataset, **settings, random_start=True)
    torch.manual_seed(0)
    drawn = [moving[0]["audio_pixel_values"] for _ in range(2)]

    assert first.shape == (1, 129, 626)
    np.testing.assert_allclose(first, log_magnitude(torch.from_numpy(wave[:80_000]), 256, 128), atol=1e-5)
    assert not torch.equal(drawn[0], drawn[1]) and drawn[0].shape == first.shape


def test_numbers_that_give_no_spectrogram_and_bad_clips_are_named(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(800, np.float32), 16_000)
    dataset = dataset_of(audio=[tmp_path / "silent.wav"])

    with pytest.raises(ValueError, match="seconds=0.01 at sampling_rate=22050"):
        with_log_magnitude(dataset, seconds=0.01)
    with pytest.raises(ValueError, match="silent.wav.*is silent"):
        with_log_magnitude(dataset)[0]


# ---- crops ----
def test_an_evaluated_clip_is_cropped_in_the_centre(tmp_path):
    picture = texture(32)
    Image.fromarray(picture).save(tmp_path / "1.png")
    processor = ViTImageProcessorPil(
        size={"height": 32, "width": 32},
        crop_size={"height": 16, "width": 16},
        do_center_crop=True,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )

    pixels = with_frames(dataset_of(video=[tmp_path]), processor, 1)[0]["video_pixel_values"]

    np.testing.assert_allclose(pixels[0, 0].numpy() * 255, picture[8:24, 8:24], atol=0.5)
