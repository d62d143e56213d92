"""ETMC: every modality's evidence for the classes, combined. Shapes: B samples, M modalities, C classes."""

from typing import Any

import torch

from hf_colearn.balance.method import BalanceMethod, ModalityBatch
from hf_colearn.balance.targets import class_targets, step_mean
from hf_colearn.models.evidential_fusion import dirichlet
from hf_colearn.models.lora import trained_layer
from hf_colearn.utils.checks import check_integer


class EvidentialFusion(BalanceMethod):
    r"""Enhanced trusted multi-view classification (ETMC; Han et al., ICLR 2021 and TPAMI 2022).

    The logits of a view v, every modality, the pseudo view and the fused one, are a Dirichlet distribution
    \\(\alpha^v\\), of the sum S, over the probabilities of the classes, see
    [`~hf_colearn.models.evidential_fusion.EvidentialFusion`]; the loss is

    \\(L = \sum_v [\psi(S^v) - \psi(\alpha^v_y)] + \lambda \, KL(Dir(\tilde\alpha^v) \,|\, Dir(1))\\), with
    \\(\lambda = \min(1, epoch / 10)\\).

    The first part is the expected cross-entropy. \\(\tilde\alpha\\) is \\(\alpha\\) with 1 for the true class, so that only
    evidence for other classes is taken back. A view is over the labelled samples that have the modality, the pseudo and the
    fused view over all labelled ones; each is a mean over the whole step. The rule is the same for any number of modalities.

    `released=True` takes KL of \\(\alpha\\) itself, which takes back the evidence for the true class, too: the version that
    forgets the tilde, for comparison. The released code combines the pseudo view last, which makes no difference, and stops
    early and chooses its checkpoint on the test samples.

    Epochs are counted from 0, so the first has no KL. A step costs `digamma` and `lgamma` of M + 2 tensors `(B, C)`, beside
    the heads, which predict in this fusion; no weights, no state, no collective.

    Args:
        annealing_epochs (`int`, *optional*, defaults to 10): After how many epochs KL has its whole weight; with
            0 it has from the first.
        released (`bool`, *optional*, defaults to `False`): See above.

    Raises:
        ValueError: If a value is out of range, or the model has another fusion or a loss of its heads beside this one.

    Example:

    ```python
    >>> from hf_colearn import CoLearningForMultimodalClassification, EvidentialFusion, FeatureBackboneConfig

    >>> model = CoLearningForMultimodalClassification.from_backbones(
    ...     {"audio": FeatureBackboneConfig(12), "image": FeatureBackboneConfig(20)},
    ...     latent_dim=8, num_labels=3, fusion="evidential",
    ... )
    >>> balance = EvidentialFusion()  # CoLearningTrainer(model, args, train_dataset=data, balance=balance)
    ```
    """

    fusions = ("evidential",)
    replaces_loss = True

    def __init__(self, annealing_epochs: int = 10, released: bool = False):
        super().__init__()
        check_integer("annealing_epochs", annealing_epochs)
        if not isinstance(released, bool):
            raise ValueError(f"released={released!r}: pass True for the divergence of the whole alpha, or False.")
        self.annealing_epochs, self.released = annealing_epochs, released

    def check_model(self, model):
        super().check_model(model)
        check_head_loss(self, model)

    def loss(self, seen, task):
        annealing = min(1.0, seen.batch.epoch / self.annealing_epochs) if self.annealing_epochs else 1.0
        views, uncertainties = [], {}
        for index, name in enumerate(seen.modalities):
            alpha_BC, targets_BC = dirichlet(seen.outputs["modality_logits"][name]), class_targets(seen, name)
            views.append((alpha_BC, targets_BC, seen.counts[1 + index]))
            u_B = alpha_BC.shape[1] / alpha_BC.detach().sum(1)
            uncertainties[f"uncertainty_{name}"] = step_mean(u_B * targets_BC.sum(1), seen.counts[1 + index])
        targets_BC = class_targets(seen)
        for alpha_BC in (_pseudo(seen), seen.outputs["logits"].float().exp()):
            views.append((alpha_BC, targets_BC, seen.counts[0]))
        self.record(annealing=annealing, **uncertainties)
        losses = [
            step_mean(dirichlet_loss(alpha_BC, targets_BC, annealing, self.released), count)
            for alpha_BC, targets_BC, count in views
        ]
        return torch.stack(losses).sum()


ETMC = EvidentialFusion


def dirichlet_loss(
    alpha_BC: torch.Tensor, targets_BC: torch.Tensor, annealing: float, released: bool = False
) -> torch.Tensor:
    """Expected cross-entropy and divergence of every sample, `(B,)`; 0 where a row of the targets is."""
    tilde_BC = alpha_BC if released else targets_BC + (1 - targets_BC) * alpha_BC
    each_B = expected_cross_entropy(alpha_BC, targets_BC) + annealing * divergence_from_uniform(tilde_BC)
    return torch.where(targets_BC.sum(1) > 0, each_B, 0)


def expected_cross_entropy(alpha_BC: torch.Tensor, targets_BC: torch.Tensor) -> torch.Tensor:
    r"""\\(E_{p \sim Dir(\alpha)}[-\log p_y] = \psi(S) - \psi(\alpha_y)\\), `(B,)`; its mean under soft targets."""
    return (targets_BC * (alpha_BC.sum(1, keepdim=True).digamma() - alpha_BC.digamma())).sum(1)


def divergence_from_uniform(alpha_BC: torch.Tensor) -> torch.Tensor:
    r"""\\(KL(Dir(\alpha) \,|\, Dir(1)) = \ln \Gamma(S) - \ln \Gamma(C) - \sum_k \ln \Gamma(\alpha_k) + \sum_k (\alpha_k - 1)
    (\psi(\alpha_k) - \psi(S))\\), `(B,)`."""
    s_B1 = alpha_BC.sum(1, keepdim=True)
    of_uniform = torch.lgamma(s_B1.new_tensor(alpha_BC.shape[1]))
    entropies_BC = (alpha_BC - 1) * (alpha_BC.digamma() - s_B1.digamma()) - alpha_BC.lgamma()
    return s_B1.squeeze(1).lgamma() - of_uniform + entropies_BC.sum(1)


def check_head_loss(method: BalanceMethod, model: Any) -> None:
    """Refuses a model whose configuration has a loss of the heads, which a method's own takes the place of."""
    weight = model.config.modality_loss_weight
    if weight:
        raise ValueError(
            f"the loss of {type(method).__name__} has the heads' in it, so that modality_loss_weight={weight} would do "
            "nothing: build the model without."
        )


def _pseudo(seen: ModalityBatch) -> torch.Tensor:
    """Alpha of the pseudo view."""
    fusion: Any = trained_layer(seen.model.fusion)
    return dirichlet(fusion.pseudo(seen.outputs["latents"]))
