"""Training on latents that come with the data equals training on a bank of them; what cannot be is refused before training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, IterableDataset, List, Value

import tiny
from hf_colearn import (
    CoLearningTrainer,
    ConstantAlpha,
    LatentColumn,
    Noisy,
    Paired,
    Shuffled,
    Teacher,
    TeacherBank,
)
from hf_colearn.objectives.dense_matching import DenseMatching
from hf_colearn.teachers.where_paired import WherePaired
from refusals import Refusals, assert_refused
from scripts import stream_shares
from scripts.stream_shares import DIM, flat, sample, student


COUNT = 14
ROWS = [{**sample(i), "sample_id": i} for i in range(COUNT)]  # of which some have no label, and some no latent
FEATURES = Features(
    {
        "features": List(Value("float32")),
        "labels": Value("int64"),
        "sample_id": Value("int64"),
        "latents": List(Value("float32"), length=DIM),
    }
)


def dataset(rows=ROWS):
    return Dataset.from_list(rows, features=FEATURES)


def of_bank(pairing=None):
    """The same latents as a bank, where something stands in the rows of samples without one."""
    latents = [np.full(DIM, 9.0) if row["latents"] is None else row["latents"] for row in ROWS]
    has_one = np.array([row["latents"] is not None for row in ROWS])
    return Teacher(TeacherBank.from_latents(np.array(latents)), WherePaired(pairing or Paired(), has_one))


def of_column(pairing=None):
    return Teacher(LatentColumn("latents", dim=DIM), pairing)


def train(data, teachers, folder="out", **kwargs):
    model = student()
    fixed = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "latent_scaling": "none"}
    several = {"teachers": teachers} if len(teachers) > 1 else vars(teachers["teacher"])
    weights = {"latent" if name == "teacher" else f"latent_{name}": 0.3 for name in teachers}
    trainer = CoLearningTrainer(
        model,
        tiny.arguments(folder, **{"max_steps": 5, **fixed, **kwargs}),
        train_dataset=data,
        alpha=ConstantAlpha(weights),
        **several,
    )
    trainer.train()
    logs = [{k: v for k, v in log.items() if k.startswith(("loss", "grad"))} for log in trainer.state.log_history[:-1]]
    return {"weights": flat(model), "logs": logs, "trainer": trainer}


@pytest.mark.parametrize("is_stream", [False, True], ids=["map-style", "stream"])
@pytest.mark.parametrize("fmt", [None, "torch"])
@pytest.mark.parametrize("case", ["one teacher", "two teachers", "l2", "noisy"])
def test_training_from_a_column_is_training_from_a_bank_to_the_last_bit(case, fmt, is_stream):
    pairing = Noisy(Paired(), 0.1) if case == "noisy" else None
    scaling = "l2" if case == "l2" else "none"
    data = dataset().with_format(fmt)
    if is_stream:
        data = data.to_iterable_dataset(num_shards=2).with_format(fmt)
    if case == "two teachers":
        column = {"text": of_column(), "audio": of_bank()}
        bank = {"text": of_bank(), "audio": of_bank()}
    else:
        column, bank = {"teacher": of_column(pairing)}, {"teacher": of_bank(pairing)}

    ours, theirs = (train(data, teachers, latent_scaling=scaling) for teachers in (column, bank))
    assert torch.equal(ours["weights"], theirs["weights"])
    assert ours["logs"] == theirs["logs"] and len(ours["logs"]) == 5


def test_a_data_set_that_is_no_stream_is_standardized_over_its_rows():
    trainer = train(dataset(), {"teacher": of_column()}, latent_scaling="standardized")["trainer"]
    latents = np.array([row["latents"] for row in ROWS if row["latents"] is not None])
    own = trainer.bank.own(np.arange(COUNT), ROWS)
    expected = (latents - latents.mean(0)) / latents.std(0)
    np.testing.assert_allclose(own.lookup(own._sample_ids)[own.have_latent], expected, rtol=1e-4, atol=1e-6)


def test_record_and_evaluation_work_without_sample_ids(tmp_path):
    data = dataset().remove_columns("sample_id")
    teacher = Teacher(LatentColumn("latents", dim=DIM, teacher="a language model"))
    trainer = train(data, {"teacher": teacher}, tmp_path)["trainer"]
    assert trainer.evaluate(data)["eval_loss"] > 0
    assert trainer.predict(data).predictions.shape == (COUNT, 5)
    trainer.save_model(tmp_path / "student")
    record = (tmp_path / "student" / "colearning.json").read_text()
    assert "a language model" in record and trainer.bank.fingerprint in record


# ---- resuming ----
def test_a_run_that_was_stopped_at_an_epochs_end_goes_on_with_the_next(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = {
        "epochs": 99,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "gradient_accumulation_steps": 2,
    }
    # 10 samples by two: 5 batches, and a sixth of which nothing counts; 3 steps an epoch.
    whole = stream_shares.run(stream_shares.stream([6, 4]), "out", per_device_train_batch_size=2, **options)
    assert [[len(step) for step in epoch] for epoch in whole["epochs"]] == [[2, 2, 2], [2, 2, 2]]
    assert [sorted(sum(sum(epoch, []), [])) for epoch in whole["epochs"]] == [list(range(10))] * 2
    again = stream_shares.run(
        stream_shares.stream([6, 4]), "out", resume="out/checkpoint-3", per_device_train_batch_size=2, **options
    )
    assert [step for epoch in again["epochs"] for step in epoch] == whole["epochs"][1]
    assert again["losses"] == whole["losses"] and torch.equal(again["weights"], whole["weights"])


@pytest.mark.parametrize("why", ["state", "no state", "other workers", "shuffle buffer"])
def test_a_stream_whose_state_does_not_fit_is_read_again_which_is_said(why, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def stream(log):
        whole = stream_shares.stream([4, 4, 4], log)
        return whole.shuffle(seed=1, buffer_size=4) if why == "shuffle buffer" else whole

    options = {"epochs": 99, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    whole = stream_shares.run(stream("whole"), "out", **options)
    state = Path("out/checkpoint-2/stream_state_0.pt")
    assert state.is_file() == (why != "shuffle buffer")
    if why == "no state":
        state.unlink()
    said = []
    monkeypatch.setattr("hf_colearn.training.share_loader.logger.warning", said.append)
    workers = {"dataloader_num_workers": 1} if why == "other workers" else {}
    again = stream_shares.run(stream("again"), "out", resume="out/checkpoint-2", **options, **workers)

    steps = [step for epoch in whole["epochs"] for step in epoch]
    assert [step for epoch in again["epochs"] for step in epoch] == steps[2:]
    assert again["losses"] == whole["losses"]
    read = Path("again-0").read_text().split()
    # 2 of 3 batches were done, and the third is the last shard; another epoch comes after it.
    assert len(read) == {"state": 20, "no state": 24}.get(why, len(read))
    words = {
        "state": None,
        "no state": "the checkpoint has no states of the stream for these processes",
        "other workers": "it was read by 1 processes with 0 workers each, now by 1 with 1",
        "shuffle buffer": "it has a shuffle buffer",
    }[why]
    assert (not said) if words is None else words in said[0]


# ---- refusals ----
refusals = Refusals()


def attempt(folder, data, teacher, **kwargs):
    train(data, {"teacher": teacher}, folder / "out", **kwargs)


@refusals.case(
    ValueError, "of column 'latents' are not known", "LatentColumn.of(folder)", "mean=", "latent_scaling='l2'"
)
def a_stream_is_standardized_without_moments(folder):
    yield
    attempt(folder, dataset().to_iterable_dataset(), of_column(), latent_scaling="standardized")


@refusals.case(ValueError, "Shuffled shows samples other latents than their own", "a bank")
def a_stream_is_shuffled(folder):
    yield
    attempt(folder, dataset().to_iterable_dataset(), of_column(Shuffled()))


@refusals.case(ValueError, "no column 'latents' (they have 'features', 'labels', 'sample_id')", "hf-colearn encode")
def a_stream_has_no_latents(folder):
    yield
    attempt(folder, dataset().remove_columns("latents").to_iterable_dataset(), of_column())


@refusals.case(ValueError, f"column 'latents' has {DIM} numbers in a row, and dim=7", f"dim={DIM}")
def latents_have_another_width(folder):
    yield
    model = LatentColumn("latents", dim=7)
    CoLearningTrainer(
        stream_shares.student(latent_dim=7),
        tiny.arguments(folder / "out", latent_scaling="none"),
        train_dataset=dataset(),
        bank=model,
    ).train()


@refusals.case(ValueError, "the stream has no column 'sample_id'", "number the samples")
def noise_needs_sample_ids(folder):
    yield
    data = dataset().remove_columns("sample_id").to_iterable_dataset()
    attempt(folder, data, of_column(Noisy(Paired(), 0.1)))


@refusals.case(ValueError, "and 2 readers (processes times workers) would each count", "`with_sample_ids(dataset)")
def several_workers_count_the_samples_of_a_stream(folder):
    yield
    data = dataset().remove_columns("sample_id").to_iterable_dataset(num_shards=2)
    data = data.map(lambda row, i: {**row, "sample_id": i}, with_indices=True)
    attempt(folder, data, of_column(Noisy(Paired(), 0.1)), dataloader_num_workers=2, latent_scaling="none")


@refusals.case(ValueError, "is a LatentColumn with one vector a row", "sequences")
def an_objective_of_sequences_is_given_a_column(folder):
    yield
    CoLearningTrainer(
        student(),
        tiny.arguments(folder / "out"),
        train_dataset=dataset(),
        bank=of_column().bank,
        objective=DenseMatching(),
    )


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_what_else_counts_the_rows_of_a_stream_is_no_concern(tmp_path):
    data = dataset().to_iterable_dataset(num_shards=2).map(lambda row, i: {**row, "row": i}, with_indices=True)
    teacher, options = of_column(Noisy(Paired(), 0.1)), {"dataloader_num_workers": 2, "latent_scaling": "none"}
    attempt(tmp_path, data, teacher, max_steps=1, **options)


def test_a_stream_that_does_not_know_its_columns_is_refused_at_its_first_batch():
    data = IterableDataset.from_generator(lambda: ({k: v for k, v in row.items() if k != "latents"} for row in ROWS))
    with pytest.raises(ValueError, match="no column 'latents' .they have 'features', 'labels'"):
        train(data, {"teacher": of_column()})
