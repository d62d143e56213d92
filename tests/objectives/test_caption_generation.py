"""Caption generation: its values by hand, its null, what it refuses, and that the deployed student sees no caption."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

import tiny
from docstrings import run_example
from hf_colearn import (
    CaptionGeneration,
    CoLearningBatch,
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    ConstantAlpha,
    FeatureBackboneConfig,
    Paired,
    Teacher,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.experiments.captions import caption_bank, with_shuffled_words, word_tokenizer
from hf_colearn.experiments.semi_supervised import ShuffledOnce
from hf_colearn.objectives.caption_generation import caption_loss
from hf_colearn.teachers.sequence_bank import SequenceBank
from refusals import Refusals, assert_refused


COLOURS, THINGS = ("red", "green", "blue", "grey"), ("cat", "dog", "fox")
SAMPLES = 96
refusals = Refusals()


def student(heads, seed=0):
    torch.manual_seed(seed)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=7), 8, 3, training_heads=heads, latent_norm="none"
    )


def animals():
    """One colour and one thing each, as 4 + 3 noisy indicators and as a caption; the thing is the label."""
    rng = np.random.default_rng(0)
    colours, things = rng.integers(0, 4, SAMPLES), rng.integers(0, 3, SAMPLES)
    features = np.concatenate([np.eye(4)[colours], np.eye(3)[things]], axis=1) + 0.1 * rng.normal(size=(SAMPLES, 7))
    data = Dataset.from_dict({"features": features.astype(np.float32), "labels": things})
    captions = [f"a {COLOURS[c]} {THINGS[t]}" for c, t in zip(colours, things, strict=True)]
    return with_sample_ids(data).with_format("torch"), captions


DATA, CAPTIONS = animals()
TOKENIZER = word_tokenizer(CAPTIONS)
BANK = caption_bank(TOKENIZER, CAPTIONS)
DECODER = {"captions": {"vocab_size": len(TOKENIZER), "hidden_size": 24}}


def trained(folder, pairing, bank=BANK):
    trainer = CoLearningTrainer(
        student(DECODER),
        tiny.arguments(folder, max_steps=32, per_device_train_batch_size=48, learning_rate=0.05, logging_steps=32),
        train_dataset=DATA,
        teachers={"captions": Teacher(bank, pairing)},
        objective=CaptionGeneration(),
        alpha=ConstantAlpha.from_weights({"captions": 1.0}),
    )
    trainer.train()
    return trainer.model.eval()


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("speaker"), Paired())


def loss_of(model, bank=BANK):
    ids_BT = bank.lookup(np.arange(SAMPLES))
    with torch.no_grad():
        outputs = model(features=DATA["features"][:], training_inputs={"captions": ids_BT})
    return CaptionGeneration()(outputs, CoLearningBatch(targets={"captions": ids_BT}))["captions"].item()


# ---- values ----
@pytest.mark.parametrize("documented", [CaptionGeneration, word_tokenizer, with_shuffled_words])
def test_the_example_runs(documented):
    run_example(documented)


def test_a_caption_is_the_sum_of_its_tokens_and_the_term_the_mean_of_the_captions():
    # Three tokens: log-odds (0, log 2, log 5) are probabilities of 1/8, 2/8, 5/8.
    row_V = torch.tensor([0.0, math.log(2), math.log(5)])
    logits_BTV = row_V.expand(3, 2, 3).clone().requires_grad_()
    ids_BT = torch.tensor([[0, 2, 1], [0, 0, -100], [-100, -100, -100]])  # the last sample has no caption
    loss = caption_loss(logits_BTV, ids_BT)
    # (log 8/5 + log 8/2) + log 8/1, over two captions
    assert loss.item() == pytest.approx((math.log(8 / 5) + math.log(4) + math.log(8)) / 2)
    loss.backward()
    assert not logits_BTV.grad[2].any() and not logits_BTV.grad[1, 1].any()
    # of the second caption's token: (p - onehot) / 2
    torch.testing.assert_close(logits_BTV.grad[1, 0], torch.tensor([1 / 8 - 1, 2 / 8, 5 / 8]) / 2)


def test_without_any_caption_the_term_is_0_with_a_gradient_of_0():
    logits_BTV = torch.randn(2, 2, 3, requires_grad=True)
    loss = caption_loss(logits_BTV, torch.full((2, 3), -100))
    loss.backward()
    assert loss.item() == 0 and not logits_BTV.grad.any()


def test_words_are_counted_once_and_sorted_and_an_empty_caption_has_a_number():
    assert TOKENIZER.convert_ids_to_tokens(range(len(TOKENIZER))) == [
        "[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "blue", "cat", "dog", "fox", "green", "grey", "red",
    ]  # fmt: skip
    assert BANK.num_ids == 12 and TOKENIZER.decode(BANK.lookup([0])[0], skip_special_tokens=True) == CAPTIONS[0]
    with pytest.raises(ValueError, match=r"caption 1 is empty \(' ' has no token\).*`WherePaired`"):
        caption_bank(TOKENIZER, ["a cat", " "])


# ---- nulls ----
def test_true_captions_are_learned_and_those_of_others_are_not(speaker, tmp_path):
    # Colours and things are even, so a decoder that knows no more than that pays log 4 + log 3 = 2.48 nats a caption.
    assert loss_of(speaker) < 0.5
    assert loss_of(trained(tmp_path, ShuffledOnce())) > 2.2
    ids_BT = speaker.training_heads["captions"].generate(
        speaker(features=DATA["features"][:]).latents, TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, max_length=6
    )
    written = TOKENIZER.batch_decode(ids_BT.clamp(min=TOKENIZER.unk_token_id), skip_special_tokens=True)
    assert np.mean([found == caption for found, caption in zip(written, CAPTIONS, strict=True)]) > 0.8


def test_shuffled_words_are_those_of_the_same_caption():
    shuffled = with_shuffled_words(BANK, seed=1)
    before, after = (bank.lookup(np.arange(SAMPLES)) for bank in (BANK, shuffled))
    assert torch.equal(before.sort(dim=1).values, after.sort(dim=1).values) and not torch.equal(before, after)
    assert torch.equal(before[:, [0, -1]], after[:, [0, -1]])


# ---- the deployed student ----
def test_the_deployed_student_sees_no_caption(speaker, tmp_path):
    features = DATA["features"][:5]
    with torch.no_grad():
        alone = speaker(features=features)
        for rows in ([0] * 5, [3, 1, 4, 1, 5]):
            given = speaker(features=features, training_inputs={"captions": BANK.lookup(rows)})
            assert torch.equal(given.logits, alone.logits) and torch.equal(given.latents, alone.latents)
    assert alone.training_outputs is None  # no caption, no decoder
    speaker.without_training_heads().save_pretrained(tmp_path)
    loaded = CoLearningForFeatureClassification.from_pretrained(tmp_path)
    assert not [name for name in loaded.state_dict() if "captions" in name or "training_heads" in name]
    with torch.no_grad():
        assert torch.equal(loaded(features=features).logits, alone.logits)


# ---- bad input ----
def fits(heads=DECODER, objective=None, **teachers):
    known = {"captions": Teacher(BANK), **teachers}
    (objective or CaptionGeneration()).check(student(heads), known)


BAD = {
    "no decoder": ({"heads": {"projector": 2}}, "needs a decoder", "['projector']", "'vocab_size': V"),
    "no decoder of the name": ({"heads": {"captions": 3}}, "'captions' is none of captions", "'vocab_size': V"),
    "another teacher's": (
        {"heads": {"captions": {"vocab_size": 12, "teacher": "french"}}}, "given the captions of 'french'", "'captions'",
    ),
    "no teacher": ({"objective": CaptionGeneration("french", "captions")}, "given the captions of 'captions'"),
    "latents": ({"captions": Teacher(TeacherBank.from_latents(np.eye(3)))}, "TeacherBank of latents", "from_ids"),
    "a small vocabulary": (
        {"heads": {"captions": {"vocab_size": 11}}}, "tokens 0 to 11", "the decoder knows 11", "`vocab_size=12`",
    ),
    "an empty caption": (
        {"captions": Teacher(SequenceBank.from_ids([[1, 2], [1, 3, 2], [1]]))}, "row 2", "empty caption", "WherePaired",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_the_way_out(name):
    given, *texts = BAD[name]
    with pytest.raises(ValueError) as caught:
        fits(**given)
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)


@refusals.case(TypeError, "teacher='' is no name", "'captions'")
def no_name(folder):
    yield
    CaptionGeneration("")


@refusals.case(ValueError, "there is ['text']", "Teacher(bank)")
def another_teacher(folder):
    yield
    CaptionGeneration().check(student(DECODER), {"text": Teacher(BANK)})


@refusals.case(ValueError, "logits of shape (2, 2, 3) are none of captions of (2, 2)", "after the first")
def logits_of_another_length(folder):
    yield
    caption_loss(torch.zeros(2, 2, 3), torch.zeros(2, 2, dtype=torch.long))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
