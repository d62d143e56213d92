"""The arms of unpaired data: what the other modality is in each of them, the pairs, and what is tested at the end."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_colearn import classification_metrics
from hf_colearn.corpora.spoken_digits import Clip
from hf_colearn.experiments.unpaired import (
    ALONE,
    GAUSSIAN,
    GAUSSIAN_STEP,
    NEXT_STEP,
    PAIRS,
    STEP_ALONE,
    UNPAIRED,
    WRONG_CLASSES,
    WRONG_LABELS,
    Unpaired,
    exchanged_classes,
    gaussian_like,
    of_features,
    spoken_digits,
    unpaired_arms,
    written_digits,
)


TRUNK = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
ARMS = {arm.name: arm for arm in unpaired_arms(has_pairs=True, is_sequence=True)}


def clouds(width, counts=(24, 12, 12), seed=0):
    """Two classes, one on each side of 0, in every split."""
    rng = np.random.default_rng(seed)
    labels = {
        split: [i % 2 for i in range(count)]
        for split, count in zip(("train", "validation", "test"), counts, strict=True)
    }
    features = {
        split: torch.tensor(
            rng.normal(size=(len(of), width)) + 4 * (2 * np.array(of)[:, None] - 1), dtype=torch.float32
        )
        for split, of in labels.items()
    }
    return of_features(features, labels, tokens=2)


@pytest.fixture(scope="module")
def built():
    metrics = classification_metrics(("accuracy",))
    both = ("image", clouds(3)), ("text", clouds(5, seed=1))
    return Unpaired(*both, 2, {0: "a", 1: "b"}, TRUNK, 4, compute_metrics=metrics)


def trained(built, name, folder, steps=30):
    given = {
        "learning_rate": 0.01,
        "max_steps": steps,
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
    }
    given |= {"per_device_train_batch_size": 8, "save_strategy": "no", "logging_steps": 1}
    torch.manual_seed(0)
    run = built.make_trainer(ARMS[name], ARMS[name].arguments(given, seed=0))
    run.train()
    return run


def other_accuracy(run, built):
    """Of the other modality's samples as they are, by the model's second task."""
    samples = built.other_data.splits["test"]
    with torch.no_grad():
        predicted = run.model.eval()(task="text", text_features=samples["inputs"][:]).logits.argmax(1)
    return float((predicted == samples["labels"][:]).float().mean())


# ---- the arms ----
def test_every_arm_has_three_settings_and_as_many_updates():
    given = {"learning_rate": 1e-3, "max_steps": 7, "output_dir": "out", "report_to": "none"}
    args = {name: arm.arguments(given, seed=0) for name, arm in ARMS.items()}
    assert {len(arm.grid) for arm in ARMS.values()} == {3}
    assert {each.max_steps for each in args.values()} == {7}
    assert {name for name, each in args.items() if each.gradient_accumulation_steps == 1} == {ALONE, STEP_ALONE}
    assert [arm.kind for arm in ARMS.values()].count("baseline") == 1
    assert {name for name, arm in ARMS.items() if arm.kind == "null"} == {
        WRONG_LABELS,
        GAUSSIAN,
        STEP_ALONE,
        GAUSSIAN_STEP,
    }


def test_only_true_content_of_the_other_modality_is_learned(built, tmp_path):
    # Two classes far apart: what has learned them is right, what had wrong labels or Gaussian inputs cannot be.
    right = other_accuracy(trained(built, UNPAIRED, tmp_path), built)
    exchanged = other_accuracy(trained(built, WRONG_CLASSES, tmp_path), built)
    assert right == 1.0
    assert exchanged == 0.0  # two classes change places
    assert other_accuracy(trained(built, ALONE, tmp_path), built) < 1.0


@pytest.mark.parametrize("name", [WRONG_LABELS, GAUSSIAN, GAUSSIAN_STEP])
def test_null_controls_keep_counts_and_moments(built, name):
    before, after = (built._of_other(ARMS[arm], seed=0)["text"] for arm in (UNPAIRED, name))
    labels = [part["labels"][:].numpy() for part in (before, after)]
    inputs = [part["text_features"][:].numpy() for part in (before, after)]
    assert sorted(labels[0]) == sorted(labels[1])
    if name == WRONG_LABELS:
        assert (labels[0] != labels[1]).any()
        np.testing.assert_array_equal(*inputs)
    else:
        np.testing.assert_array_equal(*labels)
        assert not np.isclose(*inputs).any()


def test_gaussian_inputs_have_mean_and_covariance_of_the_others():
    # x = (1, 3) or (3, 7) in equal parts: mean (2, 5), covariance [[1, 2], [2, 4]], on one line.
    columns = {"inputs": [[1.0, 3.0], [3.0, 7.0]] * 1000, "labels": [0, 1] * 1000}
    samples = Dataset.from_dict(columns).with_format("torch")
    drawn = gaussian_like(samples, 0)["inputs"][:].numpy()
    assert drawn.mean(0) == pytest.approx([2, 5], abs=0.1)
    assert np.cov(drawn.T, bias=True) == pytest.approx(np.array([[1, 2], [2, 4]]), abs=0.3)
    assert len(np.unique(drawn[:, 0].round(3))) > 1000


def test_exchanged_classes_have_no_class_in_its_place():
    renamed = exchanged_classes(np.array([0, 1, 2, 3, 0]), seed=0)
    assert sorted(renamed[:4]) == [0, 1, 2, 3]
    assert (renamed != [0, 1, 2, 3, 0]).all()
    assert renamed[4] == renamed[0]


# ---- trainers ----
def test_a_step_has_a_batch_of_either_task(built, tmp_path):
    run = trained(built, UNPAIRED, tmp_path, steps=2)
    batches = [batch["task"] for batch in run.get_train_dataloader()]
    assert [sorted(batches[i : i + 2]) for i in range(0, len(batches), 2)] == [["image", "text"]] * (len(batches) // 2)
    assert run.model.config.tasks["text"]["weight"] == 0.3  # the middle setting
    assert len(run.train_dataset.datasets["image"]) == 4  # two of either class


def test_pairs_are_the_other_modalitys_of_the_same_row(built, tmp_path):
    run = trained(built, PAIRS, tmp_path, steps=2)
    ids = np.asarray(list(run.train_dataset.rows("pairs")))
    targets = run.pairing.targets(run.bank, ids, 0, 0)
    torch.testing.assert_close(targets, run.bank.lookup(range(24)))
    labelled = run.train_dataset.datasets["image"]
    of_labelled = run.pairing.targets(run.bank, np.arange(4), 0, 0)
    torch.testing.assert_close(of_labelled, run.bank.lookup(labelled["row"][:].numpy()))
    pictures = built.own_data.splits["train"]["inputs"][:]
    torch.testing.assert_close(labelled["image_features"][:], pictures[labelled["row"][:]])
    assert "loss_latent" in run.state.log_history[0]


def test_the_student_of_the_own_modality_alone_is_tested(built, tmp_path):
    run = trained(built, UNPAIRED, tmp_path)
    scored = built.scored(run, built.own_part("test"), UNPAIRED, "colearned")
    assert scored.metrics["accuracy"] == run.evaluate(built.evaluation("test"))["eval_accuracy"] == 1.0
    assert scored.facts["parameters"] < sum(weight.numel() for weight in run.model.parameters())
    assert scored.history is run.state.log_history


# ---- digits ----
def test_written_and_spoken_digits_in_a_causal_trunk_predict_their_next_steps(tmp_path):
    clips = [
        Clip(f"{i}", i % 10, "a", 0, np.sin(np.arange(4000) * (i + 1) / 20).astype(np.float32)) for i in range(20)
    ]
    written, spoken = written_digits(), spoken_digits({"train": clips}, 8000)
    assert {split: len(part) for split, part in written.splits.items()} == {
        "train": 599,
        "validation": 299,
        "test": 899,
    }
    for modality, shape in ((written, (1, 8, 8)), (spoken, (1, 40, 48))):
        inputs = modality.splits["train"]["inputs"][:]
        assert inputs.shape[1:] == shape
        assert (float(inputs.mean()), float(inputs.std())) == pytest.approx((0, 1), abs=1e-3)

    built = Unpaired(("image", written), ("speech", spoken), 1, {i: str(i) for i in range(10)}, TRUNK, 4)
    for name, tasks in ((NEXT_STEP, ["image", "speech"]), (STEP_ALONE, ["image"])):
        run = trained(built, name, tmp_path, steps=1)
        assert run.model.config.causal and list(run.train_dataset.datasets) == tasks
        assert run.state.log_history[0]["loss_next_step"] > 0
