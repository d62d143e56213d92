"""Scores of the modalities over a whole optimizer step. Shapes: B samples, M modalities, C classes, K sums."""

import torch

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.utils.distributed import mean_over_processes


class StepSums:
    """Sums over the samples of an optimizer step: of its micro-batches, then of all processes.

    Ratios are taken of the sums, so that they do not depend on how the step was cut.
    """

    def __init__(self) -> None:
        self._sums_K: torch.Tensor | None = None

    def clear(self) -> None:
        """Before a run."""
        self._sums_K = None

    def add(self, sums_K: torch.Tensor) -> None:
        """The sums over a micro-batch, without waiting for the device."""
        sums_K = sums_K.detach().float()
        self._sums_K = sums_K if self._sums_K is None else self._sums_K + sums_K

    def take(self) -> torch.Tensor:
        """Of the step, divided by the number of processes; the next ones begin at 0. A collective."""
        assert self._sums_K is not None
        sums_K, self._sums_K = self._sums_K, None
        return mean_over_processes(sums_K)


def true_class_probability(logits_BC: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The softmax at the label, `(B,)`; its mean under class probabilities `(B, C)`. Of no meaning without a label."""
    probabilities_BC = logits_BC.float().softmax(dim=-1)
    if labels.ndim > 1:
        return (probabilities_BC * labels.nan_to_num()).sum(dim=-1)
    return probabilities_BC.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)


def score_sums(seen: ModalityBatch) -> torch.Tensor:
    """Of every modality the sum of the true class's probability over the samples that have it and a label, and their
    number, `(2M,)`."""
    scores_BM = torch.stack(
        [true_class_probability(seen.unimodal_logits[name].detach(), seen.labels) for name in seen.modalities], dim=1
    )
    scores_M = torch.where(seen.counted_BM, scores_BM, 0).sum(0)
    return torch.cat([scores_M, seen.counted_BM.sum(0)])


def mean_of_others(scores_M: torch.Tensor) -> torch.Tensor:
    """Of every modality that has a score the mean over the others that have one, `(M,)`; NaN where fewer than two have, and of
    no meaning for one without (NaN)."""
    count, known_M = (~scores_M.isnan()).sum(), scores_M.nan_to_num()
    return torch.where(count > 1, (known_M.sum() - known_M) / (count - 1), torch.nan)


def means_of(sums_2M: torch.Tensor) -> torch.Tensor:
    """The means of [`score_sums`], `(M,)`; NaN of a modality that no sample has."""
    sums_M, counts_M = sums_2M.chunk(2)
    return sums_M / counts_M
