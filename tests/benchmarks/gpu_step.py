"""What a training step is made of on a GPU: `python -m tests.benchmarks.gpu_step [--quick] [--minutes 7] [--students NAME]`.

Targets, forward pass with the losses, backward pass and optimizer, eager and compiled, of plain `Trainer`, of ours, and with
the teacher online: time on the GPU, time of the host to issue it, time in kernels, peak of the memory. Then waits for the
GPU in `compute_loss`, and the contrastive loss in chunks beside the direct form. `--quick` runs anywhere.
"""

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np
import torch
from transformers import PreTrainedConfig, Trainer

from hf_colearn.objectives.info_nce import info_nce
from tests.benchmarks import online, step
from tests.benchmarks.bank import peak_resident
from tests.benchmarks.contrastive import SCALE
from tests.benchmarks.gpu_run import Setting, forget_compilation, run
from tests.benchmarks.timing import Row, median_with_interval, paired, ratio_row
from tests.benchmarks.trainers import colearning_trainer, make_arguments, make_bank, make_student, plain_trainer


PARTS = ("targets", "forward", "backward", "optimizer")
NOTE_STEP = (
    "One batch again and again in bfloat16 autocast, without data loader, logs and callbacks; `targets` are of the bank, or of "
    "the teacher, copied to the GPU; `forward` is `compute_loss`, `optimizer` clipping and AdamW. Medians over the steps, of "
    "CUDA events at the ends of the parts; `host` is how long the host takes to issue a step: where it is as long as the step, "
    "the GPU waits for it. `kernels`: their summed time (`torch.profiler`). On a CPU there are no such events: host time alone."
)
NOTE_WAITS = (
    "`torch.cuda.set_sync_debug_mode('error')` around `compute_loss` after its first calls; on a CPU, operations that hand a "
    "value to the host."
)
NOTE_CONTRASTIVE = (
    "Forward and backward of `info_nce` on float32 latents, chunked over `direct=True`; memory is the peak above what was "
    "allocated before."
)


class Marks:
    """Points in a step: an event of the GPU, and the host's clock."""

    def __init__(self, device: str):
        self._on_gpu, self.events, self.clocks = device == "cuda", [], []

    def add(self) -> None:
        if self._on_gpu:
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()
        self.clocks.append(perf_counter())

    def host_ms(self) -> np.ndarray:
        """From each point to the next."""
        return 1000 * np.diff(self.clocks)

    def gpu_ms(self) -> np.ndarray:
        """The same on the GPU, which must have ended; on a CPU the host's."""
        ends = zip(self.events, self.events[1:], strict=False)
        return np.array([start.elapsed_time(end) for start, end in ends]) if self._on_gpu else self.host_ms()


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """The peak of the memory during a call, above what was taken before."""
    if device == "cpu":
        peak_resident(reset=True)
        before = peak_resident()
        call()
        return peak_resident() - before
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def kernel_ms(call: Callable[[], object], device: str) -> float:
    """The summed time of a call's kernels; NaN on a CPU."""
    if device == "cpu":
        return float("nan")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    kernels = (event for event in profile.key_averages() if not event.is_user_annotation)  # which span kernels
    return sum(event.self_device_time_total for event in kernels) / 1000


