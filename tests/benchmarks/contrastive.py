"""The contrastive losses in chunks beside the direct form that keeps all logits, over processes, and with gradient caching:
time, memory, loss and gradient.
"""

import ctypes
import multiprocessing
import tempfile
from collections.abc import Callable
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.nn.functional as F
from datasets import Dataset
from transformers import PrinterCallback, ViTConfig

from hf_colearn import (
    CoLearningArguments,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    ContrastiveAlignment,
)
from hf_colearn.objectives import info_nce as info_nce_module
from hf_colearn.objectives.info_nce import info_nce
from hf_colearn.objectives.mined_positives import mined_info_nce
from tests.benchmarks.bank import peak_resident
from tests.benchmarks.timing import Row, in_a_fresh_process, paired, ratio_row, timed


SCALE = 1 / 0.07
_M_MMAP_THRESHOLD = -3  # of malloc.h
NOTE_TIME = (
    "Forward and backward of `info_nce` on float32 latents that need a gradient, chunked against `direct=True` (one matrix "
    "product, a cross-entropy of it and one of its transpose), on as many threads as said."
)
NOTE_MEMORY = (
    "The kernel's peak of the resident memory during forward and backward, above what was resident before (the latents "
    "included), each form in a fresh process of one thread; the chunked form over the direct one."
)
NOTE_SAME = (
    "Largest difference of the two forms: of the losses, and of the gradients, as a share of their largest element."
)
NOTE_MINED = (
    "As above, of the loss with five mined positives a query, among as many keys as there are queries; chunks of 256 queries, "
    "made anew for the gradient, against the same two log-sum-exps of all logits."
)
NOTE_PROCESSES = (
    "As above, in fresh processes of one thread over gloo; of two processes the one with the higher peak. Two have half of the "
    "pairs each, and gather the keys in parts of as many."
)
NOTE_TWO = (
    "Largest difference between two processes with half of the pairs each and one process with all of them: of the losses, and "
    "of the gradients as a share of their largest element."
)
NOTE_CACHE = (
    "A training step of `CoLearningTrainer` without the optimizer's, on batches in memory: two ViTs, contrastive loss. Both "
    "take turns in one process of one thread; the peak of the resident memory above what was resident before is of a fresh "
    "process each."
)


