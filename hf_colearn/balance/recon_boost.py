"""ReconBoost: the modalities are learners of a boosted ensemble. Shapes: B samples, M modalities, C classes."""

import math
from typing import Any

import torch
from torch.nn.functional import one_hot

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.frozen import FrozenEncoders
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.models.heads import LEAST_COUNT
from hf_colearn.utils.checks import check_integer, is_number


class ReconBoost(BalanceMethod):
    r"""Boosting between modalities (ReconBoost; Hua et al., ICML 2024).

    Training is in stages. Stage s is the turn of modality k = s mod M: for `stage_epochs` its encoder and head learn what the
    others together do not know yet, while the others are frozen to the last bit,

    $$ l_k = \frac{1}{C} \sum_c y_c \, (w_1 - w_2 \, p_c) (-\log q_c) + \lambda \, \frac{1}{M - 1} \sum_{j \ne k}
    \frac{1}{C} \sum_c (q_c - q^j_c)^2, $$

    with q the softmax of \\(u_k\\), \\(q^j\\) that of \\(u_j\\), and p that of the others' summed logits, none of which has a
    gradient. Then, for `joint_epochs`, all learn by the cross-entropy of the sum of all logits. The first term sums over the
    classes and divides by C, as the released code does; the second is the agreement of the learners.

    The modalities count as learners from the first stage on, as in the released code with pretrained encoders. Of a sample's
    others those that it has count; without any, p is uniform and there is no agreement. Losses are means over the labelled
    samples that have modality k, of all micro-batches and processes of the step.

    In the released code the agreement is between two detached softmaxes, and has no gradient; here it has one. There, each
    phase has a new optimizer; the learned scale of the sum is left out here, and momentum stays where it was while an encoder
    is frozen. With `shared_classifier=True`, as the released code has its head, the head learns in every stage.

    The fusion is `"sum"`, whose prediction, the mean of the logits, is that of their sum. The stage follows from the epoch, so
    that a resumed run goes on within it. A run must have an epoch for each phase of all modalities.

    A step costs what a plain one does; the frozen encoders run forward in evaluation mode. Logged are `balance_stage`,
    `balance_agreement`, \\(\sum_j \sum_c (q_c - q^j_c)^2 / (M - 1) C\\), and `balance_coefficient_{modality}`: the mean factor
    on the cross-entropy of its logits, 0 where it is frozen, and 1 in joint epochs.

    Args:
        stage_epochs (`int`, *optional*, defaults to 4): Of the modality whose turn it is.
        joint_epochs (`int`, *optional*, defaults to 4): Of all modalities, after each turn.
        weights (`tuple[float, float]`, *optional*, defaults to `(5.0, 1.0)`): \\(w_1\\) and \\(w_2\\).
        agreement (`float`, *optional*, defaults to 0.5): \\(\lambda\\).
        decay_stages (`int` or `None`, *optional*, defaults to 30): After every so many stages the weights are divided by 10;
            None for never. The released code of CREMA-D divides the learning rate there, and not the weights: for that, None
            and `CoLearningArguments(lr_step_epochs=240, lr_step_gamma=0.1)`, 30 stages of 8 epochs.

    Raises:
        ValueError: If a value is out of range, or the run has too few epochs.

    Example:

    ```python
    >>> from hf_colearn import ReconBoost

    >>> balance = ReconBoost(stage_epochs=2, joint_epochs=1)  # of two modalities, a round of six epochs
    ```
    """

    fusions = ("sum",)
    replaces_loss = True
    needs_whole_weights = False

    def __init__(
        self,
        stage_epochs: int = 4,
        joint_epochs: int = 4,
        weights: tuple[float, float] = (5.0, 1.0),
        agreement: float = 0.5,
        decay_stages: int | None = 30,
    ):
        super().__init__()
        check_integer("stage_epochs", stage_epochs, 1)
        check_integer("joint_epochs", joint_epochs, 1)
        if decay_stages is not None:
            check_integer("decay_stages", decay_stages, 1)
        _check_weights(weights, agreement)
        self.stage_epochs, self.joint_epochs, self.decay_stages = stage_epochs, joint_epochs, decay_stages
        self.weights, self.agreement = (float(weights[0]), float(weights[1])), float(agreement)
        self._modalities: tuple[str, ...] = ()
        self._frozen = FrozenEncoders()
        self._stage, self._turn = 0, ""  # of modality `_turn`; of all where it is empty

    def setup(self, trainer):
        super().setup(trainer)
        if trainer.model is not None and trainer.train_dataset is not None:
            self._check_epochs(trainer)

    def check_model(self, model):
        super().check_model(model)
        self._modalities = model.modalities
        self._frozen.heads = not model.config.shared_classifier

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._frozen.attach(model)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._stage, is_alone = self.stage_of(int(state.epoch or 0))
        self._turn = self._modalities[self._stage % len(self._modalities)] if is_alone else ""
        self._frozen.names = {*self._modalities} - {self._turn} if is_alone else set()

    def on_train_end(self, args, state, control, **kwargs):
        self._frozen.detach()

    def stage_of(self, epoch: int) -> tuple[int, bool]:
        """The stage of an epoch, both from 0, and whether a modality trains alone in it."""
        stage, passed = divmod(epoch, self.stage_epochs + self.joint_epochs)
        return stage, passed < self.stage_epochs

    def weights_of(self, stage: int) -> tuple[float, float]:
        """w_1 and w_2 in a stage."""
        divisor = 1 if self.decay_stages is None else 10 ** (stage // self.decay_stages)
        return self.weights[0] / divisor, self.weights[1] / divisor

    def loss(self, seen: ModalityBatch, task: torch.Tensor) -> torch.Tensor:
        self.record(stage=self._stage)
        if not self._turn:
            self.record(**{f"coefficient_{name}": 1.0 for name in seen.modalities})
            return seen.loss_of(torch.stack([*seen.unimodal_logits.values()]).sum(0))  # 0 of an absent modality
        index = seen.modalities.index(self._turn)
        logits_BC, others_OBC, here_OB = _turn_and_others(seen, index)
        counted_B = seen.counted_BM[:, index]
        targets_BC = _targets(seen.labels, counted_B, logits_BC.shape[1])
        factors_BC = boosting_factors(others_OBC.sum(0), targets_BC, *self.weights_of(self._stage))
        agreement_B = disagreement(logits_BC, others_OBC, here_OB)
        loss_B = boosting_loss(logits_BC, factors_BC) + self.agreement * agreement_B
        count = seen.counts[1 + index].clamp(min=LEAST_COUNT)
        loss, factor, agreement = (
            torch.where(counted_B, x_B, 0).sum() / count for x_B in (loss_B, factors_BC.sum(1), agreement_B)
        )
        factors = {f"coefficient_{name}": factor if name == self._turn else 0.0 for name in seen.modalities}
        self.record(agreement=agreement, **factors)
        return loss

    def on_gradients(self, model):
        self._frozen.take_gradients(model)

    def _check_epochs(self, trainer: Any) -> None:
        if not hasattr(trainer.train_dataset, "__len__"):
            raise ValueError(
                "ReconBoost changes what it trains by the epoch, and the training set is a stream, whose epochs it cannot "
                "count: pass a data set with a length."
            )
        epochs, count = _epochs(trainer), len(self._modalities)
        needed = count * (self.stage_epochs + self.joint_epochs)
        if epochs < needed:
            raise ValueError(
                f"ReconBoost(stage_epochs={self.stage_epochs}, joint_epochs={self.joint_epochs}) needs {needed} epochs for one "
                f"stage of each of {count} modalities, and the run has {epochs:g}: train for longer (num_train_epochs), or "
                "shorten the stages."
            )


def boosting_factors(ensemble_BC: torch.Tensor, targets_BC: torch.Tensor, w1: float, w2: float) -> torch.Tensor:
    """What -log q_c counts for, `(B, C)`: y_c (w_1 - w_2 p_c) / C, with p the softmax of the others' summed logits."""
    ensemble_BC = ensemble_BC.detach().float().softmax(1)
    return targets_BC * (w1 - w2 * ensemble_BC) / ensemble_BC.shape[1]


def boosting_loss(logits_BC: torch.Tensor, factors_BC: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of every sample, `(B,)`, with a factor on every class."""
    return -(factors_BC * logits_BC.float().log_softmax(1)).sum(1)


def disagreement(logits_BC: torch.Tensor, others_OBC: torch.Tensor, here_OB: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of every sample's class probabilities from those of the others that it has, `(B,)`."""
    distances_OB = (logits_BC.float().softmax(1) - others_OBC.detach().float().softmax(2)).square().mean(2)
    return torch.where(here_OB, distances_OB, 0).sum(0) / here_OB.sum(0).clamp(min=1)


def _turn_and_others(seen: ModalityBatch, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The logits of a modality, those of the O = M - 1 others, and which of these a sample has."""
    logits = [*seen.unimodal_logits.values()]
    others = [i for i in range(len(logits)) if i != index]
    return logits[index], torch.stack([logits[i] for i in others]), seen.present_BM.T[others]


def _targets(labels: torch.Tensor, counted_B: torch.Tensor, classes: int) -> torch.Tensor:
    """Class probabilities `(B, C)` of labels; of a class its one-hot vector, and of no label anything."""
    if labels.ndim > 1:
        return torch.where(counted_B[:, None], labels, 0).float()
    return one_hot(torch.where(counted_B, labels, 0), classes).float()


def _epochs(trainer: Any) -> float:
    args = trainer.args
    if args.max_steps <= 0:
        return args.num_train_epochs
    rounded = math.floor if args.dataloader_drop_last else math.ceil
    batches = max(1, rounded(len(trainer.train_dataset) / (args.train_batch_size * args.world_size)))
    return args.max_steps / math.ceil(batches / args.gradient_accumulation_steps)


def _check_weights(weights: Any, agreement: Any) -> None:
    is_pair = isinstance(weights, (tuple, list)) and len(weights) == 2 and all(map(is_number, weights))
    if not is_pair or not 0 < weights[0] < math.inf or not 0 <= weights[1] <= weights[0]:
        raise ValueError(
            f"weights={weights!r}: pass two numbers, the first above 0 and the second from 0 to the first, such as (5.0, 1.0)."
        )
    if not is_number(agreement) or not 0 <= agreement < math.inf:
        raise ValueError(f"agreement={agreement!r}: pass a number from 0 on, such as 0.5.")
