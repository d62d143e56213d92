"""Doors of `Trainer` beside the ordinary one: each works with our losses, batches and metrics as in Trainer, or is refused."""

import functools
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import PrinterCallback, Trainer

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    ContrastiveAlignment,
    FeatureBackboneConfig,
    LearnedAlpha,
    ModalityGap,
    MultimodalCollator,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.alpha.outer_loss import outer_loss
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.training.task_loss import probes_are_whole
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_cannot_work_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def trained(run):
    run.remove_callback(PrinterCallback)
    run.train()
    return run


def weights_equal(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


# ---- real parts ----
def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def features(count=24) -> Dataset:
    """Of 3 classes, `features` (6,)."""
    return Dataset.from_dict(
        {"features": draws(count, 6).tolist(), "labels": [i % 3 for i in range(count)], "sample_id": range(count)}
    )


@functools.cache
def senses(count=24, without=()) -> Dataset:
    """The same as two modalities of 6 and 4 features, of which some samples lack the second."""
    touch = [None if i in without else row for i, row in enumerate(draws(count, 4, seed=1).tolist())]
    return Dataset.from_dict({"sight_features": draws(count, 6).tolist(), "touch_features": touch,
                              "labels": [i % 3 for i in range(count)]})  # fmt: skip


def student(**kwargs):
    torch.manual_seed(0)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=6), latent_dim=4, **{"num_labels": 3, **kwargs}
    )


def multimodal(**kwargs):
    torch.manual_seed(0)
    widths = {"sight": FeatureBackboneConfig(feature_dim=6), "touch": FeatureBackboneConfig(feature_dim=4)}
    return CoLearningForMultimodalClassification.from_backbones(widths, latent_dim=4, num_labels=3, **kwargs)


BANK = TeacherBank.from_latents(draws(24, 4, seed=2))
COLLATOR = MultimodalCollator({"sight": None, "touch": None})
OURS = ("model", "train_dataset", "eval_dataset", "bank", "objective", "alpha", "callbacks", "compute_metrics",
        "compute_loss_func", "preprocess_logits_for_metrics")  # fmt: skip


def trainer(kind="student", folder="out", **kwargs):
    """Of two steps; a student with a teacher, or a multimodal model with a contrastive term; 12 samples are evaluated."""
    of_kind = {
        "student": {"model": student, "train_dataset": features(), "bank": BANK},
        "multimodal": {"model": multimodal, "train_dataset": senses(), "objective": ContrastiveAlignment(),
                       "data_collator": COLLATOR, "callbacks": [ModalityGap()]},
    }  # fmt: skip
    data = of_kind[kind]["train_dataset"].select(range(12))
    parts = {"eval_dataset": data, "compute_metrics": classification_metrics(), **of_kind[kind]}
    parts |= {name: kwargs.pop(name) for name in OURS if name in kwargs}
    make_model, args = parts.pop("model"), tiny.arguments(folder, **{"max_steps": 2, **kwargs})
    run = CoLearningTrainer(make_model(), args, **parts)
    run.remove_callback(PrinterCallback)
    return run


def told(run, *prefixes):
    """What is logged under names of these beginnings, but for times, entry by entry."""
    times = ("runtime", "second", "time")
    logs = [entry for entry in run.state.log_history if "train_loss" not in entry]
    return [
        found
        for entry in logs
        if (found := {name: x for name, x in entry.items() if name.startswith(prefixes) and not name.endswith(times)})
    ]


# ---- arguments that arms share ----
@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 0.5, "latent_loss": "cosine", "latent_scaling": "l2"},
        {"alpha_schedule": "heuristic"},
        {"alpha_schedule": "learned", "alpha": 1.0, "alpha_outer_split": 0.5},
    ],
    ids=str,
)
def test_a_baseline_shares_the_arguments_of_its_arms_and_is_plain_trainer(fields, caplog):
    plain = trained(Trainer(student(), tiny.arguments(max_steps=3), train_dataset=features()))
    with caplog.at_level(logging.INFO, logger="hf_colearn.training.argument_checks"):
        ours = trained(CoLearningTrainer(student(), tiny.arguments(max_steps=3, **fields), train_dataset=features()))
    assert weights_equal(plain.model, ours.model)
    (said,) = [record.getMessage() for record in caplog.records if "no objective" in record.getMessage()]
    assert all(f"{name}={value!r}" in said for name, value in fields.items())


# ---- arguments of Trainer ----
CHANGES_NOTHING = [
    {"auto_find_batch_size": True, "torch_empty_cache_steps": 1, "use_cache": True},
    {"average_tokens_across_devices": False, "restore_callback_states_from_checkpoint": True},
    {"dataloader_in_order": False, "dataloader_pin_memory": False, "logging_nan_inf_filter": False},
]
CHANGES_NO_BATCH_AND_NO_METRIC = [
    {"accelerator_config": {"dispatch_batches": True}},
    {"eval_accumulation_steps": 1, "eval_do_concat_batches": False},
    {"eval_do_concat_batches": False, "eval_on_start": True, "eval_strategy": "epoch", "eval_delay": 9},
    {"eval_use_gather_object": True},
    {"include_for_metrics": ["inputs", "loss"], "include_num_input_tokens_seen": "all"},
    {"label_names": ["labels"], "remove_unused_columns": False},
]
TRIED = [("student", fields) for fields in CHANGES_NOTHING]
TRIED += [(kind, fields) for kind in ("student", "multimodal") for fields in CHANGES_NO_BATCH_AND_NO_METRIC]


