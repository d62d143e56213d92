import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback
from transformers.modeling_outputs import ModelOutput

import processes
import tiny
from hf_colearn import (
    CoLearningBatch,
    CoLearningForFeatureClassification,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
)
from hf_colearn.data.multimodal import MultimodalCollator
from hf_colearn.evaluation.modality_metrics import (
    LabelAlignment,
    ModalityAccuracy,
    ModalityError,
    ModalityF1,
    ModalityGap,
    label_cosines,
)
from hf_colearn.models.lora import with_lora


@dataclass
class Output(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    modality_logits: dict | None = None
    modality_latents: dict | None = None
    modality_mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None


class TwoSenses(nn.Module):
    """Latents are the inputs themselves, logits the latents times a weight: what a log must hold can be counted."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image_features, audio_features, labels=None, modality_mask=None):
        latents = {"image": image_features, "audio": audio_features}
        logits = {name: z_BD * self.scale for name, z_BD in latents.items()}
        fused = sum(logits.values())
        loss = None
        if labels is not None:
            target = labels.argmax(dim=-1) if labels.is_floating_point() else labels
            loss = nn.functional.cross_entropy(fused, target)
        return Output(loss, fused, logits, latents, modality_mask, labels)


def see(metrics, model, outputs, labels=None):
    """As the trainer shows a callback the outputs of a step."""
    metrics.on_outputs(outputs, CoLearningBatch(labels), model, model.training)


def senses(image, audio, labels=None, mask=None):
    columns = {"image_features": np.float32(image), "audio_features": np.float32(audio)}
    columns["labels"] = np.zeros(len(image), dtype=np.int64) if labels is None else labels
    columns |= {} if mask is None else {"modality_mask": mask}
    return Dataset.from_dict(columns).with_format("torch")


def trainer_of(callbacks, train=None, evaluated=None, model=None, compute_loss_func=None, **kwargs):
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, **kwargs}
    args = tiny.arguments("out", **settings)
    data = {"train_dataset": train, "eval_dataset": evaluated}
    return CoLearningTrainer(
        model or TwoSenses(), args, callbacks=callbacks, compute_loss_func=compute_loss_func, **data
    )


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


# Image latents point along x at any length, audio latents along y: the means of the normalised ones are sqrt(2) apart.
ACROSS = ([[1, 0], [5, 0], [2, 0], [0.1, 0]], [[0, 3], [0, 1], [0, 9], [0, 2]])
# Means (1/2, 1/2) and (0, 1/2): half apart.
HALF = ([[4, 0], [0, 7], [1, 0], [0, 1]], [[0, 2], [0, 3], [0, -1], [0, 1]])


# ---- the modality gap ----


def test_gap_is_the_distance_of_the_mean_normalised_latents_in_training_and_in_evaluation():
    trainer = trainer_of([ModalityGap()], senses(*ACROSS), senses(*HALF), eval_strategy="steps", eval_steps=2)
    trainer.train()
    assert logged(trainer, "modality_gap_image_audio") == pytest.approx([2**0.5, 2**0.5])
    assert logged(trainer, "eval_modality_gap_image_audio") == pytest.approx([0.5])
    assert logged(trainer, "eval_loss"), "an evaluation keeps its own logs"


def test_evaluation_goes_over_the_whole_set_not_batch_by_batch():
    # Single batches of 2 have gaps of 0 and sqrt(2); over all 4: means (1, 0) and (1/2, 1/2), so sqrt(1/2).
    evaluated = senses([[1, 0]] * 4, [[1, 0], [1, 0], [0, 1], [0, 1]])
    trainer = trainer_of([ModalityGap()], evaluated=evaluated)
    trainer.evaluate()
    trainer.evaluate()
    assert logged(trainer, "eval_modality_gap_image_audio") == pytest.approx([0.5**0.5] * 2)


def test_training_counts_the_samples_of_all_steps_and_micro_batches_since_the_last_log():
    train = senses(*HALF)
    whole = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "logging_steps": 2, "max_steps": 4}
    trainer = trainer_of([ModalityGap()], train, **whole)
    trainer.train()
    assert logged(trainer, "modality_gap_image_audio") == pytest.approx([0.5, 0.5])  # an epoch each


def test_absent_samples_count_for_nothing_whatever_their_latents():
    image, audio = ([[1, 0], [1, 0], [np.nan, 3]], [[0, 1], [7, 0], [0, 1]])
    mask = [[True, True], [True, False], [False, True]]
    trainer = trainer_of([ModalityGap()], evaluated=senses(image, audio, mask=mask))
    trainer.evaluate()
    assert logged(trainer, "eval_modality_gap_image_audio") == pytest.approx([2**0.5])


def test_a_pair_of_which_one_is_absent_throughout_has_no_value():
    trainer = trainer_of([ModalityGap()], evaluated=senses(*ACROSS, mask=[[True, False]] * 4))
    trainer.evaluate()
    assert logged(trainer, "eval_loss") and not logged(trainer, "eval_modality_gap_image_audio")


def test_three_modalities_have_three_gaps():
    one = torch.eye(3).repeat_interleave(2, dim=0)
    latents = dict(zip(("image", "text", "speech"), one.split(2), strict=True))
    gap = ModalityGap()
    assert gap.curves(gap.sums({"modality_latents": latents}, None, None, training=True)) == pytest.approx(
        {f"modality_gap_{pair}": 2**0.5 for pair in ("image_text", "image_speech", "text_speech")}
    )


def test_latents_of_several_widths_are_refused():
    with pytest.raises(ValueError, match=r"one width, and they have \{'image': 2, 'audio': 3\}"):
        ModalityGap().sums(
            {"modality_latents": {"image": torch.ones(1, 2), "audio": torch.ones(1, 3)}}, None, None, True
        )


# ---- the modalities' accuracy ----


def test_accuracy_of_every_modality_is_logged_in_training_and_left_to_the_metrics_in_evaluation():
    # Image says class 0, 0, 0, 0 and audio 1, 0, 1, 1; the labels are 0, 0, 1, 1.
    data = senses([[1, 0]] * 4, [[0, 1], [1, 0], [0, 1], [0, 1]], [0, 0, 1, 1])
    trainer = trainer_of([ModalityAccuracy()], data, data, logging_steps=2)
    trainer.train()
    trainer.evaluate()
    assert logged(trainer, "accuracy_image") == [0.5]
    assert logged(trainer, "accuracy_audio") == [0.75]
    assert not logged(trainer, "eval_accuracy_image")


def test_soft_labels_count_by_their_largest_entry_and_ignored_or_absent_samples_not_at_all():
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    outputs = {"modality_logits": {"image": logits, "audio": -logits}}
    accuracy = ModalityAccuracy()

    def of(labels, **kwargs):
        return accuracy.curves(accuracy.sums({**outputs, **kwargs}, labels, None, training=True))

    soft = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert of(soft) == pytest.approx({"accuracy_image": 2 / 3, "accuracy_audio": 1 / 3})
    assert of(torch.tensor([0, -100, 1])) == {"accuracy_image": 0.5, "accuracy_audio": 0.5}
    soft[1] = torch.nan
    assert of(soft) == {"accuracy_image": 0.5, "accuracy_audio": 0.5}
    presence = torch.tensor([[True, False], [True, False], [False, False]])
    assert of(torch.tensor([0, 1, 1]), modality_mask=presence) == {"accuracy_image": 0.5}


def test_labels_that_a_loss_function_keeps_from_the_model_are_missed_with_a_reason():
    def loss(outputs, labels, **kwargs):
        return outputs.logits.sum()

    # Image says class 0, 1, 0, 1 and the labels are 0, which Trainer takes from the model, not from the callbacks.
    trainer = trainer_of([ModalityAccuracy()], senses(*HALF), compute_loss_func=loss, logging_steps=2)
    trainer.train()
    assert logged(trainer, "accuracy_image") == [0.5]


def test_f1_of_every_modality_is_over_the_entries_that_have_a_label():
    labels = torch.tensor([[1.0, 0.0], [1.0, -100], [torch.nan, torch.nan], [0.0, 1.0]])
    image = torch.tensor([[2.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, 3.0]])
    present = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    outputs = {"modality_logits": {"image": image, "audio": -image}, "modality_mask": present}
    f1 = ModalityF1()
    # image: TP (0,0), (3,1); FP (0,1); FN (1,0) -> 4 / (4 + 1 + 1); audio, without sample 3: TP (1,0); FN (0,0) -> 2 / 3
    sums = f1.sums(outputs, labels, None, training=True)
    assert f1.curves(sums) == pytest.approx({"f1_micro_image": 2 / 3, "f1_micro_audio": 2 / 3})
    nothing = {name: value * 0 for name, value in sums.items()}
    assert f1.curves(nothing) == {} and f1.sums(outputs, labels, None, training=False) == {}


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_the_error_of_every_modality_is_over_the_samples_that_have_a_label(shape):
    labels = torch.tensor([1.0, 2.0, torch.nan, 5.0]).reshape(shape)
    values = torch.tensor([[1.0], [4.0], [7.0], [8.0]])
    present = torch.tensor([[True, True], [True, True], [True, True], [False, True]])
    outputs = {"modality_logits": {"image": values, "audio": values + 1}, "modality_mask": present}
    error = ModalityError()
    # image: 0, 4; audio: 1, 9, 16
    found = error.curves(error.sums(outputs, labels, None, training=True))
    assert found == pytest.approx({"mse_image": 2, "mse_audio": 26 / 3})


@pytest.mark.parametrize(
    ("problem", "good", "bad"),
    [
        ("single_label_classification", ModalityAccuracy, ModalityF1),
        ("multi_label_classification", ModalityF1, ModalityError),
        ("regression", ModalityError, ModalityAccuracy),
    ],
)
def test_a_modalitys_metric_is_refused_before_the_first_step_of_another_problem(problem, good, bad):
    labels = {"single_label_classification": [0, 1, 1, 0], "regression": [0.5, 1.0, 2.0, None]}
    labels["multi_label_classification"] = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [None, 1.0]]
    columns = {f"{name}_features": np.eye(4, 3, dtype=np.float32).tolist() for name in ("image", "audio")}

    def trainer(callback):
        torch.manual_seed(0)
        model = CoLearningForMultimodalClassification.from_backbones(
            {name: FeatureBackboneConfig(feature_dim=3) for name in ("image", "audio")},
            latent_dim=4,
            num_labels=1 if problem == "regression" else 2,
        )
        return CoLearningTrainer(
            model,
            tiny.arguments(max_steps=1, per_device_train_batch_size=4),
            train_dataset=Dataset.from_dict({**columns, "labels": labels[problem]}),
            data_collator=MultimodalCollator({"image": None, "audio": None}),
            callbacks=[callback],
        )

    measured = trainer(good())
    measured.train()
    assert len(logged(measured, f"{good.prefix}_image")) == 1
    refused = trainer(bad())
    with pytest.raises(ValueError, match=f"{bad.__name__} is for .*'{problem}': pass {good.__name__}\\(\\) instead"):
        refused.train()
    assert refused.state.global_step == 0


# ---- which forwards count ----


class Meddler(TrainerCallback):
    """Sends other samples through the model between the steps, as the hypergradient of a learned alpha does."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        other = {name: torch.tensor(value, dtype=torch.float32) for name, value in zip(("a", "b"), HALF, strict=True)}
        for training in (True, False):
            model.train(training)
            model(other["a"], other["b"], labels=torch.zeros(4, dtype=torch.long))
        model.train()


@pytest.mark.parametrize("order", [1, -1])
def test_forwards_that_are_no_step_do_not_count(order):
    callbacks = [ModalityGap(), Meddler()][::order]
    trainer = trainer_of(callbacks, senses(*ACROSS), senses(*ACROSS), eval_strategy="steps", eval_steps=1)
    trainer.model.eval()(*(torch.tensor(part, dtype=torch.float32) for part in HALF))  # a trial batch
    trainer.train()
    assert logged(trainer, "modality_gap_image_audio") == pytest.approx([2**0.5] * 2)
    assert logged(trainer, "eval_modality_gap_image_audio") == pytest.approx([2**0.5] * 2)


def test_predictions_do_not_reach_the_next_evaluation_and_training_not_the_evaluation_after_it():
    trainer = trainer_of([ModalityGap()], senses(*ACROSS), senses(*HALF))
    trainer.predict(senses(*ACROSS))
    trainer.evaluate()
    assert logged(trainer, "eval_modality_gap_image_audio") == pytest.approx([0.5])
    trainer.train()  # which starts another log
    trainer.evaluate()
    assert logged(trainer, "eval_modality_gap_image_audio") == pytest.approx([0.5])


def test_a_second_training_counts_every_sample_once():
    trainer = trainer_of([gap := ModalityGap()], senses(*HALF), max_steps=1, logging_steps=5)
    trainer.train()
    trainer.train()
    assert gap._sums[True]["image"][-1] == 2  # a step of 2, of the second training alone


def test_a_model_without_the_outputs_is_named_at_its_first_forward(digits):
    trainer = trainer_of([ModalityGap()], digits, model=tiny.student())
    with pytest.raises(
        ValueError, match="ModalityGap reads modality_latents .* CoLearningForImageClassification gives"
    ):
        trainer.train()
    gap = ModalityGap()
    with pytest.raises(ValueError, match="Linear gives Tensor"):
        see(gap, nn.Linear(1, 1), torch.ones(1))


def test_nothing_is_drained_where_nothing_was_counted():
    assert ModalityGap().metrics(training=True) == {}


def test_sums_carry_no_graph():
    gap, model = ModalityGap(), TwoSenses()
    image = torch.tensor(ACROSS[0], dtype=torch.float32, requires_grad=True)
    see(gap, model, model(image, torch.tensor(ACROSS[1], dtype=torch.float32)))
    assert not any(value.requires_grad for value in gap._sums[True].values())


# ---- the library's own model and trainer ----


def test_curves_of_a_multimodal_model_are_those_of_its_outputs_absent_modalities_left_out():
    torch.manual_seed(0)
    model = CoLearningForMultimodalClassification.from_backbones(
        {name: FeatureBackboneConfig(feature_dim=3) for name in ("image", "audio")}, latent_dim=4, num_labels=2
    )
    rng = np.random.default_rng(0)
    columns = {f"{name}_features": rng.normal(size=(6, 3)).astype(np.float32).tolist() for name in ("image", "audio")}
    columns["audio_features"][1] = columns["image_features"][4] = None
    labels = [0, 1, 0, 1, 1, 0]
    data = Dataset.from_dict({**columns, "labels": labels})
    trainer = CoLearningTrainer(
        model,
        tiny.arguments(max_steps=1, per_device_train_batch_size=6, per_device_eval_batch_size=4, learning_rate=0.0),
        train_dataset=data,
        eval_dataset=data,
        data_collator=MultimodalCollator({"image": None, "audio": None}),
        callbacks=[ModalityGap(), ModalityAccuracy()],
    )
    trainer.train()
    (trained,) = (entry for entry in trainer.state.log_history if "modality_gap_image_audio" in entry)
    trainer.evaluate()
    evaluated = trainer.state.log_history[-1]

    means = {}
    for name, absent in (("image", 4), ("audio", 1)):
        rows = [row for row in range(6) if row != absent]
        inputs = torch.tensor([columns[f"{name}_features"][row] for row in rows])
        with torch.no_grad():
            outputs = model.student(name).eval()(features=inputs)
        unit = outputs.latents.numpy() / np.linalg.norm(outputs.latents.numpy(), axis=1, keepdims=True)
        means[name] = unit.mean(axis=0)
        right = outputs.logits.argmax(dim=1).numpy() == np.array(labels)[rows]
        assert trained[f"accuracy_{name}"] == pytest.approx(right.mean())
    gap = np.linalg.norm(means["image"] - means["audio"])
    assert trained["modality_gap_image_audio"] == pytest.approx(gap, abs=1e-6)
    assert evaluated["eval_modality_gap_image_audio"] == pytest.approx(gap, abs=1e-6)
    assert "eval_accuracy_image" not in evaluated  # of the metrics, and there are none here


# ---- the alignment of features and labels ----


def test_label_cosines_by_hand():
    z = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0], [5.0, 5.0]])
    weight = torch.tensor([[2.0, 0.0], [0.0, 7.0]])
    # Along the weights of class 0; 45 degrees from class 1's; opposite to class 1's; any for a sample without a class.
    assert label_cosines(z, weight, torch.tensor([0, 1, 1, -100]))[:3].tolist() == pytest.approx([1, 0.5**0.5, -1])
    assert label_cosines(100 * z, 0.01 * weight, torch.tensor([1, 0, 0, 0])).tolist() == pytest.approx(
        [0, 0.5**0.5, 0, 0.5**0.5], abs=1e-6
    )


