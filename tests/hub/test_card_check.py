"""A card whose numbers are not what the student scores is found out, wherever the number stands."""

import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import json
from pathlib import Path

import pytest

import processes
from hf_colearn.analysis.statistics.compare import Arm, compare
from hf_colearn.hub.card import student_card
from hf_colearn.hub.check import Difference, card_command, check_card, check_data, report_check
from hf_colearn.hub.record import TrainingRecord
from hub_double import HubDouble, run_child
from tiny_records import a_record


ROOT = Path(__file__).parents[2]
SCORES = {"accuracy": 0.7664, "macro_f1": 0.7569, "accuracy_image": 0.25}


@pytest.fixture
def folder(tmp_path):
    """A student's folder whose card and record tell `SCORES`, measured on 100 samples."""
    path = tmp_path / "student"
    record = a_record(
        recipe="mine", argv=["--seeds", "2", "--data_dir", "THEIRS"], scores=SCORES,
        dataset={"name": "Digits", "type": "digits", "split": "test", "samples": 100},
    )  # fmt: skip
    record.save(path)
    comparison = compare([Arm("b", "baseline", [0.1234]), Arm("c", "colearned", [0.7664])])
    card = student_card(
        path, title="A student", pipeline_tag="image-classification", comparison=comparison.to_markdown()
    )
    card.save(path / "README.md")
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_card_that_says_what_was_measured_passes(folder, capsys):
    assert check_card(folder, SCORES) == []
    assert report_check(folder, SCORES) == 0
    assert capsys.readouterr().out.splitlines() == [
        "metric          card    measured  difference",
        "--------------  ------  --------  ----------",
        "accuracy        0.7664  0.7664    +0.0000",
        "macro_f1        0.7569  0.7569    +0.0000",
        "accuracy_image  0.2500  0.2500    +0.0000",
        "The card says what was measured (within 0.005, half of one of 100 test samples).",
    ]


def test_half_a_test_sample_is_rounding_and_a_whole_one_is_not(folder):
    assert check_card(folder, {**SCORES, "accuracy": 0.7664 - 0.0049}) == []
    assert {found.metric for found in check_card(folder, {**SCORES, "accuracy": 0.7664 + 0.01})} == {"accuracy"}
    assert len(check_card(folder, {**SCORES, "accuracy": 0.7664 + 0.0001}, tolerance=1e-5)) == 3
    # The table rounds to four digits: half a unit of the last one is allowed beside the tolerance, and only there.
    found = check_card(folder, {**SCORES, "accuracy": 0.7664 + 0.00004}, tolerance=1e-6)
    assert [difference.where for difference in found] == ["model-index", "colearning.json"]


def test_a_regression_is_held_against_a_thousandth_and_an_error_against_that_share_of_itself(tmp_path, capsys):
    scores = {"r2": -0.5, "mse": 2876.543}
    a_record(problem_type="regression", scores=scores).save(tmp_path)
    student_card(tmp_path, title="A student", pipeline_tag="audio-classification").save(tmp_path / "README.md")
    assert report_check(tmp_path, {"r2": -0.5009, "mse": 2879.3}) == 0
    assert capsys.readouterr().out.splitlines() == [
        "metric  card     measured  difference",
        "------  -------  --------  ----------",
        "r2      -0.5000  -0.5009   +0.0009",
        "mse     2877     2879      -2.757",
        "The card says what was measured (within 0.001, of an error within that share of it).",
    ]
    assert {found.metric for found in check_card(tmp_path, {"r2": -0.502, "mse": 2876.543})} == {"r2"}
    assert {found.metric for found in check_card(tmp_path, {"r2": -0.5, "mse": 2880.5})} == {"mse"}


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        ("README.md", "value: 0.7664", "value: 0.8", "model-index"),
        ("README.md", "| Accuracy       | 0.7664 |", "| Accuracy       | 0.80 |", "table of results"),
        ("README.md", "| Accuracy       | 0.7664 |", "| Accuracy       | 0.7604 | ", "table of results"),
        ("colearning.json", '"accuracy": 0.7664', '"accuracy": 0.8', "colearning.json"),
    ],
)
def test_an_edited_number_is_found_wherever_it_stands(folder, capsys, file, old, new, where):
    edit(folder / file, old, new)
    stated = float(new.strip("| ").split()[-1])
    assert check_card(folder, SCORES) == [Difference("accuracy", where, stated, 0.7664)]
    assert report_check(folder, SCORES) == 1
    assert f"  accuracy: the {where} says {stated:.6g}, and 0.7664 was measured.\n" in capsys.readouterr().out


