"""A recipe's options: YAML beside the script, its section for a smoke test, and the command line over both."""

import argparse
import copy
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from transformers import HfArgumentParser, PreTrainedModel

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.models.lora import with_lora


# As published, and what transformers' `--optim` has not: Adam with L2 in the gradient, SGD with momentum.
OPTIMIZERS: dict[str, tuple[type, dict[str, float]]] = {
    "adam": (torch.optim.Adam, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
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
    options_class: type[Options], script: str, argv: Sequence[str] | None = None
) -> tuple[Options, dict[str, Any]]:
    """The recipe's options and the fields of its [`CoLearningArguments`]: of the YAML beside the recipe (or `--config FILE`),
    over them those of its section `small` with `--small`, and over both the command line.

    Args:
        options_class (`type`): [`RecipeOptions`] or a subclass.
        script (`str`): The recipe's `__file__`.
        argv (`Sequence[str]`, *optional*): The command line, `sys.argv` by default.

    Returns:
        `tuple`: The options, and a dictionary for `CoLearningArguments(**training)`.

    Raises:
        ValueError: If the YAML is none, or a key in it is no option.
    """
    parser = HfArgumentParser(
        [options_class, CoLearningArguments],
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `--small` must be seen before the rest is parsed
    )
    config = Path(script).with_suffix(".yaml")
    parser.add_argument("--config", type=Path, default=config, help="YAML of defaults; the recipe's own by default.")
    known = {action.dest for action in parser._actions} - {"help", "config"}

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path, default=config)
    early.add_argument("--small", nargs="?", const="true", default="false")
    found, _ = early.parse_known_args(argv)
    values = read_config(found.config, known, small=found.small.lower() in ("true", "1", "yes"))
    values.setdefault("output_dir", f"runs/{config.stem}")
    parser.set_defaults(**values)
    parsed = vars(parser.parse_args(argv))
    options = options_class(**{f.name: parsed[f.name] for f in fields(options_class)})
    training = {f.name: parsed[f.name] for f in fields(CoLearningArguments) if f.init and f.name in parsed}
    if not torch.accelerator.is_available():
        training["dataloader_pin_memory"] = False  # it would only warn
    # What is out of range shows now, not after the data is loaded; and the processes meet, to share the work from here on.
    _ = CoLearningArguments(**copy.deepcopy(training)).device
    return options, training


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
