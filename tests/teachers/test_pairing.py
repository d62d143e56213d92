"""Pairings: which latent a sample sees is a pure function of its id, the epoch and the seed."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy import stats
from torch.utils.data import DataLoader

import tiny
from docstrings import run_example
from hf_colearn import (
    ConstantTarget,
    Noisy,
    Paired,
    Permuted,
    RandomPrompt,
    RandomPrototypes,
    Shuffled,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.data.sample_ids import SAMPLE_IDS, TARGETS
from hf_colearn.teachers.collator import TargetCollator
from hf_colearn.teachers.pairing import Mismatched, PairedFraction, draw_bits
from hf_colearn.teachers.teacher import Teacher
from refusals import Refusals, assert_refused


ROWS = 10
IDS = np.arange(ROWS)
LABELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]

# name -> (a fresh pairing, whether other epochs give other targets, whether other seeds do)
PAIRINGS = {
    "Paired": (lambda: Paired(), False, False),
    "Paired with rows": (lambda: Paired(LABELS), False, False),
    "Shuffled": (lambda: Shuffled(), True, True),
    "Shuffled with rows": (lambda: Shuffled(LABELS), True, True),
    "RandomPrompt": (lambda: tiny.random_prompt(ROWS), True, True),
    "Noisy Paired": (lambda: Noisy(Paired(), std=0.1), True, True),
    "Noisy RandomPrompt": (lambda: Noisy(tiny.random_prompt(ROWS), std=0.1), True, True),
    "Mismatched Paired": (lambda: Mismatched(Paired(), 0.5), False, True),
    "Mismatched Paired with rows": (lambda: Mismatched(Paired(LABELS), 1.0), False, True),
    "ConstantTarget": (lambda: ConstantTarget(), False, False),
    "RandomPrototypes by class": (lambda: RandomPrototypes(labels=LABELS), False, True),
    "RandomPrototypes at random": (lambda: RandomPrototypes(num_prototypes=ROWS), True, True),
    "Permuted Paired": (lambda: Permuted(Paired(LABELS)), False, True),
    "Permuted RandomPrompt by class": (lambda: Permuted(tiny.random_prompt(ROWS), LABELS), True, True),
}
of_every_pairing = pytest.mark.parametrize("name", PAIRINGS)


def fresh(name):
    return PAIRINGS[name][0]()


# ---- purity ----
@of_every_pairing
def test_targets_do_not_depend_on_how_samples_are_batched(name):
    bank = tiny.bank(ROWS)
    whole = fresh(name).targets(bank, IDS, epoch=2, seed=7)
    assert whole.shape == (ROWS, 24) and whole.dtype == torch.float32

    another = fresh(name)
    for batch in ([9, 0, 3], [3], [8, 1, 2, 4], [7, 6, 5]):
        another.targets(bank, np.array(batch), epoch=1, seed=7)  # another epoch in between
        assert torch.equal(another.targets(bank, np.array(batch), epoch=2, seed=7), whole[batch])


@of_every_pairing
def test_targets_change_with_epoch_and_seed_where_they_are_drawn(name):
    bank = tiny.bank(ROWS)
    _, by_epoch, by_seed = PAIRINGS[name]
    whole = fresh(name).targets(bank, IDS, epoch=0, seed=0)

    assert torch.equal(whole, fresh(name).targets(bank, IDS, epoch=1, seed=0)) != by_epoch
    assert torch.equal(whole, fresh(name).targets(bank, IDS, epoch=0, seed=1)) != by_seed


class EveryPairing:
    """Collates a batch to its ids and the targets of every pairing, each pickled as for a spawned worker."""

    def __init__(self, bank, epoch):
        self.collators = {
            name: TargetCollator(
                torch.utils.data.default_collate,
                "sample_id",
                {TARGETS: pickle.loads(pickle.dumps(Teacher(bank, fresh(name))))},
                seed=7,
                epoch=epoch,
            )
            for name in PAIRINGS
        }

    def __call__(self, features):
        targets = {name: collator(features)[TARGETS] for name, collator in self.collators.items()}
        return [feature["sample_id"] for feature in features], targets


def test_living_workers_give_the_same_targets_and_see_the_epoch_change():
    bank, epoch = tiny.bank(ROWS), torch.zeros((), dtype=torch.int64).share_memory_()
    samples = [{"sample_id": i, "labels": LABELS[i]} for i in range(ROWS)]
    workers = {"num_workers": 1, "multiprocessing_context": "fork", "persistent_workers": True}
    loader = DataLoader(samples, batch_size=3, shuffle=True, collate_fn=EveryPairing(bank, epoch), **workers)

    for number in range(2):
        epoch.fill_(number)
        wanted = {name: fresh(name).targets(bank, IDS, number, seed=7) for name in PAIRINGS}
        seen = []
        for ids, targets in loader:
            seen += ids
            for name, found in targets.items():
                assert torch.equal(found, wanted[name][ids]), (number, name)
        assert sorted(seen) == IDS.tolist()


# ---- draws ----
def splitmix(state):
    """The finaliser of SplitMix64 in whole numbers."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_draws_are_the_published_hash():
    # Seeded with 0, the published SplitMix64 begins with this number.
    assert splitmix(0) == 0xE220A8397B1DCDAF
    for seed, stream, epoch, sample_id in [(0, 1, 0, 0), (42, 1, 3, 1_281_166), (2**32 - 1, 2, 299, 2**40)]:
        wanted = splitmix(splitmix(splitmix(splitmix(seed) ^ stream) ^ epoch) ^ sample_id)
        assert draw_bits(np.array([sample_id]), epoch, seed, stream).tolist() == [wanted]


