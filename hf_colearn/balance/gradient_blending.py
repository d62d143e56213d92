"""`GradientBlending` (G-Blend): every loss counts by what it gains, and little where it overfits."""

import math
import weakref
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from datasets import Dataset

from hf_colearn.balance.method import BalanceMethod
from hf_colearn.balance.overfitting import learned
from hf_colearn.balance.validation import FUSED
from hf_colearn.data.labels import label_column
from hf_colearn.data.splits import at_least_one_a_class, cut_validation
from hf_colearn.utils.checks import check_integer, is_number


LEAST_OVERFITTING = 0.01  # in nats: below it the rule would divide by what is noise


class GradientBlending(BalanceMethod):
    r"""Trains on a weighted sum of the fused and of every modality's loss; the weights are measured.

    $$L = \sum_k w_k \, l_k, \qquad w_k \propto \frac{G_k}{O_k^2}, \qquad k \in \{u_1, ..., u_M, z\}$$

    Copies of the model train on single losses for n epochs. \\(G_k\\), the gain, is how far the loss \\(l_k\\) falls on
    held-out samples, 0 where it rises; \\(O_k\\), the overfitting, how far (held-out loss - training loss) grows. All losses
    are means over samples. Overfitting of less than 0.01 in size counts as 0.01; where no loss gains, all weights are equal.

    Offline (the default) the weights are measured once, before the first step, by copies that train as long as the run;
    online, with `super_epoch=n`, from the weights of the moment at the beginning of every n epochs. The held-out samples
    are cut off the training set, class by class, and no weight ever trains on them: `trainer.train_dataset` is the rest.
    Random numbers, the order of samples and all else of the run are as without copies, see
    [`~hf_colearn.balance.overfitting.learned`]. With `ema_decay` the copies begin with the weights that train.

    Source: Wang, Tran and Feiszli, "What Makes Training Multi-Modal Classification Networks Hard?", CVPR 2020; the released
    code (VMZ) has the published weights alone, and not how they are measured. It is defined for any number of modalities.
    The logs get `balance_coefficient_{modality}` and `balance_coefficient_fused`, the weights; and once a measurement
    `balance_gain_{name}`, below 0 where the loss rises, and `balance_overfitting_{name}`.

    Cost: nothing in a step. A measurement takes 2 n epochs of training, and 3 passes over the training set and the held-out
    samples: offline about two more runs, online about two more epochs in each. With `unimodal="fused"`,
    `fusion="mmtm"` or a shared head, the modalities' losses have parameters in common, and it takes (M + 1) n epochs and
    M + 2 passes. A copy of the model with an optimizer is in memory meanwhile. Several processes share the work.

    Args:
        super_epoch (`int`, *optional*): n of the online version; None for offline.
        epochs (`int`, *optional*): For how long copies are trained offline; by default for as many epochs as the run.
        split (`float`, `int` or [`datasets.Dataset`], *optional*, defaults to 0.1): The share or number of labelled training
            samples to hold out; or samples of your own, which the training set must not hold.
        unimodal (`str`, *optional*, defaults to `"heads"`): See [`~hf_colearn.balance.batch.unimodal_logits`].
        seed (`int`, *optional*, defaults to 0): Draws the split and the order of the copies' samples.

    Raises:
        TypeError: If the training set is a stream.
        ValueError: If a number is out of range, or the split cannot be cut.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=multimodal, args=args, train_dataset=train, eval_dataset=validation, balance=GradientBlending(super_epoch=5),
    )
    ```
    """

    replaces_loss = True

    def __init__(
        self,
        super_epoch: int | None = None,
        epochs: int | None = None,
        split: float | int | Dataset = 0.1,
        unimodal: str = "heads",
        seed: int = 0,
    ):
        super().__init__(unimodal)
        for name, number in (("super_epoch", super_epoch), ("epochs", epochs)):
            if number is not None:
                check_integer(name, number, 1)
        if super_epoch is not None and epochs is not None:
            raise ValueError(
                f"epochs={epochs} is for weights that are measured once, and super_epoch={super_epoch} measures them by copies "
                "that train for as many epochs: leave one out."
            )
        if not isinstance(split, Dataset) and (not is_number(split) or split <= 0):
            raise ValueError(
                f"split={split!r} holds no samples out: pass a share such as 0.1, a number, or a data set."
            )
        check_integer("seed", seed)
        self.super_epoch, self.epochs, self.split, self.seed = super_epoch, epochs, split, seed
        self.weights: dict[str, float] = {}  # of the losses, by modality and "fused"
        self._measurements = 0
        self._trainer: Any = lambda: None  # a weak reference
        self._cuts = WeakKeyDictionary[
            Any, tuple[Any, Dataset]
        ]()  # by trainer: what is left to train on, and the rest

    def setup(self, trainer):
        super().setup(trainer)
        self._trainer = weakref.ref(trainer)
        whole = trainer.train_dataset
        if whole is None or (trainer in self._cuts and whole is self._cuts[trainer][0]):
            return  # evaluation alone, or a run after the first
        if not isinstance(whole, Dataset):
            raise TypeError(
                f"GradientBlending holds samples out of the training set, which is a {type(whole).__name__}: pass a "
                "datasets.Dataset."
            )
        self._cuts[trainer] = _cut(whole, self.split, self.seed)
        _check_apart(*self._cuts[trainer], trainer.args.id_column)
        trainer.train_dataset = self._cuts[trainer][0]

    def on_epoch_begin(self, args, state, control, **kwargs):
        super_epochs = 0 if self.super_epoch is None else int(state.epoch + 1e-6) // self.super_epoch
        if self._measurements > super_epochs:
            return  # by this run, or before the checkpoint that it goes on from
        trainer = self._trainer()
        epochs = self.super_epoch or self.epochs or math.ceil(state.num_train_epochs)
        seed = (self.seed, self._measurements)
        measured = learned(trainer, self._cuts[trainer][1], epochs, seed, self.unimodal)
        gains = {name: found.gain for name, found in measured.items()}
        overfitting = {name: found.overfitting for name, found in measured.items()}
        self.weights, self._measurements = blending_weights(gains, overfitting), super_epochs + 1
        self.record(**{f"gain_{name}": gain for name, gain in gains.items()})
        self.record(**{f"overfitting_{name}": size for name, size in overfitting.items()})

    def loss(self, seen, task):
        self.record(**{f"coefficient_{name}": weight for name, weight in self.weights.items()})
        losses = {FUSED: seen.fused_loss, **seen.unimodal_losses}
        return sum((weight * losses[name] for name, weight in self.weights.items()), start=0 * task)

    def state_dict(self):
        return {"weights": {**self.weights}, "measurements": self._measurements}

    def load_state_dict(self, state):
        self.weights, self._measurements = dict(state["weights"]), state["measurements"]


