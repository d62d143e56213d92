"""CREMA-D's folder in miniature: videos, recordings and lists as they are distributed."""

import shutil

import pytest
import soundfile
from datasets import Audio, Dataset, Video
from PIL import Image

from hf_colearn.corpora.cremad import load_cremad
from hf_colearn.data.video import read_frames, read_soundtrack
from tiny_videos import levels, needs_ffmpeg, ramp, tone, write_video


ACTORS = (1001, 1002, 1003, 1004, 1005)
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
CLIPS = [f"{actor}_DFA_{emotion}_XX" for actor in ACTORS for emotion in EMOTIONS]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_video(folder / "clip.flv", ramp(6))
    soundfile.write(folder / "clip.wav", tone(440, 0.2), 16_000)
    return folder


@pytest.fixture
def release(source, tmp_path):
    for name in ("VideoFlash", "AudioWAV"):
        (tmp_path / name).mkdir()
    for clip in CLIPS:
        shutil.copy(source / "clip.flv", tmp_path / "VideoFlash" / f"{clip}.flv")
        shutil.copy(source / "clip.wav", tmp_path / "AudioWAV" / f"{clip}.wav")
    for name in ("VideoFlash/._1001_DFA_ANG_XX.flv", "AudioWAV/._1001_DFA_ANG_XX.wav", "VideoFlash/Thumbs.db"):
        (tmp_path / name).write_bytes(b"left by an operating system")
    (tmp_path / "VideoDemographics.csv").write_text("ActorID,Age\n1001,51\n")
    return tmp_path


def write_lists(folder, test):
    for name, clips in (("train", [clip for clip in CLIPS if clip not in test]), ("test", test)):
        lines = [f"{clip},{clip.split('_')[2]}" for clip in clips]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


def actors(split):
    return set(split["actor"][:])


def test_without_lists_no_actor_is_on_two_sides_and_the_seed_draws_them(release):
    cremad = load_cremad(release, validation_share=0.2)

    assert list(cremad) == ["train", "validation", "test"]
    assert {name: len(split) for name, split in cremad.items()} == {"train": 18, "validation": 6, "test": 6}
    sides = [actors(split) for split in cremad.values()]
    assert set.union(*sides) == set(ACTORS) and sum(map(len, sides)) == 5
    tests = {min(actors(load_cremad(release, seed=seed)["test"])) for seed in range(12)}
    assert len(tests) > 2
    assert load_cremad(release, seed=3)["test"]["clip"][:] == load_cremad(release, seed=3)["test"]["clip"][:]


def test_the_columns_are_those_of_one_clip(release):
    train = load_cremad(release, validation_share=0)["train"]

    assert isinstance(train.features["video"], Video) and isinstance(train.features["audio"], Audio)
    assert train["sample_id"][:] == list(range(24))
    # The released code's numbers: NEU 0, HAP 1, SAD 2, FEA 3, DIS 4, ANG 5.
    assert train.features["label"].names == ["neutral", "happy", "sad", "fear", "disgust", "anger"]
    for row in train:
        assert row["video"]["path"].endswith(f"VideoFlash/{row['clip']}.flv")
        assert row["audio"]["path"].endswith(f"AudioWAV/{row['clip']}.wav")
        assert EMOTIONS[row["label"]] == row["clip"].split("_")[2] and row["actor"] == int(row["clip"][:4])


@needs_ffmpeg
def test_the_clips_can_be_seen_and_heard(release):
    row = load_cremad(release)["test"][0]

    assert levels(read_frames(row["video"], 3)) == pytest.approx([10, 30, 50], abs=3)
    assert len(read_soundtrack(row["audio"])[0]) == 3_200


def test_the_published_lists_are_taken_where_they_are(release):
    test = [CLIPS[row] for row in (0, 7, 14, 21, 28, 5)]
    write_lists(release, test)

    cremad = load_cremad(release, validation_share=0.25)

    assert cremad["test"]["clip"][:] == test
    assert len(cremad["validation"]) == 6 and sorted(cremad["validation"]["label"][:]) == list(range(6))
    everything = cremad["train"]["clip"][:] + cremad["validation"]["clip"][:] + test
    assert sorted(everything) == sorted(CLIPS)
    assert not actors(load_cremad(release, split="actor")["test"]) & actors(
        load_cremad(release, split="actor")["train"]
    )


def test_lists_that_are_wrong_are_named(release):
    with pytest.raises(FileNotFoundError, match="no train.csv and test.csv.*split='actor'"):
        load_cremad(release, split="lists")
    write_lists(release, CLIPS[:2])
    (release / "test.csv").write_text(f"{CLIPS[3]},FEA\n")
    with pytest.raises(ValueError, match=f"'{CLIPS[3]}' is in both"):
        load_cremad(release)
    (release / "test.csv").write_text(f"{CLIPS[0]},ANG\n")
    with pytest.raises(ValueError, match="line 1 of .*test.csv' is '1001_DFA_NEU_XX,ANG'"):
        load_cremad(release)
    (release / "test.csv").unlink()
    with pytest.raises(FileNotFoundError, match="only train.csv"):
        load_cremad(release)


