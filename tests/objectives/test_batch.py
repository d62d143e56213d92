"""What an objective is told of a batch, and the examples of the public contracts."""

import pytest
import torch

import hf_colearn
from docstrings import run_example
from hf_colearn import CoLearningBatch


NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([0, -100, 3]), [True, False, True]),  # classes
        (torch.tensor([0.5, NAN]), [True, False]),  # numbers
        (torch.tensor([[0.0, 1.0], [NAN, NAN]]), [True, False]),  # soft labels
        (
            torch.tensor([[1, 0], [-100, 1], [-100, -100]]),
            [True, True, False],
        ),  # several labels: one that counts is enough
    ],
)
def test_a_sample_without_a_label_is_told_by_its_label(labels, expected):
    assert CoLearningBatch(labels).labelled.tolist() == expected


def test_a_target_that_is_nan_throughout_is_none_in_latents_and_in_sequences():
    latents = torch.tensor([[1.0, NAN], [NAN, NAN]])
    sequences = torch.full((2, 3, 4), NAN)
    sequences[1, 0] = 0.0
    batch = CoLearningBatch(targets={"text": latents, "frames": sequences})
    assert {name: paired.tolist() for name, paired in batch.paired.items()} == {
        "text": [True, False],
        "frames": [False, True],
    }


def test_what_is_not_the_models_is_taken_out_of_a_batch():
    inputs = {
        "pixel_values": torch.zeros(2, 1),
        "labels": torch.tensor([1, 0]),
        "sample_ids": torch.tensor([7, 9]),
        "teacher_latents": torch.zeros(2, 3),
        "teacher_latents_audio": torch.ones(2, 5),
    }
    batch = CoLearningBatch.taken_from(inputs, epoch=4)
    assert list(inputs) == ["pixel_values", "labels"]
    assert {name: tuple(t.shape) for name, t in batch.targets.items()} == {"teacher": (2, 3), "audio": (2, 5)}
    assert (batch.sample_ids.tolist(), batch.labels.tolist(), batch.epoch) == ([7, 9], [1, 0], 4)
    with pytest.raises(ValueError, match=r"targets of \['teacher', 'audio'\], where one teacher is expected"):
        _ = batch.target
    with pytest.raises(ValueError, match="targets of no teacher"):
        _ = CoLearningBatch().target


def test_without_labels_nothing_is_said_of_them():
    assert CoLearningBatch().labelled is None and CoLearningBatch().weight(torch.ones(2, dtype=torch.bool)) == 1


@pytest.mark.parametrize("name", ["Objective", "CoLearningBatch", "Pairing", "Alpha", "CoLearningCallback", "Teacher"])
def test_the_example_of_a_contract_runs(name):
    run_example(getattr(hf_colearn, name))


@pytest.mark.parametrize(
    "name", ["LatentMatching", "SoftLabels", "ContrastiveAlignment", "DistributionAlignment", "MisalignedPairs"]
)
def test_the_example_of_an_objective_runs(name):
    run_example(getattr(hf_colearn, name))
