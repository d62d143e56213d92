"""Alpha: the weights of the auxiliary terms, L = (1 - sum_k alpha_k) * L_task + sum_k alpha_k * L_k."""

from collections.abc import Mapping
from typing import Any

from hf_colearn.utils.callback import CoLearningCallback


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuses weights outside [0, 1], alone or summed: L would stop being a mixture of its terms."""
    for term, alpha in weights.items():
        if not 0.0 <= alpha <= 1.0:  # NaN fails this, too
            raise ValueError(
                f"alpha={alpha} for the term '{term}' is outside [0, 1]: it is the share of the loss that the term "
                "gets. Choose a value from 0 (the task alone) to 1 (the term alone)."
            )
    if sum(weights.values()) > 1.0 + 1e-9:
        raise ValueError(
            f"the alphas {dict(weights)} sum to {sum(weights.values()):g}, which leaves a negative weight for the "
            "task loss: scale them down so that their sum is at most 1."
        )


class Alpha(CoLearningCallback):
    """The weight of every auxiliary term; what `CoLearningTrainer(alpha=...)` takes.

    A subclass gives `weights()`, as plain numbers that are read in every step, and may follow training by the hooks of
    [`CoLearningCallback`]. Its state is saved in every checkpoint and restored on resume, and a run that does not resume
    begins with the first one: an alpha that is used again starts anew.

    Example:

    ```python
    >>> from hf_colearn import Alpha

    >>> class WarmUp(Alpha):
    ...     steps = 0
    ...
    ...     def weights(self):
    ...         return {"latent": min(0.5, self.steps / 1000)}
    ...
    ...     def on_step_begin(self, args, state, control, **kwargs):
    ...         self.steps = state.global_step

    >>> WarmUp().weights()
    {'latent': 0.0}
    ```
    """

    def setup(self, trainer: Any) -> None:
        """Refuses to be among the callbacks of a run that it does not weigh."""
        if trainer.alpha is not self:
            raise ValueError(
                f"{type(self).__name__} is among the `callbacks`, where it weighs nothing: pass it as "
                f"`CoLearningTrainer(..., alpha={type(self).__name__}(...))`."
            )

    def weights(self) -> dict[str, float]:
        """The weight of every term at this moment, by the term's name; each in [0, 1], and so is their sum."""
        raise NotImplementedError
