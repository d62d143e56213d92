"""DOMFN: the fused prediction learns from the samples on which the modalities agree. Shapes: B samples, M modalities,
C classes."""

from typing import Any

import torch

from hf_colearn.balance.evidential import check_head_loss
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.balance.targets import class_targets, step_mean
from hf_colearn.models.dynamic_fusion import disagreement, gate_is_open
from hf_colearn.models.lora import trained_layer
from hf_colearn.utils.checks import check_integer, is_number


class DynamicFusion(BalanceMethod):
    r"""Divergence-oriented multi-modal fusion network (DOMFN; Yang et al., ACM MM 2022).

    With the disagreement \\(d_m = \max_c (p_{m,c} - \bar p_c)^2\\) of a modality with the mean of those that a sample has, the
    gate of the sample is open where all \\(d_m / \tau < \gamma\\), and its loss is

    \\(\sum_m (l_m^2 / 2 - \eta \, d_m) + \sum_m l_m + l_z\\) where it is open, and \\(\sum_m l_m\\) where it is closed,

    with the cross-entropies \\(l_m\\) of the modality's head and \\(l_z\\) of the fused prediction, a mean over the labelled
    samples of the step. Sums are over the modalities that a sample has, any number. The gate has no gradient, and \\(d_m\\)
    has one, which drives the modalities apart. Gamma and tau are options of the model's fusion, where a closed gate leaves
    the prediction to the most confident modality: [`~hf_colearn.models.dynamic_fusion.DynamicFusion`]. With the published
    gamma of 0.8 and tau = 1 the gate of two modalities is always open, as \\(d_m \le 1/4\\).

    The released code takes the distance from the fused prediction instead of the mean, of outputs of a sigmoid, on which it
    computes the softmax of the cross-entropy again; it reads one number of \\(d_m\\), so that its batches have one sample; and
    where the gate is closed it trains on \\(\sum_m (l_m^2 / 2 - \eta \, d_m)\\).

    It trains the single modalities first, on \\(\sum_m l_m\\); for how long, its configuration says, which is not published:
    `pretraining_epochs` is 0 by default, and has to be chosen.

    A step costs M softmaxes `(B, C)` beside the heads, which predict in this fusion; no weights, no state, no collective.

    Args:
        eta (`float`, *optional*, defaults to 0.5): The weight of the disagreement, at least 0.
        pretraining_epochs (`int`, *optional*, defaults to 0): How many epochs the single modalities are trained alone.

    Raises:
        ValueError: If a value is out of range, or the model has another fusion, a loss of its heads beside this one, or drops
            modalities.

    Example:

    ```python
    >>> from hf_colearn import CoLearningForMultimodalClassification, DynamicFusion, FeatureBackboneConfig

    >>> model = CoLearningForMultimodalClassification.from_backbones(
    ...     {"audio": FeatureBackboneConfig(12), "image": FeatureBackboneConfig(20)},
    ...     latent_dim=8, num_labels=3, fusion="dynamic", fusion_options={"tau": 0.1},
    ... )
    >>> balance = DynamicFusion(pretraining_epochs=5)  # CoLearningTrainer(model, ..., balance=balance)
    ```
    """

    fusions = ("dynamic",)
    replaces_loss = True
    needs_whole_weights = False

    def __init__(self, eta: float = 0.5, pretraining_epochs: int = 0):
        super().__init__()
        if not is_number(eta) or not 0 <= eta < float("inf"):
            raise ValueError(f"eta={eta!r}: pass the weight of the disagreement, at least 0, such as 0.5.")
        check_integer("pretraining_epochs", pretraining_epochs)
        self.eta, self.pretraining_epochs = eta, pretraining_epochs

    def check_model(self, model):
        super().check_model(model)
        check_head_loss(self, model)
        if model.config.modality_dropout:
            raise ValueError(
                f"{type(self).__name__} asks all modalities of a sample whether they agree, and "
                f"modality_dropout={model.config.modality_dropout} hides some from the fusion: build the model without."
            )

    def loss(self, seen, task):
        logits, present_BM = list(seen.outputs["modality_logits"].values()), seen.present_BM
        targets_BC = class_targets(seen)
        l_BM = torch.stack([cross_entropies(x, targets_BC) for x in logits], dim=1).masked_fill(~present_BM, 0)
        d_BM = disagreement(logits, present_BM)
        fusion: Any = trained_layer(seen.model.fusion)
        is_open_B = gate_is_open(d_BM, fusion.gamma, fusion.tau)
        labelled_B = targets_BC.sum(1) > 0
        self.record(
            gate_open=step_mean((is_open_B & labelled_B).float(), seen.counts[0]),
            **{
                f"disagreement_{name}": step_mean(d_B * labelled_B, count)
                for name, d_B, count in zip(seen.modalities, d_BM.detach().unbind(1), seen.counts[1:], strict=True)
            },
        )
        if seen.batch.epoch < self.pretraining_epochs:
            each_B = l_BM.sum(1)
        else:
            each_B = sample_losses(
                l_BM, d_BM, cross_entropies(seen.outputs["logits"], targets_BC), is_open_B, self.eta
            )
        return step_mean(torch.where(labelled_B, each_B, 0), seen.counts[0])


DOMFN = DynamicFusion


def sample_losses(
    l_BM: torch.Tensor, d_BM: torch.Tensor, l_z_B: torch.Tensor, is_open_B: torch.Tensor, eta: float
) -> torch.Tensor:
    """The loss of every sample by its gate, `(B,)`; cross-entropies and disagreements are 0 for a modality that it lacks."""
    beside_B = (l_BM.square() / 2 - eta * d_BM).sum(1) + l_z_B
    return l_BM.sum(1) + torch.where(is_open_B, beside_B, 0)


def cross_entropies(logits_BC: torch.Tensor, targets_BC: torch.Tensor) -> torch.Tensor:
    """Of every sample, `(B,)`; 0 where a row of the targets is."""
    return -(targets_BC * logits_BC.float().log_softmax(1)).sum(1)
