"""Pairs that cannot be right are refused before training: each sample's row of the bank must be that of its own input."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Audio, ClassLabel, Dataset, Image, concatenate_datasets, interleave_datasets
from PIL import Image as Pictures

import tiny
from hf_colearn import (
    CoLearningTrainer,
    ConstantTarget,
    Mismatched,
    Noisy,
    Paired,
    PairedFraction,
    Permuted,
    RandomPrompt,
    RandomPrototypes,
    Shuffled,
    Teacher,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.data.splits import cut_validation, hide_labels
from hf_colearn.teachers.where_paired import WherePaired
from hf_colearn.training import pair_checks
from hf_colearn.training.pair_checks import pairs_fit
from refusals import Refusals, assert_refused


N = 20
TEXTS = [f"text {i}" for i in range(N)]
NAMES = ["ant", "bee", "cow", "dog"]


def part(start=0, stop=N, **columns):
    """Samples of their own features, texts and labels."""
    features = np.random.default_rng(start).normal(size=(stop - start, 3)).tolist()
    labels = [i % 4 for i in range(start, stop)]
    return Dataset.from_dict({"features": features, "text": TEXTS[start:stop], "labels": labels, **columns})


def bank_of(inputs, **description):
    return TeacherBank.from_latents(np.random.default_rng(0).normal(size=(len(inputs), 2)), inputs, **description)


BANK = bank_of(TEXTS)
WITHOUT_INPUTS = TeacherBank.from_latents(np.random.default_rng(0).normal(size=(N, 2)))


def check(train, pairing=None, bank=BANK):
    pairs_fit(train, "sample_id", {"teacher": Teacher(bank, pairing)})


def without_texts(train):
    return train.remove_columns("text")


def two_numbered():
    return [with_sample_ids(part(0, N // 2)), with_sample_ids(part(N // 2, N))]


def numbered_after_a_shuffle():
    return with_sample_ids(part().shuffle(seed=0))


# ---- what is refused ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_pairs_that_cannot_be_right_are_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


# The id 0 is that of texts 0 and 10; that of 20 samples which do not fit are the 10 of the second half.
@case(
    ValueError,
    "sample id 0 ('text 10') is paired with row 0 of the bank, which was encoded from 'text 0': this one's is row 10",
    "10 of 20 samples that were compared do not fit: were numbered data sets put together",
    "`Paired(bank.rows_of(train['text']))`",
)
def numbered_data_sets_put_together(folder):
    train = concatenate_datasets(two_numbered())
    yield
    check(train)


@case(
    ValueError, "sample id 0 ('text 10')", "numbered data sets put together", "with_sample_ids(train.remove_columns("
)
def numbered_data_sets_interleaved(folder):
    train = interleave_datasets(two_numbered())
    yield
    check(train)


@case(ValueError, "sample id 0 ('text 10')", "no row is encoded from this one", "10 of 20 samples")
def a_bank_of_the_first_of_two_numbered_data_sets(folder):
    train = concatenate_datasets(two_numbered())
    yield
    check(train, bank=bank_of(TEXTS[: N // 2]))


@case(ValueError, "this one's is row", "ids made after a shuffle", "`Mismatched(Paired(), 1.0)`")
def ids_made_after_a_shuffle(folder):
    train = numbered_after_a_shuffle()
    yield
    check(train)


@case(ValueError, "this one's is row", "ids made after a shuffle", "`Paired(bank.rows_of(train['text']))`")
def training_on_ids_made_after_a_shuffle(folder):
    data = tiny.digits(N).remove_columns("sample_id").add_column("text", TEXTS)
    fields = {"train_dataset": with_sample_ids(data.shuffle(seed=0)), "bank": BANK}
    trainer = CoLearningTrainer(tiny.student(latent_dim=2), tiny.arguments(folder / "out", alpha=0.5), **fields)
    yield
    trainer.train()


# Of the labels 0 to 3 in turn the last one is left out, so sample id 3 is text 4.
@case(ValueError, "sample id 3 ('text 4') is paired with row 3", "'text 3'", "this one's is row 4", "12 of 15 samples")
def ids_made_after_a_filter(folder):
    train = with_sample_ids(part().select([i for i in range(N) if i % 4 != 3]))
    yield
    check(train)


@case(ValueError, "this one's is row", "do not fit", "bank of another order or split")
def ids_made_after_a_split(folder):
    train = with_sample_ids(part().train_test_split(0.2, seed=0)["train"])
    yield
    check(train)


@case(ValueError, "row 0 of the bank, which was encoded from 'text 19'", "this one's is row 19", "20 of 20 samples")
def a_bank_of_another_order(folder):
    train = with_sample_ids(part())
    yield
    check(train, bank=bank_of(TEXTS[::-1]))


@case(ValueError, "sample id 0 ('text 0') is paired with row 1", "`Paired(bank.rows_of(train['text']))`")
def rows_that_are_one_off(folder):
    train = with_sample_ids(part())
    yield
    check(train, Noisy(PairedFraction(WherePaired(Paired([*range(1, N), 0]), np.ones(N)), 0.5)))


# NAMES backwards: label 0 is "dog", whose row is 3.
@case(ValueError, "('dog') is paired with row 0 of the bank, which was encoded from 'ant': this one's is row 3")
def names_of_classes_in_another_order(folder):
    train = with_sample_ids(part().cast_column("labels", ClassLabel(names=NAMES[::-1])))
    yield
    check(without_texts(train), Paired(train["labels"]), bank_of(NAMES))


@case(ValueError, "the teacher 'speech': sample id 0", "this one's is row 19")
def the_second_of_two_teachers(folder):
    train = with_sample_ids(part())
    yield
    pairs_fit(train, "sample_id", {"text": Teacher(BANK), "speech": Teacher(bank_of(TEXTS[::-1]))})


# 10 ids for 20 samples leave 10 of 20 rows over.
@case(
    ValueError,
    "20 training samples have 10 ids (id 0 is that of 2 that differ), and 10 of 20 rows of the bank are left over",
    "`with_sample_ids(train.remove_columns('sample_id'))`",
    "`bank.rows_of(inputs)`",
)
def numbered_data_sets_without_texts(folder):
    train = without_texts(concatenate_datasets(two_numbered())).shuffle(seed=0)
    yield
    check(train, bank=WITHOUT_INPUTS)


@case(ValueError, "10 of 20 entries of `Paired(rows)` are left over", "with one entry an id")
def numbered_data_sets_paired_by_their_labels(folder):
    train = without_texts(concatenate_datasets(two_numbered()))
    yield
    check(train, Paired(train["labels"]), TeacherBank.from_latents(np.eye(4)))


def pictures(reverse=False):
    """Four pictures as files in memory, and a bank of them as they are decoded."""
    cells = []
    for number in range(4):
        Pictures.new("L", (4, 4), 60 * number).save(file := io.BytesIO(), "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    train = with_sample_ids(Dataset.from_dict({"image": cells}).cast_column("image", Image()))
    inputs = train["image"][:]
    return train, bank_of(inputs[::-1] if reverse else inputs, modality="vision")


@case(
    ValueError,
    "sample id 0 is paired with row 0",
    "encoded from another one: this one's is row 3",
    "rows_of(train['image'])",
)
def pictures_in_another_order(folder):
    train, bank = pictures(reverse=True)
    yield
    check(train, bank=bank)


@case(ValueError, "this one's is row 3", "rows_of(train['clip'])")
def clips_in_another_order(folder):
    cells = [{"bytes": bytes([number]) * 8, "path": None} for number in range(4)]
    train = with_sample_ids(Dataset.from_dict({"clip": cells}).cast_column("clip", Audio(decode=False)))
    yield
    check(train, bank=bank_of(cells[::-1], modality="audio"))


# ---- what is not ----
def grown():
    """Two renderings of every text, which share its id."""
    twice = lambda batch: {name: [cell for cell in cells for _ in range(2)] for name, cells in batch.items()}  # noqa: E731
    more = with_sample_ids(part()).map(twice, batched=True)
    return more.remove_columns("features").add_column("features", np.random.default_rng(0).normal(size=2 * N).tolist())


RIGHT = {
    "shuffled, cut and hidden after it was numbered": lambda: (
        hide_labels(cut_validation(with_sample_ids(part()), 8, 0, "labels")[0].shuffle(seed=0), 1, seed=0),
    ),
    "split after it was numbered": lambda: (with_sample_ids(part()).train_test_split(0.2, seed=0)["train"],),
    "rows found by their texts": lambda: (
        train := numbered_after_a_shuffle(),
        Paired(BANK.rows_of(train["text"])),
    ),
    "two renderings of a text": lambda: (grown(),),
    "two renderings of a text that is not there": lambda: (without_texts(grown()), None, WITHOUT_INPUTS),
    "samples drawn twice": lambda: (
        without_texts(with_sample_ids(part()).select([*range(N // 2)] * 2)),
        None,
        WITHOUT_INPUTS,
    ),
    "texts of another kind": lambda: (with_sample_ids(part(text=[f"file {i}.png" for i in range(N)])),),
    "a few texts that are the same by chance": lambda: (
        with_sample_ids(part(text=["text 3", "text 4", *"abcdefghijklmnopqr"])),
    ),
    "texts that are not there": lambda: (with_sample_ids(part(text=[None, None, *TEXTS[2:]])),),
    "a transform": lambda: (with_sample_ids(part()).with_transform(lambda batch: {"x": batch["text"]}),),
    "samples without a partner, whose row is any": lambda: (
        with_sample_ids(part()),
        WherePaired(Paired([0, 0, *range(2, N)]), np.arange(N) != 1),
    ),
    "no ids": lambda: (part(),),
    "names of classes": lambda: (
        train := with_sample_ids(part().cast_column("labels", ClassLabel(names=NAMES))),
        Paired(train["labels"]),
        bank_of(NAMES),
    ),
    "pictures": lambda: (lambda train, bank: (train, None, bank))(*pictures()),
    "pictures that were made smaller": lambda: (
        lambda train, bank: (
            train.map(lambda row: {"image": row["image"].resize((2, 2))}),
            None,
            bank_of(train["image"][:], modality="vision", input_column="image"),
        )
    )(*pictures()),
    "a stream": lambda: (numbered_after_a_shuffle().to_iterable_dataset(),),
    **{
        type(pairing).__name__: partial(lambda pairing: (numbered_after_a_shuffle(), pairing), pairing)
        for pairing in (
            Shuffled(),
            Mismatched(Paired(), 1.0),
            Permuted(Paired()),
            ConstantTarget(),
            RandomPrototypes(num_prototypes=3),
            RandomPrompt("{}", N),
        )
    },
}


@pytest.fixture
def warned(monkeypatch):
    messages = []
    monkeypatch.setattr(pair_checks.logger, "warning", messages.append)
    return messages


@pytest.mark.parametrize("name", RIGHT)
def test_right_pairs_pass_without_a_warning(name, warned):
    check(*RIGHT[name]())

    assert warned == []


def test_a_bank_of_ones_own_class_is_not_looked_into():
    class Own:
        dim = 2

        def lookup(self, rows):
            return torch.zeros(len(rows), 2)

    check(numbered_after_a_shuffle(), bank=Own())


# ---- what is only likely ----
def test_the_bank_of_another_splits_column_is_warned_of(warned):
    bank = bank_of([f"other {i}" for i in range(N)], input_column="text")

    check(with_sample_ids(part()), bank=bank)

    (message,) = warned
    assert "0 of 20 inputs in column 'text' of the training set" in message and "the bank of another split?" in message


def test_texts_that_were_changed_after_encoding_are_warned_of(warned):
    # Drawn twice, and the changed text is by chance another row's: the pairs are right.
    changed = with_sample_ids(part(text=["new", "newer", "text 3", *TEXTS[3:]])).select([*range(N)] * 2)
    check(changed)

    assert [message.split(":")[0] for message in warned] == [
        "6 of 40 inputs in column 'text' of the training set are not what their rows of the bank were encoded from"
    ]


def test_repeated_ids_that_leave_more_rows_over_are_warned_of(warned):
    bank = TeacherBank.from_latents(np.random.default_rng(0).normal(size=(N + 5, 2)))

    check(without_texts(concatenate_datasets(two_numbered())), bank=bank)

    (message,) = warned
    assert "20 training samples have 10 ids" in message and "15 of 25 rows of the bank are left over" in message


def test_some_samples_of_a_large_training_set_are_compared():
    texts = [f"text {i}" for i in range(20_000)]
    train = with_sample_ids(Dataset.from_dict({"text": texts[::-1]}))

    with pytest.raises(ValueError, match="256 of 256 samples that were compared do not fit"):
        check(train, bank=bank_of(texts))
