"""IEMOCAP from its licensed folder, from a mirror, and the synthetic folder for a smoke test."""

import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Audio, ClassLabel, Dataset

import tiny_teachers
from hf_colearn import TeacherBank
from hf_colearn.corpora.iemocap import load_iemocap
from hf_colearn.corpora.iemocap_synthetic import write_smoke_test_tree
from hf_colearn.data.audio import read_waveform, with_input_values
from hf_colearn.data.text import with_input_ids


soundfile = pytest.importorskip("soundfile")

NAMES = ["angry", "happy", "sad", "neutral", "frustrated", "excited"]
CODES = ["ang", "hap", "sad", "neu", "fru", "exc"]


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    return write_smoke_test_tree(tmp_path_factory.mktemp("iemocap"), utterances_per_session=24, seed=0)


@pytest.fixture
def release(synthetic, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(synthetic, tmp_path / "IEMOCAP_full_release"))


def logged(caplog):
    return [record.message for record in caplog.records if record.name.startswith("hf_colearn")]


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def lines_of(dataset):
    return {row["utterance"]: row for row in dataset}


def test_the_release_as_it_is_distributed_is_read_to_the_letter(tmp_path, caplog):
    # Two sessions in the release's own words, with what stands around them there.
    for session, who in ((1, "F"), (2, "M")):
        dialogue = f"Ses0{session}{who}_script01_1b"
        root = tmp_path / f"IEMOCAP_full_release/Session{session}"
        for folder in (f"sentences/wav/{dialogue}", "dialog/transcriptions", "dialog/EmoEvaluation/Categorical"):
            (root / folder).mkdir(parents=True)
        turns = [
            (f"{dialogue}_{'FM'[n % 2]}{n:03d}", CODES[n % 6], f"Sentence {n}: [LAUGHTER] well...") for n in range(24)
        ]
        evaluation = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        transcript = []
        for n, (turn, code, sentence) in enumerate(turns):
            evaluation += [
                f"[{n}.2901 - {n}.9000]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]",
                "C-E2:\tNeutral;\t()",
                "C-F1:\tNeutral;\t(curious)",
                "A-E3:\tval 3; act 2; dom  2;\t()",
                "",
            ]
            transcript.append(f"{turn} [{n:03d}.2901-{n:03d}.9000]: {sentence}")
            soundfile.write(root / f"sentences/wav/{dialogue}/{turn}.wav", tiny_teachers.noise(0.05, seed=n), 16_000)
        evaluation.append(f"[90.0000 - 91.0000]\t{dialogue}_F090\txxx\t[2.5000, 2.5000, 2.5000]")
        evaluation.append(f"[92.0000 - 93.0000]\t{dialogue}_F091\tsur\t[2.5000, 2.5000, 2.5000]")
        transcript += ["M: [breathing]", "F:Oh.", f"{dialogue}_MXX0 [094.0000-095.0000]: Right.", "", "no brackets"]
        (root / f"dialog/EmoEvaluation/{dialogue}.txt").write_text("\n".join(evaluation))
        (root / f"dialog/EmoEvaluation/._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07Mac OS X\xff\n[rest")
        (root / f"dialog/EmoEvaluation/Categorical/{dialogue}_e2_cat.txt").write_text("other")
        (root / f"dialog/transcriptions/{dialogue}.txt").write_bytes(
            b"\x93odd\x94\n" + "\r\n".join(transcript).encode()
        )

    data = load_iemocap(tmp_path, test_session=2, validation_share=0.25)

    assert {name: len(part) for name, part in data.items()} == {"train": 18, "validation": 6, "test": 24}
    row = lines_of(data["test"])["Ses02M_script01_1b_M007"]
    assert row["text"] == "Sentence 7: [LAUGHTER] well..."
    assert (row["speaker"], row["session"]) == ("Ses02_M", 2)
    assert lines_of(data["test"])["Ses02M_script01_1b_F004"]["speaker"] == "Ses02_F"
    for part in data.values():
        for name, label in zip(part["utterance"], part["label"], strict=True):
            assert label == int(name[-3:]) % 6  # the codes stood in turn, in the classes' order
    assert row["audio"]["path"].endswith("Session2/sentences/wav/Ses02M_script01_1b/Ses02M_script01_1b_M007.wav")
    np.testing.assert_allclose(read_waveform(row["audio"], 0)[0], tiny_teachers.noise(0.05, seed=7), atol=1e-4)
    assert logged(caplog) == ["4 utterances of IEMOCAP are of no emotion in use and left out: 2 xxx, 2 sur."]


