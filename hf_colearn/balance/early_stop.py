"""`EarlyStopPerModality` (MSES): every modality stops learning by itself, at the minimum of its own validation loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hf_colearn.balance.frozen import FrozenEncoders
from hf_colearn.balance.method import balanced_model, no_gradient
from hf_colearn.balance.validation import ValidatedMethod
from hf_colearn.utils.checks import check_integer, is_number


class EarlyStopPerModality(ValidatedMethod):
    r"""Puts a modality whose validation loss falls no more back to the weights of its minimum, and freezes it there.

    After evaluation t the loss of the modality's own prediction, over the validation samples that have it, is smoothed,
    \\(s_m(t) = \beta \, s_m(t - 1) + (1 - \beta) \, l_m(t)\\), beginning with \\(s_m = l_m\\). A modality with no new minimum
    of \\(s_m\\) in P evaluations goes back to its weights of that evaluation, and neither gradients, momentum, weight decay
    nor the statistics of batches move it from then on. The others, and the fusion, go on; training stops when all have
    stopped. One that has not when training ends keeps its last weights.

    A modality is its encoder with its own head: the loss is that of the head, so that both are the minimum's. It goes back
    before the next step, or at the end of training, so that a checkpoint holds the weights that its evaluation measured; with
    `load_best_model_at_end` the model is that checkpoint's in the end.

    Source: MSES of Fujimori et al., "Modality-Specific Learning Rate Control for Multimodal Classification", ACPR 2019, as it
    is compared against in Li et al. (AGM, ICCV 2023). The paper trains the heads' losses beside the fused one, as
    `modality_loss_weight` above 0 does; at 0 the heads are probes under most fusions, and their losses are read all the same.
    Its patience and smoothing are not known to us. A learning rate or a gradient of 0 freezes nothing where the optimizer has
    momentum or decay: weights here have no gradient. It is defined for any number of modalities. The logs get
    `balance_coefficient_{modality}`, 1 while it learns and 0 after.

    Cost: nothing in a step, less once a modality is frozen; sums over the batches of every evaluation, and a copy of a
    modality's trained weights and buffers at each of its minima, in the main memory and in checkpoints.

    Args:
        patience (`int`, *optional*, defaults to 5): P, in evaluations (`eval_strategy`).
        smoothing (`float`, *optional*, defaults to 0.5): \\(\beta\\), 0 to below 1.
        unimodal (`str`, *optional*, defaults to `"heads"`): See [`~hf_colearn.balance.batch.unimodal_logits`].

    Raises:
        ValueError: With `ema_decay`, as an average has no weights of a minimum to go back to; with `shared_classifier=True`,
            whose head belongs to all; if a number is out of range.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=multimodal, args=CoLearningArguments("out", eval_strategy="epoch"), train_dataset=train,
        eval_dataset=validation, balance=EarlyStopPerModality(patience=3),
    )
    ```
    """

    def __init__(self, patience: int = 5, smoothing: float = 0.5, unimodal: str = "heads"):
        super().__init__(unimodal)
        check_integer("patience", patience, 1)
        if not is_number(smoothing) or not 0 <= smoothing < 1:
            raise ValueError(f"smoothing={smoothing!r} is no share of the past: pass 0 to below 1.")
        self.patience, self.smoothing = patience, smoothing
        self._frozen = FrozenEncoders(heads=True)
        self._losses: dict[str, float] = {}  # smoothed
        self._minima: dict[str, float] = {}
        self._waited: dict[str, int] = {}  # evaluations since the minimum
        self._weights: dict[str, dict[str, torch.Tensor]] = {}  # of the minimum
        self._to_go_back: set[str] = set()

    @property
    def stopped(self) -> tuple[str, ...]:
        """The modalities that learn no more."""
        return tuple(sorted(self._frozen.names))

    def setup(self, trainer):
        super().setup(trainer)
        if trainer.args.ema_decay is not None:
            raise ValueError(
                f"EarlyStopPerModality goes back to the weights that were evaluated, and with ema_decay="
                f"{trainer.args.ema_decay} those are an average's, which follows others: leave ema_decay out."
            )

    def check_model(self, model):
        super().check_model(model)
        if model.config.shared_classifier:
            raise ValueError(
                "EarlyStopPerModality puts a modality back with its head, and shared_classifier=True gives all modalities one: "
                "build the model without it."
            )

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._frozen.attach(model)

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        super().on_step_begin(args, state, control, **kwargs)
        self._go_back(model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        super().on_train_end(args, state, control, **kwargs)
        self._frozen.detach()
        if not args.load_best_model_at_end or state.best_model_checkpoint is None:
            self._go_back(model)

    def on_gradients(self, model):
        self._frozen.take_gradients(model)
        if self._has_ended(model):
            no_gradient(model.parameters())  # a run that is resumed after its end takes one step, which moves nothing
        for name, _ in _encoders(model):
            self.record(**{f"coefficient_{name}": float(name not in self._frozen.names)})

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self._has_ended(model):
            control.should_training_stop = True

    def validated(self, scores, model, control):
        for name, encoder in _encoders(model):
            if name in self._frozen.names:
                continue
            loss = smoothed(scores[name].loss, self._losses.get(name), self.smoothing)
            self._losses[name] = loss
            if loss < self._minima.get(name, float("inf")):
                self._minima[name], self._waited[name] = loss, 0
                self._weights[name] = {key: tensor.detach().cpu().clone() for key, tensor in _moving(encoder).items()}
                continue
            self._waited[name] += 1
            if self._waited[name] >= self.patience:
                self._frozen.names.add(name)
                self._to_go_back.add(name)
        if self._has_ended(model):
            control.should_training_stop = True

    def _has_ended(self, model: Any) -> bool:
        return all(name in self._frozen.names for name, _ in _encoders(model))

    @torch.no_grad()
    def _go_back(self, model: Any) -> None:
        encoders = dict(_encoders(model)) if self._to_go_back else {}
        for name in self._to_go_back:
            weights = self._weights.pop(name)
            for key, tensor in _moving(encoders[name]).items():
                tensor.copy_(weights[key])
        self._to_go_back = set()

    def state_dict(self):
        return {
            "losses": {**self._losses},
            "minima": {**self._minima},
            "waited": {**self._waited},
            "weights": {name: {**weights} for name, weights in self._weights.items()},
            "stopped": sorted(self._frozen.names),
            "to_go_back": sorted(self._to_go_back),
        }

    def load_state_dict(self, state):
        self._losses, self._minima, self._waited = (dict(state[key]) for key in ("losses", "minima", "waited"))
        self._weights = {name: dict(weights) for name, weights in state["weights"].items()}
        self._frozen.names, self._to_go_back = set(state["stopped"]), set(state["to_go_back"])


def smoothed(loss: float, before: float | None, share: float) -> float:
    """An exponential moving average that begins with the first loss."""
    return loss if before is None else share * before + (1 - share) * loss


def _encoders(model: Any) -> list[tuple[str, nn.Module]]:
    return list(balanced_model(model).encoders.items())


def _moving(encoder: nn.Module) -> Mapping[str, torch.Tensor]:
    """What training changes of an encoder: trained weights, and buffers such as statistics of batches."""
    trained = {name: weight for name, weight in encoder.named_parameters() if weight.requires_grad}
    return {**trained, **dict(encoder.named_buffers())}


MSES = EarlyStopPerModality
