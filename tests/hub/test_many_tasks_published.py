"""A model of many tasks and its students, published: what the card says, and that a stranger without hf_colearn loads them."""

import os

import torch
from huggingface_hub import ModelCard
from transformers import AutoModel

import child_python
import tiny_tasks
from hf_colearn import CoLearningForManyTasks
from hf_colearn.hub.card import student_card
from hf_colearn.hub.model_kind import ModelKind
from hf_colearn.hub.record import TrainingRecord
from hf_colearn.models.lora import with_lora


STRANGER = """
import sys
for name in ("hf_colearn", "torchaudio"):  # to import them fails, and to look for them finds nothing
    sys.modules[name] = None
import torch
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForImageClassification

inputs, logits = torch.load("told.pt", weights_only=True)
model = AutoModel.from_pretrained("model", trust_remote_code=True).eval()
students = {
    "digits": (AutoModelForImageClassification, "digits"),
    "spoken": (AutoModelForAudioClassification, "spoken"),
    "wine": (AutoModel, "wine"),
}
for task, (auto, folder) in students.items():
    student = auto.from_pretrained(folder, trust_remote_code=True).eval()
    own = {name.split("_", 1)[1]: value for name, value in inputs[task].items()}
    with torch.no_grad():
        for found in (model(task=task, **inputs[task]), model.student(task)(**own), student(**own)):
            torch.testing.assert_close(found.logits, logits[task])
assert type(student).__module__.startswith("transformers_modules")
"""


def inputs(task):
    column, shape = tiny_tasks.SHAPES[task]
    return {column: torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))}


def test_a_stranger_loads_the_model_and_its_students(tmp_path):
    made = tiny_tasks.model().eval()
    made.stems["wine"].standardization.set_statistics(torch.randn(9, 5, generator=torch.Generator().manual_seed(2)))
    made.save_pretrained(tmp_path / "model")
    for task in made.tasks:
        made.student(task).save_pretrained(tmp_path / task)
    with torch.no_grad():
        logits = {task: made(task=task, **inputs(task)).logits for task in made.tasks}
    torch.save(({task: inputs(task) for task in made.tasks}, logits), tmp_path / "told.pt")
    environment = os.environ | {"PYTHONPATH": "", "HF_HOME": str(tmp_path / "home")}
    done = child_python.run(STRANGER, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_its_card_names_the_tasks_and_shows_how_one_is_called(tmp_path):
    made = tiny_tasks.model()
    made.save_pretrained(tmp_path)
    TrainingRecord(recipe="many_tasks").save(tmp_path)
    student_card(tmp_path, title="Three tasks", pipeline_tag="many-tasks").save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag is None and "model of several tasks" in card.text
    assert "- `digits`: `image`; 3 classes\n- `spoken`: `speech`; 3 classes, the head `digits`" in card.text
    assert "CoLearningForManyTasks.from_pretrained" in card.text and "AutoModel.from_pretrained" in card.text
    assert "pipeline" not in card.text and type(AutoModel.from_pretrained(tmp_path)) is CoLearningForManyTasks


def test_it_is_known_from_itself_and_from_its_folder(tmp_path):
    made = tiny_tasks.model()
    made.save_pretrained(tmp_path)
    for kind in (ModelKind.of_model(made), ModelKind.of_folder(tmp_path)):
        assert (kind.class_name, kind.pipeline_tag, kind.hub_tag) == ("CoLearningForManyTasks", "many-tasks", None)
        assert kind.is_ours and not kind.is_multimodal and not kind.is_encoder
    assert ModelKind.of_model(made.student("digits")).pipeline_tag == "image-classification"
    assert ModelKind.of_model(with_lora(made, 1)).is_adapter
