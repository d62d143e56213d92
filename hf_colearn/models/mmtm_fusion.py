"""Channel exchange between the encoders of several modalities; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, C classes, H_m the channels of a modality where they are exchanged.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .fusion_base import masked
from .sum_fusion import SumFusion


class MMTMFusion(SumFusion):
    r"""Channel exchange between the modalities (MMTM, Joze et al., CVPR 2020), then the mean of their logits.

    The features of all modalities, a mean over space (and frames) each, are squeezed to a joint vector,
    \\(j = \text{relu}(W [s_1, ..., s_M] + b)\\), with zeros for an absent modality; from it each modality gets gates
    \\(2 \sigma(W_m j + b_m)\\) on its channels.

    Without `stages` it acts once, on pooled features, so that any backbone works. With them it acts as published, on the
    feature maps after these stages of convolutional backbones, which then run stage by stage; each exchange is an
    `MMTMFusion` of that stage's channels, in `exchanges`. In evaluation mode the predictions from fewer modalities
    (`subset_logits`) run what follows the first exchange again, for every subset; so does `modality_dropout` once in
    training.

    For each modality an exchange keeps the running mean of its gates in buffers, a cumulative mean over all training samples
    that have the modality (1 before the first), in the checkpoint. Where `curated` is the number of a modality, its gates in
    training are that mean, and no mean is updated (Greedy, Wu et al., ICML 2022); in evaluation mode gates are always
    computed. DDP broadcasts the buffers of process 0 at each forward, as it does a batch norm's: the mean is over the samples
    that process 0 had. The code released for Greedy computes the second modality's mean from the first one's gates, counts
    curated steps in, and leaves the means out of its checkpoints.

    Options:
        ratio (`int`, *optional*, defaults to 4): The joint vector has sum(H_m) / ratio channels, as the paper has it; its
            released code has twice as many.
        stages (`list[int]`, *optional*): After which stages channels are exchanged, the first being 1, in ascending order.
    """

    options = ("ratio", "stages")
    exchanges: Any
    excitations: Any
    gate_counts: torch.Tensor

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        ratio, stages = options.get("ratio", 4), options.get("stages", [1])
        if type(ratio) is not int or ratio < 1:
            raise ValueError(
                f"ratio={ratio!r}: the joint vector is the channels / ratio wide, so pass an integer from 1 on."
            )
        are_numbers = isinstance(stages, (list, tuple)) and all(type(stage) is int for stage in stages)
        if not are_numbers or not stages or list(stages) != sorted(set(stages)):
            raise ValueError(
                f"stages={stages!r}: pass the numbers of stages in ascending order, such as [1, 2] for the first two, or leave "
                "it out for an exchange of pooled features."
            )

    def __init__(
        self,
        widths: list[int],
        latent_dim: int,
        num_labels: int,
        ratio: int = 4,
        stages: Sequence[int] = (),
        stage_widths: Sequence[list[int]] = (),  # of every modality, the channels after each of its stages
    ):
        super().__init__(widths, latent_dim, num_labels)
        self.stages = tuple(stages)
        self.curated: int | None = None  # of a training that curates, and not of the model: it is not saved
        if self.stages:
            channels = [[of_stages[stage - 1] for of_stages in stage_widths] for stage in self.stages]
            self.exchanges = nn.ModuleList(MMTMFusion(each, latent_dim, num_labels, ratio) for each in channels)
            return
        joint = max(1, sum(widths) // ratio)
        self.squeeze = nn.Linear(sum(widths), joint)
        self.excitations = nn.ModuleList(nn.Linear(joint, width) for width in widths)
        for i, width in enumerate(widths):
            self.register_buffer(f"gate_mean_{i}", torch.ones(width, dtype=torch.float32))
        self.register_buffer("gate_counts", torch.zeros(len(widths), dtype=torch.long))

    def reset_parameters(self) -> None:
        if not self.stages:
            for i in range(len(self.excitations)):
                nn.init.ones_(getattr(self, f"gate_mean_{i}"))
            nn.init.zeros_(self.gate_counts)

    def gates(
        self, squeezed: list[torch.Tensor], mask_BM: torch.Tensor, curated: int | None = None, is_tracked: bool = True
    ) -> list[torch.Tensor]:
        """Every modality's gates on its channels.

        Args:
            squeezed (`list[torch.Tensor]`): M tensors `(B, H_m)`, what each modality shows.
            mask_BM (`torch.BoolTensor` of shape `(B, M)`): What is read of them.
            curated (`int`, *optional*): The modality whose gates are its running mean, in training.
            is_tracked (`bool`, *optional*, defaults to `True`): Whether training updates the means by these gates.

        Returns:
            `list[torch.Tensor]`: M tensors `(B, H_m)` between 0 and 2.
        """
        joint_BJ = self.squeeze(torch.cat(masked(squeezed, mask_BM), dim=1)).relu()
        gates = [2 * layer(joint_BJ).sigmoid() for layer in self.excitations]
        if self.training and curated is not None:
            mean_H = getattr(self, f"gate_mean_{curated}").clone()  # or a later update would be in this graph
            gates[curated] = mean_H.to(gates[curated].dtype).expand_as(gates[curated])
        elif self.training and is_tracked:
            self._track(gates, mask_BM)
        return gates

    @torch.no_grad()
    def _track(self, gates: list[torch.Tensor], mask_BM: torch.Tensor) -> None:
        counts_M = mask_BM.sum(0)
        self.gate_counts += counts_M
        for i, gates_BH in enumerate(gates):
            mean_H = getattr(self, f"gate_mean_{i}")
            difference_H = (gates_BH.float() - mean_H).masked_fill(~mask_BM[:, i, None], 0).sum(0)
            mean_H += (difference_H / self.gate_counts[i].clamp(min=1)).to(mean_H.dtype)

    def exchange(
        self, pooled: list[torch.Tensor], mask_BM: torch.Tensor, curated: int | None = None, is_tracked: bool = True
    ) -> list[torch.Tensor]:
        """Gates each modality's pooled features `[B, H_m]` by all that are present."""
        gates = self.gates(pooled, mask_BM, curated, is_tracked)
        return [features_BH * gates_BH for features_BH, gates_BH in zip(pooled, gates, strict=True)]

    def bypass_parameters(self, index: int) -> Iterator[nn.Parameter]:
        """The weights of all exchanges that a modality's gates come from: the joint squeeze, and its own excitation.

        A modality's main branch is its encoder's `backbone`.
        """
        for exchange in self.exchanges if self.stages else [self]:
            yield from exchange.squeeze.parameters()
            yield from exchange.excitations[index].parameters()
