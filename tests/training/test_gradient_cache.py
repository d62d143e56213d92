"""A batch in chunks is the batch at once: weights, losses and random draws; and what is refused."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import PrinterCallback, ViTForImageClassification

import tiny
import tiny_modalities
from hf_colearn import CoLearningTrainer, ConstantAlpha, ContrastiveAlignment, LatentMatching, LearnedAlpha, balance
from mechanism_cases import CASES, SAMPLES, Case, Fit, bank, copied, difference, modalities, student
from refusals import Refusals, assert_refused


class Foreign(torch.nn.Module):
    """Computes a mean over its labels, whatever the optimizer step has; and perhaps an output that is of no sample."""

    def __init__(self, has_gram=False):
        super().__init__()
        torch.manual_seed(0)
        self.latent, self.layer, self.has_gram = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3), has_gram

    def forward(self, features, labels=None):
        latents = self.latent(features)
        outputs = {"logits": self.layer(latents), "latents": latents}
        if self.has_gram:
            outputs["gram"] = outputs["logits"].T @ outputs["logits"]
        return outputs if labels is None else {"loss": F.cross_entropy(outputs["logits"], labels), **outputs}


CHUNK = 3  # of 8 samples: 3, 3 and 2
CONTRASTIVE = Case(
    lambda: tiny_modalities.model(learned_temperature=True), lambda: ContrastiveAlignment("learned"), data=modalities
)
MATCHING = Case(student, LatentMatching, teachers=lambda: {"teacher": bank()})
MECHANISMS = {
    "contrastive": CONTRASTIVE,
    "latent": MATCHING,
    # Of the second step the last chunk has no label.
    "another library": Case(Foreign, LatentMatching, teachers=lambda: {"teacher": bank()}),
    **{name: CASES[name] for name in ("mining by each other", "captions, concepts and dense matching", "imputation")},
}


def own_loss(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs["logits"], labels)


def assert_chunks_change_nothing(case, folder, tolerance=1e-6, chunk=CHUNK, **fields):
    whole = Fit(case, folder, **fields).train()
    chunked = Fit(case, folder, **fields, gradient_cache_chunk_size=chunk).train()
    assert difference(whole.before, whole.weights) > 1e-2
    assert difference(whole.weights, chunked.weights) < tolerance
    for one, other in zip(whole.losses, chunked.losses, strict=True):
        assert other == pytest.approx(one, rel=10 * tolerance, abs=tolerance)
    return chunked


@pytest.mark.parametrize("name", MECHANISMS)
def test_weights_and_losses_are_those_of_the_batch_at_once(name, tmp_path):
    assert_chunks_change_nothing(MECHANISMS[name], tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, id="accumulation"),
        pytest.param({"ema_decay": 0.5}, id="average"),
        pytest.param({"label_smoothing_factor": 0.1}, id="label smoothing"),
        pytest.param({"unlabelled": range(SAMPLES), "alpha": ConstantAlpha({"contrastive": 1.0})}, id="no labels"),
    ],
)
def test_options_of_a_run_find_the_same_gradients(fields, tmp_path):
    assert_chunks_change_nothing(CONTRASTIVE, tmp_path, **fields)


def test_bf16_is_as_near_as_its_rounding(tmp_path):
    assert_chunks_change_nothing(CONTRASTIVE, tmp_path, tolerance=2e-3, bf16=True)


def test_a_learned_alpha_moves_alike_by_batches_that_are_not_cut(tmp_path):
    alphas = []
    for chunk in (None, CHUNK):
        alpha = LearnedAlpha("latent", interval=1, outer_split=4, solver="identity", batch_size=4)
        fit = Fit(MATCHING, tmp_path, alpha=alpha, gradient_cache_chunk_size=chunk).train()
        alphas.append([alpha.weights()["latent"], *fit.weights["latent_head.weight"].flatten().tolist()])
    assert alphas[0][0] != 0.5
    assert alphas[1] == pytest.approx(alphas[0], abs=1e-5)


# ---- a model of another library, and the task alone ----
def of_labels(folder, model, labels, **options):
    """The weights of a run without teacher and objective."""
    before = copied(model)
    data = tiny.digits(8).with_format("numpy")[:]
    dataset = Dataset.from_dict({"pixel_values": data["pixel_values"], "labels": labels}).with_format("torch")
    ours = {key: options.pop(key) for key in ("compute_loss_func",) if key in options}
    args = tiny.arguments(folder, optim="sgd", learning_rate=0.1, max_grad_norm=0.0, max_steps=1, **options)
    run = CoLearningTrainer(model, args, train_dataset=dataset, **ours)
    run.remove_callback(PrinterCallback)
    run.train()
    found = copied(run.model)
    assert difference(before, found) > 1e-3
    return found


CLASSES = [0, 1, -100, -100, -100, 5, 6, 7]  # the second chunk has the last label alone, or none
NUMBERS = [0.5 * row for row in range(8)]


@pytest.mark.parametrize(
    ("num_labels", "labels", "options"),
    [
        pytest.param(10, CLASSES, {}, id="classes"),
        pytest.param(10, CLASSES, {"label_smoothing_factor": 0.1}, id="label smoothing"),
        pytest.param(10, CLASSES, {"compute_loss_func": own_loss}, id="own loss"),
        pytest.param(1, NUMBERS, {}, id="numbers"),
    ],
)
def test_a_model_of_transformers_learns_its_task_alike(num_labels, labels, options, tmp_path):
    found = []
    for chunk in (None, CHUNK):
        torch.manual_seed(0)
        model = ViTForImageClassification(tiny.vit(num_labels=num_labels))
        found.append(of_labels(tmp_path, model, labels, **options, gradient_cache_chunk_size=chunk))
    assert difference(*found) < 1e-6


def test_a_baseline_of_ours_learns_its_task_alike(tmp_path):
    chunks = (None, 2)  # the second of which has no label
    assert (
        difference(*(of_labels(tmp_path, tiny.student(), CLASSES, gradient_cache_chunk_size=k) for k in chunks)) < 1e-6
    )


# ---- how the model is called ----
class Noise(torch.nn.Module):
    """Draws from every generator that models draw from, and keeps what it gave and what it was given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        drawn = torch.rand_like(x) + np.random.rand() + random.random()
        self.calls.append((drawn, x.detach(), torch.is_grad_enabled()))
        return x * drawn


