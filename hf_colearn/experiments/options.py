"""A recipe's options: YAML beside the script, its section for a smoke test, and the command line over both."""

import argparse
import copy
import difflib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
import yaml
from transformers import HfArgumentParser, PreTrainedModel, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available, is_torch_tf32_available

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.corpora.base import warn
from hf_colearn.models.lora import with_lora
from hf_colearn.utils.command_line import CommandParser, program
from hf_colearn.utils.recipe_files import described


# As published, and what transformers' `--optim` has not: Adam with L2 in the gradient, SGD with momentum.
OPTIMIZERS: dict[str, tuple[type, dict[str, float]]] = {
    "adam": (torch.optim.Adam, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}

# Formats of numbers that not every accelerator has, and whether this one does.
PRECISIONS: dict[str, Callable[[], bool]] = {
    "bf16": is_torch_bf16_gpu_available,
    "bf16_full_eval": is_torch_bf16_gpu_available,
    "fp16": torch.accelerator.is_available,
    "fp16_full_eval": torch.accelerator.is_available,
    "tf32": is_torch_tf32_available,
}


@dataclass
class RecipeOptions:
    """What every recipe takes beside [`CoLearningArguments`]; a recipe adds its own by inheriting."""

    data_dir: str | None = field(default=None, metadata={"help": "The data in a local folder; the Hub's by default."})
    small: bool = field(default=False, metadata={"help": "A smoke test in minutes: small data, nothing to download."})
    arms: list[str] | None = field(default=None, metadata={"help": "Names of the arms to train; all by default."})
    seeds: int = field(default=1, metadata={"help": "Runs of every arm, from --seed upwards."})
    student: str | None = field(default=None, metadata={"help": "Hub id, folder or name of the student's backbone."})
    teacher: str | None = field(default=None, metadata={"help": "Hub id or folder of the frozen teacher."})
    optimizer: str | None = field(
        default=None, metadata={"help": "adam (L2 in the gradient) or sgd (momentum 0.9), instead of --optim."}
    )
    lora: bool = field(default=False, metadata={"help": "Train LoRA adapters and the heads, the backbone stays."})
    lora_rank: int = field(default=8, metadata={"help": "Rank of the adapters."})
    check: str | None = field(
        default=None,
        metadata={"help": "Train nothing: check the card of this student (folder or Hub id) against what it scores."},
    )
    report: bool = field(default=True, metadata={"help": "Draw report.html; false: its numbers alone."})
    license: str | None = field(
        default=None, metadata={"help": "Of the student, as the Hub names it: apache-2.0, ..."}
    )
    skip_bad_samples: bool = field(default=False, metadata={"help": "Count and leave out what cannot be read."})

    def __post_init__(self):
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} trains nothing: pass at least 1.")
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} leaves no adapter: pass at least 1.")
        if self.optimizer is not None and self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer='{self.optimizer}' is unknown: leave it out, or choose {list(OPTIMIZERS)}.")

    def adapted(self, student: PreTrainedModel) -> Any:
        """The student, with LoRA adapters where `--lora` asks for them."""
        return with_lora(student, self.lora_rank) if self.lora else student

    def optimizer_for(self, args: CoLearningArguments) -> tuple[type, dict[str, Any]] | None:
        """What `--optimizer` names, as Trainer takes it in `optimizer_cls_and_kwargs`; None for `--optim`."""
        if self.optimizer is None:
            return None
        kind, kwargs = OPTIMIZERS[self.optimizer]
        return kind, {**kwargs, "lr": args.learning_rate, "weight_decay": args.weight_decay}


Options = TypeVar("Options", bound=RecipeOptions)