def test_numbers_that_are_left_out_or_made_up_are_found(folder):
    edit(folder / "README.md", "| Macro F1       | 0.7569 |\n", "| Top-5 accuracy | 0.99 |\n")
    found = [str(difference) for difference in check_card(folder, SCORES)]
    assert found == [
        "macro_f1: the table of results does not tell it, and 0.7569 was measured.",
        "Top-5 accuracy: the table of results says 0.99, and it was not measured.",
    ]


def test_a_score_that_is_no_number_differs(folder):
    edit(folder / "README.md", "value: 0.7664", "value: .nan")
    assert [difference.where for difference in check_card(folder, SCORES)] == ["model-index"]
    edit(folder / "README.md", "value: .nan", "value: high")
    with pytest.raises(ValueError, match="Accuracy is 'high'"):
        check_card(folder, SCORES)


# ---- the data ----
FOUND = {"name": "Digits", "type": "digits", "samples": 100, "classes": ["cat", "dog"], "published": None}


@pytest.fixture
def of_pets(folder):
    """The same student, with the names of its classes."""
    (folder / "config.json").write_text(json.dumps({"id2label": {"1": "dog", "0": "cat"}}))
    return folder


def test_data_that_are_named_as_they_are_pass(of_pets, capsys):
    assert check_data(of_pets, FOUND) == check_data(of_pets) == []
    assert report_check(of_pets, SCORES, FOUND) == 0


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"name": "Emoji"}, "the scores are said to be of Digits, and Emoji was measured on"),
        ({"type": "me/emoji"}, "the data are said to be 'digits', and 'me/emoji' was measured on"),
        ({"samples": 76}, "the scores are said to be of 100 samples, and 76 were measured"),
        ({"classes": ["cat", "fox"]}, "the model's configuration has a class 'dog' where the data have 'fox'"),
        ({"classes": ["cat"]}, "the model's configuration has a class 'dog' where the data have None"),
    ],
)
def test_other_data_than_the_card_names_are_found(of_pets, capsys, found, told):
    assert check_data(of_pets, {**FOUND, **found}) == [told]
    assert report_check(of_pets, SCORES, {**FOUND, **found}) == 1
    assert f"  {told}.\n" in capsys.readouterr().out


def test_a_folder_of_another_name_with_the_same_data_is_the_same(of_pets):
    name = "pets (2 classes; 40 training and 100 test pictures)"
    for file in ("README.md", "colearning.json"):
        text = (of_pets / file).read_text()
        (of_pets / file).write_text(text.replace("Measured on Digits", f"Measured on {name}").replace(
            "name: Digits\n", f"name: {name}\n").replace('"name": "Digits"', f'"name": "{name}"'))  # fmt: skip
    assert check_data(of_pets, {"name": name.replace("pets", "my-copy")}) == []
    assert check_data(of_pets, {"name": name.replace("40", "41")}) != []
    assert check_data(of_pets, {"name": "pets (drawn by hand)"}) == []  # as an earlier version has named them
    assert check_data(of_pets, {"name": "emoji (drawn by hand)"}) != []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("README.md", "Measured on Digits", "Measured on ImageNet-1k", "the card does not say 'Measured on Digits, split"),
        ("README.md", "(100 samples)", "(50,000 samples)", "the card does not say 'Measured on Digits, split"),
        ("README.md", "name: Digits", "name: ImageNet-1k", "the data's name is 'ImageNet-1k', and colearning.json 'Digits'"),
        ("README.md", "split: test", "split: train", "the data's split is 'train', and colearning.json 'test'"),
        ("README.md", "library_name:", "datasets: [ILSVRC/imagenet-1k]\nlibrary_name:",
         "the metadata link 'ILSVRC/imagenet-1k', which the scores are not of"),
    ],
)  # fmt: skip
def test_an_edited_name_of_the_data_is_found(folder, file, old, new, told):
    edit(folder / file, old, new)
    (found,) = check_data(folder)
    assert told in found


def test_published_numbers_of_other_data_are_found(tmp_path):
    record = a_record(scores=SCORES)
    record.save(tmp_path)
    card = student_card(
        tmp_path, title="x", pipeline_tag="image-classification", published="77.83 -> 78.54 % (a paper)"
    )
    card.save(tmp_path / "README.md")
    assert check_data(tmp_path, {"published": "77.83 -> 78.54 % (a paper)"}) == []
    assert check_data(tmp_path, {"published": None}) == [
        "published numbers stand beside the scores, and they are not of these data"
    ]


# ---- hf-colearn card ----
RECIPE = "import json, sys\nprint(json.dumps(sys.argv[1:]), file=open('asked.json', 'w'))\nsys.exit({status})\n"


