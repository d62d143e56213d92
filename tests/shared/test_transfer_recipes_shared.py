"""The recipes on real speech, with Whisper's encoder, and on the stamps' texts, images and speech."""

import csv
import json
import sys
from pathlib import Path

import pytest
import soundfile

import processes
import tiny_recipes


ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

FSDD = SHARED / "data" / "fsdd" / "recordings"
STAMPS = SHARED / "data" / "tuxpaint-stamps-128"
QUICK = ["--small", "--num_train_epochs", "2", "--max_steps", "4", "--logging_steps", "2", "--report", "false"]
# Two processes fill up their last batch, with the same samples again: of 256 each, for a test set of thirty.
QUICK += ["--per_device_train_batch_size", "16", "--per_device_eval_batch_size", "32"]
CODES = {"animals": "ang", "food": "hap", "town": "sad", "plants": "neu", "vehicles": "fru", "household": "exc"}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    sys.path.insert(0, str(ROOT / "tests" / "shared"))
    from short_whisper import write_short_whisper

    source, folder = SHARED / "models" / "whisper-tiny-en-encoder", tmp_path_factory.mktemp("whisper")
    return write_short_whisper(str(source), str(folder), layers=1)  # it hears 270 clips


def report_of(name, folder, *extra, world_size=1):
    options = {"folder": folder, "processes": world_size, "timeout": 400, "load_digits": processes.first_digits}
    processes.forked(ROOT / "recipes" / f"{name}.py", *QUICK, *extra, **options)
    report = json.loads((folder / "runs" / name / "report.json").read_text())
    assert report["processes"] == world_size
    return report


# ---- spoken digits ----
@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A part of FSDD: 2 takes of every digit and speaker to train on, one of the official test set."""
    folder = tmp_path_factory.mktemp("fsdd")
    for path in FSDD.glob("*.wav"):
        if int(path.stem.split("_")[2]) in (0, 5, 6):
            (folder / path.name).symlink_to(path)
    assert len(list(folder.iterdir())) == 180
    return folder


def test_whisper_helps_vision(whisper, spoken, tmp_path):
    arms = ["--arms", "baseline", "random other", "class vectors"]
    report = report_of("avmnist_a2v", tmp_path, "--audio_dir", str(spoken), "--teacher", whisper, *arms)
    assert report["teacher"]["architecture"] == "WhisperEncoder"
    assert len(report["runs"]) == 3
    # 270 and 30 of the 300 images to train on are for training and for choosing; the clips are fewer.
    assert report["samples"]["train"] >= 270 and report["samples"]["test"] >= 300


def test_vision_helps_spoken_digits(spoken, tmp_path):
    arms = ["--arms", "baseline", "random other"]
    teacher = tiny_recipes.write_vision_teacher(tmp_path / "teacher")  # the packaged one takes long for 270 images
    report = report_of("avmnist_v2a", tmp_path, "--audio_dir", str(spoken), "--teacher", teacher, *arms)
    assert report["teacher"]["architecture"] == "ResNetModel"
    assert {run["arm"] for run in report["runs"]} == {"baseline", "random other"}


# ---- stamps ----
def stamps():
    with open(STAMPS / "metadata.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def stamp_images(tmp_path_factory):
    """Class folders of at most 20 stamps a category; a sentence is on one side only, or descriptions leak."""
    folder = tmp_path_factory.mktemp("stamps")
    sides: dict[str, str] = {}
    for category in CODES:
        for stamp in [stamp for stamp in stamps() if stamp["category"] == category][:20]:
            side = sides.setdefault(stamp["text_en"], "val" if len(sides) % 4 == 0 else "train")
            target = folder / side / category
            target.mkdir(parents=True, exist_ok=True)
            image = next((STAMPS / "images").glob(f"{stamp['id']}.*"))
            (target / image.name).symlink_to(image)
    return folder


@pytest.mark.parametrize("world_size", [1, 2])
def test_language_helps_vision_on_stamps(stamp_images, tmp_path, world_size):
    options = ["--data_dir", str(stamp_images), "--num_validation", "12", "--image_size", "32"]
    arms = ["--arms", "baseline", "random prompts", "paired prompts"]
    report = report_of("imagenet_l2v", tmp_path, *options, *arms, world_size=world_size)
    assert {run["arm"]: run["kind"] for run in report["runs"]}["random prompts"] == "colearned"


@pytest.fixture(scope="module")
def stamp_speech(tmp_path_factory):
    """The stamps' French speech and English sentences in the layout of IEMOCAP, a category for an emotion."""
    release = tmp_path_factory.mktemp("speech") / "IEMOCAP_full_release"
    kept = [stamp for stamp in stamps() if stamp["category"] in CODES]
    by_code = {code: [s for s in kept if CODES[s["category"]] == code][:16] for code in CODES.values()}
    rows = [
        (code, stamp)
        for pair in zip(*([(c, s) for s in by_code[c]] for c in by_code), strict=False)
        for code, stamp in pair
    ]
    for session in (1, 2):
        dialogue = f"Ses0{session}F_impro01"
        wavs = release / f"Session{session}" / "sentences" / "wav" / dialogue
        labels, sentences = (
            release / f"Session{session}" / "dialog" / name for name in ("EmoEvaluation", "transcriptions")
        )
        for folder in (wavs, labels, sentences):
            folder.mkdir(parents=True)
        evaluations, transcript = [], []
        for number, (code, stamp) in enumerate(rows[session - 1 :: 2]):
            turn = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
            wave, rate = soundfile.read(next((STAMPS / "speech_fr").glob(f"{stamp['id']}.*")))
            soundfile.write(wavs / f"{turn}.wav", wave, rate)
            evaluations.append(f"[0.0000 - 1.0000]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]")
            transcript.append(f"{turn} [000.0000-001.0000]: {stamp['text_en']}")
        (labels / f"{dialogue}.txt").write_text("\n".join(evaluations))
        (sentences / f"{dialogue}.txt").write_text("\n".join(transcript))
    return release


def test_language_helps_audio_on_stamps(stamp_speech, tmp_path):
    options = ["--data_dir", str(stamp_speech), "--test_session", "2", "--max_seconds", "1"]
    report = report_of("iemocap_l2a", tmp_path, *options, "--arms", "baseline", "random prompts")
    assert len(report["runs"]) == 2


@pytest.mark.parametrize("world_size", [1, 2])
def test_audio_helps_language_on_stamps(whisper, stamp_speech, tmp_path, world_size):
    options = ["--data_dir", str(stamp_speech), "--test_session", "2", "--teacher", whisper]
    report = report_of("iemocap_a2l", tmp_path, *options, "--arms", "baseline", "random other", world_size=world_size)
    assert report["teacher"]["architecture"] == "WhisperEncoder"
