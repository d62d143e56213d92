"""Whether training samples are paired with the latents of their own teacher inputs, as far as the training set can tell.

Shapes: N training samples, S of them that are looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Audio, ClassLabel, Dataset, Image, Value
from transformers.utils import logging

from hf_colearn.data.columns import as_stored
from hf_colearn.data.images import UNDECODABLE
from hf_colearn.data.sample_ids import LABELS
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.teachers.bank_inputs import BankInputs, Fit
from hf_colearn.teachers.pairing import Noisy, Paired, PairedFraction, Pairing
from hf_colearn.teachers.sequence_bank import AnyBank
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.teachers.where_paired import WherePaired
from hf_colearn.training.data_checks import sample_ids


logger = logging.get_logger(__name__)

TEXTS, MEDIA = 256, 32  # samples that are looked at, spread over the training set; images and audio are decoded
REPEATS = 64  # ids that several samples have, of which two samples each are compared
_KINDS = {"text": "text", "vision": "image", "audio": "audio"}  # of columns, by the teacher's modality


def pairs_fit(dataset: Any, id_column: str, teachers: Mapping[str, Teacher]) -> None:
    """Refuses pairs that cannot be right, and warns of those that may not be.

    Where the training set holds the teacher's inputs in a column (texts, names of classes, images, audio), some samples'
    are compared with what their rows of the bank were encoded from. Where it does not, ids that several different samples
    have while rows are left over tell of numbered data sets that were put together. Looks at [`Paired`] alone, by itself or in
    [`Noisy`], [`PairedFraction`] or [`WherePaired`]: other pairings show other rows on purpose. Streams are not read.

    Raises:
        ValueError: If a sample's row was encoded from the input of another, or ids repeat and leave as many rows over.
    """
    ids = sample_ids(dataset, id_column)
    if ids is None:
        return
    if not isinstance(dataset, UnpairedBatches):
        _part_fits(dataset, ids, id_column, teachers)
        return
    for task, part in dataset.datasets.items():
        _part_fits(part, ids[dataset.rows(task)], id_column, teachers)


def _part_fits(dataset: Dataset, ids: np.ndarray, id_column: str, teachers: Mapping[str, Teacher]) -> None:
    for name, teacher in teachers.items():
        pairing, paired = _true_pairs(teacher.pairing, ids)
        if pairing is None or not isinstance(teacher.bank, AnyBank) or not len(paired):
            continue
        of = f"the teacher '{name}': " if len(teachers) > 1 else ""
        part = dataset if len(paired) == len(ids) else dataset.select(paired)
        those = _Paired(part, id_column, ids[paired], pairing, teacher.bank, of)
        if not _inputs_tell(those):
            _ids_reach_their_rows(those)


@dataclass(frozen=True)
class _Paired:
    """The N samples that are paired, their ids `[N]`, and what errors call the teacher."""

    dataset: Dataset
    id_column: str
    ids: np.ndarray
    pairing: Paired
    bank: AnyBank
    of: str


def _true_pairs(pairing: Pairing, ids: np.ndarray) -> tuple[Paired | None, np.ndarray]:
    """The pairing with a sample's own row, None where samples see other rows on purpose, and which samples have a row."""
    paired = np.ones(len(ids), dtype=bool)
    while isinstance(pairing, (Noisy, PairedFraction, WherePaired)):
        if isinstance(pairing, WherePaired):
            paired &= pairing.have_partner(ids)
        pairing = pairing.pairing
    return pairing if type(pairing) is Paired else None, np.flatnonzero(paired)


# ---- by the inputs ----
@dataclass
class _Seen:
    """A column of the training set beside the bank: S samples, those without an input left out."""

    column: str
    cells: list[Any]
    positions: np.ndarray  # [S] in the training set
    fit: Fit

    @property
    def known(self) -> int:
        """How many of the inputs are in the bank, at whatever row."""
        return int((self.fit.found >= 0).sum())


def _inputs_tell(those: _Paired) -> bool:
    """Whether a column shows that the pairs are right; refuses those of which one shows that they are wrong."""
    dataset, id_column, ids, bank, of = those.dataset, those.id_column, those.ids, those.bank, those.of
    stored, best = bank.stored_inputs, None
    if stored is None:
        return False
    rows = those.pairing.rows(bank, ids)
    for column in _columns(dataset, id_column, stored.modality):
        seen = _compare(dataset, column, rows, stored)
        if seen is None:
            continue
        if seen.fit.fits.all():
            return True
        if best is None or seen.known > best.known:
            best = seen
        is_encoded = column == bank.description.get("input_column") and stored.modality in (None, "text")
        if is_encoded and 2 * seen.known < len(seen.cells):  # of images and audio it may be other sizes and rates
            logger.warning(
                f"{of}{seen.known} of {len(seen.cells)} inputs in column '{column}' of the training set are among those that "
                f"the bank was encoded from, which a column '{column}' held, too: is it the bank of another split?"
            )
    if best is None or 2 * best.known < len(best.cells):
        return False  # no column of the teacher's inputs, though some texts are the same by chance
    count = f"{(~best.fit.fits).sum()} of {len(best.cells)}"
    misplaced, unknown = ~best.fit.fits & (best.fit.found >= 0), best.fit.found < 0
    ids_are_shared = _differ(dataset, [best.column], *_sharing(ids))
    if misplaced.sum() <= unknown.sum() and not ids_are_shared:
        logger.warning(
            f"{of}{count} inputs in column '{best.column}' of the training set are not what their rows of the bank were "
            "encoded from: encode it anew if they have changed."
        )
        return True
    first = int(misplaced.argmax() if misplaced.any() else best.fit.fits.argmin())
    position = best.positions[first]
    wrong = stored.mismatch(
        f"sample id {ids[position]}", best.cells[first], int(rows[position]), int(best.fit.found[first])
    )
    why = "were numbered data sets put together" if ids_are_shared else "were the ids made after a shuffle"
    raise ValueError(
        f"{of}{wrong}. {count} samples that were compared do not fit: {why}, or is the bank of another order or split? Number "
        f"the whole training set, `with_sample_ids(train.remove_columns('{id_column}'))`, and find the rows by their inputs, "
        f"`Paired(bank.rows_of(train['{best.column}']))`, or encode the bank of it. Wrong pairs on purpose are `Shuffled()` or "
        "`Mismatched(Paired(), 1.0)`."
    )


