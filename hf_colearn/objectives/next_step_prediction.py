"""Next-step prediction: a causal model predicts from each position what its input shows at the next one.

Shapes: B samples, T positions, F values of a step (V tokens of a vocabulary).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hf_colearn.data.sample_ids import LABELS, NO_LABEL
from hf_colearn.data.unpaired import TASK_NAME
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.lora import base_model
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.models.training_heads import model_reading
from hf_colearn.models.trunk_configuration import TrunkBackboneConfig
from hf_colearn.objectives.dense_matching import mean_of_samples
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.utils.callback import CoLearningCallback


TERM = "next_step"
_EPS = 1e-6


@dataclass(frozen=True)
class Steps:
    """What the inputs of a batch show at every position, `(B, T, F)` or token ids `(B, T)`; the training head that predicts
    it, and what the loss is multiplied by."""

    shown: torch.Tensor
    head: str
    weight: float = 1.0


class NextStepPrediction(CoLearningCallback):
    r"""Predicts the next step of the input from the latent of every position: the term `next_step`, for any modality whose
    inputs are a sequence, without labels and without a teacher.

    \\(\frac{1}{B} \sum_i \frac{1}{T_i - 1} \sum_{t < T_i} \ell(f(z_{it}), x_{i,t+1})\\) over the steps of a sample that are no
    padding and have a next one, with f a training head on the dense latents. Tokens have the cross-entropy; patches of
    pictures, frames of spectrograms and vectors of features the squared error, the mean over their values, by default each
    step normalised to mean 0 and variance 1. A sample of one step adds 0. It is a mean over the micro-batches of a step.

    A position must see those up to itself alone: a `CoLearningForManyTasks` with `causal=True` or a student of it, a causal
    language model (`dense=True`), or a student of feature vectors, which sees each alone. Whether it does is tried with the
    first batch, of which the last step is changed. With `alpha=1` no label is needed.

    Heads: of a student `"next_step"`; of a model of many tasks `"next_step_{modality}"` for every modality that is to be
    predicted. Batches of one without such a head add 0; others are multiplied by their task's `weight`. On unpaired data it is
    the self-supervised learner of "Better Together: Leveraging Unpaired Multimodal Data for Stronger Unimodal Models" (ICLR
    2026); pixels as targets, normalised by patch, are those of "Masked Autoencoders Are Scalable Vision Learners" (He et al.,
    CVPR 2022).

    Args:
        normalized (`bool`, *optional*, defaults to `True`): Whether a step's values are normalised, tokens apart.

    Raises:
        ValueError: When the trainer is built, if a head is missing or does not fit; before training, if a position sees later
            ones, or the inputs have no steps.

    Example:

    ```python
    model = CoLearningForManyTasks.from_stems(
        {"image": {"kind": "patches", "image_size": 28, "patch_size": 7, "num_channels": 1},
         "text": {"kind": "tokens", "vocab_size": 1000, "max_length": 32}},
        tasks={"pictures": {"modalities": ["image"], "num_labels": 10}, "words": {"modalities": ["text"], "num_labels": 10}},
        trunk=sizes, latent_dim=64, causal=True,
        training_heads={"next_step_image": {"out_features": 49, "reads": "dense_latents"},
                        "next_step_text": {"out_features": 1000, "reads": "dense_latents"}},
    )
    trainer = CoLearningTrainer(
        model, CoLearningArguments("out", alpha=1.0), train_dataset=UnpairedBatches({"pictures": ..., "words": ...}),
        objective=NextStepPrediction(),
    )
    ```
    """

    terms = (TERM,)

    def __init__(self, normalized: bool = True):
        if not isinstance(normalized, bool):
            raise TypeError(f"normalized={normalized!r} is a {type(normalized).__name__}: pass a bool.")
        self.normalized = normalized
        # Of the model, by `setup`: plain values, and whether it was tried in this run.
        self._stems: dict[str, Mapping[str, Any]] = {}
        self._tasks: dict[str, dict[str, Any]] = {}
        self._heads: set[str] = set()
        self._is_causal = False

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        steps: Steps | None = batch.from_inputs.get(TERM)
        if steps is None:  # of a modality that is not predicted
            return {TERM: 0 * outputs["dense_latents"].float().flatten()[:1].sum()}
        predicted_BTF, mask_BT = outputs["training_outputs"][steps.head], outputs["dense_mask"]
        if predicted_BTF.shape[1] != steps.shown.shape[1]:
            raise ValueError(
                f"the model gives {predicted_BTF.shape[1]} positions for {steps.shown.shape[1]} steps of its input, which "
                "cannot be told apart: use a model with one position a step."
            )
        return {TERM: steps.weight * next_step_loss(predicted_BTF, steps.shown, mask_BT, self.normalized)}

    # ---- what is to be predicted ----
    def setup(self, trainer: Any) -> None:
        own = base_model(trainer.model)
        self._stems, self._heads, self._is_causal = stems_of(own), set(own.config.training_heads), False
        self._tasks = dict(own.config.tasks) if isinstance(own, CoLearningForManyTasks) else {}

    def on_inputs(
        self, inputs: dict[str, Any], batch: CoLearningBatch, model: nn.Module
    ) -> tuple[dict[str, Any], CoLearningBatch]:
        modality, weight = "", 1.0
        if self._tasks:
            task = self._tasks[inputs.get(TASK_NAME, next(iter(self._tasks)))]
            modality, weight = task["modalities"][0], task["weight"]
            if head_of(modality) not in self._heads:
                return inputs, batch
        stem = self._stems[modality]
        steps = Steps(shown_at(stem, inputs, modality), head_of(modality), weight)
        if not self._is_causal:
            check_causal(model, stem, inputs, modality)
            self._is_causal = True
        return inputs, replace(batch, from_inputs={**batch.from_inputs, TERM: steps})

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a model whose steps are unknown, that is not dense, or that lacks a head of the steps' width."""
        own = base_model(model)
        stems, heads = stems_of(own), own.config.training_heads
        if not own.config.dense:
            raise ValueError(
                "the model gives one latent a sample, and the next step is predicted from every position: build it with "
                "`dense=True`, of many tasks with `causal=True`."
            )
        if isinstance(own, CoLearningForManyTasks):
            several = [name for name, task in own.config.tasks.items() if len(task["modalities"]) > 1]
            if several:
                raise ValueError(
                    f"the task '{several[0]}' has several modalities, whose steps stand side by side: give next-step "
                    "prediction tasks of one modality each."
                )
            stems = {name: stem for name, stem in stems.items() if head_of(name) in heads} or stems
        for modality, stem in stems.items():
            _check_head(head_of(modality), heads, width_of(stem, modality))

    def __repr__(self) -> str:
        return f"NextStepPrediction(normalized={self.normalized})"


