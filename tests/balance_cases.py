"""Every method of `hf_colearn.balance` on tiny models, and the committed table of what works with what.

Also imported by child processes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

import tiny_modalities as tiny
from hf_colearn import MultimodalCollator, balance
from hf_colearn.balance.method import BalanceMethod


# ---- the methods ----
@dataclass(frozen=True)
class Case:
    """How a method is made, the model that it needs, and what its trainer must have."""

    make: Callable[[], BalanceMethod]
    model: dict = field(default_factory=dict)  # of `tiny_modalities.model`
    fields: dict = field(default_factory=dict)  # of `tiny_modalities.trainer`


CLASSES = {
    name: cls
    for name in balance.__all__
    if isinstance(cls := getattr(balance, name), type) and issubclass(cls, BalanceMethod) and cls.__name__ == name
}
THREE = ("image", "audio", "text")
_VALIDATED = {"eval_dataset": True, "eval_strategy": "steps", "eval_steps": 1}  # on the training set
_SHARED_HEAD = {"shared_classifier": True, "fusion": "entropy"}
# Those that are not made by their defaults, or whose mechanism would not act in three steps.
_OTHERS: dict[str, Case] = {
    "ARL": Case(lambda: balance.ARL(start=0)),
    "AlternatingAdaptation": Case(lambda: balance.AlternatingAdaptation(), _SHARED_HEAD),
    "DynamicFusion": Case(lambda: balance.DynamicFusion(), {"fusion": "dynamic"}),
    "EarlyStopPerModality": Case(
        lambda: balance.EarlyStopPerModality(1, smoothing=0.0), fields={**_VALIDATED, "learning_rate": 3.0}
    ),
    "EvidentialFusion": Case(lambda: balance.EvidentialFusion(annealing_epochs=1), {"fusion": "evidential"}),
    "GradientBlending": Case(lambda: balance.GradientBlending(super_epoch=1, split=tiny.data(6, THREE))),
    "GreedyCuration": Case(
        lambda: balance.GreedyCuration(epsilon=0, steps=2, start_epoch=0), {"fusion": "mmtm"}, {"max_steps": 4}
    ),
    "LearningRatePerModality": Case(
        lambda: balance.LearningRatePerModality({"image": 0.9, "audio": 1.1}), fields=_VALIDATED
    ),
    "ReconBoost": Case(lambda: balance.ReconBoost(1, 1), {"fusion": "sum"}, {"max_steps": 12}),  # phases of two steps
}
CASES = {name: _OTHERS.get(name, Case(cls)) for name, cls in CLASSES.items()}


ABSENT = {"image": (1, 9, 12), "audio": (2, 3, 5, 10, 15)}  # which rows lack it


class _Weights(TrainerCallback):
    """The raw weights before training and after every optimizer step."""

    def __init__(self):
        self.steps = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.steps = [copied(model)]

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(copied(model))


def copied(model):
    """Whole weights, of a model in shards, too."""
    state = model.state_dict()
    whole = {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in state.items()}
    return {name: weight.detach().clone() for name, weight in whole.items()}


@cache
def samples(names=tiny.NAMES):
    return tiny.data(names=names)


class Fit:
    """A tiny training of a method: by plain SGD without clipping, three steps of eight of sixteen samples.

    `net` is a model in place of the case's, `names` are the modalities, `model` more keywords of the model.
    """

    def __init__(self, case, folder, *, net=None, names=tiny.NAMES, model=None, resume=None, dataset=None, **fields):
        net = tiny.model(names, **{**case.model, **(model or {})}) if net is None else net
        own = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 3, **case.fields}
        dataset = samples(names) if dataset is None else dataset
        if "eval_dataset" in own:
            own["eval_dataset"] = dataset
        raw = _Weights()
        self.trainer = tiny.trainer(case.make(), net, dataset, folder, callbacks=[raw], **{**own, **fields})
        self.resume, self.raw = resume, raw

    def train(self):
        self.trainer.train(resume_from_checkpoint=self.resume)
        self.steps, self.weights = self.raw.steps, copied(self.trainer.model)
        self.logs = [entry for entry in self.trainer.state.log_history if "loss" in entry]
        return self

    def curves(self, step):
        """What the method logged in a step."""
        return {key: value for key, value in self.logs[step].items() if key.startswith("balance_")}


def incomplete(unlabelled=(), absent=ABSENT):
    """The samples of `samples`, of which some rows lack a modality or their label; with the collator."""
    columns = samples().with_format(None)[:]
    for name, rows in absent.items():
        for row in rows:
            columns[f"{name}_features"][row] = None
    columns["labels"] = [-100 if row in unlabelled else label for row, label in enumerate(columns["labels"])]
    return {"dataset": Dataset.from_dict(columns), "data_collator": MultimodalCollator(dict.fromkeys(tiny.NAMES))}


# ---- the table ----
TITLES = (
    *(
        "gradient accumulation",
        "clipping",
        "two processes",
        "FSDP",
        "bf16",
        "EMA",
        "LoRA",
        "exact resume",
        "missing modalities",
    ),
    *("unlabelled samples", "contrastive term, constant alpha", "contrastive term, learned alpha", "label smoothing"),
    *("own loss function", "three modalities", "multi-label", "fusions"),
)
PAGE = Path(balance.__file__).parent / "README.md"
VARIABLE = "WRITE_BALANCE_TABLE"
_HEAD = "| method |"


def table():
    """The committed cells, by method and column."""
    _, _, below = PAGE.read_text().partition(_HEAD)
    titles, _, *rows = below.partition("\n\n")[0].split("\n")
    columns = [title.strip() for title in titles.strip(" |").split(" | ")]
    found = {}
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        found[name.strip("`")] = dict(zip(columns, cells, strict=True))
    return found


def write(found):
    """Puts what the tests found into the page; cells of other columns stay."""
    rows = {name: {**table().get(name, {}), **found.get(name, {})} for name in CLASSES}
    lines = [f"{_HEAD} {' | '.join(TITLES)} |", "|".join(["", *["---"] * (len(TITLES) + 1), ""])]
    lines += [f"| `{name}` | {' | '.join(row.get(title, '?') for title in TITLES)} |" for name, row in rows.items()]
    before, _, after = PAGE.read_text().partition(_HEAD)
    _, _, after = after.partition("\n\n")
    PAGE.write_text("\n".join([before + lines[0], *lines[1:], "", after]))


def compare(name, found, file):
    """A failure that says how to write the table, where the committed row of a method differs from what was found."""
    row = table().get(name, {})
    wrong = [
        f"{column}: {row.get(column, 'no cell')!r}, found {cell!r}"
        for column, cell in found.items()
        if row.get(column) != cell
    ]
    assert not wrong, (
        f"{PAGE.parent.name}/{PAGE.name} is not what {name} does ({'; '.join(wrong)}). If it is meant: "
        f"{VARIABLE}=1 python -m pytest {file}"
    )
