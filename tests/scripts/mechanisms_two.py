"""Every head and objective on the processes of a torchrun, one after another: `mechanisms_two.py FOLDER`."""

import sys
import traceback
from pathlib import Path

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch

from hf_colearn.utils.distributed import destroy_process_group, rank, world_size
from mechanism_cases import CASES, Fit


def train(name, folder, processes=1):
    """What a case came to with steps of eight samples, on all processes together."""
    # Every parameter must have a gradient, if only of 0.
    sizes = {"per_device_train_batch_size": 8 // processes, "ddp_find_unused_parameters": False}
    fit = Fit(CASES[name], folder, **sizes).train()
    assert world_size() == processes
    return {"weights": fit.weights, "losses": fit.losses}


def main():
    folder = Path(sys.argv[1])
    found = {}
    for name in CASES:
        try:
            found[name] = train(name, folder, processes=2)
        except Exception:  # told by the test, case by case
            found[name] = {"error": traceback.format_exc()}
    torch.save({"world_size": world_size(), "found": found}, folder / f"result-{rank()}.pt")
    destroy_process_group()


if __name__ == "__main__":
    main()