def test_the_columns_are_the_same_in_all_splits(synthetic):
    data = load_iemocap(synthetic)

    for name, part in data.items():
        columns = {"audio", "text", "label", "speaker", "session", "utterance"}
        assert set(part.column_names) == (columns | {"sample_id"} if name == "train" else columns)
        assert part.features["label"] == ClassLabel(names=NAMES)
        assert part.features["audio"] == Audio(decode=False)
    assert data["train"]["sample_id"][:] == list(range(len(data["train"])))


def test_folder_and_parent_and_strings_are_taken(synthetic):
    wanted = load_iemocap(synthetic)["test"]["utterance"][:]

    assert load_iemocap(synthetic.parent)["test"]["utterance"][:] == wanted
    assert load_iemocap(str(synthetic))["test"]["utterance"][:] == wanted


@pytest.mark.parametrize("test_session", [1, 5])
def test_a_session_is_held_out_with_its_speakers(synthetic, test_session):
    data = load_iemocap(synthetic, test_session=test_session)

    assert set(data["test"]["session"]) == {test_session}
    assert set(data["test"]["speaker"]) == {f"Ses0{test_session}_F", f"Ses0{test_session}_M"}
    for part in ("train", "validation"):
        assert test_session not in data[part]["session"][:]
    names = [name for part in data.values() for name in part["utterance"]]
    assert len(names) == len(set(names)) == 5 * 24
    counts = np.bincount(data["validation"]["label"][:], minlength=6)
    assert counts.sum() == 10 and set(counts) == {1, 2}  # a tenth of 96, of 16 an emotion


def test_the_random_split_is_a_stratified_fifth_that_knows_every_speaker(synthetic):
    data = load_iemocap(synthetic, split="random", seed=1)

    assert len(data["test"]) == 24  # a fifth of 120
    assert np.bincount(data["test"]["label"][:]).tolist() == [4] * 6
    assert set(data["test"]["speaker"]) <= set(data["train"]["speaker"])
    assert len(set(data["test"]["session"])) > 1
    names = [name for part in data.values() for name in part["utterance"]]
    assert len(names) == len(set(names)) == 120


def test_the_seed_draws_the_validation_split(synthetic):
    drawn = [load_iemocap(synthetic, seed=seed)["validation"]["utterance"][:] for seed in (0, 0, 1)]

    assert drawn[0] == drawn[1] != drawn[2]


def test_an_unknown_emotion_is_named_with_its_file(release):
    change(release / "Session3/dialog/EmoEvaluation/Ses03F_impro01.txt", "\tneu\t", "\tbor\t")

    message = r"the emotion 'bor' of 'Ses03F_impro01_[FM]\d{3}' in '.*EmoEvaluation.Ses03F_impro01.txt' is unknown"
    with pytest.raises(ValueError, match=message):
        load_iemocap(release)
    with pytest.raises(ValueError, match="'bor'"):
        load_iemocap(release, skip_bad_samples=True)  # it may be a new class: nobody should guess


def first_of(release, session):
    """The first utterance of six emotions of a session, its transcript and its recording."""
    dialogue = f"Ses0{session}F_impro01"
    turn = f"{dialogue}_F000"
    root = release / f"Session{session}"
    return turn, root / f"dialog/transcriptions/{dialogue}.txt", root / f"sentences/wav/{dialogue}/{turn}.wav"


def test_incomplete_utterances_are_refused_or_counted(release, caplog):
    (one, _, recording), (two, transcript, _) = first_of(release, 1), first_of(release, 5)
    recording.unlink()
    change(transcript, two, "M: nothing ")
    (three, empty, _) = first_of(release, 2)
    empty.write_text(re.sub(rf"({three} \[\S+\]:).*", r"\1 ", empty.read_text()))

    message = (
        f"3 utterances of IEMOCAP are incomplete; the first: '{one}' of .* has no recording.*skip_bad_samples=True"
    )
    with pytest.raises(ValueError, match=message):
        load_iemocap(release)

    data = load_iemocap(release, skip_bad_samples=True)
    found = {name for part in data.values() for name in part["utterance"]}
    assert len(found) == 117 and not found & {one, two, three}
    (message,) = [line for line in logged(caplog) if "incomplete and skipped" in line]
    assert (
        message.startswith("3 utterances")
        and f"'{two}' of" in message
        and "has no sentence in its transcript" in message
    )


