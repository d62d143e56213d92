"""Publishing while training, with the real client against the Hub double."""

from hub_double import HubDouble, run_child


TRAIN_AND_PUSH = """
import json
import tiny
from hf_colearn import CoLearningTrainer

run = CoLearningTrainer(
    tiny.student(),
    tiny.arguments("out", max_steps=4, save_strategy="steps", save_steps=2, push_to_hub=True, hub_strategy="every_save",
                   hub_model_id="tester/student", hub_private_repo=True),
    train_dataset=tiny.digits(32), bank=tiny.bank(), pairing=tiny.random_prompt(),
)
run.train()
run.push_to_hub()
print(json.dumps(run.model.classifier.weight.double().sum().item()))
"""

LOAD_BACK = """
import json
import hf_colearn
from transformers import AutoModelForImageClassification

student = AutoModelForImageClassification.from_pretrained("tester/student")
print(json.dumps([type(student).__module__, student.classifier.weight.double().sum().item()]))
"""


def test_a_student_is_pushed_while_training_and_loads_back(tmp_path):
    with HubDouble() as hub:
        pushed = run_child(TRAIN_AND_PUSH, hub, tmp_path / "home")
        files = hub.files("tester/student")
        module, loaded = run_child(LOAD_BACK, hub, tmp_path / "another_home")
        assert hub.unhandled == []
    assert {
        "config.json",
        "model.safetensors",
        "student.py",
        "pooling.py",
        "folding.py",
        "configuration.py",
        "README.md",
    } <= set(files)
    assert b"hf_double" not in b"".join(files.values())  # the double's token
    assert module == "hf_colearn.models.student"
    assert loaded == pushed
