"""Masked latent prediction: a student that reads a part of its input predicts what its own average makes of the whole.

Shapes: B samples, T positions of a dense output, D dimensions of a target.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from transformers.utils import logging

from hf_colearn.models.backbones import backbone_width
from hf_colearn.models.lora import base_model
from hf_colearn.objectives.dense_matching import dense_outputs, dense_width
from hf_colearn.objectives.input_masking import Positions, hidden_positions, positions_in
from hf_colearn.objectives.momentum import MomentumEncoder
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.utils.checks import check_choice, check_integer, check_positive, is_number
from hf_colearn.utils.distributed import mean_over_processes


logger = logging.get_logger(__name__)

TERM = "masked_latents"
NORMALIZATIONS = ("layer", "instance", "none")
ON_COLLAPSE = ("warn", "stop")
_EPS = 1e-5


@dataclass(frozen=True)
class Masked:
    """What the student is to predict of a batch: targets `(B, T, D)`, where its inputs are `hidden` and where they could have
    been, `(B, T)` booleans."""

    targets: torch.Tensor
    hidden: torch.Tensor
    eligible: torch.Tensor


class MaskedLatentPrediction(MomentumEncoder):
    r"""Predicts at hidden positions of the input what an average of the student makes of the whole input: the term
    `masked_latents`, for any modality, without labels and without a teacher of another one.

    \\(\frac{1}{B} \sum_i \frac{1}{|M_i|} \sum_{t \in M_i} \frac{1}{D} \sum_d \ell(f_{itd}, y_{itd})\\) with the hidden
    positions \\(M_i\\) of a sample, the training head's output f for the masked input, and
    \\(y = \frac{1}{K} \sum_{k \le K} \text{norm}(h_k)\\) of the average's top K layers h for the whole input. Every sample
    counts, labelled or not, and alike: it is a mean over the micro-batches of a step.

    The student has `dense=True` and a training head of the term's name that reads `"dense_latents"`. Hidden are its patches of
    pictures, columns of spectrograms, shares of waveforms, steps of features, and tokens but for special ones: they become 0,
    tokens the mask token. The task's loss sees the masked inputs, too. With `alpha=1` no label is needed: a pretraining. A
    step costs one forward more than the student's own, without gradients. A student whose positions do not see each other, as
    an MLP of features, has nothing to predict a hidden one by.

    Masks are a function of (sample id, step, seed), so that they do not depend on the processes or the micro-batches, and a
    resumed run has the same.

    **Collapse.** A constant is predicted without error, and so is what depends on the place alone; the average of a student
    that gives nothing else has no other targets. The logs have `masked_latents_std`, the targets' standard deviation over the
    samples of a micro-batch at a position, averaged over positions and dimensions; where it falls below a share of what it was
    in the run's first step, that is told. (Over all positions together, the place alone would keep it up.)

    Source: data2vec (Baevski et al., ICML 2022). Its learned mask embedding is a constant here, and its convolutions and
    positions are averaged with the rest.

    Args:
        ratio (`float`, *optional*, defaults to 0.5): Which share of a sample's positions is hidden, between 0 and 1.
        span (`int`, *optional*, defaults to 1): How many neighbours are hidden together, of an image along both sides.
        layers (`int`, *optional*): K: targets are hidden states `(B, T, H)` of the backbone. Without it, its dense latents:
            any dense student has them.
        normalization (`str`, *optional*, defaults to `"layer"`): Of every target over its dimensions, `"layer"`; of every
            dimension over a sample's positions, `"instance"`, as published for speech; or `"none"`.
        beta (`float`, *optional*): Of the smooth L1 loss, where it turns from a square to a line; by default the squared error.
        decay, first_decay, ramp_steps: As of [`MomentumEncoder`].
        tokenizer (*optional*): Of a student of texts: which token stands for a hidden one, and which are special.
        collapse_below (`float`, *optional*, defaults to 0.1): The share of the first standard deviation.
        on_collapse (`str`, *optional*, defaults to `"warn"`): `"warn"` does so once, `"stop"` ends the training, too.

    Raises:
        ValueError: If a value is none of these; in the trainer, if the student does not fit.

    Example:

    ```python
    student = CoLearningForImageClassification.from_backbone(
        ViTConfig(image_size=32, patch_size=4), latent_dim=64, num_labels=10, dense=True,
        training_heads={"masked_latents": {"out_features": 64, "reads": "dense_latents"}},
    )
    trainer = CoLearningTrainer(
        model=student, args=CoLearningArguments("out", alpha=1.0), train_dataset=with_sample_ids(pictures),
        objective=MaskedLatentPrediction(ratio=0.6, span=2, decay=0.99),
    )
    ```
    """

    terms = (TERM,)

    def __init__(
        self,
        ratio: float = 0.5,
        span: int = 1,
        layers: int | None = None,
        normalization: str = "layer",
        beta: float | None = None,
        decay: float = 0.999,
        first_decay: float | None = None,
        ramp_steps: int = 0,
        tokenizer: Any = None,
        collapse_below: float = 0.1,
        on_collapse: str = "warn",
    ):
        super().__init__(decay, first_decay, ramp_steps)
        for name, share in (("ratio", ratio), ("collapse_below", collapse_below)):
            if not is_number(share) or not 0 < share < 1:
                raise ValueError(f"{name}={share!r}: pass a share between 0 and 1, such as 0.5.")
        check_integer("span", span, least=1)
        if layers is not None:
            check_integer("layers", layers, least=1)
        if beta is not None:
            check_positive("beta", beta)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("on_collapse", on_collapse, ON_COLLAPSE)
        if tokenizer is not None and getattr(tokenizer, "mask_token_id", None) is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no mask token: use the tokenizer of a masked language model."
            )
        self.ratio, self.span, self.layers, self.normalization, self.beta = ratio, span, layers, normalization, beta
        self.collapse_below, self.on_collapse = collapse_below, on_collapse
        self.mask_id = None if tokenizer is None else tokenizer.mask_token_id
        self.special = None if tokenizer is None else torch.tensor(sorted(set(tokenizer.all_special_ids)))
        self._seed = self._step = 0
        self._start_watch()

    # ---- the term ----
    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        masked: Masked = batch.from_inputs[TERM]
        predicted_BTD = outputs["training_outputs"][TERM]
        loss = masked_distance(predicted_BTD, masked.targets, masked.hidden, self.beta)
        return {TERM: loss * batch.weight(torch.ones_like(masked.hidden[:, 0]))}

    def on_inputs(self, inputs, batch, model):
        """Draws the targets from the whole inputs, and hides a part of them from the student."""
        of_average, ids_B = self.outputs(inputs), batch.sample_ids
        _, mask_BT = dense_outputs(of_average, TERM)
        if ids_B is None:
            raise ValueError(
                "the training samples have no ids, of which their masks are drawn: number them with "
                "`train = with_sample_ids(train)`."
            )
        positions = positions_in(model, inputs, mask_BT.shape[1])
        eligible_BT = mask_BT.clone()
        eligible_BT[:, : positions.first] = False
        if positions.column == "input_ids":
            eligible_BT &= ~torch.isin(inputs["input_ids"], self._special_ids(inputs["input_ids"]))
        drawn = (self.ratio, self.span, self._step, self._seed)
        hidden_BG = hidden_positions(ids_B, eligible_BT[:, positions.first :], positions.grid, *drawn)
        hidden_BT = F.pad(hidden_BG, (positions.first, 0))
        targets_BTD = self.targets(inputs, of_average, positions, eligible_BT)
        made = {**batch.from_inputs, TERM: Masked(targets_BTD, hidden_BT, eligible_BT)}
        value = self.mask_id if self.mask_id is not None and positions.column == "input_ids" else 0
        return positions.hide(inputs, hidden_BG, value), replace(batch, from_inputs=made)

    def targets(
        self, inputs: Mapping[str, Any], of_average: Mapping[str, Any], positions: Positions, eligible_BT: torch.Tensor
    ) -> torch.Tensor:
        """What is to be predicted, `(B, T, D)`, by the whole inputs and what the average makes of them."""
        if self.layers is None:
            layers = [of_average["dense_latents"]]
        else:
            states = of_average.get("hidden_states")
            known = 0 if states is None else len(states) - 1  # the first are those before the layers
            if states is None or known < self.layers or states[-1].ndim != 3:
                raise ValueError(
                    f"layers={self.layers}, and the backbone gives the hidden states of {known} layers of positions: pass "
                    "as many at most, or leave layers out, so that its dense latents are predicted."
                )
            layers = states[-self.layers :]
        return torch.stack([normalized(h_BTD, eligible_BT, self.normalization) for h_BTD in layers]).mean(dim=0)

    def outputs(self, inputs):
        return super().outputs(inputs if self.layers is None else {**inputs, "output_hidden_states": True})

    def _special_ids(self, ids_BT: torch.Tensor) -> torch.Tensor:
        if self.special is None:
            raise ValueError(
                "the student reads texts, and MaskedLatentPrediction knows no mask token: pass its `tokenizer=`."
            )
        self.special = self.special.to(ids_BT.device)
        return self.special

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a student that is not dense, or lacks the training head, or has one of another width than the targets."""
        if dense_width(model, TERM) is None:
            return
        config = base_model(model).config
        width = config.latent_dim if self.layers is None else backbone_width(config.backbone_config)
        self._check_head(config.training_heads, width)

    def _check_head(self, heads: Mapping[str, Any], width: int) -> None:
        if TERM not in heads or heads[TERM]["out_features"] != width:
            found = f"is {heads[TERM]['out_features']} wide" if TERM in heads else "is missing"
            raise ValueError(
                f"the training head '{TERM}' {found}, and the targets are {width} wide: give the student "
                f"`training_heads={{'{TERM}': {{'out_features': {width}, 'reads': 'dense_latents'}}}}`."
            )

    # ---- collapse ----
    def _start_watch(self) -> None:
        self._first: torch.Tensor | None = None  # the standard deviation in the run's first micro-batch
        self._sum, self._count = torch.zeros(()), 0
        self._collapsed = False

    def setup(self, trainer):
        super().setup(trainer)
        self._seed, self._step = trainer.args.seed, 0
        self._start_watch()

    def on_step_begin(self, args, state, control, **kwargs):
        self._step = state.global_step

    def on_outputs(self, outputs, batch, model, training):
        masked = batch.from_inputs.get(TERM)
        if training and masked is not None and len(masked.targets) > 1:  # a single sample tells nothing
            std = spread(masked.targets, masked.eligible)
            self._first = std if self._first is None else self._first.to(std.device)
            self._sum, self._count = self._sum.to(std.device) + std, self._count + 1

    def metrics(self, training):
        if not training or not self._count:
            return {}
        assert self._first is not None
        found, first = mean_over_processes(torch.stack([self._sum / self._count, self._first])).tolist()
        self._sum, self._count = torch.zeros(()), 0
        if not found >= self.collapse_below * first:
            if not self._collapsed:
                logger.warning(
                    "The targets of masked latent prediction collapse: their standard deviation over samples is "
                    f"{found:.3g}, and was {first:.3g} in the first step. What is the same of all samples is predicted "
                    f"without learning anything of them. Raise decay={self.decay} (towards 0.999), lower the learning "
                    f"rate, or normalise the targets (normalization='{self.normalization}')."
                )
            self._collapsed = True
        return {f"{TERM}_std": found}

    def on_log(self, args, state, control, **kwargs):
        if self._collapsed and self.on_collapse == "stop":
            control.should_training_stop = True

    def state_dict(self):
        state = super().state_dict()
        return {**state, "first_std": self._first, "collapsed": self._collapsed} if state else {}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._first, self._collapsed = state["first_std"], state["collapsed"]


