"""Spoken digits that predict a paired signal: frames with their neighbours, splits, arms, and where each arm falls."""

import numpy as np
import pytest
import torch

from hf_colearn import (
    CoLearningForFeatureClassification,
    FeatureBackboneConfig,
    SequenceBank,
    classification_metrics,
)
from hf_colearn.corpora.spoken_digits import Clip
from hf_colearn.experiments.dense_signal import (
    BANDS,
    DenseSignal,
    StackedFrames,
    dense_signal_arms,
    frame_dataset,
    heard,
    load_clips,
    mean_of_frames,
    principal_frames,
)
from tiny_corpora import write_dtmf_digits
from tiny_recipes import main_of


ARMS = ["labels alone", "frames", "frames + pooled latents", "permuted pairs"]
QUICK = ["--small", "--max_steps", "2", "--logging_steps", "1", "--report", "false", "--max_clips", "40"]


# ---- the recipe ----
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense_signal_recipe")
    clips = tmp_path_factory.mktemp("dtmf")
    write_dtmf_digits(clips, clips_per_digit=72)
    return main_of("dense_signal", folder, "--data_dir", clips, "--arms", *ARMS, *QUICK), folder


def test_every_arm_is_tested_on_clips_of_the_first_takes(finished):
    report, folder = finished
    runs = {run["arm"]: run["metrics"] for run in report["runs"]}
    assert sorted(runs) == sorted(f"{arm}, 2 labels a class" for arm in ARMS)
    assert report["samples"]["test"] == 40
    card = (folder / "runs" / "dense_signal" / "student" / "README.md").read_text()
    assert "`dense_latents` `[B, T, D]`" in card


def test_clips_are_cut_by_their_takes_and_others_are_refused(tmp_path):
    # 72 clips of a digit are takes 0 to 11 of six phones: 5 takes, 5 takes and 2.
    splits = load_clips(None)
    assert {split: len(clips) for split, clips in splits.items()} == {"train": 120, "validation": 300, "test": 300}
    assert {clip.take for clip in splits["train"]} == {10, 11}

    paths = write_dtmf_digits(tmp_path / "few", clips_per_digit=6)
    with pytest.raises(ValueError, match="no clips for train: takes 0 to 4 are for test"):
        load_clips(str(tmp_path / "few"))
    (tmp_path / "other" / "0").mkdir(parents=True)
    (tmp_path / "other" / "0" / "a.wav").write_bytes(paths[0].read_bytes())
    with pytest.raises(ValueError, match="'0/a.wav' tells no take"):
        load_clips(str(tmp_path / "other"))


def test_every_arm_has_as_many_settings_and_updates():
    arms = dense_signal_arms(3)
    assert {len(arm.grid) for arm in arms} == {3}
    assert [arm.kind for arm in arms].count("null") == 4
    given = {"learning_rate": 1e-3, "max_steps": 7, "output_dir": "out", "report_to": "none", "labelled_per_batch": 4}
    assert {arm.arguments(given, seed=0).max_steps for arm in arms} == {7}
    assert [arm.name for arm in dense_signal_arms(3, ["frames"])] == ["frames, 3 labels a class"]


# ---- its parts ----
def test_a_clip_has_a_frame_every_20_ms_and_no_more_than_a_second():
    waves = [np.random.default_rng(0).normal(size=length).astype(np.float32) for length in (1600, 1601, 12000)]
    frames = heard([Clip("0_a_0.wav", 0, "a", 0, wave) for wave in waves])
    # 1600 samples at 8 kHz are 0.2 s: 10 frames; one sample more begins the 11th; a second ends with the 51st.
    assert [each.shape for each in frames] == [(10, BANDS), (11, BANDS), (51, BANDS)]


