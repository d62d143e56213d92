"""Trains a tiny student on real digits and writes the losses of this run; started by the distributed and resume tests.

torchrun --nproc_per_node 2 tests/scripts/train_digits.py OUT --batch 4
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import tiny  # noqa: E402  (before transformers: the torchaudio guard)


# isort: split
import torch  # noqa: E402
from accelerate import PartialState  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from hf_colearn import CoLearningTrainer, HeuristicAlpha, Noisy, Shuffled  # noqa: E402
from hf_colearn.data.sample_ids import TARGETS  # noqa: E402
from hf_colearn.utils.distributed import destroy_process_group  # noqa: E402


class Recording(CoLearningTrainer):
    """Keeps the targets that the training steps saw, in this process."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.seen = [*getattr(self, "seen", []), inputs[TARGETS].double().sum().item()]
        return super().compute_loss(model, inputs, *args, **kwargs)


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kill_at", type=int)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True)

    run = Recording(
        tiny.student(),
        tiny.arguments(
            options.output_dir,
            per_device_train_batch_size=options.batch,
            num_train_epochs=3,
            max_steps=-1,
            save_strategy="steps",
            save_steps=3,
        ),
        train_dataset=tiny.digits(64),
        bank=tiny.bank(rows=64),
        pairing=Noisy(Shuffled(), std=0.1),
        alpha=HeuristicAlpha(),
        callbacks=[KillAt(options.kill_at)] if options.kill_at else [],
    )
    assert PartialState().num_processes == options.processes
    run.train(resume_from_checkpoint=options.resume)
    rank = PartialState().process_index
    weights = {name: value.double().sum().item() for name, value in run.model.state_dict().items()}
    result = {"history": run.state.log_history, "targets": run.seen, "weights": weights}
    (Path(options.output_dir) / f"result-{rank}.json").write_text(json.dumps(result))
    destroy_process_group()


if __name__ == "__main__":
    main()