# ---- arithmetic ----
def masked_distance(
    f_BTD: torch.Tensor, y_BTD: torch.Tensor, hidden_BT: torch.Tensor, beta: float | None = None
) -> torch.Tensor:
    """The mean over the dimensions and a sample's hidden positions, then over all samples; one without any adds 0. In float32.

    Args:
        f_BTD, y_BTD (`torch.Tensor` of shape `(B, T, D)`): Predictions, and targets, through which no gradient flows.
        hidden_BT (`torch.Tensor` of shape `(B, T)`): Booleans.
        beta (`float`, *optional*): As of [`MaskedLatentPrediction`].

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.masked_latents import masked_distance

    >>> y_BTD = torch.tensor([[[1.0], [9.0]], [[2.0], [4.0]]])
    >>> hidden_BT = torch.tensor([[True, False], [True, True]])
    >>> masked_distance(torch.zeros(2, 2, 1), y_BTD, hidden_BT)  # of the samples 1 and (4 + 16) / 2
    tensor(5.5000)
    ```
    """
    f_BTD, y_BTD = (torch.where(hidden_BT[..., None], x.float(), 0) for x in (f_BTD, y_BTD.detach()))
    if beta is None:
        losses_BTD = F.mse_loss(f_BTD, y_BTD, reduction="none")
    else:
        losses_BTD = F.smooth_l1_loss(f_BTD, y_BTD, reduction="none", beta=beta)
    per_sample_B = losses_BTD.mean(dim=-1).sum(dim=1) / hidden_BT.sum(dim=1).clamp(min=1)
    return per_sample_B.mean()


