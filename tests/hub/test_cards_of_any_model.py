"""The card that a trainer writes of any model, objective, metric and data set: every sentence and number of it is true."""

import math

import numpy as np
import peft
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ViTForImageClassification

import tiny
from docstrings import run_example
from hf_colearn import (
    CoLearningForAudioClassification,
    CoLearningForFeatureClassification,
    CoLearningForImageClassification,
    CoLearningForMultimodalClassification,
    CoLearningForSequenceClassification,
    CoLearningTrainer,
    Combined,
    Consistency,
    ConstantTarget,
    ContrastiveAlignment,
    DistributionAlignment,
    FeatureBackboneConfig,
    LatentMatching,
    MisalignedPairs,
    MultimodalCollator,
    SoftLabels,
    Teacher,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.hub.card_words import objectives_in_words
from hf_colearn.hub.model_kind import ModelKind
from hf_colearn.hub.record import TrainingRecord
from hf_colearn.hub.scores import finite_scalars
from hf_colearn.models.lora import with_lora
from refusals import Refusals, assert_refused


class Plain(nn.Module):
    """A user's own, without a configuration."""

    def __init__(self):
        super().__init__()
        self.encoder, self.classifier = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, pixel_values, labels=None):
        z_BD = self.encoder(pixel_values.flatten(1))
        logits_BC = self.classifier(z_BD)
        loss = None if labels is None else nn.functional.cross_entropy(logits_BC, labels)
        return {"loss": loss, "logits": logits_BC, "latents": z_BD}


class OwnConfig(PreTrainedConfig):
    model_type = "a_users_own"


class Own(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.inner = Plain()
        self.post_init()

    def forward(self, pixel_values, labels=None):
        return self.inner(pixel_values, labels)


class OwnStudent(CoLearningForImageClassification):
    """A user's own, on top of one of ours."""


class OwnObjective:
    terms = ("norm",)

    def __call__(self, outputs, batch):
        return {"norm": outputs["latents"].square().mean()}


DIGITS = tiny.digits(16)


def columns(**given):
    return with_sample_ids(Dataset.from_dict({**given, "labels": [0, 1] * 4}))


def features():
    data = columns(features=np.random.default_rng(0).normal(size=(8, 3)).tolist())
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=3), 24, num_labels=2
    ), data


def text():
    data = columns(input_ids=[[1, 2, 3]] * 8)
    return CoLearningForSequenceClassification.from_backbone(tiny.bert(), latent_dim=24, num_labels=2), data


def audio():
    data = columns(input_values=np.random.default_rng(0).normal(size=(8, 800)).tolist())
    return CoLearningForAudioClassification.from_backbone(tiny.wav2vec2(), latent_dim=24, num_labels=2), data


def multimodal():
    pixels = DIGITS[:8]["pixel_values"].numpy()
    both = {"image": tiny.vit(), "audio": tiny.vit()}
    model = CoLearningForMultimodalClassification.from_backbones(both, latent_dim=4, num_labels=2)
    return model, columns(image_pixel_values=pixels, audio_pixel_values=pixels)


def adapted(model):
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    return peft.get_peft_model(model, config)


MODELS = {  # builds, then pipeline tag, library, and how the card says that it is loaded
    "images": (tiny.student, "image-classification", "transformers", "AutoModelForImageClassification.from_pretrained("),
    "features": (features, None, "transformers", "CoLearningForFeatureClassification.from_pretrained("),
    "text": (text, "text-classification", "transformers", "AutoModelForSequenceClassification.from_pretrained("),
    "audio": (audio, "audio-classification", "transformers", "AutoModelForAudioClassification.from_pretrained("),
    "multimodal": (multimodal, None, "transformers", "CoLearningForMultimodalClassification.from_pretrained("),
    "LoRA": (lambda: with_lora(tiny.student(), rank=2), "image-classification", "peft", "PeftModel.from_pretrained(base"),
    "stock": (lambda: ViTForImageClassification(tiny.vit(num_labels=10)), "image-classification", "transformers",
              "from transformers import ViTForImageClassification\n\nmodel = ViTForImageClassification.from_pretrained("),
    "stock with PEFT": (lambda: adapted(ViTForImageClassification(tiny.vit(num_labels=10))), "image-classification",
                        "peft", "PeftModel.from_pretrained(base"),
    "one's own": (lambda: Own(OwnConfig(num_labels=10)), None, "transformers", "Own.from_pretrained("),
    "one's own student": (lambda: OwnStudent.from_backbone(tiny.vit(), latent_dim=24, num_labels=10), None, "transformers",
                          "OwnStudent.from_pretrained("),
    "a module": (Plain, None, None, "model.load_state_dict(load_file(weights))"),
}  # fmt: skip