def test_bad_audio_is_skipped_before_the_samples_are_numbered(release, caplog):
    (one, _, silent), (two, _, damaged) = first_of(release, 1), first_of(release, 2)
    soundfile.write(silent, np.zeros(800), 16_000)
    damaged.write_bytes(b"no audio")

    data = load_iemocap(release, skip_bad_samples=True)

    found = {name for part in data.values() for name in part["utterance"]}
    assert len(found) == 118 and not found & {one, two}
    assert data["train"]["sample_id"][:] == list(range(len(data["train"])))
    assert any("2 of 120 samples of column 'audio' are skipped" in line for line in logged(caplog))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda r: shutil.rmtree(r / "Session4/dialog/EmoEvaluation"),
            FileNotFoundError,
            "Session4.*holds no evaluations",
        ),
        (
            lambda r: change(r / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", "[0.0000 - ", "[0.0000 "),
            ValueError,
            "line 3 of '.*Ses01F_impro01.txt' is no evaluation",
        ),
        (
            lambda r: change(
                r / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", "\tSes01F_impro01_F000", "\tturn0"
            ),
            ValueError,
            "'turn0' of '.*Ses01F_impro01.txt' names no turn",
        ),
        (lambda r: shutil.rmtree(r / "Session5"), ValueError, r"test_session=5 cannot be held out: .* \[1, 2, 3, 4\]"),
    ],
)
def test_a_damaged_release_is_refused(release, damage, error, message):
    damage(release)

    with pytest.raises(error, match=message):
        load_iemocap(release)


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "something").mkdir()

    with pytest.raises(
        FileNotFoundError, match=r"no folders Session1 to Session5 \(\['something'\]\): pass 'IEMOCAP_full"
    ):
        load_iemocap(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_iemocap(tmp_path / "nowhere")


def test_an_unknown_split_is_refused(synthetic):
    with pytest.raises(ValueError, match="split='speaker' is unknown: choose 'session' or 'random'"):
        load_iemocap(synthetic, split="speaker")


# ---- a mirror ----
def mirror(folder, synthetic, names=("audio", "transcription", "major_emotion", "file"), **changes):
    """A Parquet repository with the recordings inside, as mirrors on the Hub are."""
    rows = [row for part in load_iemocap(synthetic).values() for row in part]
    audio, text, label, file = names
    columns = {
        audio: [{"bytes": Path(row["audio"]["path"]).read_bytes(), "path": f"{row['utterance']}.wav"} for row in rows],
        text: [row["text"] for row in rows],
        label: [NAMES[row["label"]] for row in rows],
        **({file: [f"{row['utterance']}.wav" for row in rows]} if file else {}),
        **changes,
    }
    folder.mkdir()
    for column, cells in columns.items():
        assert len(cells) == 120, column
    Dataset.from_dict(columns).to_parquet(str(folder / "train.parquet"))
    return str(folder)


@pytest.mark.parametrize(
    "names", [("audio", "transcription", "major_emotion", "file"), ("audio", "text", "emotion", None)]
)
def test_a_mirror_gives_what_the_folder_gives(tmp_path, synthetic, names):
    wanted = load_iemocap(synthetic, seed=3)

    found = load_iemocap(repo=mirror(tmp_path / "mirror", synthetic, names), seed=3)

    for part in ("train", "test", "validation"):
        assert set(found[part].column_names) == set(wanted[part].column_names)
    ours, theirs = lines_of(found["test"]), lines_of(wanted["test"])
    assert set(ours) == set(theirs)
    for name, row in ours.items():
        facts = {key: value for key, value in row.items() if key != "audio"}
        assert facts == {key: value for key, value in theirs[name].items() if key != "audio"}
        np.testing.assert_array_equal(read_waveform(row["audio"], 0)[0], read_waveform(theirs[name]["audio"], 0)[0])


def test_a_mirror_may_use_codes_and_holds_other_emotions(tmp_path, synthetic, caplog):
    emotions = [CODES[n % 6] for n in range(116)] + ["xxx", "Surprise", "fear", "other"]

    data = load_iemocap(repo=mirror(tmp_path / "mirror", synthetic, major_emotion=emotions))

    assert sum(len(part) for part in data.values()) == 116
    assert any("4 utterances of IEMOCAP are of no emotion in use and left out" in line for line in logged(caplog))


def test_a_mirror_is_refused_where_it_is_no_iemocap(tmp_path, synthetic):
    strange = ["content"] + ["angry"] * 119
    with pytest.raises(ValueError, match="the emotion 'content' of row 0 of '.*' is unknown"):
        load_iemocap(repo=mirror(tmp_path / "a", synthetic, major_emotion=strange))
    with pytest.raises(ValueError, match="'0.wav' of row 0 of '.*' names no turn such as 'Ses01F_impro01_F000'"):
        load_iemocap(repo=mirror(tmp_path / "b", synthetic, file=["0.wav"] * 120))
    without_text = mirror(tmp_path / "c", synthetic, ("audio", "sentence", "emotion", "file"))
    with pytest.raises(ValueError, match=r"no column of the text .*it has \['audio', 'sentence', 'emotion', 'file'\]"):
        load_iemocap(repo=without_text)


def test_a_mirrors_missing_transcript_is_refused_or_counted(tmp_path, synthetic):
    texts = [" ", None] + ["well"] * 118
    repo = mirror(tmp_path / "mirror", synthetic, transcription=texts)

    with pytest.raises(ValueError, match="2 utterances of IEMOCAP are incomplete; the first: 'Ses.*' in row 0 of"):
        load_iemocap(repo=repo)
    assert sum(len(part) for part in load_iemocap(repo=repo, skip_bad_samples=True).values()) == 118


# ---- the folder for a smoke test ----
def test_the_smoke_test_folder_has_the_layout_and_says_that_it_is_synthetic(synthetic, caplog):
    assert "not IEMOCAP" in (synthetic / "README.txt").read_text()
    assert len(list(synthetic.glob("Session[1-5]/sentences/wav/Ses0?[FM]_impro01/*.wav"))) == 5 * (24 + 2)
    data = load_iemocap(synthetic)
    rows = [row for part in data.values() for row in part]
    assert Counter(row["label"] for row in rows) == dict.fromkeys(range(6), 20)
    assert len({row["speaker"] for row in rows}) == 10
    assert logged(caplog) == ["10 utterances of IEMOCAP are of no emotion in use and left out: 10 xxx."]
    for row in rows:
        wave, rate = read_waveform(row["audio"], 0)
        assert rate == 16_000 and 0.45 <= len(wave) / rate <= 0.75


def test_the_smoke_test_folder_is_a_function_of_its_seed(synthetic, tmp_path):
    again = write_smoke_test_tree(tmp_path / "again", utterances_per_session=24, seed=0)
    other = write_smoke_test_tree(tmp_path / "other", utterances_per_session=24, seed=1)

    files = sorted(path.relative_to(synthetic) for path in synthetic.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((synthetic / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert any((synthetic / file).read_bytes() != (other / file).read_bytes() for file in files)


def test_the_smoke_test_folder_is_learnable_and_not_trivial(tmp_path):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    started = time.process_time()
    data = load_iemocap(write_smoke_test_tree(tmp_path))
    assert time.process_time() - started < 10  # 300 utterances in about 1 s; a slow machine has time

    def words(part):
        return part["text"][:]

    def sounds(part):
        spectra = [np.abs(np.fft.rfft(read_waveform(cell, 0)[0], 16_000)[:4000]) for cell in part["audio"]]
        return np.log(np.reshape(spectra, (-1, 100, 40)).mean(axis=2))

    labels = {name: part["label"][:] for name, part in data.items()}
    readers = {words: make_pipeline(CountVectorizer(), LogisticRegression())}
    readers[sounds] = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    for features, model in readers.items():
        model.fit(features(data["train"]), labels["train"])
        assert 0.25 < model.score(features(data["test"]), labels["test"]) < 0.9  # chance is 1 / 6


def test_both_directions_find_their_inputs_in_it(synthetic):
    data = load_iemocap(synthetic)

    audio = with_input_values(data["train"], tiny_teachers.wav2vec2_extractor(True))
    text = with_input_ids(data["train"], tiny_teachers.tokenizer())
    bank = TeacherBank.encode(tiny_teachers.wav2vec2(), data["train"]["audio"])

    assert audio["labels"][:].tolist() == text["labels"][:].tolist() == data["train"]["label"][:]
    assert len(bank) == len(data["train"])
    for row in (0, 50):  # row i of the bank is what the teacher hears of sample id i
        heard = tiny_teachers.wav2vec2().encode([data["train"][row]["audio"]])
        np.testing.assert_allclose(bank.lookup([row]), heard, atol=1e-5)


def test_too_few_utterances_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="utterances_per_session=11 gives no two of each of 6 emotions: pass at least 12"
    ):
        write_smoke_test_tree(tmp_path, utterances_per_session=11)
