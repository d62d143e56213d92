"""A model of many tasks: what it shares, the students that it gives, its loss, and what it refuses."""

import copy

import pytest
import torch
from transformers import AutoModel

from docstrings import run_example
from hf_colearn import (
    CoLearningForAudioClassification,
    CoLearningForFeatureClassification,
    CoLearningForImageClassification,
    CoLearningForManyTasks,
    CoLearningForSequenceClassification,
)
from hf_colearn.models.lora import load_adapter, save_student, with_lora


TRUNK = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
STEMS = {
    "image": {"kind": "patches", "image_size": 4, "patch_size": 2, "num_channels": 1},
    "speech": {"kind": "frames", "num_bands": 3, "max_length": 8},
    "text": {"kind": "tokens", "vocab_size": 9, "max_length": 4},
    "vector": {"kind": "features", "feature_dim": 3, "num_tokens": 2},
    "wine": {"kind": "table", "num_columns": 5},
}
TASKS = {
    "digits": {"modalities": ["image"], "num_labels": 3},
    "spoken": {"modalities": "speech", "num_labels": 3, "head": "digits"},
    "words": {"modalities": ["text"], "id2label": {0: "low", 1: "high"}},
    "amounts": {"modalities": ["vector"], "num_labels": 1},
    "kinds": {"modalities": ["wine"], "num_labels": 2, "problem_type": "multi_label_classification"},
    "stamps": {"modalities": ["image", "text"], "num_labels": 4, "weight": 0.5},
}
STUDENTS = {
    "digits": CoLearningForImageClassification,
    "spoken": CoLearningForAudioClassification,
    "words": CoLearningForSequenceClassification,
    "amounts": CoLearningForFeatureClassification,
    "kinds": CoLearningForFeatureClassification,
}


def model(tasks=TASKS, stems=STEMS, **options):
    torch.manual_seed(0)
    return CoLearningForManyTasks.from_stems(stems, tasks, **{"trunk": TRUNK, "latent_dim": 4, **options}).eval()


def inputs(task, rows=3):
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(9, (rows, 4), generator=generator)
    mask = (torch.arange(4) < torch.tensor([4, 2, 1, 3])[:rows, None]).long()
    columns = {
        "image": {"image_pixel_values": torch.randn(rows, 1, 4, 4, generator=generator)},
        "speech": {"speech_pixel_values": torch.randn(rows, 1, 3, 8, generator=generator)},
        "text": {"text_input_ids": words, "text_attention_mask": mask},
        "vector": {"vector_features": torch.randn(rows, 3, generator=generator)},
        "wine": {"wine_features": torch.randn(rows, 5, generator=generator)},
    }
    modalities = TASKS[task]["modalities"]
    names = [modalities] if isinstance(modalities, str) else modalities
    return {column: value for name in names for column, value in columns[name].items()}


def labels(task, rows=3):
    if task == "amounts":
        return torch.linspace(-1, 1, rows)
    return torch.ones(rows, 2) if task == "kinds" else torch.arange(rows) % 2


def logits(made, task):
    with torch.no_grad():
        return made(task=task, **inputs(task)).logits


def test_the_example_runs():
    run_example(CoLearningForManyTasks.from_stems)


# ---- what is shared ----
def shares_one_head(made):
    heads = [made.heads[made.config.tasks[task]["head"]] for task in ("digits", "spoken")]
    pointers = [[weight.data_ptr() for weight in head.parameters()] for head in heads]
    return pointers[0] == pointers[1] and len(pointers[0]) == 6  # latent head, norm and classifier


def test_the_trunk_and_a_shared_head_are_one_set_of_tensors_whatever_is_done_to_the_model(tmp_path):
    made = model()
    made.save_pretrained(tmp_path)
    read = AutoModel.from_pretrained(tmp_path).eval()
    assert (read.tasks, read.modalities) == (tuple(TASKS), tuple(STEMS))  # in their order
    names = [name for name, _ in made.named_parameters()]
    assert names == [name for name, _ in read.named_parameters()]
    for other in (made, read, copy.deepcopy(made), made.to(torch.float64).to("cpu").float()):
        assert shares_one_head(other) and len(other.heads) == 5
        assert sum("backbone" in name for name, _ in other.named_parameters()) == 18  # of one layer and a norm
        with torch.no_grad():
            other.heads["digits"].classifier.bias.add_(1.0)
        torch.testing.assert_close(logits(other, "digits"), logits(model(), "digits") + 1)
        torch.testing.assert_close(logits(other, "spoken"), logits(model(), "spoken") + 1)
        with torch.no_grad():
            other.heads["digits"].classifier.bias.sub_(1.0)


