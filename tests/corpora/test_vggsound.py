"""VGGSound's list and files in miniature."""

import shutil

import pytest

from hf_colearn.corpora.vggsound import load_vggsound
from hf_colearn.data.video import read_frames, read_soundtrack
from tiny_videos import levels, needs_ffmpeg, ramp, tone, write_video


LIST = """---g-f_I2yQ,1,people marching,train
--0PQM4-hqg,30,waterfall burbling,train
gone-gone-g,30,"mouse clicking, or not",train
--1twoTHREE,100,people marching,train
--2twoTHREE,101,waterfall burbling,train
--56QUhyDQM,0,people marching,test
gone-gone-h,5,waterfall burbling,test
"""


@pytest.fixture
def release(tmp_path):
    (tmp_path / "vggsound.csv").write_text(LIST)
    (tmp_path / "vggsound_00").mkdir()
    (tmp_path / "test").mkdir()
    first = tmp_path / "vggsound_00" / "---g-f_I2yQ_000001.mp4"
    first.write_bytes(b"")
    for name in ("vggsound_00/--0PQM4-hqg_000030.mp4", "--1twoTHREE_000100.mp4", "--2twoTHREE_000101.mp4"):
        shutil.copy(first, tmp_path / name)
    shutil.copy(first, tmp_path / "test" / "--56QUhyDQM_000000.mp4")
    return tmp_path


def test_clips_are_found_by_id_and_start_and_missing_ones_are_counted(release, caplog):
    with caplog.at_level("WARNING", "hf_colearn"):
        built = load_vggsound(release, validation_share=0)

    assert list(built) == ["train", "test"]
    train = built["train"]
    assert train["clip"][:] == ["---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "--1twoTHREE_000100", "--2twoTHREE_000101"]
    # All classes of the list, in alphabetical order, also the one whose clips are gone.
    assert train.features["label"].names == ["mouse clicking, or not", "people marching", "waterfall burbling"]
    assert train["label"][:] == [1, 2, 1, 2] and built["test"]["label"][:] == [1]
    assert train[1]["video"]["path"] == str(release / "vggsound_00" / "--0PQM4-hqg_000030.mp4")
    assert "2 of 7 clips of VGGSound have no file" in caplog.text and "1 of 5 in train, 1 of 2 in test" in caplog.text


def test_the_validation_split_is_cut_from_train_by_class(release):
    built = load_vggsound(release, validation_share=0.5)

    assert sorted(built["validation"]["label"][:]) == sorted(built["train"]["label"][:]) == [1, 2]
    assert not set(built["validation"]["clip"][:]) & set(built["train"]["clip"][:])
    assert built["train"]["sample_id"][:] == [0, 1] and "sample_id" not in built["validation"].column_names


@needs_ffmpeg
def test_a_clip_can_be_seen_and_heard_and_empty_files_are_skipped(release):
    good = write_video(release / "--1twoTHREE_000100.mp4", ramp(6), tone(440, 0.3))
    shutil.copy(good, release / "test" / "--56QUhyDQM_000000.mp4")

    built = load_vggsound(release, validation_share=0, skip_bad_samples=True)

    assert built["train"]["clip"][:] == ["--1twoTHREE_000100"]
    row = built["test"][0]
    assert levels(read_frames(row["video"], 3)) == pytest.approx([10, 30, 50], abs=3)
    assert len(read_soundtrack(row["audio"], 16_000)[0]) == pytest.approx(4_800, abs=1_500)


def test_what_is_no_vggsound_is_named(release):
    (release / "test" / "--56QUhyDQM_000000.mp4").unlink()
    with pytest.raises(FileNotFoundError, match="no video of VGGSound's split 'test' .*0 of 2 in test"):
        load_vggsound(release)
    (release / "vggsound.csv").write_text(LIST + "abc,1,people marching,eval\n")
    with pytest.raises(ValueError, match="line 8 of .*vggsound.csv' is 'abc,1,people marching,eval'"):
        load_vggsound(release)
    (release / "vggsound.csv").unlink()
    with pytest.raises(FileNotFoundError, match="there is no '.*vggsound.csv'"):
        load_vggsound(release)
    with pytest.raises(ValueError, match="data_dir=None and repo=None"):
        load_vggsound()
