"""What of a saved folder is published, without a token and a network: `hf-colearn publish --dry_run`."""

import json
import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageClassification, ViTForImageClassification

import tiny
from hf_colearn import CoLearningForMultimodalClassification, CoLearningTrainer
from hf_colearn.cli import main
from hf_colearn.hub.exported_files import write_without_training_heads
from hf_colearn.hub.publish import planned
from hf_colearn.models.lora import load_adapter, with_lora
from refusals import Refusals, assert_refused, everything_in


STATE = [
    "callback_states.pt",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
]


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(64, 10)

    def forward(self, pixel_values, labels=None):
        logits_BC = self.classifier(pixel_values.flatten(1))
        return {"loss": nn.functional.cross_entropy(logits_BC, labels), "logits": logits_BC}


def trained(folder, model, **options):
    """The output folder of a training of one step: a checkpoint, and the model as `save_model` leaves it."""
    arguments = tiny.arguments(folder, max_steps=1, save_strategy="steps", save_steps=1, **options)
    trainer = CoLearningTrainer(model, arguments, train_dataset=tiny.digits(8))
    trainer.train()
    trainer.save_model()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Output folders by the kind of the model."""
    root = tmp_path_factory.mktemp("saved")
    kinds = {
        "student": tiny.student(training_heads={"probe": 3}),
        "adapter": with_lora(tiny.student(training_heads={"probe": 3}), rank=2),
        "stock": ViTForImageClassification(tiny.vit(num_labels=10)),
        "module": Plain(),
    }
    for name, model in kinds.items():
        trained(root / name, model, ema_decay=None if name == "adapter" else 0.5)
    return root


def weights_of(files):
    return {name for path in files.values() if str(path).endswith(".safetensors") for name in load_file(path)}


# ---- folders of save_model, and checkpoints
def test_of_a_saved_student_only_what_its_reader_needs_is_published(saved):
    folder = saved / "student"
    before = everything_in(folder)
    with planned(folder, "me/x") as manifest:
        assert manifest.refused == [] and manifest.left_out == ["checkpoint-1/", "training_args.bin"]
        assert manifest.notes[0] == "the training heads 'probe' are left out: only training needs them"
        assert manifest.notes[1] == "README.md is written of what colearning.json knows"
        config = json.loads(manifest.files["config.json"].read_text())
        names = weights_of(manifest.files)
        card = ModelCard(manifest.card)
    assert "training_heads" not in config and config["num_labels" if "num_labels" in config else "latent_dim"]
    kept = load_file(folder / "model.safetensors")
    assert names == {name for name in kept if "training_heads" not in name} and len(names) == len(kept) - 2
    assert card.data.pipeline_tag == "image-classification" and card.data.license is None
    assert 'from_pretrained("me/x")' in card.text and str(saved) not in card.text
    assert everything_in(folder) == before


def test_a_checkpoint_is_published_without_its_states(saved):
    with planned(saved / "student" / "checkpoint-1", "me/x") as manifest:
        assert manifest.refused == []
        states = {"averaged_weights.safetensors", "training_weights.safetensors", *STATE}
        assert set(manifest.left_out) == states - ({"callback_states.pt"} - set(manifest.left_out))
        assert not {name for name in manifest.files if name.endswith((".pt", ".pth", ".bin"))}
        assert "training_heads" not in json.loads(manifest.files["config.json"].read_text())


def test_an_adapter_is_told_by_its_folder_and_needs_a_base(saved, tmp_path):
    folder = saved / "adapter"
    with planned(folder, "me/x") as manifest:
        assert len(manifest.refused) == 1 and "it names no base model" in manifest.refused[0]
    with planned(folder, "me/x", base="me/base") as manifest:
        assert manifest.refused == [] and manifest.base == "me/base"
        config = json.loads(manifest.files["adapter_config.json"])
        assert not any("training_heads" in name for name in weights_of(manifest.files))
        shutil.copy(manifest.files["adapter_model.safetensors"], tmp_path)
        card = ModelCard(manifest.card)
    assert config["base_model_name_or_path"] == "me/base" and card.data.library_name == "peft"
    assert (card.data.base_model, card.data.base_model_relation) == ("me/base", "adapter")
    assert config["modules_to_save"] == ["latent_head", "latent_norm", "classifier"]
    assert "README.md is written of what colearning.json knows, in place of PEFT's empty template" in manifest.notes
    assert 'base = CoLearningForImageClassification.from_pretrained("me/base")' in card.text
    # It fits a base without training heads, and changes what that predicts.
    (tmp_path / "adapter_config.json").write_bytes(manifest.files["adapter_config.json"])
    pixels_BCHW = tiny.digits(2)[:]["pixel_values"]
    whole, base = load_adapter(tiny.student(training_heads={"probe": 3}), folder).eval(), tiny.student()
    with torch.no_grad():
        assert torch.equal(load_adapter(base, tmp_path).eval()(pixels_BCHW).logits, whole(pixels_BCHW).logits)


@pytest.mark.parametrize(
    ("kind", "library", "loaded"),
    [
        ("stock", "transformers", 'ViTForImageClassification.from_pretrained("me/x")'),
        ("module", None, 'hf_hub_download("me/x", "model.safetensors")'),
    ],
)
def test_a_model_of_another_class_is_published_with_a_card_of_its_files(kind, library, loaded, saved, tmp_path):
    folder = shutil.copytree(saved / kind, tmp_path / kind)
    (folder / "colearning.json").unlink()
    (folder / "README.md").unlink(missing_ok=True)
    with planned(folder, "me/x") as manifest:
        assert manifest.refused == [] and "model.safetensors" in manifest.files
        assert manifest.notes == [
            "README.md is written of what its files tell, since there is no colearning.json",
            "README.md names no licence: write `license: ...` into its metadata where you chose one",
        ]
        card = ModelCard(manifest.card)
    assert card.data.library_name == library and loaded in card.text
    assert "How it was trained is not recorded." in card.text and "## Time and energy" not in card.text


def test_a_card_that_is_there_is_kept(saved, tmp_path):
    folder = shutil.copytree(saved / "stock", tmp_path / "stock")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    with planned(folder, "me/x") as manifest:
        assert manifest.card == "---\nlicense: mit\n---\n\n# Mine\n" and manifest.notes == []


# ---- without training heads, in shards
@pytest.mark.parametrize("in_place", [False, True])
def test_sharded_weights_lose_their_training_heads_and_load(in_place, tmp_path):
    student = tiny.student(training_heads={"probe": {"out_features": 500}})  # a shard of its own
    folder, into = tmp_path / "student", tmp_path / ("student" if in_place else "out")
    student.save_pretrained(folder, max_shard_size="15KB")
    changed = write_without_training_heads(folder, into)
    assert "config.json" in changed and "model.safetensors.index.json" in changed
    for path in folder.glob("*"):
        if path.name not in changed and not in_place:
            shutil.copy(path, into)
    index = json.loads((into / "model.safetensors.index.json").read_text())
    # Every weight but the heads' two is where the index says, and the bytes add up.
    student.without_training_heads().save_pretrained(tmp_path / "expected")
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    assert index["weight_map"].keys() == expected.keys()
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in expected.values())
    for name, file in index["weight_map"].items():
        with safe_open(into / file, framework="pt") as opened:
            assert torch.equal(opened.get_tensor(name), expected[name])
    loaded, found = AutoModelForImageClassification.from_pretrained(into, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not loaded.config.training_heads
    assert {path.name for path in into.glob("*.safetensors")} == set(index["weight_map"].values())


def test_a_multimodal_models_heads_are_found_too(tmp_path):
    model = CoLearningForMultimodalClassification.from_backbones(
        {"image": tiny.vit(), "audio": tiny.vit()}, latent_dim=4, num_labels=3, training_heads={"probe": 2}
    )
    model.save_pretrained(tmp_path)
    with planned(tmp_path, "me/x") as manifest:
        assert manifest.refused == [] and "'probe'" in manifest.notes[0]
        kept = load_file(tmp_path / "model.safetensors")
        assert (
            weights_of(manifest.files)
            == {name for name in kept if not name.startswith("training_heads.")}
            < kept.keys()
        )


# ---- the dry run
def test_the_dry_run_lists_every_file_with_its_size(saved, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert (
        main(["publish", str(saved / "student"), "--repo_id", "me/x", "--private", "--revision", "v1", "--dry_run"])
        == 0
    )
    said = capsys.readouterr().out
    for line in (
        "Repository: me/x, of a model",
        "Visibility: private",
        "Revision:   v1",
        "  training_args.bin",
        "  checkpoint-1/",
    ):
        assert f"{line}\n" in said
    listed = {
        name: int(size.replace(",", "")) for size, name in re.findall(r"^ +([\d,]+)  (\S+)$", said, re.MULTILINE)
    }
    assert listed["colearning.json"] == (saved / "student" / "colearning.json").stat().st_size
    assert 0 < listed["model.safetensors"] < (saved / "student" / "model.safetensors").stat().st_size
    assert listed.keys() >= {"README.md", "config.json", "student.py"} and "training_args.bin" not in listed
    assert f"Files:      {len(listed)}, {sum(listed.values()):,} bytes together" in said and "Refused" not in said


def test_the_dry_run_tells_all_that_is_refused(saved, tmp_path, capsys):
    folder = shutil.copytree(saved / "stock", tmp_path / "stock")
    (folder / "old.ckpt").write_bytes(b"")
    (folder / ".env").write_text("")
    (folder / "model.safetensors").unlink()
    assert main(["publish", str(folder), "--repo_id", "me/x", "--dry_run"]) == 0
    said = capsys.readouterr().out.partition("Refused, so that nothing would be sent:\n")[2]
    assert "'old.ckpt' may run code" in said and "'.env' is hidden" in said and "has no model.safetensors" in said
    assert main(["publish", str(tmp_path), "--repo_id", "me/x", "--dry_run"]) == 2
    assert "there is no student in" in capsys.readouterr().err


def test_a_token_is_refused_by_its_form(saved, tmp_path):
    folder = shutil.copytree(saved / "stock", tmp_path / "stock")
    (folder / "notes.txt").write_text("hf_" + "aB3" * 11 + "x")
    with planned(folder, "me/x") as manifest:
        assert manifest.refused == [
            "'notes.txt' holds an access token: remove it, and revoke it if others can read the file"
        ]


# ---- names that no Hub takes, told before the token is looked for
refusals = Refusals()


def a_student(folder):
    tiny.student().save_pretrained(folder / "student")
    return folder / "student"


def publishing(repo_id, *rule, **options):
    def situation(folder):
        student = a_student(folder)
        yield
        with planned(student, repo_id, **options):
            pass

    value = options.get("base", options.get("revision", repo_id))
    situation.__name__ = f"the name {value!r}"
    refusals.case(ValueError, repr(value), *rule)(situation)


for name in ("a/b/c", "", "digits", "me/..x", "me/my digits", f"me/{'x' * 97}", "me/x.git", "https://hub/me/x"):
    publishing(name, "'owner/name', such as 'me/digits'", "96 characters at most")
for name in ("my branch", "v1..v2", "-v1", "", "x.lock"):
    publishing("me/x", "cannot be a branch", "'main' or 'v1.0'", revision=name)
publishing("me/x", "a commit", "name a branch", revision="0" * 40)
publishing("me/x", "'owner/name' or 'name'", base="me/base/adapter")


@refusals.case(ValueError, "'map' of README.md is nan", "remove it, or measure it")
def a_card_with_a_metric_that_is_no_number(folder):
    student = a_student(folder)
    metric = "metrics: [{type: map, value: .nan}]"
    result = f"{{task: {{type: x}}, dataset: {{name: x, type: x}}, {metric}}}"
    (student / "README.md").write_text(f"---\nmodel-index:\n- name: x\n  results: [{result}]\n---\n")
    yield
    with planned(student, "me/x") as manifest:
        raise ValueError("; ".join(manifest.refused))


@refusals.case(ValueError, "the data set of README.md='data/my emoji'", "'owner/name'")
def a_card_that_links_a_folder_as_a_data_set(folder):
    student = a_student(folder)
    (student / "README.md").write_text("---\ndatasets: [data/my emoji]\n---\n")
    yield
    with planned(student, "me/x") as manifest:
        raise ValueError("; ".join(manifest.refused))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
