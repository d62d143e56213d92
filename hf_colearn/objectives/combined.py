"""Several objectives at once."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.objectives.momentum import MomentumEncoder
from hf_colearn.objectives.objective import CoLearningBatch, Objective, check_objective
from hf_colearn.utils.callback import CoLearningCallback


class Combined:
    """Several objectives at once, with the terms of all: each term has an alpha of its own.

    Args:
        objectives (`Objective`): Two or more; a term that two of them compute is refused, and so are two momentum encoders.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=multimodal, args=args, train_dataset=train, alpha=LearnedAlpha(("contrastive", "distribution")),
        objective=Combined(ContrastiveAlignment(), DistributionAlignment()),
    )
    ```
    """

    def __init__(self, *objectives: Objective):
        if not objectives:
            raise ValueError(
                "Combined is given no objective: pass at least one, `Combined(ContrastiveAlignment(), ...)`."
            )
        for objective in objectives:
            check_objective(objective, "Combined")
        self.objectives = objectives
        self.terms = tuple(term for objective in objectives for term in objective.terms)
        if doubled := sorted({term for term in self.terms if self.terms.count(term) > 1}):
            raise ValueError(f"the term '{doubled[0]}' is computed by two objectives: leave one of them out.")
        averaging = [type(part).__name__ for part in callbacks_of(self) if isinstance(part, MomentumEncoder)]
        if len(averaging) > 1:
            raise ValueError(
                f"{' and '.join(averaging)} have a momentum encoder each, and a batch is told of one: leave one of them out."
            )

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        return {term: loss for each in self.objectives for term, loss in each(outputs, batch).items()}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """That of every objective which has one."""
        for objective in self.objectives:
            if hasattr(objective, "check"):
                objective.check(model, teachers)

    def __repr__(self) -> str:
        return f"Combined({', '.join(map(repr, self.objectives))})"


def callbacks_of(objective: Any) -> list[CoLearningCallback]:
    """The objective, or its parts, that are callbacks, too."""
    parts = objective.objectives if isinstance(objective, Combined) else (objective,)
    nested = [callback for part in parts if isinstance(part, Combined) for callback in callbacks_of(part)]
    return [*(part for part in parts if isinstance(part, CoLearningCallback)), *nested]