def _columns(dataset: Dataset, id_column: str, modality: str | None) -> list[str]:
    """The columns that may hold a teacher's inputs; those whose cells cost nothing to read come first."""
    kinds: dict[str, list[str]] = {"text": [], "image": [], "audio": []}
    for name, feature in dataset.features.items():
        if isinstance(feature, ClassLabel) or (
            isinstance(feature, Value) and feature.dtype in ("string", "large_string")
        ):
            kinds["text"].append(name)
        elif isinstance(feature, (Image, Audio)):
            kinds["image" if isinstance(feature, Image) else "audio"].append(name)
    wanted = kinds if modality is None else dict.fromkeys([_KINDS[modality], "text"])  # images and audio may be paths
    return [name for kind in wanted for name in kinds[kind] if name != id_column]


def _compare(dataset: Dataset, column: str, rows: np.ndarray, stored: BankInputs) -> _Seen | None:
    """Some samples' inputs beside those of their rows; None where there is nothing to compare."""
    feature = dataset.features[column]
    is_media = isinstance(feature, (Image, Audio)) or stored.modality in ("vision", "audio")
    spread = np.unique(np.linspace(0, len(dataset) - 1, MEDIA if is_media else TEXTS).astype(np.int64))
    plain = dataset.with_format(None).select_columns(column).select(spread)
    best = None
    for part in [plain, as_stored(plain, column)] if is_media else [plain]:
        try:
            cells = part[column][:]
            if isinstance(feature, ClassLabel):
                cells = [None if cell is None or cell < 0 else feature.int2str(cell) for cell in cells]
            there = [place for place, cell in enumerate(cells) if cell is not None]
            cells = [cells[place] for place in there]
            keys = stored.keys_of(cells)
        except (*UNDECODABLE, ImportError, RuntimeError):  # what cannot be read cannot be compared
            continue
        positions = spread[there]
        seen = _Seen(column, cells, positions, stored.fit(keys, rows[positions]))
        if best is None or seen.known > best.known:
            best = seen
    return best if best is not None and best.cells else None


# ---- by the ids ----
def _ids_reach_their_rows(those: _Paired) -> None:
    """Ids that different samples share, while rows are left over for as many samples as there are."""
    dataset, id_column, ids, pairing, of = those.dataset, those.id_column, those.ids, those.pairing, those.of
    known, counts = np.unique(ids, return_counts=True)
    entries = len(those.bank) if pairing.row_of_id is None else len(pairing.row_of_id)
    if len(known) == len(ids) or entries < len(ids):
        return
    columns = [name for name in dataset.column_names if name != id_column]
    columns = [name for name in columns if name not in LABELS] or columns  # labels may be hidden
    one, other = _sharing(ids)
    if not _differ(dataset, columns, one, other):
        return  # samples that are drawn more than once
    shared = counts[known == ids[one[0]]][0]
    left = f"{entries - len(known)} of {entries}"
    left += " rows of the bank" if pairing.row_of_id is None else " entries of `Paired(rows)`"
    said = (
        f"{of}{len(ids)} training samples have {len(known)} ids (id {ids[one[0]]} is that of {shared} that differ), and {left} "
        "are left over: were numbered data sets put together? Number them all at once, "
        f"`with_sample_ids(train.remove_columns('{id_column}'))`. Where samples of one thing share its row, find the rows by "
        "`bank.rows_of(inputs)`, or pass `Paired(rows)` with one entry an id."
    )
    if entries == len(ids) and known[0] == 0 and known[-1] == len(known) - 1:  # as numbered data sets leave them
        raise ValueError(said)
    logger.warning(said)


def _sharing(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two samples each of some ids that several have, as positions."""
    known, first, counts = np.unique(ids, return_index=True, return_counts=True)
    repeated = np.flatnonzero(counts > 1)
    if len(repeated) > REPEATS:
        repeated = repeated[np.linspace(0, len(repeated) - 1, REPEATS).astype(np.int64)]
    is_first = np.isin(np.arange(len(ids)), first)
    later = np.flatnonzero(np.isin(ids, known[repeated]) & ~is_first)
    return first[repeated], later[np.unique(ids[later], return_index=True)[1]]


def _differ(dataset: Dataset, columns: list[str], one: np.ndarray, other: np.ndarray) -> bool:
    """Whether what is stored of two samples each differs in one of the columns."""
    tables = [dataset.with_format("arrow").select_columns(columns).select(rows)[:] for rows in (one, other)]
    for name in columns:
        left, right = (table[name].combine_chunks() for table in tables)
        if not left.equals(right) and left.equals(left) and right.equals(right):  # NaN is not equal to itself
            return True
    return False