def feature_student(seed=0, **kwargs):
    torch.manual_seed(seed)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=3, hidden_dims=[5]), latent_dim=4, num_labels=3, **kwargs
    )


def two_branches(seed=0, **kwargs):
    torch.manual_seed(seed)
    backbones = {name: FeatureBackboneConfig(feature_dim=3) for name in ("image", "audio")}
    return CoLearningForMultimodalClassification.from_backbones(backbones, latent_dim=4, num_labels=3, **kwargs)


def cosine(z, w):
    return float(np.dot(z, w) / np.linalg.norm(z) / np.linalg.norm(w))


def alignment_by_hand(student, features, labels):
    """The mean over samples, one by one in numpy."""
    with torch.no_grad():
        latents = student.eval()(features=torch.as_tensor(features, dtype=torch.float32)).latents.double().numpy()
    weight = student.classifier.weight.detach().double().numpy()
    return np.mean([cosine(z, weight[label]) for z, label in zip(latents, labels, strict=True)])


FEATURES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
CLASSES = [0, 2, 1, 1, 2, 0]


def student_trainer(model, labels=CLASSES, **kwargs):
    data = Dataset.from_dict({"features": FEATURES.tolist(), "labels": labels}).with_format("torch")
    settings = {"max_steps": 1, "per_device_train_batch_size": 6, "per_device_eval_batch_size": 4, **kwargs}
    return CoLearningTrainer(
        model, tiny.arguments(**settings), train_dataset=data, eval_dataset=data, callbacks=[LabelAlignment()]
    )


