"""A momentum encoder: an exponential moving average of the student, whose outputs an objective compares with the student's.

Source: MoCo (He et al., CVPR 2020), data2vec (Baevski et al., ICML 2022). Shapes: B samples of a batch.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.utils.callback import CoLearningCallback
from hf_colearn.utils.checks import check_integer, is_number
from hf_colearn.utils.sharded import local_part, part_of, reshard, shard_like, sharded_modules, whole_weights


class MomentumEncoder(CoLearningCallback):
    r"""Base of the objectives that have a momentum encoder: \\(\bar w_t = d \, \bar w_{t-1} + (1 - d) \, w_t\\) after every
    optimizer step t, which begins with the weights that the run begins with.

    Its outputs for the inputs of a micro-batch, before an objective alters them, are `batch.momentum`. It predicts in
    evaluation mode, in float32 or what autocast makes of it, and no gradient flows through it. It holds a second model in
    memory, is the same on all processes, and goes into checkpoints, so that a resumed run is the same.

    Args:
        decay (`float`): d, from 0 up to but not 1.
        first_decay (`float`, *optional*): What d is in the first step, from where it rises linearly; `decay` by default. A
            student from random weights changes fast at first, and an average that lags behind is of little use.
        ramp_steps (`int`, *optional*, defaults to 0): After how many optimizer steps d is `decay`.

    Raises:
        ValueError: If it is another number; in the trainer, if the weights are sharded.
    """

    # The attributes that hold the student's weights and their average.
    of_student = ("_student", "_average", "_saved", "_gathered")

    def __init__(self, decay: float, first_decay: float | None = None, ramp_steps: int = 0):
        self.decay, self.first_decay = decay, decay if first_decay is None else first_decay
        for name, value in (("decay", decay), ("first_decay", self.first_decay)):
            if not is_number(value) or not 0 <= value < 1:
                raise ValueError(
                    f"{name}={value} of the momentum encoder: pass a number from 0 up to but not 1, such as 0.999."
                )
        check_integer("ramp_steps", ramp_steps)
        if (first_decay is None) != (ramp_steps == 0):
            raise ValueError(
                f"first_decay={first_decay} and ramp_steps={ramp_steps}: a ramp of the decay needs both, such as "
                "first_decay=0.9, ramp_steps=1000."
            )
        self.ramp_steps = ramp_steps
        self._student: Any = None
        self._average: Any = None
        self._is_of_run = False  # whether the average has begun to follow the run's student
        self._saved: Mapping[str, Any] | None = None  # of a checkpoint, until the average is of the run
        self._gathered: dict[str, Any] | None = None  # for a checkpoint, of an average in shards

    def setup(self, trainer: Any) -> None:
        if trainer.sharded_by == "DeepSpeed":
            raise ValueError(
                f"{type(self).__name__} averages weights where they lie, and DeepSpeed keeps them by itself: shard by FSDP "
                "(`fsdp=True`), or train without it."
            )
        if self._student is not trainer.model or not sharded_modules(trainer.model):
            self._average = None  # or it is in shards, too, and no other copy can be made of the student
        self._student, self._saved, self._is_of_run = trainer.model, None, False
        if trainer.sharded_by is not None and self._average is None and self._student is not None:
            self._average = self._copied()  # while the weights are whole

    def on_inputs(
        self, inputs: dict[str, Any], batch: CoLearningBatch, model: torch.nn.Module
    ) -> tuple[dict[str, Any], CoLearningBatch]:
        return inputs, replace(batch, momentum=self.outputs(inputs))

    @torch.no_grad()
    def outputs(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the average makes of a model's inputs, labels left out."""
        return self.average(**{name: value for name, value in inputs.items() if name not in LABELS})

    @property
    def average(self) -> torch.nn.Module:
        """The averaged model, made of the student at the first use in a run, and in shards as it is."""
        if self._average is None:
            self._average = self._copied()
        if sharded_modules(self._student) and not sharded_modules(self._average):
            shard_like(self._average, self._student)
        if not self._is_of_run:
            self._begin()
        return self._average

    def _copied(self) -> torch.nn.Module:
        return copy.deepcopy(self._student).float().requires_grad_(False).eval()

    def _begin(self) -> None:
        """Begins with the student's weights, or with a checkpoint's average."""
        self._is_of_run = True
        reshard(self._average)
        own = self._average.state_dict()
        if self._saved is None:
            for name, weight in self._student.state_dict().items():
                local_part(own[name]).copy_(local_part(weight))
        else:
            self._average.load_state_dict({name: part_of(whole, own[name]) for name, whole in self._saved.items()})
            self._saved = None

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        if not optimizer.step_was_skipped:  # as fp16 does where a gradient overflows
            self.update(state.global_step)

    def decay_at(self, step: int) -> float:
        """d after so many optimizer steps."""
        share = min(step / self.ramp_steps, 1.0) if self.ramp_steps else 1.0
        return self.first_decay + share * (self.decay - self.first_decay)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the student's weights of this moment in; statistics of batches are the student's own."""
        average = self.average
        reshard(average)
        weights = [
            local_part(w).float() for w in self._student.parameters()
        ]  # half precisions cannot hold small steps
        averages = [local_part(weight) for weight in average.parameters()]
        get_ema_multi_avg_fn(self.decay_at(step))(averages, weights, None)
        for averaged, buffer in zip(average.buffers(), self._student.buffers(), strict=True):
            averaged.copy_(buffer)

    def before_save(self) -> None:
        self._gathered = whole_weights(self.average) if sharded_modules(self._student) else None

    def state_dict(self) -> dict[str, Any]:
        if not self._is_of_run:
            return {}
        weights, self._gathered = self._gathered or self._average.state_dict(), None
        return {"average": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved, self._is_of_run = state["average"], False
