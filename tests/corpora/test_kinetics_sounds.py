"""Folders of Kinetics-400 and of VGGSound in miniature, most of whose clips are gone, as on every disk."""

import shutil

import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, Video

from hf_colearn.corpora.kinetics_sounds import CLASSES, load_kinetics_sounds
from hf_colearn.corpora.video_clips import video_files
from hf_colearn.data.video import read_frames, read_soundtrack
from tiny_videos import levels, needs_ffmpeg, ramp, tone, write_video


HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("source") / "clip.mp4", ramp(6), tone(440, 0.3))


def kinetics(folder, clip):
    """Five training clips, one of another class and one without a file; two to validate, one to test."""
    tables = {
        "train": [
            ("tap dancing", "aaaaaaaaaaa", 10, 20, "train"),
            ("bowling", "-bbb_bbbbbb", 3, 13, "train"),
            ("yoga", "ccccccccccc", 0, 10, "train"),
            ("tap dancing", "ddddddddddd", 0, 10, "train"),
            ("mowing lawn", "eeeeeeeeeee", 123456, 123466, "train"),
        ],
        "val": [("bowling", "fffffffffff", 0, 10, "val"), ("bowling", "ggggggggggg", 0, 10, "val")],
        "test": [("tickling", "hhhhhhhhhhh", 0, 10, "test")],
    }
    (folder / "annotations").mkdir(parents=True)
    for split, rows in tables.items():
        lines = [HEADER, *(f"{label},{id},{start},{end},{name},0" for label, id, start, end, name in rows)]
        (folder / "annotations" / f"{split}.csv").write_text("\n".join(lines))
    for path in (
        "train/tap dancing/aaaaaaaaaaa_000010_000020.mp4",  # folders of classes
        "train/-bbb_bbbbbb_000003_000013.mp4",  # flat
        "train/ccccccccccc_000000_000010.mp4",
        "k400/replacement/eeeeeeeeeee_123456_123466.mp4",
        "val/bowling/fffffffffff_000000_000010.mp4",
        "test/hhhhhhhhhhh_000000_000010.mp4",
        "train/._aaaaaaaaaaa_000010_000020.mp4",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / path)
    return folder


@needs_ffmpeg
def test_clips_of_the_31_classes_are_found_wherever_they_lie(tmp_path, clip, caplog):
    with caplog.at_level("WARNING", "hf_colearn"):
        built = load_kinetics_sounds(kinetics(tmp_path, clip))

    assert {name: split["clip"][:] for name, split in built.items()} == {
        "train": ["aaaaaaaaaaa_000010_000020", "-bbb_bbbbbb_000003_000013", "eeeeeeeeeee_123456_123466"],
        "validation": ["fffffffffff_000000_000010"],
        "test": ["hhhhhhhhhhh_000000_000010"],
    }
    train = built["train"]
    names = train.features["label"].names
    assert [names[label] for label in train["label"]] == ["tap dancing", "bowling", "mowing lawn"]
    assert names == list(CLASSES) and len(set(names)) == 31 and train["sample_id"][:] == [0, 1, 2]
    assert "2 of 7 clips of Kinetics-Sounds have no file" in caplog.text and len(caplog.records) == 1
    assert "(1 of 4 in train, 1 of 2 in validation), such as 'ddddddddddd_000000_000010.mp4'" in caplog.text


def test_a_table_that_lies_there_twice_counts_once(tmp_path):
    row = "bowling,{},0,10,{},0"
    for table in ("train.csv", "annotations/train.csv"):
        (tmp_path / table).parent.mkdir(exist_ok=True)
        (tmp_path / table).write_text("\n".join([HEADER, row.format("a", "train"), row.format("b", "test")]))
    for name in ("a_000000_000010.mp4", "b_000000_000010.mp4"):
        (tmp_path / name).write_bytes(b"")

    built = load_kinetics_sounds(tmp_path)

    assert len(built["train"]) == len(built["test"]) == 1


def test_of_files_of_one_name_the_first_path_is_taken(tmp_path):
    for folder in "dbcae":
        (tmp_path / folder).mkdir()
        for number in range(20):  # so many that no file system gives them in order by chance
            for suffix in ("webm", "MP4", "mkv"):
                (tmp_path / folder / f"{number}.{suffix}").write_bytes(b"")

    assert video_files(tmp_path) == {str(number): tmp_path / "a" / f"{number}.MP4" for number in range(20)}


