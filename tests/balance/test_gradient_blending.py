"""G-Blend: weights of losses by what copies of the model gain and overfit."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from hf_colearn import ConstantAlpha, ContrastiveAlignment, MultimodalCollator, with_sample_ids
from hf_colearn.balance.gradient_blending import GradientBlending, blending_weights
from hf_colearn.balance.overfitting import learned, losses_by_copy
from hf_colearn.data.multimodal import without_modality
from hf_colearn.data.splits import hide_labels
from hf_colearn.models.lora import with_lora
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


def test_weights_are_gains_over_squared_overfitting():
    # .4 / .5^2 = 1.6, .1 / .1^2 = 10, .6 / .9^2 = .74074; over their sum, 12.34074.
    found = blending_weights({"a": 0.4, "b": 0.1, "fused": 0.6}, {"a": 0.5, "b": 0.1, "fused": 0.9})
    assert list(found.values()) == pytest.approx([0.12965, 0.81032, 0.06002], abs=1e-5)


def test_what_does_not_gain_has_no_weight_and_overfitting_near_zero_is_bounded():
    assert blending_weights({"a": 0.4, "b": -0.1}, {"a": 0.5, "b": 0.1}) == {"a": 1.0, "b": 0.0}
    assert blending_weights({"a": -0.4, "b": 0.0}, {"a": 0.5, "b": 0.1}) == {"a": 0.5, "b": 0.5}
    # An overfitting of 0, or of .002 below, counts as .01: .1 / .01^2 = 1000 each; beside .3 / .01^2 = 3000.
    found = blending_weights({"a": 0.1, "b": 0.1, "c": 0.3}, {"a": 0.0, "b": -0.002, "c": 0.01})
    assert list(found.values()) == pytest.approx([0.2, 0.2, 0.6])


def preset(weights, **kwargs):
    """A method that has measured already."""
    method = GradientBlending(**kwargs)
    method.load_state_dict({"weights": weights, "measurements": 1})
    return method


WEIGHTS = {"image": 0.2, "audio": 0.3, "fused": 0.5}


@pytest.mark.parametrize("size", [8, 1])
def test_the_loss_is_the_weighted_sum_of_means_however_a_step_is_cut(size):
    split, dataset, net = data(6), data(8), model()
    outputs = net(**dataset[:])
    losses = [cross_entropy(outputs.modality_logits[name], dataset["labels"][:]) for name in ("image", "audio")]
    expected = 0.2 * losses[0] + 0.3 * losses[1] + 0.5 * cross_entropy(outputs.logits, dataset["labels"][:])
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
    run = trainer(preset(WEIGHTS, split=split), net, dataset, max_steps=1, **cut)
    run.train()
    assert run.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert run.state.log_history[0]["balance_coefficient_audio"] == pytest.approx(0.3)


def measured(dataset, held_out, epochs=3, net=None, **fields):
    run = trainer(GradientBlending(split=held_out), net, dataset, max_steps=1, **{"learning_rate": 0.05, **fields})
    run.create_optimizer()
    return learned(run, held_out, epochs, (0,))


@pytest.mark.parametrize(
    ("cut", "optimizer"),
    [((8, 1), {"max_grad_norm": 0.1}), ((2, 4), {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0})],
)
def test_a_copy_learns_as_a_run_on_that_loss_alone_does(cut, optimizer):
    # All eight samples are one step, so that their order is none. The heads of `sum` have no loss of their own.
    train, held_out = data(8), data(6, width=4)
    fields = {"per_device_train_batch_size": cut[0], "gradient_accumulation_steps": cut[1], "weight_decay": 0.1}
    fields = {"learning_rate": 0.05, **fields, **optimizer}
    found = measured(train, held_out, net=model(fusion="sum"), **fields)["fused"]
    run = trainer(None, model(fusion="sum"), train, max_steps=3, **fields)
    first = [run.evaluate(split)["eval_loss"] for split in (train, held_out)]
    run.train()
    last = [run.evaluate(split)["eval_loss"] for split in (train, held_out)]
    assert found.gain == pytest.approx(first[1] - last[1], abs=1e-5)
    assert found.overfitting == pytest.approx((last[1] - last[0]) - (first[1] - first[0]), abs=1e-5)


def test_a_modality_learns_alone_in_the_copy_that_modalities_share():
    # Were gradients clipped together, a hundredfold audio would leave the image no step of its own.
    loud = data(16).map(lambda sample: {"audio_features": 100 * sample["audio_features"]})
    plain, other = measured(data(16), data(6), max_grad_norm=0.1), measured(loud, data(6), max_grad_norm=0.1)
    assert plain["image"] == other["image"] and plain["audio"] != other["audio"]


def test_losses_with_common_parameters_have_copies_of_their_own():
    assert losses_by_copy(model(("a", "b", "c")), "heads") == [("a", "b", "c"), ("fused",)]
    apart = [("image",), ("audio",), ("fused",)]
    assert losses_by_copy(model(), "fused") == losses_by_copy(model(fusion="mmtm"), "heads") == apart
    assert losses_by_copy(model(shared_classifier=True), "heads") == apart


def test_measuring_leaves_the_run_as_it_is():
    runs = []
    for method in (GradientBlending(split=8), preset({}, split=8)):
        run = trainer(method, model(modality_dropout=0.5, fusion="sum"), data(24), max_steps=4, learning_rate=0.05)
        if runs:
            method.load_state_dict({"weights": runs[0].balance.weights, "measurements": 1})
            method.initial_state = method.state_dict()
        run.train()
        runs.append(run)
    assert (
        runs[0].state.log_history[0]["balance_gain_fused"] and "balance_gain_fused" not in runs[1].state.log_history[0]
    )
    for name, weight in runs[0].model.state_dict().items():
        assert torch.equal(weight, runs[1].model.state_dict()[name]), name


def test_it_measures_once_offline_and_every_super_epoch_online():
    logs = {}
    for name, method in (("offline", GradientBlending(epochs=1, split=8)), ("online", GradientBlending(2, split=8))):
        run = trainer(method, dataset=data(24), max_steps=10, learning_rate=0.05)  # two steps an epoch
        run.train()
        logs[name] = [log["step"] for log in run.state.log_history if "balance_gain_fused" in log]
        assert len(run.train_dataset) == 16
    assert logs == {"offline": [1], "online": [1, 5, 9]}
    run.train()  # anew, without another cut
    assert len(run.train_dataset) == 16 and run.state.log_history[0]["balance_gain_fused"]


def test_a_resumed_run_is_the_same():
    fields = {"dataset": data(24), "max_steps": 6, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.05}
    whole = trainer(GradientBlending(2, split=8), **fields)
    whole.train()
    for step in (3, 4):  # between two measurements, and where the next one comes
        resumed = trainer(GradientBlending(2, split=8), **fields)
        resumed.train(resume_from_checkpoint=f"out/checkpoint-{step}")
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(weight, resumed.model.state_dict()[name]), name
        assert resumed.balance.weights == whole.balance.weights


def test_it_goes_with_adapters_half_precision_accumulation_a_contrastive_term_and_missing_modalities():
    run = trainer(
        GradientBlending(epochs=1, split=8),
        with_lora(model(("image", "audio", "text")), 2),
        hide_labels(without_modality(data(40, ("image", "audio", "text")), "audio", 0.6, seed=1), 8, 0),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        bf16=True,
        max_steps=2,
        data_collator=MultimodalCollator(dict.fromkeys(("image", "audio", "text"))),
        objective=ContrastiveAlignment(0.5),
        alpha=ConstantAlpha(0.25, "contrastive"),
    )
    run.train()
    assert sum(run.balance.weights.values()) == pytest.approx(1) and len(run.balance.weights) == 4


refusals = Refusals()


@refusals.case(ValueError, "super_epoch=0", "at least 1")
def no_super_epoch(folder):
    yield
    GradientBlending(super_epoch=0)


@refusals.case(ValueError, "epochs=3", "super_epoch=2", "leave one out")
def two_lengths(folder):
    yield
    GradientBlending(super_epoch=2, epochs=3)


@refusals.case(ValueError, "split=0", "pass a share such as 0.1")
def no_split(folder):
    yield
    GradientBlending(split=0)


@refusals.case(ValueError, "split=0.5 cannot be cut from 4 training samples")
def too_few_samples(folder):
    dataset = Dataset.from_dict({**data(4).with_format(None)[:], "labels": [0, 1, 2, 2]})
    yield
    trainer(GradientBlending(split=0.5), dataset=dataset)


@refusals.case(TypeError, "a IterableDataset", "pass a datasets.Dataset")
def a_stream(folder):
    yield
    trainer(GradientBlending(), dataset=data(8).to_iterable_dataset())


@refusals.case(ValueError, "4 sample ids are in the training set and in the split", "an id of its own")
def samples_of_the_training_set(folder):
    dataset = with_sample_ids(data(8))
    yield
    trainer(GradientBlending(split=dataset.select(range(4))), dataset=dataset)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
