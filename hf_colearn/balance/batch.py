"""What a balance method reads of a training micro-batch. Shapes: B samples, M modalities, D latent width, C classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from hf_colearn.models.heads import task_loss
from hf_colearn.models.lora import trained_layer
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.utils.checks import check_choice


UNIMODAL = ("heads", "fused")  # where the logits of a single modality come from


@dataclass(frozen=True, eq=False)
class ModalityBatch:
    """The outputs of a multimodal model for a micro-batch, its labels, and the losses of the single modalities.

    Losses are sums over the labels that count, divided by how many a micro-batch of the optimizer step has on average, so
    that their mean over micro-batches and processes is the mean over the whole step.

    Args:
        outputs (`Mapping`): See [`~hf_colearn.models.outputs.CoLearningMultimodalOutput`].
        batch ([`CoLearningBatch`]): Labels, sample ids, epoch, counts of the step.
        model ([`CoLearningForMultimodalClassification`]): The model within wrappers and adapters.
        unimodal (`str`, *optional*, defaults to `"heads"`): See [`unimodal_logits`].
    """

    outputs: Mapping[str, Any]
    batch: CoLearningBatch
    model: CoLearningForMultimodalClassification
    unimodal: str = "heads"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in the order of `modality_mask`."""
        return self.model.modalities

    @cached_property
    def labels(self) -> torch.Tensor:
        """As the model gets them; a ValueError without."""
        if not isinstance(self.batch.labels, torch.Tensor):
            raise ValueError("a balance method reads labels, and the batch has none: give the data a column `labels`.")
        return self.batch.labels

    @cached_property
    def present_BM(self) -> torch.Tensor:
        """Which modalities each sample has, booleans."""
        mask_BM = self.outputs.get("modality_mask")
        shape = (len(self.outputs["logits"]), len(self.modalities))
        return torch.ones(shape, dtype=torch.bool, device=self.labels.device) if mask_BM is None else mask_BM

    @cached_property
    def counts(self) -> torch.Tensor:
        """How many labels count, `(1 + M,)`: of all samples, and of those that have each modality; of the optimizer step's
        micro-batches on average where it is known."""
        of_step = self.batch.step_counts.get("labels")
        return self.model.label_counts(self.labels, modality_mask=self.present_BM) if of_step is None else of_step

    @cached_property
    def counted_BM(self) -> torch.Tensor:
        """Which samples have a label and each modality, booleans."""
        labelled_B = self.batch.labelled
        assert labelled_B is not None
        return self.present_BM & labelled_B[:, None]

    @property
    def latents(self) -> Mapping[str, torch.Tensor]:
        """Of every modality, `(B, D)`; 0 where it is absent."""
        return self.outputs["modality_latents"]

    @cached_property
    def unimodal_logits(self) -> dict[str, torch.Tensor]:
        """Of every modality, `(B, C)`, see [`unimodal_logits`]; they mean nothing where it is absent."""
        return unimodal_logits(self.model, self.outputs, self.unimodal)

    @property
    def all_logits(self) -> list[torch.Tensor]:
        """The fused logits and those of every head, which all parameters have a part in."""
        return [self.outputs["logits"], *self.outputs["modality_logits"].values()]

    def labels_of(self, name: str) -> torch.Tensor:
        """The labels, with those of samples that lack the modality as ones that do not count."""
        present_B = self.present_BM[:, self.modalities.index(name)]
        missing = float("nan") if self.labels.is_floating_point() else -100
        return self.labels.masked_fill(~present_B.reshape(-1, *[1] * (self.labels.ndim - 1)), missing)

    def loss_of(self, logits_BC: torch.Tensor, name: str | None = None) -> torch.Tensor:
        """The task's loss of logits over all labelled samples, or over those that have the modality."""
        labels = self.labels if name is None else self.labels_of(name)
        index = 0 if name is None else 1 + self.modalities.index(name)
        return task_loss(logits_BC, labels, self.model.config.problem_type, self.counts[index])

    @cached_property
    def fused_loss(self) -> torch.Tensor:
        """l(z), of the fused logits."""
        return self.loss_of(self.outputs["logits"])

    @cached_property
    def unimodal_losses(self) -> dict[str, torch.Tensor]:
        """l(u_m) of every modality."""
        return {name: self.loss_of(logits_BC, name) for name, logits_BC in self.unimodal_logits.items()}

    @property
    def sum_of_unimodal_losses(self) -> torch.Tensor:
        r"""\\(\sum_m l(u_m)\\)."""
        return torch.stack([*self.unimodal_losses.values()]).sum()


def unimodal_logits(
    model: CoLearningForMultimodalClassification, outputs: Mapping[str, Any], source: str = "heads"
) -> dict[str, torch.Tensor]:
    r"""The logits `(B, C)` of every modality by itself.

    Args:
        model ([`CoLearningForMultimodalClassification`]): Whose outputs these are.
        outputs (`Mapping`): See [`~hf_colearn.models.outputs.CoLearningMultimodalOutput`].
        source (`str`, *optional*, defaults to `"heads"`): `"heads"`, the modalities' own heads; or `"fused"`, the slice of
            the fused head of a `concat` fusion, \\(W_m h_m + b / M\\), as the code of OGM-GE and PMR has it. These sum to
            the fused logits.

    Raises:
        ValueError: If the source is none of these, or the fusion has no slices.
    """
    check_choice("unimodal", source, UNIMODAL)
    if source == "heads":
        return dict(outputs["modality_logits"])
    if model.config.fusion != "concat":
        raise ValueError(
            f"unimodal='fused' reads slices of the head of fusion='concat', and the model has "
            f"fusion='{model.config.fusion}': pass unimodal='heads'."
        )
    fusion: Any = trained_layer(model.fusion)
    head: Any = trained_layer(fusion.classifier)
    weight_CD, bias_C = (x.full_tensor() if isinstance(x, DTensor) else x for x in (head.weight, head.bias))
    slices = weight_CD.chunk(len(model.modalities), dim=1)
    return {
        name: torch.nn.functional.linear(outputs["modality_latents"][name], weight_CD, bias_C / len(slices))
        for name, weight_CD in zip(model.modalities, slices, strict=True)
    }