def blending_weights(gains: Mapping[str, float], overfitting: Mapping[str, float]) -> dict[str, float]:
    """G / O^2 of every loss, divided by their sum; equal where nothing gains."""
    ratios = {
        name: max(gain, 0.0) / max(abs(overfitting[name]), LEAST_OVERFITTING) ** 2 for name, gain in gains.items()
    }
    total = sum(ratios.values())
    return {name: ratio / total if total else 1 / len(ratios) for name, ratio in ratios.items()}


def _cut(whole: Dataset, split: float | int | Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """What is left to train on, and the samples that are held out."""
    if isinstance(split, Dataset):
        if not len(split):
            raise ValueError("split has no samples: pass some, or a share of the training set such as 0.1.")
        if split._fingerprint == whole._fingerprint:
            raise ValueError(
                "split is the training set, on which nothing overfits: pass other samples, or a share of it such as 0.1."
            )
        return whole, split
    column = label_column(whole)
    if column is None:
        raise ValueError(
            f"split={split} is cut of the labelled samples, and the training set has no column 'labels' (it has "
            f"{', '.join(whole.column_names)}): name it so."
        )
    try:
        return cut_validation(whole, at_least_one_a_class(whole, split, column), seed, column)
    except ValueError as error:
        raise ValueError(f"split={split} cannot be cut from {len(whole)} training samples: {error}") from error


def _check_apart(train: Dataset, held_out: Dataset, id_column: str) -> None:
    if id_column in train.column_names and id_column in held_out.column_names:
        known, other = (np.asarray(part.with_format("numpy")[id_column][:]) for part in (train, held_out))
        if len(both := np.intersect1d(known, other)):
            raise ValueError(
                f"{len(both)} sample ids are in the training set and in the split, such as {both[0]}, on which nothing "
                "overfits: give every sample an id of its own, or pass a split without them."
            )


GBlend = GradientBlending