# ---- arithmetic ----
def next_step_loss(
    predicted_BTF: torch.Tensor, shown: torch.Tensor, mask_BT: torch.Tensor, normalized: bool = True
) -> torch.Tensor:
    """The mean over a sample's steps that have a next one, then over all samples; in float32.

    Args:
        predicted_BTF (`torch.Tensor` of shape `(B, T, F)`): From each position; of tokens logits.
        shown (`torch.Tensor` of shape `(B, T, F)` or, token ids, `(B, T)`): At each position.
        mask_BT (`torch.Tensor` of shape `(B, T)`): Booleans: what is no padding.
        normalized (`bool`): As of [`NextStepPrediction`].

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.next_step_prediction import next_step_loss

    >>> shown = torch.tensor([[[5.0], [1.0], [3.0]]])  # from 0 everywhere: (1 + 9) / 2
    >>> next_step_loss(torch.zeros(1, 3, 1), shown, torch.ones(1, 3, dtype=torch.bool), normalized=False)
    tensor(5.)
    ```
    """
    counts_BT = mask_BT[:, :-1] & mask_BT[:, 1:]
    f_BTF, next_ = predicted_BTF[:, :-1].float(), shown[:, 1:]
    if next_.is_floating_point():
        next_ = next_.float()
        next_ = F.layer_norm(next_, next_.shape[-1:], eps=_EPS) if normalized else next_
        f_BTF, next_ = (torch.where(counts_BT[..., None], x_BTF, 0) for x_BTF in (f_BTF, next_))
        losses_BT = F.mse_loss(f_BTF, next_, reduction="none").mean(dim=-1)
    else:
        ids_BT = next_.masked_fill(~counts_BT, NO_LABEL)
        losses_BT = F.cross_entropy(f_BTF.mT, ids_BT, ignore_index=NO_LABEL, reduction="none")
    # Of the mean over the samples that have a next step, so that one without adds 0.
    share = counts_BT.any(dim=1).float().mean()
    return mean_of_samples(losses_BT, counts_BT) * share


