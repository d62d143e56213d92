"""What must hold of every head and objective: means over the step, exact resume, adapters, bf16, and steps of which nothing
counts. Two processes are in `tests/distributed/test_mechanisms_distributed.py`.
"""

import math

import pytest
import torch

from hf_colearn import LearnedAlpha
from hf_colearn.models.lora import with_lora
from mechanism_cases import CASES, SAMPLES, Fit, difference


SECOND_STEP = range(8, SAMPLES)
every_case = pytest.mark.parametrize("name", list(CASES))
# What a term says of a sample that it compares with the others depends on the micro-batch, and needs neither label nor target.
without_comparison = pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.compares])


def learned(fit, case):
    """Whether weights and losses are finite, and every part that the case is about has moved."""
    assert all(weight.isfinite().all() for weight in fit.weights.values())
    assert all(math.isfinite(value) for losses in fit.losses for value in losses.values())
    moved = " ".join(name for name, weight in fit.weights.items() if not torch.equal(weight, fit.before[name]))
    moved = moved.replace("modules_to_save.default.", "")  # PEFT's copies of heads
    return all(head in moved for head in case.heads)


@without_comparison
def test_a_step_is_the_same_in_one_batch_and_in_eight_of_one(name, tmp_path):
    whole = Fit(CASES[name], tmp_path).train()
    pieces = Fit(CASES[name], tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8).train()
    assert learned(whole, CASES[name])
    assert difference(whole.weights, pieces.weights) < 1e-6
    for one, other in zip(whole.losses, pieces.losses, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)


@every_case
def test_a_run_that_is_resumed_in_the_middle_of_an_epoch_is_the_same_to_the_last_bit(name, tmp_path):
    case, fields = CASES[name], {"optim": "adamw_torch", "learning_rate": 1e-2, "train_sampling_strategy": "random"}
    fields |= {"per_device_train_batch_size": 4, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    first, again = (Fit(case, tmp_path, model=case.model(**case.draws), **fields) for _ in range(2))
    first.train()
    again.train(resume=f"{tmp_path}/checkpoint-2")  # of four steps an epoch
    assert all(torch.equal(weight, first.weights[of]) for of, weight in again.weights.items())
    assert again.losses == first.losses


@every_case
def test_adapters_learn_in_the_backbone_and_the_heads_beside_them(name, tmp_path):
    fit = Fit(CASES[name], tmp_path, model=with_lora(CASES[name].model(), rank=2)).train()
    moved = {of for of, weight in fit.weights.items() if not torch.equal(weight, fit.before[of])}
    assert learned(fit, CASES[name])
    assert any("lora_B" in of for of in moved) and not any("base_layer" in of for of in moved)


@every_case
def test_bf16_is_finite_and_near_to_float32(name, tmp_path):
    fit, full = Fit(CASES[name], tmp_path, bf16=True).train(), Fit(CASES[name], tmp_path).train()
    assert learned(fit, CASES[name])
    assert 0 < difference(fit.weights, full.weights) < 0.1


@without_comparison
def test_in_a_step_in_which_nothing_counts_the_losses_are_0_and_no_weight_moves(name, tmp_path):
    lacking = {"unlabelled": SECOND_STEP, "unpaired": SECOND_STEP}
    one, two = (Fit(CASES[name], tmp_path, max_steps=steps, **lacking).train() for steps in (1, 2))
    assert all(value == 0 for value in two.losses[1].values())
    assert learned(one, CASES[name]) and difference(one.weights, two.weights) == 0


@every_case
def test_a_learned_alpha_moves_by_finite_hypergradients(name, tmp_path):
    case, terms, split = CASES[name], CASES[name].objective().terms, 4
    if name == "vokens":  # whose labels are lists of several lengths, of which no split is cut
        split = case.data((), ())["train_dataset"].select(range(8, 12)).remove_columns("sample_id")
    alpha = LearnedAlpha(terms, interval=1, outer_split=split, solver="identity", batch_size=4)
    begun = alpha.weights()
    fit = Fit(case, tmp_path, alpha=alpha).train()
    assert learned(fit, case)
    assert all(math.isfinite(weight) and weight != begun[term] for term, weight in fit.trainer.alpha.weights().items())
