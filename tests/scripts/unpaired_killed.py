"""A run on unpaired data that ends itself with SIGKILL after a step: `unpaired_killed.py FOLDER EVERY STEP`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import os
import signal
import sys

from transformers import TrainerCallback

import tiny_tasks


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder, every, callbacks=()):
    """Two epochs of six steps of four samples, or of three steps of two micro-batches, with a checkpoint every second one."""
    return tiny_tasks.trainer(
        folder,
        tiny_tasks.data(every=every, unlabelled=(0, 3)),
        num_train_epochs=2,
        gradient_accumulation_steps=1 if every == "step" else 2,
        optim="adamw_torch",
        save_strategy="steps",
        save_steps=2,
        callbacks=list(callbacks),
    )


if __name__ == "__main__":
    folder, every, step = sys.argv[1:]
    run(folder, every, [KillAt(int(step))]).train()
