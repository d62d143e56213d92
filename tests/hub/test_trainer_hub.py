"""Publishing while training, with the real client against the Hub double: a child trains, and loads back from the Hub."""

import json

import pytest
from huggingface_hub import ModelCard

from hub_double import HubDouble, Response, fault_on, run_child


TOKEN = "hf_SecretSecretSecretSecretSecretSecr"
STEPS = 4  # with a checkpoint every 2

TRAIN_AND_PUSH = """
import json
import logging
import os
from pathlib import Path
import tiny
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForImageClassification, TrainerCallback
from hf_colearn import CoLearningTrainer


class StopAfter2(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


class WaitForPush(TrainerCallback):  # or a push that meets a busy one is left out
    def on_save(self, args, state, control, **kwargs):
        self.trainer._finish_current_push()


def trainer(name, callbacks=(), **options):
    args = tiny.arguments(name, max_steps=4, save_strategy="steps", save_steps=2, alpha_schedule="heuristic", **options)
    wait = WaitForPush()
    wait.trainer = CoLearningTrainer(
        tiny.student(training_heads={"probe": 3}), args, train_dataset=tiny.digits(16), bank=tiny.bank(),
        pairing=tiny.random_prompt(), callbacks=[wait, *callbacks],
    )
    return wait.trainer


def pushed_by(name, strategy, callbacks=()):
    return trainer(
        name, callbacks, push_to_hub=True, hub_strategy=strategy, hub_model_id=f"tester/{name}", hub_private_repo=True,
        hub_token=os.environ["HF_TOKEN"],
    )


def weights(run):
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


alone = trainer("alone")
alone.train()
expected = weights(alone)
result = {"checksum": alone.model.classifier.weight.double().sum().item()}

for strategy in ("every_save", "checkpoint", "all_checkpoints", "end"):
    run = pushed_by(strategy, strategy)
    run.train()
    run.push_to_hub()

# Stopped after step 2; the machine is lost, and another one goes on from the Hub.
stopped = pushed_by("stopped", "checkpoint", [StopAfter2()])
stopped.train()
snapshot = Path(snapshot_download("tester/stopped", allow_patterns="last-checkpoint/*"))
resumed = trainer("resumed")
resumed.train(resume_from_checkpoint=str(snapshot / "last-checkpoint"))
result["stopped_at"] = stopped.state.global_step
result["resumed_to"] = resumed.state.global_step
result["same"] = all(torch.equal(weight, expected[name]) for name, weight in weights(resumed).items())
result["stopped_differs"] = any(not torch.equal(weight, expected[name]) for name, weight in weights(stopped).items())

# A server that fails while the student is pushed: the training goes on, and a repeat completes.
busy = pushed_by("busy", "every_save")
lost = []
logging.getLogger("hf_colearn.hub.trainer_hub").addFilter(lambda record: lost.append(record) or True)
busy.train()
result["told"] = [record.getMessage() for record in lost]
try:
    busy.push_to_hub()
except OSError as error:
    result["busy"] = str(error.response.status_code)
local = {path.name: path.read_bytes() for path in Path("busy").iterdir() if path.is_file()}
busy.push_to_hub()
result["local"] = sorted(local)
result["whole"] = all((Path("busy") / name).read_bytes() == data for name, data in local.items() if name != "README.md")

# Models of other kinds: their own files and cards, pushed while training, and in shards.
import numpy as np
from torch import nn
from transformers import ViTForImageClassification
from hf_colearn.models.lora import with_lora


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.classifier = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, pixel_values, labels=None):
        latents = self.encoder(pixel_values.flatten(1))
        logits = self.classifier(latents)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "latents": latents}


def metrics(prediction):
    return {"accuracy": 0.5, "by_class": [0.1, 0.9], "missing": None, "nan": float("nan"), "single": np.float32(0.25)}


models = {
    "lora": with_lora(tiny.student(training_heads={"probe": 3}), rank=2),
    "stock": ViTForImageClassification(tiny.vit(num_labels=10)),
    "module": Plain(),
}
for name, model in models.items():
    args = tiny.arguments(
        name, max_steps=2, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, push_to_hub=True,
        hub_strategy="every_save", hub_model_id=f"tester/{name}", hub_token=os.environ["HF_TOKEN"],
    )
    wait = WaitForPush()
    taught = {} if name == "stock" else {"bank": tiny.bank(), "pairing": tiny.random_prompt()}
    wait.trainer = CoLearningTrainer(
        model, args, train_dataset=tiny.digits(16), eval_dataset=tiny.digits(8), compute_metrics=metrics, callbacks=[wait],
        **taught,
    )
    wait.trainer.train()
    wait.trainer.push_to_hub()
tiny.student().push_to_hub("tester/sharded", max_shard_size="15KB")
result["sharded"] = len(list(Path(snapshot_download("tester/sharded")).glob("*.safetensors")))
loaded = AutoModelForImageClassification.from_pretrained("tester/sharded").state_dict()
result["sharded_same"] = all(torch.equal(weight, loaded[name]) for name, weight in tiny.student().state_dict().items())

repos = ("every_save", "checkpoint", "all_checkpoints", "end", "busy")
students = [AutoModelForImageClassification.from_pretrained(f"tester/{repo}") for repo in repos]
result["loaded"] = [[type(student).__module__, student.classifier.weight.double().sum().item()] for student in students]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The Hub after all of these trainings, and what the child said of them."""
    busy = Response(503, b"", {"Retry-After": "0"})
    with HubDouble(token=TOKEN) as hub:
        # The pushes of steps 2 and 4 and the first one by hand fail; commits are what the client does not repeat.
        hub.fault = fault_on("/tester/busy/commit/", busy, last=3)
        said = run_child(TRAIN_AND_PUSH, hub, tmp_path_factory.mktemp("trained") / "home")
        assert hub.unhandled == []
        yield hub, said


