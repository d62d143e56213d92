"""Transformer layers that several modalities share, and the backbone that they are with one modality's stem.

This file travels with every checkpoint, see [`~hf_colearn.models.student_base`]. Shapes: B inputs, T tokens, H the trunk's
width.
"""

import os
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention
from transformers.models.vit.modeling_vit import ViTAttention, ViTLayer
from transformers.utils.output_capturing import capture_outputs

from .loading import load_model
from .stems import Stem, make_stem
from .trunk_configuration import STEM_INPUTS, TrunkBackboneConfig


_RECORDED = {"hidden_states": [ViTLayer, BertLayer], "attentions": [ViTAttention, BertSelfAttention]}


class _OfTransformers(PreTrainedModel):
    """What the layers of transformers can do, whoever holds them."""

    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ["ViTLayer", "BertLayer"]
    _can_record_outputs = _RECORDED


class Trunk(_OfTransformers):
    """The transformer layers of a ViT or a BERT, with the layer norm that belongs to them and without embeddings.

    Args:
        config ([`ViTConfig`] or [`BertConfig`]): Of the layers.
        causal (`bool`, *optional*, defaults to `False`): Whether a token sees those before it alone.
    """

    main_input_name = "inputs_embeds"

    def __init__(self, config: PreTrainedConfig, causal: bool = False):
        super().__init__(config)
        layer = ViTLayer if config.model_type == "vit" else BertLayer
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.causal = causal
        for module in self.modules():
            if hasattr(module, "is_causal"):  # an attention, which is causal by it where there is no mask
                module.is_causal = causal
        self.post_init()

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None = None, **options
    ) -> torch.Tensor:
        """Tokens `[B, T, H]` to tokens; padding, where the mask `[B, T]` is 0, is seen by none."""
        is_first = self.config.model_type == "bert"  # a BERT's layers take normalised tokens, a ViT's give others
        hidden_BTH = self.dropout(self.layernorm(inputs_embeds) if is_first else inputs_embeds)
        if self.causal:
            mask: Any = create_causal_mask(self.config, hidden_BTH, attention_mask, past_key_values=None)
        else:
            # Without a mask nothing is hidden; whether one hides anything is not looked at, which would wait for the device.
            skip = attention_mask is None
            mask = create_bidirectional_mask(self.config, hidden_BTH, attention_mask, allow_is_bidirectional_skip=skip)
        for layer in self.layers:
            hidden_BTH = layer(hidden_BTH, mask, **options)
        return hidden_BTH if is_first else self.layernorm(hidden_BTH)

    def load_layers(self, checkpoint: str | os.PathLike, **kwargs: Any) -> None:
        """Takes the layers' weights over from a checkpoint of a ViT or a BERT."""
        stock, _ = load_model(AutoModel, checkpoint, dtype=self.dtype, trust_remote_code=False, **kwargs)
        is_bert = self.config.model_type == "bert"
        self.layers.load_state_dict((stock.encoder.layer if is_bert else stock.layers).state_dict())
        self.layernorm.load_state_dict((stock.embeddings.LayerNorm if is_bert else stock.layernorm).state_dict())


class TrunkBackbone(_OfTransformers):
    """One modality's stem and the trunk as a backbone: what [`CoLearningForManyTasks.student`] gives a student."""

    config_class = TrunkBackboneConfig
    config: TrunkBackboneConfig
    base_model_prefix = "trunk_backbone"

    def __init__(self, config: TrunkBackboneConfig):
        super().__init__(config)
        self.main_input_name = STEM_INPUTS[config.stem["kind"]][0]
        self.stem = make_stem(config.stem, config.hidden_size)
        self.trunk = Trunk(config.trunk_config, config.causal)
        self.post_init()

    def _init_weights(self, module):
        # The trunk initialises itself.
        if isinstance(module, Stem):
            module.reset_parameters()

    def get_input_embeddings(self):
        if self.config.stem["kind"] != "tokens":
            raise NotImplementedError(f"a stem of kind '{self.config.stem['kind']}' has no embeddings of tokens.")
        return self.stem.embedding

    def set_input_embeddings(self, value):
        self.stem.embedding = value

    def resize_token_embeddings(self, *args, **kwargs):
        # The vocabulary's size stands among the stem's options.
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.config.stem = {**self.config.stem, "vocab_size": embeddings.num_embeddings}
        return embeddings

    @capture_outputs
    def forward(
        self,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **inputs: torch.Tensor,
    ) -> BaseModelOutput:
        """The inputs of the stem, see [`TrunkBackboneConfig`]."""
        tokens_BTH, mask_BT = self.stem(**inputs)
        options = {"output_attentions": True} if output_attentions else {}
        return BaseModelOutput(last_hidden_state=self.trunk(tokens_BTH, mask_BT, **options))


def as_own_config(config: Any) -> Any:
    """A configuration of a trunk as this file knows it: with `trust_remote_code` a configuration's code is loaded apart from
    the model's, as other classes. Any other as it is."""
    if getattr(config, "model_type", None) != TrunkBackboneConfig.model_type or isinstance(
        config, TrunkBackboneConfig
    ):
        return config
    return TrunkBackboneConfig.from_dict(config.to_dict())


AutoModel.register(TrunkBackboneConfig, TrunkBackbone)
