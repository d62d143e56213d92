"""Latent matching on the processes of a torchrun, where some samples have no target; leaves `result_<rank>.pt` in the folder.

Every process has 16 of the 32 samples of `batch()`. The test does the same on one process with all of them.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hf_colearn import CoLearningBatch, LatentMatching


SAMPLES = 32
# By case, the samples that have a target: all, more of them on one process, those of one process only, none.
WITH_TARGET = {"all": range(32), "unequal": [0, 5, 9, 16, 18, 20, 22, 23, 30], "on one": [17, 20, 31], "none": []}


def student():
    torch.manual_seed(1)
    return torch.nn.Linear(6, 8)


def batch(case):
    """Inputs and targets of all samples, with NaN where there is none."""
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(SAMPLES, 6, generator=generator), torch.randn(SAMPLES, 8, generator=generator)
    without = [i for i in range(SAMPLES) if i not in WITH_TARGET[case]]
    t[without] = torch.nan
    return x, t


def gradients(case, loss, model, own):
    """The term and its gradients."""
    x, t = batch(case)
    model.zero_grad()
    term = LatentMatching(loss, "sum")({"latents": model(x[own])}, CoLearningBatch(targets={"teacher": t[own]}))[
        "latent"
    ]
    term.backward()
    return {"loss": term.detach(), "gradients": [p.grad.clone() for p in model.parameters()]}


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    own = slice(16 * rank, 16 * rank + 16)
    result = {
        (case, loss): gradients(case, loss, DistributedDataParallel(student()), own)
        for case in WITH_TARGET
        for loss in ("mse", "cosine")
    }
    torch.save(result, f"result_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