def test_a_students_alignment_in_training_and_in_evaluation():
    trainer = student_trainer(feature_student(), learning_rate=0.0)
    expected = alignment_by_hand(feature_student(), FEATURES, CLASSES)
    trainer.train()
    trainer.evaluate()
    assert abs(expected) > 0.01
    assert logged(trainer, "label_alignment") == pytest.approx([expected], abs=1e-6)
    assert logged(trainer, "eval_label_alignment") == pytest.approx([expected], abs=1e-6)


def test_the_weights_are_those_of_the_step_not_of_the_log():
    # One log of two steps of full batches: the mean of the alignment before and after the first update.
    singly = student_trainer(feature_student(), max_steps=2, learning_rate=0.1)
    singly.train()
    before, after = logged(singly, "label_alignment")
    assert abs(before - after) > 0.02
    assert before == pytest.approx(alignment_by_hand(feature_student(), FEATURES, CLASSES), abs=1e-6)
    together = student_trainer(feature_student(), max_steps=2, learning_rate=0.1, logging_steps=2)
    together.train()
    assert logged(together, "label_alignment") == pytest.approx([(before + after) / 2], abs=1e-5)


def test_training_points_the_features_at_their_labels():
    trainer = student_trainer(feature_student(), max_steps=60, learning_rate=0.03, logging_steps=20)
    trainer.train()
    first, *_, last = logged(trainer, "label_alignment")
    assert last > first + 0.1


