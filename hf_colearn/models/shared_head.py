"""One linear layer as the head of all modalities; travels with every multimodal checkpoint."""

from collections.abc import Iterable, Mapping
from typing import Any


def tied_names(modalities: Iterable[str]) -> dict[str, str]:
    """The names of the heads' weights, each to that of the first modality's, as transformers ties weights."""
    first, *others = modalities
    return {
        f"encoders.{name}.classifier.{weight}": f"encoders.{first}.classifier.{weight}"
        for name in others
        for weight in ("weight", "bias")
    }


def tie_classifiers(encoders: Mapping[str, Any]) -> None:
    """Gives every head the first one's weights; where adapters hold a copy of each, all copies alike."""
    first, *others = (list(encoder.classifier.modules()) for encoder in encoders.values())
    for modules in others:
        for source, target in zip(first, modules, strict=True):
            for name, weight in source._parameters.items():
                setattr(target, name, weight)


def check_tied(encoders: Mapping[str, Any]) -> None:
    """A ValueError where the heads have come to be several."""
    first, *others = encoders.values()
    if any(encoder.classifier.weight is not first.classifier.weight for encoder in others):
        raise ValueError(
            "shared_classifier=True, and the modalities' heads hold weights of their own now: something has copied each, such "
            "as adapters with the heads among their modules_to_save. Make adapters by `hf_colearn.models.lora.with_lora`, or "
            "call `model.tie_classifiers()` before the optimizer is made."
        )