def parts_of(trainer: Trainer, model: torch.nn.Module, device: str) -> list[Callable[[], None]]:
    """The four parts of a step, which hand each other what they made."""
    batch = {name: value.to(device) for name, value in next(iter(trainer.get_train_dataloader())).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    ids, made, name = np.arange(len(batch["labels"])), {}, "teacher_latents"
    trainer.model.train()

    def targets() -> None:
        if name in batch:
            t_BD = trainer.pairing.targets(trainer.bank, ids, 0, 0)
            batch[name] = (t_BD.pin_memory() if device == "cuda" else t_BD).to(device, non_blocking=True)

    def forward() -> None:
        with torch.autocast(device, torch.bfloat16):
            made["loss"] = trainer.compute_loss(model, dict(batch))

    def backward() -> None:
        made.pop("loss").backward()

    def optimize() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return [targets, forward, backward, optimize]


def step_row(setting: Setting, arm: str, sizes: str, trainer: Trainer, model: torch.nn.Module, until: float) -> Row:
    """After three steps that compile and allocate."""
    parts = parts_of(trainer, model, setting.device)

    def a_step(marks: Marks) -> Marks:
        marks.add()
        for part in parts:
            part()
            marks.add()
        return marks

    for _ in range(3):
        a_step(Marks(setting.device))
    setting.synchronize()
    steps: list[Marks] = []
    while len(steps) < 2 or (len(steps) < 3 * setting.steps and perf_counter() < until):
        steps.append(a_step(Marks(setting.device)))
    setting.synchronize()
    parts_ms, host_ms = (np.array([of(marks) for marks in steps]) for of in (Marks.gpu_ms, Marks.host_ms))
    kernels = kernel_ms(lambda: a_step(Marks(setting.device)), setting.device)
    peak = peak_bytes(lambda: a_step(Marks(setting.device)), setting.device)
    shown = " + ".join(f"{name} {ms:.3g}" for name, ms in zip(PARTS, np.median(parts_ms, axis=0), strict=True))
    shown = f"{sizes}: {shown}; host {np.median(host_ms.sum(axis=1)):.3g}, kernels {kernels:.3g} ms; peak {peak / 1e9:.3g} GB"
    values = median_with_interval(parts_ms.sum(axis=1))
    return Row("gpu_step", f"a step, {arm}", shown, *values, "ms", f"{len(steps)} steps", note=NOTE_STEP)


def student_rows(setting: Setting, until: float, name: str, backbone: PreTrainedConfig) -> Iterator[Row]:
    """Three arms with one student, which is compiled once."""
    student = make_student(backbone, setting.teacher.dim, setting.batch, setting.device)
    args = make_arguments(setting.batch, setting.steps, **setting.arguments())
    bank = make_bank(setting.teacher.dim)
    arms = {
        "plain Trainer": plain_trainer(student, args),
        "ours, with a bank": colearning_trainer(student, args, bank),
        "ours, teacher online": colearning_trainer(student, args, bank, online.OnlineTeacher(setting.teacher)),
    }
    for how in ("eager", "compiled"):
        model = student if how == "eager" else torch.compile(student, backend=setting.compiler())
        for arm, trainer in arms.items():
            yield step_row(setting, arm, f"{name}, batch {setting.batch}, bf16, {how}", trainer, model, until)


def waits_row(setting: Setting, name: str, backbone: PreTrainedConfig) -> Row:
    """How often `compute_loss` waits for the GPU: 0, or 1 where it does at all."""
    if setting.device == "cpu":
        waits = step.host_reads()
    else:
        student = make_student(backbone, make_bank().dim, setting.batch, setting.device)
        args = make_arguments(setting.batch, setting.steps, **setting.arguments())
        waits = waits_of(colearning_trainer(student, args, make_bank()), setting.device)
    values = [waits] * 3
    return Row("gpu_step", "compute_loss waits for the GPU", name, *values, "", "a step", "<= 0", NOTE_WAITS)


def waits_of(trainer: Trainer, device: str) -> int:
    forward = parts_of(trainer, trainer.model, device)[1]
    for _ in range(3):
        forward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        forward()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        print(error)
        return 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return 0


def contrastive_rows(setting: Setting) -> list[Row]:
    """Time and memory of both forms."""
    batch, dim = (256, 8) if setting.quick else (8192, 512)
    x_BD, y_BD = torch.randn(2, batch, dim, device=setting.device).unbind()
    latents = [x_BD.clone().requires_grad_(), y_BD.clone().requires_grad_()]

    def both_ways(direct: bool) -> float:
        setting.synchronize()
        start = perf_counter()
        torch.autograd.grad(info_nce(*latents, SCALE, direct=direct), latents)
        setting.synchronize()
        return perf_counter() - start

    seconds = paired(lambda: both_ways(True), lambda: both_ways(False), 3 * setting.rounds)
    chunked, plain = (peak_bytes(lambda direct=direct: both_ways(direct), setting.device) for direct in (False, True))
    sizes = f"{batch:,} x {dim}"
    shown = f"{sizes}: {chunked / 1e6:.0f} MB against {plain / 1e6:.0f} MB"
    ratio = [chunked / max(plain, 1)] * 3
    what = "contrastive loss, chunked / direct"
    return [
        ratio_row("gpu_step", f"{what}, time", sizes, seconds, note=NOTE_CONTRASTIVE),
        Row("gpu_step", f"{what}, memory", shown, *ratio, "x", "once", "<= 0.25", NOTE_CONTRASTIVE),
    ]


def rows(setting: Setting) -> Iterator[Row]:
    """Waits and the contrastive loss take seconds, and come first."""
    for name, backbone in setting.backbones.items():
        yield waits_row(setting, name, backbone)
    yield from contrastive_rows(setting)
    for left, (name, backbone) in zip(range(len(setting.backbones), 0, -1), setting.backbones.items(), strict=True):
        if perf_counter() > setting.end:
            raise TimeoutError(f"no time was left for {name}")
        yield from student_rows(setting, setting.until(0.8 / left), name, backbone)
        forget_compilation()


if __name__ == "__main__":
    run({"step": rows}, __doc__.splitlines()[0], "RESULTS_GPU_STEP")
