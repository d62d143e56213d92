"""What a checkpoint holds beside Trainer's files, and its weights put back whole or not at all."""

import copy
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import (
    ADAPTER_SAFE_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from hf_colearn.models.checkpoint import indexed_files
from hf_colearn.models.lora import load_adapter
from hf_colearn.utils.callback import CoLearningCallback


CALLBACK_STATES = "callback_states.pt"
_PLAIN_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
_STATE_OF_ALPHA = "alpha.json"  # what the first version wrote, of alpha alone


def load_weights(model: torch.nn.Module, checkpoint: str) -> None:
    """Loads a checkpoint's weights into a model of the same architecture, in place; every weight keeps its dtype.

    They go by name: by the names that the model has, or those that it is saved under, which for many models of transformers
    are older ones. Where neither fits, a `PreTrainedModel` is read with `from_pretrained`, which knows former names.
    """
    try:
        weights = _read_weights(checkpoint)
        if isinstance(model, PreTrainedModel) and _wrong_names(model, weights):
            current = _names_when_saved(model)
            weights = {current.get(name, name): weight for name, weight in weights.items()}
            weights = _read_by_class(model, checkpoint, weights) if _wrong_names(model, weights) else weights
        if wrong := _wrong_names(model, weights):
            raise ValueError(f"{len(wrong)} weights do not fit, such as '{wrong[0]}'")
        model.load_state_dict(weights, strict=False)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"'{checkpoint}' is a checkpoint of another architecture than this {type(model).__name__}: {error}. Resume "
            "with the model that wrote it, or start anew from single parts with `from_pretrained`."
        ) from error


def _read_weights(checkpoint: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's file or files, in the dtypes that they were saved in."""
    folder = Path(checkpoint)
    for whole, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        names = [whole]
        if not (folder / whole).is_file():
            if not (folder / index).is_file():
                continue
            names = indexed_files(folder / index)
        read = load_file if whole == SAFE_WEIGHTS_NAME else partial(torch.load, map_location="cpu", weights_only=True)
        return {name: weight for file in names for name, weight in read(folder / file).items()}
    raise ValueError("it holds no file of weights")


def _wrong_names(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """The weights of either side that the other lacks; of tied weights a file holds one."""
    own = model.state_dict(keep_vars=True)
    found = {_place(own[name]) for name in weights if name in own}
    left_out = getattr(model, "_keys_to_ignore_on_save", None) or ()
    missing = (name for name, weight in own.items() if name not in weights and _place(weight) not in found)
    return sorted(
        [*(name for name in missing if name not in left_out), *(name for name in weights if name not in own)]
    )


def _place(weight: Any) -> Any:
    if not isinstance(weight, torch.Tensor) or not weight.numel():
        return id(weight)
    return weight.data_ptr(), weight.shape, weight.stride()


def _names_when_saved(model: PreTrainedModel) -> dict[str, str]:
    """The model's weights by the names that `save_pretrained` gives them, where it only renames."""
    own = model.state_dict()
    names = {id(weight): name for name, weight in own.items()}
    saved = revert_weight_conversion(model, own)
    return {name: names[id(weight)] for name, weight in saved.items() if id(weight) in names}


def _read_by_class(
    model: PreTrainedModel, checkpoint: str, weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights by `from_pretrained`, in a dtype that holds them all exactly."""
    is_double = any(weight.dtype == torch.float64 for weight in weights.values())
    loaded, report = type(model).from_pretrained(
        checkpoint,
        config=copy.deepcopy(model.config),
        dtype=torch.float64 if is_double else torch.float32,
        output_loading_info=True,
    )
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]}):
        raise ValueError(f"{len(wrong)} weights do not fit, such as '{wrong[0]}'")
    return loaded.state_dict()


def load_whole_weights(trainer: Any, checkpoint: str, model: torch.nn.Module) -> bool:
    """Loads a checkpoint's plain weights; False where weights are sharded, the adapters are several, or the checkpoint has
    none of that form."""
    is_adapted = isinstance(model, PeftModel)
    names = [ADAPTER_SAFE_WEIGHTS_NAME] if is_adapted else _PLAIN_WEIGHTS
    if trainer.sharded_by is not None or not any(os.path.isfile(os.path.join(checkpoint, name)) for name in names):
        return False
    if isinstance(model, PeftModel) and list(model.peft_config) != ["default"]:
        return False  # Trainer reads those in folders of their own
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
