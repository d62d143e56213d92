"""What a trainer writes beside the weights of its student: the record of the training, and the card."""

import json

import numpy as np
import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import ViTForImageClassification

import tiny
import tiny_modalities
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    ContrastiveAlignment,
    FeatureBackboneConfig,
    HeuristicAlpha,
    MultimodalCollator,
    classification_metrics,
    regression_metrics,
    with_sample_ids,
)
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.hub.record import TrainingRecord
from hf_colearn.hub.upload_manifest import upload_manifest


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A student after 4 steps and an evaluation, saved as a user would."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(str(folder), max_steps=4, alpha=0.3),
        train_dataset=tiny.digits(16), eval_dataset=tiny.digits(8), bank=tiny.bank(), pairing=tiny.random_prompt(),
        compute_metrics=classification_metrics(),
    )  # fmt: skip
    trainer.train()
    measured = trainer.evaluate()
    trainer.save_model(str(folder))
    trainer.create_model_card(
        model_name="Mine", language="en", dataset="some digits", dataset_tags="me/digits", tags="a tag"
    )
    return folder, measured


def test_the_record_tells_the_arguments_the_terms_and_alpha(trained):
    record = TrainingRecord.load(trained[0])
    assert record.arguments["max_steps"] == 4 and record.arguments["alpha"] == 0.3
    assert record.terms == ["latent"] and record.objective.startswith("LatentMatching(")
    assert [entry["alpha"] for entry in record.alpha_history] == [0.3] * 4
    assert record.recipe is None and str(trained[0].parent) not in (trained[0] / "colearning.json").read_text()


def test_the_card_holds_the_last_evaluation_and_names_its_data(trained):
    folder, measured = trained
    card = ModelCard.load(folder / "README.md")
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found["accuracy"].metric_value == measured["eval_accuracy"]
    assert not {"loss", "runtime", "epoch"} & found.keys()
    assert (found["accuracy"].dataset_name, found["accuracy"].dataset_type) == ("some digits", "me/digits")
    assert card.data.datasets == ["me/digits"] and card.data.language == "en" and "a tag" in card.data.tags
    assert "(8 samples)" in card.text and "L = (1 - 0.3) * L_task + 0.3 * L_latent" in card.text
    assert "written without a comparison with a baseline and null controls" in card.text


def test_what_was_saved_can_be_published_but_for_the_pickle(trained, tmp_path):
    manifest = upload_manifest(trained[0], "me/mine", tmp_path)
    assert manifest.refused == [] and manifest.left_out == ["training_args.bin"]
    assert {"colearning.json", "model.safetensors", "student.py"} <= set(manifest.files)


def test_a_multimodal_model_has_a_card_without_a_pipeline(tmp_path):
    model = CoLearningForMultimodalClassification.from_backbones(
        {"image": tiny.vit(), "audio": tiny.vit()}, latent_dim=4, num_labels=10
    )
    trainer = CoLearningTrainer(
        model, tiny.arguments(str(tmp_path)), data_collator=MultimodalCollator({"image": None, "audio": None}),
        objective=ContrastiveAlignment(), alpha=HeuristicAlpha("contrastive"),
    )  # fmt: skip
    trainer.save_model(str(tmp_path))
    trainer.create_model_card(model_name="Both")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag is None and "multimodal" in card.data.tags
    assert "CoLearningForMultimodalClassification.from_pretrained" in card.text
    assert "`HeuristicAlpha(" in card.text


def test_a_card_names_the_method_of_modality_balance(tmp_path):
    class Damped(BalanceMethod):
        def __init__(self, alpha=0.8):
            super().__init__()
            self.alpha = alpha

    trainer = CoLearningTrainer(tiny_modalities.model(), tiny.arguments(str(tmp_path)), balance=Damped(0.1))
    trainer.save_model(str(tmp_path))
    trainer.create_model_card(model_name="Balanced")
    text = ModelCard.load(tmp_path / "README.md").text
    assert "Its modalities were balanced by `Damped(alpha=0.1)`." in text
    assert "- **Modality balance:** `Damped(alpha=0.1)`\n" in text and "the label loss alone" not in text


def test_a_student_of_features_is_told_with_the_labels_that_it_had(tmp_path):
    features = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    data = with_sample_ids(Dataset.from_dict({"features": features.tolist(), "labels": [0.5, 1.5, None, None] * 3}))
    trainer = CoLearningTrainer(
        CoLearningForFeatureClassification.from_backbone(FeatureBackboneConfig(feature_dim=3), 24, num_labels=1),
        tiny.arguments(str(tmp_path), max_steps=2), train_dataset=data, eval_dataset=data.select(range(8)),
        bank=tiny.bank(12), compute_metrics=regression_metrics(),
    )  # fmt: skip
    trainer.train()
    measured = trainer.evaluate()
    trainer.save_model(str(tmp_path))
    trainer.create_model_card(model_name="Values")
    record, card = TrainingRecord.load(tmp_path), ModelCard.load(tmp_path / "README.md")
    assert record.problem_type == "regression" and record.scores.keys() == {"r2", "mse", "pearson"}
    assert record.training_samples == {"num_train": 12, "num_labelled": 6, "num_paired": 12}
    assert record.scores["mse"] == measured["eval_mse"] and "(4 samples)" in card.text
    assert "6 of 12 samples labelled, 12 paired" in card.text and "regression on precomputed features" in card.text


def test_a_model_of_ones_own_keeps_trainers_draft(tmp_path):
    trainer = CoLearningTrainer(ViTForImageClassification(tiny.vit()), tiny.arguments(str(tmp_path)))
    trainer.create_model_card(model_name="stock")
    assert "generated_from_trainer" in ModelCard.load(tmp_path / "README.md").data.tags
    trainer.save_model(str(tmp_path))
    assert json.loads((tmp_path / "colearning.json").read_text())["objective"] is None


def test_trainers_draft_does_not_link_a_loader_of_files(tmp_path):
    data = tiny.digits(8)
    data.info.builder_name = "imagefolder"
    trainer = CoLearningTrainer(
        ViTForImageClassification(tiny.vit(num_labels=10)), tiny.arguments(str(tmp_path), max_steps=1), train_dataset=data,
        eval_dataset=data, compute_metrics=lambda prediction: {"accuracy": np.float32(0.5)},
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()
    trainer.create_model_card()
    assert "datasets" not in ModelCard.load(tmp_path / "README.md").data.to_dict()
    trainer.create_model_card(dataset_tags="me/digits", dataset="digits")
    result = yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])["model-index"][0]["results"][0]
    assert result["metrics"] == [{"name": "Accuracy", "type": "accuracy", "value": 0.5}]
