"""PMR: the modality that learns slower is drawn to the means of its classes. Shapes: B samples, M modalities, D latent width,
C classes."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.balance.method import BalanceMethod, ModalityBatch, balanced_model, task_share
from hf_colearn.balance.scores import StepSums, mean_of_others, means_of
from hf_colearn.balance.targets import class_targets, step_mean
from hf_colearn.utils.checks import check_epochs, check_positive, is_number
from hf_colearn.utils.distributed import mean_over_processes


class PMR(BalanceMethod):
    r"""Prototypical modal rebalance (PMR; Fan et al., CVPR 2023).

    The prototype \\(c_{m,k}\\) is the mean latent of class k in modality m, renewed with every epoch. With
    \\(q_m = \text{softmax}_k(-|h_m - c_{m,k}|)\\) of the latent \\(h_m\\), once a step:

    \\(s_m = \text{mean of } q_m[y]\\), \\(\rho_m = s_{other} / s_m\\),
    \\(L = l(z) + \sum_{m: \rho_m > 1} \alpha \, CE(q_m, y)\\): the slower of two modalities alone gets the second loss, and
    none does where they are equal.

    Of more than two modalities (the paper has two) \\(s_{other}\\) is the mean over the others, so every modality below the
    mean of all gets it. \\(s_m\\) is a mean over the labelled samples that have the modality, in all micro-batches and
    processes of the step; a modality that no sample of it has is not compared. l(z) is the task's own loss, that of the heads
    with it where they have one.

    Prototypes come from the training latents as the epoch's steps saw them, without a pass of their own, so the first epoch
    has none and is plain; then \\(c \leftarrow (1 - \text{momentum}) \, c_{new} + \text{momentum} \, c\\). A class that no
    sample had yet has no prototype: the softmax leaves it out, and its samples have no part in \\(s_m\\) and add 0 to CE.

    The released code makes prototypes in a pass of its own over a tenth of the training samples in evaluation mode, also
    before the first epoch, for two data sets of the validation samples, one of which are the test samples; it divides by 0
    where a class has none there, and by the root of 0 where a latent is its prototype. Two parts of the paper are not in it:
    a coefficient that is graded by \\(\rho_m\\), here `graded=True`, and an entropy term in the first epochs, left out here.

    A step costs M distances `(B, C)`, and a reduction of 2M numbers; an epoch one reduction of M tensors `(C, 1 + D)`. With
    gradient accumulation it is known after the last micro-batch alone which modality is slower: the gradients of CE(q_m) are
    kept apart until then, one more backward through every encoder, and the logged loss is without them.

    Args:
        alpha (`float`, *optional*, defaults to 1.0): The weight of the second loss.
        momentum (`float`, *optional*, defaults to 0.2): The weight of the former prototypes, from 0 to below 1.
        epochs (`tuple[int, int]`, *optional*, defaults to `(0, 100)`): The first and the last epoch, from 0, that have it.
        graded (`bool`, *optional*, defaults to `False`): Whether the weight is \\(\alpha \min(\rho_m - 1, 1)\\) instead.

    Raises:
        ValueError: If a value is out of range.

    Example:

    ```python
    >>> from hf_colearn import PMR

    >>> balance = PMR(alpha=0.5)  # CoLearningTrainer(model, args, train_dataset=data, balance=balance)
    ```
    """

    replaces_loss = True

    def __init__(
        self,
        alpha: float = 1.0,
        momentum: float = 0.2,
        epochs: tuple[int, int] = (0, 100),
        graded: bool = False,
    ):
        super().__init__()
        check_positive("alpha", alpha)
        if not is_number(momentum) or not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum!r}: pass the weight of the former prototypes, from 0 to below 1.")
        if not isinstance(graded, bool):
            raise ValueError(f"graded={graded!r}: pass True for the paper's graded coefficient, or False.")
        self.alpha, self.momentum, self.graded, self.epochs = alpha, momentum, graded, check_epochs(epochs)
        self.prototypes = Prototypes(momentum)
        self._trainer: Any = None
        self._scores = StepSums()
        self._kept: list[list[torch.Tensor | None]] = []  # d CE(q_m) of every modality, while a step is not whole

    def setup(self, trainer):
        super().setup(trainer)
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._scores.clear()
        self._kept = []

    def observe(self, seen):
        self.prototypes.begin(seen.batch.epoch)
        for name in seen.modalities:
            self.prototypes.add(name, seen.latents[name].detach(), class_targets(seen, name))

    def loss(self, seen, task):
        first, last = self.epochs
        if not self.prototypes.means or not first <= seen.batch.epoch <= last:
            self.record(**{f"coefficient_{name}": 0.0 for name in seen.modalities})
            return task
        losses = self._losses(seen)
        if self._trainer.current_gradient_accumulation_steps > 1:
            self._keep(seen, losses)
            return task
        return task + (self._weights(seen.modalities) * losses).sum()

    def on_gradients(self, model):
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        inner = balanced_model(model)
        parameters = [parameter for parameter in inner.parameters() if parameter.requires_grad]
        share = task_share(self._trainer) / self._trainer.current_gradient_accumulation_steps
        weights = (share * self._weights(inner.modalities)).unbind()
        flat = torch.cat([_weighted(weights, *of_one) for of_one in zip(parameters, *kept, strict=True)])
        extras = mean_over_processes(flat).split([parameter.numel() for parameter in parameters])
        for parameter, extra in zip(parameters, extras, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(extra.view_as(parameter))

    def before_save(self):
        self.prototypes.share()

    def state_dict(self):
        return self.prototypes.state_dict()

    def load_state_dict(self, state):
        self.prototypes.load_state_dict(state, self._trainer.args.device)

    def _losses(self, seen: ModalityBatch) -> torch.Tensor:
        """CE(q_m) of every modality, `(M,)`; the scores go to the step's sums."""
        scores, counts, losses = [], [], []
        for index, name in enumerate(seen.modalities):
            targets_BC = class_targets(seen, name)
            c_CD = self.prototypes.means[name]
            targets_BC = torch.where(has_prototype(c_CD), targets_BC, 0)
            log_q_BC = prototype_logits(seen.latents[name], c_CD).log_softmax(dim=1)
            scores.append((log_q_BC.detach().exp() * targets_BC).sum())
            counts.append(targets_BC.sum())
            losses.append(step_mean(-(log_q_BC * targets_BC).sum(1), seen.counts[1 + index]))
        self._scores.add(torch.stack([*scores, *counts]))
        return torch.stack(losses)

    def _weights(self, names: tuple[str, ...]) -> torch.Tensor:
        """The weight of every modality's second loss in the step, `(M,)`; a collective."""
        weights_M = coefficients(means_of(self._scores.take()), self.alpha, self.graded)
        self.record(**{f"coefficient_{name}": w for name, w in zip(names, weights_M.unbind(), strict=True)})
        return weights_M

    def _keep(self, seen: ModalityBatch, losses_M: torch.Tensor) -> None:
        """Adds the gradients of every modality's second loss to those of the step's earlier micro-batches."""
        parameters = [parameter for parameter in seen.model.parameters() if parameter.requires_grad]
        self._kept = self._kept or [[None] * len(parameters) for _ in losses_M]
        for kept, loss in zip(self._kept, losses_M.unbind(), strict=True):
            if not loss.requires_grad:  # of an encoder that is frozen
                continue
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for index, gradient in enumerate(found):
                if gradient is not None:
                    before = kept[index]
                    kept[index] = gradient if before is None else before + gradient


