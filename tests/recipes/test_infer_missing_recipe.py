"""Inferring a missing text: the recipe on a few emoji, its arms, its latents, and that permuted pairs infer nothing."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig
from hf_colearn.experiments.infer_missing import (
    Inference,
    feature_rows,
    inference_arms,
    permuted_rows,
    regressed,
    set_principal_components,
)
from refusals import Refusals, assert_refused
from tiny_corpora import write_emoji
from tiny_recipes import main_of


TRAINING = {"max_steps": 100, "learning_rate": 0.01, "per_device_train_batch_size": 32, "report_to": "none"}
KINDS = ["bird", "fish", "flower", "fruit"]
EMOJI = {kind: [f"{0x1F400 + 16 * i + j:x}" for j in range(12)] for i, kind in enumerate(KINDS)}


def samples(count=80):
    """Texts of four classes, and pictures and speech that are linear maps of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    text = rng.normal(size=(4, 6))[labels] + 0.5 * rng.normal(size=(count, 6))
    made = {"image": text @ rng.normal(size=(6, 9)), "text": text, "speech": text @ rng.normal(size=(6, 7))}
    tensors = {name: torch.tensor(x).float() for name, x in made.items()}
    return feature_rows(tensors, labels, [f"sentence {row // 2}" for row in range(count)])


def inference(names=("image", "text", "speech"), latent_dim=4, given="image"):
    return Inference(
        samples(),
        lambda seed: np.split(np.random.default_rng(seed).permutation(80), [60]),
        names,
        given,
        KINDS,
        inference_arms(),
        latent_dim=latent_dim,
        autoencoder={"hidden_dim": 32},
        centroids={"num_centroids": 4},
    )


def trained(of, name, folder):
    plan = of.plans[name]
    args = plan.arguments({**TRAINING, "output_dir": str(folder), "save_strategy": "no"}, seed=1)
    torch.manual_seed(1)
    trainer = of.make_trainer(plan, args)
    trainer.train()
    return trainer


# ---- the recipe ----
def test_the_recipe_scores_every_arm_and_chooses_on_other_samples(tmp_path):
    folder = tmp_path / "emoji"
    folder.mkdir()
    few = ["--data_dir", write_emoji(folder, EMOJI), "--small", "--min_per_class", "4", "--report", "false"]
    few += [
        "--arms",
        "unimodal query",
        "permuted pairs",
        "masked autoencoder",
        "ridge regression",
        "--latent_dim",
        "4",
    ]
    report = main_of(
        "infer_missing", tmp_path, *few, "--settings", "none.yaml", "--max_steps", "2", "--logging_steps", "1"
    )
    scores = {run["arm"]: run["metrics"] for run in report["runs"]}
    assert report["metric"] == "map" and list(scores) == few[few.index("--arms") + 1 : few.index("--latent_dim")]
    own = {"map", "precision_at_10"}
    assert set(scores["unimodal query"]) == own | {"map_by_chance"}
    assert set(scores["ridge regression"]) == set(scores["unimodal query"]) | {"recall_at_5", "explained_variance"}
    joint = {f"joint_{name}{end}" for name in own for end in ("", "_with_text")}
    assert set(scores["masked autoencoder"]) == set(scores["ridge regression"]) | joint
    histories = {run["arm"]: run["history"] for run in report["runs"]}
    assert "loss_imputation" in histories["masked autoencoder"][0]


# ---- the arms ----
def test_every_arm_has_three_settings_and_trained_arms_have_as_many_updates():
    arms = inference_arms()
    assert {len(arm.grid) for arm in arms} == {3}
    kinds = [arm.kind for arm in arms]
    assert (kinds.count("baseline"), kinds.count("colearned"), kinds.count("null")) == (1, 1, 2)
    arguments = {arm.name: arm.arguments({**TRAINING, "output_dir": "out"}, 0) for arm in arms}
    steps = {name: (args.max_steps, args.learning_rate > 0) for name, args in arguments.items()}
    learned = {"permuted pairs", "masked autoencoder", "centroids"}
    assert steps == {name: (100, True) if name in learned else (1, False) for name in steps}


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    of, folder = inference(), tmp_path_factory.mktemp("arms")
    names = ["masked autoencoder", "permuted pairs", "ridge regression", "mean text"]
    return {name: trained(of, name, folder).evaluate() for name in names}


