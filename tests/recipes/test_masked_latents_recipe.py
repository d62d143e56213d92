"""Pretraining by masked latents and few labels: the smoke test, inputs of both modalities, and what each arm learns from."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel

import tiny
from hf_colearn import CoLearningBatch, CoLearningForImageClassification, MaskedLatentPrediction, TeacherBank
from hf_colearn.experiments.masked_latents import (
    HIDDEN,
    MaskedInputs,
    MaskedPretraining,
    OtherSamples,
    PatchedData,
    masked_latents_arms,
    pictures,
)
from hf_colearn.objectives.input_masking import Positions
from hf_colearn.objectives.masked_latents import TERM
from tiny_corpora import write_emoji
from tiny_recipes import main_of


ARMS = ["labels alone", "masked latents", "latents of other samples"]
QUICK = ["--small", "--max_steps", "2", "--logging_steps", "1", "--report", "false", "--max_samples", "40"]


# ---- the recipe ----
def test_every_arm_is_tested_and_the_student_reads_patches_without_the_head_of_its_pretraining(tmp_path):
    report = main_of("masked_latents", tmp_path, "--arms", *ARMS, *QUICK)
    assert sorted(run["arm"] for run in report["runs"]) == sorted(f"{arm}, 2 labels a class" for arm in ARMS)
    assert report["samples"]["test"] == 40
    config = json.loads((tmp_path / "runs" / "masked_latents" / "student" / "config.json").read_text())
    backbone = config["backbone_config"]
    assert (backbone["image_size"], backbone["patch_size"]) == ([40, 48], [40, 4]) and "training_heads" not in config


def test_every_arm_has_as_many_settings_and_updates():
    arms = masked_latents_arms(3)
    assert {len(arm.grid) for arm in arms} == {3}
    assert [arm.kind for arm in arms].count("null") == 2 and [arm.kind for arm in arms].count("baseline") == 1
    given = {"learning_rate": 1e-3, "max_steps": 7, "output_dir": "out", "report_to": "none", "labelled_per_batch": 4}
    assert {arm.arguments(given, seed=0).max_steps for arm in arms} == {7}


def test_emoji_have_16_patches_and_their_names_are_the_teachers(tmp_path):
    foods, animals = ([f"{code:x}" for code in range(first, first + 14)] for first in (0x1F345, 0x1F420))
    data = pictures(str(write_emoji(tmp_path, {"animal": animals, "food": foods})), seed=0)
    assert data.shape == (3, 32, 32) and data.patch_values == 3 * 32 * 32 // 16
    assert len(data.teacher_inputs) == len(data.splits["train"])
    assert set(data.splits["train"].features) == {"pixel_values", "labels", "sample_id"}


# ---- what each arm learns from ----
@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """The trainer of that arm's first stage after two steps, of pictures of 8 x 8 in four patches."""
    digits = tiny.digits(8).cast_column("labels", ClassLabel(10))
    data = PatchedData({"train": digits}, [], None, (4, 4), "layer", CoLearningForImageClassification)
    [arm] = masked_latents_arms(1, ["latents of random weights"])
    training = {"learning_rate": 1e-3, "max_steps": 4, "per_device_train_batch_size": 4, "report_to": "none"}
    training |= {"output_dir": str(tmp_path_factory.mktemp("arm")), "save_strategy": "no", "use_cpu": True}
    built = MaskedPretraining(data, TeacherBank.from_latents(np.eye(8)))
    torch.manual_seed(0)
    trainer = built.pretrained(arm, arm.arguments(training, seed=0))
    torch.manual_seed(0)
    return trainer, built.make_student_for(HIDDEN).state_dict()


def test_random_weights_stay_those_that_the_student_began_with(random_weights):
    trainer, first = random_weights
    averaged, name = trainer.auxiliary_objective.average.state_dict(), f"training_heads.{TERM}.weight"
    assert all(torch.equal(weight, first[of]) for of, weight in averaged.items())
    assert not torch.equal(trainer.model.state_dict()[name], first[name])


def test_latents_of_other_samples_are_those_of_the_one_before_in_the_batch(random_weights):
    found = []
    for kind in (MaskedLatentPrediction, OtherSamples):
        (objective := kind(0.5, layers=2)).setup(random_weights[0])
        inputs, batch = (
            {"pixel_values": tiny.digits(3)["pixel_values"][:]},
            CoLearningBatch(sample_ids=torch.arange(3)),
        )
        found.append(objective.on_inputs(inputs, batch, random_weights[0].model)[1].from_inputs[TERM].targets)
    assert torch.equal(found[1], found[0][[2, 0, 1]])


def test_masked_inputs_are_the_values_of_their_patches():
    # Two patches of 1 x 2 pixels, behind a [CLS]; each with mean 0 and variance 1.
    pixels = torch.tensor([[[[1.0, 3.0, 10.0, 0.0]]]])
    eligible = torch.tensor([[False, True, True]])
    positions = Positions("pixel_values", (1, 2), (2, 3), first=1)
    found = MaskedInputs(0.5).targets({"pixel_values": pixels}, None, positions, eligible)
    torch.testing.assert_close(found[0, 1:], torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), rtol=0, atol=1e-4)