@pytest.mark.parametrize("fusion", ["concat", "sum", "mmtm"])
def test_every_modality_is_held_against_its_own_head_and_only_where_it_is_present(fusion):
    columns = {"image_features": FEATURES.tolist(), "audio_features": (FEATURES[::-1] ** 2).tolist()}
    columns["image_features"][4] = columns["audio_features"][1] = None
    data = Dataset.from_dict({**columns, "labels": CLASSES})
    trainer = CoLearningTrainer(
        two_branches(fusion=fusion),
        tiny.arguments(max_steps=1, per_device_train_batch_size=6, per_device_eval_batch_size=4, learning_rate=0.0),
        train_dataset=data,
        eval_dataset=data,
        data_collator=MultimodalCollator({"image": None, "audio": None}),
        callbacks=[LabelAlignment()],
    )
    trainer.train()
    trainer.evaluate()
    for name, absent in (("image", 4), ("audio", 1)):
        rows = [row for row in range(6) if row != absent]
        (trained,) = logged(trainer, f"label_alignment_{name}")
        assert logged(trainer, f"eval_label_alignment_{name}") == pytest.approx([trained], abs=1e-6)
        if fusion == "mmtm":  # whose gates a encoder alone does not have
            assert -1 < trained < 1
            continue
        features = [columns[f"{name}_features"][row] for row in rows]
        expected = alignment_by_hand(two_branches(fusion=fusion).student(name), features, np.take(CLASSES, rows))
        assert trained == pytest.approx(expected, abs=1e-6)