def normalized(h_BTD: torch.Tensor, mask_BT: torch.Tensor, how: str) -> torch.Tensor:
    """A layer's outputs with mean 0 and variance 1: over the dimensions (`"layer"`), over a sample's positions of the mask
    (`"instance"`), or as they are (`"none"`). In float32."""
    h_BTD = h_BTD.float()
    if how == "layer":
        return F.layer_norm(h_BTD, h_BTD.shape[-1:], eps=_EPS)
    if how == "none":
        return h_BTD
    mean_B1D, var_B1D = moments(h_BTD, mask_BT, dims=(1,))
    return (h_BTD - mean_B1D) / (var_B1D + _EPS).sqrt()


def spread(y_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The standard deviation over the samples at a position, averaged over the dimensions and the positions that two samples
    have at least; a scalar."""
    _, var_1TD = moments(y_BTD, mask_BT, dims=(0,))
    several_T = mask_BT.sum(dim=0) > 1
    return (var_1TD[0].sqrt().mean(dim=-1) * several_T).sum() / several_T.sum().clamp(min=1)


def moments(h_BTD: torch.Tensor, mask_BT: torch.Tensor, dims: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance over the positions of the mask, 0 where there are none."""
    mask_BT1 = mask_BT[..., None].float()
    count = mask_BT1.sum(dim=dims, keepdim=True).clamp(min=1)
    mean = (h_BTD * mask_BT1).sum(dim=dims, keepdim=True) / count
    return mean, ((h_BTD - mean).square() * mask_BT1).sum(dim=dims, keepdim=True) / count
