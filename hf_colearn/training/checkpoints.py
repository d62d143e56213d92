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
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.trainer import OPTIMIZER_NAME, OPTIMIZER_NAME_BIN, SCHEDULER_NAME
from transformers.trainer_utils import HubStrategy
from transformers.utils import (
    ADAPTER_SAFE_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    logging,
)

from hf_colearn.models.checkpoint import indexed_files
from hf_colearn.models.lora import load_adapter
from hf_colearn.training import shards
from hf_colearn.training.sharding import names_of_parameters
from hf_colearn.utils.callback import CoLearningCallback
from hf_colearn.utils.sharded import sharded_modules


logger = logging.get_logger(__name__)

CALLBACK_STATES = "callback_states.pt"
_PLAIN_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
_STATE_OF_ALPHA = "alpha.json"  # what the first version wrote, of alpha alone


def load_weights(model: torch.nn.Module, checkpoint: str) -> None:
    """Loads a checkpoint's weights into a model of the same architecture, in place; every weight keeps its dtype.

    Either may be in shards. Weights go by name: by the names that the model has, or those that it is saved under, which for
    many models of transformers are older ones. Where neither fits, a `PreTrainedModel` is read with `from_pretrained`, which
    knows former names.
    """
    try:
        if Path(checkpoint, shards.MODEL_SHARDS).is_dir():
            shards.load_model(model, Path(checkpoint))
            return
        weights = _read_weights(checkpoint)
        if isinstance(model, PreTrainedModel) and _wrong_names(model, weights):
            current = _names_when_saved(model)
            weights = {current.get(name, name): weight for name, weight in weights.items()}
            weights = _read_by_class(model, checkpoint, weights) if _wrong_names(model, weights) else weights
        if wrong := _wrong_names(model, weights):
            raise ValueError(f"{len(wrong)} weights do not fit, such as '{wrong[0]}'")
        if sharded_modules(model):
            shards.spread_weights(model, weights)
        else:
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
    if not isinstance(weight, torch.Tensor) or isinstance(weight, DTensor) or not weight.numel():
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


def load_model(trainer: Any, checkpoint: str, model: torch.nn.Module) -> bool:
    """Loads a checkpoint's weights; False where Trainer does: with DeepSpeed, of several adapters, or of another form."""
    if trainer.sharded_by == "DeepSpeed":
        return False
    if isinstance(model, PeftModel):
        is_ours = os.path.isfile(os.path.join(checkpoint, ADAPTER_SAFE_WEIGHTS_NAME))
        if trainer.sharded_by is not None or not is_ours or list(model.peft_config) != ["default"]:
            return False  # Trainer reads several in folders of their own
        load_adapter(model, checkpoint)
        return True
    if not any(os.path.exists(os.path.join(checkpoint, name)) for name in (shards.MODEL_SHARDS, *_PLAIN_WEIGHTS)):
        return False
    load_weights(model, checkpoint)
    return True


def are_in_shards(trainer: Any) -> bool:
    """Whether the weights of a run's checkpoints lie in shards alone: not where a file of them is pushed to the Hub, nor
    those of adapters, which are small."""
    args, plugin = trainer.args, trainer.accelerator.state.fsdp_plugin
    pushes = args.push_to_hub and args.hub_strategy != HubStrategy.END
    is_whole = pushes or not isinstance(trainer.model, PreTrainedModel)
    return "SHARDED" in str(plugin.state_dict_type) and not args.save_only_model and not is_whole


def load_optimizer(trainer: Any, checkpoint: str) -> bool:
    """Loads the states of optimizer and schedule that were written in shards, or whole where they are in shards now; False
    where Trainer does."""
    folder, model, optimizer = Path(checkpoint), trainer.model, trainer.optimizer
    if trainer.sharded_by == "DeepSpeed":
        return False
    if (folder / shards.OPTIMIZER_SHARDS).is_dir():
        shards.load_optimizer(model, optimizer, folder)
    elif (folder / OPTIMIZER_NAME_BIN).is_file():  # of FSDP, gathered
        shards.spread_optimizer(model, optimizer, _loaded(folder / OPTIMIZER_NAME_BIN))
    elif trainer.sharded_by == "FSDP" and (folder / OPTIMIZER_NAME).is_file():
        state = shards.by_name(_loaded(folder / OPTIMIZER_NAME), names_of_parameters(optimizer, model))
        shards.spread_optimizer(model, optimizer, state)
    else:
        return False
    trainer.lr_scheduler.load_state_dict(_loaded(folder / SCHEDULER_NAME))
    return True


def _loaded(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def tell_of_other_processes(checkpoint: str, processes: int) -> None:
    """Warns where a checkpoint has random states of another number of processes."""
    wrote = len(list(Path(checkpoint).glob("rng_state*.pth")))
    if wrote not in (0, processes):
        logger.warning_once(
            f"'{checkpoint}' was written by {wrote} process{'es' * (wrote > 1)} and is resumed by {processes}: losses and data "
            "go on, but dropout and augmentation draw other random numbers than an undisturbed run."
        )


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
