"""The contrastive losses in chunks beside the direct form that keeps all logits: time, memory, loss and gradient."""

import psutil
import torch
import torch.nn.functional as F

from hf_colearn.objectives.info_nce import info_nce
from hf_colearn.objectives.mined_positives import mined_info_nce
from tests.benchmarks.bank import peak_resident
from tests.benchmarks.timing import Row, in_a_fresh_process, paired, ratio_row, timed


SCALE = 1 / 0.07
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


def rows(quick: bool) -> list[Row]:
    batch, dim, pairs = (1024, 8, 3) if quick else (8192, 512, 10)
    times = [time_row(batch, dim, threads, pairs) for threads in (1, 2)]
    return [*times, memory_row(batch, dim), difference_row(batch, dim), *mined_rows(batch, dim, pairs)]
