"""The recipe of missing modalities, on digits that are dialled; its training sets, noise and scores."""

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from transformers import EvalPrediction

from hf_colearn.data.multimodal import complete_rows
from hf_colearn.experiments.missing_modality import (
    SHARES,
    MissingMetrics,
    MissingOptions,
    missing_arms,
    one_at_test_arms,
    those_with,
    with_noise,
    with_share_complete,
)
from tiny_corpora import write_dtmf_digits
from tiny_recipes import main_of


NAMES = ("image", "audio")
BRIEF = ["--max_steps", "2", "--logging_steps", "1", "--report", "false", "--hidden_dim", "4", "--latent_dim", "4"]
BRIEF += ["--per_device_train_batch_size", "16", "--num_centroids", "2", "--settings", "mine.yaml"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phones")
    write_dtmf_digits(folder, clips_per_digit=42)  # by FSDD's rule, takes 0 to 4 of the seven are for testing
    return folder


def features(samples=100):
    drawn = np.random.default_rng(0)
    columns = {f"{name}_features": drawn.normal(size=(samples, 3)).astype(np.float32) for name in NAMES}
    return Dataset.from_dict({**columns, "labels": np.arange(samples) % 5}).with_format("torch")


def test_every_arm_is_trained_and_scored_with_each_modality_missing(digits, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"av_digits, one missing": {"joint": {"rate": 3.0}}}))
    report = main_of("missing_modality", tmp_path, "--audio_dir", digits, *BRIEF, "--shares", "20")
    scores = {made["arm"].removesuffix(", 20 complete samples (%)"): made for made in report["runs"]}
    assert {name: made["kind"] for name, made in scores.items()} == {
        "joint": "baseline", "modality dropout": "null", "global mean": "null", "permuted centroids": "null",
        "centroids": "colearned", "late ensemble": "reference",
    }  # fmt: skip
    assert report["metric"] == "accuracy_one_missing"
    for name, made in scores.items():
        metrics = made["metrics"]
        given = [metrics["accuracy_given_image"], metrics["accuracy_given_audio"]]
        assert metrics["accuracy_one_missing"] == pytest.approx(np.mean(given))
        imputes = "mean" in name or "centroids" in name
        assert imputes == ("imputation_mse_image" in metrics) == ("loss_imputation" in made["history"][0])
    first = [scores[name]["history"][0] for name in ("joint", "modality dropout")]
    assert first[0]["learning_rate"] == pytest.approx(3 * first[1]["learning_rate"])  # as was chosen


# ---- data and scores ----
def test_what_is_complete_at_a_small_share_is_so_at_a_larger_one_and_the_rest_lacks_either_as_often():
    found = {share: with_share_complete(features(), NAMES, share, seed=1) for share in (0.1, 0.5, 1.0)}
    masks = {share: torch.stack(list(dataset["modality_mask"])) for share, dataset in found.items()}
    assert [int(mask.all(1).sum()) for mask in masks.values()] == [10, 50, 100]
    assert (masks[0.5].all(1) | ~masks[0.1].all(1)).all() and masks[0.1].any(1).all()
    assert masks[0.1].sum(0).tolist() == [55, 55]
    assert len(those_with(found[0.1], "audio", NAMES)) == 55
    assert torch.equal(found[0.1]["image_features"][:], features()["image_features"][:])
    assert complete_rows(found[0.1], NAMES).tolist() == np.flatnonzero(masks[0.1].all(1)).tolist()


def test_noise_has_the_moments_of_the_features_and_knows_no_sample():
    correlated = features(2000)
    mixed = correlated["audio_features"][:] @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.5]]) + 3
    dataset = Dataset.from_dict({**correlated.with_format("numpy")[:], "audio_features": mixed.numpy()})
    noisy = with_noise(dataset.with_format("torch"), "audio", seed=0)
    noise, image = noisy["audio_features"][:], noisy["image_features"][:]
    torch.testing.assert_close(noise.mean(0), mixed.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(noise.T.cov(), mixed.T.cov(), atol=0.3, rtol=0.1)
    assert abs(torch.corrcoef(torch.stack([noise[:, 0], mixed[:, 0]]))[0, 1]) < 0.1
    assert torch.equal(image, correlated["image_features"][:])


def test_the_main_score_is_the_mean_over_what_is_missing_or_that_of_the_only_one():
    right, wrong = np.array([[1.0, 0.0]] * 2), np.array([[0.0, 1.0]] * 2)
    predictions = (right, {"image": right, "audio": wrong}, np.ones((2, 2)), {"image": right, "audio": wrong})
    evaluation = EvalPrediction(predictions, np.zeros(2, dtype=int))
    assert next(iter(MissingMetrics.of(None)(evaluation).items())) == ("accuracy_one_missing", 0.5)
    assert next(iter(MissingMetrics.of("audio")(evaluation).items())) == ("accuracy_at_test", 0.0)
    assert MissingMetrics.of(None)(EvalPrediction(right, np.zeros(2, dtype=int))) == {"accuracy": 1.0}


def test_settings_are_three_an_arm_chosen_at_the_first_share_and_imputations_differ_in_their_centroids_alone():
    assert {arm.sweep for arm in missing_arms(MissingOptions(shares=[10, 20], choose=True))} == {(SHARES, 10)}
    arms = missing_arms(MissingOptions(shares=[10, 20])) + one_at_test_arms("image")
    assert {len(arm.grid) for arm in arms} == {3}
    imputing = {arm.method: arm for arm in arms if arm.centroids}
    assert {name: (arm.centroids, arm.permuted) for name, arm in imputing.items()} == {
        "global mean": (1, False), "permuted centroids": (16, True), "centroids": (16, False)
    }  # fmt: skip
    assert len({str(arm.grid) for arm in imputing.values()}) == 1


@pytest.mark.parametrize(
    "options, texts",
    [
        ({"data": "cremad"}, ["data='cremad' is unknown", "stamps"]),
        ({"only": "text"}, ["only='text' is unknown", "audio"]),
        ({"shares": [0, 50]}, ["shares=[0]", "above 0, up to 100"]),
        ({"num_centroids": 0}, ["num_centroids=0", "at least 1"]),
    ],
)
def test_bad_options_are_refused(options, texts):
    with pytest.raises(ValueError) as caught:
        MissingOptions(**options)
    assert all(text in str(caught.value) for text in texts)
