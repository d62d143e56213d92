"""Retrieval between the modalities of a model, in its evaluations.

Shapes: B samples of a batch, N of an evaluation, D dimensions.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch

from hf_colearn.evaluation.retrieval import RANKS, retrieval_metrics
from hf_colearn.models.heads import label_mask
from hf_colearn.objectives.modality_pairs import check_known, checked_pairs, modalities_of
from hf_colearn.utils import distributed
from hf_colearn.utils.callback import CoLearningCallback
from hf_colearn.utils.checks import check_choice, check_integer


class ModalityRetrieval(CoLearningCallback):
    """How well one modality's latents find another's: `{a}_to_{b}_recall_at_1` and what else [`retrieval_metrics`] gives.

    Passed in the trainer's `callbacks`; measured over every evaluation set, of all processes, over the samples that have both
    modalities. What it finds is in the logs and in what `trainer.evaluate()` returns, so that the best checkpoint may be
    chosen by it. It keeps the latents of a whole evaluation.

    Args:
        pairs (`Sequence[tuple[str, str]]`, *optional*): What asks and what is asked, such as `[("text", "speech")]`; by default
            every modality asks every other.
        by (`str`, *optional*, defaults to `"sample"`): What is relevant: `"sample"`, the latent of the same sample alone; or
            `"class"`, those of every sample with the same label, and `_by_class` stands at the end of the names.
        at (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): Ranks of recall and precision.

    Raises:
        ValueError: When the trainer is built, if a modality is none of the model's; in an evaluation without labels, by class.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model, args, train_dataset=train, eval_dataset=test, objective=ContrastiveAlignment(),
        callbacks=[ModalityRetrieval([("text", "speech")])],
    )
    trainer.evaluate()["eval_text_to_speech_recall_at_5"]
    ```
    """

    def __init__(self, pairs: Sequence[tuple[str, str]] | None = None, by: str = "sample", at: Sequence[int] = RANKS):
        check_choice("by", by, ("sample", "class"))
        for k in at:
            check_integer("at", k, 1)
        self.pairs, self.by, self.at = checked_pairs(type(self).__name__, pairs, ordered=True), by, tuple(at)
        self._kept: list[dict[str, torch.Tensor]] = []  # a batch each, of all processes
        self._found: dict[str, float] = {}

    def setup(self, trainer: Any) -> None:
        check_known(type(self).__name__, self.pairs, modalities_of(trainer.model))
        self._accelerator = trainer.accelerator

    def on_outputs(self, outputs, batch, model, training):
        if training:
            return
        latents = outputs.get("modality_latents")
        if latents is None:
            raise ValueError(
                f"{type(self).__name__} reads modality_latents of the model's output, and {type(model).__name__} gives none: "
                "pass a CoLearningForMultimodalClassification, or leave the callback out."
            )
        check_known(type(self).__name__, self.pairs, latents)
        first = next(iter(latents.values()))
        mask_BM = outputs.get("modality_mask")
        if mask_BM is None:
            mask_BM = torch.ones(len(first), len(latents), dtype=torch.bool, device=first.device)
        found = {f"latents of {name}": z_BD.detach().float() for name, z_BD in latents.items()}
        found |= {f"has {name}": here_B for name, here_B in zip(latents, mask_BM.unbind(dim=1), strict=True)}
        if self.by == "class":
            found |= _classes(batch.labels)
        # Without the rows that fill up the last batch of several processes, which would find each other.
        self._kept.append(self._accelerator.gather_for_metrics(found))

    def metrics(self, training: bool) -> dict[str, float]:
        if training or not self._kept:
            return {}
        kept, self._kept = self._kept, []
        whole = {name: torch.cat([batch[name] for batch in kept]).cpu() for name in kept[0]}
        # On one process, as orders of near ties may differ between machines.
        self._found = distributed.from_main_process(self._measured(whole) if distributed.rank() == 0 else {})
        return self._found

    def _measured(self, whole: dict[str, torch.Tensor]) -> dict[str, float]:
        names = [name.removeprefix("has ") for name in whole if name.startswith("has ")]
        found = {}
        for a, b in permutations(names, 2) if self.pairs is None else self.pairs:
            rows_N = whole[f"has {a}"] & whole[f"has {b}"]
            ids: list[int] | None = None
            end = ""
            if self.by == "class":
                rows_N = rows_N & whole["is labelled"]
                ids, end = whole["classes"][rows_N].tolist(), "_by_class"
            if not rows_N.any():
                continue
            queries, gallery = (whole[f"latents of {name}"][rows_N].numpy() for name in (a, b))
            for name, value in retrieval_metrics(queries, gallery, ids, at=self.at).items():
                found[f"{a}_to_{b}_{name}{end}"] = value
        return found

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        # The logs have them already; this is what `evaluate` returns.
        if metrics is not None:
            prefix = next(key.removesuffix("runtime") for key in metrics if key.endswith("_runtime"))
            metrics.update({f"{prefix}{name}": value for name, value in self._found.items()})
        self._found = {}

    def on_train_begin(self, args, state, control, **kwargs):
        self._kept, self._found = [], {}

    def on_predict(self, args, state, control, metrics, **kwargs):
        self._kept = []  # predictions are not logged


def _classes(labels: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The classes of a batch, of soft labels the largest entry, and which samples have one."""
    if labels is None:
        raise ValueError(
            "ModalityRetrieval(by='class') found no labels in an evaluation batch: give the evaluation set a column "
            "`labels`, or retrieve by='sample'."
        )
    classes_B = labels.argmax(dim=-1) if labels.is_floating_point() else labels
    return {"classes": classes_B, "is labelled": label_mask(labels, "single_label_classification")}