def _latents(batch: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.randn(2, batch, dim, generator=torch.Generator().manual_seed(0)).unbind()
    return x.clone().requires_grad_(), y.clone().requires_grad_()


def time_row(batch: int, dim: int, threads: int, pairs: int) -> Row:
    x, y = _latents(batch, dim)

    def step(direct: bool) -> None:
        x.grad = y.grad = None
        info_nce(x, y, SCALE, direct=direct).backward()

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds = paired(lambda: timed(lambda: step(True)), lambda: timed(lambda: step(False)), pairs)
    finally:
        torch.set_num_threads(before)
    sizes = f"{batch:,} x {dim}, {threads} {'thread' if threads == 1 else 'threads'}"
    target = "<= 0.75" if threads == 2 else ""
    what = "contrastive loss, chunked / direct, time"
    return ratio_row("contrastive", what, sizes, seconds, target=target, note=NOTE_TIME)


def _added(batch: int, dim: int, direct: bool) -> int:
    """Runs in the fresh process; bytes that were added."""
    torch.set_num_threads(1)
    small = _latents(8, dim)
    info_nce(*small, SCALE, direct=direct).backward()  # imports, allocators
    x, y = _latents(batch, dim)
    before = psutil.Process().memory_info().rss
    peak_resident(reset=True)
    info_nce(x, y, SCALE, direct=direct).backward()
    return peak_resident() - before


def memory_row(batch: int, dim: int) -> Row:
    added = [in_a_fresh_process(_added, batch, dim, direct) for direct in (False, True)]
    ratio = added[0] / added[1]
    sizes = f"{batch:,} x {dim}: {added[0] / 1e6:.0f} MB against {added[1] / 1e6:.0f} MB"
    what = "contrastive loss, chunked / direct, memory"
    return Row("contrastive", what, sizes, ratio, ratio, ratio, "x", "once", "<= 0.25", NOTE_MEMORY)


def difference_row(batch: int, dim: int) -> Row:
    inputs = _latents(batch, dim)
    losses = [info_nce(*inputs, SCALE, direct=direct) for direct in (False, True)]
    chunked, plain = (torch.stack(torch.autograd.grad(loss, inputs)) for loss in losses)
    gradients = ((chunked - plain).abs().max() / plain.abs().max()).item()
    value = max((losses[0] - losses[1]).abs().item(), gradients)
    what = "contrastive loss, chunked - direct, loss and gradient"
    return Row("contrastive", what, f"{batch:,} x {dim}", value, value, value, "", "once", "<= 0.00001", NOTE_SAME)


def _mined(x: torch.Tensor, y: torch.Tensor, direct: bool) -> None:
    """Forward and backward; every query has its own key and the next five."""
    own = torch.arange(len(x))
    mined = (own[:, None] + torch.arange(1, 6)) % len(x)
    if direct:
        logits = SCALE * F.normalize(x, dim=-1) @ F.normalize(y.detach(), dim=-1).T
        positives = logits.gather(1, torch.cat([own[:, None], mined], dim=1))
        loss = logits.logsumexp(dim=1) - positives.logsumexp(dim=1)
    else:
        loss = mined_info_nce(x, y.detach(), own, mined, own, own, own >= 0, 1 / SCALE)
    loss.mean().backward()


def _added_by_mined(batch: int, dim: int, direct: bool) -> int:
    """Runs in the fresh process; bytes that were added."""
    torch.set_num_threads(1)
    _mined(*_latents(8, dim), direct)  # imports, allocators
    x, y = _latents(batch, dim)
    before = psutil.Process().memory_info().rss
    peak_resident(reset=True)
    _mined(x, y, direct)
    return peak_resident() - before


def mined_rows(batch: int, dim: int, pairs: int) -> list[Row]:
    added = [in_a_fresh_process(_added_by_mined, batch, dim, direct) for direct in (False, True)]
    sizes = f"{batch:,} x {dim}: {added[0] / 1e6:.0f} MB against {added[1] / 1e6:.0f} MB"
    ratio = added[0] / added[1]
    what = "mined positives, chunked / direct, memory"
    memory = Row("contrastive", what, sizes, ratio, ratio, ratio, "x", "once", "<= 0.3", NOTE_MINED)
    x, y = _latents(batch, dim)
    seconds = paired(lambda: timed(lambda: _mined(x, y, True)), lambda: timed(lambda: _mined(x, y, False)), pairs)
    time = "mined positives, chunked / direct, time"
    return [memory, ratio_row("contrastive", time, f"{batch:,} x {dim}", seconds, note=NOTE_MINED)]


# ---- over processes ----
def _in_processes(call: Callable[..., Any], processes: int, *args: Any) -> list[Any]:
    """What `call(rank, processes, store, *args)` returns in fresh processes that find each other by the file `store`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_colearn.trainer"])
    with tempfile.TemporaryDirectory() as folder, context.Pool(processes) as pool:
        return pool.starmap(
            call, [(rank, processes, f"{folder}/store", *args) for rank in range(processes)], chunksize=1
        )


def _of_process(
    rank: int, processes: int, store: str, batch: int, dim: int, keys: int | None
) -> tuple[int, float, Any]:
    """The bytes that were added, the loss, and the gradients of this process's pairs; `keys` are gathered at a time."""
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)  # glibc gives tensors back once they are freed
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    if keys is not None:
        info_nce_module._KEYS = keys
    info_nce(*_latents(8, dim), SCALE).backward()  # imports, allocators, connections
    own = slice(rank * batch // processes, (rank + 1) * batch // processes)
    x, y = (z.detach()[own].clone().requires_grad_() for z in _latents(batch, dim))
    before = psutil.Process().memory_info().rss
    peak_resident(reset=True)
    loss = info_nce(x, y, SCALE)
    loss.backward()
    added = peak_resident() - before
    if processes > 1:
        dist.destroy_process_group()
    return added, loss.item(), torch.stack([x.grad, y.grad]).numpy() / processes


def process_rows(batch: int, dim: int) -> list[Row]:
    two, at_once, (alone,), (half,) = (
        _in_processes(_of_process, processes, size, dim, keys)
        for processes, size, keys in ((2, batch, None), (2, batch, batch), (1, batch, None), (1, batch // 2, None))
    )
    added = max(of_process[0] for of_process in two)
    beside = [
        ("one process with its pairs alone", half[0], "<= 1.25"),
        ("one process with all pairs", alone[0], "<= 0.6"),
        ("all keys gathered at once", max(of_process[0] for of_process in at_once), ""),
    ]
    memory = [
        Row(
            "contrastive",
            f"contrastive loss, one of two processes / {of}, memory",
            f"2 x {batch // 2:,} x {dim}: {added / 1e6:.0f} MB against {other / 1e6:.0f} MB",
            *[added / other] * 3,
            "x",
            "once",
            target,
            NOTE_PROCESSES,
        )
        for of, other, target in beside
    ]
    found, expected = torch.cat([torch.from_numpy(g) for _, _, g in two], dim=1), torch.from_numpy(alone[2])
    differences = ((found - expected).abs().max() / expected.abs().max()).item(), abs(two[0][1] / alone[1] - 1)
    what, sizes = "contrastive loss, two processes - one, loss and gradient", f"2 x {batch // 2:,} x {dim}"
    same = Row("contrastive", what, sizes, *[max(differences)] * 3, "", "once", "<= 0.000001", NOTE_TWO)
    return [*memory, same]


# ---- gradient caching ----
def _cached_step(batch: int, side: int, width: int, layers: int) -> Callable[[int | None], None]:
    """A training step of a batch, in chunks of so many samples or at once."""
    sizes = {"image_size": side, "patch_size": 8, "hidden_size": width, "num_hidden_layers": layers}
    vit = ViTConfig(**sizes, num_attention_heads=4, intermediate_size=4 * width)
    torch.manual_seed(0)
    model = CoLearningForMultimodalClassification.from_backbones(
        {"one": vit, "other": vit}, latent_dim=64, num_labels=10
    )

    def samples(count: int) -> dict[str, torch.Tensor]:
        images = {f"{name}_pixel_values": torch.randn(count, 3, side, side) for name in ("one", "other")}
        return {**images, "labels": torch.arange(count) % 10}

    with tempfile.TemporaryDirectory() as folder:
        options = {"per_device_train_batch_size": 2, "max_steps": 1, "save_strategy": "no", "report_to": "none"}
        args = CoLearningArguments(folder, use_cpu=True, disable_tqdm=True, **options)
        data = Dataset.from_dict({name: x.numpy() for name, x in samples(2).items()}).with_format("torch")
        trainer = CoLearningTrainer(model, args, train_dataset=data, objective=ContrastiveAlignment())
        trainer.remove_callback(PrinterCallback)
        trainer.train()  # makes everything that a step needs
    inputs = samples(batch)

    def step(chunk: int | None) -> None:
        trainer.args.gradient_cache_chunk_size = chunk
        trainer.training_step(model, dict(inputs))
        model.zero_grad()

    return step


def _added_by_step(batch: int, chunk: int | None, *sizes: int) -> int:
    """Runs in the fresh process; bytes that were added."""
    torch.set_num_threads(1)
    step = _cached_step(batch, *sizes)
    before = psutil.Process().memory_info().rss
    peak_resident(reset=True)
    step(chunk)
    return peak_resident() - before


def cache_rows(batch: int, chunk: int, sizes: tuple[int, int, int], pairs: int) -> list[Row]:
    added = [in_a_fresh_process(_added_by_step, batch, size, *sizes) for size in (chunk, None)]
    shown = f"{batch} samples of {sizes[0]} pixels in chunks of {chunk}"
    memory = f"{shown}: {added[0] / 1e6:.0f} MB against {added[1] / 1e6:.0f} MB"
    ratio, what = added[0] / added[1], "gradient caching / the batch at once"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        step = _cached_step(batch, *sizes)
        seconds = paired(lambda: timed(lambda: step(None)), lambda: timed(lambda: step(chunk)), pairs)
    finally:
        torch.set_num_threads(threads)
    return [
        Row("contrastive", f"{what}, memory", memory, ratio, ratio, ratio, "x", "once", "<= 0.3", NOTE_CACHE),
        ratio_row("contrastive", f"{what}, time", shown, seconds, target="<= 1.4", note=NOTE_CACHE),
    ]


def rows(quick: bool) -> list[Row]:
    batch, dim, pairs = (1024, 8, 3) if quick else (8192, 512, 10)
    times = [time_row(batch, dim, threads, pairs) for threads in (1, 2)]
    found = [*times, memory_row(batch, dim), difference_row(batch, dim), *mined_rows(batch, dim, pairs)]
    cached = cache_rows(8, 2, (16, 16, 1), 2) if quick else cache_rows(128, 8, (64, 128, 4), 7)
    return [*found, *process_rows(batch, dim), *cached]
