"""What a training run took: time, and memory at its peak."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch


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
