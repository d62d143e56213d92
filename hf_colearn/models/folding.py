"""Folding a bottleneck student into a stock transformers checkpoint, checked on logits.

Shapes: H backbone width, D latent width, C classes.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .backbones import encoder_of


def fold_bottleneck(student: PreTrainedModel, stock_class: Any) -> PreTrainedModel:
    """The stock model, in evaluation mode, that computes the student's logits: without a norm, classifier(latent(x)) is one
    Linear layer. In transformers' audio models, which project, pool and classify, the latent head becomes the projector.
    """
    config = student.config
    if config.latent_norm != "none":
        raise _refusal(
            "the LayerNorm between latent and classifier is not linear (train with latent_norm='none' or "
            "head='auxiliary')"
        )
    if config.classifier_dim is not None:
        raise _refusal(f"its classifier has a hidden layer (classifier_dim={config.classifier_dim})")
    stock_config = copy.deepcopy(config.backbone_config)
    stock_config.num_labels, stock_config.problem_type = config.num_labels, config.problem_type
    stock_config.id2label, stock_config.label2id = config.id2label, config.label2id
    if hasattr(stock_config, "classifier_proj_size"):
        stock_config.classifier_proj_size = config.latent_dim
    try:
        stock = stock_class.from_config(stock_config)
    except ValueError as error:
        kind = config.backbone_config.model_type
        raise ValueError(f"transformers has no {stock_class.__name__} of '{kind}' to export to.") from error
    stock = stock.to(student.device, student.dtype).eval()
    encoder_of(stock).load_state_dict(student.backbone.state_dict(), strict=False)

    classifier = getattr(stock, "classifier", None)
    modules = classifier.modules() if isinstance(classifier, nn.Module) else ()
    head = [module for module in modules if isinstance(module, nn.Linear)]
    latent, classifier = student.latent_head, student.classifier
    with torch.no_grad():
        if len(head) == 1 and isinstance(getattr(stock, "projector", None), nn.Linear):
            _copy_linear(stock.projector, latent.weight, latent.bias)
            _copy_linear(head[0], classifier.weight, classifier.bias)
        elif len(head) == 1 and head[0].in_features == latent.in_features:
            _copy_linear(head[0], classifier.weight @ latent.weight, classifier(latent.bias))
        else:
            raise _refusal(f"the head of {type(stock).__name__} is not one Linear layer on the pooled features")
    _check_logits(student, stock)
    return stock


def _refusal(reason: str) -> ValueError:
    return ValueError(
        f"this student cannot become a stock checkpoint: {reason}. Load it with hf_colearn or with trust_remote_code=True."
    )


def relative_difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Of two models' logits; 0 within the tolerance of re-associated sums in the weights' own precision."""
    error = ((expected - found).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
    return 0.0 if error <= (1e-4 if expected.dtype == torch.float32 else 5e-2) else error


def _copy_linear(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})


@torch.no_grad()
def _check_logits(student: PreTrainedModel, stock: PreTrainedModel) -> None:
    """Compares both on random inputs."""
    inputs = _random_inputs(student)
    modes = {module: module.training for module in student.modules()}
    expected, found = student.eval()(**inputs).logits, stock(**inputs).logits
    for module, training in modes.items():  # some may be frozen in evaluation mode
        module.training = training
    if error := relative_difference(expected, found):
        raise _refusal(
            f"{type(stock).__name__} gives other logits (relative difference {error:.2g}), since it pools its features in "
            f"another way than pooling='{student.config.pooling}'"
        )


def _random_inputs(student: PreTrainedModel) -> dict[str, torch.Tensor]:
    config, device, dtype = student.config.backbone_config, student.device, student.dtype
    generator = torch.Generator().manual_seed(0)
    if student.main_input_name == "input_ids":
        ids = torch.randint(3, config.vocab_size, (2, 12), generator=generator)
        return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
    if student.main_input_name == "pixel_values":
        size = config.image_size if getattr(config, "image_size", None) is not None else 64
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        shape: tuple[int, ...] = (2, config.num_channels, height, width)
    elif hasattr(config, "feature_projection_input_dim"):  # Wav2Vec2-BERT
        shape = (2, 50, config.feature_projection_input_dim)
    elif student.main_input_name == "input_features":
        shape = (2, config.num_mel_bins, 2 * config.max_source_positions)
    elif hasattr(config, "num_mel_bins"):
        shape = (2, config.max_length, config.num_mel_bins)
    else:
        shape = (2, 16000)
    inputs = {student.main_input_name: torch.randn(shape, generator=generator).to(device, dtype)}
    if len(shape) == 2 or student.config.pooling == "masked_mean":  # waveforms come with a mask, spectrograms may
        inputs["attention_mask"] = torch.ones(2, shape[-1], dtype=torch.long, device=device)
        inputs["attention_mask"][1, shape[-1] // 2 :] = 0
    return inputs