def test_the_autoencoder_infers_texts_from_any_subset_and_wrong_pairs_do_not(scores):
    found, null = scores["masked autoencoder"], scores["permuted pairs"]
    for end in ("", "_from_speech", "_from_image_speech"):
        assert found[f"eval_explained_variance{end}"] > 0.5 > 0.1 > null[f"eval_explained_variance{end}"]
        assert found[f"eval_recall_at_5{end}"] > 0.7 > 0.5 > null[f"eval_recall_at_5{end}"]  # by chance about 0.3
    # As good as a ridge regression of each subset, since the maps are linear.
    assert found["eval_map"] == pytest.approx(scores["ridge regression"]["eval_map"], abs=0.1)
    assert found["eval_map"] > max(null["eval_map"], scores["mean text"]["eval_map"]) + 0.2


def test_known_and_held_out_samples_are_others_in_every_seed_and_no_label_is_trained_on(tmp_path):
    of = inference()
    first, second = of.split(0), of.split(1)
    assert (len(first.known), len(first.held_out)) == (60, 20)
    assert not torch.equal(first.latents["text"], second.latents["text"])
    trainer = of.make_trainer(
        of.plans["centroids"], of.plans["centroids"].arguments({**TRAINING, "output_dir": str(tmp_path)}, 0)
    )
    assert trainer.train_dataset.column_names == ["image_features", "text_features", "speech_features"]
    assert not any(weight.requires_grad for weight in trainer.model.encoders.parameters())


def test_a_mean_is_the_same_query_for_all_and_a_share_of_the_components_is_compared():
    of = inference()
    queries, known = of.query(of.plans["mean text"], None, 0, ("image",))  # of half of the components
    assert queries.shape == (20, 2) and known.shape == (60, 2) and len(queries.unique(dim=0)) == 1
    both, _ = of.query(of.plans["unimodal query"], None, 0, ("image", "speech"))
    torch.testing.assert_close(both[:, 2:], of.split(0).latents["speech"][:, :2])


# ---- latents ----
def test_latents_are_principal_components_of_unit_mean_square():
    features = samples()["image_features"][:]
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(9, standardized=True), latent_dim=3, num_labels=2, latent_norm="none"
    ).eval()
    set_principal_components(student, features)
    latents = student(features).latents.detach().numpy()
    expected = PCA(3).fit_transform((features - features.mean(0)) / features.std(0, correction=0))
    expected /= np.sqrt((expected**2).mean())
    np.testing.assert_allclose(np.abs(latents), np.abs(expected), atol=1e-4)  # an axis has no sign
    assert np.square(latents).mean() == pytest.approx(1, abs=1e-4)


def test_permuted_rows_are_those_of_before_and_pairs_are_wrong():
    dataset = samples().remove_columns(["labels", "sentence"])
    permuted = permuted_rows(dataset, seed=0)
    rows = {}
    for name in dataset.column_names:
        before, after = dataset[name][:], permuted[name][:]
        rows[name] = torch.cdist(after, before).argmin(dim=1)
        assert rows[name].sort().values.tolist() == list(range(80))
    assert (rows["image_features"] == rows["text_features"]).sum() < 10


def test_regressions_are_those_of_the_formulas():
    known, texts = (
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]),
        torch.tensor([[3.0, 0.0], [0.0, 0.0], [-3.0, 0.0]]),
    )
    asked = torch.tensor([[2.0, 1.0]])
    # By cosine the nearest two are the first and the second: (3 + 0) / 2.
    torch.testing.assert_close(regressed({"neighbours": 2}, known, texts, asked), torch.tensor([[1.5, 0.0]]))
    # (X'X + I) w = X't with X'X = [[2, 1], [1, 2]] and X't = (6, 3): w = (15, 3) / 8; means are 0. 2 w1 + w2 = 33 / 8.
    torch.testing.assert_close(regressed({"penalty": 1.0}, known, texts, asked), torch.tensor([[33 / 8, 0.0]]))


# ---- what is refused ----
refusals = Refusals()


@refusals.case(ValueError, "latent_dim=7", "60 samples of 6 features", "no larger latent_dim")
def more_components_than_features(folder):
    of = inference(latent_dim=7)
    yield
    of.split(0)


@refusals.case(ValueError, "data='tweets' is unknown", "emoji")
def other_data(folder):
    yield
    main_of("infer_missing", folder, "--data", "tweets")


@refusals.case(ValueError, "given='speech' is unknown", "image")
def speech_of_emoji(folder):
    yield
    main_of("infer_missing", folder, "--given", "speech")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