SAMPLES = np.arange(50_000)


def prompts_of(epoch=0, seed=0, ids=SAMPLES):
    return tiny.random_prompt(10).rows(None, ids, epoch, seed)


def p_value_of_independence(first, second):
    return stats.chi2_contingency(stats.contingency.crosstab(first, second).count).pvalue


@pytest.mark.parametrize("epoch, seed", [(0, 0), (1, 0), (299, 0), (0, 1), (0, 42), (3, 2**32 - 1)])
def test_random_prompts_are_uniform(epoch, seed):
    counts = np.bincount(prompts_of(epoch, seed), minlength=10)

    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-3


def test_random_prompts_are_independent_of_label_epoch_seed_and_neighbour():
    drawn = prompts_of()

    assert p_value_of_independence(drawn, SAMPLES % 10) > 1e-3  # labels in turn
    assert p_value_of_independence(drawn, SAMPLES // 5000) > 1e-3  # labels in blocks
    assert p_value_of_independence(drawn, prompts_of(epoch=1)) > 1e-3
    assert p_value_of_independence(drawn, prompts_of(seed=1)) > 1e-3
    assert p_value_of_independence(drawn[:-1], drawn[1:]) > 1e-3


def test_random_prompts_are_what_the_bank_was_encoded_from():
    pairing = RandomPrompt("This is about class {}.", num_classes=3)
    bank = TeacherBank.from_latents(np.eye(3), inputs=pairing.prompts)

    assert pairing.prompts == ["This is about class 0.", "This is about class 1.", "This is about class 2."]
    targets = pairing.targets(bank, IDS, epoch=0, seed=0)
    assert targets.argmax(dim=1).tolist() == pairing.rows(bank, IDS, 0, 0).tolist()


@pytest.mark.parametrize("template", ["This is about a class.", "{} and {}", "class {number}", "{", "class {{}}"])
def test_a_template_without_exactly_one_place_is_refused(template):
    with pytest.raises(ValueError, match="has no single place for the class"):
        RandomPrompt(template, 3)


def test_prompts_name_the_number_or_the_name_of_a_class():
    run_example(RandomPrompt)
    assert RandomPrompt("{}: {name}", names=["cat", "dog"]).prompts == ["0: cat", "1: dog"]


def test_prompts_of_no_class_are_refused():
    with pytest.raises(ValueError, match="num_classes=0: pass a whole number, at least 1"):
        RandomPrompt("{}", 0)


def test_random_prompts_refuse_the_bank_of_others():
    with pytest.raises(ValueError, match="draws from 5 prompts, but the bank has 10 rows"):
        tiny.random_prompt(5).check(tiny.bank(10), IDS)
    with pytest.raises(ValueError, match="row 0 of the bank was encoded from 'This is about class 0.', not .* 'A 0'"):
        RandomPrompt("A {}", 10).check(tiny.bank(10), IDS)
    tiny.random_prompt(10).check(tiny.bank(10), IDS)
    tiny.random_prompt(10).check(TeacherBank.from_latents(np.eye(10)), IDS)  # what it was encoded from is unknown


# ---- paired and shuffled ----
def test_paired_samples_see_their_own_row():
    bank = tiny.bank(ROWS)

    assert torch.equal(Paired().targets(bank, np.array([7, 2]), 0, 0), bank.lookup([7, 2]))
    assert torch.equal(Paired(LABELS).targets(bank, np.array([5, 0]), 0, 0), bank.lookup([9, 3]))
    assert Paired(torch.tensor(LABELS)).rows(bank, np.array([5])).tolist() == [9]


def test_paired_refuses_samples_without_a_row():
    Paired().check(tiny.bank(ROWS), IDS)
    with pytest.raises(ValueError, match="sample id 10 is paired with row 10, but the bank has 10 rows \\(0 to 9\\)"):
        Paired().check(tiny.bank(ROWS), np.arange(11))
    with pytest.raises(ValueError, match="sample id 1 is paired with row -100, which is no label: pair by what every"):
        Paired([0, -100]).check(tiny.bank(4), np.array([0, 1]))
    with pytest.raises(ValueError, match="sample id 5 is paired with row 9, but the bank has 4 rows"):
        Paired(LABELS).check(tiny.bank(4), np.array([1, 5]))
    for sample_id in (-1, 10):
        with pytest.raises(ValueError, match=f"sample id {sample_id} is out of range: `rows` holds 10 entries"):
            Paired(LABELS).rows(tiny.bank(ROWS), np.array([0, sample_id]))


@pytest.mark.parametrize("rows", [[], [0.5, 1.0], ["0", "1"], [[0, 1]], 3])
def test_rows_that_are_no_list_of_integers_are_refused(rows):
    with pytest.raises(ValueError, match="rows must be a non-empty list of integers"):
        Paired(rows)


@pytest.mark.parametrize("size", [2, 3, 100])
def test_shuffled_is_a_permutation_that_gives_nobody_its_own_row(size):
    bank, ids = tiny.bank(size), np.arange(size)
    pairing = Shuffled()

    for epoch in range(20):
        for seed in (0, 1, 12345):
            rows = pairing.rows(bank, ids, epoch, seed)
            assert sorted(rows) == ids.tolist()
            assert not (rows == ids).any()


def test_shuffled_gives_every_other_row_equally_often():
    bank, pairing = tiny.bank(5), Shuffled()

    partners = np.concatenate([pairing.rows(bank, np.array([2]), epoch, seed=0) for epoch in range(2000)])

    counts = np.bincount(partners, minlength=5)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3, 4]]).pvalue > 1e-3


