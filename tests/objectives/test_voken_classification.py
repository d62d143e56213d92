"""Voken classification: its value by hand, which tokens and texts count, and what is refused before training."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertTokenizer, DataCollatorWithPadding

import tiny
from hf_colearn import (
    CoLearningForMaskedLM,
    CoLearningTrainer,
    Teacher,
    TeacherBank,
    VokenClassification,
    with_sample_ids,
)
from hf_colearn.data.token_masking import TokenMasking
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.objectives.voken_classification import voken_loss
from hf_colearn.teachers.sequence_bank import SequenceBank
from refusals import Refusals, assert_refused


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
IDS = [[2, 5, 6, 3], [2, 7, 8, 9, 3], [2, 10, 3], [2, 11, 12, 13, 14, 3]] * 2
VOKENS = [[-100 if token in (2, 3) else token % 3 for token in tokens] for tokens in IDS]
HEAD = {"vokens": {"out_features": 3, "reads": "dense_latents"}}


def student(**options):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=15, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes)
    return CoLearningForMaskedLM.from_backbone(config, 4, **{"dense": True, "training_heads": HEAD, **options})


def bank(ids=VOKENS, num_ids=3):
    return SequenceBank.from_ids(ids, num_ids=num_ids)


def trainer(folder, model=None, teacher=None, objective=None, name="vokens", **args):
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    columns = {"input_ids": IDS, "attention_mask": [[1] * len(tokens) for tokens in IDS]}
    return CoLearningTrainer(
        student() if model is None else model,
        tiny.arguments(folder, **{"max_steps": 1, "alpha": 0.5, "latent_scaling": "none", **args}),
        train_dataset=with_sample_ids(Dataset.from_dict(columns)),
        data_collator=DataCollatorWithPadding(tokenizer),
        augment=TokenMasking(tokenizer, 0.5),
        teachers={name: Teacher(bank()) if teacher is None else teacher},
        objective=VokenClassification() if objective is None else objective,
    )


# ---- values ----
def test_every_text_weighs_the_same_whatever_its_number_of_tokens():
    # p = (3/4, 1/4) everywhere: -log(3/4) = .287682 and -log(1/4) = 1.386294
    logits_BTK = torch.tensor([3.0, 1.0]).log().expand(3, 4, 2).clone().requires_grad_()
    ids_BT = torch.tensor([[-100, 1, -100, -100], [-100, 0, 0, -100], [-100] * 4])
    # (1.386294 + .287682) / 2: the first text has one token, the second two alike, the third none
    assert voken_loss(logits_BTK, ids_BT).item() == pytest.approx(0.836988, abs=1e-6)
    outputs, batch = {"training_outputs": {"vokens": logits_BTK}}, CoLearningBatch(targets={"images": ids_BT})
    assert VokenClassification("images")(outputs, batch)["vokens"].item() == pytest.approx(0.836988, abs=1e-6)
    # 2 texts count here, and 4 in a micro-batch of the step on average: half of the mean
    of_step = CoLearningBatch(targets={"vokens": ids_BT}, step_counts={"vokens": torch.tensor(4.0)})
    term = VokenClassification()(outputs, of_step)["vokens"]
    assert term.item() == pytest.approx(0.418494, abs=1e-6)
    term.backward()
    assert logits_BTK.grad[2].abs().sum() == 0 and logits_BTK.grad[1, 0].abs().sum() == 0
    # of the only token of the first text: p - (0, 1) = (3/4, -3/4), over 2 texts, and half of it
    torch.testing.assert_close(logits_BTK.grad[0, 1], torch.tensor([0.1875, -0.1875]))


def test_texts_without_ids_add_nothing():
    logits_BTK = torch.randn(2, 3, 5, requires_grad=True)
    term = voken_loss(logits_BTK, torch.full((2, 3), -100))
    term.backward()
    assert term.item() == 0 and logits_BTK.grad.abs().sum() == 0


# ---- training ----
def test_the_head_learns_the_vokens_and_the_export_has_none(tmp_path):
    run = trainer(tmp_path, max_steps=40, learning_rate=0.03, alpha=0.5)
    run.train()
    history = [entry["loss_vokens"] for entry in run.state.log_history if "loss_vokens" in entry]
    assert history[0] == pytest.approx(1.0986, abs=0.3) and history[-1] < 0.6  # from log 3 down
    assert copy.deepcopy(run.model).without_training_heads().config.training_heads == {}


# ---- refusals ----
refusals = Refusals()


@refusals.case(
    ValueError,
    "the student has no training head 'vokens'",
    "dense=True, training_heads={'vokens'",
    "'out_features': 3",
)
def no_head(folder):
    yield
    trainer(folder / "out", student(training_heads=None))


@refusals.case(ValueError, "the training head 'vokens' reads latents, one vector a text", "dense=True")
def a_head_of_whole_texts(folder):
    yield
    trainer(folder / "out", student(dense=False, training_heads={"vokens": 3}))


@refusals.case(ValueError, "'vokens' has 3 outputs, and teacher 'vokens' 50 ids", "'out_features': 50")
def a_head_of_another_width(folder):
    yield
    trainer(folder / "out", teacher=Teacher(bank(num_ids=50)))


@refusals.case(ValueError, "the bank of teacher 'vokens' holds latents", "SequenceBank.from_ids(ids, num_ids=K)")
def a_bank_of_latents(folder):
    yield
    trainer(folder / "out", teacher=Teacher(TeacherBank.from_latents(torch.randn(8, 4))))


@refusals.case(ValueError, "there is no teacher 'vokens' (there are 'images')", "`teachers={'vokens': Teacher(")
def a_teacher_of_another_name(folder):
    yield
    trainer(folder / "out", name="images")


@refusals.case(TypeError, "teacher=3 is no name of a teacher", "'vokens'")
def no_name(folder):
    yield
    VokenClassification(3)


@refusals.case(ValueError, "the input has 6 tokens, and teacher 'vokens' 4 ids a text", "special ones included")
def ids_of_fewer_tokens(folder):
    run = trainer(folder / "out", teacher=Teacher(bank([tokens[1:-1] for tokens in VOKENS])))
    yield
    run.train()


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