class LossOnLogits:
    """An auxiliary term that every classifier can have."""

    terms = ("entropy",)

    def __call__(self, outputs, batch):
        logits = outputs["logits"]
        return {"entropy": -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_card_that_says_how_it_is_loaded(name, tmp_path):
    build, pipeline_tag, library, loaded = MODELS[name]
    made = build()
    model, data = made if isinstance(made, tuple) else (made, DIGITS)
    collator = MultimodalCollator({"image": None, "audio": None}) if name == "multimodal" else None
    trainer = CoLearningTrainer(
        model, tiny.arguments(tmp_path), train_dataset=data, eval_dataset=data.select(range(2)), data_collator=collator,
        objective=LossOnLogits(), compute_metrics=lambda prediction: {"accuracy": 0.5},
    )  # fmt: skip
    trainer.evaluate()
    trainer.create_model_card(model_name=name, tags=["mine"])
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert (data.get("pipeline_tag"), data.get("library_name"), data.get("license")) == (pipeline_tag, library, None)
    assert [result.metric_value for result in card.data.eval_results] == [0.5] and "mine" in card.data.tags
    assert loaded in card.text and "it learned from a loss of its own, `LossOnLogits`" in card.text
    assert TrainingRecord.load(tmp_path).scores == {"accuracy": 0.5}
    # The same is found in the folder, but for the class of a plain module, which no file names.
    trainer.save_model()
    found, known = ModelKind.of_folder(tmp_path), ModelKind.of_model(model)
    assert (found.class_name or "Plain", found.pipeline_tag) == (known.class_name, known.pipeline_tag)
    assert (found.is_ours, found.is_pretrained, found.is_adapter) == (
        known.is_ours, known.is_pretrained, known.is_adapter,
    )  # fmt: skip


# ---- what it learned from ----
@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (LatentMatching(), ["its latents were pulled to those of a frozen teacher"]),
        (SoftLabels("a"), ["its predictions were pulled to the class probabilities of a frozen teacher"]),
        (
            Consistency(0.9),
            ["its predictions of two views of a sample were pulled together, for which no teacher is needed"],
        ),
        (ContrastiveAlignment(direct=True), ["a contrastive loss pulled the modalities of a sample together"]),
        (OwnObjective(), ["it learned from a loss of its own, `OwnObjective`"]),
        (
            Combined(DistributionAlignment(), OwnObjective()),
            [
                "the predictions of its modalities were pulled together",
                "it learned from a loss of its own, `OwnObjective`",
            ],
        ),
        (
            MisalignedPairs(ContrastiveAlignment()),
            [
                "a contrastive loss pulled the modalities of a sample together",
                "as a null control, the pairs of modalities were misaligned",
            ],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_objective_is_called_what_it_is(objective, told):
    record = TrainingRecord.of(tiny.arguments(), [], objective)
    assert objectives_in_words(record.objective) == told and " at 0x" not in record.objective


def test_teachers_are_told_by_the_trainer_itself(tmp_path):
    probabilities = TeacherBank.from_latents(np.full((16, 10), 0.1, dtype=np.float32), teacher="org/classes")
    teachers = {
        "text": Teacher(TeacherBank.from_latents(np.eye(16, 24), teacher="/home/me/bert"), ConstantTarget()),
        "classes": Teacher(probabilities.scaled("none")),
    }
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(tmp_path, latent_scaling="none"), train_dataset=DIGITS, teachers=teachers,
        objective=Combined(LatentMatching(teachers=("text",)), SoftLabels("classes")),
    )  # fmt: skip
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert "**Teacher:** text: bert; classes: org/classes\n" in text and "/home/me" not in text
    assert (
        "text: `ConstantTarget`, a null control: its targets carry none of the teacher's content; classes: `Paired`"
        in text
    )
    assert (
        "those of frozen teachers; its predictions were pulled to the class probabilities of frozen teachers." in text
    )
    assert "Did the teacher help?" in text and "Not evaluated yet." in text


def test_a_baseline_is_not_said_to_have_a_teacher(tmp_path):
    CoLearningTrainer(tiny.student(), tiny.arguments(tmp_path), train_dataset=DIGITS).create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert "It was trained with the label loss alone." in text and "comparison with a baseline" in text
    assert "Did the teacher help?" not in text and "Teacher:" not in text


# ---- the scores ----
ANY = {
    "accuracy": np.float32(0.5),
    "of_torch": torch.tensor(0.25),
    "of_numpy": np.array(3),
    "nats_per_token": 1.5,  # and no access token, which records leave out
    "by_class": [0.1, 0.9],
    "confusion": np.eye(2),
    "by_name": {"cats": 0.5},
    "word": "good",
    "nothing": None,
    "nan": float("nan"),
    "infinite": -math.inf,
    "flag": True,
    "its_flag": np.bool_(True),
}


def test_finite_scalars_are_scores_and_the_rest_is_noted(tmp_path):
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(tmp_path), eval_dataset=DIGITS, compute_metrics=lambda prediction: ANY
    )
    trainer.evaluate()
    trainer.create_model_card()
    record, content = TrainingRecord.load(tmp_path), (tmp_path / "README.md").read_text()
    assert record.scores == {"accuracy": 0.5, "of_torch": 0.25, "of_numpy": 3, "nats_per_token": 1.5}
    assert record.other_scores == {
        "by_class": "2 values", "confusion": "2 x 2 values", "by_name": "by name: cats", "word": "good",
        "nothing": "None", "nan": "nan", "infinite": "-inf", "flag": "True", "its_flag": "True",
    }  # fmt: skip
    metadata = yaml.safe_load(content.split("---\n")[1])["model-index"][0]["results"][0]
    assert {metric["type"]: metric["value"] for metric in metadata["metrics"]} == record.scores
    assert "no score that a table could hold: `by_class` (2 values), `confusion` (2 x 2 values)" in content
    # An earlier version wrote such metrics among the scores, and could not read its own record.
    path = tmp_path / "colearning.json"
    path.write_text(path.read_text().replace('"of_numpy": 3', '"of_numpy": null, "old": [1, 2], "worse": "0.5"'))
    again = TrainingRecord.load(tmp_path)
    assert again.scores == {"accuracy": 0.5, "of_torch": 0.25, "nats_per_token": 1.5}
    assert {name: again.other_scores[name] for name in ("of_numpy", "old", "worse")} == {
        "of_numpy": "None", "old": "2 values", "worse": "0.5",
    }  # fmt: skip


