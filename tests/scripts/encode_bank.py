"""Encodes banks on the processes of a torchrun and leaves a `result_<rank>.json` in the working folder.

Every scenario runs in the same processes, one after another: after a failure that all of them have raised, they are
still in step.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import json
import time
from pathlib import Path

import torch
import torch.distributed as dist

import tiny_teachers
from hf_colearn import FrozenEncoder, TeacherBank


TEXTS = [f"This is about class {i % 11}." + i % 11 * " and on" for i in range(22)]
GARBAGE = {"bytes": b"garbage", "path": None}


def encode(encoder, inputs, batch_size=2):
    """What this process saw of one bank: forward passes' sizes, seconds, the latents or the error."""
    sizes = tiny_teachers.count_inputs(encoder)
    start = time.monotonic()
    try:
        bank = TeacherBank.encode(encoder, inputs, "banks", batch_size, show_progress=False)
        outcome = {"latents": bank.lookup(range(len(bank))).tolist()}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    return outcome | {"sizes": sizes, "seconds": time.monotonic() - start, "left": partial_folders()}


def partial_folders():
    dist.barrier()
    found = [path.name for path in Path("banks").glob("*.partial")]
    dist.barrier()
    return found


def from_a_checkpoint_without_pooler():
    """The pooler is random, and another one on every process; these latents do not need it."""
    torch.manual_seed(dist.get_rank())
    return FrozenEncoder.from_pretrained("no_pooler", "cls", device="cpu")


def slow_vit():
    encoder = tiny_teachers.vit()
    encoder.model.register_forward_hook(lambda *_: time.sleep(0.05))
    return encoder


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    warm = tiny_teachers.bert()
    assert warm.dim == 32  # by a probe of its own, which is no input
    pictures = tiny_teachers.images(61)
    missing = {"bytes": None, "path": str(Path(f"only_on_rank_{rank}.png").absolute())}
    if rank == 0:
        pictures[0].save(missing["path"])
    mixed = [pictures[0], GARBAGE, *pictures[1:]]  # in batches of one, the second is process 1's first
    result = {
        "world_size": dist.get_world_size(),
        "fresh": encode(warm, TEXTS),
        "cached": encode(tiny_teachers.bert(), TEXTS),
        "more processes than batches": encode(tiny_teachers.bert(), TEXTS[:1]),
        "random pooler": encode(from_a_checkpoint_without_pooler(), TEXTS),
        "undecodable": encode(slow_vit(), mixed, batch_size=1),
        "missing on one process": encode(tiny_teachers.vit(), [pictures[0], missing]),
        "other inputs": encode(tiny_teachers.bert(), TEXTS[: 5 + rank]),
        "afterwards": encode(tiny_teachers.vit(), pictures[:5], batch_size=1),
    }
    Path(f"result_{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
