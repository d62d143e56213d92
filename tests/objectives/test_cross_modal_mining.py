"""Positives of another modality's space: what is mined of a batch and of the queue, and how the queue moves in a run."""

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import tiny
import tiny_modalities
from docstrings import run_example
from hf_colearn import CoLearningTrainer, ConstantAlpha, CrossModalMining, LearnedAlpha, Paired, SequenceBank, Teacher
from hf_colearn.data.views import TwoViews
from hf_colearn.objectives.objective import CoLearningBatch
from mechanism_cases import SAMPLES, bank, student, vectors


ONE, TWO = torch.log(
    torch.tensor([1 + 2 / np.e, (np.e + 2) / (np.e + 1)])
).tolist()  # of one positive, and of two, at tau 1
BY_IMAGE = (TWO + TWO + ONE) / 3


def mining(**options):
    return CrossModalMining(**{"neighbours": 1, "queue_size": 0, "temperature": 1.0, "decay": 0.9, **options})


def filled(objective, momentum, ids, **targets):
    """The objective with the keys of one batch in its queue."""
    batch = CoLearningBatch(targets=targets, momentum=momentum, sample_ids=torch.tensor(ids))
    objective.on_outputs({}, batch, None, training=True)
    return objective


def test_the_example_is_right():
    run_example(CrossModalMining)


# ---- what is mined ----
def test_a_sample_without_a_target_has_its_own_key_alone():
    # Three keys at right angles. Samples 0 and 1 mine each other, -log((e + 1) / (e + 2)); sample 2: -log(e / (e + 2)).
    text = torch.tensor([[1.0, 0.0], [1.0, 0.1], [torch.nan, torch.nan]])
    batch = CoLearningBatch(targets={"text": text}, momentum={"latents": torch.eye(3)})
    assert mining()({"latents": torch.eye(3)}, batch)["mining"].item() == pytest.approx((TWO + TWO + ONE) / 3)
    assert mining(neighbours=0)({"latents": torch.eye(3)}, batch)["mining"].item() == pytest.approx(ONE)


def test_the_queue_is_mined_and_a_samples_earlier_key_is_neither_mined_nor_a_negative():
    # The queue holds keys of samples 7 (the batch's, elsewhere by now), 8 (alike in text) and 9 (unlike).
    objective = filled(
        mining(queue_size=3),
        {"latents": torch.tensor([[9.0, 9.0, 9.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])},
        [7, 8, 9],
        text=torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]),
    )
    key = torch.tensor([[1.0, 0.0, 0.0]])
    batch = CoLearningBatch(
        targets={"text": torch.tensor([[1.0, 0.0]])}, momentum={"latents": key}, sample_ids=torch.tensor([7])
    )
    assert objective({"latents": key}, batch)["mining"].item() == pytest.approx(TWO)


def test_the_newest_keys_wait():
    objective = mining(queue_size=3)
    for ids in ([0, 1], [2, 3]):
        filled(objective, {"latents": torch.tensor(ids)[:, None].float()}, ids, text=torch.ones(2, 1))
    assert objective.state_dict()["queue"]["sample_ids"].tolist() == [1, 2, 3]
    assert objective.state_dict()["queue"]["latents"].flatten().tolist() == [1, 2, 3]


def test_with_two_views_the_strong_one_is_the_query_and_the_weak_one_the_key():
    z = torch.tensor(
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    )  # each strong view is the other sample's weak one
    text = torch.tensor([[1.0], [2.0], [torch.nan], [torch.nan]])
    views = {"views": torch.tensor([0, 0, 1, 1]), "sample_ids": torch.tensor([4, 5, 4, 5])}
    batch = CoLearningBatch(targets={"text": text}, momentum={"latents": z}, **views)
    # -log(1 / (1 + e))
    assert mining(neighbours=0)({"latents": z}, batch)["mining"].item() == pytest.approx(np.log(1 + np.e))
    objective = mining(queue_size=8)
    objective.on_outputs({}, batch, None, training=True)
    assert objective.state_dict()["queue"]["sample_ids"].tolist() == [4, 5]


def test_a_projector_is_compared_where_the_student_has_one():
    batch = CoLearningBatch(
        targets={"text": torch.ones(2, 1)},
        momentum={"latents": torch.ones(2, 3), "training_outputs": {"mining": torch.eye(2)}},
    )
    outputs = {"latents": torch.ones(2, 3), "training_outputs": {"mining": torch.eye(2)}}
    # -log(e / (e + 1))
    assert mining(neighbours=0)(outputs, batch)["mining"].item() == pytest.approx(np.log(1 + 1 / np.e))


@pytest.mark.parametrize(("by", "expected"), [("audio", 0), ("image", BY_IMAGE), (None, BY_IMAGE)])
def test_every_modality_is_mined_in_the_others_space(by, expected):
    # Of images two samples count, and both of their keys are positives: 0. Of audio all three do, at right angles; the first
    # two mine each other, and the third has no image to mine by.
    image = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    outputs = {"modality_latents": {"image": image, "audio": torch.eye(3)}, "modality_mask": mask}
    found = mining(mine_by=by)(outputs, CoLearningBatch(momentum=outputs))["mining"].item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_no_sample_counts_where_none_has_the_modality():
    z = torch.randn(2, 3, requires_grad=True)
    mask = torch.tensor([[False, True], [False, True]])
    outputs = {"modality_latents": {"image": z, "audio": z}, "modality_mask": mask}
    found = mining(mine_by="audio")(outputs, CoLearningBatch(momentum=outputs))["mining"]
    (slope,) = torch.autograd.grad(found, z)
    assert found.item() == 0 and not slope.any()