@functools.cache
def as_ever(kind):
    run = trained(trainer(kind))
    run.evaluate()
    return told(run, "loss", "alpha"), told(run, "eval_")[-1]


@pytest.mark.parametrize(
    ("kind", "fields"), TRIED, ids=lambda part: "-".join(part) if isinstance(part, dict) else part
)
def test_an_argument_of_trainer_changes_no_loss_and_no_metric(kind, fields):
    run = trained(trainer(kind, **fields))
    run.evaluate()
    losses, metrics = as_ever(kind)
    assert told(run, "loss", "alpha") == losses
    assert told(run, "eval_")[-1] == metrics
    if "include_num_input_tokens_seen" in fields:  # of the main input: 2 steps of 8 samples of 6 features
        assert run.state.num_input_tokens_seen == 2 * 8 * 6


def test_an_evaluation_without_its_last_batch_is_of_the_others():
    run = trainer(dataloader_drop_last=True)
    dropped, whole = run.evaluate(), trainer().evaluate(features().select(range(8)))
    assert {name: dropped[name] for name in ("eval_loss", "eval_accuracy")} == {
        name: whole[name] for name in ("eval_loss", "eval_accuracy")
    }


def test_a_run_is_scored_on_all_samples_nevertheless(tmp_path):
    run = trainer(dataloader_drop_last=True, eval_do_concat_batches=False, prediction_loss_only=True)
    kept = scored_run(trained(run), features().select(range(12)), "mine", "colearned")
    assert len(kept.test.labels) == 12


@pytest.mark.parametrize("kind", ["student", "multimodal"])
def test_an_evaluation_of_the_loss_alone_has_no_metrics(kind):
    assert trainer(kind, prediction_loss_only=True).evaluate()["eval_loss"] == trainer(kind).evaluate()["eval_loss"]
    assert "eval_accuracy" not in trainer(kind, prediction_loss_only=True).evaluate()


def test_metrics_are_of_logits_that_are_changed_before():
    flipped = trainer(preprocess_logits_for_metrics=lambda logits, labels: -logits)
    logits = flipped.predict(features()).predictions
    with torch.no_grad():
        expected = flipped.model.eval()(features=torch.tensor(features()["features"][:])).logits
    np.testing.assert_allclose(logits, -expected, rtol=1e-6)
    hits = (-expected).argmax(1) == torch.tensor(features()["labels"][:])
    assert flipped.evaluate(features())["eval_accuracy"] == pytest.approx(hits.float().mean().item())


def test_labels_are_smoothed_as_torch_does_it():
    still = trained(
        trainer(label_smoothing_factor=0.1, learning_rate=0.0, per_device_train_batch_size=24, max_steps=1)
    )
    with torch.no_grad():
        logits = still.model.train()(features=torch.tensor(features()["features"][:])).logits
    expected = F.cross_entropy(logits, torch.tensor(features()["labels"][:]), label_smoothing=0.1)
    assert still.state.log_history[0]["loss_task"] == pytest.approx(expected.item(), rel=1e-5)


@case(ValueError, "neftune_noise_alpha=5.0", "encoders of sight, touch", "leave it out")
def noise_on_the_embeddings_of_several_encoders(folder):
    yield
    trainer("multimodal", folder / "out", neftune_noise_alpha=5.0)


@case(ValueError, "debug='underflow_overflow'", "masks", "`model.student('...')`")
def a_debugger_that_measures_masks(folder):
    yield
    trainer("multimodal", folder / "out", debug="underflow_overflow")


@case(ValueError, "batch_eval_metrics=True", "whole evaluation sets", "`eval_accumulation_steps=1`")
def metrics_of_one_batch_after_the_other(folder):
    yield
    trainer(folder=folder / "out", batch_eval_metrics=True)


@case(ValueError, "label_smoothing_factor=0.1", "the labels are numbers", "leave it out")
def smoothed_numbers(folder):
    yield
    trainer(folder=folder / "out", model=functools.partial(student, num_labels=1), label_smoothing_factor=0.1)


@case(ValueError, "label_smoothing_factor=0.1", "the labels are several", "leave it out")
def smoothed_labels_that_turn_out_to_be_several(folder):
    several = features().remove_columns("labels").add_column("labels", [[1, 0, i % 2] for i in range(24)])
    run = trainer(
        folder=folder / "out",
        train_dataset=several,
        eval_dataset=None,
        compute_metrics=None,
        label_smoothing_factor=0.1,
    )
    yield
    run.train()


