"""What an objective is, and what it is told of a batch. Shapes: B samples of a batch, D dimensions of a latent, C classes."""

from collections.abc import Container, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from hf_colearn.data.sample_ids import LABELS, NO_LABEL, SAMPLE_IDS, STEP_COUNTS, TARGETS, VIEWS, is_target
from hf_colearn.models.heads import LEAST_COUNT, label_mask
from hf_colearn.utils.distributed import is_distributed, mean_over_processes


LABELLED = "labelled"
IMPUTABLE = "imputable latents"  # in counts of a step, where teachers have the names of identifiers
TEACHER = "teacher"  # the name of a single teacher, `CoLearningTrainer(bank=..., pairing=...)`


def check_objective(objective: Any, where: str) -> None:
    """Refuses what is no objective, where one is wrapped."""
    if isinstance(objective, type) or not callable(objective) or not hasattr(objective, "terms"):
        shown = f"the class {objective.__name__}" if isinstance(objective, type) else f"a {type(objective).__name__}"
        raise TypeError(f"{where} is given {shown}: pass an object with `terms`, such as `ContrastiveAlignment()`.")


@dataclass(frozen=True)
class CoLearningBatch:
    """What an [`Objective`] is told of a batch beside the model's outputs.

    Args:
        labels (`torch.Tensor`, *optional*): As the model gets them: classes `(B,)`, soft or several labels `(B, C)`.
        targets (`dict[str, torch.Tensor]`, *optional*): Every teacher's latents `(B, D)` by the teacher's name, or of
            sequences `(B, T, D)` or ids `(B, T)`; what is NaN, or of ids -100, is no target. A single teacher, given as
            `bank=` and `pairing=`, has the name `"teacher"`.
        sample_ids (`torch.Tensor` of shape `(B,)`, *optional*): Where the training set has a column of ids.
        epoch (`int`, *optional*, defaults to 0): The current one.
        momentum (`Mapping`, *optional*): What a momentum encoder makes of the same samples, where an objective has one: the
            outputs of an average of the student, through which no gradient flows.
        views (`torch.Tensor` of shape `(B,)`, *optional*): Which view of its sample a row is, where an augmentation makes
            several: 0 the weakly, 1 the strongly augmented one.
        from_inputs (`Mapping`, *optional*): What objectives have made of the batch in their `on_inputs`, by the term.
        step_counts (`dict[str, torch.Tensor]`, *optional*): How many samples count in a micro-batch of the optimizer step, on
            average over its micro-batches and processes: `"labelled"`, every teacher's name, and `"labels"` of the task.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> batch = CoLearningBatch(torch.tensor([3, -100]), {"text": torch.tensor([[torch.nan], [0.5]])})
    >>> batch.labelled.tolist(), batch.paired["text"].tolist()
    ([True, False], [False, True])
    ```
    """

    labels: torch.Tensor | None = None
    targets: Mapping[str, torch.Tensor] = field(default_factory=dict)
    sample_ids: torch.Tensor | None = None
    epoch: int = 0
    momentum: Mapping[str, Any] | None = None
    views: torch.Tensor | None = None
    from_inputs: Mapping[str, Any] = field(default_factory=dict)
    step_counts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def taken_from(
        cls, inputs: MutableMapping[str, Any], epoch: int = 0, kept: Container[str] = ()
    ) -> "CoLearningBatch":
        """Takes what is not the model's out of a batch, and reads its labels; what the model reads, too, is `kept`."""

        def taken(name: str, default: Any = None) -> Any:
            return inputs.get(name, default) if name in kept else inputs.pop(name, default)

        names = {key: key.removeprefix(TARGETS).removeprefix("_") or TEACHER for key in inputs if is_target(key)}
        return cls(
            labels=next((inputs[name] for name in LABELS if name in inputs), None),
            targets={name: taken(key) for key, name in names.items()},
            sample_ids=taken(SAMPLE_IDS),
            epoch=epoch,
            views=taken(VIEWS),
            step_counts=taken(STEP_COUNTS, {}),
        )

    @property
    def labelled(self) -> torch.Tensor | None:
        """Which samples have a label, or one at least of several, `(B,)` booleans; None without labels in a tensor."""
        if not isinstance(self.labels, torch.Tensor):
            return None
        is_label = label_mask(self.labels)
        return is_label.flatten(1).any(dim=1) if is_label.ndim > 1 else is_label

    @property
    def paired(self) -> dict[str, torch.Tensor]:
        """Which samples have a target of each teacher, `(B,)` booleans."""
        return {name: have_target(targets) for name, targets in self.targets.items()}

    @property
    def only_teacher(self) -> str:
        """The only teacher's name; a ValueError where there is none, or more than one."""
        if len(self.targets) != 1:
            raise ValueError(
                f"the batch has targets of {list(self.targets) or 'no teacher'}, where one teacher is expected: name the "
                "teachers, such as `LatentMatching(teachers=('text', 'audio'))`, or pass a `bank`."
            )
        return next(iter(self.targets))

    @property
    def target(self) -> torch.Tensor:
        """The only teacher's targets; a ValueError where there is none, or more than one."""
        return self.targets[self.only_teacher]

    def weight(self, counts: str | torch.Tensor) -> torch.Tensor | float:
        """What to multiply the mean over this micro-batch's samples that count with: their number over its mean.

        The average over micro-batches and processes is then the mean over all samples that count.

        Args:
            counts (`str` or `torch.Tensor` of shape `(B,)`): `"labelled"`, or the name of a teacher for the samples that have
                its target: the mean is over the whole optimizer step. Or booleans, of which only this micro-batch is known:
                the mean is over the processes.
        """
        of = counts if isinstance(counts, str) else ""
        counts_B = self._mask(counts) if isinstance(counts, str) else counts
        if of not in self.step_counts and not is_distributed():
            return 1.0
        count = counts_B.sum().float()
        mean = self.step_counts[of] if of in self.step_counts else mean_over_processes(count)
        return count / mean.clamp(min=LEAST_COUNT)

    def _mask(self, counts: str) -> torch.Tensor:
        if counts != LABELLED:
            return have_target(self.targets[counts])
        if self.labelled is None:
            raise ValueError(
                "the batch has no labels, so none of its samples is labelled: give the data set a column."
            )
        return self.labelled