class Prototypes:
    """Every modality's class means `(C, D)` over earlier epochs, and the sums over the current one.

    `means` is empty before the second epoch; a row of NaN is a class that no sample had yet.
    """

    def __init__(self, momentum: float):
        self.momentum = momentum
        self.epoch: int | None = None
        self.means: dict[str, torch.Tensor] = {}
        self._sums: dict[str, torch.Tensor] = {}  # (C, 1 + D): how many samples, and the sum of their latents

    def begin(self, epoch: int) -> None:
        """Before a batch of the epoch: renews the means if it is a new one; a collective then.

        It is asked for here and not at the end of an epoch, so that a checkpoint of an epoch's last step holds what a run
        that is resumed from it needs.
        """
        if self.epoch not in (None, epoch):
            self.share()
            for name, sums in self._sums.items():
                new_CD = sums[:, 1:] / sums[:, :1]  # NaN without a sample
                old_CD = self.means.get(name, torch.full_like(new_CD, torch.nan))
                mixed_CD = (1 - self.momentum) * new_CD + self.momentum * old_CD
                only_CD = torch.where(has_prototype(new_CD)[:, None], new_CD, old_CD)
                self.means[name] = torch.where(mixed_CD.isnan(), only_CD, mixed_CD)
            self._sums = {}
        self.epoch = epoch

    def add(self, name: str, latents_BD: torch.Tensor, targets_BC: torch.Tensor) -> None:
        """The latents of a micro-batch, to the classes that `targets_BC` says, rows of 0 to none."""
        with torch.autocast(latents_BD.device.type, enabled=False):
            ones_B1 = latents_BD.new_ones(len(latents_BD), 1, dtype=torch.float32)
            sums = targets_BC.T @ torch.cat([ones_B1, latents_BD.float()], dim=1)
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def share(self) -> None:
        """Gives all processes the mean of their sums, which have the same ratios and may be given again; a collective."""
        self._sums = {name: mean_over_processes(sums) for name, sums in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, after [`share`]."""
        parts = {"means": self.means, "sums": self._sums}
        on_cpu = {part: {name: value.cpu() for name, value in values.items()} for part, values in parts.items()}
        return {"epoch": self.epoch, **on_cpu}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restores what `state_dict` returned, on the device of the latents."""
        self.epoch = state["epoch"]
        self.means, self._sums = (
            {name: value.to(device) for name, value in state[part].items()} for part in ("means", "sums")
        )


def has_prototype(c_CD: torch.Tensor) -> torch.Tensor:
    """Which classes have a prototype, booleans `(C,)`."""
    return ~c_CD.isnan().any(dim=1)


def prototype_logits(h_BD: torch.Tensor, c_CD: torch.Tensor) -> torch.Tensor:
    """Minus the distances of latents and prototypes `(B, C)`, in float32; as good as minus infinity without a prototype.

    The gradient of a distance of 0 is 0.
    """
    exact = "donot_use_mm_for_euclid_dist"
    distances_BC = torch.cdist(h_BD.float(), c_CD.nan_to_num(), compute_mode=exact)
    return torch.where(has_prototype(c_CD), -distances_BC, torch.finfo(torch.float32).min)


def coefficients(means_M: torch.Tensor, alpha: float, graded: bool = False) -> torch.Tensor:
    """The weights of the second losses by the mean scores, `(M,)`; 0 where a score is NaN, or there is none to compare with."""
    others_M = mean_of_others(means_M)
    ratios_M = others_M / means_M
    weights_M = (ratios_M - 1).clamp(max=1) if graded else torch.ones_like(ratios_M)
    return torch.where(means_M < others_M, alpha * weights_M, 0)


def _weighted(
    weights: tuple[torch.Tensor, ...], parameter: torch.Tensor, *gradients: torch.Tensor | None
) -> torch.Tensor:
    """The weighted sum of a parameter's gradients, flat and in float32."""
    total = torch.zeros(parameter.numel(), device=parameter.device)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            total = total + weight * gradient.flatten().float()
    return total
