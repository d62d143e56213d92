"""Null controls: targets of the teacher's shape without its knowledge."""

import numpy as np
import pytest
import torch
from scipy import stats

import tiny
from hf_colearn import ConstantTarget, Paired, Permuted, RandomPrompt, RandomPrototypes, TeacherBank


IDS = np.arange(6)
LABELS = [0, 2, 1, 2, 0, 2]


def bank_of_known_moments():
    """Four rows of three dimensions: means 0, 5, -3; standard deviations 1, 0, 2."""
    return TeacherBank.from_latents(np.array([[1, 5, -1], [-1, 5, -5], [1, 5, -5], [-1, 5, -1]]))


# ---- one point ----
def test_a_constant_target_is_the_mean_of_the_bank():
    targets = ConstantTarget().targets(bank_of_known_moments(), np.array([3, 999]), epoch=4, seed=2)

    assert targets.tolist() == [[0, 5, -3], [0, 5, -3]]


def test_a_constant_target_has_no_row():
    with pytest.raises(ValueError, match="the bank's mean, which is no row of it: ask for `targets`"):
        ConstantTarget().rows(bank_of_known_moments(), IDS, 0, 0)


# ---- prototypes ----
def test_prototypes_have_the_moments_of_the_bank_in_each_dimension():
    classes = np.arange(20_000)

    prototypes = RandomPrototypes(labels=classes).targets(bank_of_known_moments(), classes, epoch=0, seed=0)

    # The mean of 20,000 has a standard deviation of 0.0071 of theirs, their standard deviation one of 0.005.
    assert prototypes.mean(dim=0).tolist() == pytest.approx([0, 5, -3], abs=0.06)
    assert prototypes.std(dim=0).tolist() == pytest.approx([1, 0, 2], rel=0.02, abs=1e-6)
    assert stats.kstest(prototypes[:, 0], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(prototypes[:, 0], prototypes[:, 2])[0, 1]) < 0.03


def test_prototypes_by_class_are_one_vector_a_class():
    targets = RandomPrototypes(labels=LABELS).targets(tiny.bank(), IDS, epoch=0, seed=0)

    same_class = np.equal.outer(LABELS, LABELS)
    same_target = torch.cdist(targets, targets).numpy() < 1e-3
    assert np.array_equal(same_target, same_class)


def test_prototypes_at_random_are_drawn_as_random_prompts_are():
    samples, bank = np.arange(5000), tiny.bank(8)
    pairing = RandomPrototypes(num_prototypes=8)

    targets = pairing.targets(bank, samples, epoch=1, seed=3)

    vectors, drawn = np.unique(targets.numpy(), axis=0, return_inverse=True)
    prompts = RandomPrompt("{}", 8).rows(bank, samples, epoch=1, seed=3)
    assert len(vectors) == 8
    assert len(set(zip(drawn.ravel().tolist(), prompts.tolist(), strict=True))) == 8  # one vector a prompt
    wanted = RandomPrototypes(labels=np.arange(8)).targets(bank, np.arange(8), epoch=0, seed=3)
    assert torch.equal(targets, wanted[prompts])  # which stay over the epochs


def test_prototypes_follow_the_bank_that_is_given():
    pairing, one, other = RandomPrototypes(labels=LABELS), tiny.bank(seed=0), tiny.bank(seed=1)
    first = pairing.targets(one, IDS, 0, 0)

    assert torch.equal(pairing.targets(other, IDS, 0, 0), RandomPrototypes(labels=LABELS).targets(other, IDS, 0, 0))
    assert torch.equal(pairing.targets(one, IDS, 0, 0), first)


def test_prototypes_need_labels_or_a_number():
    with pytest.raises(
        ValueError, match="either `labels` .* or `num_prototypes`.*got labels=None, num_prototypes=None"
    ):
        RandomPrototypes()
    with pytest.raises(ValueError, match="got labels=given, num_prototypes=3"):
        RandomPrototypes(labels=LABELS, num_prototypes=3)
    with pytest.raises(ValueError, match="num_prototypes=0: pass a whole number, at least 1"):
        RandomPrototypes(num_prototypes=0)