# ---- in a run ----
class Queued(TrainerCallback):
    """How many keys wait after every step."""

    def __init__(self, objective):
        self.objective, self.sizes = objective, []

    def on_step_end(self, args, state, control, **kwargs):
        self.sizes.append(len(self.objective.state_dict()["queue"]["sample_ids"]))


def trained(folder, objective, resume=None, alpha=None, **fields):
    options = {"augment": fields.pop("augment", None)}
    known = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **fields}
    queued = Queued(objective)
    trainer = CoLearningTrainer(
        student(training_heads={"mining": 3}),
        tiny.arguments(folder, optim="sgd", learning_rate=0.1, **known),
        train_dataset=vectors(range(4)),
        bank=bank(),
        objective=objective,
        alpha=alpha or ConstantAlpha({"mining": 0.5}),
        callbacks=[queued],
        **options,
    )
    trainer.train(resume_from_checkpoint=resume)
    return queued.sizes, trainer


@pytest.mark.parametrize("augment", [None, TwoViews()])
def test_the_queue_takes_in_every_micro_batch_of_training_once(augment, tmp_path):
    sizes, _ = trained(tmp_path, CrossModalMining(queue_size=10), augment=augment)
    assert sizes == [4, 8, 10]


def test_batches_that_a_learned_alpha_draws_leave_the_queue_as_it_is(tmp_path):
    alpha = LearnedAlpha("mining", interval=1, outer_split=4, solver="identity", hessian="exact", batch_size=4)
    sizes, trainer = trained(tmp_path, CrossModalMining(queue_size=10), alpha=alpha)
    assert sizes == [4, 8, 10]
    assert trainer.alpha.updates == 3 and trainer.alpha.weights()["mining"] != 0.5


def test_the_queue_is_saved_and_a_second_run_begins_without_one(tmp_path):
    whole, parted = CrossModalMining(queue_size=9), CrossModalMining(queue_size=9)
    trained(tmp_path / "whole", whole, save_strategy="steps", save_steps=1)
    sizes, _ = trained(tmp_path / "parted", parted, tmp_path / "whole" / "checkpoint-2")
    assert sizes == [9]
    queues = (objective.state_dict()["queue"] for objective in (whole, parted))
    assert all(torch.equal(*rows) for rows in zip(*(queue.values() for queue in queues), strict=True))
    assert trained(tmp_path / "again", whole, max_steps=1)[0] == [4]


# ---- what does not fit ----
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"mine_by": 3}, TypeError, "mine_by=3"),
        ({"neighbours": -1}, ValueError, "neighbours=-1"),
        ({"queue_size": 0.5}, ValueError, "queue_size=0.5"),
        ({"temperature": 0}, ValueError, "temperature=0"),
        ({"chunk": 0}, ValueError, "chunk=0"),
    ],
)
def test_impossible_options_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        CrossModalMining(**options)


@pytest.mark.parametrize(
    ("objective", "heads", "text"),
    [
        (CrossModalMining(), {}, r"mine_by=None\) finds no other modality \(teachers and modalities: none\)"),
        (CrossModalMining("audio"), {"text": bank()}, r"mine_by='audio'\) finds no .*: 'text'\)"),
        (CrossModalMining(), {"text": bank(), "audio": bank()}, "one of them"),
        (CrossModalMining(), {"text": SequenceBank.from_sequences([np.ones((2, 3))])}, "holds sequences"),
    ],
)
def test_what_cannot_be_mined_by_is_refused(objective, heads, text):
    with pytest.raises(ValueError, match=text):
        objective.check(student(), {name: Teacher(of_name, Paired()) for name, of_name in heads.items()})


def test_a_head_of_sequences_is_refused():
    model = student(dense=True, training_heads={"mining": {"out_features": 3, "reads": "dense_latents"}})
    with pytest.raises(ValueError, match="one vector a sample"):
        CrossModalMining().check(model, {"text": Teacher(bank(), Paired())})


@pytest.mark.parametrize("by", [None, "image"])
def test_modalities_of_a_model_are_known(by):
    CrossModalMining(by).check(tiny_modalities.model(), {})
    with pytest.raises(ValueError, match="'image', 'audio'"):
        CrossModalMining("text").check(tiny_modalities.model(), {})


def test_a_queue_without_sample_ids_is_refused_before_training(tmp_path):
    trainer = CoLearningTrainer(
        tiny_modalities.model(),
        tiny.arguments(tmp_path / "out", max_steps=1),
        train_dataset=tiny_modalities.data(SAMPLES),
        objective=CrossModalMining(),
        alpha=ConstantAlpha({"mining": 0.5}),
    )
    with pytest.raises(ValueError, match="with_sample_ids"):
        trainer.train()
    assert not any((tmp_path / "out").iterdir())
