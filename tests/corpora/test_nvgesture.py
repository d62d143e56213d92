"""NVGesture's folder in miniature: lists, colour and depth videos, and extracted flow."""

import shutil

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.corpora.nvgesture import load_nvgesture
from hf_colearn.data.flow import read_flow, with_flow
from hf_colearn.data.video import read_frames, with_frames
from tiny_videos import levels, needs_ffmpeg, ramp, write_video


CLIPS = [f"Video_data/class_{label:02d}/subject{subject}_r0" for label in (1, 25) for subject in (3, 13)]


def line(clip, label=None, start=2, end=8):
    """As in the released lists, tabs and trailing blanks included; depth starts one frame later."""
    label = int(clip.split("class_")[1][:2]) if label is None else label
    depth, color = f"depth:sk_depth:{start + 1}:{end + 1}", f"color:sk_color:{start}:{end}"
    return f"path:./{clip} {depth}\t{color} duo_left:duo_left:161:254 label:{label} \n"


def write_list(folder, split, lines, name="nvgesture_{}_correct_cvpr2016_v2.lst"):
    (folder / name.format(split)).write_text("".join(lines))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_video(folder / "sk_color.avi", ramp(12))
    write_video(folder / "sk_depth.avi", 120 - ramp(12))
    return folder


@pytest.fixture
def release(videos, tmp_path):
    for clip in CLIPS:
        shutil.copytree(videos, tmp_path / clip)
    write_list(tmp_path, "train", [line(clip) for clip in CLIPS])
    write_list(tmp_path, "test", [line(CLIPS[3], start=0, end=12 - 1)])
    return tmp_path


@needs_ffmpeg
def test_each_modality_is_cut_to_its_labelled_frames(release):
    built = load_nvgesture(release, validation_share=0)

    train = built["train"]
    assert train["label"][:] == [0, 0, 24, 24] and train.features["label"].names[24] == "25"
    assert train["subject"][:] == ["subject3", "subject13"] * 2 and train["sample_id"][:] == [0, 1, 2, 3]
    row = train[2]
    assert row["rgb"] == {"path": str(release / CLIPS[2] / "sk_color.avi"), "start": 2, "end": 8}
    assert row["depth"] == {"path": str(release / CLIPS[2] / "sk_depth.avi"), "start": 3, "end": 9}
    # The end is excluded: color has the frames 2 to 7, depth 3 to 8 of brightness 120 - 10 i.
    assert levels(read_frames(row["rgb"], 6)) == pytest.approx([20, 30, 40, 50, 60, 70], abs=4)
    assert levels(read_frames(row["depth"], 6)) == pytest.approx([90, 80, 70, 60, 50, 40], abs=4)
    assert row["flow"] == row["rgb"] and len(built["test"]) == 1


def test_extracted_flow_is_taken_where_it_is(release):
    folder = release / CLIPS[1] / "sk_flow"
    folder.mkdir()
    for number in range(1, 12):
        Image.new("L", (8, 8), 5 * number).save(folder / f"flow_x_{number:05d}.jpg")
        Image.new("L", (8, 8), 128).save(folder / f"flow_y_{number:05d}.jpg")
    (release / CLIPS[2] / "sk_flow").mkdir()  # empty: nothing was extracted

    train = load_nvgesture(release, validation_share=0)["train"]

    assert train[1]["flow"] == {"path": str(folder), "start": 2, "end": 8}
    # Frames 2 to 7 have the fields 2 to 6, images 3 to 7: 15, ..., 35 of 255, from -20 to 20.
    flow = read_flow(train[1]["flow"], 5)
    assert flow[:, 0, 0, 0].tolist() == pytest.approx([5 * n * 40 / 255 - 20 for n in range(3, 8)], abs=0.2)
    assert train[2]["flow"]["path"].endswith("sk_color.avi")


@needs_ffmpeg
def test_three_modalities_make_one_batch(release):
    pytest.importorskip("cv2")
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)

    train = load_nvgesture(release, validation_share=0)["train"]
    for column in ("rgb", "depth"):
        train = with_frames(train, processor, 4, column, f"{column}_pixel_values", train=True, hflip=False)
    train = with_flow(train, 16, 4, train=True)

    batch = train[:2]
    assert [torch.stack(batch[f"{name}_pixel_values"]).shape for name in ("rgb", "depth", "flow")] == [
        (2, 4, 3, 16, 16),
        (2, 4, 3, 16, 16),
        (2, 4, 2, 16, 16),
    ]
    assert batch["labels"] == [0, 0]


