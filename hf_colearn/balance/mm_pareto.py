"""MMPareto: an encoder's gradients of the fused and of the unimodal losses become one that both agree with."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.method import BalanceMethod, encoder_parameters, task_share
from hf_colearn.utils.checks import check_positive
from hf_colearn.utils.distributed import mean_over_processes


Gradients = Sequence[torch.Tensor]  # of an encoder's parameters, a tensor each
LEAST_WEIGHT = 0.001  # of either gradient under a conflict


class MMPareto(BalanceMethod):
    r"""Pareto integration of multimodal and unimodal gradients (Wei and Hu, ICML 2024).

    The loss is \\(l(z) + \sum_m l(u_m)\\). Heads and fusion get its gradient as it is. An encoder gets, of
    \\(g_1 = \nabla_{\theta_m} l(z)\\) and \\(g_2 = \nabla_{\theta_m} \sum_m l(u_m)\\) over all its weights,

    $$ d = 2 c g_1 + 2 (1 - c) g_2, \qquad c = \begin{cases} 1/2 & g_1 \cdot g_2 > 0 \\
    \mathrm{clip}\left(\frac{|g_2|^2 - g_1 \cdot g_2}{|g_1 - g_2|^2}, 0.001, 0.999\right) & \text{else,} \end{cases} $$

    where the second line is the shortest vector between the two. Each tensor of d is brought up to the length of the
    same tensor of \\(g_1 + g_2\\) where it is shorter, and multiplied by \\(\gamma\\). A tensor whose d is 0 stays 0.

    The gradients are those of the whole optimizer step, summed over its micro-batches and averaged over the processes
    before the rule, so that a step does not depend on how it is cut. The gradient of auxiliary terms is no part of the
    rule: it is added as it is. Under the fusion `"mmtm"`, where a modality's logits depend on the other encoders, too,
    \\(g_2\\) holds that part.

    The released code divides by the length of d as it is, which gives NaN where a tensor's gradients are 0 or cancel, and
    so does a re-implementation in a benchmark under a conflict. An optimizer that divides by the gradient's size, such as
    Adam, undoes most of the scaling; the paper trains by SGD.

    A step costs two backward passes of the encoders more than a plain one, and two gradients of their size in memory.
    Logged are `balance_coefficient_{modality}`, c, and `balance_conflict_{modality}`, the share of steps with a conflict.

    Args:
        gamma (`float`, *optional*, defaults to 1.5): The factor on every encoder's gradient.
        unimodal (`str`, *optional*, defaults to `"heads"`): See [`~hf_colearn.balance.batch.unimodal_logits`].

    Raises:
        ValueError: If `gamma` is not above 0, or when the trainer is built, if no encoder has a weight that trains.

    Example:

    ```python
    >>> from hf_colearn import MMPareto

    >>> balance = MMPareto()  # CoLearningTrainer(model, args, train_dataset=data, balance=balance)
    ```
    """

    replaces_loss = True

    def __init__(self, gamma: float = 1.5, unimodal: str = "heads"):
        super().__init__(unimodal)
        check_positive("gamma", gamma)
        self.gamma = gamma
        self._trainer: Any = None
        self._forget()

    def _forget(self) -> None:
        self._fused: dict[str, Gradients] = {}
        self._unimodal: dict[str, Gradients] = {}
        self._micro_batches = 0

    def setup(self, trainer):
        super().setup(trainer)
        self._trainer = trainer

    def check_model(self, model):
        super().check_model(model)
        if not any(encoder_parameters(model).values()):
            raise ValueError(
                "MMPareto combines gradients of the encoders, and none of their weights trains: unfreeze some, or leave "
                "`balance` out."
            )

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._forget()

    def loss(self, seen: ModalityBatch, task: torch.Tensor) -> torch.Tensor:
        unimodal = seen.sum_of_unimodal_losses
        parameters = encoder_parameters(seen.model)
        self._fused = _added(self._fused, _gradients(seen.fused_loss, parameters))
        self._unimodal = _added(self._unimodal, _gradients(unimodal, parameters))
        self._micro_batches += 1
        return seen.fused_loss + unimodal

    def on_gradients(self, model):
        share = task_share(self._trainer)
        for name, parameters in encoder_parameters(model).items():
            fused, unimodal = (self._of_step(sums[name]) for sums in (self._fused, self._unimodal))
            if not parameters:
                continue
            weight, is_conflict = fused_weight(fused, unimodal)
            combined = combined_gradient(fused, unimodal, weight, self.gamma)
            for parameter, new, g1, g2 in zip(parameters, combined, fused, unimodal, strict=True):
                if parameter.grad is not None:
                    # What the losses have put there goes; what auxiliary terms have stays.
                    others = parameter.grad - share * (g1 + g2) if self._has_terms else 0
                    parameter.grad.copy_(share * new + others)
            self.record(**{f"coefficient_{name}": weight, f"conflict_{name}": is_conflict})
        self._forget()

    @property
    def _has_terms(self) -> bool:
        return self._trainer.auxiliary_objective is not None

    def _of_step(self, sums: Gradients) -> Gradients:
        """The mean over micro-batches and processes, by one reduction for the encoder."""
        if not sums:
            return sums
        mean = mean_over_processes(torch.cat([total.flatten() for total in sums]) / self._micro_batches)
        parts = mean.split([total.numel() for total in sums])
        return [part.view_as(total) for part, total in zip(parts, sums, strict=True)]


def fused_weight(fused: Gradients, unimodal: Gradients) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight c of the fused loss's gradient against that of the unimodal losses, and whether they are in conflict.

    Both are tensors without dimensions; c is 1/2 for gradients that agree or are all 0.
    """
    dot, of_fused, of_unimodal = _dot(fused, unimodal), _dot(fused, fused), _dot(unimodal, unimodal)
    apart = of_fused + of_unimodal - 2 * dot  # above 0 under a conflict, unless both are 0
    shortest = (of_unimodal - dot) / apart
    is_conflict = (dot <= 0) & (apart > 0)
    return torch.where(is_conflict, shortest.clamp(LEAST_WEIGHT, 1 - LEAST_WEIGHT), 0.5), is_conflict.float()


def combined_gradient(fused: Gradients, unimodal: Gradients, weight: torch.Tensor, gamma: float = 1.5) -> Gradients:
    """The encoder's gradient, tensor by tensor at least as long as the plain sum of both, times `gamma`."""
    combined = []
    for g1, g2 in zip(fused, unimodal, strict=True):
        direction = 2 * weight * g1 + 2 * (1 - weight) * g2
        length = direction.norm()
        growth = ((g1 + g2).norm() / torch.where(length > 0, length, 1)).clamp(min=1)
        combined.append(gamma * growth * direction)
    return combined


def _dot(first: Gradients, second: Gradients) -> torch.Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def _gradients(loss: torch.Tensor, parameters: dict[str, list[Any]]) -> dict[str, Gradients]:
    """The loss's gradient in every encoder, in float32; 0 where it does not depend on a weight."""
    every = [parameter for of_encoder in parameters.values() for parameter in of_encoder]
    with torch.autocast(loss.device.type, enabled=False):  # as of Trainer's own backward
        found = iter(torch.autograd.grad(loss, every, retain_graph=True, materialize_grads=True))
    return {name: [next(found).float() for _ in of_encoder] for name, of_encoder in parameters.items()}


def _added(sums: dict[str, Gradients], more: dict[str, Gradients]) -> dict[str, Gradients]:
    if not sums:
        return more
    return {name: [a + b for a, b in zip(sums[name], more[name], strict=True)] for name in more}
