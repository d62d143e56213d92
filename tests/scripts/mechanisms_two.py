"""Every head and objective on the processes of a torchrun, one after another: `mechanisms_two.py FOLDER`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import processes
from hf_colearn.utils.distributed import world_size
from mechanism_cases import CASES, Fit


def train(name, folder, processes=1):
    """What a case came to with steps of eight samples, on all processes together."""
    # Every parameter must have a gradient, if only of 0.
    sizes = {"per_device_train_batch_size": 8 // processes, "ddp_find_unused_parameters": False}
    fit = Fit(CASES[name], folder, **sizes).train()
    assert world_size() == processes
    return {"weights": fit.weights, "losses": fit.losses}


if __name__ == "__main__":
    processes.write_cases(CASES, train)
