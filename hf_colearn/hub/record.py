"""`colearning.json`: how a student was trained, beside its weights; plain JSON, since published without tokens and folders."""

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from hf_colearn import __version__
from hf_colearn.hub.scores import finite_scalars, plain_value
from hf_colearn.hub.training_samples import problem_type_of
from hf_colearn.teachers.bank_card import without_folders


RECORD = "colearning.json"
HUB_ID = r"[\w.-]+(/[\w.-]+)?"
_LATER = ("problem_type", "training_samples", "other_scores", "balance")  # which earlier records do not hold
# Of the machine and the session, not of the training.
_OF_THE_MACHINE = {"output_dir", "logging_dir", "resume_from_checkpoint", "run_name"}


@dataclass(frozen=True)
class TrainingRecord:
    """What `colearning.json` says of a student; made by [`TrainingRecord.of`]."""

    hf_colearn: str = __version__
    recipe: str | None = None  # such as "digits_l2v"
    argv: list[str] = field(default_factory=list)  # the recipe's command line, see `public_argv`
    arm: str | None = None  # which of the recipe's arms the student is
    seed: int = 0
    base_model: list[str] = field(default_factory=list)  # Hub ids of the backbones that the training started from
    objective: str | None = None  # the auxiliary terms and, next, their weights, as `repr` shows them
    alpha: str | None = None
    balance: str | None = None  # the method of modality balance, as `repr` shows it
    terms: list[str] = field(default_factory=list)  # their names
    alpha_history: list[dict[str, Any]] = field(default_factory=list)  # "epoch", "alpha" or "alpha_{term}" of several
    scores: dict[str, float] = field(default_factory=dict)  # as fractions, by our names of the metrics
    other_scores: dict[str, str] = field(default_factory=dict)  # in words, of metrics that are no finite number
    # Of the scores: "name", "type" (a Hub id, or a word), "split", "samples", and where it matters "unlabelled", "after".
    dataset: dict[str, Any] = field(default_factory=dict)
    problem_type: str | None = None  # "single_label_classification", "multi_label_classification" or "regression"
    training_samples: dict[str, Any] = field(default_factory=dict)  # see `training_samples`
    teacher: dict[str, Any] | None = None  # "words", and what the teacher bank's description says
    pairing: str | None = None  # which of the teacher's latents a sample saw, in words
    seconds: float | None = None  # of training
    hardware: str | None = None  # see `hardware`
    versions: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)  # of the training, by `TrainingArguments.to_dict`

    @classmethod
    def of(
        cls,
        args: TrainingArguments,
        history: Sequence[Mapping[str, Any]],
        objective: Any = None,
        alpha: Any = None,
        model: nn.Module | None = None,
        balance: Any = None,
        **known: Any,
    ) -> "TrainingRecord":
        """The record of a training that has just ended, on the machine where it ran.

        Args:
            args ([`~transformers.TrainingArguments`]): The trainer's.
            history (`Sequence[Mapping]`): `trainer.state.log_history`.
            objective ([`Objective`], *optional*): `trainer.auxiliary_objective`.
            alpha ([`Alpha`], *optional*): `trainer.alpha`.
            model (*optional*): `trainer.model`, which knows the checkpoints of its backbones.
            balance ([`BalanceMethod`], *optional*): `trainer.balance`.
            known: More fields of the record.
        """
        terms = [] if objective is None else list(objective.terms)
        keys = {term: "alpha" if len(terms) == 1 else f"alpha_{term}" for term in terms}
        alphas = [
            {"epoch": entry.get("epoch"), **{key: entry[key] for key in keys.values()}}
            for entry in history
            if keys and all(key in entry for key in keys.values())
        ]
        if alpha is not None and not alphas:  # a training without a log: at least where alpha is in the end
            last = {"epoch": history[-1].get("epoch") if history else None}
            alphas = [last | {keys[term]: weight for term, weight in alpha.weights().items()}]
        return cls(
            arguments=args.to_dict(),
            objective=None if objective is None else in_words(objective),
            alpha=None if alpha is None else in_words(alpha),
            balance=None if balance is None else in_words(balance),
            terms=terms,
            alpha_history=alphas,
            base_model=[] if model is None else base_models(model),
            problem_type=problem_type_of(model) if hasattr(model, "config") else None,
            seed=args.seed,
            hardware=hardware(args.device, args.world_size * max(1, args.n_gpu)),
            versions={"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")},
            **known,
        )

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes `colearning.json` into a student's folder; what is of the machine alone is left out, see [`public`].

        Of the scores those that are one finite number stay, and the others are noted in words.
        """
        path = Path(folder) / RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        record = self._with_finite_scores()
        content = {**public(asdict(record)), "argv": public_argv(self.argv)}
        others = {name: without_folders(words) for name, words in record.other_scores.items()}
        content |= {"scores": record.scores, "other_scores": others}  # `loss_per_token` is no secret
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        return unfinished.replace(path)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "TrainingRecord":
        """Reads a record, which may come from anywhere; refuses a missing one, and what [`save`] does not write."""
        path = Path(folder) / RECORD
        if not path.is_file():
            raise FileNotFoundError(
                f"'{folder}' has no {RECORD}: a recipe writes it beside the student, in runs/RECIPE/student or model."
            )
        try:
            content = json.loads(path.read_text())
            record = cls(
                **{entry.name: content[entry.name] for entry in fields(cls) if entry.name not in _LATER},
                **{name: content[name] for name in _LATER if name in content},
            )
            record._check()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"'{path}' is no record of a training of this version ({type(error).__name__}: {error}): restore it, or "
                "write it anew with TrainingRecord.of(trainer.args, trainer.state.log_history).save(folder)."
            ) from error
        return record._with_finite_scores()  # of what an earlier version has written, too

    def _with_finite_scores(self) -> "TrainingRecord":
        scores, others = finite_scalars(self.scores)
        return replace(self, scores=scores, other_scores={**others, **self.other_scores})

    def _check(self) -> None:
        if not isinstance(self.scores, dict) or not isinstance(self.dataset, dict):
            raise TypeError(f"the scores are {self.scores!r}, and of the data {self.dataset!r}")
        for text in (*self.argv, *self.terms, *self.base_model, "" if self.recipe is None else self.recipe):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")
        if self.scores and not {"name", "type", "split", "samples"} <= self.dataset.keys():
            raise ValueError(f"the dataset of the scores is {self.dataset}")
        samples = self.dataset.get("samples")  # None of a stream
        if self.scores and samples is not None and (type(samples) is not int or samples < 1):
            raise ValueError(f"the scores were measured on {samples!r} samples")


def public(value: Any) -> Any:
    """A JSON value that may be published.

    Entries named `*_token` and those of the session (`output_dir`, ...) are left out, a path from elsewhere (absolute, or
    `../`) keeps its last part, and a number that is not finite becomes None.
    """
    if isinstance(value, Mapping):
        return {str(key): public(entry) for key, entry in value.items() if not _is_private(str(key))}
    if isinstance(value, (list, tuple)):
        return [public(entry) for entry in value]
    value = plain_value(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else without_folders(str(value))


def public_argv(argv: Sequence[str]) -> list[str]:
    """A command line that may be published, and that repeats a training elsewhere.

    Tokens and `--output_dir` are left out, and a path from elsewhere keeps its last part, as in `--data_dir IMAGENET`.
    """
    shown, private = [], False
    for word in argv:
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            private = _is_private(option[2:].replace("-", "_"))
            word = f"{option}={without_folders(value)}" if equals else option
        if not private:
            shown.append(word if option.startswith("--") else without_folders(word))
    return shown


def _is_private(name: str) -> bool:
    return name in _OF_THE_MACHINE or name == "token" or name.endswith("_token")


def in_words(value: Any) -> str:
    """Its `repr`; what has none of its own is named by its class, not by where it lay in the memory."""
    return re.sub(r"<(?:function |[\w.<>]*\.)?(\w+)(?: object)? at 0x[0-9a-f]+>", r"\1", repr(value))


def base_models(model: nn.Module) -> list[str]:
    """Hub ids of the checkpoints that a model's parts come from, by their configurations; no folders."""
    names = [part.config._name_or_path or "" for part in model.modules() if isinstance(part, PreTrainedModel)]
    ids = [name for name in dict.fromkeys(names) if re.fullmatch(HUB_ID, name)]
    return [name for name in ids if not Path(name).exists()]


def hardware(device: torch.device, count: int = 1) -> str:
    """What was computed on, in words: `count` accelerators, or the processor and the threads that torch used of it."""
    if device.type != "cpu":
        return f"{count} x {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type}"
    threads = torch.get_num_threads()
    each = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{_processor()}, {f'{count} processes of ' if count > 1 else ''}{each}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
