"""What a backbone of transformers is like: where its encoder is, how wide its features are, how it pools them."""

from transformers import PreTrainedConfig, PreTrainedModel


def headless(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder model, any other model as it is."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder inside a stock classification model; Whisper's has another name than `base_model` looks for."""
    if model.base_model is model:
        return getattr(model, "encoder", model)
    return model.base_model


def is_convolutional(config: PreTrainedConfig) -> bool:
    """Whether the backbone gives feature maps (ResNet, ConvNext, ...), whose stages have widths of their own."""
    return getattr(config, "hidden_sizes", None) is not None


def pools_without_weights(encoder: PreTrainedModel) -> bool:
    """Whether the backbone comes with a pooler that has nothing to learn, such as Swin's mean over its patches."""
    pooler = getattr(encoder, "pooler", None)
    return pooler is not None and not any(True for _ in pooler.parameters())


def is_causal(backbone: PreTrainedModel) -> bool:
    """Whether a token sees only those before it (GPT-2, Llama, ...), so that the first knows nothing of the rest."""
    return any(getattr(module, "is_causal", False) for module in backbone.modules())


def backbone_width(config: PreTrainedConfig) -> int:
    """H, the width of the backbone's last hidden state.

    Raises:
        ValueError: If its configuration does not tell.
    """
    if is_convolutional(config):
        return config.hidden_sizes[-1]
    for name in ("hidden_size", "hidden_dim", "d_model"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    raise ValueError(
        f"the configuration of '{config.model_type}' tells no width of its features (hidden_size, hidden_sizes, "
        "hidden_dim or d_model): choose another backbone."
    )


def drop_unused_pooler(backbone: PreTrainedModel, pooling: str) -> None:
    """Removes a pooler with weights that nothing would read: they would get no gradient, which stops plain DDP."""
    if pooling != "pooler" and getattr(backbone, "pooler", None) is not None and not pools_without_weights(backbone):
        backbone.pooler = None
