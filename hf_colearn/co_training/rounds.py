"""The rounds of a co-training: what each view gains, who is fitted anew, and whether it did harm.

Shapes: N training samples, C classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers.utils import logging

from hf_colearn.co_training.fits import Fits, spread
from hf_colearn.co_training.frozen import FrozenView
from hf_colearn.co_training.selection import Selection, exchanged
from hf_colearn.co_training.state import State, fit_folder, read_outputs, remove_fits, write_outputs
from hf_colearn.co_training.views import HELD_OUT, TEST, TRAIN, Part, without_labels
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

ENSEMBLE = "ensemble"
NOTHING, HARM, ALL = "no label was gained", "the round did harm", "all rounds are done"


class Rounds:
    """Trains round by round, from where a state stands; see [`co_train`].

    Args:
        fits ([`Fits`]): Of the views that learn.
        frozen (`Mapping[str, FrozenView]`): The others.
        parts (`Mapping[str, Part]`): The training set, and what is scored.
        select ([`Selection`]): What becomes a label.
        truth (`np.ndarray` of shape `(N,)`, *optional*): Hidden classes, to be compared with.
        state ([`State`]): What was done before.
    """

    def __init__(
        self,
        fits: Fits,
        frozen: Mapping[str, FrozenView],
        parts: Mapping[str, Part],
        select: Selection,
        truth: np.ndarray | None,
        state: State,
    ):
        self.fits, self.frozen, self.parts, self.select, self.truth, self.state = (
            fits, frozen, parts, select, truth, state,
        )  # fmt: skip
        self._of_frozen: dict[str, dict[str, np.ndarray]] = {}

    def go_on(self, rounds: int) -> None:
        """Trains up to a number of rounds after round 0, and writes the state after every fit."""
        state = self.state
        if state.stopped == ALL:
            state.stopped = None  # more rounds may be asked for now
        while state.stopped is None:
            if len(state.rounds) > rounds:
                state.stopped = ALL
            else:
                self._round(len(state.rounds))
            state.write(self.fits.folder)
        remove_fits(self.fits.folder, state)

    def labels(self, view: str, round_: int | None = None) -> np.ndarray:
        """What a view is fitted to, `(N,)`, up to a round; by default the kept one."""
        labels_N = self.parts[TRAIN].labels.copy()
        until = self.state.kept if round_ is None else round_
        for row, label, gained_in in self.state.gained.get(view, []):
            if gained_in <= until:
                labels_N[row] = label
        return labels_N

    def outputs(self, round_: int | None = None) -> dict[str, dict[str, np.ndarray]]:
        """By view, the probabilities `(N, C)` of every part after a round; without the views that have no student yet."""
        until, found = self.state.kept if round_ is None else round_, {}
        for view in self.fits.students:
            if (fitted := self.state.fit_of(view, until)) is not None:
                found[view] = read_outputs(fit_folder(self.fits.folder, view, fitted))
        for view, frozen in self.frozen.items():
            if view not in self._of_frozen:
                self._of_frozen[view] = {
                    name: _frozen_outputs(frozen, view, part) for name, part in self.parts.items()
                }
            found[view] = self._of_frozen[view]
        return found

    # ---- one round ----
    def _round(self, number: int) -> None:
        gained, conflicts = self._gain(number) if number else ({}, {})
        if number and not any((labels_N != NO_LABEL).any() for labels_N in gained.values()):
            self.state.stopped = NOTHING
            return
        for view in self.fits.students:
            if self._is_due(view, number, gained):
                self._fit(view, number)
        record = self._record(number, gained, conflicts)
        before = self.state.rounds[-1] if self.state.rounds else None
        record["harmed"] = before is not None and _harms(record, before, list(self.fits.students))
        self.state.rounds.append(record)
        if record["harmed"]:
            self.state.stopped = HARM
            return
        self.state.kept = number
        self.state.write(self.fits.folder)
        remove_fits(self.fits.folder, self.state)

    def _gain(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """What every view gains from the round before; the same again where the round was broken off."""
        pool_N = self.parts[TRAIN].is_pool
        pools = {view: pool_N & (self.labels(view, number - 1) == NO_LABEL) for view in self.fits.students}
        of_train = {view: outputs[TRAIN] for view, outputs in self.outputs(number - 1).items()}
        gained, conflicts = exchanged(of_train, pools, self.select)
        for view, labels_N in gained.items():
            earlier = [entry for entry in self.state.gained.get(view, []) if entry[2] < number]
            rows = np.flatnonzero(labels_N != NO_LABEL)
            new = [[int(row), int(labels_N[row]), number] for row in rows]
            self.state.gained[view] = [*earlier, *new]
        return gained, conflicts

    def _is_due(self, view: str, number: int, gained: Mapping[str, np.ndarray]) -> bool:
        """Whether a view has labels that it was not fitted to yet; first, where every class has one."""
        if any(fit["round"] == number for fit in self.state.fits.get(view, [])):
            return False  # before the run was broken off
        if number == 0:
            known = set(self.labels(view, 0).tolist()) - {NO_LABEL}
            return len(known) == self.fits.num_labels
        is_first = self.state.fit_of(view, number) is None
        return bool((gained[view] != NO_LABEL).any()) or (
            is_first and bool((self.labels(view, number) != NO_LABEL).any())
        )

    def _fit(self, view: str, number: int) -> None:
        labels_N = self.labels(view, number)
        outputs, log = self.fits.trained(view, number, labels_N)
        write_outputs(fit_folder(self.fits.folder, view, number), outputs)
        fit = {"round": number, "labels": int((labels_N != NO_LABEL).sum()), "log": log}
        self.state.fits.setdefault(view, []).append(fit)
        self.state.write(self.fits.folder)
        if distributed.rank() == 0:
            logger.info(f"round {number}: '{view}' is fitted to {fit['labels']} labels.")

    def _record(self, number: int, gained: Mapping[str, np.ndarray], conflicts: Mapping[str, int]) -> dict[str, Any]:
        """What a round came to: labels by view and how many of those gained are right; accuracies by view and together."""
        outputs = self.outputs(number)
        record: dict[str, Any] = {
            "round": number,
            "labels": {},
            "gained": {},
            "correct": {},
            "conflicts": dict(conflicts),
        }
        for view in self.fits.students:
            labels_N = self.labels(view, number)
            is_new_N = labels_N != self.parts[TRAIN].labels
            record["labels"][view] = int((labels_N != NO_LABEL).sum())
            record["gained"][view] = int((gained[view] != NO_LABEL).sum()) if view in gained else 0
            record["correct"][view] = _share_right(labels_N, self.truth, is_new_N)
        for name in (HELD_OUT, TEST):
            if name in self.parts:
                of_part = {view: outputs[view][name] for view in outputs}
                scores = {view: self.parts[name].accuracy(probabilities) for view, probabilities in of_part.items()}
                record[name] = scores | {ENSEMBLE: self.parts[name].accuracy(ensemble(of_part))} if scores else {}
        return record


def ensemble(probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean over the views that a sample has, `(N, C)`; NaN where it has none."""
    values_VNC = np.stack(list(probabilities.values()))
    has_VN = np.isfinite(values_VNC).all(axis=2)
    count_N = has_VN.sum(axis=0)
    mean_NC = np.nan_to_num(values_VNC).sum(axis=0) / np.maximum(count_N, 1)[:, None]
    mean_NC[count_N == 0] = np.nan
    return mean_NC


def _frozen_outputs(frozen: FrozenView, view: str, part: Part) -> np.ndarray:
    seen, rows = part.view(view)
    return spread(np.asarray(frozen.probabilities(without_labels(seen)), dtype=np.float64), rows, len(part.labels))


def _share_right(labels_N: np.ndarray, truth_N: np.ndarray | None, is_new_N: np.ndarray) -> float | None:
    """Of all labels that were gained so far, the share that are right; None where that is not known."""
    if truth_N is None:
        return None
    known_N = is_new_N & (truth_N != NO_LABEL)
    return float(np.mean(labels_N[known_N] == truth_N[known_N])) if known_N.any() else None


def _harms(record: Mapping[str, Any], before: Mapping[str, Any], learning: list[str]) -> bool:
    """Whether the views that learn tell fewer of the held-out samples than a round before, in the mean."""
    now, then = (
        [scores[view] for view in learning if scores.get(view) is not None]
        for scores in (record.get(HELD_OUT, {}), before.get(HELD_OUT, {}))
    )
    return len(now) == len(then) > 0 and bool(np.mean(now) < np.mean(then))
