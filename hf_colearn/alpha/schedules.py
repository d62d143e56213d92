"""Alphas that are the same throughout, or a function of the epoch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers.utils import logging

from hf_colearn.alpha.alpha import Alpha, check_weights
from hf_colearn.utils.checks import as_number


logger = logging.get_logger(__name__)


class ConstantAlpha(Alpha):
    """The same weights from the first step to the last (Lee & Yoon: 0.5 on ImageNet, 0.3 on IEMOCAP and AVMNIST).

    Args:
        alpha (`float` or `dict[str, float]`): The weight of `term`, or one weight a term by name; they and their sum are in
            [0, 1].
        term (`str`, *optional*, defaults to `"latent"`): The term that a single float weighs.
    """

    def __init__(self, alpha: float | Mapping[str, float], term: str = "latent"):
        weights = alpha if isinstance(alpha, Mapping) else {term: alpha}
        self._weights = {of: as_number("alpha", weight) for of, weight in weights.items()}
        check_weights(self._weights)

    @classmethod
    def from_weights(cls, weights: Mapping[str, float]) -> "ConstantAlpha":
        r"""That of a loss which is published as \\(L_{task} + \sum_k \lambda_k L_k\\), divided by \\(1 + \sum_k \lambda_k\\):
        \\(\alpha_k = \lambda_k / (1 + \sum_j \lambda_j)\\).

        The factor is one of the learning rate, of which Adam's updates do not depend.

        Args:
            weights (`dict[str, float]`): \\(\lambda_k\\) by term, finite and not negative.

        Example:

        ```python
        >>> from hf_colearn import ConstantAlpha

        >>> ConstantAlpha.from_weights({"captions": 4.0})
        ConstantAlpha({'captions': 0.8})

        ```
        """
        numbers = {of: as_number("weight", weight) for of, weight in weights.items()}
        for of, weight in numbers.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"weight={weight} of the term '{of}': pass a finite number that is not negative.")
        total = 1 + sum(numbers.values())
        return cls({of: weight / total for of, weight in numbers.items()})

    def weights(self) -> dict[str, float]:
        return dict(self._weights)

    def __repr__(self) -> str:
        return f"ConstantAlpha({self._weights})"


class ScheduledAlpha(Alpha):
    """An alpha that is a function of the epoch t = 1, 2, ...; subclasses give `value(t)`."""

    def __init__(self, term: str = "latent"):
        self.term = term
        self._epochs = 1

    def value(self, t: int) -> float:
        """The weight in epoch `t`, counted from 1."""
        raise NotImplementedError

    def on_train_begin(self, args, state, control, **kwargs):
        self._epochs = int(state.epoch or 0)  # those already whole: 0 in a fresh run

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._epochs += 1

    @property
    def t(self) -> int:
        """The epoch that weighs: the one that runs, and before training the first."""
        return max(self._epochs, 1)

    def weights(self) -> dict[str, float]:
        return {self.term: self.value(self.t)}

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epochs = int(state["t"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.term}')"


class HeuristicAlpha(ScheduledAlpha):
    r"""Starts at 0.632 and fades: \\(\alpha(t) = 1 - e^{-1/t}\\), t = 1, 2, ... the epoch.

    Source: the heuristic strategy of Yang et al. (NeurIPS 2024), section 3.3.

    Args:
        term (`str`, *optional*, defaults to `"latent"`): The term that it weighs; the task gets the rest.
    """

    def value(self, t: int) -> float:
        return -math.expm1(-1.0 / t)


# The weight of the *label* loss over the epochs, in the released code of Yang et al. (NeurIPS 2024).
RELEASED_LABEL_WEIGHT = (2.04623704e-1, 3.35472727e-3, 1.22989557e-4, -2.92947416e-6, 2.23835486e-8, -5.39717505e-11)


class FittedAlpha(ScheduledAlpha):
    r"""A polynomial in the epoch, \\(\alpha(t) = \sum_i c_i t^i\\), clipped to [0, 1] with one warning.

    Args:
        coefficients (`Sequence[float]`): \\(c_0, c_1, \ldots\\), ascending; one or more finite numbers.
        term (`str`, *optional*, defaults to `"latent"`): The term that it weighs; the task gets the rest.
    """

    def __init__(self, coefficients: Sequence[float], term: str = "latent"):
        super().__init__(term)
        if isinstance(coefficients, str) or not isinstance(coefficients, Iterable):
            raise TypeError(f"coefficients={coefficients!r} are no list: pass numbers, the constant first.")
        self.coefficients = [as_number("coefficients", c) for c in coefficients]
        if not self.coefficients or not all(map(math.isfinite, self.coefficients)):
            raise ValueError(
                f"coefficients={list(coefficients)} do not define a polynomial: pass at least one finite number, "
                "ascending (the constant first)."
            )
        self._warned = False

    @classmethod
    def released(cls, term: str = "contrastive") -> "FittedAlpha":
        """What Yang et al. (NeurIPS 2024) fitted and released: one minus their polynomial for the label loss.

        It falls from 0.792 in epoch 1 to 0.003 in epoch 176, and from then on is clipped where it leaves [0, 1].
        """
        constant, *rest = RELEASED_LABEL_WEIGHT
        return cls([1 - constant, *(-c for c in rest)], term)

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._warned = False

    def value(self, t: int) -> float:
        alpha = sum(c * t**power for power, c in enumerate(self.coefficients))
        clipped = min(max(alpha, 0.0), 1.0)
        if clipped != alpha and not self._warned:
            self._warned = True
            logger.warning(f"FittedAlpha leaves [0, 1] in epoch {t} with {alpha:.6g}; it is clipped wherever it does.")
        return clipped

    def __repr__(self) -> str:
        return f"FittedAlpha({self.coefficients}, '{self.term}')"