def test_shuffled_with_rows_gives_the_partner_of_the_own_row():
    bank = tiny.bank(ROWS)
    partners = Shuffled().rows(bank, IDS, epoch=4, seed=2)

    rows = Shuffled(LABELS).rows(bank, IDS, epoch=4, seed=2)

    assert rows.tolist() == partners[LABELS].tolist()


def test_shuffled_refuses_a_bank_of_one_row_and_samples_without_a_row():
    with pytest.raises(ValueError, match="needs a bank of at least 2 rows .* it has 1"):
        Shuffled().check(tiny.bank(1), np.array([0]))
    for sample_id in (-1, ROWS):
        with pytest.raises(
            ValueError, match=f"sample id {sample_id} is paired with row {sample_id}, but the bank has"
        ):
            Shuffled().rows(tiny.bank(ROWS), np.array([sample_id]), 0, 0)


# ---- noise ----
def noise_of(std, epoch=0, seed=0, samples=500, dim=400):
    bank = TeacherBank.from_latents(np.zeros((samples, dim)))
    return Noisy(Paired(), **std).targets(bank, np.arange(samples), epoch, seed)


@pytest.mark.parametrize(
    "std, wanted",
    [
        ({}, 1e-3),  # the released code: `1e-3 * torch.randn`
        ({"std": 1e-3**0.5}, 0.0316228),  # the paper's reading: a variance of 1e-3
        ({"std": 2.0}, 2.0),
    ],
)
def test_noise_is_gaussian_of_the_standard_deviation_asked_for(std, wanted):
    noise = noise_of(std).numpy() / wanted

    # 200,000 values: the standard deviation of their mean is 0.0022, that of their standard deviation 0.0016.
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.007)
    assert stats.kstest(noise.ravel()[:20_000], "norm").pvalue > 1e-3


