"""AGM: the gradient of every modality's Shapley value is scaled by how far ahead of its own past the modality is.

Shapes: B samples, M modalities, C classes, S a subset of the modalities by their places.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from math import factorial
from typing import Any

import torch
from torch import nn

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.balance.scores import mean_of_others, means_of, true_class_probability
from hf_colearn.utils.checks import check_positive
from hf_colearn.utils.distributed import mean_over_processes


Subset = tuple[int, ...]
LEAST_PROBABILITY = 1e-8
MOST_DIFFERENCE = 10  # of the ratios, before the exponential


class AGM(BalanceMethod):
    r"""Adaptive gradient modulation (Li et al., ICCV 2023), for any fusion.

    The logits f are split into contributions of the modalities, their Shapley values: of two

    \\(\phi_a = [f(a, v) - f(0, v) + f(a, 0)] / 2\\), \\(\phi_v = [f(a, v) - f(a, 0) + f(0, v)] / 2\\),
    \\(z = \phi_a + \phi_v = f(a, v)\\).

    The loss is that of z, and in its gradient \\(dL/d\phi_m\\) is multiplied by

    \\(\kappa_m = \exp(\alpha \min(\tau_m - r_m, 10))\\), \\(r_m = \exp(s_{other} - s_m)\\),
    \\(\tau_m = \exp(\hat s_{other} - \hat s_m)\\),

    with \\(s_m\\) the mean cross-entropy of \\(\phi_m\\) (probabilities are at least 1e-8) and \\(\hat s_m\\) its mean over all
    earlier steps, 0 at first. Of more than two modalities f(0, ..., 0) counts as 0, so that three have weights 1/3, 1/6, 1/3
    by the size of the subset, and \\(s_{other}\\) is the mean over the others, both as in the authors' code for three.

    The padded passes have a gradient, and run in evaluation mode, so that they change no statistics of batch norms. A padded
    modality has zeros in place of its floating-point inputs; one of integers alone, such as token ids, for which 0 is a
    token, is passed as absent. A modality that a sample lacks contributes 0 to it, with a gradient of 0.

    A re-implementation (BalanceBenchmark) runs the padded passes without a gradient: all encoders then get one common factor,
    the mean of \\(\kappa\\).

    \\(\kappa\\) is needed before the backward, so it is that of a micro-batch, over all processes: 8 micro-batches of one
    sample are not one of 8, unlike the running means, which are over the samples of a step. What else the loss holds, the
    losses of the heads, is left as it is.

    A step costs 2^M - 2 more forwards and backwards of the whole model (of two modalities three in place of one, of three
    seven), with their memory, and a reduction of 2 M numbers for every micro-batch.

    Args:
        alpha (`float`, *optional*, defaults to 1.0): How strongly gradients are modulated.

    Raises:
        ValueError: If a value is out of range, or the model drops modalities at random.

    Example:

    ```python
    >>> from hf_colearn import AGM

    >>> balance = AGM(alpha=0.5)  # CoLearningTrainer(model, args, train_dataset=data, balance=balance)
    ```
    """

    replaces_loss = True

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        check_positive("alpha", alpha)
        self.alpha = alpha
        self._inputs: dict[str, Any] = {}
        self._step_2M: torch.Tensor | None = None  # sums of the step so far, see `score_sums`
        self._means_M: torch.Tensor | None = None  # over earlier steps; NaN of a modality that none had
        self._steps_M: torch.Tensor | None = None

    def check_model(self, model):
        super().check_model(model)
        if model.config.modality_dropout:
            raise ValueError(
                f"AGM compares passes with and without a modality, and modality_dropout={model.config.modality_dropout} "
                "leaves some out at random: set it to 0."
            )

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._inputs, self._step_2M = {}, None

    def training_step(self, trainer, model, inputs, step):
        self._inputs = trainer._prepare_inputs(inputs)
        try:
            return step(model, dict(self._inputs))
        finally:
            self._inputs = {}

    def loss(self, seen, task):
        values = self._values(seen)
        phi = contributions(values, len(seen.modalities))
        sums_2M = mean_over_processes(_loss_sums(phi, seen))
        self._step_2M = sums_2M if self._step_2M is None else self._step_2M + sums_2M
        scores_M = means_of(sums_2M)
        if self._means_M is None:
            self._means_M, self._steps_M = torch.full_like(scores_M, torch.nan), torch.zeros_like(scores_M)
        self._means_M = self._means_M.to(scores_M.device)
        kappa_M = coefficients(scores_M, self._means_M, self.alpha)
        for name, phi_BC, kappa in zip(seen.modalities, phi, kappa_M.unbind(), strict=True):
            scale_gradient(phi_BC, kappa)
            self.record(**{f"coefficient_{name}": kappa})
        z_BC = torch.stack(phi).sum(0)
        return task - seen.fused_loss + seen.loss_of(z_BC)

    def on_gradients(self, model):
        assert self._step_2M is not None and self._means_M is not None and self._steps_M is not None
        scores_M, self._step_2M = means_of(self._step_2M), None
        is_here_M = ~scores_M.isnan()
        self._steps_M = self._steps_M.to(scores_M.device) + is_here_M
        means_M = self._means_M.nan_to_num()
        means_M = means_M + (scores_M.nan_to_num() - means_M) / self._steps_M.clamp(min=1)
        self._means_M = torch.where(is_here_M, means_M, self._means_M)

    def state_dict(self):
        if self._means_M is None or self._steps_M is None:
            return {"means": None, "steps": None}
        return {"means": self._means_M.cpu(), "steps": self._steps_M.cpu()}

    def load_state_dict(self, state):
        self._means_M, self._steps_M = state["means"], state["steps"]

    def _values(self, seen: ModalityBatch) -> dict[Subset, torch.Tensor]:
        """f of every subset that is not empty, `(B, C)`: of a sample that lacks modalities, of those that it has."""
        whole_BC = seen.outputs["logits"].float()
        places = range(len(seen.modalities))
        values = {tuple(places): whole_BC}
        for subset in (s for size in places[1:] for s in combinations(places, size)):
            is_in_M = torch.tensor([place in subset for place in places]).to(whole_BC.device, non_blocking=True)
            has_any_B1 = (seen.present_BM & is_in_M).any(1, keepdim=True)
            is_whole_B1 = (is_in_M | ~seen.present_BM).all(1, keepdim=True)
            padded_BC = self._padded(seen, subset)
            value_BC = torch.zeros_like(whole_BC) if padded_BC is None else padded_BC
            values[subset] = torch.where(is_whole_B1, whole_BC, torch.where(has_any_B1, value_BC, 0))
        return values

    def _padded(self, seen: ModalityBatch, subset: Subset) -> torch.Tensor | None:
        """f of a subset, the others padded; None where no sample has any of what is then left."""
        present_BM = seen.present_BM
        inputs: dict[str, torch.Tensor] = {}
        for place, name in enumerate(seen.modalities):
            columns = [f"{name}_{column}" for column in seen.model.encoders[name].input_names]
            given = {column: self._inputs[column] for column in columns if self._inputs.get(column) is not None}
            if place not in subset:
                if given and not any(value.is_floating_point() for value in given.values()):
                    is_other_M = torch.arange(present_BM.shape[1], device=present_BM.device) != place
                    present_BM, given = present_BM & is_other_M, {}
                given = {key: _zeros(value) for key, value in given.items()}
            inputs |= given
        is_whole = present_BM is seen.present_BM and self._inputs.get("modality_mask") is None
        if not inputs or not (is_whole or present_BM.any()):
            return None
        mask = {} if is_whole else {"modality_mask": present_BM}
        with evaluating(seen.model):
            return seen.model(**inputs, **mask).logits.float()


def contributions(values: Mapping[Subset, torch.Tensor], modalities: int) -> list[torch.Tensor]:
    r"""The Shapley value of every modality, whose sum is the value of all.

    \\(\phi_m = \sum_{S \ni m} (|S| - 1)! (M - |S|)! / M! \, [f(S) - f(S - m)]\\), \\(f(\{\}) = 0\\).

    Args:
        values (`Mapping`): f of every subset that is not empty, of one shape, by the modalities' places in order.
        modalities (`int`): Their number M.
    """
    phi = []
    for place in range(modalities):
        parts = []
        for subset, value in values.items():
            if place in subset:
                size = len(subset)
                weight = factorial(size - 1) * factorial(modalities - size) / factorial(modalities)
                rest = tuple(other for other in subset if other != place)
                parts.append(weight * (value - values[rest] if rest else value))
        phi.append(torch.stack(parts).sum(0))
    return phi


def coefficients(scores_M: torch.Tensor, means_M: torch.Tensor, alpha: float) -> torch.Tensor:
    """kappa of every modality, `(M,)`, of their mean cross-entropies now and over earlier steps, NaN where there is none;
    1 where there is nothing to compare with."""
    known_M = ~scores_M.isnan()
    differences_M = _ratios(means_M) - _ratios(scores_M)
    kappa_M = (alpha * differences_M.clamp(max=MOST_DIFFERENCE)).exp()
    return torch.where(known_M & (known_M.sum() > 1), kappa_M, 1)


def _ratios(scores_M: torch.Tensor) -> torch.Tensor:
    """exp of the mean of the others' scores less one's own; 1 where either is not known."""
    ratios_M = (mean_of_others(scores_M) - scores_M).exp()
    return torch.where(ratios_M.isnan(), 1, ratios_M)


def scale_gradient(tensor: torch.Tensor, factor: torch.Tensor) -> None:
    """From now on the gradient that reaches the tensor is multiplied by the factor."""
    tensor.register_hook(lambda gradient: gradient * factor)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _loss_sums(phi: list[torch.Tensor], seen: ModalityBatch) -> torch.Tensor:
    """Of every modality the sum of the cross-entropies of its contribution, over the samples that have it and a label, and
    their number, `(2M,)`."""
    probabilities_BM = torch.stack([true_class_probability(phi_BC.detach(), seen.labels) for phi_BC in phi], dim=1)
    losses_BM = -probabilities_BM.clamp(min=LEAST_PROBABILITY).log()
    losses_M = torch.where(seen.counted_BM, losses_BM, 0).sum(0)
    return torch.cat([losses_M, seen.counted_BM.sum(0).to(losses_M.dtype)])


def _zeros(value: torch.Tensor) -> torch.Tensor:
    """Zeros of a floating-point input; a mask stays."""
    return torch.zeros_like(value) if value.is_floating_point() else value