def calls(folder, chunk):
    model = student()
    model.latent_norm = Noise()
    data = {"train_dataset": CASES["class vectors"].data((), ())["train_dataset"]}
    args = tiny.arguments(folder, max_steps=2, gradient_cache_chunk_size=chunk)
    CoLearningTrainer(model, args, **data).train()
    return model.latent_norm.calls


def test_a_chunk_draws_the_same_in_both_of_its_forwards_and_no_two_the_same(tmp_path):
    found = calls(tmp_path, CHUNK)
    assert [(len(x), has_graph) for _, x, has_graph in found] == 2 * [
        *((3, False), (3, False), (2, False)),
        *((3, True), (3, True), (2, True)),
    ]
    for step in (found[:6], found[6:]):
        for (drawn, x, _), (again, x_again, _) in zip(step[:3], step[3:], strict=True):
            assert drawn.equal(again) and x.equal(x_again)
    draws = [drawn[0, 0].item() for drawn, _, has_graph in found if has_graph]
    assert len(set(draws)) == 6  # the second step goes on with other numbers


def test_a_batch_no_larger_than_a_chunk_is_run_once(tmp_path):
    assert [(len(x), has_graph) for _, x, has_graph in calls(tmp_path, 8)] == [(8, True)] * 2


# ---- what is refused ----
refusals = Refusals()
case = refusals.case


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def arguments(folder, **kwargs):
    return tiny.arguments(folder / "out", gradient_cache_chunk_size=4, **kwargs)


@case(ValueError, "gradient_cache_chunk_size=4 with batch normalisation ('backbone.embedder.", "ViT or a ConvNeXt")
def batch_normalisation(folder):
    model = tiny.student(tiny.resnet())
    yield
    CoLearningTrainer(model, arguments(folder), train_dataset=tiny.digits(8))


@case(ValueError, "gradient_cache_chunk_size=4", "OGM balances the gradients of a whole batch", "leave one of the two")
def a_balance_method(folder):
    yield
    CoLearningTrainer(
        tiny_modalities.model(), arguments(folder), train_dataset=tiny_modalities.data(), balance=balance.OGM()
    )


@case(ValueError, "gradient_cache_chunk_size=4", "MMPareto balances")
def a_balance_method_that_is_added_later(folder):
    run = CoLearningTrainer(tiny_modalities.model(), arguments(folder), train_dataset=tiny_modalities.data())
    run.add_callback(balance.MMPareto())
    yield
    run.train()


@case(ValueError, "'gram' has shapes [(3, 3), (3, 3)] for chunks of [4, 4] samples", "leave gradient_cache_chunk_size")
def an_output_of_no_sample(folder):
    data = CASES["class vectors"].data((), ())["train_dataset"].remove_columns("sample_id")
    run = CoLearningTrainer(Foreign(has_gram=True), arguments(folder), train_dataset=data)
    yield
    run.train()


@case(ValueError, "the input 'features' of 9 samples", "cut into chunks")
def an_input_of_no_sample(folder):
    def collator(features):
        return {"labels": torch.zeros(9, dtype=torch.long), "features": torch.zeros(8, 4)}

    data = CASES["class vectors"].data((), ())["train_dataset"].remove_columns("sample_id")
    run = CoLearningTrainer(Foreign(has_gram=True), arguments(folder), train_dataset=data, data_collator=collator)
    yield
    run.train()