def test_folders_of_frames_are_taken_instead_of_videos(release):
    for clip in CLIPS:
        for name in ("sk_color", "sk_depth"):
            (release / clip / f"{name}.avi").unlink()
            (release / clip / name).mkdir()
            for number in range(1, 13):
                Image.new("L", (8, 8), 10 * number).save(release / clip / name / f"frame{number:05d}.jpg")

    row = load_nvgesture(release, validation_share=0)["train"][0]

    assert levels(read_frames(row["rgb"], 6)) == pytest.approx([30, 40, 50, 60, 70, 80], abs=2)  # frame 2 is the third


def test_a_validation_split_is_cut_by_class(release):
    built = load_nvgesture(release, validation_share=0.5)

    assert list(built) == ["train", "validation", "test"]
    assert built["validation"]["label"][:] == built["train"]["label"][:] == [0, 24]
    assert built["train"]["sample_id"][:] == [0, 1]


@needs_ffmpeg
def test_missing_corrupt_and_short_videos_are_refused_or_skipped_and_counted(release, caplog):
    (release / CLIPS[0] / "sk_depth.avi").unlink()
    with pytest.raises(
        ValueError, match="1 clips of NVGesture are incomplete; the first: .*class_01/subject3_r0' has no"
    ):
        load_nvgesture(release)
    (release / CLIPS[1] / "sk_color.avi").write_bytes(b"no video")
    write_list(release, "train", [*map(line, CLIPS[:3]), line(CLIPS[3], end=13)])  # it has 12 frames

    with caplog.at_level("WARNING", "hf_colearn"):
        built = load_nvgesture(release, validation_share=0, skip_bad_samples=True, min_frames=5)

    assert built["train"]["clip"][:] == [CLIPS[2]] and built["train"]["sample_id"][:] == [0]
    assert "1 clips of NVGesture are incomplete and skipped" in caplog.text
    assert "2 of 3 samples of column 'rgb' are skipped" in caplog.text and "no clip from 2 to 13" in caplog.text


def test_what_is_no_nvgesture_is_named(release):
    for text, problem in (
        (line(CLIPS[0], label=26), "line 1 of .*train.* has label 26: gestures run from 1 to 25"),
        ("path:./x label:1\n", "line 1 of .* is 'path:./x label:1', where 'path:... depth"),
        (line(CLIPS[0]) + line(CLIPS[1]).replace("label:1", "label:one"), "line 2 of"),
    ):
        write_list(release, "train", [text])
        with pytest.raises(ValueError, match=problem):
            load_nvgesture(release)
    write_list(release, "train", [line("Video_data/class_02/subject1_r0")])
    with pytest.raises(FileNotFoundError, match="no clip of .*train.* has its videos; .*class_02"):
        load_nvgesture(release)
    with pytest.raises(FileNotFoundError, match="no 'nvgesture_train_correct_cvpr2016_v2.lst' and 0 other"):
        load_nvgesture(release / "Video_data")


def test_the_corrected_list_is_preferred_and_another_one_taken_if_it_is_alone(release):
    write_list(release, "train", [line(CLIPS[0], start=0, end=1)], "nvgesture_{}_correct_cvpr2016.lst")
    assert len(load_nvgesture(release, validation_share=0)["train"]) == 4
    (release / "nvgesture_train_correct_cvpr2016_v2.lst").unlink()
    assert load_nvgesture(release, validation_share=0)["train"]["rgb"][:] == [
        {"path": str(release / CLIPS[0] / "sk_color.avi"), "start": 0, "end": 1}
    ]
    write_list(release, "train", [line(CLIPS[0])], "nvgesture_{}_other.lst")
    with pytest.raises(FileNotFoundError, match="2 other"):
        load_nvgesture(release)


def test_the_cells_of_a_clip_survive_a_round_trip(release, tmp_path):
    test = load_nvgesture(release, validation_share=0)["test"]
    test.to_parquet(tmp_path / "test.parquet")

    assert Dataset.from_parquet(str(tmp_path / "test.parquet"))[0] == test[0]
