"""The numbers of a report on two clouds of latents: seconds of each, and the memory that they add."""

import multiprocessing
from collections.abc import Callable
from time import perf_counter

import numpy as np
import psutil
import torch
from threadpoolctl import threadpool_limits

from hf_colearn.analysis.latents.geometry import linear_cka, silhouette, uniformity
from hf_colearn.analysis.latents.transport import wasserstein2
from tests.benchmarks.bank import MB, peak_resident
from tests.benchmarks.timing import Row, median_with_interval


THREADS = 2
NOTE_TIME = (
    "Two float32 clouds of ten classes, the second moved and turned, with every default of the function, in a fresh "
    "process. In brackets: the 95 % interval of W2 squared over mini-batches or directions."
)
NOTE_MEMORY = (
    "The kernel's peak of the resident memory above what was resident before (both clouds included), the largest of the "
    "measures above."
)


def _clouds(samples: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(samples) % 10
    x = generator.normal(size=(10, dim))[labels] + generator.normal(size=(samples, dim))
    y = x @ np.linalg.qr(generator.normal(size=(dim, dim)))[0] + 0.1 * generator.normal(size=dim)
    return x.astype(np.float32), y.astype(np.float32), labels


def _measure(samples: int, dim: int, repeats: int, max_exact: int) -> dict[str, tuple[tuple[float, ...], int, str]]:
    """By measure: the seconds of every repeat, the bytes that were added at most, what was found."""
    torch.set_num_threads(THREADS)
    x, y, labels = _clouds(samples, dim)
    measures: dict[str, Callable[[], object]] = {
        "sliced W2": lambda: wasserstein2(x, y, "sliced"),
        "Gaussian W2": lambda: wasserstein2(x, y, "gaussian"),
        "exact W2 on mini-batches": lambda: wasserstein2(x, y, max_exact=max_exact),
        "linear CKA": lambda: linear_cka(x, y),
        "uniformity": lambda: uniformity(x),
        "silhouette": lambda: silhouette(x, labels),
    }
    found = {}
    with threadpool_limits(THREADS):
        wasserstein2(x[:8], y[:8]), silhouette(x[:20], labels[:20])  # imports, allocators
        for name, measure in measures.items():
            before = psutil.Process().memory_info().rss
            peak_resident(reset=True)
            seconds, results = zip(*(_timed(measure) for _ in range(repeats)), strict=True)
            found[name] = (seconds, peak_resident() - before, _text(results[0]))
    return found


def _timed(measure: Callable[[], object]) -> tuple[float, object]:
    start = perf_counter()
    result = measure()
    return perf_counter() - start, result


def _text(result) -> str:
    if isinstance(result, float):
        return f"{result:.3g}"
    interval = "" if result.low is None else f" [{result.low:.4g}, {result.high:.4g}]"
    return f"W2 squared {result.w2_squared:.4g}{interval}"


def rows(quick: bool) -> list[Row]:
    samples, dim, repeats, max_exact = (200, 16, 1, 50) if quick else (10_000, 768, 3, 2_000)
    if quick:
        found = _measure(samples, dim, repeats, max_exact)
    else:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(_measure, (samples, dim, repeats, max_exact))
    targets = {"sliced W2": "<= 10", "Gaussian W2": "<= 10", "exact W2 on mini-batches": "<= 60"}
    sizes, times = f"{samples:,} x {dim}, {THREADS} threads", f"{repeats} times"
    times_rows = [
        Row(
            "analysis", name, f"{sizes}: {text}", *median_with_interval(seconds), "s", times, targets.get(name, ""),
            NOTE_TIME,
        )
        for name, (seconds, _, text) in found.items()
    ]  # fmt: skip
    name, added = max(((name, added / MB) for name, (_, added, _) in found.items()), key=lambda pair: pair[1])
    memory = Row(
        "analysis", "memory of a report's numbers", f"{sizes}: {name}", *[added] * 3, "MB", times, "", NOTE_MEMORY
    )
    return [*times_rows, memory]
