"""Several modalities through the trainer: what is logged, evaluated, saved and refused."""

import math

import numpy as np
import pytest
import torch
from transformers import PrinterCallback, TrainerCallback

import tiny
from hf_colearn import (
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    Combined,
    ConstantAlpha,
    ContrastiveAlignment,
    DistributionAlignment,
    FittedAlpha,
    HeuristicAlpha,
    LearnedAlpha,
    ModalityAccuracy,
    ModalityGap,
    MultimodalCollator,
    classification_metrics,
)
from hf_colearn.data.multimodal import only_modality, without_modality
from hf_colearn.models.lora import save_student, with_lora
from hf_colearn.objectives.misaligned_pairs import MisalignedPairs
from scripts.learn_alpha import digits_in_halves


@pytest.fixture(scope="module")
def halves():
    return digits_in_halves()


def model(**kwargs):
    torch.manual_seed(0)
    half = tiny.vit(image_size=(4, 8), patch_size=2)
    kwargs = {"latent_dim": 16, "num_labels": 10, **kwargs}
    return CoLearningForMultimodalClassification.from_backbones({"upper": half, "lower": half}, **kwargs)


def trainer(halves, net=None, folder="out", **kwargs):
    names = ("objective", "alpha", "eval_dataset", "callbacks", "compute_metrics", "data_collator", "augment")
    ours = {key: kwargs.pop(key) for key in names if key in kwargs}
    ours.setdefault("data_collator", MultimodalCollator({"upper": None, "lower": None}))
    built = CoLearningTrainer(
        model() if net is None else net, tiny.arguments(folder, **kwargs), train_dataset=halves, **ours
    )
    built.remove_callback(PrinterCallback)
    return built


def test_the_loss_is_the_mixture_of_its_logged_terms(halves):
    run = trainer(halves, objective=ContrastiveAlignment(0.1), alpha=ConstantAlpha(0.3, "contrastive"))
    run.train()
    for entry in run.state.log_history[:-1]:
        assert entry["loss"] == pytest.approx(0.7 * entry["loss_task"] + 0.3 * entry["loss_contrastive"], rel=1e-5)


def test_the_arguments_alone_weigh_the_objectives_own_term(halves):
    run = trainer(halves, objective=DistributionAlignment(), max_steps=1)
    assert run.alpha.weights() == {"distribution": 0.5}
    run = trainer(halves, objective=ContrastiveAlignment(), alpha=None, alpha_schedule="heuristic", max_steps=1)
    assert isinstance(run.alpha, HeuristicAlpha) and run.alpha.weights() == {"contrastive": 1 - math.exp(-1)}
    run = trainer(halves, objective=ContrastiveAlignment(), alpha_schedule="fitted", max_steps=1)
    # 1 minus the released polynomial for the label loss, at t = 1: the sum of its coefficients is 0.2080985
    assert isinstance(run.alpha, FittedAlpha) and run.alpha.weights()["contrastive"] == pytest.approx(
        0.7919015, abs=1e-7
    )


def test_evaluation_tells_every_modality_and_every_subset(halves):
    test = without_modality(halves.select(range(101)), "lower", 0.4, seed=1)
    run = trainer(halves, eval_dataset=test, compute_metrics=classification_metrics(("accuracy", "macro_f1")),
                  per_device_eval_batch_size=16, objective=ContrastiveAlignment(), max_steps=2)  # fmt: skip
    run.train()
    metrics = run.evaluate()

    # The same by hand, sample by sample.
    run.model.eval()
    right: dict[str, list[bool]] = {}
    for row in range(len(test)):
        sample = test[row]
        upper, label = sample["upper_pixel_values"][None], int(sample["labels"])
        both = {"upper_pixel_values": upper}
        if sample["lower_pixel_values"] is not None:
            both["lower_pixel_values"] = sample["lower_pixel_values"][None]
        with torch.no_grad():
            outputs = run.model(**both)
            alone = run.model(upper_pixel_values=upper)
        right.setdefault("", []).append(outputs.logits.argmax().item() == label)
        right.setdefault("_upper", []).append(outputs.modality_logits["upper"].argmax().item() == label)
        right.setdefault("_given_upper", []).append(alone.logits.argmax().item() == label)
        if len(both) == 2:
            right.setdefault("_lower", []).append(outputs.modality_logits["lower"].argmax().item() == label)
            with torch.no_grad():
                alone = run.model(lower_pixel_values=both["lower_pixel_values"])
            right.setdefault("_given_lower", []).append(alone.logits.argmax().item() == label)
    assert len(right["_lower"]) == 61
    for name, hits in right.items():
        assert metrics[f"eval_accuracy{name}"] == pytest.approx(np.mean(hits)), name
    assert {"eval_macro_f1", "eval_macro_f1_lower", "eval_macro_f1_given_lower"} <= metrics.keys()