def parse_recipe(
    options_class: type[Options], script: str, argv: Sequence[str] | None = None, by: str | None = None
) -> tuple[Options, dict[str, Any]]:
    """The recipe's options and the fields of its [`CoLearningArguments`]: of the YAML beside the recipe (or `--config FILE`),
    over them those of its section `small` with `--small`, and over both the command line.

    Args:
        options_class (`type`): [`RecipeOptions`] or a subclass.
        script (`str`): The recipe's `__file__`.
        argv (`Sequence[str]`, *optional*): The command line, `sys.argv` by default.
        by (`str`, *optional*): An option that has a YAML for some of its values: with `"data"` and `--data stamps`,
            `{recipe}_stamps.yaml` takes the place of `{recipe}.yaml` where it is there.

    Returns:
        `tuple`: The options, and a dictionary for `CoLearningArguments(**training)`.

    Raises:
        ValueError: If the YAML is none, or a key in it is no option.
    """
    parser = _Parser(  # type: ignore[misc]  # mypy sees argparse's arguments, of which `prog` is the first
        _groups(options_class),  # type: ignore[arg-type]
        prog=program(),
        usage="%(prog)s [options]",
        description=described(script, sys.modules["__main__"].__doc__),
        formatter_class=_Help,
        allow_abbrev=False,  # `--small` must be seen before the rest is parsed
    )
    config = _own_config(Path(script), by, argv)
    parser.add_argument("--config", type=Path, help=f"A YAML file of options instead of {config.name}.")
    known = {f.name for of in (options_class, CoLearningArguments) for f in fields(of) if f.init}

    early = CommandParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    early.add_argument("--small", nargs="?", const="true", default="false")
    found, _ = early.parse_known_args(argv)
    chosen = _config_file(found.config, config)
    values = read_config(chosen, known, small=found.small.lower() in ("true", "1", "yes"))
    gone = _impossible(values)  # asked for on the command line, it stays, and is refused
    values = {name: value for name, value in values.items() if name not in gone}
    values.setdefault("output_dir", f"runs/{config.stem}")
    parser.set_defaults(**values)
    parsed = vars(parser.parse_args(argv))
    options = options_class(**{f.name: parsed[f.name] for f in fields(options_class)})
    training = {f.name: parsed[f.name] for f in fields(CoLearningArguments) if f.init and f.name in parsed}
    if not torch.accelerator.is_available():
        training["dataloader_pin_memory"] = False  # it would only warn
    # What is out of range shows now, not after the data is loaded; and the processes meet, to share the work from here on.
    try:
        _ = CoLearningArguments(**copy.deepcopy(training)).device
    except json.JSONDecodeError as error:
        raise ValueError(
            f"'{error.doc}' is no JSON ({error}): write an option's dictionary as '{{\"min_lr\": 0.0}}'."
        ) from error
    if gone:
        warn(
            f"{' and '.join(gone)} of {chosen.name} needs a GPU that has it, and there is none: computing in float32."
        )
    return options, training


# ---- help ----
class _Parser(HfArgumentParser, CommandParser):
    """Options from dataclasses, as transformers reads them, and our errors."""


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The docstring as it is, and the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _groups(options_class: type[RecipeOptions]) -> list[type]:
    """All options as one dataclass a group of `--help`: the recipe's own first, transformers' last."""
    shared = set(RecipeOptions.__mro__)
    own = {name for kind in options_class.__mro__ if kind not in shared for name in inspect.get_annotations(kind)}
    of_transformers = {f.name for f in fields(TrainingArguments)}
    ours = [f for f in fields(CoLearningArguments) if f.init]
    options = fields(options_class)
    return [
        _group("options of this recipe", options_class, [f for f in options if f.name in own]),
        _group("options of every recipe", options_class, [f for f in options if f.name not in own]),
        _group("options of co-learning", CoLearningArguments, [f for f in ours if f.name not in of_transformers]),
        _group(
            "options of transformers' Trainer", CoLearningArguments, [f for f in ours if f.name in of_transformers]
        ),
    ]


def _group(title: str, of: type, chosen: Sequence[Field]) -> type:
    """Some fields of a dataclass as one of their own, with the title that `HfArgumentParser` reads."""
    types = get_type_hints(of)
    copied = [
        (f.name, types[f.name], field(default=f.default, default_factory=f.default_factory, metadata=f.metadata))
        for f in chosen
    ]
    return make_dataclass("Group", copied, namespace={"_argument_group_name": title}, kw_only=True)


# ---- YAML ----
def _own_config(script: Path, by: str | None, argv: Sequence[str] | None) -> Path:
    """The recipe's YAML, or that of the option's value."""
    parser = CommandParser(add_help=False, allow_abbrev=False)
    if by is not None:
        parser.add_argument(f"--{by}", dest="value")
        value = parser.parse_known_args(argv)[0].value
        if value is not None and (of_value := script.with_name(f"{script.stem}_{value}.yaml")).is_file():
            return of_value
    return script.with_suffix(".yaml")


def _config_file(asked: Path | None, own: Path) -> Path:
    """The file that `--config` names; one of that name beside the recipe, where there is none; else the recipe's own."""
    if asked is None:
        return own
    beside = own.with_name(asked.name)
    return beside if beside.is_file() and not asked.is_file() else asked


def _impossible(values: Mapping[str, Any]) -> list[str]:
    """The formats of numbers that a YAML asks for and that this machine cannot train in."""
    return [name for name, works in PRECISIONS.items() if values.get(name) and not works()]


def read_config(path: Path, known: set[str], small: bool) -> dict[str, Any]:
    """The values of a recipe's YAML, with those of its section `small` over them where asked for."""
    try:
        loaded = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} cannot be read ({error}): pass a YAML file of options.") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"--config {path} holds a {type(loaded).__name__}: write one 'option: value' a line.")
    section = loaded.pop("small", None) or {}
    values = {**loaded, **section} if small else loaded
    for key in {**loaded, **section}:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"did you mean '{near[0]}'?" if near else "`--help` lists the options."
            raise ValueError(f"'{key}' in {path} is no option of this recipe: {meant}")
    return values
