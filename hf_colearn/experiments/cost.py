"""What a training run took: time, and memory at its peak; and what a step took."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


STEP_SECONDS = "train_step_seconds"  # in the last entry of a run's log


@dataclass
class Cost:
    """Measures what happens within `with Cost() as cost:`.

    Attributes:
        seconds (`float`): Of wall time.
        peak_memory (`int` or `None`): In bytes, allocated by torch on a CUDA device, or else held by the process (on Linux,
            where its counter can be set back).
        of_device (`bool`): Whether it is a device's.
    """

    seconds: float = 0.0
    peak_memory: int | None = None
    of_device: bool = False

    @property
    def memory(self) -> dict[str, int | bool | None]:
        """The memory as the facts of a run have it."""
        return {"peak_memory": self.peak_memory, "peak_memory_of_device": self.of_device}

    def __enter__(self) -> "Cost":
        self._counts = self.of_device = torch.cuda.is_available()
        if self.of_device:
            torch.cuda.reset_peak_memory_stats()
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back (man 5 proc_pid_clear_refs)
                self._counts = True
            except OSError:
                pass
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error) -> None:
        self.seconds = time.perf_counter() - self._start
        if self.of_device:
            self.peak_memory = torch.cuda.max_memory_allocated()
        elif self._counts:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.peak_memory = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


class StepCost(TrainerCallback):
    """Adds the seconds of a training step to a run's log, a mean over its steps, without the evaluations: of the processor,
    which other programs do not slow down, or where there is a GPU, of the clock."""

    def __init__(self) -> None:
        self._now = time.perf_counter if torch.cuda.is_available() else time.process_time

    def on_train_begin(self, args, state, control, **kwargs):
        self._start, self._first = self._now(), state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        self._last = self._now()

    def on_evaluate(self, args, state, control, **kwargs):
        if hasattr(self, "_last"):  # and not before training
            self._start += self._now() - self._last
            self._last = self._now()

    def on_train_end(self, args, state, control, **kwargs):
        seconds = (self._now() - self._start) / max(state.global_step - self._first, 1)
        state.log_history[-1][STEP_SECONDS] = seconds


def step_seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """What a step took by the log of a run, or of the runs of a late ensemble, one after another; NaN where none says it."""
    seconds, steps = 0.0, 0
    for entry in history:
        if STEP_SECONDS in entry:
            seconds += entry[STEP_SECONDS] * (entry["step"] - steps)
            steps = entry["step"]
    return seconds / steps if steps else float("nan")
