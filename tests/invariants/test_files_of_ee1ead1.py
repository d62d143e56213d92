"""What commit ee1ead1 wrote, in `tests/written_by_ee1ead1` and `model_cards`: it loads, resumes and reports."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel

from hf_colearn import (
    CoLearningForImageClassification,
    CoLearningForMultimodalClassification,
)
from hf_colearn.analysis.report import report
from hf_colearn.models.checkpoint import current_names
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from hf_colearn.models.lora import load_adapter, with_lora
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from written_by_ee1ead1 import write


WRITTEN = Path(write.__file__).parent
MODEL_CARDS = WRITTEN.parents[1] / "model_cards"
RECORDED = json.loads((WRITTEN / "recorded.json").read_text())
MODELS = {
    "student": (CoLearningForImageClassification, "student/checkpoint-5", write.digits),
    "multimodal": (CoLearningForMultimodalClassification, "multimodal/checkpoint-5", write.halves),
    "adapter": (CoLearningForMultimodalClassification, "adapter", write.halves),
}


def close(found, expected):
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def prefixes(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name.split(".")[0] for name in file.keys()}  # noqa: SIM118  (a file is no dict)


# ---- models ----
@pytest.mark.parametrize("name", MODELS)
def test_a_model_loads_whole_and_gives_the_recorded_logits(name):
    kind, folder, samples = MODELS[name]
    model, info = kind.from_pretrained(WRITTEN / folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    close(write.logits(model, samples()), RECORDED[name]["logits"])


@pytest.mark.parametrize("trust_remote_code", [None, True])
@pytest.mark.parametrize("name", ["av_digits", "stamps"])
def test_a_published_model_is_saved_under_the_current_names(name, trust_remote_code, tmp_path):
    assert prefixes(MODEL_CARDS / name) == {"branches", "fusion"}  # the proof: these files stay as they are
    model, info = AutoModel.from_pretrained(
        MODEL_CARDS / name, trust_remote_code=trust_remote_code, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for folder in (tmp_path / "once", tmp_path / "twice"):
        model.save_pretrained(folder)
        assert prefixes(folder) == {"encoders", "fusion"}
        again, info = AutoModel.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert all(torch.equal(weight, model.state_dict()[key]) for key, weight in again.state_dict().items())
        model = again


def test_a_sharded_model_loads(tmp_path):
    shutil.copytree(MODEL_CARDS / "av_digits", tmp_path, dirs_exist_ok=True)
    model = AutoModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    former = {name.replace("encoders.", "branches.", 1): weight for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=former, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(weight, model.state_dict()[key]) for key, weight in again.state_dict().items())


@pytest.mark.parametrize("trust_remote_code", [None, True])
def test_processors_load_and_are_saved_under_the_current_names(trust_remote_code, tmp_path):
    folder = MODEL_CARDS / "av_digits"
    images = AutoImageProcessor.from_pretrained(folder / "image", trust_remote_code=trust_remote_code)
    sound = AutoFeatureExtractor.from_pretrained(folder / "audio", trust_remote_code=trust_remote_code)
    assert type(images) is GrayscaleImageProcessor and type(sound) is SpectrogramFeatureExtractor
    images.save_pretrained(tmp_path)
    written = (tmp_path / "processor_config.json").read_text()
    former = (folder / "image" / "processor_config.json").read_text()
    assert json.loads(written) == json.loads(
        former.replace("grey.Grey", "grayscale.Grayscale").replace("GreyImage", "GrayscaleImage")
    )


# ---- adapters ----
def test_an_adapter_loads_onto_its_base():
    base = CoLearningForMultimodalClassification.from_pretrained(WRITTEN / "adapter" / "base")
    adapted = load_adapter(base, WRITTEN / "adapter" / "adapter")
    close(write.logits(adapted, write.halves()), RECORDED["adapter"]["logits"])
    assert not any(weight.requires_grad for weight in adapted.parameters())


def test_an_adapter_is_taken_up_by_a_model_that_trains(tmp_path):
    base = CoLearningForMultimodalClassification.from_pretrained(WRITTEN / "adapter" / "base")
    training = load_adapter(with_lora(base, 2), WRITTEN / "adapter" / "adapter")
    close(write.logits(training, write.halves()), RECORDED["adapter"]["logits"])
    assert sum(weight.requires_grad for weight in training.parameters()) > 10
    training.save_pretrained(tmp_path)  # under the current names
    assert "branches" not in (tmp_path / "adapter_config.json").read_text()
    base = CoLearningForMultimodalClassification.from_pretrained(WRITTEN / "adapter" / "base")
    close(write.logits(load_adapter(base, tmp_path), write.halves()), RECORDED["adapter"]["logits"])


def test_an_adapter_of_another_model_is_refused():
    with pytest.raises(ValueError, match="holds the adapter of another model or with other layers: .* does not fit"):
        load_adapter(with_lora(write.student(), 2), WRITTEN / "adapter" / "adapter")


def test_state_dicts_get_current_names_where_a_model_has_those():
    known = {"encoders.a.weight", "base_model.model.encoders.a.weight", "branches.b"}
    names = ["branches.a.weight", "base_model.model.branches.a.weight", "branches.b", "x.branches.a"]
    assert current_names({name: i for i, name in enumerate(names)}, known) == {
        "encoders.a.weight": 0,
        "base_model.model.encoders.a.weight": 1,
        "branches.b": 2,
        "x.branches.a": 3,
    }


# ---- runs ----
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("student", lambda: write.student_trainer("run", ema_decay=0.8, latent_scaling="none")),
        ("multimodal", write.multimodal_trainer),
    ],
)
def test_a_run_is_taken_up_in_its_middle(name, make):
    trainer = make() if name == "student" else make("run")
    trainer.train(resume_from_checkpoint=str(WRITTEN / name / "checkpoint-5"))
    found, expected = write.logged(trainer), RECORDED[name]["logged"]
    assert len(found) == len(expected) == 11
    for step, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        assert one == pytest.approx(other, rel=1e-6), step


def test_a_report_of_finished_runs_says_what_it_said(tmp_path):
    shutil.copytree(WRITTEN / "runs", tmp_path / "runs")
    report(tmp_path / "runs", methods=("pca",))
    found = json.loads((tmp_path / "runs" / "report.json").read_text())
    assert [run["metrics"] for run in found["runs"]] == RECORDED["runs"]["metrics"]
    for arm, recorded in zip(found["comparison"]["arms"], RECORDED["runs"]["comparison"]["arms"], strict=True):
        assert (arm["name"], arm["kind"], arm["scores"]) == (recorded["name"], recorded["kind"], recorded["scores"])
        for field in ("mean", "to_baseline"):
            assert (arm[field] is None) == (recorded[field] is None)
            for key, value in (recorded[field] or {}).items():
                value = 0.0 if (field, key) == ("mean", "low") and value < 0 else value  # now it ends where scores do
                expected = None if value is None else pytest.approx(value, rel=1e-9)
                assert arm[field][key] == expected, (arm["name"], field, key)