def test_curves_reach_whatever_the_run_reports_to(halves):
    class Reporter(TrainerCallback):
        def __init__(self):
            self.logs = []

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.logs.append(dict(logs))

    reporter = Reporter()
    # The reporter comes first, as those of `report_to` do.
    run = trainer(halves, eval_dataset=halves.select(range(40)), eval_strategy="steps", eval_steps=4, logging_steps=4,
                  objective=ContrastiveAlignment(), callbacks=[reporter, ModalityGap(), ModalityAccuracy()],
                  compute_metrics=classification_metrics(("accuracy",)))  # fmt: skip
    run.train()
    trained = [logs for logs in reporter.logs if "loss" in logs]
    evaluated = [logs for logs in reporter.logs if "eval_loss" in logs]
    assert len(trained) == 2 and len(evaluated) == 2
    for logs in trained:
        assert {"alpha", "modality_gap_upper_lower", "accuracy_upper", "accuracy_lower"} <= logs.keys()
    for logs in evaluated:
        assert {"eval_modality_gap_upper_lower", "eval_accuracy_upper", "eval_accuracy_given_lower"} <= logs.keys()
    run.model.eval()
    with torch.no_grad():
        batch = run.data_collator([halves[i] for i in range(40)])
        latents = run.model(**{k: v for k, v in batch.items() if k != "sample_id"}).modality_latents
    means = [torch.nn.functional.normalize(latents[name], dim=1).mean(0) for name in ("upper", "lower")]
    assert evaluated[-1]["eval_modality_gap_upper_lower"] == pytest.approx(
        (means[0] - means[1]).norm().item(), rel=1e-4
    )


def test_samples_without_a_modality_train(halves):
    part = without_modality(without_modality(halves, "lower", 0.5, seed=1), "upper", 0.0)
    run = trainer(part, model(modality_dropout=0.5), objective=ContrastiveAlignment(), gradient_accumulation_steps=2)
    run.train()
    assert all(math.isfinite(entry["loss"]) for entry in run.state.log_history if "loss" in entry)


def test_a_learned_temperature_learns(halves):
    net = model(learned_temperature=True, temperature=0.2)
    run = trainer(halves, net, objective=ContrastiveAlignment("learned"), learning_rate=0.01)
    run.train()
    assert net.log_scale.item() != pytest.approx(-math.log(0.2), abs=1e-3)


def test_a_resumed_run_is_the_uninterrupted_one(halves):
    def fresh():
        return trainer(halves, folder="a", objective=ContrastiveAlignment(), save_strategy="steps", save_steps=3,
                       alpha=LearnedAlpha("contrastive", interval=2))  # fmt: skip

    whole, resumed = fresh(), fresh()
    whole.train()
    resumed.train(resume_from_checkpoint="a/checkpoint-3")
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert whole.alpha.weights() == resumed.alpha.weights()


def test_one_modality_trains_alone(halves):
    student = model().student("lower")
    run = trainer(only_modality(halves, "lower"), student, data_collator=None,
                  compute_metrics=classification_metrics(("accuracy",)),
                  eval_dataset=only_modality(halves.select(range(20)), "lower"))  # fmt: skip
    run.train()
    assert "eval_accuracy" in run.evaluate()


