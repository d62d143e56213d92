"""From the inputs of every modality to its pooled features, in one go or stage by stage; travels with every multimodal
checkpoint.

Shapes: B samples, N of which have the modality, M modalities, T frames, K channels of a feature map, H a backbone's width.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

from .backbones import backbone_width
from .modality_mask import Rows
from .pooling import pool_outputs


# The backbones that run stage by stage, and what they call the layers before the first.
STEMS = {"resnet": "embedder", "regnet": "embedder", "convnext": "embeddings", "convnextv2": "embeddings"}


def pooled_features(encoder: Any, inputs: Any, index: Rows, size: int) -> torch.Tensor:
    """The backbone's pooled features `[B, H]`: run on the rows that are present, 0 in the others."""
    if index is None:
        return encoder.encode(**inputs)[0]
    if not len(index):
        width = backbone_width(encoder.config.backbone_config)
        return torch.zeros(size, width, device=encoder.device, dtype=encoder.dtype)
    pooled = encoder.encode(**{column: value[index] for column, value in inputs.items()})[0]
    return _whole(pooled, index, size)


def _whole(values: torch.Tensor, index: Rows, size: int) -> torch.Tensor:
    """Values of the rows that are present, `[N, ...]`, among 0 in the others, `[B, ...]`."""
    return values if index is None else values.new_zeros(size, *values.shape[1:]).index_copy(0, index, values)


# ---- stage by stage ----
@dataclass
class StagedRun:
    """An encoder that has run up to a stage: its feature maps `[N * T, K, height, width]`, None where N is 0."""

    maps: torch.Tensor | None
    index: Rows
    frames: int  # T; 1 of images

    def squeezed(self) -> Any:
        """The mean over space and frames, `[N, K]`."""
        return self.maps.mean((2, 3)).unflatten(0, (-1, self.frames)).mean(1)  # type: ignore[union-attr]

    def gated(self, gates_BK: torch.Tensor) -> "StagedRun":
        """With every channel times its gate, in all frames of a sample alike."""
        if self.maps is None:
            return self
        gates_NK = gates_BK if self.index is None else gates_BK[self.index]
        gates = gates_NK.repeat_interleave(self.frames, dim=0) if self.frames > 1 else gates_NK
        return StagedRun(self.maps * gates[:, :, None, None], self.index, self.frames)

    def after(self, encoder: Any, stages: Iterable[int]) -> "StagedRun":
        """With these stages, the first being 1, behind it."""
        maps = self.maps
        for stage in () if maps is None else stages:
            maps = encoder.backbone.encoder.stages[stage - 1](maps)
        return StagedRun(maps, self.index, self.frames)


def begin(encoder: Any, inputs: Any, index: Rows, stage: int) -> StagedRun:
    """Runs an encoder up to a stage, this one included, on the rows that are present."""
    if index is not None and not len(index):
        return StagedRun(None, index, 1)
    pixels = inputs["pixel_values"] if index is None else inputs["pixel_values"][index]
    frames = pixels.shape[1] if pixels.ndim == 5 else 1
    stem = getattr(encoder.backbone, STEMS[encoder.config.backbone_config.model_type])
    run = StagedRun(stem(pixels.flatten(0, 1) if pixels.ndim == 5 else pixels), index, frames)
    return run.after(encoder, range(1, stage + 1))


def finish(encoder: Any, run: StagedRun, size: int) -> torch.Tensor:
    """What the backbone and the pooling make of the last stage's maps: `[B, H]`, 0 where the modality is absent."""
    if run.maps is None:
        return pooled_features(encoder, None, run.index, size)
    backbone = encoder.backbone
    if encoder.config.backbone_config.model_type.startswith("convnext"):
        pooler_output = backbone.layernorm(run.maps.mean((2, 3)))
    else:
        pooler_output = backbone.pooler(run.maps)
    outputs = BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=run.maps, pooler_output=pooler_output)
    pooled = pool_outputs(backbone, outputs, encoder.config.pooling)
    return _whole(pooled.unflatten(0, (-1, run.frames)).mean(1), run.index, size)


def run_stages(
    encoders: Sequence[Any],
    runs: Sequence[StagedRun],
    fusion: Any,
    mask_BM: torch.Tensor,
    curated: int | None,
    is_tracked: bool,
) -> list[torch.Tensor]:
    """Every modality's pooled features `[B, H]`, from where [`begin`] has left them: an exchange of channels
    ([`~hf_colearn.models.mmtm_fusion.MMTMFusion`]) among those of the mask after each of the fusion's stages."""
    # `shape[0]` and not `len`, which would make the batch size of an exported program a constant
    size, count = mask_BM.shape[0], len(encoders[0].config.backbone_config.hidden_sizes)
    for exchange, stage, following in zip(fusion.exchanges, fusion.stages, [*fusion.stages[1:], count], strict=True):
        squeezed = [
            layer.weight.new_zeros(size, layer.out_features)
            if run.maps is None
            else _whole(run.squeezed(), run.index, size)
            for run, layer in zip(runs, exchange.excitations, strict=True)
        ]
        gates = exchange.gates(squeezed, mask_BM, curated, is_tracked)
        runs = [
            run.gated(gates_BK).after(encoder, range(stage + 1, following + 1))
            for encoder, run, gates_BK in zip(encoders, runs, gates, strict=True)
        ]
    return [finish(encoder, run, size) for encoder, run in zip(encoders, runs, strict=True)]


def check_stages(stages: Sequence[int], modalities: Mapping[str, Any]) -> None:
    """A ValueError where the backbones of the modalities' configurations have no such stages in common."""
    for name, config in modalities.items():
        if config.backbone_config.model_type not in STEMS:
            raise ValueError(
                f"stages={list(stages)}, and the backbone '{config.backbone_config.model_type}' of '{name}' does not run stage "
                f"by stage: take one of {', '.join(STEMS)} for every modality, or leave stages out, so that pooled features "
                "are exchanged."
            )
    counts = {name: len(config.backbone_config.hidden_sizes) for name, config in modalities.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"stages={list(stages)}, and the backbones have different numbers of stages, {counts}: take backbones with as many."
        )
    count = next(iter(counts.values()))
    if not 1 <= min(stages) <= max(stages) <= count:
        raise ValueError(f"stages={list(stages)}: the backbones' stages are 1 to {count}.")


def stage_widths(modalities: Mapping[str, Any]) -> list[list[int]]:
    """Of every modality's configuration the channels after each stage."""
    return [list(config.backbone_config.hidden_sizes) for config in modalities.values()]
