"""DGL: the encoders learn by the losses of single modalities alone, and the fusion by its own alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.models.fusion import FUSIONS, HEAD_FUSIONS
from hf_colearn.models.modality_mask import drop_modalities
from hf_colearn.utils.checks import check_positive


class DisentangledGradients(BalanceMethod):
    r"""Disentangled gradient learning (DGL; Wei et al., ICCV 2025).

    The loss is \\(l_z + \alpha \sum_m l_m\\), where the fusion reads detached latents: the gradient of an encoder is that of
    \\(\alpha \, l_m\\), and the gradient of the fusion that of \\(l_z\\).

    The logits \\(u_m\\) are, under `concat`, slices of the fused head, which has no gradient of \\(l_m\\), as the authors
    have it; or those of the modalities' own heads, which learn by them. Terms of an objective reach the encoders as they
    do without this method. Losses are means over the labels of the step, so that a step is the same however it is cut; a
    sample without a modality has no part in its loss.

    The released code adds the whole bias of the fused head to every slice, and clips the gradients at a norm of 40 (which
    `max_grad_norm` of the trainer does here).

    A fusion that predicts by the modalities' heads alone has nothing of its own to learn, and is refused. A step costs a
    second forward and backward of the fusion, which is small, and the losses of M modalities.

    Args:
        alpha (`float`, *optional*, defaults to 4.0): Weight of the modalities' losses; as in the authors' script for CREMA-D
            (2 to 3 for Kinetics-Sounds).
        unimodal (`str`, *optional*): `"fused"` or `"heads"`, see [`~hf_colearn.balance.batch.unimodal_logits`]; by default
            `"fused"` under `concat` and `"heads"` under other fusions.

    Raises:
        ValueError: If a value is out of range, or the fusion does not fit.

    Example:

    ```python
    >>> from hf_colearn import DisentangledGradients

    >>> balance = DisentangledGradients(alpha=2.0)  # CoLearningTrainer(..., balance=balance)
    ```
    """

    fusions = tuple(name for name in FUSIONS if name not in HEAD_FUSIONS)
    replaces_loss = True

    def __init__(self, alpha: float = 4.0, unimodal: str | None = None):
        super().__init__("heads" if unimodal is None else unimodal)
        check_positive("alpha", alpha)
        self.alpha = alpha
        self._is_given = unimodal is not None

    def check_model(self, model):
        if not self._is_given:
            self.unimodal = "fused" if model.config.fusion == "concat" else "heads"
        super().check_model(model)

    def loss(self, seen, task):
        fused = seen.loss_of(_fused_alone(seen))
        if self.unimodal == "heads":
            return fused + self.alpha * seen.sum_of_unimodal_losses
        with without_gradient(seen.model.fusion):
            of_encoders = seen.sum_of_unimodal_losses
        # The heads have no part in this: what is left of the task's loss are theirs.
        return fused + self.alpha * of_encoders + (task - seen.fused_loss)


DGL = DisentangledGradients


def _fused_alone(seen: ModalityBatch) -> torch.Tensor:
    """The fused logits `(B, C)` of latents without a gradient."""
    model, present_BM = seen.model, seen.present_BM
    dropout = model.config.modality_dropout
    mask_BM = drop_modalities(present_BM, dropout) if dropout else present_BM
    latents, logits = (
        [values[name].detach() for name in seen.modalities]
        for values in (seen.latents, seen.outputs["modality_logits"])
    )
    return model.fusion(latents, logits, mask_BM)[1]


@contextmanager
def without_gradient(module: nn.Module) -> Iterator[None]:
    """Within it, what is computed with the module's parameters gives them no gradient."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
