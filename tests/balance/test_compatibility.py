"""What every balance method works with, tried for real; the committed table says the same.

`WRITE_BALANCE_TABLE=1` before pytest writes it, of this file and of `tests/distributed/test_balance_distributed.py`. A cell is
"yes" where a training runs and a property of it holds, "per micro-batch" where it runs and depends on how the step is cut,
which the docstring says, and "refused" where the trainer is not built, with a sentence that names the method and the value.
"""

import os
import re
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import tiny_modalities as tiny
from balance_cases import (
    ABSENT,
    CASES,
    CLASSES,
    PAGE,
    THREE,
    TITLES,
    VARIABLE,
    Fit,
    compare,
    incomplete,
    samples,
    table,
    write,
)
from hf_colearn import ConstantAlpha, ContrastiveAlignment, LearnedAlpha
from hf_colearn.models.fusion import FUSIONS
from hf_colearn.models.lora import with_lora


FILE = "tests/balance/test_compatibility.py"
PER_BATCH = "per micro-batch"
COLUMNS, FOUND = {}, {}


def column(name, *values):
    """A column of the table, and what the refusal of it must name."""

    def keep(check):
        COLUMNS[name] = (check, values)
        return check

    return keep


class Tried:
    """A method with a plain run of it, which the columns compare theirs with."""

    def __init__(self, name, folder):
        self.name, self.case, self.folder = name, CASES[name], folder
        self.saved = self.case.fields.get("max_steps", 3) // 2 + 1  # in the middle of an epoch
        self.plain = Fit(self.case, folder, save_strategy="steps", save_steps=self.saved).train()
        unbalanced = Fit(replace(self.case, make=lambda: None), folder).train()
        assert difference(self.plain.weights, unbalanced.weights) > 1e-6, "the method does nothing"

    @cached_property
    def lacking(self):
        """A run on samples that lack modalities."""
        return attempt(self, **incomplete())

    def cell(self, check, values):
        try:
            return check(self)
        except _Refusal as refusal:
            text = str(refusal)
            assert self.name in text, f"a refusal does not name the method: {text}"
            assert not values or any(value in text for value in values), f"a refusal names no value: {text}"
            return "refused"


class _Refusal(Exception):
    """A ValueError when the trainer was built."""


def attempt(tried, **fields):
    """A run, or the refusal of its trainer."""
    try:
        fit = Fit(tried.case, tried.folder, **fields)
    except ValueError as error:
        raise _Refusal(str(error)) from error
    return fit.train()