def test_entries_without_files_are_refused(release):
    write_lists(release, [*CLIPS[:2], "1091_TIE_ANG_XX"])
    (release / "AudioWAV" / f"{CLIPS[1]}.wav").unlink()

    with pytest.raises(
        ValueError, match="2 clips of CREMA-D are incomplete; the first: '1001_DFA_HAP_XX' has no recording"
    ):
        load_cremad(release)


@needs_ffmpeg
def test_bad_samples_are_skipped_and_counted(release, caplog):
    (release / "AudioWAV" / f"{CLIPS[1]}.wav").unlink()
    (release / "VideoFlash" / f"{CLIPS[8]}.flv").write_bytes(b"no video")
    (release / "AudioWAV" / f"{CLIPS[20]}.wav").write_bytes(b"no audio")

    with caplog.at_level("WARNING", "hf_colearn"):
        cremad = load_cremad(release, skip_bad_samples=True, min_frames=6, validation_share=0)

    assert "1 clips of CREMA-D are incomplete and skipped" in caplog.text
    assert "samples of column 'video' are skipped" in caplog.text and "of column 'audio' are skipped" in caplog.text
    kept = cremad["train"]["clip"][:] + cremad["test"]["clip"][:]
    assert sorted(kept) == sorted(set(CLIPS) - {CLIPS[1], CLIPS[8], CLIPS[20]})
    assert cremad["train"]["sample_id"][:] == list(range(len(cremad["train"])))
    with pytest.raises(ValueError, match="bad.*6 frames, fewer than the 7"):
        load_cremad(release, skip_bad_samples=True, min_frames=7)


def test_extracted_frames_are_taken_instead_of_videos(release):
    shutil.rmtree(release / "VideoFlash")
    for clip in CLIPS:
        (release / "Image-01-FPS" / clip).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (50 * number,) * 3).save(
                release / "Image-01-FPS" / clip / f"frame_{number}.jpg"
            )

    row = load_cremad(release)["test"][0]

    assert row["video"]["path"].endswith(f"Image-01-FPS/{row['clip']}")
    assert levels(read_frames(row["video"], 3)) == pytest.approx([0, 50, 100], abs=2)
    (release / "Image-02-FPS").mkdir()
    with pytest.raises(FileNotFoundError, match="Image-01-FPS, Image-02-FPS: name one as `frames`"):
        load_cremad(release)
    assert load_cremad(release, frames="Image-01-FPS")["test"].num_rows == 6


def test_what_is_no_cremad_is_named(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere'"):
        load_cremad("nowhere")
    with pytest.raises(ValueError, match="one of the two"):
        load_cremad()
    with pytest.raises(ValueError, match="split='random' is unknown"):
        load_cremad(release, split="random")
    with pytest.raises(ValueError, match="leave no training actor of the 5"):
        load_cremad(release, test_share=0.9)
    (release / "AudioWAV" / "1001_DFA_JOY_XX.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="'1001_DFA_JOY_XX' is no clip of CREMA-D"):
        load_cremad(release)
    shutil.rmtree(release / "AudioWAV")
    with pytest.raises(FileNotFoundError, match="no folder AudioWAV"):
        load_cremad(release)
    (tmp_path / "else").mkdir()
    with pytest.raises(FileNotFoundError, match="neither VideoFlash nor Image-\\*-FPS"):
        load_cremad(tmp_path / "else")


@needs_ffmpeg
def test_a_mirror_of_the_hub_gives_the_same_columns(source, tmp_path):
    content = (source / "clip.flv").read_bytes()
    names = {"train": ["ANG", "angry", "Neutral", "DIS"], "test": ["fear", "SAD"]}
    for split, labels in names.items():
        cells = {"video": [{"bytes": content, "path": f"{split}.flv"}] * len(labels), "label": labels}
        cells["sentence"] = [f"{split} {number}" for number in range(len(labels))]
        mirror = Dataset.from_dict(cells).cast_column("video", Video(decode=False))
        mirror.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")

    mirrored = load_cremad(repo=str(tmp_path), validation_share=0)

    assert mirrored["train"]["label"][:] == [5, 5, 0, 4] and mirrored["test"]["label"][:] == [3, 2]
    row = mirrored["train"][1]
    assert row["sample_id"] == 1 and row["sentence"] == "train 1"
    assert isinstance(mirrored["train"].features["audio"], Audio)
    assert levels(read_frames(row["video"], 3)) == pytest.approx([10, 30, 50], abs=3)
    assert row["audio"] == row["video"]  # the video's own sound


def test_mirrors_without_what_is_needed_are_named(tmp_path):
    rows = {"video": ["a.flv", "b.flv"], "label": ["ANG", "JOY"]}
    for name in ("train", "test"):
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="has the class 'JOY', which is none of neutral"):
        load_cremad(repo=str(tmp_path))
    Dataset.from_dict({"film": ["a"], "label": ["ANG"]}).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    Dataset.from_dict({"film": ["a"], "label": ["ANG"]}).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="no column video in 'train' .it has .'film', 'label'"):
        load_cremad(repo=str(tmp_path))
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match="has no test split .it has .'train'..: pass a mirror with train, test"):
        load_cremad(repo=str(tmp_path))