def titles(hub, repo):
    return [commit.title for commit in hub.repos["model", f"tester/{repo}"].commits]


def checkpoint_folders(hub, repo):
    return sorted({path.split("/")[0] for path in hub.files(f"tester/{repo}") if "checkpoint" in path and "/" in path})


def test_each_strategy_pushes_what_it_says(trained):
    hub, _ = trained
    progress = [f"Training in progress, step {step}" for step in (2, STEPS)]
    checkpoints = [title for step in progress for title in (step, f"{step}, checkpoint")]
    for strategy, during in {
        "every_save": progress,
        "checkpoint": checkpoints,
        "all_checkpoints": checkpoints,
        "end": [],
    }.items():
        assert [title for title in titles(hub, strategy) if title.startswith("Training")] == during, strategy
        assert titles(hub, strategy)[-1] == "End of training"
        assert hub.repos["model", f"tester/{strategy}"].private
    assert checkpoint_folders(hub, "every_save") == checkpoint_folders(hub, "end") == []
    assert checkpoint_folders(hub, "checkpoint") == ["last-checkpoint"]
    assert checkpoint_folders(hub, "all_checkpoints") == ["checkpoint-2", "checkpoint-4"]


def test_heads_that_only_training_needs_are_in_checkpoints_alone(trained):
    hub, _ = trained
    for repo in ("every_save", "checkpoint", "all_checkpoints", "end", "busy"):
        files = hub.files(f"tester/{repo}")
        assert not json.loads(files["config.json"]).get("training_heads"), repo
        assert b"training_heads" not in files["model.safetensors"], repo
    kept = hub.files("tester/checkpoint")
    assert list(json.loads(kept["last-checkpoint/config.json"])["training_heads"]) == ["probe"]
    assert b"training_heads.probe.weight" in kept["last-checkpoint/model.safetensors"]


def test_no_commit_of_the_training_has_them_in_the_root(trained):
    hub, _ = trained
    for repo in ("every_save", "checkpoint", "all_checkpoints", "lora"):
        for commit in hub.repos["model", f"tester/{repo}"].commits:
            files = {path: blob.data for path, blob in commit.files.items() if "/" not in path}
            weights = files.get("model.safetensors", files.get("adapter_model.safetensors", b""))
            assert b"training_heads" not in weights, (repo, commit.title)
            assert b"training_heads" not in files.get("adapter_config.json", b""), (repo, commit.title)
            assert not json.loads(files.get("config.json", b"{}")).get("training_heads"), (repo, commit.title)


