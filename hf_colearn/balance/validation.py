"""What the methods that read the validation split know of it. Shapes: B samples, C classes, K = 1 + M of predictions."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.data_loader import DataLoaderStateMixin

from hf_colearn.balance.method import BalanceMethod, ModalityBatch, balanced_model
from hf_colearn.models.heads import label_mask, task_loss
from hf_colearn.utils.distributed import mean_over_processes, rank


FUSED = "fused"  # the name of the prediction from all modalities
_PROBLEM = "single_label_classification"


@dataclass(frozen=True)
class Score:
    """The mean cross-entropy and the accuracy of one prediction over a split."""

    loss: float
    accuracy: float


class ValidatedMethod(BalanceMethod):
    """Base of the methods that act on what every modality does on the validation split: `validated`.

    Sums over the labelled samples that have the modality are collected on the device while an evaluation of training goes
    on, reduced over the processes and read once at its end; samples that only fill the last batch of several processes count
    once. Other evaluations change nothing: before the first step of a run (`eval_on_start`), after the last one, those of
    `predict`, and those during training whose `metric_key_prefix` is another than "eval".
    """

    needs_validation = True

    def __init__(self, unimodal: str = "heads"):
        super().__init__(unimodal)
        self._trainer: Any = lambda: None  # a weak reference
        self._run: Any = None  # the state of the run that goes on
        self._sums_K3: torch.Tensor | None = None

    def validated(self, scores: dict[str, Score], model: Any, control: Any) -> None:
        """Called after every evaluation of training, with the scores of every modality and of `"fused"`."""
        raise NotImplementedError

    def setup(self, trainer):
        super().setup(trainer)
        self._trainer = weakref.ref(trainer)

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._run, self._sums_K3 = None, None

    def on_step_begin(self, args, state, control, **kwargs):
        self._run = state

    def on_train_end(self, args, state, control, **kwargs):
        self._run = None

    def on_predict(self, args, state, control, metrics, **kwargs):
        self._sums_K3 = None

    def observe_evaluation(self, seen: ModalityBatch) -> None:
        if self._run is not None:
            sums_K3 = score_sums(seen, self._samples(len(seen.labels)))
            self._sums_K3 = sums_K3 if self._sums_K3 is None else self._sums_K3 + sums_K3

    def on_evaluate(self, args, state, control, metrics=None, model=None, **kwargs):
        sums_K3, self._sums_K3 = self._sums_K3, None
        if self._run is not state or "eval_runtime" not in (metrics or {}):
            return
        inner = balanced_model(model)
        if sums_K3 is None:  # no batch of it has come to this process
            sums_K3 = torch.zeros(1 + len(inner.modalities), 3, device=args.device)
        self.validated(scores(sums_K3, inner.modalities), model, control)

    def _samples(self, size: int) -> int:
        """How many of an evaluation batch's samples count here: the last one may be filled up for all processes."""
        loader = self._trainer().callback_handler.eval_dataloader
        if not isinstance(loader, DataLoaderStateMixin) or not loader.end_of_dataloader or loader.remainder <= 0:
            return size
        return min(max(loader.remainder - rank() * size, 0), size)


def score_sums(seen: ModalityBatch, samples: int) -> torch.Tensor:
    """Sums of cross-entropy, of hits and of labels that count, `(K, 3)`, over the first samples of a batch: of the fused
    prediction and of every modality's."""
    found = [_sums(seen.outputs["logits"][:samples], seen.labels[:samples])]
    for name, logits_BC in seen.unimodal_logits.items():
        found.append(_sums(logits_BC[:samples], seen.labels_of(name)[:samples]))
    return torch.stack(found)


def _sums(logits_BC: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    counts_B = label_mask(labels, _PROBLEM)
    classes_B = labels.argmax(-1) if labels.ndim > 1 else labels
    hits = ((logits_BC.argmax(-1) == classes_B) & counts_B).sum()
    loss = task_loss(logits_BC, labels, _PROBLEM, torch.ones_like(hits, dtype=torch.float))
    return torch.stack([loss, hits.float(), counts_B.sum().float()])


def scores(
    sums_K3: torch.Tensor, modalities: tuple[str, ...], split: str = "the validation split"
) -> dict[str, Score]:
    """The means over all processes by name; a collective that waits for the device."""
    rows = mean_over_processes(sums_K3).tolist()
    names = (FUSED, *modalities)
    if without := [name for name, (_, _, count) in zip(names, rows, strict=True) if not count]:
        raise ValueError(
            f"{split} has no labelled sample with {', '.join(without)}, so how well that is learned is unknown: pass one with "
            "some."
        )
    return {name: Score(loss / count, hits / count) for name, (loss, hits, count) in zip(names, rows, strict=True)}
