"""A student as one file that torch alone can load and run, by `torch.export`.

Shapes: B inputs, T tokens, samples of a waveform or steps, C classes.
"""

import copy
import inspect
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_colearn.models.folding import relative_difference
from hf_colearn.models.fusion import HEAD_FUSIONS
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.models.student import CoLearningStudent


PROGRAM_NAME = "model.pt2"
LABELS_NAME = "labels.json"
_TEXT = ("input_ids", "token_type_ids", "inputs_embeds")


def export_program(
    student: PreTrainedModel, path: str | os.PathLike, example_inputs: Mapping[str, torch.Tensor]
) -> Path:
    """Writes a program that computes the student's logits and needs neither transformers nor hf_colearn.

    What only training uses is left out: training heads, an auxiliary head's latent branch, a learned temperature, and
    heads that the fusion does not read. Free are the batch size and, up to the backbone's limits, the lengths of texts,
    waveforms and sequences of features; sizes of images and spectrograms are the example's. The program is recorded at
    half of the example's length, and compared with the student at other lengths and batch sizes before it is saved.

    Args:
        student ([`PreTrainedModel`]): A co-learning student or multimodal model, a LoRA student merged; left as it is.
        path (`str`): A file, or a folder, in which the program becomes `model.pt2`; with the classes' names in it, as
            `labels.json`.
        example_inputs (`dict[str, torch.Tensor]`): One batch by the names of the student's inputs, on its device, of at
            least 4 steps. The program takes these and no others, such as an attention mask, or another modality.

    Returns:
        `Path`: The file.

    Raises:
        TypeError: If it is no co-learning model, such as one with adapters.
        ValueError: If an input is none of the student's or too short, or the program's logits differ from the student's.

    Example:

    ```python
    export_program(student, "student.pt2", {"pixel_values": pixels_BCHW})

    # anywhere, with torch alone
    labels = {"labels.json": ""}
    program = torch.export.load("student.pt2", extra_files=labels).module()
    logits_BC = program(pixel_values=pixels_BCHW)
    ```
    """
    if not isinstance(student, (CoLearningStudent, CoLearningForMultimodalClassification)):
        raise TypeError(
            f"{type(student).__name__} is no co-learning model: export the student itself; one with adapters is merged by "
            "`model.merge_and_unload()`."
        )
    unknown = sorted(example_inputs.keys() - set(student.input_names))
    if unknown or not example_inputs:
        raise ValueError(
            f"the example inputs are {list(example_inputs)}: pass one batch of what the student takes, some of "
            f"{', '.join(student.input_names)}."
        )
    free = {name: _free_dimensions(name, example_inputs) for name in example_inputs}
    reference = copy.deepcopy(student).eval()
    exported = _Logits(_without_training_parts(reference, example_inputs), example_inputs).eval()
    with torch.no_grad():
        recorded = _resized(example_inputs, free, copies=2, share=0.5)  # a batch of 1 would stay one
        program = torch.export.export(exported, (), recorded, dynamic_shapes=free)
        run = program.module()
        for inputs in (
            {name: value[:1].clone() for name, value in example_inputs.items()},
            example_inputs,
            _resized(example_inputs, free, copies=3, share=0.75),
        ):
            _compare(reference, run, inputs)
    path = Path(path)
    path = path / PROGRAM_NAME if path.is_dir() else path
    torch.export.save(program, path, extra_files={LABELS_NAME: json.dumps(student.config.id2label)})
    return path


class _Logits(nn.Module):
    """The logits alone, `[B, C]`."""

    def __init__(self, model: nn.Module, names: Iterable[str]):
        super().__init__()
        self.model = model

        def forward(**inputs: torch.Tensor) -> torch.Tensor:
            return self.model(**inputs).logits

        # torch.export reads the inputs' names from the signature, and has free dimensions of named inputs alone.
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def _without_training_parts(model: Any, inputs: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy with the same logits for these inputs."""
    if isinstance(model, CoLearningStudent) and model.config.head == "auxiliary":
        return model.to_transformers()
    model = model.without_training_heads()
    if isinstance(model, CoLearningStudent):
        return model
    model._subsets = []  # predictions from fewer modalities, for evaluation
    if model.config.learned_temperature:
        model.config.learned_temperature = False
        del model.log_scale
    for name, encoder in model.encoders.items():
        if model.config.fusion not in HEAD_FUSIONS:
            encoder.classifier = nn.Identity()
        if not any(key.startswith(f"{name}_") for key in inputs):  # the modality is absent, and nothing runs on it
            encoder.backbone = None
    return model


def _free_dimensions(name: str, inputs: Mapping[str, torch.Tensor]) -> dict[int, Any]:
    """The dimensions that may vary: the batch's, and the length of a text, a waveform or a sequence of features."""
    # A mask is as long as what it masks: the inputs of the same modality, or of the student.
    masked = name.removesuffix("attention_mask")
    has_length = any(
        key.startswith(masked)
        and (
            key.endswith(_TEXT)
            or (key.endswith("input_values") and value.ndim == 2)
            or (key.endswith("features") and not key.endswith("input_features") and value.ndim == 3)
        )
        for key, value in inputs.items()
    )
    if has_length and inputs[name].shape[1] < 4:
        raise ValueError(f"'{name}' is of shape {tuple(inputs[name].shape)}: pass an example of at least 4 steps.")
    return dict.fromkeys((0, 1) if has_length else (0,), torch.export.Dim.DYNAMIC)


def _resized(
    inputs: Mapping[str, torch.Tensor], free: Mapping[str, dict[int, Any]], copies: int, share: float
) -> dict[str, torch.Tensor]:
    """Copies of a batch in one, with a share of their length where that is free."""
    batch = {name: torch.cat([value] * copies) for name, value in inputs.items()}
    return {
        name: value[:, : math.ceil(share * value.shape[1])].clone() if 1 in free[name] else value
        for name, value in batch.items()
    }


def _compare(student: PreTrainedModel, run: nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
    expected, found = student(**inputs).logits, run(**inputs)
    if error := relative_difference(expected, found):
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        raise ValueError(
            f"the exported program gives other logits than the student on inputs of shape {shapes} (relative difference "
            f"{error:.2g}), so it is not saved: this backbone cannot be exported with free sizes."
        )
