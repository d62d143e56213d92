"""A checkpoint back into a run: all of its weights, or an error, and the place in a stream."""

import copy
import os

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME


def load_weights(model: torch.nn.Module, checkpoint: str) -> None:
    """Loads a checkpoint's `model.safetensors` into a model of the same architecture, in place.

    A `PreTrainedModel` is read with `from_pretrained`, which knows the names that older versions of transformers gave
    to its weights; any other module by the names that it has.

    Args:
        model (`torch.nn.Module`): Unwrapped.
        checkpoint (`str`): The checkpoint's folder.

    Raises:
        ValueError: If a weight is missing, too many, or of another shape.
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


def position_in_stream(checkpoint: str, accumulation_steps: int) -> tuple[int, int]:
    """How many whole epochs of a stream a checkpoint has seen, and how many batches of the next one.

    Trainer does not know how long an epoch of a stream is, and counts one as the part of a run that it has got through:
    `TrainerState.epoch` is its number plus batches / (max_steps * accumulation steps).
    """
    state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
    epochs = int(state.epoch)
    return epochs, round((state.epoch - epochs) * state.max_steps * accumulation_steps)
