"""ARL: the surer a modality and the smaller its logits, the larger its encoder's gradient. Shapes: M modalities."""

import torch

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.method import BalanceMethod, encoder_parameters
from hf_colearn.balance.scores import StepSums
from hf_colearn.utils.checks import check_choice, check_integer, check_positive
from hf_colearn.utils.sharded import local_part


WEIGHTS = ("asymmetric", "constant")
LEAST_SHARE = 0.6  # of the entropy, divided by M: 0.3 of two modalities


class ARL(BalanceMethod):
    r"""Asymmetric representation learning (Wei et al., "Improving multimodal learning via imbalanced learning", ICCV 2025).

    The loss is \\(l_z + \gamma \sum_m l_m\\), and the gradient of encoder m is multiplied by \\(1 + w_m\\), of two modalities

    \\((w_a, w_v) = \text{softmax}(T [a_v h_a, a_a h_v])\\),

    with \\(a_m\\) the mean over samples of \\(\sum_c |u_m|\\), as a share of both, and \\(h_m\\) the inverse, normalised, of
    the share that m has of the entropies of softmax(u_m), held at 0.3 at least: a modality with less variance in what it
    predicts (a low entropy) and a small part in the logits is trained more. A factor on the output of an encoder is one on
    all its weights; here it is put on these once a step, before clipping, whatever the gradient is of.

    Of more than two modalities (the paper has two) the others' a is their mean, and the least share is 0.6 / M. The
    statistics are means over all samples of a step that have the modality, unlabelled ones too, in all micro-batches and
    processes. Where fewer than two modalities are there, every w is 1 / M.

    In the released code the weights are computed and have no effect: the encoders get a constant 1.5, which is
    `weights="constant"` here (1 + 1/M), an ablation. Up to epoch 5 it has neither factors nor gamma, which are both 1.

    The heads learn by the losses of this method, and the model's own `modality_loss_weight` has no part in it. A step costs
    the losses of M heads beside plain training, a reduction of 3 M numbers and a product for every encoder's weight.

    Args:
        gamma (`float`, *optional*, defaults to 4.0): Weight of the modalities' losses; as in the authors' script for CREMA-D
            (3 for Kinetics-Sounds).
        temperature (`float`, *optional*, defaults to 8.0): T; as there (4 for Kinetics-Sounds).
        start (`int`, *optional*, defaults to 6): The first epoch, from 0, with factors and gamma. Set it to 0 for short runs.
        weights (`str`, *optional*, defaults to `"asymmetric"`): Or `"constant"`.

    Raises:
        ValueError: If a value is out of range.

    Example:

    ```python
    >>> from hf_colearn import ARL

    >>> balance = ARL(gamma=3.0, temperature=4.0, start=0)  # CoLearningTrainer(..., balance=balance)
    ```
    """

    replaces_loss = True
    needs_whole_weights = False

    def __init__(self, gamma: float = 4.0, temperature: float = 8.0, start: int = 6, weights: str = "asymmetric"):
        super().__init__()
        check_positive("gamma", gamma)
        check_positive("temperature", temperature)
        check_integer("start", start)
        check_choice("weights", weights, WEIGHTS)
        self.gamma, self.temperature, self.start, self.weights = gamma, temperature, start, weights
        self._sums = StepSums()
        self._epoch = 0

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._sums.clear()

    def observe(self, seen):
        self._epoch = seen.batch.epoch
        self._sums.add(_statistics(seen))

    def loss(self, seen, task):
        gamma = self.gamma if self._epoch >= self.start else 1.0
        return seen.fused_loss + gamma * seen.sum_of_unimodal_losses

    def on_gradients(self, model):
        magnitudes_M, entropies_M, counts_M = self._sums.take().chunk(3)
        parameters = encoder_parameters(model)
        if self._epoch < self.start:
            factors_M = torch.ones_like(counts_M)
        elif self.weights == "constant":
            factors_M = torch.full_like(counts_M, 1 + 1 / len(parameters))
        else:
            factors_M = 1 + asymmetric_weights(magnitudes_M / counts_M, entropies_M / counts_M, self.temperature)
        for (name, of_encoder), factor in zip(parameters.items(), factors_M.unbind(), strict=True):
            self.record(**{f"coefficient_{name}": factor})
            for parameter in of_encoder:
                if parameter.grad is not None:
                    local_part(parameter.grad).mul_(factor)


def asymmetric_weights(magnitudes_M: torch.Tensor, entropies_M: torch.Tensor, temperature: float) -> torch.Tensor:
    """w of every modality, `(M,)`, of the mean size and the mean entropy of its logits, which are NaN where no sample has it;
    they sum to 1."""
    known_M = ~magnitudes_M.isnan()
    number = known_M.sum()
    a_M = _shares(magnitudes_M.nan_to_num())
    least = LEAST_SHARE / number.clamp(min=1)
    h_M = _shares(torch.where(known_M, 1 / torch.maximum(_shares(entropies_M.nan_to_num()), least), 0))
    others_M = (1 - a_M) / (number - 1).clamp(min=1)
    scores_M = (temperature * others_M * h_M).masked_fill(~known_M, -torch.inf)
    return torch.where(number > 1, scores_M.softmax(0), 1 / len(known_M))


def _shares(values_M: torch.Tensor) -> torch.Tensor:
    return values_M / values_M.sum().clamp(min=torch.finfo(values_M.dtype).tiny)


def _statistics(seen: ModalityBatch) -> torch.Tensor:
    """Of every modality the sums over its samples of the logits' absolute values and of their entropy, and the number of
    samples, `(3M,)`."""
    logits = [seen.unimodal_logits[name].detach().float() for name in seen.modalities]
    magnitudes_BM = torch.stack([logits_BC.abs().sum(-1) for logits_BC in logits], dim=1)
    log_p = [logits_BC.log_softmax(-1) for logits_BC in logits]
    entropies_BM = torch.stack([-(x.exp() * x).sum(-1) for x in log_p], dim=1)
    sums = [torch.where(seen.present_BM, values_BM, 0).sum(0) for values_BM in (magnitudes_BM, entropies_BM)]
    return torch.cat([*sums, seen.present_BM.sum(0).to(magnitudes_BM.dtype)])
