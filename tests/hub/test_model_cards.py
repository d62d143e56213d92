"""The students in `model_cards/`: small, whole, and as good as their cards say."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoConfig

import hf_colearn
import processes
from hf_colearn.cli import main
from hf_colearn.hub.check import check_card
from hf_colearn.hub.record import TrainingRecord


ROOT = Path(__file__).parents[2]
STUDENTS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/config.json"))


def test_there_is_one_of_every_recipe_with_small_real_data():
    assert [student.name for student in STUDENTS] == ["av_digits", "digits_l2v", "emoji_l2v", "stamps", "stamps_pairs"]


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.name)
def test_a_card_and_its_record_tell_the_same_numbers(student):
    record = TrainingRecord.load(student)
    assert record.recipe == student.name and record.scores["accuracy"] > 0.3
    assert check_card(student, record.scores) == []
    card = ModelCard.load(student / "README.md")
    assert card.data.license and card.data.library_name == "transformers" and card.data.model_name
    assert len(card.data.eval_results) == len(record.scores)
    assert "5 seeds" in card.text and "not measured" in card.text  # the comparison, and the energy


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.name)
def test_a_student_is_small_and_loads(student):
    assert sum(path.stat().st_size for path in student.rglob("*") if path.is_file()) < 5e6
    architecture = AutoConfig.from_pretrained(student).architectures[0]
    model = getattr(hf_colearn, architecture).from_pretrained(student)
    assert sum(weight.numel() for weight in model.parameters()) > 1e4
    assert len(model.config.id2label) in (8, 10, 12)


@pytest.mark.parametrize("name", ["emoji_l2v", "stamps_pairs"])
def test_cards_of_few_labels_say_how_many_there_were(name):
    record = TrainingRecord.load(ROOT / "model_cards" / name)
    labelled, total = record.training_samples["num_labelled"], record.training_samples["num_train"]
    card = (ROOT / "model_cards" / name / "README.md").read_text()
    assert labelled < 0.2 * total and f"{labelled} of {total} samples labelled, {total} paired" in card


def test_the_digits_student_scores_what_its_card_says(monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    assert main(["card", str(ROOT / "model_cards" / "digits_l2v"), "--check"]) == 0
    assert "The card says what was measured" in capfd.readouterr().out


def test_a_number_that_was_made_up_is_found(tmp_path):
    student = shutil.copytree(ROOT / "model_cards" / "digits_l2v", tmp_path / "student")
    accuracy = json.loads((student / "colearning.json").read_text())["scores"]["accuracy"]
    card = (student / "README.md").read_text()
    (student / "README.md").write_text(card.replace(f"value: {accuracy}", "value: 0.9"))
    done = processes.checked(student, recipes=ROOT / "recipes", folder=tmp_path, expect=1)
    assert f"accuracy: the model-index says 0.9, and {accuracy:.6g} was measured." in done.stdout
