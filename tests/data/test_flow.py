"""Optical flow: computed of frames whose motion is known, written, and read back."""

import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from hf_colearn.data.flow import read_flow, with_flow, write_flow
from tiny_videos import needs_ffmpeg, ramp, texture, write_video


X, Y = 3, -2  # pixels from one frame to the next, right and up


def moving(count=6):
    """A texture that moves by (X, Y), `(T, 3, H, W)`."""
    frames = [np.roll(texture(64), (Y * number, X * number), axis=(0, 1)) for number in range(count)]
    return torch.from_numpy(np.stack(frames))[:, None].expand(-1, 3, -1, -1).contiguous()


def medians(flow):
    return flow[:, :, 8:-8, 8:-8].flatten(2).median(dim=2).values


def write_extracted(folder, count=11):
    """Field i has x = 2 i - 10 and y = 10 - 2 i pixels everywhere."""
    folder.mkdir()
    for number in range(count):
        for axis, value in (("x", 2 * number - 10), ("y", 10 - 2 * number)):
            level = round((value + 20) / 40 * 255)
            Image.new("L", (24, 16), level).save(folder / f"flow_{axis}_{number + 1:05d}.png")
    return folder


@needs_ffmpeg
def test_flow_is_computed_from_consecutive_frames(tmp_path):
    pytest.importorskip("cv2")
    video = write_video(tmp_path / "moving.mp4", moving())

    flow = read_flow(video, 5)

    assert flow.shape == (5, 2, 64, 64) and flow.dtype == torch.float32
    torch.testing.assert_close(medians(flow), torch.tensor([[X, Y]] * 5).float(), atol=0.3, rtol=0)


def test_flow_is_computed_from_a_folder_of_frames(tmp_path):
    pytest.importorskip("cv2")
    for number, frame in enumerate(moving(12)):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")

    flow = read_flow({"path": str(tmp_path), "start": 9, "end": 12}, 2)  # 9.png, 10.png and 11.png, in that order

    torch.testing.assert_close(medians(flow), torch.tensor([[X, Y]] * 2).float(), atol=0.3, rtol=0)


@needs_ffmpeg
def test_written_flow_is_read_back_with_the_frames_it_belongs_to(tmp_path):
    pytest.importorskip("cv2")
    still = torch.from_numpy(texture(64)).expand(4, 3, -1, -1)
    video = write_video(tmp_path / "clip.mp4", torch.cat([still, moving(4)[1:]]))  # motion from frame 3 to 4 on

    folder = write_flow(video, tmp_path / "sk_flow")

    assert sorted(path.name for path in folder.iterdir())[:2] == ["flow_x_00001.jpg", "flow_x_00002.jpg"]
    expected = torch.tensor([[0, 0]] * 3 + [[X, Y]] * 3).float()
    torch.testing.assert_close(medians(read_flow(folder, 6)), expected, atol=0.4, rtol=0)
    span = {"start": 2, "end": 5}  # fields 2 and 3: still, then moving
    torch.testing.assert_close(medians(read_flow({"path": folder, **span}, 2)), expected[2:4], atol=0.4, rtol=0)
    torch.testing.assert_close(medians(read_flow({"path": video, **span}, 2)), expected[2:4], atol=0.4, rtol=0)


def test_extracted_flow_is_read_in_pixels(tmp_path):
    folder = write_extracted(tmp_path / "flow")

    flow = read_flow({"path": str(folder), "start": 0, "end": 12}, 11)  # 12 frames have 11 fields

    assert flow.shape == (11, 2, 16, 24)
    np.testing.assert_allclose(flow[:, 0, 0, 0], np.arange(11) * 2 - 10, atol=0.1)
    np.testing.assert_allclose(flow[:, 1, 0, 0], 10 - np.arange(11) * 2, atol=0.1)
    # Frames 4 to 8 have the fields 4 to 7; the centres of two segments are fields 5 and 7.
    assert read_flow({"path": folder, "start": 4, "end": 9}, 2)[:, 0, 0, 0].tolist() == pytest.approx([0, 4], abs=0.1)


def test_the_input_is_resized_cropped_and_in_units_of_twenty_pixels(tmp_path):
    dataset = Dataset.from_dict({"flow": [str(write_extracted(tmp_path / "flow"))], "label": [3]})

    sample = with_flow(dataset, size=14, count=2)[0]
    drawn = with_flow(dataset, size=14, count=2, train=True)[:]["flow_pixel_values"][0]

    assert sample["flow_pixel_values"].shape == drawn.shape == (2, 2, 14, 14) and sample["labels"] == 3
    # Fields 2 and 8 of 11: x = -6 and 6.
    assert sample["flow_pixel_values"][:, 0].mean(dim=(1, 2)).tolist() == pytest.approx([-0.3, 0.3], abs=0.01)


def test_a_crop_is_the_centre_and_for_training_anywhere(tmp_path):
    columns = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))  # x tells the column, y the row
    for axis, image in (("x", columns), ("y", columns.T)):
        for number in (1, 2):
            Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / f"flow_{axis}_{number}.png")
    dataset = Dataset.from_dict({"flow": [str(tmp_path)]})

    centre = with_flow(dataset, size=16, count=2, crop_pct=0.5)[0]["flow_pixel_values"]
    torch.manual_seed(0)
    training = with_flow(dataset, size=16, count=2, crop_pct=0.5, train=True)
    crops = [training[0]["flow_pixel_values"] for _ in range(60)]

    np.testing.assert_allclose((centre[0, 0, 0] + 1) * 127.5, columns[0, 8:24], atol=1)
    corners = {tuple(((crop[0, :, 0, 0] + 1) * 127.5 / 8).round().int().tolist()) for crop in crops}
    assert {x for x, _ in corners} >= {0, 8, 16} and len(corners) > 30
    assert all(torch.equal(crop[0], crop[1]) for crop in crops)  # both fields are alike, and cropped alike


def test_without_opencv_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")

    with pytest.raises(ImportError, match=r"pip install 'hf-colearn\[video\]', or extract the flow"):
        read_flow(tmp_path, 1)


@needs_ffmpeg
def test_flow_that_is_none_is_named(tmp_path):
    video = write_video(tmp_path / "short.mp4", ramp(3))
    with pytest.raises(ValueError, match="the flow of .*short.mp4.* has 2 frames, fewer than the 3"):
        read_flow(video, 3)
    folder = write_extracted(tmp_path / "flow")
    (folder / "flow_y_00004.png").unlink()
    with pytest.raises(ValueError, match="11 images flow_x_. and 10 flow_y_."):
        read_flow(folder, 3)
    with pytest.raises(ValueError, match="size=0"):
        with_flow(Dataset.from_dict({"flow": [str(folder)]}), 0, 3)
