"""Every balance method on the processes of a torchrun, one after another: `balance_two.py FOLDER`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import processes
from balance_cases import CASES, Fit, incomplete
from hf_colearn.utils.distributed import world_size


SAMPLES = 8  # of an optimizer step, on all processes together
# In their order, 4 on each of two processes: in the first step the second process has no audio, in the second no label.
ABSENT, UNLABELLED = {"image": (1, 9, 12), "audio": (4, 5, 6, 7, 10)}, (0, 12, 13, 14, 15)


def train(name, folder, processes=1):
    """What the method came to, on samples of which some lack a modality or a label, unequally many on the processes."""
    batch = SAMPLES // processes
    sizes = {"per_device_train_batch_size": batch, "train_sampling_strategy": "sequential"}
    sizes["ddp_find_unused_parameters"] = False  # every parameter must have a gradient, if only of 0
    fit = Fit(CASES[name], folder, **incomplete(UNLABELLED, ABSENT), **sizes).train()
    assert world_size() == processes
    return {"weights": fit.weights, "logs": [fit.curves(step) for step in range(len(fit.logs))]}


if __name__ == "__main__":
    processes.write_cases(CASES, train)