def test_noise_is_independent_between_samples_epochs_and_seeds():
    noise = noise_of({}).numpy()
    rows = np.concatenate([noise[:50], noise_of({}, epoch=1).numpy()[:50], noise_of({}, seed=1).numpy()[:50]])

    correlations = np.corrcoef(rows)[np.triu_indices(150, k=1)]

    # 11,175 correlations of 400 values: standard normal times 1 / 20, so the largest is about 4 times that.
    assert abs(correlations).max() < 0.3
    assert correlations.std() == pytest.approx(0.05, rel=0.05)


def test_noise_is_added_to_the_targets_of_the_other_pairing():
    bank, prompts = tiny.bank(ROWS), tiny.random_prompt(ROWS)

    noisy, plain = (pairing.targets(bank, IDS, 3, 5) for pairing in (Noisy(prompts, std=1e-2), prompts))

    assert 0 < (noisy - plain).abs().max() < 0.06
    assert torch.equal(Noisy(prompts, std=0).targets(bank, IDS, 3, 5), plain)
    assert Noisy(prompts).rows(bank, IDS, 3, 5).tolist() == prompts.rows(bank, IDS, 3, 5).tolist()


@pytest.mark.parametrize("std", [-1e-3, float("nan"), float("inf")])
def test_noise_without_a_standard_deviation_is_refused(std):
    with pytest.raises(ValueError, match=f"std={std} is no standard deviation"):
        Noisy(Paired(), std)


def test_noise_checks_the_pairing_below():
    with pytest.raises(ValueError, match="sample id 10 is paired with row 10"):
        Noisy(Paired()).check(tiny.bank(ROWS), np.array([10]))


# ---- wrong pairs ----
def test_a_share_of_the_samples_sees_the_row_of_another():
    bank = TeacherBank.from_latents(np.arange(40_000, dtype=np.float32)[:, None])
    ids = np.arange(40_000)

    rows = Mismatched(Paired(), 0.25).rows(bank, ids, epoch=0, seed=3)

    # 10,000 expected, with a standard deviation of 87
    assert abs((rows != ids).sum() - 10_000) < 350
    assert torch.equal(Mismatched(Paired(), 0.25).targets(bank, ids, 0, 3)[:, 0], torch.from_numpy(rows).float())
    assert (Mismatched(Paired(), 0).rows(bank, ids, 0, 3) == ids).all()


@pytest.mark.parametrize("size", [2, 3, 10])
def test_at_a_share_of_one_nobody_sees_its_own_row_and_every_other_one_is_as_likely(size):
    own = np.arange(30_000) % size

    rows = Mismatched(Paired(own), 1.0).rows(tiny.bank(size), np.arange(30_000), epoch=0, seed=0)

    seen = np.bincount((rows - own) % size, minlength=size)
    assert seen[0] == 0 and seen.sum() == 30_000
    assert size == 2 or stats.chisquare(seen[1:]).pvalue > 1e-3


def test_samples_that_are_mismatched_stay_so_at_larger_shares_and_in_every_epoch():
    bank, ids = tiny.bank(500), np.arange(500)
    seen = [Mismatched(Paired(), share).rows(bank, ids, epoch, seed=1) for epoch, share in enumerate(SHARES)]
    wrong = [rows != ids for rows in seen]
    for smaller, larger in zip(range(len(SHARES)), range(1, len(SHARES)), strict=False):
        assert (wrong[larger] >= wrong[smaller]).all() and wrong[larger].sum() > wrong[smaller].sum()
        assert (seen[larger] == seen[smaller])[wrong[smaller]].all()  # with the same partner


SHARES = (0, 0.1, 0.25, 0.5, 0.75, 1)


@pytest.mark.parametrize(
    "pairing", [Noisy(Paired()), ConstantTarget(), Permuted(Paired()), PairedFraction(Paired(), 0.5)]
)
def test_wrong_rows_of_a_pairing_that_shows_no_rows_are_refused(pairing):
    with pytest.raises(ValueError, match=f"{type(pairing).__name__} shows something else .*other way round"):
        Mismatched(pairing, 0.5)


