"""LoRA students: adapters in the backbone, heads trained whole, and what is saved of them."""

import copy
import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel


def with_lora(student: PreTrainedModel, rank: int) -> PeftModel:
    """The student with LoRA adapters in every linear layer of its backbone, its heads trained whole.

    A backbone without linear layers (ResNet) gets adapters in its convolutions. Batch norms are trained and saved with
    the adapters, or their running statistics would be lost with the base model. A frozen feature encoder stays so.

    Args:
        student ([`PreTrainedModel`]): A co-learning student or multimodal model.
        rank (`int`): Of the adapters; they are scaled by 2 (`lora_alpha = 2 * rank`).
    """
    modules = dict(student.named_modules())
    frozen = [
        name for name, module in modules.items() if hasattr(module, "_freeze_parameters") and not _learns(module)
    ]

    backbones = [name for name in modules if name.split(".")[-1] == "backbone"]

    def inside(kind: type) -> list[str]:
        """The modules of this kind in any backbone that are not frozen."""
        return [
            name
            for name, module in modules.items()
            if isinstance(module, kind)
            and name.startswith(tuple(f"{backbone}." for backbone in backbones))
            and not name.startswith(tuple(f"{prefix}." for prefix in frozen))
        ]

    linear, convolutions = inside(nn.Linear), inside(nn.Conv2d)
    targets = []
    for backbone in backbones:
        of_it = [[name for name in found if name.startswith(f"{backbone}.")] for found in (linear, convolutions)]
        targets += of_it[0] or of_it[1]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets,
        modules_to_save=[*_heads(student), *inside(nn.modules.batchnorm._BatchNorm)],
    )
    return get_peft_model(student, config)


def _heads(module: nn.Module, prefix: str = "") -> list[str]:
    """The largest modules outside of all backbones."""
    heads = []
    for name, child in module.named_children():
        if name == "backbone":
            continue
        if any(path.split(".")[-1] == "backbone" for path, _ in child.named_modules()):
            heads += _heads(child, f"{prefix}{name}.")
        elif _learns(child):
            heads.append(f"{prefix}{name}")
    return heads


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def save_student(model: Any, processor: Any, folder: Path) -> None:
    """Writes what users load: the student with its processor, and for LoRA the `adapter` and its `base` beside it."""
    for earlier in ("adapter", "base"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    if isinstance(model, PeftModel):
        base: Any = copy.deepcopy(model).unload()
        base.save_pretrained(folder / "base")
        model.peft_config["default"].base_model_name_or_path = str(folder / "base")
        model.save_pretrained(str(folder / "adapter"))
        model = copy.deepcopy(model).merge_and_unload()
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