def target_key(teacher: str) -> str:
    """The entry of a batch that holds a teacher's targets."""
    return TARGETS if teacher == TEACHER else f"{TARGETS}_{teacher}"


def have_target(targets: torch.Tensor) -> torch.Tensor:
    """Which samples have a target, `(B,)` booleans: latents that are NaN throughout are none, nor are ids that are all -100.

    Of a sequence, targets `(B, T, D)` or ids `(B, T)`, such positions are padding; a vector with some NaN is a broken one.
    """
    is_none = targets.isnan() if targets.is_floating_point() else targets == NO_LABEL
    return ~is_none.flatten(1).all(dim=1)


class Objective(Protocol):
    """Computes named auxiliary terms of the loss; what `CoLearningTrainer(objective=...)` takes.

    Any object with `terms` and a call is one, there is no base class. Each term is a scalar tensor, a mean over the samples
    that count; alpha weighs the terms by name. An objective has no weights of its own: what it needs to learn is a
    training head of the student (`training_heads`), so that it is saved, resumed and the same on all processes. One that
    keeps something from step to step, such as a queue, is a [`CoLearningCallback`], too: the trainer adds it to its
    callbacks.

    It may have a method `check(model, teachers)`, which the trainer calls when it is built: a ValueError where a training
    head is missing, or a width does not fit. Without one, a single teacher's latents must be as wide as the student's.

    Attributes:
        terms (`tuple[str, ...]`): The names of what a call returns.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> class SmallLatents:
    ...     terms = ("size",)
    ...
    ...     def __call__(self, outputs, batch):
    ...         return {"size": outputs["latents"].pow(2).mean()}

    >>> SmallLatents()({"latents": torch.ones(2, 3)}, CoLearningBatch())
    {'size': tensor(1.)}
    ```
    """

    terms: tuple[str, ...]

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        """The terms of a batch by the model's outputs, such as `latents` `(B, D)` and `logits` `(B, C)`."""
        ...