def difference(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def assert_learns(fit):
    assert all(weight.isfinite().all() for weight in fit.weights.values())
    assert all(np.isfinite(entry["loss"]) for entry in fit.logs)
    assert difference(fit.weights, fit.steps[0]) > 1e-4, "no weight has moved"


# ---- the columns ----
@column("gradient accumulation", "gradient_accumulation_steps=8")
def accumulation(tried):
    # Of samples that lack modalities, so that there are micro-batches in which nobody has one.
    cut = attempt(tried, per_device_train_batch_size=1, gradient_accumulation_steps=8, **incomplete())
    assert_learns(cut)
    if difference(cut.weights, tried.lacking.weights) < 1e-5:
        return "yes"
    assert "micro-batch" in CLASSES[tried.name].__doc__, "1 x 8 is not 8 x 1, and the docstring does not say so"
    return PER_BATCH


@column("clipping", "max_grad_norm")
def clipping(tried):
    clipped = attempt(tried, max_grad_norm=1e-3)
    clipped_curves, curves = clipped.curves(0), tried.plain.curves(0)
    if not CLASSES[tried.name].accumulates:  # its later modalities come after a clipped step of the first
        clipped_curves, curves = ({k: v for k, v in x.items() if tiny.NAMES[0] in k} for x in (clipped_curves, curves))
    if tried.name != "GradientBlending":  # whose weights are measured by copies that are clipped, too
        assert clipped_curves == curves
    # SGD moves by the learning rate times 1e-3 a step; a method may take one step a modality.
    moved = [clipped.steps[1][name] - clipped.steps[0][name] for name, _ in clipped.trainer.model.named_parameters()]
    length = float(torch.cat([change.flatten() for change in moved]).norm())
    most = 1e-3 * clipped.trainer.args.learning_rate * len(tiny.NAMES)
    assert 0 < length < 1.001 * most, f"clipped to 1e-3, the weights moved by {length}"
    return "yes"


@column("bf16", "bf16")
def bf16(tried):
    half = attempt(tried, bf16=True)
    assert_learns(half)
    assert 0 < difference(half.weights, tried.plain.weights) < 0.1
    return "yes"


@column("EMA", "ema_decay")
def averaged(tried):
    fit = attempt(tried, ema_decay=0.5)
    average = fit.steps[0]
    for raw in fit.steps[1:]:
        average = {name: 0.5 * average[name] + 0.5 * weight for name, weight in raw.items()}
    counts = {name for name, weight in average.items() if not fit.weights[name].is_floating_point()}
    assert (
        difference(*({k: v for k, v in weights.items() if k not in counts} for weights in (fit.weights, average)))
        < 1e-6
    )
    assert_learns(fit)
    return "yes"


@column("LoRA", "LoRA", "adapter")
def adapters(tried):
    fit = attempt(tried, net=with_lora(tiny.model(**tried.case.model), 2))
    assert_learns(fit)
    moved = {name for name, weight in fit.weights.items() if not torch.equal(weight, fit.steps[0][name])}
    assert any("lora_B" in name for name in moved) and not any("base_layer" in name for name in moved)
    return "yes"


@column("exact resume", "resume_from_checkpoint")
def resume(tried):
    resumed = attempt(tried, resume=f"{tried.folder}/checkpoint-{tried.saved}")
    assert all(torch.equal(weight, tried.plain.weights[name]) for name, weight in resumed.weights.items())
    assert resumed.curves(-1) == tried.plain.curves(-1)
    return "yes"


@column("missing modalities", "modality_mask")
def missing(tried):
    assert_learns(tried.lacking)
    # What stands where a modality is absent makes no difference.
    columns = samples().with_format("numpy")[:]
    for name, rows in ABSENT.items():
        columns[f"{name}_features"][list(rows)] = 99
    columns["modality_mask"] = [[row not in ABSENT[name] for name in tiny.NAMES] for row in range(16)]
    masked = attempt(tried, dataset=as_dataset(columns))
    assert difference(masked.weights, tried.lacking.weights) < 1e-6
    return "yes"


@column("unlabelled samples")
def unlabelled(tried):
    labels = samples().with_format(None)["labels"]
    hidden = [label if row % 2 == 0 else -100 for row, label in enumerate(labels)]
    plain = samples().with_format(None)[:]
    some = as_dataset({**plain, "labels": hidden})
    order = {"train_sampling_strategy": "sequential"}
    whole = attempt(tried, dataset=some, **order)
    if tried.name == "GradientBlending":  # its copies draw an order of as many samples as there are
        inputs = {
            name: np.array(plain[name]) * (np.arange(16) % 2 == 0)[:, None] for name in plain if name != "labels"
        }
        without = attempt(tried, dataset=as_dataset({**inputs, "labels": hidden}), **order)
    else:
        without = attempt(tried, dataset=some.select(range(0, 16, 2)), per_device_train_batch_size=4, **order)
    assert_learns(whole)
    if difference(whole.weights, without.weights) < 1e-5:
        return "yes"
    assert "unlabelled" in CLASSES[tried.name].__doc__, "unlabelled samples count, and the docstring does not say so"
    return "latents count"


@column("contrastive term, constant alpha", "ContrastiveAlignment")
def contrastive(tried):
    def mixed(alpha):
        return attempt(tried, objective=ContrastiveAlignment(0.5), alpha=ConstantAlpha(alpha, "contrastive"))

    beside, nothing = mixed(0.5), mixed(0.0)
    assert_learns(beside)
    assert difference(nothing.weights, tried.plain.weights) < 1e-6
    assert difference(beside.weights, tried.plain.weights) > 1e-4
    return "yes"


@column("contrastive term, learned alpha", "LearnedAlpha", "ContrastiveAlignment")
def learned(tried):
    alpha = LearnedAlpha("contrastive", interval=1, outer_split=4, solver="identity", batch_size=4)
    fit = attempt(tried, objective=ContrastiveAlignment(0.5), alpha=alpha)
    assert_learns(fit)
    assert fit.trainer.alpha.weights()["contrastive"] != 0.5
    return "yes"


@column("label smoothing", "label_smoothing_factor")
def smoothing(tried):
    fit = attempt(tried, label_smoothing_factor=0.2)
    assert_learns(fit)
    assert difference(fit.weights, tried.plain.weights) > 1e-5
    return "yes"


@column("own loss function", "compute_loss_func")
def own_loss(tried):
    def plain(outputs, labels, num_items_in_batch=None):
        return cross_entropy(outputs["logits"], labels)

    fit = attempt(tried, compute_loss_func=plain)
    assert difference(fit.weights, tried.plain.weights) < 1e-6
    return "yes"


@column("three modalities", "and the model has 3")
def three(tried):
    fit = attempt(tried, names=THREE)
    assert_learns(fit)
    names = [name for name in THREE if any(key.endswith(f"_{name}") for key in fit.curves(0))]
    assert list(names) == list(THREE) or not any(
        key.endswith(f"_{name}") for key in tried.plain.curves(0) for name in tiny.NAMES
    )
    return "yes"


@column("fusions")
def fusions(tried):
    works, brief = [], {} if "max_steps" in tried.case.fields else {"max_steps": 1}
    for fusion in FUSIONS:
        try:
            assert_learns(attempt(tried, model={"fusion": fusion}, **brief))
        except _Refusal as refusal:
            assert tried.name in str(refusal) and f"fusion='{fusion}'" in str(refusal), refusal
        else:
            works.append(fusion)
    return "all" if len(works) == len(FUSIONS) else ", ".join(works)


@column("multi-label", "problem_type='multi_label_classification'")
def multi_label(tried):
    labels = np.eye(3, dtype=np.float32)[samples().with_format("numpy")["labels"][:]]
    dataset = as_dataset({**samples().with_format(None).remove_columns("labels")[:], "labels": labels})
    problem = {"problem_type": "multi_label_classification"}
    try:
        net = tiny.model(**{**tried.case.model, **problem})
    except ValueError as error:  # the fusion that the method needs is of classes
        assert "problem_type='multi_label_classification'" in str(error) and "fusion" in tried.case.model
        return "refused"
    assert_learns(attempt(tried, net=net, dataset=dataset))
    return "yes"


def as_dataset(columns):
    return samples().from_dict(columns).with_format("torch")


# ---- the table ----
@pytest.mark.parametrize("name", list(CASES))
def test_the_row_of_a_method_is_what_is_found(name, tmp_path):
    tried, broken = Tried(name, tmp_path), []
    FOUND[name] = {}
    assert_learns(tried.plain)
    for title, (check, values) in COLUMNS.items():
        try:
            FOUND[name][title] = tried.cell(check, values)
        except Exception as error:  # all of a row are told
            FOUND[name][title] = "broken"
            broken.append(f"{title}: {type(error).__name__}: {error}")
    assert not broken, "\n".join([name, *broken])
    if VARIABLE not in os.environ:
        compare(name, FOUND[name], FILE)


def test_the_table_has_a_row_for_every_method_and_every_column():
    if VARIABLE in os.environ:
        write(FOUND)
    rows = table()
    assert list(rows) == list(CASES), f"{PAGE} has rows of {list(rows)}: {VARIABLE}=1 python -m pytest {FILE}"
    for row in rows.values():
        assert list(row) == list(TITLES)
        assert not {"broken", "?"} & set(row.values())


def test_a_method_that_depends_on_micro_batches_says_so_in_the_page():
    rows = [name for name, row in table().items() if PER_BATCH in row.values()]
    text = re.sub(r"^\|.*$", "", PAGE.read_text(), flags=re.MULTILINE)
    assert PER_BATCH in text or not rows
