"""The scale of teachers' targets in training: statistics from what the training samples are paired with.

Shapes: N training samples.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.teachers.latent_column import LatentColumn
from hf_colearn.teachers.pairing import Pairing, PairingWrapper, holds_ids
from hf_colearn.teachers.sequence_bank import AnyBank
from hf_colearn.teachers.teacher import Teacher


def scaled_teachers(
    teachers: Mapping[str, Teacher], sample_ids: np.ndarray | None, how: str, seed: int, dataset: Any = None
) -> dict[str, Teacher]:
    """The same teachers with banks that are scaled by [`TeacherBank.scaled`], or columns by [`LatentColumn.scaled`]; a bank
    that was scaled before, or that holds ids, stays as it is.

    A pure function of its arguments, so all processes and a resumed run get the same, and a second call changes nothing.

    Args:
        teachers (`Mapping[str, Teacher]`): By name.
        sample_ids (`np.ndarray` of shape `(N,)`, *optional*): Those of the training samples, integers; None where they are
            unknown, as of a stream.
        how (`str`): `CoLearningArguments.latent_scaling`: `"standardized"`, `"l2"`, or `"none"`, which changes nothing.
        seed (`int`): The pairings'.
        dataset (*optional*): The training set, over whose rows a column is standardized where its moments are not known.

    Raises:
        ValueError: If a bank cannot be scaled so, its pairing cannot serve the sample ids, or the moments of a stream's column
            are not known.
        TypeError: If a bank of one's own has no `scaled`.
    """
    return {name: _scaled(teacher, sample_ids, how, seed, dataset) for name, teacher in teachers.items()}


def _scaled(teacher: Teacher, sample_ids: np.ndarray | None, how: str, seed: int, dataset: Any) -> Teacher:
    bank = teacher.bank
    if how == "none" or holds_ids(bank):
        return teacher
    if isinstance(bank, LatentColumn):
        if "scaling" in bank.description:
            return teacher
        if how == "standardized" and not bank.has_moments and isinstance(dataset, Dataset):
            bank = bank.measured(dataset)
        return replace(teacher, bank=bank.scaled(how))
    if not hasattr(bank, "scaled"):
        raise TypeError(
            f"latent_scaling='{how}', but bank is a {type(bank).__name__} that has no `scaled`: pass latent_scaling='none' to "
            "CoLearningArguments, or make a bank of its latents, `TeacherBank.from_latents(latents)`."
        )
    if "scaling" in bank.description:
        return teacher
    rows = None
    if how == "standardized" and sample_ids is not None and len(sample_ids):
        rows = paired_rows(teacher.pairing, bank, sample_ids, seed)
    return replace(teacher, bank=bank.scaled(how, rows))


def paired_rows(pairing: Pairing, bank: AnyBank, sample_ids: np.ndarray, seed: int) -> np.ndarray | None:
    """The bank's rows that training samples are paired with, `(N,)` int64; None where these are no fixed rows of it.

    Of a pairing that alters another one, [`Shuffled`], [`Mismatched`] or [`PairedFraction`], they are the other one's, so
    that null controls and sweeps have the scale of the true pairs. There are no fixed rows where other epochs show others
    ([`RandomPrompt`]) or where something else than rows is shown ([`ConstantTarget`], [`RandomPrototypes`]).
    """
    inner = pairing
    while isinstance(inner, PairingWrapper):
        inner = inner.pairing
    if type(inner).targets is not Pairing.targets:
        return None
    pairing.check(bank, sample_ids)
    rows_N = inner.rows(bank, sample_ids, 0, seed)
    return rows_N if np.array_equal(rows_N, inner.rows(bank, sample_ids, 1, seed)) else None