def test_a_frame_is_seen_with_its_neighbours_and_padding_is_marked():
    clips = [torch.arange(3.0)[:, None].expand(3, BANDS), torch.full((1, BANDS), 7.0)]

    batch = StackedFrames(1)([{"features": each.flatten(), "labels": 4} for each in clips])

    # Frame t beside t - 1 and t + 1; beyond the ends are the first and the last one. Of every band first its neighbours.
    assert batch["features"].view(2, 3, BANDS, 3)[0, :, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    assert batch["features"][1, 0].tolist() == [7.0] * 3 * BANDS
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]] and batch["labels"].tolist() == [4, 4]


def test_principal_frames_keep_the_distances_of_frames_that_lie_in_a_plane():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    frames = [rng.normal(size=(length, 2)) @ plane.T for length in (4, 7)]

    bank = principal_frames(frames, 2, "a test")

    assert bank.lengths.tolist() == [4, 7] and bank.dim == 2
    found = bank.lookup([1])[0].numpy()
    np.testing.assert_allclose(
        np.linalg.norm(found[0] - found[1]), np.linalg.norm(frames[1][0] - frames[1][1]), rtol=1e-5
    )


def test_the_pooled_latent_is_the_mean_of_a_clips_own_frames():
    bank = SequenceBank.from_sequences([np.array([[1.0], [3.0]]), np.array([[5.0]])])
    assert mean_of_frames(bank).lookup([0, 1]).tolist() == [[2.0], [5.0]]


# ---- where each arm falls ----
CLASSES, CLIPS = 3, 90


@pytest.fixture(scope="module")
def signals():
    """Clips of which a band tells the class, beside louder bands that tell nothing; the paired signal has the class alone."""
    rng = np.random.default_rng(0)
    labels = np.arange(CLIPS + 60) % CLASSES
    lengths = rng.integers(3, 6, len(labels))
    noise = 0.5 * rng.normal(size=(len(labels), BANDS))
    noise[:, CLASSES:12] = 3 * rng.normal(size=(len(labels), 9))
    frames = [
        (2 * np.eye(CLASSES, BANDS)[label] + noise[i] + 0.1 * rng.normal(size=(lengths[i], BANDS))).astype(np.float32)
        for i, label in enumerate(labels)
    ]
    clips = [Clip(f"{i}", int(label), None, i, np.zeros(1)) for i, label in enumerate(labels)]
    paired = [
        np.eye(CLASSES)[labels[i]] + 0.1 * rng.normal(size=(lengths[i] + 1, CLASSES)) for i in range(CLIPS)
    ]  # a frame more than the student has
    stack = StackedFrames(0)

    def make_student():
        config = FeatureBackboneConfig(feature_dim=BANDS)
        return CoLearningForFeatureClassification.from_backbone(
            config, CLASSES, CLASSES, latent_norm="none", dense=True
        )

    built = DenseSignal(
        frame_dataset(frames[:CLIPS], clips[:CLIPS]),
        SequenceBank.from_sequences(paired),
        principal_frames(frames[:CLIPS], CLASSES, "own"),
        make_student,
        data_collator=stack,
        compute_metrics=classification_metrics(("accuracy",)),
    )
    return built, frame_dataset(frames[CLIPS:], clips[CLIPS:])


def accuracy(signals, name, folder):
    built, test = signals
    training = {"output_dir": str(folder), "learning_rate": 2e-2, "max_steps": 30, "per_device_train_batch_size": 30}
    training |= {"labelled_per_batch": 3, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    [arm] = dense_signal_arms(1, [name])
    torch.manual_seed(0)
    trainer = built.make_trainer(arm, arm.arguments(training, seed=0))
    trainer.train()
    return trainer.evaluate(test)["eval_accuracy"]


@pytest.mark.parametrize("name", ["frames", "frames + pooled latents", "pooled latents"])
def test_a_signal_that_tells_the_class_helps_where_few_labels_do(name, signals, tmp_path):
    assert accuracy(signals, name, tmp_path) > 0.9


@pytest.mark.parametrize("name", ["labels alone", "self-training", "permuted pairs", "random frames", "own frames"])
def test_without_the_content_of_the_signal_nothing_is_gained(name, signals, tmp_path):
    assert accuracy(signals, name, tmp_path) < 0.7