def test_wrong_pairs_need_another_row_and_samples_that_fit():
    with pytest.raises(ValueError, match="Mismatched needs a bank of at least 2 rows .* it has 1"):
        Mismatched(Paired(), 0.5).check(tiny.bank(1), np.array([0]))
    with pytest.raises(ValueError, match="sample id 10 is paired with row 10"):
        Mismatched(Paired(), 0.5).check(tiny.bank(ROWS), np.array([10]))
    Mismatched(Paired(), 0.5).check(tiny.bank(ROWS), IDS)


# ---- a fraction of the samples is paired ----
def has_target(share, seed=0, epoch=0, ids=tuple(range(2000)), wrap=lambda pairing: pairing):
    bank = tiny.bank(2000)
    targets = wrap(PairedFraction(Paired(), share)).targets(bank, np.array(ids), epoch, seed)
    missing = targets.isnan()
    assert torch.equal(missing.all(dim=1), missing.any(dim=1)) and targets.dtype == torch.float32
    return ~missing.all(dim=1).numpy(), targets


def test_a_share_of_the_samples_has_its_target_and_the_others_none():
    has, targets = has_target(0.3)
    assert abs(has.sum() - 600) < 85  # 4 standard deviations
    assert torch.equal(targets[has], tiny.bank(2000).lookup(np.flatnonzero(has)))
    assert has_target(0.0)[0].sum() == 0 and has_target(1.0)[0].all()


def test_who_has_a_target_is_fixed_by_id_and_seed_and_stays_at_larger_shares():
    has = has_target(0.3)[0]
    assert (has_target(0.3, epoch=5)[0] == has).all()
    assert (has_target(0.3, ids=np.array([7, 1999, 3]))[0] == has[[7, 1999, 3]]).all()  # in any batch
    assert (has_target(0.3, seed=1)[0] != has).any()
    for smaller, larger in zip(SHARES[:-1], SHARES[1:], strict=True):
        assert (has_target(larger)[0] >= has_target(smaller)[0]).all()
    for other in (Noisy, lambda pairing: Permuted(pairing, np.zeros(2000, dtype=np.int64))):
        assert (has_target(0.3, wrap=other)[0] == has).all()  # what others do with a target leaves none where none is


def test_who_is_mismatched_does_not_depend_on_who_has_a_target():
    bank, ids = tiny.bank(20_000), np.arange(20_000)
    wrong = Mismatched(Paired(), 0.5).rows(bank, ids, 0, seed=0) != ids
    has = ~PairedFraction(Paired(), 0.5).targets(bank, ids, 0, seed=0).isnan().all(dim=1).numpy()
    assert p_value_of_independence(wrong, has) > 1e-3


def test_a_paired_fraction_checks_the_pairing_below_and_takes_any():
    with pytest.raises(ValueError, match="sample id 10 is paired with row 10"):
        PairedFraction(Paired(), 0.5).check(tiny.bank(ROWS), np.array([10]))
    mean = PairedFraction(ConstantTarget(), 0.5).targets(tiny.bank(ROWS), IDS, 0, 0)
    assert {tuple(row.isnan().unique().tolist()) for row in mean} == {(True,), (False,)}


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize("kind", [Mismatched, PairedFraction])
def test_a_share_that_is_none_is_refused(kind, share):
    with pytest.raises(ValueError, match=f"share={share} is no share of the samples"):
        kind(Paired(), share)


# ---- the collator ----
def collate(features):
    return {name: [feature[name] for feature in features] for name in features[0]}


FEATURES = [{"sample_id": torch.tensor(4), "labels": 0}, {"sample_id": 1, "labels": 1}]


def test_the_collator_drops_the_ids_and_adds_the_targets():
    bank, epoch = tiny.bank(ROWS), torch.tensor(3)
    collator = TargetCollator(
        collate, "sample_id", {TARGETS: Teacher(bank, tiny.random_prompt(ROWS))}, seed=5, epoch=epoch
    )

    batch = collator(FEATURES)

    assert list(batch) == ["labels", TARGETS]
    wanted = tiny.random_prompt(ROWS).targets(bank, np.array([4, 1]), epoch=3, seed=5)
    assert torch.equal(batch[TARGETS], wanted)
    assert FEATURES[1] == {"sample_id": 1, "labels": 1}  # left as it was


