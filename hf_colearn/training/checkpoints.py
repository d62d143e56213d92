"""What a checkpoint holds beside Trainer's files, and its weights put back whole or not at all."""

import copy
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_NAME

from hf_colearn.models.lora import load_adapter
from hf_colearn.utils.callback import CoLearningCallback


CALLBACK_STATES = "callback_states.pt"
_STATE_OF_ALPHA = "alpha.json"  # what the first version wrote, of alpha alone


def load_weights(model: torch.nn.Module, checkpoint: str) -> None:
    """Loads a checkpoint's `model.safetensors` into a model of the same architecture, in place.

    A `PreTrainedModel` is read with `from_pretrained`, which knows the names that older versions of transformers gave
    to its weights; any other module by the names that it has.
    """
    try:
        if isinstance(model, PreTrainedModel):
            loaded, report = type(model).from_pretrained(
                checkpoint, config=copy.deepcopy(model.config), dtype=model.dtype, output_loading_info=True
            )
            wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
            if wrong:
                raise ValueError(f"{len(wrong)} weights do not fit, such as '{wrong[0]}'")
            model.load_state_dict(loaded.state_dict())
        else:
            model.load_state_dict(load_file(os.path.join(checkpoint, SAFE_WEIGHTS_NAME)))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"'{checkpoint}' is a checkpoint of another architecture than this {type(model).__name__}: {error}. Resume "
            "with the model that wrote it, or start anew from single parts with `from_pretrained`."
        ) from error


def load_whole_weights(trainer: Any, checkpoint: str, model: torch.nn.Module) -> bool:
    """Loads a checkpoint's plain weights; False where weights are sharded, or the checkpoint has none of that form."""
    is_adapted = isinstance(model, PeftModel)
    name = ADAPTER_SAFE_WEIGHTS_NAME if is_adapted else SAFE_WEIGHTS_NAME
    if trainer.sharded_by is not None or not os.path.isfile(os.path.join(checkpoint, name)):
        return False
    (load_adapter if is_adapted else load_weights)(model, checkpoint)
    return True


def save_callback_states(callbacks: Sequence[CoLearningCallback], checkpoint: str) -> None:
    """Writes the states of alpha and of the other callbacks of ours."""
    states = {name: callback.state_dict() for name, callback in _named(callbacks).items()}
    torch.save(states, os.path.join(checkpoint, CALLBACK_STATES))


def load_callback_states(callbacks: Sequence[CoLearningCallback], checkpoint: str) -> None:
    """Restores them; a ValueError where the file is damaged, or holds the states of other callbacks than the run's."""
    states, ours = _read_states(Path(checkpoint)), _named(callbacks)
    saved = {name for name, state in states.items() if state}
    if saved != {name for name, callback in ours.items() if name in saved or callback.state_dict()}:
        raise ValueError(
            f"'{checkpoint}' holds the state of {', '.join(states) or 'no callback'}, and the run has "
            f"{', '.join(ours) or 'no callback with a state'}: resume with the alpha of that run and with its callbacks, or "
            "start anew."
        )
    for name in saved:
        ours[name].load_state_dict(states[name])


def _named(callbacks: Sequence[CoLearningCallback]) -> dict[str, CoLearningCallback]:
    """By class, and from the second one of a class on by its number."""
    met = Counter[str]()
    named = {}
    for callback in callbacks:
        name = type(callback).__name__
        met[name] += 1
        named[name if met[name] == 1 else f"{name} {met[name]}"] = callback
    return named


def _read_states(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / CALLBACK_STATES
    path = path if path.is_file() else checkpoint / _STATE_OF_ALPHA
    if not path.is_file():
        return {}
    try:
        if path.name == CALLBACK_STATES:
            return torch.load(path, weights_only=True)
        saved = json.loads(path.read_text())
    except Exception as error:  # torch names no common class of what it raises for a damaged file
        found = type(error).__name__
        raise ValueError(f"'{path}' is damaged ({found}): resume from an earlier checkpoint.") from error
    return {saved["class"]: saved["state"]}
