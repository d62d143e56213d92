"""The means of the task loss, of every term and of alpha between two logs."""

import math
from collections.abc import Mapping, Sequence

import torch

from hf_colearn.models.heads import LEAST_COUNT
from hf_colearn.utils import distributed


class TermLog:
    """Sums on the device, which are read once a log."""

    def __init__(self, terms: Sequence[str]):
        self.names = ("task", *terms)
        self._is_first = True
        self._reset()

    def _reset(self) -> None:
        self._sums: torch.Tensor | None = None  # of the losses, and of what they are means over
        self._broken: torch.Tensor | None = None  # the micro-batch since which a loss is not finite, infinity if none
        self._alphas = dict.fromkeys(self.names[1:], 0.0)
        self._count = 0

    def add(
        self,
        losses: Mapping[str, torch.Tensor],
        alphas: Mapping[str, float],
        counts: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Adds a micro-batch's losses, `"task"` and every term, and their weights; the run's first must be finite.

        `counts` are how many samples a micro-batch of the step has on average that count for a loss; a loss without one
        counts alike in every micro-batch.
        """
        values = torch.stack([losses[name].detach().float() for name in self.names])
        broken = torch.where(values.isfinite(), math.inf, float(self._count))
        self._broken = broken if self._broken is None else torch.minimum(self._broken, broken)
        one = torch.ones_like(values[0])
        weights = torch.stack([(counts or {}).get(name, one).reshape(()).float() for name in self.names])
        added = torch.stack([torch.where(weights > 0, values * weights, 0), weights])
        self._sums = added if self._sums is None else self._sums + added
        for name in self._alphas:
            self._alphas[name] += alphas[name]
        self._count += 1
        if self._is_first:  # the only micro-batch that the host waits for
            self._is_first = False
            self._check_finite(distributed.mean_over_processes(values).tolist(), "in the first step")

    def pop_metrics(self) -> dict[str, float]:
        """The means over what counted since the last call, over processes, too, which must be finite; 0 where nothing did, and
        empty where nothing was added."""
        if self._sums is None:
            return {}
        sums, weights = distributed.mean_over_processes(self._sums)
        means = (sums / weights.clamp(min=LEAST_COUNT)).tolist()
        self._check_finite(means, "since the last log")
        logs = {f"loss_{name}": mean for name, mean in zip(self.names, means, strict=True)}
        for name, total in self._alphas.items():
            logs["alpha" if len(self._alphas) == 1 else f"alpha_{name}"] = total / self._count
        self._reset()
        return logs

    def _check_finite(self, means: Sequence[float], when: str) -> None:
        if all(map(math.isfinite, means)):
            return
        assert self._broken is not None
        # Weights that are no numbers break every loss after it, so the first one is named.
        since = [min(found) for found in zip(*distributed.from_all_processes(self._broken.tolist()), strict=True)]
        first = min(range(len(since)), key=since.__getitem__)
        name = "task loss" if first == 0 else f"term '{self.names[first]}'"
        raise FloatingPointError(
            f"the {name} is not finite {when} (micro-batch {since[first] + 1:.0f} of it): from there on no weight would be a "
            "number, so training stops. Look for values that are not finite in the inputs, labels and targets, or lower the "
            "learning rate."
        )