def test_adapters_are_in_the_trunk_and_stems_and_heads_are_trained_whole(tmp_path):
    adapted = with_lora(model(), rank=1)
    frozen = [name for name, weight in adapted.named_parameters() if not weight.requires_grad]
    assert all("backbone" in name or "original_module" in name for name in frozen)
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=1.0)
    adapted(task="digits", **inputs("digits"), labels=labels("digits")).loss.backward()
    optimizer.step()
    assert not torch.equal(logits(adapted, "spoken"), logits(model(), "spoken"))
    with pytest.raises(ValueError, match="merge them first"):
        adapted.student("spoken")
    save_student(adapted, None, tmp_path)
    for read in (AutoModel.from_pretrained(tmp_path), load_adapter(model(), tmp_path / "adapter")):
        torch.testing.assert_close(logits(read.eval(), "spoken"), logits(adapted.eval(), "spoken"))


# ---- students ----
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("task", STUDENTS)
def test_a_student_predicts_what_the_model_does_for_its_task(task, causal, tmp_path):
    made = model(causal=causal)
    if task == "kinds":
        made.stems["wine"].standardization.set_statistics(torch.randn(9, 5))
    student = made.student(task)
    assert type(student) is STUDENTS[task]
    own = {column.split("_", 1)[1]: value for column, value in inputs(task).items()}
    output, expected = student(**own), made(task=task, **inputs(task))
    assert torch.equal(output.logits, expected.logits) and torch.equal(output.latents, expected.latents)
    if causal:  # whose latents of every token are there, too
        assert torch.equal(output.dense_latents, expected.dense_latents)
        assert torch.equal(output.dense_mask, expected.dense_mask)
    student.save_pretrained(tmp_path)
    assert torch.equal(type(student).from_pretrained(tmp_path).eval()(**own).logits, expected.logits)
    with torch.no_grad():
        student.latent_head.weight.zero_()
    assert torch.equal(logits(made, task), expected.logits)  # a copy


def test_a_student_is_found_by_its_modality_and_knows_its_classes():
    made = model()
    assert made.student("text").config.id2label == {0: "low", 1: "high"}
    assert made.student("wine").config.problem_type == "multi_label_classification"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stamps", "has the modalities image, text, and a student has one"),
        ("video", "no task or modality 'video'"),
        ("pose", "no task has the modality 'pose' alone"),
        ("image", "the tasks digits, more have the modality 'image' alone"),
    ],
)
def test_what_has_no_student_is_told(name, text):
    more = {"more": TASKS["digits"], "posed": {"modalities": ["text", "pose"], "num_labels": 2}}
    made = model({**TASKS, **more}, {**STEMS, "pose": STEMS["vector"]})
    with pytest.raises(ValueError, match=text):
        made.student(name)


# ---- forward ----
def test_tokens_of_several_modalities_stand_side_by_side_and_padding_counts_for_nothing():
    made = model(dense=True)
    output = made(task="stamps", **inputs("stamps"))
    assert output.dense_mask.sum(1).tolist() == [4 + 4, 4 + 2, 4 + 1]  # patches and words
    padded = {name: torch.nn.functional.pad(value, (0, 0)) for name, value in inputs("stamps").items()}
    padded["text_input_ids"][1, 2:] = 8
    torch.testing.assert_close(made(task="stamps", **padded).logits, output.logits)
    seen = {name: value[1:2, :2] if "text" in name else value[1:2] for name, value in inputs("stamps").items()}
    torch.testing.assert_close(made(task="stamps", **seen).logits, output.logits[1:2])
    mean = (output.dense_latents * output.dense_mask[..., None]).sum(1) / output.dense_mask.sum(1, keepdim=True)
    assert not torch.allclose(mean, output.latents)  # the norm is of the mean, not of every token


def test_it_is_compiled_whole_and_has_a_graph_a_task():
    made = model()
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    for task in ("digits", "stamps"):
        output = compiled(task=task, **inputs(task), labels=labels(task))
        torch.testing.assert_close(output.logits, logits(made, task))
        output.loss.backward()
    assert made.stems["speech"].modality_H.grad is None


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_gives_a_gradient_to_its_stems_head_and_the_trunk_alone(task):
    made = model().train()
    made(task=task, **inputs(task), labels=labels(task)).loss.backward()
    without = {id(weight) for weight in made.parameters() if weight.grad is None}
    assert without == {id(weight) for weight in made.parameters_beside([task])} and without


