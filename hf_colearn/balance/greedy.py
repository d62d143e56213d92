"""`GreedyCuration`: a modality that learns mostly through the exchange of channels does without it for some steps."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import get_total_norm

from hf_colearn.balance.method import BalanceMethod, balanced_model, no_gradient
from hf_colearn.models.lora import trained_layer
from hf_colearn.utils.checks import check_integer, is_number
from hf_colearn.utils.distributed import is_distributed, mean_over_processes, world_size


class GreedyCuration(BalanceMethod):
    r"""Compares how fast encoders and the exchange between them learn, and takes the exchange away where it is faster.

    A model of `fusion="mmtm"` (with or without `stages`) has for each modality a main branch, its encoder and head with
    weights \\(\theta_m\\), and a bypass, the joint squeeze and its own excitation, \\(\theta'_m\\). With the whole
    gradients of every step that is not curated,

    $$\mu_m = \sum_t \frac{|g_m|^2}{|\theta_m|^2}, \quad \mu'_m = \sum_t \frac{|g'_m|^2}{|\theta'_m|^2}, \quad
    d_m = \log_{10} \frac{\mu'_m}{\mu_m}$$

    Where \\(d_0\\) and \\(d_1\\) differ by more than \\(\epsilon\\), the modality with the larger one is curated for the
    next steps: its gates are the running mean that they had in training, over unlabelled samples too, which says nothing of
    the sample, and the weights that make them stay as they are. Then comes a step without curation, and the next decision.
    Of more modalities the largest d is compared with the smallest (ours; the paper has two).

    Source: Wu et al., "Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural Networks",
    ICML 2022. The released code decides after every step without curation; here a decision is made once in
    `steps` + 1 steps, so that the host waits for the device no more often. Its curation, too, begins after the first epoch. Its
    running means are not in checkpoints, and the second modality's is fed by the first one's gates; see
    [`~hf_colearn.models.mmtm_fusion.MMTMFusion`] for ours, which are over the samples of all processes here.

    `random=True` is the null control: as many curated steps by the same rule, of a modality that is drawn at random. (The
    released one draws one of the modalities or none in every step.)

    The logs get `balance_coefficient_{modality}`, the share of the steps in which it is curated, and `balance_difference`,
    the difference at each decision. The rule reads the gradient of a whole step, which is the same however it is cut.

    Cost: the norms of all weights and gradients in a step that is not curated, and of several processes a reduction of the
    gates' sums in a forward; one wait for the device in `steps` + 1 steps.

    Args:
        epsilon (`float`, *optional*, defaults to 0.01): \\(\epsilon\\).
        steps (`int`, *optional*, defaults to 5): For how many steps a modality is curated.
        start_epoch (`int`, *optional*, defaults to 1): How many epochs train without curation, and give the running means.
        random (`bool`, *optional*, defaults to `False`): Draw the modality, by the training's seed and the step.

    Raises:
        ValueError: If the model has another fusion, or a number is out of range.

    Example:

    ```python
    trainer = CoLearningTrainer(model=with_mmtm, args=args, train_dataset=train, balance=GreedyCuration())
    ```
    """

    fusions = ("mmtm",)

    def __init__(self, epsilon: float = 0.01, steps: int = 5, start_epoch: int = 1, random: bool = False):
        super().__init__()
        if not is_number(epsilon) or not 0 <= epsilon < float("inf"):
            raise ValueError(f"epsilon={epsilon!r} is no difference of logarithms: pass 0 or more.")
        check_integer("steps", steps, 1)
        check_integer("start_epoch", start_epoch)
        if not isinstance(random, bool):
            raise TypeError(f"random={random!r} is a {type(random).__name__}: pass a bool.")
        self.epsilon, self.steps, self.start_epoch, self.random = epsilon, steps, start_epoch, random
        self.curated: int | None = None  # the number of the modality that is curated now
        self._left = 0  # steps until the next one that decides
        self._speeds_M2: torch.Tensor | None = None  # of the bypasses and of the main branches
        self._gate_sums: list[torch.Tensor] = []  # of every exchange, over all processes

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        fusion = _fusion(model)
        fusion.curated = self.curated
        if is_distributed():
            self._gate_sums = [_gate_sums(exchange) for exchange in _exchanges(fusion)]

    def observe(self, seen):
        # A process knows its own samples' gates, and DDP would keep those of process 0.
        if is_distributed() and self.curated is None:
            for i, exchange in enumerate(_exchanges(_fusion(seen.model))):
                before_S = self._gate_sums[i]
                added_S = mean_over_processes(_gate_sums(exchange) - before_S) * world_size()
                self._gate_sums[i] = before_S + added_S
                _keep_gates(exchange, self._gate_sums[i])

    def on_gradients(self, model):
        inner = balanced_model(model)
        fusion = _fusion(model)
        if self.curated is not None:
            others = [i for i in range(len(inner.modalities)) if i != self.curated]
            joint = {weight for i in others for weight in fusion.bypass_parameters(i)}
            no_gradient(weight for weight in fusion.bypass_parameters(self.curated) if weight not in joint)
        else:
            branches = [
                torch.stack([speed(fusion.bypass_parameters(i)), speed(encoder.parameters())])
                for i, encoder in enumerate(inner.encoders.values())
            ]
            speeds_M2 = torch.stack(branches)
            before_M2 = self._speeds_M2
            self._speeds_M2 = speeds_M2 if before_M2 is None else before_M2.to(speeds_M2.device) + speeds_M2
        for i, name in enumerate(inner.modalities):
            self.record(**{f"coefficient_{name}": float(i == self.curated)})

    def on_step_end(self, args, state, control, **kwargs):
        if state.epoch <= self.start_epoch or self._speeds_M2 is None:
            return
        if self._left:
            self._left -= 1
            if not self._left:
                self.curated = None
            return
        self._left, speeds_M2 = self.steps, mean_over_processes(self._speeds_M2)
        difference, fastest = (value.item() for value in bypass_difference(speeds_M2))
        self.record(difference=difference)
        if difference > self.epsilon:
            drawn = np.random.default_rng((args.seed, state.global_step)).integers(len(speeds_M2))
            self.curated = int(drawn if self.random else fastest)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        _fusion(model).curated = None

    def state_dict(self):
        speeds_M2 = None if self._speeds_M2 is None else self._speeds_M2.cpu()
        return {"curated": self.curated, "left": self._left, "speeds": speeds_M2}

    def load_state_dict(self, state):
        self.curated, self._left, self._speeds_M2 = state["curated"], state["left"], state["speeds"]


def speed(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """The squared norm of the gradients over that of the weights, a scalar."""
    weights = [weight for weight in parameters if weight.requires_grad]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return (get_total_norm(gradients) / get_total_norm([weight.detach() for weight in weights])).square().float()


def bypass_difference(speeds_M2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By how much the largest log10(bypass / main) exceeds the smallest, and whose the largest is."""
    bypass_M, main_M = speeds_M2.clamp(min=torch.finfo(torch.float32).tiny).log10().unbind(1)
    ratios_M = bypass_M - main_M
    return ratios_M.max() - ratios_M.min(), ratios_M.argmax()


def _exchanges(fusion: Any) -> list[Any]:
    return [*fusion.exchanges] if fusion.stages else [fusion]


def _gate_sums(exchange: Any) -> torch.Tensor:
    """How many samples an exchange's running means are of, by modality, and the sums that they are made of, `(S,)`."""
    counts_M = exchange.gate_counts.double()
    sums = [getattr(exchange, f"gate_mean_{i}").double() * count for i, count in enumerate(counts_M.unbind())]
    return torch.cat([counts_M, *sums])


def _keep_gates(exchange: Any, sums_S: torch.Tensor) -> None:
    """Makes the running means those of such sums."""
    means = [getattr(exchange, f"gate_mean_{i}") for i in range(len(exchange.gate_counts))]
    counts_M, *sums = sums_S.split([len(means), *map(len, means)])
    exchange.gate_counts.copy_(counts_M.round())
    for mean_H, sum_H, count in zip(means, sums, counts_M.unbind(), strict=True):
        mean_H.copy_(torch.where(count > 0, sum_H / count.clamp(min=1), mean_H))


def _fusion(model: Any) -> Any:
    return trained_layer(balanced_model(model).fusion)


Greedy = GreedyCuration
