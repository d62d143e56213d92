"""Students of pairs without any label: how a run is scored where there is no task, by retrieval of held-out partners.

Shapes: n test samples that have a partner, D dimensions of a latent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_colearn.analysis.run import Run, Samples, kept_rows
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.corpora.pair_cells import digests, has_cell
from hf_colearn.corpora.pairs import Pairs
from hf_colearn.evaluation.retrieval import retrieval_scores
from hf_colearn.experiments.arms import ArmPlan
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.predicting import predicted
from hf_colearn.experiments.scoring import own_run
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.trainer import CoLearningTrainer


@dataclass(frozen=True)
class Untrained(ArmPlan):
    """The student as it is before training: one update with a learning rate of 0."""

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run that changes no weight."""
        return super().arguments({**training, "learning_rate": 0.0, "max_steps": 1, "warmup_steps": 0}, seed)


class Retrieval:
    """Scores a student by the test partners that its latents find, as `run_recipe(score=...)` takes it.

    Args:
        pairs ([`Pairs`]): Of whose test samples those with a partner count.
        encoder ([`FrozenEncoder`], *optional*): The teacher; None where the partners are latents.
        bank ([`TeacherBank`]): Of the training partners, by whose moments the test targets are scaled.
        scaling (`str`): `latent_scaling` of the training arguments.

    Raises:
        ValueError: If fewer than two test samples have a partner.
    """

    def __init__(self, pairs: Pairs, encoder: FrozenEncoder | None, bank: TeacherBank, scaling: str):
        self.rows = np.flatnonzero(has_cell(pairs.test, "other"))
        if len(self.rows) < 2:
            raise ValueError(
                f"{len(self.rows)} of {len(pairs.test)} test samples have a partner, and retrieval needs two: pair more, or "
                "cut off more with --test_share."
            )
        part = pairs.test.select(self.rows)
        self.partners: Sequence[Any] = digests(part, "other")
        cells = list(part["other"])
        if encoder is None:
            found_nD = np.asarray(cells, dtype=np.float32)
        else:
            tested = TeacherBank.encode(encoder, cells, show_progress=False)
            found_nD = tested.lookup(np.arange(len(tested))).numpy()
        known_ND = np.unique(bank.lookup(np.arange(len(bank))).numpy(), axis=0)
        both = TeacherBank.from_latents(np.concatenate([known_ND, found_nD])).scaled(scaling, range(len(known_ND)))
        self.targets_nD = both.lookup(np.arange(len(known_ND), len(both))).numpy()

    def __call__(
        self,
        trainer: CoLearningTrainer,
        test_dataset: Any,
        arm: str,
        kind: Any,
        *,
        cost: Cost | None = None,
        sweep: tuple[str, float] | None = None,
        **_: Any,
    ) -> Run:
        """The run of a trained student; its predictions are the latents, and its labels the teacher's, as of a regression."""
        latents_nD = self.latents(trainer, test_dataset, arm)
        kept = kept_rows(len(latents_nD))
        return own_run(
            trainer,
            arm,
            kind,
            cost,
            self.targets_nD,
            problem_type="regression",
            metrics=self.scores(latents_nD),
            predictions=latents_nD,
            confidences=None,
            test=Samples(self.targets_nD[kept], latents_nD[kept], self.targets_nD[kept]),
        )

    def latents(self, trainer: CoLearningTrainer, test_dataset: Any, arm: str) -> np.ndarray:
        """Of the test samples that have a partner, `(n, D)`."""
        found = predicted(trainer, test_dataset.select(self.rows), arm)
        assert found.latents is not None
        return found.latents.astype(np.float32)

    def scores(self, latents_nD: np.ndarray) -> dict[str, float]:
        """Recall and explained variance, see [`~hf_colearn.evaluation.retrieval.retrieval_scores`]."""
        return retrieval_scores(latents_nD, self.targets_nD, self.partners)