def test_the_example_of_finite_scalars_runs():
    run_example(finite_scalars)


def accuracies(*values):
    values = iter(values)
    return lambda prediction: {"accuracy": next(values)}


def card_of(trainer, folder):
    trainer.create_model_card()
    return {result.metric_name: result for result in ModelCard.load(folder / "README.md").data.eval_results}


def test_the_scores_are_of_the_weights_that_are_saved(tmp_path):
    # The best of three evaluations is the second, and its weights are loaded in the end; 0.1 is not what is published.
    arguments = tiny.arguments(
        tmp_path, max_steps=3, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="accuracy", save_only_model=True,
    )  # fmt: skip
    trainer = CoLearningTrainer(
        tiny.student(), arguments, train_dataset=DIGITS, eval_dataset=DIGITS,
        compute_metrics=accuracies(0.3, 0.9, 0.1, 0.8),
    )  # fmt: skip
    trainer.train()
    assert card_of(trainer, tmp_path)["Accuracy"].metric_value == 0.9
    trainer.evaluate()
    assert card_of(trainer, tmp_path)["Accuracy"].metric_value == 0.8


def test_scores_of_earlier_weights_are_said_to_be_so(tmp_path):
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(tmp_path, max_steps=3, eval_on_start=True), train_dataset=DIGITS,
        eval_dataset=DIGITS, compute_metrics=accuracies(0.3),
    )  # fmt: skip
    trainer.train()
    card_of(trainer, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "(16 samples). It was measured after step 0 of 3, and the training went on from there." in text


# ---- the data ----
def test_the_data_are_those_that_were_evaluated(tmp_path):
    test = tiny.digits(5)
    test.info.dataset_name, test._split = "penguins", "test"
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(tmp_path), eval_dataset=DIGITS, compute_metrics=accuracies(0.25)
    )
    trainer.evaluate(test)  # and not the trainer's own
    result = card_of(trainer, tmp_path)["Accuracy"]
    assert (result.dataset_name, result.dataset_type, result.dataset_split) == ("penguins", "penguins", "test")
    assert "Measured on penguins, split `test` (5 samples)." in (tmp_path / "README.md").read_text()


def test_several_data_sets_are_told_apart(tmp_path):
    data = {"day": tiny.digits(4), "night": tiny.digits(6)}
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(tmp_path), eval_dataset=data, compute_metrics=accuracies(0.5, 0.25)
    )
    trainer.evaluate()
    found = {name: result.metric_value for name, result in card_of(trainer, tmp_path).items()}
    assert found == {"accuracy_on_day": 0.5, "accuracy_on_night": 0.25}
    assert (
        "Measured on 2 data sets (day: 4, night: 6), split `evaluation` (10 samples)."
        in (tmp_path / "README.md").read_text()
    )


