"""Unpaired data of several tasks on the processes of a torchrun: `unpaired_two.py FOLDER`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import processes
import tiny_tasks
from hf_colearn.utils.distributed import world_size
from mechanism_cases import copied


# With AdamW a gradient of 0 would move weights by their decay and momentum. A large epsilon, or it would amplify the rounding
# of gradients that cancel.
ADAMW = {"optim": "adamw_torch", "weight_decay": 0.1, "adam_epsilon": 0.1}
# A step of four samples on all processes together, or of two micro-batches of four.
CASES = {
    "step": {"max_steps": 6, **ADAMW},
    "micro-batch": {"every": "micro_batch", "gradient_accumulation_steps": 2, "max_steps": 3},
    "two of three tasks": {"names": ("digits", "spoken"), "max_steps": 5, **ADAMW},
}


def train(name, folder, processes=1):
    """Losses, and weights before and after; some samples have no label."""
    fields = dict(CASES[name])
    kwargs = {"names": fields.pop("names", tuple(tiny_tasks.SIZES)), "every": fields.pop("every", "step")}
    run = tiny_tasks.trainer(
        folder,
        tiny_tasks.data(**kwargs, unlabelled=(0, 3, 5)),
        **fields,
        per_device_train_batch_size=4 // processes,
        ddp_find_unused_parameters=False,
    )
    before = copied(run.model)
    run.train()
    assert world_size() == processes
    return {"weights": copied(run.model), "before": before, "losses": tiny_tasks.losses(run)}


if __name__ == "__main__":
    processes.write_cases(CASES, train)
