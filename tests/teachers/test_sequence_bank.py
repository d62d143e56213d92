"""Banks of sequences: rows of their own lengths, what pads them, and the pairings, controls and scales that know them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_teachers
from docstrings import run_example
from hf_colearn import (
    ConstantTarget,
    Mismatched,
    Noisy,
    Paired,
    PairedFraction,
    Permuted,
    RandomPrototypes,
    SequenceBank,
    Shuffled,
    Teacher,
    TeacherBank,
)
from hf_colearn.teachers.null_controls import gaussian_sequences
from hf_colearn.teachers.scaling import scaled_teachers
from hf_colearn.teachers.where_paired import WherePaired
from refusals import Refusals, assert_refused


NAN = float("nan")
IDS = np.arange(3)
FRAMES = [[[1.0, 10.0], [3.0, 30.0]], [[5.0, 50.0]], [[7.0, 70.0], [9.0, 90.0], [11.0, 110.0]]]  # 2, 1 and 3 frames


def latents(**kwargs):
    return SequenceBank.from_sequences([np.array(frames) for frames in FRAMES], **kwargs)


def ids():
    return SequenceBank.from_ids([[4, 0], [2], [1, -100, 3]])


def same(targets, expected):
    torch.testing.assert_close(targets, torch.tensor(expected), equal_nan=True)


# ---- rows ----
def test_rows_are_padded_to_the_longest_of_the_look_up():
    bank = latents()

    same(bank.lookup([1, 0]), [[[5.0, 50.0], [NAN, NAN]], FRAMES[0]])
    same(bank.lookup([1]), [[[5.0, 50.0]]])
    assert bank.lookup([]).shape == (0, 0, 2)
    assert (len(bank), bank.dim, bank.num_ids, bank.lengths.tolist()) == (3, 2, None, [2, 1, 3])


def test_ids_are_integers_padded_with_no_id_and_may_have_holes():
    bank = ids()

    same(bank.lookup([2, 1]), [[1, -100, 3], [2, -100, -100]])
    assert (len(bank), bank.dim, bank.num_ids) == (3, None, 5)
    assert SequenceBank.from_ids([[1]], num_ids=30522).num_ids == 30522


@pytest.mark.parametrize("make", [latents, ids, lambda: latents(inputs=["a", "b", "c"]).scaled("l2")])
def test_a_saved_bank_comes_back_from_the_disk_and_in_a_worker(make, tmp_path):
    bank = make()

    bank.save(tmp_path)
    bank.save(tmp_path)  # over itself
    loaded = SequenceBank.load(tmp_path)

    for again in (loaded, pickle.loads(pickle.dumps(loaded)), pickle.loads(pickle.dumps(bank))):
        torch.testing.assert_close(again.lookup([2, 0]), bank.lookup([2, 0]), equal_nan=True, rtol=0, atol=0)
        assert (again.fingerprint, again.num_ids, again.scaling) == (bank.fingerprint, bank.num_ids, bank.scaling)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.json", "sequences.arrow"]


def test_a_loaded_bank_is_mapped_and_not_read(tmp_path):
    latents().save(tmp_path)

    loaded = SequenceBank.load(tmp_path)

    assert [file["filename"] for file in loaded._data.cache_files] == [str(tmp_path / "sequences.arrow")]


def test_rows_are_found_by_their_inputs():
    assert latents(inputs=["a", "b", "c"]).rows_of(["c", "a"]).tolist() == [2, 0]


def test_the_fingerprint_tells_where_a_row_ends():
    assert SequenceBank.from_ids([[1, 2], [3]]).fingerprint != SequenceBank.from_ids([[1], [2, 3]]).fingerprint


# ---- encoding ----
def test_frames_are_the_last_hidden_states_without_padding(tmp_path):
    encoder, texts = tiny_teachers.bert(), ["a dog", "an elephant in a boat", "a dog"]

    bank = SequenceBank.encode(encoder, texts, tmp_path)

    for row, text in enumerate(texts):
        tokens = encoder.processor(text, return_tensors="pt")
        expected = encoder.model(**tokens).last_hidden_state[0]
        torch.testing.assert_close(bank.lookup([row])[0], expected, rtol=1e-4, atol=1e-5)
    again = SequenceBank.encode(encoder, texts, tmp_path)
    assert again.fingerprint == bank.fingerprint and len(list(tmp_path.iterdir())) == 1
    assert again.rows_of(["an elephant in a boat"]).tolist() == [1]


def test_whisper_gives_the_frames_of_a_clip_and_not_of_its_window(tmp_path):
    bank = SequenceBank.encode(tiny_teachers.whisper(), [tiny_teachers.sound(0.2), tiny_teachers.sound(0.4)], tmp_path)

    assert bank.lengths.tolist() == [10, 20]  # 0.2 s and 0.4 s at 16 kHz; a hop of 160 samples, then a stride of 2


# ---- scales ----
def test_standardized_are_the_frames_of_the_training_rows():
    # Rows 0 and 1 have the values 1, 3, 5: mean 3, deviation sqrt(8 / 3). The second dimension is ten times the first.
    bank = latents().scaled("standardized", rows=[0, 1, 1])

    step = 2 / (8 / 3) ** 0.5
    same(bank.lookup([0, 1])[..., 0], [[-step, 0.0], [step, NAN]])
    torch.testing.assert_close(bank.lookup([2])[..., 0], bank.lookup([2])[..., 1])


def test_of_length_one_is_every_frame():
    torch.testing.assert_close(latents().scaled("l2").lookup([2]).norm(dim=-1), torch.ones(1, 3))


def test_moments_are_over_frames():
    mean = (1 + 3 + 5 + 7 + 9 + 11) / 6
    torch.testing.assert_close(latents().mean(), torch.tensor([mean, 10 * mean]))
    torch.testing.assert_close(latents().std()[0], torch.tensor(np.std([1, 3, 5, 7, 9, 11]), dtype=torch.float32))


def test_the_trainers_scale_leaves_ids_alone():
    teachers = {"vokens": Teacher(ids()), "speech": Teacher(latents(), Shuffled())}

    scaled = scaled_teachers(teachers, IDS, "standardized", 0)

    assert scaled["vokens"] is teachers["vokens"]
    torch.testing.assert_close(scaled["speech"].bank.mean(), torch.zeros(2), rtol=0, atol=1e-6)


# ---- pairings and null controls ----
@pytest.mark.parametrize("pairing", [Shuffled(), Mismatched(Paired(), 1.0)])
@pytest.mark.parametrize("make", [latents, ids])
def test_pairings_choose_whole_rows_and_none_its_own(make, pairing):
    bank = make()
    rows = pairing.rows(bank, IDS, 0, 0)

    targets = Teacher(bank, pairing).targets(IDS, 0, 0)

    torch.testing.assert_close(targets, bank.lookup(rows), equal_nan=True)
    assert (rows != IDS).all()


@pytest.mark.parametrize("make", [latents, ids])
def test_samples_without_a_partner_have_none_throughout(make):
    where = Teacher(make(), WherePaired(Paired(), np.array([True, False, True])))

    targets = where.targets(IDS, 0, 0)

    is_none = targets.isnan().all(-1) if targets.is_floating_point() else targets == -100
    assert is_none[1].all() and not is_none[0].all() and not is_none[2].all()
    few = PairedFraction(Paired(), 0.0).targets(make(), IDS, 0, 0)
    assert few.isnan().all() if few.is_floating_point() else (few == -100).all()


def test_noise_on_a_frame_does_not_depend_on_the_padding():
    noisy = Noisy(Paired(), 1.0)

    alone, together = (noisy.targets(latents(), sample_ids, 0, 0) for sample_ids in (IDS[:1], IDS))

    torch.testing.assert_close(together[:1, :2], alone)
    assert together[0, 2].isnan().all() and not torch.equal(alone, latents().lookup([0]))


def test_permuted_permutes_every_frame_of_a_sample_alike():
    targets = Teacher(latents(), Permuted(Paired(), [0, -100, 3])).targets(IDS, 0, seed=0)

    for sample in (0, 2):
        plain = latents().lookup([sample])[0]
        found = targets[sample, : len(plain)]
        assert torch.equal(found, plain) or torch.equal(found, plain.flip(-1))
    assert targets[1].isnan().all()  # no label, no target


def test_gaussian_sequences_have_the_lengths_and_the_moments():
    rng = np.random.default_rng(0)
    bank = SequenceBank.from_sequences([5 + 3 * rng.normal(size=(length, 2)) for length in (900, 1100)])

    noise = gaussian_sequences(bank)

    assert noise.lengths.tolist() == [900, 1100]
    torch.testing.assert_close(noise.mean(), bank.mean(), rtol=0, atol=0.3)
    torch.testing.assert_close(noise.std(), bank.std(), rtol=0.1, atol=0)
    # Frames of noise have nothing in common with the bank's: a correlation of 2000 pairs is below 0.1.
    x, t = (each.lookup([1])[0, :, 0].numpy() for each in (noise, bank))
    assert abs(np.corrcoef(x, t)[0, 1]) < 0.1


@pytest.mark.parametrize("documented", [SequenceBank, gaussian_sequences])
def test_the_examples_run(documented):
    run_example(documented)


# ---- refusals ----
refusals = Refusals()


@refusals.case(ValueError, "sequence 1", "shape (0, 2)", "WherePaired")
def an_empty_sequence(folder):
    yield
    SequenceBank.from_sequences([np.ones((3, 2)), np.ones((0, 2))])


@refusals.case(ValueError, "sequence 1", "shape (2, 3)", "one width")
def sequences_of_two_widths(folder):
    yield
    SequenceBank.from_sequences([np.ones((3, 2)), np.ones((2, 3))])


@refusals.case(ValueError, "sequence 0", "int64", "from_ids")
def ids_that_are_passed_as_latents(folder):
    yield
    SequenceBank.from_sequences([np.array([1, 2])])


@refusals.case(ValueError, "sequence 0", "NaN")
def a_frame_that_is_not_finite(folder):
    yield
    SequenceBank.from_sequences([np.array([[1.0], [np.nan]])])


@refusals.case(ValueError, "sequence 1", "-3", "-100")
def a_negative_id(folder):
    yield
    SequenceBank.from_ids([[1], [-3]])


@refusals.case(ValueError, "num_ids=3", "id 3")
def an_id_beyond_their_number(folder):
    yield
    SequenceBank.from_ids([[1, 3]], num_ids=3)


@refusals.case(ValueError, "empty")
def no_sequence(folder):
    yield
    SequenceBank.from_ids([])


@refusals.case(IndexError, "row 3", "0 to 2")
def a_row_that_is_not_there(folder):
    yield
    ids().lookup([3])


@refusals.case(ValueError, "ids", "standardized")
def a_scale_of_ids(folder):
    yield
    ids().scaled("standardized")


@refusals.case(ValueError, "2 inputs for 3 sequences")
def inputs_of_another_number(folder):
    yield
    latents(inputs=["a", "b"])


@refusals.case(ValueError, "sequences.arrow", "bytes", "truncated")
def a_truncated_file(folder):
    latents().save(folder / "banks")
    data = (folder / "banks" / "sequences.arrow").read_bytes()
    (folder / "banks" / "sequences.arrow").write_bytes(data[:-100])
    yield
    SequenceBank.load(folder / "banks")


@refusals.case(ValueError, "sequences.arrow", "damaged", "anew")
def a_file_of_something_else(folder):
    latents().save(folder / "banks")
    data = (folder / "banks" / "sequences.arrow").read_bytes()
    (folder / "banks" / "sequences.arrow").write_bytes(b"x" * len(data))
    yield
    SequenceBank.load(folder / "banks")


@refusals.case(ValueError, "it lists no sequences.arrow")
def a_bank_of_one_vector_a_row(folder):
    TeacherBank.from_latents(np.eye(2)).save(folder / "banks")
    yield
    SequenceBank.load(folder / "banks")


@refusals.case(ValueError, "it lists no latents.arrow")
def a_bank_of_sequences_where_one_vector_a_row_is_expected(folder):
    ids().save(folder / "banks")
    yield
    TeacherBank.load(folder / "banks")


@refusals.case(ValueError, "format 0 instead of 1")
def a_bank_of_another_version(folder):
    ids().save(folder / "banks")
    path = Path(folder / "banks" / "bank.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    yield
    SequenceBank.load(folder / "banks")


@refusals.case(ValueError, "ConstantTarget", "Shuffled()", "gaussian_sequences")
def a_constant_target_for_sequences(folder):
    yield
    Teacher(latents(), ConstantTarget()).check(IDS)


@refusals.case(ValueError, "RandomPrototypes", "Shuffled()", "gaussian_sequences")
def random_prototypes_for_sequences(folder):
    yield
    Teacher(ids(), RandomPrototypes([0, 1, 0])).check(IDS)


@refusals.case(ValueError, "Permuted", "ids")
def permuted_dimensions_of_ids(folder):
    yield
    Teacher(ids(), Permuted(Paired())).check(IDS)


@refusals.case(ValueError, "Noisy", "ids")
def noise_on_ids(folder):
    yield
    Teacher(ids(), Noisy(Paired())).check(IDS)


@refusals.case(ValueError, "ids", "moments")
def gaussian_ids(folder):
    yield
    gaussian_sequences(ids())


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
