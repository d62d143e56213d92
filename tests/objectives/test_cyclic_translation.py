"""Cyclic translation: its values by hand, what its nulls come to, what it refuses, and that the deployed student reads a."""

import numpy as np
import pytest
import torch
from datasets import Dataset

import tiny
from docstrings import run_example
from hf_colearn import (
    CoLearningBatch,
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    ConstantAlpha,
    CyclicTranslation,
    FeatureBackboneConfig,
    Paired,
    Teacher,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.experiments.semi_supervised import ShuffledOnce
from hf_colearn.experiments.translation import HeldOutTargets
from hf_colearn.teachers.sequence_bank import SequenceBank
from refusals import Refusals, assert_refused


SAMPLES, HELD_OUT, A, B = 160, 40, 3, 4
HEADS = {"translation": B, "cycle": {"out_features": A, "reads": "translation"}}
refusals = Refusals()


def student(heads=HEADS, dense=False, **kwargs):
    torch.manual_seed(0)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=A), 6, 2, training_heads=heads, latent_norm="none", dense=dense, **kwargs
    )


def pairs():
    """a, and b as a linear map of it with a little noise; the label is the sign of a's first dimension."""
    rng = np.random.default_rng(0)
    a, map_AB = rng.normal(size=(SAMPLES + HELD_OUT, A)), rng.normal(size=(A, B))
    b = a @ map_AB + 0.1 * rng.normal(size=(SAMPLES + HELD_OUT, B))
    return torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)


def of_a(a):
    columns = {"features": a.numpy(), "labels": (a[:, 0] > 0).long().numpy()}
    return with_sample_ids(Dataset.from_dict(columns)).with_format("torch")


def trained(folder, pairing):
    a, b = (x[:SAMPLES] for x in pairs())
    trainer = CoLearningTrainer(
        student(),
        tiny.arguments(folder, max_steps=50, per_device_train_batch_size=32, learning_rate=0.05, logging_steps=50),
        train_dataset=of_a(a),
        teachers={"text": Teacher(TeacherBank.from_latents(b), pairing), "own": Teacher(TeacherBank.from_latents(a))},
        objective=CyclicTranslation("text", "own"),
        alpha=ConstantAlpha.from_weights({"translation": 1.0, "cycle": 1.0}),
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("true"), Paired())


# ---- values ----
@pytest.mark.parametrize("documented", [CyclicTranslation, ConstantAlpha.from_weights])
def test_the_example_runs(documented):
    run_example(documented)


def test_a_sample_without_a_target_has_no_part_in_its_term_alone():
    found = {"translation": torch.tensor([[1.0, 3.0], [9.0, 9.0]]), "cycle": torch.tensor([[2.0], [4.0]])}
    targets = {"text": torch.tensor([[0.0, 0.0], [torch.nan] * 2]), "own": torch.zeros(2, 1)}
    terms = CyclicTranslation("text", "own")({"training_outputs": found}, CoLearningBatch(targets=targets))
    # b of the first sample alone: (1 + 9) / 2; a of both: (4 + 16) / 2
    assert {name: term.item() for name, term in terms.items()} == {"translation": 5.0, "cycle": 10.0}
    assert CyclicTranslation("text").terms == ("translation",)


def test_the_published_loss_is_task_plus_a_tenth_of_each_up_to_a_factor():
    alpha = ConstantAlpha.from_weights({"translation": 0.1, "cycle": 0.1}).weights()
    assert alpha == pytest.approx({"translation": 1 / 12, "cycle": 1 / 12})
    task, translation, cycle = 2.0, 3.0, 5.0  # 2 + 0.3 + 0.5 = 2.8
    loss = (1 - sum(alpha.values())) * task + alpha["translation"] * translation + alpha["cycle"] * cycle
    assert 1.2 * loss == pytest.approx(2.8)
    with pytest.raises(ValueError, match="weight=-1.0 of the term 'cycle'"):
        ConstantAlpha.from_weights({"cycle": -1})


def test_sequences_are_a_mean_over_the_frames_of_a_sample_then_over_the_samples():
    heads = {
        "translation": {"out_features": 1, "reads": "dense_latents"},
        "cycle": {"out_features": 1, "reads": "translation"},
    }
    model = student(heads, dense=True)
    banks = {"text": [[[1.0], [3.0]], [[2.0]]], "own": [[[0.0], [0.0]], [[1.0]]]}
    teachers = {name: Teacher(SequenceBank.from_sequences(list(map(np.array, rows)))) for name, rows in banks.items()}
    objective = CyclicTranslation("text", "own")
    objective.check(model, teachers)
    for head in model.training_heads.values():
        torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    torch.nn.init.ones_(model.training_heads["cycle"].bias)
    outputs = model(features=torch.randn(2, 2, A), attention_mask=torch.tensor([[1, 1], [1, 0]]))
    batch = CoLearningBatch(targets={name: t.targets(np.arange(2), 0, 0) for name, t in teachers.items()})
    found = {name: term.item() for name, term in objective(outputs, batch).items()}
    # translations are 0: ((1 + 9) / 2 + 4) / 2; cycles are 1: ((1 + 1) / 2 + 0) / 2
    assert found == {"translation": 4.5, "cycle": 0.5}


