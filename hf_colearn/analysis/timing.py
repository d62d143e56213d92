"""How long did training take, as its log says? `train_runtime` is what Trainer logs at the end of every call of `train()`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingTime:
    """Of the calls of `train()` that the log has.

    Args:
        seconds (`float`): Of training, without the evaluations in it.
        evaluation (`float`): Seconds of these.
        steps, all_steps (`int`): Optimizer steps in that time, and all up to the end: more where training was resumed, since
            what came before is in the log without its time.
    """

    seconds: float
    evaluation: float
    steps: int
    all_steps: int

    @property
    def is_whole(self) -> bool:
        return self.steps == self.all_steps


def training_time(history: Sequence[Mapping[str, Any]]) -> TrainingTime | None:
    """The time that a `trainer.state.log_history` has; None of a training that was not ended.

    Trainer logs seconds, and steps a second rounded to 0.001, of the steps of that call alone.

    Example:

    ```python
    >>> from hf_colearn.analysis.timing import training_time

    >>> resumed = {"step": 100, "train_runtime": 8.0, "train_steps_per_second": 5.0}
    >>> training_time([{"step": 60, "loss": 1.0}, {"step": 80, "eval_loss": 1.0, "eval_runtime": 2.0}, resumed])
    TrainingTime(seconds=6.0, evaluation=2.0, steps=40, all_steps=100)
    ```
    """
    seconds = evaluation = 0.0
    steps, reached, found = 0, 0, False
    evaluated: list[tuple[int, float]] = []
    for entry in history:
        evaluated += [
            (entry["step"], float(value))
            for key, value in entry.items()
            if key.startswith("eval_") and key.endswith("runtime") and "step" in entry
        ]
        if "train_runtime" not in entry:
            continue
        runtime, here = float(entry["train_runtime"]), int(entry["step"]) - reached
        rate = float(entry.get("train_steps_per_second", 0.0))
        counted = rate * runtime
        # Rounding leaves half a step and more open where steps are slow.
        ran = here if counted + 0.5 + 0.0005 * runtime >= here or not rate else round(counted)
        first = int(entry["step"]) - ran
        of_call = sum(value for step, value in evaluated if step > first)
        seconds, evaluation, steps = seconds + runtime - of_call, evaluation + of_call, steps + ran
        reached, evaluated, found = int(entry["step"]), [], True
    return TrainingTime(max(seconds, 0.0), evaluation, steps, reached) if found else None