@case(ValueError, "labelled_per_batch=3 is of 8 samples", "auto_find_batch_size=True", "leave one of the two out")
def two_streams_of_batches_that_may_shrink(folder):
    yield
    tiny.arguments(folder / "out", labelled_per_batch=3, auto_find_batch_size=True)


# ---- a loss function of the user's ----
WEIGHTS = torch.tensor([1.0, 2.0, 5.0])


def cross_entropy(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs.logits, labels)


def sum_over_number(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def weighted(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs.logits, labels, weight=WEIGHTS)


@pytest.mark.parametrize("function", [cross_entropy, sum_over_number])
@pytest.mark.parametrize(
    "model", [{}, {"modality_loss_weight": 0.5}, {"fusion": "sum", "modality_loss_weight": 1.0}], ids=str
)
def test_a_function_that_is_the_models_loss_teaches_all_its_heads_the_same(model, function):
    # Half of the samples lack a modality, unevenly over the micro-batches.
    data = senses(without=(0, 1, 2, 3, 9, 12, 17, 18, 19, 20, 22, 23))
    parts = {"model": functools.partial(multimodal, **model), "train_dataset": data, "eval_dataset": data}
    parts |= {"objective": None, "callbacks": []}
    shape = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    own, by_function = (
        trained(trainer("multimodal", **parts, **shape, **more)) for more in ({}, {"compute_loss_func": function})
    )
    assert weights_equal(own.model, by_function.model)
    assert by_function.evaluate()["eval_loss"] == pytest.approx(own.evaluate()["eval_loss"], rel=1e-6)
    begun = multimodal(**model).encoders["touch"].classifier.weight
    assert not torch.equal(by_function.model.encoders["touch"].classifier.weight, begun)  # not even a probe


@case(ValueError, "the head of 'sight'", "modality_logits", "logits and latents", "it is called for every head")
def a_function_that_adds_the_heads_itself(folder):
    run = trainer(
        "multimodal", folder / "out", compute_loss_func=lambda outputs, labels, num_items_in_batch=None: F.cross_entropy(
            sum(outputs.modality_logits.values()), labels
        ),
    )  # fmt: skip
    yield
    run.train()


@case(ValueError, "FSDP shards their weights", "`modality_loss_weight` above 0")
def a_function_for_probes_whose_weights_are_sharded(folder):
    run = trainer("multimodal", folder / "out", compute_loss_func=cross_entropy)
    run.is_fsdp_enabled = True  # and then asks as when it is built
    yield
    probes_are_whole(run)


def by_hand(model, data, loss):
    """The loss of the fused prediction plus half the mean of the heads', of a batch of all samples without dropout."""
    batch = COLLATOR([data[i] for i in range(len(data))])
    labels = batch.pop("labels")
    with torch.no_grad():
        outputs = model.train()(**batch)
    here = torch.tensor([touch is not None for touch in data["touch_features"][:]])
    heads = loss(outputs.modality_logits["sight"], labels) + loss(outputs.modality_logits["touch"][here], labels[here])
    return (loss(outputs.logits, labels) + 0.5 * heads / 2).item()


@pytest.mark.parametrize("with_objective", [False, True])
@pytest.mark.parametrize(
    ("given", "loss"),
    [
        ({"compute_loss_func": weighted}, functools.partial(F.cross_entropy, weight=WEIGHTS)),
        ({"label_smoothing_factor": 0.2}, functools.partial(F.cross_entropy, label_smoothing=0.2)),
    ],
    ids=["weights of classes", "smoothed labels"],
)
def test_the_loss_of_heads_by_a_function_is_that_worked_out_by_hand(given, loss, with_objective):
    data = senses(without=(0, 1, 2, 3, 9))
    run = trainer(
        "multimodal", model=functools.partial(multimodal, modality_loss_weight=0.5), train_dataset=data, max_steps=1,
        eval_dataset=data, per_device_train_batch_size=24, per_device_eval_batch_size=24, learning_rate=0.0,
        **({} if with_objective else {"objective": None}), **given,
    )  # fmt: skip
    expected = by_hand(run.model, data, loss)
    name = "loss_task" if with_objective else "loss"
    assert trained(run).state.log_history[0][name] == pytest.approx(expected, rel=1e-5)
    assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_outer_loss_of_modalities_is_by_the_function_too():
    run = trainer(
        "multimodal", alpha=LearnedAlpha("contrastive", outer_split=6, outer="modalities"), compute_loss_func=weighted
    )
    data = senses()
    batch = COLLATOR([data[i] for i in range(24)])
    with torch.no_grad():
        found = outer_loss(run, "modalities", run.model.eval(), dict(batch))
        logits = run.model(**{name: value for name, value in batch.items() if name != "labels"}).modality_logits
    expected = sum(F.cross_entropy(x, batch["labels"], weight=WEIGHTS) for x in logits.values())
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