def test_the_collator_begins_with_epoch_0_where_nobody_counts():
    bank = tiny.bank(ROWS)

    batch = TargetCollator(collate, "sample_id", {TARGETS: Teacher(bank, Shuffled())}, seed=5)(FEATURES)

    assert torch.equal(batch[TARGETS], Shuffled().targets(bank, np.array([4, 1]), epoch=0, seed=5))


def test_the_collator_gives_several_teachers_targets_and_the_ids():
    first, second = tiny.bank(ROWS), tiny.bank(ROWS, dim=3, seed=1)
    teachers = {"teacher_latents_text": Teacher(first), "teacher_latents_audio": Teacher(second, Shuffled())}
    batch = TargetCollator(collate, "sample_id", teachers, with_ids=True, seed=5)(FEATURES)
    assert list(batch) == ["labels", *teachers, SAMPLE_IDS]
    assert batch[SAMPLE_IDS].tolist() == [4, 1]
    assert torch.equal(batch["teacher_latents_text"], first.lookup(np.array([4, 1])))
    assert torch.equal(batch["teacher_latents_audio"], Shuffled().targets(second, np.array([4, 1]), epoch=0, seed=5))


def test_the_collator_without_a_bank_only_drops_the_ids():
    collator = TargetCollator(collate, "sample_id")

    assert collator(FEATURES) == {"labels": [0, 1]}
    assert collator([{"labels": 1}]) == {"labels": [1]}
    assert TargetCollator(list, "sample_id")([(1, 2)]) == [(1, 2)]


def test_the_collator_refuses_samples_without_ids():
    collator = TargetCollator(collate, "sample_id", {TARGETS: Teacher(tiny.bank(ROWS), Paired())})

    with pytest.raises(
        ValueError, match="no column 'sample_id' \\(they have 'pixel_values', 'labels'\\).*with_sample_ids"
    ):
        collator([{"pixel_values": 0, "labels": 1}])
    with pytest.raises(ValueError, match="a training sample is of type tuple, so it has no 'sample_id'"):
        collator([(0, 1)])


# ---- sample ids ----
def test_sample_ids_go_with_their_samples():
    dataset = with_sample_ids(Dataset.from_dict({"text": list("abcdef")}))

    assert dataset["sample_id"][:] == [0, 1, 2, 3, 4, 5]
    moved = dataset.shuffle(seed=0).filter(lambda row: row["text"] not in "be").select([2, 0])
    assert all("abcdef"[row["sample_id"]] == row["text"] for row in moved) and len(moved) == 2
    # Of a dataset that was reordered before, the samples are numbered as they now stand.
    assert with_sample_ids(Dataset.from_dict({"text": list("abc")}).select([2, 0]))[:] == {
        "text": ["c", "a"],
        "sample_id": [0, 1],
    }


def test_sample_ids_have_the_name_asked_for_and_replace_nothing():
    dataset = with_sample_ids(Dataset.from_dict({"text": ["a"]}), column="number")

    assert dataset.column_names == ["text", "number"]
    with pytest.raises(ValueError, match="has a column 'number' already"):
        with_sample_ids(dataset, column="number")


# ---- bad input ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(TypeError, "pairing is a list", "`Noisy(Paired(), ...)`")
def rows_where_a_pairing_belongs(folder):
    yield
    Noisy(LABELS)


@case(TypeError, "pairing is the class Paired", "pass an object", "`Permuted(Paired(), ...)`")
def the_class_of_a_pairing(folder):
    yield
    Permuted(Paired)


@case(ValueError, "share='half'", "a number from 0 to 1")
def a_share_in_words(folder):
    yield
    PairedFraction(Paired(), "half")


@case(ValueError, "num_classes=2.5", "a whole number, at least 1")
def half_a_class(folder):
    yield
    RandomPrompt("class {}", 2.5)


@case(TypeError, "names='cat' is no list of names", "('a cat',)")
def a_single_name_of_a_class(folder):
    yield
    RandomPrompt("a photo of {name}", names="cat")  # would be the classes c, a and t


@case(ValueError, "num_prototypes=nan", "a whole number, at least 1")
def no_number_of_prototypes(folder):
    yield
    RandomPrototypes(num_prototypes=float("nan"))