@pytest.mark.parametrize("control", [RandomPrototypes, lambda labels: Permuted(Paired(), labels)])
def test_labels_are_checked(control):
    with pytest.raises(ValueError, match="label -1 is negative: classes are numbered from 0, and -100 is no label"):
        control(labels=[0, -100, -1])
    with pytest.raises(ValueError, match="all 2 labels are -100, so no sample has a class: use a control without"):
        control(labels=[-100, -100])
    for labels in ([0.0, 1.0], [[0, 1], [1, 1]]):
        with pytest.raises(ValueError, match="labels must be .* integers, one a sample; got .* use a control without"):
            control(labels=labels)
    control(labels=LABELS).check(tiny.bank(), IDS)
    with pytest.raises(ValueError, match="sample id 6 is out of range: `labels` holds 6 entries"):
        control(labels=LABELS).check(tiny.bank(), np.array([0, 6]))


@pytest.mark.parametrize("control", [RandomPrototypes, lambda labels: Permuted(Paired(), labels)])
def test_samples_without_a_label_have_no_target_and_the_others_those_that_they_had(control):
    bank, ids = tiny.bank(), np.array([5, 1, 0, 3])
    hidden = control([0, -100, 1, -100, 0, 2])  # no label for the ids 1 and 3
    hidden.check(bank, ids)

    targets = hidden.targets(bank, ids, epoch=1, seed=2)

    assert targets[[1, 3]].isnan().all()
    assert torch.equal(targets[[0, 2]], control(LABELS).targets(bank, np.array([5, 0]), epoch=1, seed=2))


# ---- permutations ----
def bank_of_places(rows, dim=16):
    """Every row is 0, 1, ..., D - 1, so that a permuted row tells its permutation."""
    return TeacherBank.from_latents(np.tile(np.arange(dim), (rows, 1)))


def test_permuted_targets_keep_their_values_and_are_one_permutation_a_class():
    permutations = Permuted(Paired(), LABELS).targets(bank_of_places(6), IDS, epoch=0, seed=0)

    assert torch.equal(permutations.sort(dim=1).values, torch.arange(16.0).expand(6, -1))
    same_class = np.equal.outer(LABELS, LABELS)
    same_permutation = (permutations[:, None] == permutations[None]).all(dim=2).numpy()
    assert np.array_equal(same_permutation, same_class)
    assert not (permutations == torch.arange(16.0)).all(dim=1).any()


def test_without_labels_a_class_is_the_row_that_is_seen():
    bank, prompts = bank_of_places(4), RandomPrompt("{}", 4)
    samples = np.arange(40)

    permutations = Permuted(prompts).targets(bank, samples, epoch=2, seed=1)

    rows = prompts.rows(bank, samples, epoch=2, seed=1)
    by_row = Permuted(Paired()).targets(bank, np.arange(4), epoch=0, seed=1)
    assert torch.equal(permutations, by_row[rows])


def test_permuting_destroys_the_relations_between_classes():
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.normal(size=(2, 384)), 5, axis=0)  # two groups of five related classes
    bank = TeacherBank.from_latents(groups + 0.1 * rng.normal(size=(10, 384)))
    classes = np.arange(10)

    plain = cosines(Paired().targets(bank, classes, 0, 0))
    permuted = cosines(Permuted(Paired()).targets(bank, classes, 0, 0))

    within = np.equal.outer(classes // 5, classes // 5) & ~np.eye(10, dtype=bool)
    assert plain[within].min() > 0.97
    # Unrelated vectors of 384 dimensions have cosines of standard deviation 1 / sqrt(384) = 0.05.
    assert abs(permuted[within]).max() < 0.2
    assert abs(permuted[within]).mean() == pytest.approx(
        abs(permuted[~within & ~np.eye(10, dtype=bool)]).mean(), abs=0.03
    )


def cosines(vectors):
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return (unit @ unit.T).numpy()


def test_permuted_checks_the_pairing_below_and_reports_its_rows():
    with pytest.raises(ValueError, match="sample id 10 is paired with row 10"):
        Permuted(Paired()).check(tiny.bank(10), np.array([10]))
    assert Permuted(Paired(LABELS)).rows(tiny.bank(), IDS, 0, 0).tolist() == LABELS