@pytest.fixture
def recipes(tmp_path):
    path = tmp_path / "recipes"
    path.mkdir()
    (path / "mine.py").write_text(RECIPE.format(status=0))
    return path


def test_the_command_prints_the_card_or_asks_the_recipe(folder, recipes, capsys):
    assert card_command(str(folder), False, recipes) == 0
    assert capsys.readouterr().out == (folder / "README.md").read_text() + "\n"
    for status, expected in ((0, 0), (1, 1), (2, 2), (7, 1)):
        (recipes / "mine.py").write_text(RECIPE.format(status=status))
        assert card_command(str(folder), True, recipes, ["--data_dir", "MINE"]) == expected
    asked = json.loads(Path("asked.json").read_text())
    scratch = asked[5]
    assert asked == [
        *("--seeds", "2", "--data_dir", "THEIRS", "--output_dir", scratch, "--data_dir", "MINE"),
        *("--check", str(folder)),
    ]
    assert not Path(scratch).exists()


@pytest.mark.parametrize("recipe", [None, "../mine", "recipes/mine", "mine.py", "-c", "", "Mine"])
def test_only_the_name_of_a_recipe_is_run(folder, recipes, recipe):
    edit(folder / "colearning.json", '"recipe": "mine"', f'"recipe": {json.dumps(recipe)}')
    with pytest.raises(ValueError, match="as its recipe, which is none"):
        card_command(str(folder), True, recipes)
    assert not Path("asked.json").exists()


def test_what_cannot_be_checked_is_named(folder, recipes, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no recipe '.*mine.py'.*--recipes FOLDER"):
        card_command(str(folder), True, tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a student"):
        card_command(str(tmp_path / "nowhere"), True, recipes)
    (folder / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match="has no README.md"):
        card_command(str(folder), False, recipes)


# ---- with a Hub ----
ON_THE_HUB = """
import json, sys
import hf_colearn
from huggingface_hub import DatasetCard, HfApi, ModelCard
from hf_colearn.hub.check import check_card, read_card, student_folder

api = HfApi()
api.create_repo("tester/student")
api.upload_folder(repo_id="tester/student", folder_path=FOLDER)
folder = student_folder("tester/student")
card = read_card(folder)
card.validate()
messages = []
try:
    student_folder("tester/nobody")
except FileNotFoundError as error:
    messages.append(str(error))
print(json.dumps([len(check_card(folder, SCORES)), len(check_card(folder, {**SCORES, "accuracy": 0.5})), messages]))
"""


def test_a_card_is_valid_on_the_hub_and_checked_from_there(folder, tmp_path):
    with HubDouble() as hub:
        script = f"FOLDER, SCORES = {str(folder)!r}, {SCORES!r}\n{ON_THE_HUB}"
        same, other, messages = run_child(script, hub, tmp_path / "home")
        assert (same, other) == (0, 3)
        assert (
            len(messages) == 1
            and "'tester/nobody' is neither a folder nor a student that the Hub gives" in messages[0]
        )
        assert ("POST", "/api/validate-yaml") in hub.requests and hub.unhandled == []


# ---- a recipe ----
def test_a_multimodal_model_is_measured_again_and_only_the_edited_number_differs(tmp_path):
    recipe = ROOT / "recipes" / "av_digits.py"
    asked = ["--small", "--max_steps", "3", "--eval_strategy", "no", "--save_strategy", "no", "--report", "false"]
    asked += ["--load_best_model_at_end", "false", "--per_device_train_batch_size", "8", "--spectrogram_size", "16"]
    asked += ["--dataloader_num_workers", "0", "--arms", "ce", "constant", "--hub_token", "hf_not_to_be_seen"]
    processes.forked(recipe, *asked, folder=tmp_path)
    model = tmp_path / "runs/av_digits/model"
    record = TrainingRecord.load(model)
    assert (record.recipe, record.arm, record.terms, record.teacher) == (
        "av_digits",
        "constant",
        ["contrastive"],
        None,
    )
    assert {"accuracy", "map", "accuracy_image", "accuracy_given_audio"} <= record.scores.keys()
    assert record.dataset["samples"] == 899 and record.seconds > 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hf_not_to_be_seen" in path.read_bytes()]
    edit(model / "README.md", f"value: {record.scores['map_image']}", "value: 0.9")  # all others are as measured
    done = processes.forked(recipe, *record.argv, "--check", model, folder=tmp_path, expect=1)
    differing = [line.strip() for line in done.stdout.splitlines() if " was measured." in line]
    assert differing == [f"map_image: the model-index says 0.9, and {record.scores['map_image']:.6g} was measured."]