@needs_ffmpeg
def test_a_clip_can_be_seen_and_heard_from_its_one_file(tmp_path, clip):
    built = load_kinetics_sounds(kinetics(tmp_path, clip))
    soundfile.write(tmp_path / "test" / "hhhhhhhhhhh_000000_000010.wav", tone(440, 0.1), 16_000)

    row = built["train"][1]
    assert isinstance(built["train"].features["video"], Video) and isinstance(built["train"].features["audio"], Audio)
    assert row["video"]["path"] == row["audio"]["path"] == str(tmp_path / "train" / "-bbb_bbbbbb_000003_000013.mp4")
    assert levels(read_frames(row["video"], 3)) == pytest.approx([10, 30, 50], abs=3)
    assert len(read_soundtrack(row["audio"], 16_000)[0]) == pytest.approx(4_800, abs=1_500)
    heard = load_kinetics_sounds(tmp_path)["test"][0]["audio"]["path"]
    assert heard.endswith("hhhhhhhhhhh_000000_000010.wav")  # a wav beside the video is taken


@needs_ffmpeg
def test_the_validation_clips_can_be_the_test_split(tmp_path, clip):
    shutil.rmtree(kinetics(tmp_path, clip) / "test")
    with pytest.raises(FileNotFoundError, match="no video of Kinetics-Sounds's split 'test' .*0 of 1 in test"):
        load_kinetics_sounds(tmp_path)

    built = load_kinetics_sounds(tmp_path, test_split="validation")

    assert list(built) == ["train", "test"] and built["test"]["clip"][:] == ["fffffffffff_000000_000010"]


@needs_ffmpeg
def test_clips_that_cannot_be_decoded_are_skipped_and_counted(tmp_path, clip, caplog):
    folder = kinetics(tmp_path, clip)
    (folder / "train/tap dancing/aaaaaaaaaaa_000010_000020.mp4").write_bytes(b"half a download")
    write_video(folder / "train/-bbb_bbbbbb_000003_000013.mp4", ramp(6))  # without sound

    with caplog.at_level("WARNING", "hf_colearn"):
        built = load_kinetics_sounds(folder, skip_bad_samples=True, min_frames=6)

    assert built["train"]["clip"][:] == ["eeeeeeeeeee_123456_123466"] and built["train"]["sample_id"][:] == [0]
    assert "1 of 3 samples of column 'video' are skipped" in caplog.text
    assert "1 of 2 samples of column 'audio' are skipped" in caplog.text


def test_what_is_no_kinetics_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '.*gone'"):
        load_kinetics_sounds(tmp_path / "gone")
    with pytest.raises(ValueError, match="test_split='val' is unknown"):
        load_kinetics_sounds(tmp_path, test_split="val")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileNotFoundError, match="no table with the columns label, youtube_id.*1 other"):
        load_kinetics_sounds(tmp_path)
    (tmp_path / "train.csv").write_text(f"{HEADER}\nyoga,aaaaaaaaaaa,0,10,train,0\n")
    with pytest.raises(ValueError, match="none of the 31 classes"):
        load_kinetics_sounds(tmp_path)
    (tmp_path / "train.csv").write_text(f"{HEADER}\nbowling,aaaaaaaaaaa,0,10,train,0\n")
    with pytest.raises(FileNotFoundError, match="split 'train' .*0 of 1 in train.*'aaaaaaaaaaa_000000_000010.mp4'"):
        load_kinetics_sounds(tmp_path)
    (tmp_path / "train.csv").write_text(f"{HEADER}\nbowling,aaaaaaaaaaa,0,ten,train,0\n")
    with pytest.raises(ValueError, match="line 2 of .*train.csv' has the times '0' to 'ten'"):
        load_kinetics_sounds(tmp_path)
    (tmp_path / "train.csv").write_text(f"{HEADER}\nbowling,a,0,10,train,0\nbowling,a,0,10,test,0\n")
    with pytest.raises(ValueError, match="'a_000000_000010' is in train and in test"):
        load_kinetics_sounds(tmp_path)


@needs_ffmpeg
def test_a_mirror_of_the_hub_gives_the_31_classes(tmp_path, clip):
    names = ClassLabel(names=["bowling", "singing", "tap_dancing", "tickling"])  # the mirror's own numbers
    for split, labels in {"train": [2, 0], "val": [1], "test": [3]}.items():
        cells = {"video": [{"bytes": clip.read_bytes(), "path": None}] * len(labels), "label": labels}
        mirror = Dataset.from_dict(cells).cast_column("video", Video(decode=False)).cast_column("label", names)
        mirror.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")

    built = load_kinetics_sounds(repo=str(tmp_path))

    assert {name: [CLASSES[label] for label in split["label"]] for name, split in built.items()} == {
        "train": ["tap dancing", "bowling"],
        "validation": ["singing"],
        "test": ["tickling"],
    }
    assert len(read_soundtrack(built["test"][0]["audio"], 16_000)[0]) == pytest.approx(4_800, abs=1_500)
