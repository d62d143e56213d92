"""LoRA students: adapters in the backbone, heads trained whole, and what is saved of them."""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from .checkpoint import current_names
from .training_heads import remove_training_heads


def with_lora(student: PreTrainedModel, rank: int) -> PeftModel:
    """The student with LoRA adapters in every linear layer of its backbone, its heads trained whole.

    A backbone without linear layers (ResNet) gets them in its convolutions. Batch norms are trained and saved with them,
    or their running statistics would be lost. A frozen feature encoder stays so.

    Args:
        student ([`PreTrainedModel`]): A co-learning student or multimodal model.
        rank (`int`): Of the adapters; they are scaled by 2 (`lora_alpha = 2 * rank`).
    """
    modules = dict(student.named_modules())
    frozen = tuple(
        f"{name}." for name, module in modules.items() if hasattr(module, "_freeze_parameters") and not _learns(module)
    )
    embeddings = {id(module.weight) for module in modules.values() if isinstance(module, nn.Embedding)}
    targets, norms = [], []
    for backbone in [name for name in modules if name.split(".")[-1] == "backbone"]:
        inside = [name for name in modules if name.startswith(f"{backbone}.") and not name.startswith(frozen)]
        linear, convolutions, batch_norms = (
            [name for name in inside if isinstance(modules[name], kind)]
            for kind in (nn.Linear, nn.Conv2d, nn.modules.batchnorm._BatchNorm)
        )
        # A language model's decoder may have the embeddings' weights, which an adapter, merged, would change with it.
        linear = [name for name in linear if id(modules[name].weight) not in embeddings]
        targets += linear or convolutions
        norms += batch_norms
    saved = [*_heads(student), *norms]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, modules_to_save=saved)
    return _with_one_head(get_peft_model(student, config))


def _with_one_head(model: Any) -> Any:
    """The model with adapters, of which PEFT gives a shared head a copy for every modality."""
    base = model.get_base_model()
    if getattr(base.config, "shared_classifier", False):
        base.tie_classifiers()
    return model


def load_adapter(
    model: PreTrainedModel | PeftModel, folder: str | os.PathLike, is_trainable: bool = False, **hub_kwargs: Any
) -> PeftModel:
    """Loads an adapter that any version of this package has saved: its modules may have their former names.

    Args:
        model ([`PreTrainedModel`] or [`PeftModel`]): The base model; or one with an adapter, which is overwritten.
        folder (`str`): Of the adapter, or of a checkpoint with one; or a Hub id, for a base model.
        is_trainable (`bool`, *optional*, defaults to `False`): Whether a base model's adapter will be trained on.
        hub_kwargs: For `PeftModel.from_pretrained`, such as `subfolder` and `revision`.

    Raises:
        ValueError: If its weights are not those of the model's adapter.

    Example:

    ```python
    base = CoLearningForMultimodalClassification.from_pretrained("student/base")
    adapted = load_adapter(base, "student/adapter").eval()
    ```
    """
    base = base_model(model)
    former = getattr(base, "_checkpoint_conversion_mapping", {})
    if isinstance(model, PeftModel):
        try:
            # Its weights keep their dtype, where PEFT would make float32 of it.
            found = model.load_adapter(
                str(folder), model.active_adapter, is_trainable=True, autocast_adapter_dtype=False, key_mapping=former
            )
            if wrong := [*found.missing_keys, *found.unexpected_keys]:
                raise KeyError(wrong[0])
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"'{folder}' holds the adapter of another model or with other layers: {error} does not fit. Resume with "
                "the model that wrote it."
            ) from error
        return model
    config: Any = PeftConfig.from_pretrained(str(folder), **hub_kwargs)
    modules = dict(base.named_modules())
    for field in ("target_modules", "modules_to_save"):
        names = getattr(config, field)
        if isinstance(names, (list, set)):  # and not an expression
            setattr(config, field, [*current_names(dict.fromkeys(names), modules)])
    loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable, config=config, **hub_kwargs)
    return _with_one_head(loaded)


def base_model(model: Any) -> Any:
    """The model within adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def trained_layer(module: nn.Module) -> nn.Module:
    """The copy of a module that PEFT trains in its place (`modules_to_save`), or the module itself."""
    if not isinstance(module, ModulesToSaveWrapper):
        return module
    adapters = [] if module.disable_adapters else module.active_adapters
    return module.modules_to_save[adapters[0]] if adapters else module.original_module


def _heads(module: nn.Module, prefix: str = "") -> list[str]:
    """The largest modules outside of all backbones that PEFT can save, which a `ModuleDict` is not."""
    heads = []
    for name, child in module.named_children():
        holds_backbone = any(path.split(".")[-1] == "backbone" for path, _ in child.named_modules())
        if name != "backbone" and (holds_backbone or isinstance(child, nn.ModuleDict)):
            heads += _heads(child, f"{prefix}{name}.")
        elif name != "backbone" and _learns(child):
            heads.append(f"{prefix}{name}")
    return heads


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def save_student(model: Any, processor: Any, folder: Path) -> None:
    """Writes the student without training heads, its processor, and for LoRA the `adapter` and its `base` beside it."""
    for earlier in ("adapter", "base"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    if isinstance(model, PeftModel):
        model = copy.deepcopy(model)
        remove_training_heads(model.get_base_model())
        base: Any = copy.deepcopy(model).unload()
        base.save_pretrained(folder / "base")
        config = model.peft_config["default"]
        config.modules_to_save = [name for name in config.modules_to_save if not name.startswith("training_heads.")]
        config.base_model_name_or_path = str(folder / "base")
        model.save_pretrained(str(folder / "adapter"))
        model = model.merge_and_unload()
    elif getattr(model.config, "training_heads", None):
        model = model.without_training_heads()
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
