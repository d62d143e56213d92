"""Next-step prediction: its arithmetic by hand, what the steps of an input are, and models that see too much."""

import math

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import GPT2Config, PrinterCallback

import tiny
from docstrings import run_example
from hf_colearn import (
    CoLearningForManyTasks,
    CoLearningForSequenceClassification,
    CoLearningTrainer,
    ConstantAlpha,
    NextStepPrediction,
    UnpairedBatches,
)
from hf_colearn.models.stems import make_stem
from hf_colearn.models.trunk_configuration import check_stem
from hf_colearn.objectives.next_step_prediction import TERM, next_step_loss, shown_at, width_of
from hf_colearn.objectives.objective import CoLearningBatch
from mechanism_cases import copied, frames, student
from tiny_tasks import DROPOUT, STEMS, TRUNK, task_data


CHECKED = {name: check_stem(name, stem) for name, stem in STEMS.items()}
TOKENS = {"kind": "tokens", "vocab_size": 7, "max_length": 5}
WIDTHS = {"image": 4, "speech": 6, "text": 7}


def test_it_is_the_mean_over_steps_with_a_next_one_then_over_samples_by_hand():
    run_example(next_step_loss)
    shown = torch.tensor([[[9.0], [1.0], [3.0]], [[9.0], [2.0], [50.0]], [[9.0], [50.0], [50.0]]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    predicted = torch.tensor([[[0.0], [1.0], [99.0]]] * 3, requires_grad=True)
    # ((0 - 1)^2 + (1 - 3)^2) / 2 of the first, (0 - 2)^2 of the second, the third has one step: (2.5 + 4 + 0) / 3
    loss = next_step_loss(predicted, shown, mask, normalized=False)
    assert loss.item() == pytest.approx((2.5 + 4) / 3)
    loss.backward()
    assert predicted.grad.squeeze(-1).ne(0).tolist() == [[True, True, False], [True, False, False], [False] * 3]


def test_a_step_of_values_is_normalised_by_its_own_mean_and_variance():
    # (1, 3) is (-1, 1), and (10, 10) is (0, 0): from (0, 0) they are 1 and 0 away.
    shown = torch.tensor([[[7.0, 7.0], [1.0, 3.0], [10.0, 10.0]]])
    loss = next_step_loss(torch.zeros(1, 3, 2), shown, torch.ones(1, 3, dtype=torch.bool))
    assert loss.item() == pytest.approx(0.5, abs=1e-5)


def test_tokens_have_the_cross_entropy_of_the_next_one():
    # Logits (ln 3, 0): 3/4 and 1/4. From both first positions id 1; the last is padding.
    logits = torch.tensor([[[math.log(3), 0.0]] * 4])
    ids, mask = torch.tensor([[0, 1, 1, 0]]), torch.tensor([[True, True, True, False]])
    assert next_step_loss(logits, ids, mask).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("name, column", [("image", "image_pixel_values"), ("speech", "speech_pixel_values")])
def test_steps_are_what_the_stem_makes_tokens_of(name, column):
    # A stem's convolution is a linear map of the very values that its position shows.
    torch.manual_seed(0)
    options = CHECKED[name]
    stem = make_stem(options, 8)
    stem.reset_parameters()
    inputs = torch.tensor(task_data({"image": "digits", "speech": "spoken"}[name])[:3][column])
    shown_BTF = shown_at(options, {column: inputs}, name)
    assert shown_BTF.shape[-1] == width_of(options, name) == WIDTHS[name]
    tokens_BTH = F.linear(shown_BTF, stem.projection.weight.flatten(1), stem.projection.bias)
    torch.testing.assert_close(stem.placed(tokens_BTH), stem(inputs)[0])


# ---- models ----
def heads(*modalities):
    return {f"{TERM}_{name}": {"out_features": WIDTHS[name], "reads": "dense_latents"} for name in modalities}


def of_tasks(causal=True, modalities=("image", "text"), **kwargs):
    torch.manual_seed(0)
    stems = {"image": STEMS["image"], "text": TOKENS}
    tasks = {
        "digits": {"modalities": ["image"], "num_labels": 3, "weight": 2.0},
        "words": {"modalities": ["text"], "num_labels": 3},
    }
    return CoLearningForManyTasks.from_stems(
        stems, tasks, {**TRUNK, **DROPOUT}, 4, causal=causal, dense=True, training_heads=heads(*modalities), **kwargs
    )


def words():
    ids = [[row % 7, (row + 1) % 7, (row + 2) % 7, 0] for row in range(8)]
    return Dataset.from_dict(
        {"text_input_ids": ids, "text_attention_mask": [[1, 1, 1, 0]] * 8, "labels": [row % 3 for row in range(8)]}
    )


def trainer_of(model, train, folder, **fields):
    run = CoLearningTrainer(
        model,
        tiny.arguments(folder, **{"max_steps": 1, "per_device_train_batch_size": 4, "optim": "sgd", **fields}),
        train_dataset=train,
        objective=NextStepPrediction(),
        alpha=ConstantAlpha(1.0, TERM),
    )
    run.remove_callback(PrinterCallback)
    return run


def test_patches_and_words_of_unpaired_data_are_predicted_through_one_trunk(tmp_path):
    model = of_tasks()
    train = UnpairedBatches(
        {"digits": task_data("digits"), "words": words()}, {"digits": 1, "words": 1}, every="micro_batch"
    )
    run = trainer_of(model, train, tmp_path, gradient_accumulation_steps=2, learning_rate=0.1)
    before = copied(model)
    run.train()
    moved = {name for name, weight in copied(model).items() if not torch.equal(weight, before[name])}
    for part in (
        "training_heads.next_step_image",
        "training_heads.next_step_text",
        "stems.image",
        "stems.text",
        "backbone",
    ):
        assert any(name.startswith(part) for name in moved), part
    assert not any("classifier" in name for name in moved)  # no label is read with alpha 1
    (entry,) = [entry for entry in run.state.log_history if "loss" in entry]
    assert entry["loss"] == pytest.approx(entry[f"loss_{TERM}"], rel=1e-4)


def test_a_batch_is_multiplied_by_its_tasks_weight_and_one_without_a_head_adds_0(tmp_path):
    model = of_tasks(modalities=["image"])
    objective = trainer_of(model.eval(), None, tmp_path).auxiliary_objective
    pixels = torch.randn(2, 1, 4, 4)
    inputs, batch = objective.on_inputs({"task": "digits", "image_pixel_values": pixels}, CoLearningBatch(), model)
    outputs = model(**inputs)
    predicted, shown = outputs.training_outputs[f"{TERM}_image"], shown_at(CHECKED["image"], inputs, "image")
    expected = 2 * next_step_loss(predicted, shown, torch.ones(2, 4, dtype=torch.bool))
    torch.testing.assert_close(objective(outputs, batch)[TERM], expected)
    inputs, batch = objective.on_inputs(
        {"task": "words", "text_input_ids": torch.ones(2, 4).long()}, CoLearningBatch(), model
    )
    assert objective(model(**inputs), batch)[TERM] == 0


def test_students_of_a_causal_language_model_and_of_feature_vectors_are_trained(tmp_path):
    language = GPT2Config(
        vocab_size=7, bos_token_id=1, eos_token_id=2, n_embd=8, n_layer=1, n_head=2, n_positions=8, pad_token_id=0
    )
    text = words().rename_columns({"text_input_ids": "input_ids", "text_attention_mask": "attention_mask"})
    head = {TERM: {"out_features": 7, "reads": "dense_latents"}}
    gpt = CoLearningForSequenceClassification.from_backbone(language, 4, 3, dense=True, training_heads=head)
    trainer_of(gpt, text, tmp_path).train()
    of_features = student(dense=True, training_heads={TERM: {"out_features": 4, "reads": "dense_latents"}})
    trainer_of(of_features, frames((), ())["train_dataset"], tmp_path).train()


def bert_student():
    head = {TERM: {"out_features": tiny.bert().vocab_size, "reads": "dense_latents"}}
    return CoLearningForSequenceClassification.from_backbone(tiny.bert(), 4, 3, dense=True, training_heads=head)


@pytest.mark.parametrize("make, data", [
    (lambda: of_tasks(causal=False), lambda: UnpairedBatches({"digits": task_data("digits"), "words": words()})),
    (bert_student, lambda: words().rename_columns({"text_input_ids": "input_ids", "text_attention_mask": "attention_mask"})),
])  # fmt: skip
def test_a_model_that_sees_later_steps_is_refused_before_training(make, data, tmp_path):
    with pytest.raises(ValueError, match="see later ones, .*`causal=True`.*GPT-2"):
        trainer_of(make(), data(), tmp_path / "out").train()
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "make, texts",
    [
        (lambda: of_tasks(modalities=[]), ["'next_step_image' is missing", "'out_features': 4"]),
        (lambda: student(), ["one latent a sample", "`dense=True`"]),
        (lambda: student(dense=True, training_heads={TERM: 4}), ["'next_step' reads 'latents' and is 4 wide"]),
        (
            lambda: student(dense=True, training_heads={TERM: {"out_features": 3, "reads": "dense_latents"}}),
            ["3 wide", "4 values"],
        ),
        (lambda: tiny.student(dense=True), ["CoLearningForImageClassification's inputs are is unknown"]),
    ],
)
def test_a_student_without_a_fitting_head_is_refused(make, texts):
    with pytest.raises(ValueError) as caught:
        CoLearningTrainer(
            make(), tiny.arguments("out"), objective=NextStepPrediction(), alpha=ConstantAlpha(1.0, TERM)
        )
    assert all(text in str(caught.value) for text in texts), caught.value


def test_bad_values_are_told():
    with pytest.raises(TypeError, match="normalized='yes'"):
        NextStepPrediction(normalized="yes")
    with pytest.raises(ValueError, match="one vector a sample"):
        shown_at({"kind": "features", "feature_dim": 3}, {"features": torch.zeros(2, 3)}, "")
    with pytest.raises(ValueError, match="table 'wine' have no order"):
        width_of(CHECKED["wine"], "wine")