@pytest.mark.parametrize("fusion", ["concat", "mmtm"])
def test_with_lora_the_heads_train_and_the_saved_model_loads_merged(halves, fusion, tmp_path):
    adapted = with_lora(model(fusion=fusion), rank=2)
    run = trainer(halves, adapted, objective=ContrastiveAlignment(), max_steps=3, learning_rate=0.01,
                  alpha=LearnedAlpha("contrastive", interval=1))  # fmt: skip
    run.train()
    trained = {name for name, weight in run.model.named_parameters() if weight.requires_grad}
    for part in ("encoders.upper.latent_head", "encoders.lower.classifier", "lora_A"):
        assert any(part in name for name in trained), part
    assert any("fusion" in name for name in trained)
    save_student(run.model, None, tmp_path)
    batch = run.data_collator([halves[i] for i in range(4)])
    batch = {name: value for name, value in batch.items() if name != "sample_id"}
    loaded = CoLearningForMultimodalClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, run.model.eval()(**batch).logits, rtol=1e-4, atol=1e-5)


def test_bad_input_is_named_before_training(halves):
    with pytest.raises(ValueError, match="lower"):
        trainer(without_modality(halves, "lower", 1.0)).train()
    with pytest.raises(ValueError, match="lower"):
        trainer(halves.remove_columns("lower_pixel_values")).train()
    with pytest.raises(ValueError, match="temperature=0"):
        ContrastiveAlignment(0)
    with pytest.raises(ValueError, match="learned_temperature=True"):
        trainer(halves, objective=ContrastiveAlignment("learned")).train()
    with pytest.raises(ValueError, match="no auxiliary term"):
        trainer(halves, alpha=LearnedAlpha("contrastive"))
    with pytest.raises(ValueError, match="weighs the terms"):
        trainer(halves, objective=ContrastiveAlignment(), alpha=ConstantAlpha(0.5, "latent"))
    with pytest.raises(ValueError, match="modality_latents"):
        trainer(tiny.digits(16), tiny.student(), data_collator=None, objective=ContrastiveAlignment()).train()


def test_the_null_control_has_the_same_term_on_other_pairs(halves):
    run = trainer(halves, objective=MisalignedPairs(ContrastiveAlignment()), alpha=ConstantAlpha(0.5, "contrastive"))
    run.train()
    assert all("loss_contrastive" in entry for entry in run.state.log_history if "loss" in entry)


def test_lora_adapts_every_backbone_each_in_its_own_layers():
    both = {"image": tiny.resnet(), "text": tiny.bert()}
    net = CoLearningForMultimodalClassification.from_backbones(both, latent_dim=8, num_labels=3)
    adapted = [name for name, _ in with_lora(net, rank=2).named_parameters() if "lora_A" in name]
    assert any("encoders.text.backbone" in name for name in adapted)
    assert any("encoders.image.backbone" in name and "convolution" in name for name in adapted)


def test_two_terms_have_an_alpha_each_learned_with_one_solve(halves):
    run = trainer(halves, objective=Combined(ContrastiveAlignment(), DistributionAlignment()), logging_steps=2,
                  alpha=LearnedAlpha(("contrastive", "distribution"), interval=4))  # fmt: skip
    run.train()
    first, *_, last = [entry for entry in run.state.log_history if "loss" in entry]
    assert (first["alpha_contrastive"], first["alpha_distribution"]) == (0.25, 0.25)
    mixed = (1 - 0.5) * first["loss_task"] + 0.25 * (first["loss_contrastive"] + first["loss_distribution"])
    assert first["loss"] == pytest.approx(mixed, rel=1e-5)
    assert {"hypergradient_contrastive", "hypergradient_distribution"} <= last.keys()
    assert last["hypergradient_cost"] == 9.0  # as with one term
    assert run.alpha.weights()["contrastive"] != 0.25 != run.alpha.weights()["distribution"]
    with pytest.raises(ValueError, match="'contrastive' is computed by two"):
        Combined(ContrastiveAlignment(), MisalignedPairs(ContrastiveAlignment(0.5)))
