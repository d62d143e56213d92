"""Paired timing, and the one table that it ends in."""

import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np


def in_a_fresh_process(call: Callable[..., Any], *args: Any) -> Any:
    """What a function of a module returns in a process that has done nothing but import this package."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_colearn.trainer"])
    with context.Pool(1) as pool:
        return pool.apply(call, args)


def timed(call: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def in_turn(
    calls: Sequence[Callable[[], float]], rounds: int, warmup: int = 1, until: float = math.inf, fewest: int = 2
) -> np.ndarray:
    """Measurements that take turns, A B C C B A A B C ..., so that whatever slows the machine slows all.

    Args:
        calls (`Sequence[Callable]`): Each measures once and returns the seconds.
        rounds (`int`): How many times each, after `warmup` times that do not count.
        until (`float`, *optional*): When no round begins that would not be over (of `perf_counter`), after the `fewest`.

    Returns:
        `np.ndarray` of shape `(rounds, len(calls))`: Seconds.
    """
    for _ in range(warmup):
        for call in calls:
            call()
    seconds, longest = np.empty((rounds, len(calls))), 0.0
    for turn in range(rounds):
        start = perf_counter()
        if turn >= fewest and start + longest > until:
            return seconds[:turn]
        for which in range(len(calls))[:: 1 if turn % 2 == 0 else -1]:
            seconds[turn, which] = calls[which]()
        longest = max(longest, perf_counter() - start)
    return seconds


def paired(first: Callable[[], float], second: Callable[[], float], pairs: int, warmup: int = 1) -> np.ndarray:
    """Two measurements that take turns, A B B A A B B A ...: seconds, `(pairs, 2)`."""
    return in_turn((first, second), pairs, warmup)


def median_with_interval(values: Sequence[float] | np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """The median, and the 95 % bootstrap interval of it (percentiles over resampled pairs)."""
    values = np.asarray(values, dtype=float)
    resampled = np.random.default_rng(0).choice(values, size=(draws, len(values)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


@dataclass
class Row:
    """One line of the table.

    Args:
        benchmark (`str`): Which file measured it.
        what (`str`): What is divided by what.
        sizes (`str`): Of the models, batches and banks.
        value, low, high (`float`): The median and its interval; three times the same where there is none.
        unit (`str`): `"x"` (a ratio), `"%"` (a share), `"MB"` or `""` (a count).
        repeats (`str`): Such as `"40 pairs"`.
        target (`str`, *optional*, defaults to `""`): `"<= 1.02"`, `">= 50"` or nothing.
        note (`str`, *optional*, defaults to `""`): What a reader must know to judge the number.
    """

    benchmark: str
    what: str
    sizes: str
    value: float
    low: float
    high: float
    unit: str
    repeats: str
    target: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        if not self.target:
            return None
        sign, limit = self.target.split()
        return {"<=": self.value <= float(limit), ">=": self.value >= float(limit)}[sign]

    def as_dict(self) -> dict:
        return {**asdict(self), "met": self.met}


def ratio_row(benchmark: str, what: str, sizes: str, seconds: np.ndarray, unit: str = "x", **kwargs) -> Row:
    """A row of the second call's time over the first's, pair by pair; `seconds` as [`paired`] returns them."""
    ratios = seconds[:, 1] / seconds[:, 0] * (100 if unit == "%" else 1)
    return Row(benchmark, what, sizes, *median_with_interval(ratios), unit, f"{len(seconds)} pairs", **kwargs)


def table(rows: Sequence[Row], judge: bool = True) -> str:
    """The rows in Markdown, with the notes as numbered lines below; without a verdict where `judge` is false."""
    lines = [
        "| what | sizes | median | 95 % interval | repeats | target | met |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    notes: list[str] = []
    for row in rows:
        mark = ""
        if row.note:
            if row.note not in notes:
                notes.append(row.note)
            mark = f" [{notes.index(row.note) + 1}]"
        interval = "" if row.low == row.high else f"{_short(row.low)} to {_short(row.high)}"
        target = f"{row.target} {row.unit}".strip() if row.target else "none, for information"
        met = {None: "", True: "yes", False: "**no**"}[row.met] if judge else ""
        value = f"{_short(row.value)} {row.unit}".strip()
        lines.append(f"| {row.what}{mark} | {row.sizes} | {value} | {interval} | {row.repeats} | {target} | {met} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


def _short(value: float) -> str:
    """Four digits are enough, and never an exponent."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