@pytest.mark.parametrize(
    ("repo", "weights", "library"),
    [("lora", "adapter_model", "peft"), ("stock", "model", "transformers"), ("module", "model", None)],
)
def test_models_of_every_kind_are_pushed_while_they_train_and_have_a_card(repo, weights, library, trained):
    hub, _ = trained
    assert titles(hub, repo)[-3:] == [f"Training in progress, step {step}" for step in (1, 2)] + ["End of training"]
    files = hub.files(f"tester/{repo}")
    assert {f"{weights}.safetensors", "README.md", "colearning.json"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert card.data.to_dict().get("library_name") == library and card.data.license is None
    if repo != "stock":  # without co-learning, the card is Trainer's
        found = {result.metric_name: result.metric_value for result in card.data.eval_results}
        assert found == {"Accuracy": 0.5, "single": 0.25}
        assert "`by_class` (2 values), `missing` (None), `nan` (nan)" in card.text


def test_a_student_in_shards_is_pushed_and_loads(trained):
    _, said = trained
    assert said["sharded"] > 1 and said["sharded_same"]


def test_the_student_comes_with_its_code_and_card(trained):
    hub, _ = trained
    for repo in ("every_save", "checkpoint", "all_checkpoints", "end"):
        wanted = {"config.json", "model.safetensors", "README.md", "student.py", "configuration.py", "colearning.json"}
        files = hub.files(f"tester/{repo}")
        assert wanted <= set(files)
        card, record = ModelCard(files["README.md"].decode()), json.loads(files["colearning.json"])
        assert card.data.pipeline_tag == "image-classification" and card.data.library_name == "transformers"
        assert f'"tester/{repo}"' in card.text and "Not evaluated yet." in card.text
        assert record["terms"] == ["latent"] and record["alpha"].startswith("HeuristicAlpha(")
        assert record["arguments"]["max_steps"] == STEPS and "output_dir" not in record["arguments"]


def test_a_student_pushed_in_mid_training_has_the_code_that_its_configuration_names(trained):
    hub, _ = trained
    for repo in ("every_save", "checkpoint", "all_checkpoints"):
        commits = hub.repos["model", f"tester/{repo}"].commits
        first = next(commit for commit in commits if commit.title == "Training in progress, step 2")
        named = json.loads(first.files["config.json"].data)["auto_map"].values()
        assert {f"{path.split('.')[0]}.py" for path in named} | {"pooling.py", "colearning.json"} <= set(first.files)


def test_no_file_that_was_ever_pushed_holds_the_token(trained):
    # The token was given as `hub_token`, and Trainer pickles its arguments into training_args.bin.
    hub, _ = trained
    pushed = {
        f"{repo}/{path}": blob.data
        for (_, repo), content in hub.repos.items()
        for commit in content.commits
        for path, blob in commit.files.items()
    }
    assert any(path.endswith("training_args.bin") for path in pushed)
    assert [path for path, data in pushed.items() if TOKEN.encode() in data] == []


def test_the_pushed_students_load_back(trained):
    _, said = trained
    assert said["loaded"] == [["hf_colearn.models.student", said["checksum"]]] * 5


def test_a_run_goes_on_from_the_hubs_last_checkpoint_as_if_nothing_had_happened(trained):
    hub, said = trained
    files = hub.files("tester/stopped")
    assert {f"last-checkpoint/{name}" for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")} <= set(
        files
    )
    assert (said["stopped_at"], said["resumed_to"]) == (2, STEPS)
    assert said["stopped_differs"] and said["same"]


def test_a_failed_push_stops_no_training_and_a_repeat_completes(trained):
    hub, said = trained
    assert said["busy"] == "503"
    assert len(said["told"]) == 2 and all("'tester/busy' was lost" in text and "503" in text for text in said["told"])
    assert said["whole"] and "model.safetensors" in said["local"]
    assert titles(hub, "busy")[-1] == "End of training" and len(titles(hub, "busy")) == 2
    assert set(said["local"]) - {"README.md"} <= set(hub.files("tester/busy"))