# ---- the steps of an input ----
def head_of(modality: str) -> str:
    """The training head for a modality's steps, of a student for its only one's, `""`."""
    return f"{TERM}_{modality}" if modality else TERM


def stems_of(model: Any) -> dict[str, Mapping[str, Any]]:
    """By modality what the steps of its inputs are, in the words of [`TrunkBackboneConfig`]; of a student by `""`."""
    if isinstance(model, CoLearningForManyTasks):
        return dict(model.config.stems)
    backbone: Any = getattr(getattr(model, "config", None), "backbone_config", None)
    if isinstance(backbone, TrunkBackboneConfig):
        return {"": backbone.stem}
    if isinstance(backbone, FeatureBackboneConfig):
        return {"": {"kind": "features", "feature_dim": backbone.feature_dim}}
    if getattr(backbone, "vocab_size", None):
        return {"": {"kind": "tokens", "vocab_size": backbone.vocab_size}}
    raise ValueError(
        f"what the steps of a {type(model).__name__}'s inputs are is unknown: take a `CoLearningForManyTasks` with "
        "`causal=True`, a student of it, or a student of a causal language model or of feature vectors."
    )


def width_of(stem: Mapping[str, Any], modality: str) -> int:
    """How many values a step has; of tokens V."""
    if stem["kind"] == "tokens":
        return stem["vocab_size"]
    if stem["kind"] == "features":
        return stem["feature_dim"]
    if stem["kind"] == "table":
        raise ValueError(
            f"the columns of the table '{modality}' have no order, and so no next step: leave its head out."
        )
    rows, columns = _patch(stem)
    return stem.get("num_channels", 1) * rows * columns


def shown_at(stem: Mapping[str, Any], inputs: Mapping[str, Any], modality: str) -> torch.Tensor:
    """What the inputs show at every position, as of [`Steps`]."""
    whole = inputs[_column(stem, modality)]
    if stem["kind"] in ("patches", "frames"):
        return F.unfold(whole, _patch(stem), stride=_patch(stem)).mT
    if stem["kind"] == "features" and whole.ndim != 3:
        raise ValueError(
            f"the features are of shape {tuple(whole.shape)}, one vector a sample, which has no next step: pass [B, T, F]."
        )
    return whole


def _patch(stem: Mapping[str, Any]) -> tuple[int, int]:
    if stem["kind"] == "frames":
        return stem["num_bands"], stem["patch_length"]
    rows, columns = stem["patch_size"]
    return rows, columns


def _column(stem: Mapping[str, Any], modality: str) -> str:
    column = {"tokens": "input_ids", "features": "features"}.get(stem["kind"], "pixel_values")
    return f"{modality}_{column}" if modality else column


@torch.no_grad()
def check_causal(model: nn.Module, stem: Mapping[str, Any], inputs: Mapping[str, Any], modality: str) -> None:
    """Refuses a model of which a position sees later ones: the latents before the last step must stay where it changes."""
    column, was_training = _column(stem, modality), model.training
    given = {name: value for name, value in inputs.items() if name not in LABELS}
    whole = given[column].clone()
    if stem["kind"] == "tokens":
        whole[:, -1] = (whole[:, -1] + 1) % stem["vocab_size"]
    elif stem["kind"] == "features":
        whole[:, -1] += 10
    else:
        whole[..., -1, -1] += 10  # of a picture in the last patch, of a spectrogram in the last frame
    mask = f"{modality}_attention_mask" if modality else "attention_mask"
    if mask in given:  # of padding nothing is seen
        given[mask] = torch.ones_like(given[mask])
    before, after = (model.eval()(**{**given, column: x})["dense_latents"][:, :-1] for x in (given[column], whole))
    model.train(was_training)
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-6):
        raise ValueError(
            "the model's positions see later ones, so that it could copy what it is to predict: build it with `causal=True` "
            "(`CoLearningForManyTasks`), or take a causal language model, such as GPT-2."
        )


def _check_head(head: str, heads: Mapping[str, Any], width: int) -> None:
    reads = model_reading(heads, head) if head in heads else None
    found = heads.get(head, {}).get("out_features")
    if reads != "dense_latents" or found != width:
        problem = f"reads '{reads}' and is {found} wide" if head in heads else "is missing"
        raise ValueError(
            f"the training head '{head}' {problem}, and a step has {width} values: build the model with "
            f"`training_heads={{'{head}': {{'out_features': {width}, 'reads': 'dense_latents'}}}}`."
        )