def test_training_heads_read_the_tokens():
    heads = {"next": {"out_features": 2, "reads": "dense_latents"}, "pooled": {"out_features": 2, "reads": "features"}}
    found = model(causal=True, training_heads=heads)(task="words", **inputs("words")).training_outputs
    assert found["next"].shape == (3, 4, 2) and found["pooled"].shape == (3, 2)


# ---- loss ----
def test_the_loss_is_the_weight_times_the_mean_over_labels_that_count():
    made = model()
    answers = torch.tensor([1, -100, 3])
    output = made(task="stamps", **inputs("stamps"), labels=answers)
    entropies = -output.logits.log_softmax(1)[[0, 2], [1, 3]]
    torch.testing.assert_close(output.loss, 0.5 * entropies.mean())
    counts = made.label_counts(answers, task="stamps", **inputs("stamps"))
    assert counts.tolist() == [0, 0, 0, 0, 0, 2]
    # Of a step with 8 such labels in 2 micro-batches, 4 each on average: the share is 2 / 4.
    share = made(task="stamps", **inputs("stamps"), labels=answers, num_items_in_batch=torch.tensor([9.0] * 5 + [4]))
    torch.testing.assert_close(share.loss, output.loss * 2 / 4)
    nothing = made(task="stamps", **inputs("stamps"), labels=torch.full((3,), -100))
    assert nothing.loss.item() == 0


def test_every_task_has_its_problem():
    made = model()
    output = made(task="amounts", **inputs("amounts"), labels=labels("amounts"))
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels("amounts")).square().mean())
    output = made(task="kinds", **inputs("kinds"), labels=torch.tensor([[1.0, 0.0]] * 3))
    expected = -(output.logits[:, 0].sigmoid().log() + (1 - output.logits[:, 1].sigmoid()).log()).mean() / 2
    torch.testing.assert_close(output.loss, expected)


# ---- refusals ----
IMAGE = {"image": STEMS["image"]}
DIGITS = {"modalities": ["image"], "num_labels": 3}


@pytest.mark.parametrize(
    ("stems", "tasks", "text"),
    [
        ({}, {"digits": DIGITS}, "the model has no modality"),
        (IMAGE, {}, "the model has no task"),
        ({"labels": STEMS["wine"]}, {}, "'labels' cannot name a modality"),
        ({**IMAGE, "image_two": STEMS["wine"]}, {}, "begins the columns of 'image_two'"),
        (IMAGE, {"a b": DIGITS}, "'a b' cannot name a task"),
        (IMAGE, {"digits": {**DIGITS, "head": "keys"}}, "'keys' cannot name a head"),
        (IMAGE, {"digits": {"num_labels": 3}}, "pass a dict, such as"),
        (IMAGE, {"digits": {**DIGITS, "wieght": 1}}, "task 'digits' has no option wieght"),
        (IMAGE, {"digits": {**DIGITS, "modalities": ["sound"]}}, r"names the modalities \['sound'\]"),
        (IMAGE, {"digits": {**DIGITS, "modalities": ["image", "image"]}}, "names a modality twice"),
        (IMAGE, {"digits": {"modalities": ["image"]}}, "the number of classes of task 'digits' is missing"),
        (IMAGE, {"digits": {**DIGITS, "num_labels": 0}}, "num_labels=0 of task 'digits' is no width"),
        (IMAGE, {"digits": {**DIGITS, "weight": -1}}, "weight=-1 of task 'digits' is no weight"),
        (IMAGE, {"digits": {**DIGITS, "problem_type": "ranking"}}, "problem_type of task 'digits'='ranking'"),
        (STEMS, {"digits": DIGITS}, "no task has the modalities .'speech'"),
        (IMAGE, {"digits": DIGITS, "more": {**DIGITS, "num_labels": 2, "head": "digits"}}, "give them as many"),
    ],
)
def test_tasks_and_modalities_that_do_not_fit_are_refused(stems, tasks, text):
    with pytest.raises(ValueError, match=text):
        model(tasks, stems)


@pytest.mark.parametrize(
    ("task", "changed", "error", "text"),
    [
        (None, {}, ValueError, "task=None is none of the model's: pass one of digits"),
        ("music", {}, ValueError, "task='music' is none"),
        ("digits", {"text_input_ids": torch.ones(3, 4)}, TypeError, "'text_input_ids' is no input"),
        ("stamps", {"image_pixel_values": None}, ValueError, "there are no inputs of image"),
        ("digits", {"labels": torch.zeros(2)}, ValueError, "the batch sizes disagree"),
    ],
)
def test_a_batch_that_is_no_task_s_is_refused(task, changed, error, text):
    with pytest.raises(error, match=text):
        model()(**{"task": task, **inputs(task if task in TASKS else "digits"), **changed})