# ---- nulls ----
def test_true_pairs_are_translated_and_led_back_and_permuted_ones_are_not(translator, tmp_path):
    a, b = pairs()
    held_out = HeldOutTargets(
        {"translation": b[:SAMPLES], "cycle": a[:SAMPLES]}, {"translation": b[SAMPLES:], "cycle": a[SAMPLES:]}
    )
    runs = [
        held_out(trainer, of_a(a[SAMPLES:]).remove_columns("sample_id"), arm, "colearned")
        for arm, trainer in (("true", translator), ("permuted", trained(tmp_path, ShuffledOnce())))
    ]
    true, permuted = (run.metrics for run in runs)
    # Of standardised targets the mean has an error of 1, hence an explained variance of 0: three dimensions of a tell b.
    assert true["translation_explained"] > 0.9 and true["cycle_explained"] > 0.9
    assert (
        permuted["translation_explained"] < 0.1 < true["translation_recall_at_5"] - permuted["translation_recall_at_5"]
    )
    assert [line.split()[0] for line in held_out.table(runs).splitlines()[2:]] == ["true", "permuted"]
    losses = next(entry for entry in translator.state.log_history if "loss_cycle" in entry)
    assert losses["loss_cycle"] < 1 and losses["loss_translation"] < 1  # the mean of 50 steps


# ---- the deployed student ----
def test_the_deployed_student_reads_its_own_modality_alone(translator, tmp_path):
    deployed = translator.model.eval().without_training_heads()
    deployed.save_pretrained(tmp_path)
    loaded = CoLearningForFeatureClassification.from_pretrained(tmp_path)
    assert not [name for name in loaded.state_dict() if "translation" in name or "cycle" in name]
    assert loaded.input_names == ("features", "attention_mask")
    a = pairs()[0][SAMPLES:]
    with torch.no_grad():
        outputs, trained_outputs = loaded(features=a), translator.model(features=a)
    assert outputs.training_outputs is None and torch.equal(outputs.logits, trained_outputs.logits)


# ---- bad input ----
def fits(heads=HEADS, objective=None, dense=False, **banks):
    known = {"text": TeacherBank.from_latents(np.eye(B)), "own": TeacherBank.from_latents(np.eye(A)), **banks}
    teachers = {name: Teacher(bank) for name, bank in known.items() if bank is not None}
    (objective or CyclicTranslation("text", "own")).check(student(heads, dense), teachers)


FRAMES = {"text": SequenceBank.from_sequences([np.eye(B)]), "own": SequenceBank.from_sequences([np.eye(A)])}
BAD = {
    "no head": ({"heads": {"projector": 2}}, "term 'translation'", "the student has ['projector']", "'out_features': 4"),
    "no cycle": ({"heads": {"translation": B}}, "term 'cycle'", "'out_features': 3, 'reads': 'translation'"),
    "a decoder": ({"heads": HEADS | {"cycle": {"vocab_size": 5}}}, "'cycle' is a decoder of captions"),
    "a width": ({"heads": HEADS | {"translation": 5}}, "'translation' is 5 wide", "of 'text' 4", "'out_features': 4"),
    "another cycle": ({"heads": HEADS | {"cycle": A}}, "reads 'latents'", "not lead back", "'reads': 'translation'"),
    "no teacher": ({"own": None}, "needs the teacher 'own'", "['text']"),
    "ids": ({"text": SequenceBank.from_ids([[1, 2]])}, "'text' holds ids", "CaptionGeneration"),
    "sequences": (FRAMES, "'text' holds sequences", "reads 'latents'", "let it read 'dense_latents'"),
    "one vector": (
        {"heads": HEADS | {"translation": {"out_features": B, "reads": "dense_latents"}}, "dense": True},
        "'text' holds a vector a row", "reads 'dense_latents'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_the_way_out(name):
    given, *texts = BAD[name]
    with pytest.raises(ValueError) as caught:
        fits(**given)
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)


@refusals.case(ValueError, "target='text' and source='text' are one teacher", "second teacher")
def one_teacher_for_both(folder):
    yield
    CyclicTranslation("text", "text")


@refusals.case(TypeError, "target=None is no name", "'text'")
def no_target(folder):
    yield
    CyclicTranslation(None)


@refusals.case(ValueError, "the training head 'cycle' reads 'latents'", "not lead back")
def a_trainer_whose_cycle_reads_the_latents(folder):
    a, b = pairs()
    teachers = {"text": Teacher(TeacherBank.from_latents(b)), "own": Teacher(TeacherBank.from_latents(a))}
    yield
    CoLearningTrainer(
        student(HEADS | {"cycle": A}),
        tiny.arguments(folder / "out"),
        train_dataset=of_a(a),
        teachers=teachers,
        objective=CyclicTranslation("text", "own"),
    )


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused_before_training(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
