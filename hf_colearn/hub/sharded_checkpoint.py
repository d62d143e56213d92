"""A checkpoint in shards as one folder that `from_pretrained` loads."""

import os
import shutil
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from hf_colearn.hub.model_kind import CLASSES
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.training.checkpoints import load_weights
from hf_colearn.training.shards import MODEL_SHARDS


_STATES = (".bin", ".pt", ".pth", ".safetensors")  # endings of what a run is resumed with


def export_checkpoint(
    checkpoint: str | os.PathLike, folder: str | os.PathLike, model: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Writes the student of a checkpoint in shards as `model.safetensors`, with its configuration, record and code.

    It needs one process, and neither an accelerator nor the number of processes of the run. Of a run with `ema_decay` the
    student is the averages; heads that only training needs are left out.

    Args:
        checkpoint (`str`): A folder `checkpoint-{step}` of a run with FSDP2.
        folder (`str`): Another one, to write to.
        model ([`~transformers.PreTrainedModel`], *optional*): One of a class of your own, whose weights are overwritten; by
            default one of ours or of transformers is built by the checkpoint's configuration.

    Returns:
        [`~transformers.PreTrainedModel`]: The student that was written.

    Raises:
        ValueError: If the checkpoint has no shards, or those of adapters or of another model, or `folder` is the same.

    Example:

    ```python
    from hf_colearn.hub.sharded_checkpoint import export_checkpoint

    export_checkpoint("out/checkpoint-500", "student")
    student = CoLearningForImageClassification.from_pretrained("student")
    ```
    """
    source, target = Path(checkpoint), Path(folder)
    if (source / ADAPTER_CONFIG_NAME).is_file():
        raise ValueError(
            f"'{source}' holds adapters, and they are whole: `load_adapter(student, '{source}')` loads them."
        )
    if not (source / MODEL_SHARDS).is_dir():
        raise ValueError(
            f"'{source}' has no folder {MODEL_SHARDS}, so it is no checkpoint in shards: a model.safetensors is loaded "
            "by `from_pretrained` as it is."
        )
    if target.resolve() == source.resolve():
        raise ValueError(f"folder='{target}' is the checkpoint, which could then not be resumed: name another folder.")
    model = _built(source) if model is None else model
    load_weights(model, str(source))
    student: Any = model.without_training_heads() if isinstance(model, CheckedModel) else model
    student.save_pretrained(target)
    for path in source.iterdir():
        is_kept = path.suffix not in _STATES and path.name != TRAINER_STATE_NAME
        if path.is_file() and is_kept and not (target / path.name).exists():
            shutil.copy(path, target)
    return student


def _built(checkpoint: Path) -> Any:
    """A model by a checkpoint's configuration, with weights to be overwritten."""
    config: Any = AutoConfig.from_pretrained(checkpoint) if (checkpoint / CONFIG_NAME).is_file() else None
    name = "" if config is None else (config.architectures or [""])[0]
    known = CLASSES.get(name) or getattr(transformers, name, None)
    if known is None:
        raise ValueError(
            f"'{checkpoint}' is of {f'the class {name}' if name else 'a model without configuration'}, which neither "
            "hf_colearn nor transformers has: build the model and pass it as `model=`."
        )
    return known._from_config(config, dtype=config.dtype)