def test_soft_labels_align_by_their_largest_entry_and_ignored_ones_not_at_all():
    model, features = feature_student(), torch.from_numpy(FEATURES)

    def aligned(labels):
        with torch.no_grad():
            outputs = model(features=features)
        curves = LabelAlignment()
        see(curves, model, outputs, labels)
        return curves.metrics(model.training)

    soft = torch.full((6, 3), 0.2).scatter(1, torch.tensor(CLASSES)[:, None], 0.6)
    expected = alignment_by_hand(feature_student(), FEATURES, CLASSES)
    assert aligned(soft) == pytest.approx({"label_alignment": expected}, abs=1e-6)
    ignored = torch.tensor([*CLASSES[:4], -100, -100])
    expected = alignment_by_hand(feature_student(), FEATURES[:4], CLASSES[:4])
    assert aligned(ignored) == pytest.approx({"label_alignment": expected}, abs=1e-6)
    assert aligned(torch.full((6,), -100)) == {}


def test_a_prediction_without_labels_adds_nothing_and_is_not_refused():
    trainer = student_trainer(feature_student(), learning_rate=0.0)
    trainer.train()
    unlabelled = Dataset.from_dict({"features": FEATURES.tolist()}).with_format("torch")
    assert trainer.predict(unlabelled).predictions.shape == (6, 3)
    trainer.model.eval()(features=torch.from_numpy(FEATURES))
    trainer.evaluate()
    assert logged(trainer, "eval_label_alignment") == pytest.approx(logged(trainer, "label_alignment"), abs=1e-6)


