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
    """The stock model that computes the student's logits: without a norm, classifier(latent(x)) is one Linear layer.

    Audio models of transformers project, pool and classify; there the latent head becomes the projector. The model is in
    evaluation mode, on the student's device.

    Raises:
        ValueError: With the reason, where no stock model computes the same logits.
    """
    config = student.config
    if config.latent_norm != "none":
        raise ValueError(
            "this student cannot become a stock checkpoint: the LayerNorm between latent and classifier is not "
            "linear. Train with latent_norm='none' or head='auxiliary', or load it with hf_colearn or with "
            "trust_remote_code=True."
        )
    if config.classifier_dim is not None:
        raise ValueError(
            f"this student cannot become a stock checkpoint: its classifier has a hidden layer (classifier_dim="
            f"{config.classifier_dim}), which no stock model has. Load it with hf_colearn or with trust_remote_code=True."
        )
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

    head = [module for module in _classifier(stock).modules() if isinstance(module, nn.Linear)]
    latent, classifier = student.latent_head, student.classifier
    with torch.no_grad():
        if len(head) == 1 and isinstance(getattr(stock, "projector", None), nn.Linear):
            _copy_linear(stock.projector, latent.weight, latent.bias)
            _copy_linear(head[0], classifier.weight, classifier.bias)
        elif len(head) == 1 and head[0].in_features == latent.in_features:
            _copy_linear(head[0], classifier.weight @ latent.weight, classifier(latent.bias))
        else:
            raise ValueError(
                f"this student cannot become a stock checkpoint: the head of {type(stock).__name__} is not one Linear "
                "layer on the pooled features. Load it with hf_colearn or with trust_remote_code=True."
            )
    _check_logits(student, stock)
    return stock


def _classifier(stock: PreTrainedModel) -> nn.Module:
    classifier = getattr(stock, "classifier", None)
    return classifier if isinstance(classifier, nn.Module) else nn.Identity()


def _copy_linear(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})


@torch.no_grad()
def _check_logits(student: PreTrainedModel, stock: PreTrainedModel) -> None:
    """Compares both on random inputs; the tolerance is that of re-associated sums in the weights' own precision."""
    inputs = _random_inputs(student)
    modes = {module: module.training for module in student.modules()}
    expected, found = student.eval()(**inputs).logits, stock(**inputs).logits
    for module, training in modes.items():  # some may be frozen in evaluation mode
        module.training = training
    tolerance = 1e-4 if student.dtype == torch.float32 else 5e-2
    error = (expected - found).abs().max() / expected.abs().max().clamp(min=1e-6)
    if not error <= tolerance:
        raise ValueError(
            f"this student cannot become a stock checkpoint: {type(stock).__name__} gives other logits (relative "
            f"difference {error:.2g}), since it pools its features in another way than "
            f"pooling='{student.config.pooling}'. Load it with hf_colearn or with trust_remote_code=True."
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
