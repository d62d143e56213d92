"""A teacher is a bank with its pairing; what is none is refused where it is made."""

import numpy as np
import pytest
import torch

import tiny
from docstrings import run_example
from hf_colearn import ConstantTarget, Noisy, Paired, Pairing, Shuffled, Teacher, TeacherBank


IDS = np.arange(10)


@pytest.mark.parametrize("pairing", [Paired(), Shuffled(), Noisy(Shuffled()), ConstantTarget()])
def test_its_targets_are_the_pairings_of_its_bank(pairing):
    bank = tiny.bank(10)
    teacher = Teacher(bank, pairing)

    assert teacher.dim == bank.dim
    assert torch.equal(teacher.targets(IDS, 2, 7), pairing.targets(bank, IDS, epoch=2, seed=7))


@pytest.mark.parametrize("arguments", [{}, {"pairing": None}])
def test_samples_are_paired_with_their_own_rows_by_default(arguments):
    teacher = Teacher(tiny.bank(10), **arguments)

    assert torch.equal(teacher.targets(IDS, 0, 0), tiny.bank(10).lookup(IDS))
    with pytest.raises(ValueError, match="sample id 10 is paired with row 10, but the bank has 10 rows"):
        teacher.check(np.array([3, 10]))
    teacher.check(IDS)


def test_a_bank_that_is_none_is_refused():
    for latents in (torch.zeros(2, 3), np.zeros((2, 3)), None):
        with pytest.raises(
            TypeError, match=rf"bank is a {type(latents).__name__}: .*TeacherBank.from_latents\(latents\)"
        ):
            Teacher(latents)
    banks = {"text": tiny.bank(10), "audio": tiny.bank(10)}
    way_out = r'bank is a dict: .*`teachers=\{"text": Teacher\(...\), "audio": Teacher\(...\)\}`'
    with pytest.raises(TypeError, match=way_out):
        Teacher(banks)
    with pytest.raises(TypeError, match="bank=TeacherBank is a class: pass an object"):
        Teacher(TeacherBank)


class WithoutRows(Pairing):
    pass


def test_a_pairing_that_is_none_is_refused():
    bank = tiny.bank(10)
    with pytest.raises(TypeError, match=r"pairing=Shuffled is a class: pass an object of it, `Shuffled\(\)`"):
        Teacher(bank, Shuffled)
    with pytest.raises(TypeError, match=r"pairing is a list: pass one such as `Paired\(rows\)`"):
        Teacher(bank, [3, 1, 2])
    with pytest.raises(TypeError, match="WithoutRows gives neither `rows` nor `targets`: define `rows`"):
        Teacher(bank, WithoutRows())


@pytest.mark.parametrize("documented", [Teacher, Pairing])
def test_the_examples_run(documented):
    run_example(documented)