def test_under_peft_it_is_the_trained_copy_of_the_classifier_that_counts():
    peft = with_lora(feature_student(), rank=2)
    assert peft.get_base_model().classifier.modules_to_save is not None
    trainer = student_trainer(peft, max_steps=3, learning_rate=0.1)
    trainer.train()
    trainer.evaluate()
    merged = copy.deepcopy(trainer.model).merge_and_unload()
    expected = alignment_by_hand(merged, FEATURES, CLASSES)
    assert logged(trainer, "eval_label_alignment") == pytest.approx([expected], abs=1e-5)
    untouched = trainer.model.get_base_model().classifier.original_module.weight
    assert (untouched - merged.classifier.weight).abs().max() > 0.05


def test_a_resumed_run_logs_the_alignment_of_an_uninterrupted_one(tmp_path):
    settings = {
        "max_steps": 4,
        "learning_rate": 0.1,
        "output_dir": tmp_path,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    whole = student_trainer(feature_student(), **settings)
    whole.train()
    resumed = student_trainer(feature_student(seed=1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(logged(whole, "label_alignment")) == 4
    assert logged(resumed, "label_alignment") == logged(whole, "label_alignment")


def lora_classifier():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(feature_student(), LoraConfig(target_modules=["classifier"]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: tiny.student(head="auxiliary", num_labels=3), "head='auxiliary' reads the backbone's features: use"),
        (lambda: feature_student(classifier_dim=5), r"the student's is two layers \(classifier_dim\)"),
        (lora_classifier, "the student's is peft's Linear: make it a single linear layer .*modules_to_save"),
        (lambda: feature_student(problem_type="regression"), "problem_type='regression': leave"),
        (lambda: two_branches(problem_type="multi_label_classification"), "problem_type='multi_label_classification'"),
    ],
)
def test_a_model_without_a_row_of_weights_for_the_latent_is_refused(model, message):
    model = model()
    latents = torch.ones(2, 4)
    outputs = {"latents": latents, "modality_latents": {"image": latents, "audio": latents}}
    with pytest.raises(ValueError, match=message):
        see(LabelAlignment(), model, outputs, torch.tensor([0, 1]))


def test_another_model_missing_labels_and_sharded_weights_are_named():
    alignment, labels = LabelAlignment(), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="co-learning student's classifier, and Identity is none"):
        see(alignment, nn.Identity(), {"latents": torch.ones(2, 4)}, labels)
    with pytest.raises(ValueError, match="LabelAlignment found no labels in a training batch"):
        see(alignment, feature_student(), {"latents": torch.ones(2, 4)})
    sharded = feature_student()
    sharded.classifier.weight.data = torch.empty(0)
    with pytest.raises(ValueError, match=r"of shape \(0,\), and not \(3, 4\): they are spread over processes"):
        see(alignment, sharded, {"latents": torch.ones(2, 4)}, labels)


# ---- several processes ----

TWO_PROCESSES = """
import json, os
import torch
import torch.distributed as dist
from hf_colearn.evaluation.modality_metrics import LabelAlignment, ModalityGap
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.objectives.objective import CoLearningBatch


def see(metrics, model, outputs, labels=None):
    metrics.on_outputs(outputs, CoLearningBatch(labels), model, model.training)


rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
gap = ModalityGap()
model = torch.nn.Identity().train()
share = slice(0, 3) if rank == 0 else slice(3, 4)
image = torch.tensor([[4.0, 0], [0, 7], [1, 0], [0, 1]])[share]
audio = torch.tensor([[0.0, 2], [0, 3], [0, -1], [0, 1]])[share]
see(gap, model, {"modality_latents": {"image": image, "audio": audio}})
found = [gap.metrics(training=True)]
if rank == 0:
    see(gap, model.eval(), {"modality_latents": {"image": image, "audio": audio}})
found.append(gap.metrics(training=False))
alignment = LabelAlignment()
student = CoLearningForFeatureClassification.from_backbone(FeatureBackboneConfig(feature_dim=1), 2, num_labels=2)
student.classifier.weight.data = torch.eye(2)
see(alignment, student.train(), {"latents": image}, torch.tensor([0, 1, 1, 1])[share])
found.append(alignment.metrics(training=True))
json.dump(found, open(f"found_{rank}.json", "w"))
dist.destroy_process_group()
"""


def test_two_processes_log_what_one_would_even_where_one_has_seen_nothing(tmp_path):
    (tmp_path / "two_processes.py").write_text(TWO_PROCESSES)
    processes.forked(tmp_path / "two_processes.py", folder=tmp_path, processes=2)
    for rank in range(2):
        training, evaluation, aligned = json.loads((tmp_path / f"found_{rank}.json").read_text())
        # HALF, three samples on one process and one on the other: a mean of the processes' gaps would be another.
        assert training == pytest.approx({"modality_gap_image_audio": 0.5})
        # The first three alone: means (2/3, 1/3) and (0, 1/3).
        assert evaluation == pytest.approx({"modality_gap_image_audio": 2 / 3})
        # The latents lie along the axes, as the weights do: cosines of 1, 1, 0 and, on the other process, 1.
        assert aligned == pytest.approx({"label_alignment": 3 / 4})
