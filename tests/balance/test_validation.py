"""What methods read of the validation split: sums over what counts, of training's own evaluations alone."""

import math

import pytest
import torch
from transformers import TrainerCallback

from hf_colearn import ConstantAlpha, ContrastiveAlignment, MultimodalCollator
from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.early_stop import EarlyStopPerModality
from hf_colearn.balance.learning_rate import LearningRatePerModality
from hf_colearn.balance.validation import ValidatedMethod, score_sums, scores
from hf_colearn.data.multimodal import without_modality
from hf_colearn.data.splits import hide_labels
from hf_colearn.models.lora import with_lora
from hf_colearn.objectives.objective import CoLearningBatch
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


class Reader(ValidatedMethod):
    """Keeps all scores that it is told."""

    def __init__(self):
        super().__init__()
        self.read = []

    def validated(self, scores, model, control):
        self.read.append(scores)


COLLATOR = MultimodalCollator(dict.fromkeys(("image", "audio")))
EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "eval_dataset": data(12)}


def test_scores_are_sums_over_the_samples_that_have_a_label_and_the_modality():
    net = model()
    logits_BC = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0], [5.0, 0.0, 0.0]])
    outputs = {
        "logits": logits_BC,
        "modality_logits": {"image": logits_BC, "audio": logits_BC.flip(1)},
        "modality_mask": torch.tensor([[True, True], [True, False], [False, True], [True, True]]),
    }
    seen = ModalityBatch(outputs, CoLearningBatch(labels=torch.tensor([0, 1, 2, -100])), net)
    # Fused: of three labels ln 3, 9 + ln(1 + 2 e^-9) and ln(1 + 2 e^-9); two hits. The image has the first two: one hit (at
    # equal logits the first class). The audio, flipped, has the first and the third, whose 9 is at class 0: one hit.
    tail = math.log(1 + 2 * math.exp(-9))
    found = scores(score_sums(seen, 4), net.modalities)
    assert found["fused"].loss == pytest.approx((math.log(3) + 9 + 2 * tail) / 3)
    assert found["image"].loss == pytest.approx((math.log(3) + 9 + tail) / 2)
    assert found["audio"].loss == pytest.approx((math.log(3) + 9 + tail) / 2)
    assert [found[name].accuracy for name in ("fused", "image", "audio")] == pytest.approx([2 / 3, 1 / 2, 1 / 2])
    # Of the first sample alone, where the others repeat earlier ones: ln 3 each.
    first = scores(score_sums(seen, 1), net.modalities).values()
    assert [score.loss for score in first] == pytest.approx([math.log(3)] * 3)


def test_scores_do_not_depend_on_how_an_evaluation_is_cut():
    found = []
    for size in (12, 5):
        reader = Reader()
        trainer(reader, **{**EVALUATED, "max_steps": 2}, per_device_eval_batch_size=size).train()
        found.append(reader.read[0])
    for name in ("fused", "image", "audio"):
        assert found[0][name].loss == pytest.approx(found[1][name].loss, rel=1e-6)
        assert found[0][name].accuracy == found[1][name].accuracy


class EvaluatesOthers(TrainerCallback):
    """Evaluates and predicts other data while training goes on."""

    def on_step_begin(self, args, state, control, **kwargs):
        self.run.evaluate(data(6), metric_key_prefix="test")
        self.run.predict(data(6))


def test_only_evaluations_of_training_count():
    plain, reader, other = Reader(), Reader(), EvaluatesOthers()
    trainer(plain, **EVALUATED).train()
    run = other.run = trainer(reader, **EVALUATED, eval_on_start=True, callbacks=[other])
    run.evaluate()
    run.train()
    run.evaluate()
    run.predict(data(6))
    assert reader.read == plain.read and len(reader.read) == 2


def methods():
    return [EarlyStopPerModality(1, 0.0), LearningRatePerModality({"image": 2.0})]


@pytest.mark.parametrize("method", methods(), ids=lambda method: type(method).__name__)
def test_they_go_with_adapters_half_precision_accumulation_a_contrastive_term_and_missing_modalities(method):
    train = hide_labels(without_modality(data(16), "audio", 0.6, seed=1), 2, 0)
    run = trainer(
        method,
        with_lora(model(fusion="sum"), 2),
        train,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        bf16=True,
        data_collator=COLLATOR,
        objective=ContrastiveAlignment(0.5),
        alpha=ConstantAlpha(0.25, "contrastive"),
        **EVALUATED,
    )
    run.train()
    assert all("balance_coefficient_audio" in log for log in run.state.log_history if "loss" in log)


refusals = Refusals()


@refusals.case(ValueError, "no labelled sample with audio", "pass one with some")
def a_modality_that_no_validation_sample_has(folder):
    yield
    nobody = without_modality(data(12), "audio", 1.0, seed=0)
    trainer(Reader(), data_collator=COLLATOR, **{**EVALUATED, "eval_dataset": nobody}).train()


@refusals.case(ValueError, "the validation split has no labelled sample with fused, image, audio")
def an_evaluation_whose_only_batch_is_dropped(folder):
    yield
    trainer(Reader(), dataloader_drop_last=True, per_device_eval_batch_size=16, **EVALUATED).train()


@refusals.case(ValueError, "EarlyStopPerModality needs a validation split", "pass `eval_dataset`")
def no_validation_split(folder):
    yield
    trainer(EarlyStopPerModality())


@refusals.case(ValueError, "LearningRatePerModality reads the validation split during training", "eval_strategy")
def no_evaluations(folder):
    yield
    trainer(LearningRatePerModality(), eval_dataset=data(4))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
