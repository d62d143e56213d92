"""The modalities trained one at a time, and the mean of their logits."""

import numpy as np
import pytest
import torch
from datasets import Dataset

import tiny
from hf_colearn import (
    FeatureBackboneConfig,
)
from hf_colearn.experiments.arms import ArmPlan
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_trainer
from hf_colearn.experiments.runner import run_arms


WIDTHS = {"audio": 5, "text": 4}
LATE = ArmPlan("late ensemble", "reference", late_ensemble=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    columns = {
        f"{name}_features": rng.normal(labels[:, None], 1.0, (24, width)).astype(np.float32)
        for name, width in WIDTHS.items()
    }
    part = Dataset.from_dict({**columns, "labels": labels}).with_format("torch")
    return {"train": part, "validation": part.select(range(12)), "test": part.select(range(12, 24))}


def trainer(data, folder, arm=LATE, **arguments):
    torch.manual_seed(0)
    options = MultimodalOptions(fusion="concat", latent_dim=6)
    backbones = {name: FeatureBackboneConfig(feature_dim=width) for name, width in WIDTHS.items()}
    args = tiny.arguments(folder, eval_strategy="steps", eval_steps=1, learning_rate=0.05, **arguments)
    model = options.make_model(backbones, num_labels=3)
    return multimodal_trainer(options, arm, args, model, data, dict.fromkeys(WIDTHS), ("accuracy",))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    late = trainer(data, tmp_path_factory.mktemp("late"), max_steps=5)
    late.train()
    return late


def test_its_students_are_those_that_their_share_of_the_steps_trains_alone(data, trained, tmp_path):
    """5 steps: the first of two modalities has 3, the other 2."""
    assert trained.state.global_step == 5
    rows = data["test"][:]
    inputs = {name: rows[f"{name}_features"] for name in WIDTHS}
    trained.model.eval()
    with torch.no_grad():
        outputs = trained.model(**{f"{name}_features": x for name, x in inputs.items()})
        only_text = trained.model(text_features=inputs["text"])
    logits = []
    for name, steps in (("audio", 3), ("text", 2)):
        alone = trainer(data, tmp_path, ArmPlan(f"{name} alone", "reference", modality=name), max_steps=steps)
        alone.train()
        with torch.no_grad():
            logits.append(alone.model.eval()(features=inputs[name]).logits)
        torch.testing.assert_close(outputs.modality_logits[name], logits[-1])
    torch.testing.assert_close(outputs.logits, (logits[0] + logits[1]) / 2)
    torch.testing.assert_close(only_text.logits, logits[1])


def test_its_log_is_of_one_student_after_the_other(trained):
    losses = [entry["step"] for entry in trained.state.log_history if "loss" in entry]
    assert losses == [1, 2, 3, 4, 5]
    for name, steps in (("audio", [1, 2, 3]), ("text", [4, 5])):
        assert [e["step"] for e in trained.state.log_history if f"eval_accuracy_{name}" in e] == steps
    assert not any("eval_accuracy" in entry for entry in trained.state.log_history)


def test_epochs_and_schedules_are_shared_too(data, tmp_path):
    """Three batches an epoch: 4 epochs are 12 steps, 6 for each, and the learning rate falls after 1 epoch instead of 2."""
    late = trainer(data, tmp_path, max_steps=-1, num_train_epochs=4, lr_step_epochs=2, lr_scheduler_type="linear")
    late.train()
    rates = [entry["learning_rate"] for entry in late.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx(([0.05] * 3 + [0.005] * 3) * 2)


def test_too_few_steps_to_share_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="1 optimizer steps cannot be shared by 2 modalities"):
        trainer(data, tmp_path, max_steps=1).train()


def test_a_run_of_it_is_scored_by_modality_subset_and_fused(data, tmp_path):
    plans = [ArmPlan("ce", "baseline"), ArmPlan("text alone", "reference", modality="text"), LATE]
    runs = run_arms(plans, [7], lambda plan, seed: trainer(data, tmp_path, plan, max_steps=4), data["test"])
    _, text, late = runs
    assert text.facts["modality"] == "text" and "modality" not in late.facts
    assert set(late.metrics) == {"accuracy", *(f"accuracy_{w}{n}" for w in ("", "given_") for n in WIDTHS)}
    assert late.metrics["accuracy_text"] == late.metrics["accuracy_given_text"]
    assert late.facts["trained_parameters"] > text.facts["trained_parameters"]
    assert set(late.test.modality_latents) == set(WIDTHS)


def test_the_mean_of_probabilities_is_that_of_the_students_softmaxes(data, trained, tmp_path):
    options = {"mean": "probabilities"}
    late = trainer(
        data, tmp_path, ArmPlan("p", "reference", late_ensemble=True, ensemble_options=options), max_steps=5
    )
    late.train()
    rows = data["test"][:]
    inputs = {f"{name}_features": rows[f"{name}_features"] for name in WIDTHS}
    trained.model.eval()
    with torch.no_grad():
        outputs, alone = late.model.eval()(**inputs), trained.model(**inputs).modality_logits
        only_text = late.model(text_features=inputs["text_features"])
    wanted = (alone["audio"].softmax(1) + alone["text"].softmax(1)) / 2
    torch.testing.assert_close(outputs.logits.softmax(1), wanted)
    torch.testing.assert_close(only_text.logits.softmax(1), alone["text"].softmax(1))
    assert not torch.allclose(outputs.logits, (alone["audio"] + alone["text"]) / 2, atol=1e-3)


def test_each_modality_may_have_all_steps(data, tmp_path):
    plan = ArmPlan("l", "reference", late_ensemble=True, ensemble_options={"shares_steps": False})
    late = trainer(data, tmp_path, plan, max_steps=1)  # fewer than there are modalities
    late.train()
    assert [entry["step"] for entry in late.state.log_history if "loss" in entry] == [1, 2]


def test_a_mean_of_something_else_is_refused(data, tmp_path):
    plan = ArmPlan("l", "reference", late_ensemble=True, ensemble_options={"mean": "votes"})
    with pytest.raises(ValueError, match="mean='votes' is unknown: choose one of logits, probabilities"):
        trainer(data, tmp_path, plan)