def test_a_stream_has_scores_of_an_unknown_number_of_samples(tmp_path):
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments(tmp_path), eval_dataset=DIGITS.to_iterable_dataset(),
        compute_metrics=accuracies(0.5),
    )  # fmt: skip
    trainer.evaluate()
    assert card_of(trainer, tmp_path)["Accuracy"].metric_value == 0.5
    assert "(an unknown number of samples)" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("given", "linked", "kind"),
    [("me/digits", ["me/digits"], "me/digits"), ("pictures/emoji", None, "emoji"), (["word"], None, "word")],
)
def test_a_folder_is_never_linked_as_a_data_set_of_the_hub(tmp_path, monkeypatch, given, linked, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "emoji").mkdir(parents=True)
    trainer = CoLearningTrainer(
        tiny.student(), tiny.arguments("out"), eval_dataset=DIGITS, compute_metrics=accuracies(0.5)
    )
    trainer.evaluate()
    trainer.create_model_card(dataset_tags=given, dataset="eight classes of emoji")
    card = ModelCard.load("out/README.md")
    assert card.data.to_dict().get("datasets") == linked
    assert [(r.dataset_type, r.dataset_name) for r in card.data.eval_results] == [(kind, "eight classes of emoji")]


STRANGE = ['say "no"', "two\nlines", "a|b", "a`b", "key: yes", "no", "12", "ünï – 猫", "---", "{{ x }} {% y %}"]


def test_class_names_of_any_kind_are_told_in_one_line(tmp_path):
    student = tiny.student()
    student.config.id2label = dict(enumerate(STRANGE))
    trainer = CoLearningTrainer(student, tiny.arguments(tmp_path), train_dataset=DIGITS)
    trainer.save_model()
    trainer.create_model_card(model_name="a: 'b' # c\nd")
    card = ModelCard.load(tmp_path / "README.md")
    told = next(line for line in card.text.splitlines() if line.startswith("10 classes: "))
    assert told == (
        '10 classes: `say "no"`, `two lines`, `a|b`, `` a`b ``, `key: yes`, `no`, `12`, `ünï – 猫`, `---`, `{{ x }} {% y %}`.'
    )
    assert "# a: 'b' # c d\n" in card.text and card.data.pipeline_tag == "image-classification"


def test_of_many_classes_the_first_are_named(tmp_path):
    student = tiny.student(num_labels=1200)
    student.config.id2label = {number: f"class {number}" for number in range(1200)}
    CoLearningTrainer(student, tiny.arguments(tmp_path), train_dataset=DIGITS).save_model()
    CoLearningTrainer(student, tiny.arguments(tmp_path), train_dataset=DIGITS).create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert (
        "1,200 classes: `class 0`, " in text
        and "`class 19` and 1,180 more, which `model.config.id2label` has." in text
    )
    assert "class 20" not in text


# ---- refused ----
refusals = Refusals()


def a_trainer(folder, **options):
    return CoLearningTrainer(tiny.student(), tiny.arguments(folder / "out", **options), train_dataset=DIGITS)


@refusals.case(ValueError, "dataset_tags='a/b/c'", "'owner/name'")
def a_data_set_that_no_hub_has(folder):
    trainer = a_trainer(folder)
    yield
    trainer.create_model_card(dataset_tags="a/b/c")


@refusals.case(ValueError, "finetuned_from='me/my model'", "'me/digits'")
def a_base_model_with_a_space(folder):
    trainer = a_trainer(folder)
    yield
    trainer.create_model_card(finetuned_from="me/my model")


@refusals.case(ValueError, "hub_model_id='a/b/c'", "'owner/name' or 'name'", "96 characters at most")
def a_trainer_that_pushes_to_no_repository(folder):
    yield
    a_trainer(folder, push_to_hub=True, hub_model_id="a/b/c")


@refusals.case(ValueError, "output_dir='my runs'", "hub_model_id", "'me/digits'")
def a_folder_whose_name_no_repository_can_have(folder):
    trainer = CoLearningTrainer(tiny.student(), tiny.arguments(folder / "my runs"), train_dataset=DIGITS)
    yield
    trainer.push_to_hub()


@refusals.case(ValueError, "hub_revision='v 1'", "'main' or 'v1.0'")
def a_branch_with_a_space_to_push_to_while_training(folder):
    yield
    a_trainer(folder, push_to_hub=True, hub_model_id="me/x", hub_revision="v 1")


@refusals.case(ValueError, "revision='v1..v2'", "'main' or 'v1.0'")
def a_range_for_a_branch(folder):
    trainer = a_trainer(folder)
    yield
    trainer.push_to_hub(revision="v1..v2")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
