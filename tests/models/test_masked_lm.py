"""The masked language model as a student: its losses and latents, its life in checkpoints and adapters, its training."""

import copy
import json

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    BertForMaskedLM,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    RobertaConfig,
    default_data_collator,
    pipeline,
)

import tiny
from hf_colearn import CoLearningForMaskedLM, CoLearningTrainer, with_sample_ids
from hf_colearn.data.token_masking import TokenMasking
from hf_colearn.hub.model_kind import ModelKind
from hf_colearn.models.lora import save_student, with_lora
from refusals import Refusals, assert_refused


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "frog", "cat", "dog", "sleeps", "runs", "in", "sun"]
TEXTS = ["a frog sleeps", "the cat runs in the sun", "a dog runs", "the frog sleeps in the sun"] * 3
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VOKENS = {"vokens": {"out_features": 5, "reads": "dense_latents"}}


def tokenizer():
    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, model_max_length=32)


def student(config=None, seed=0, **options):
    torch.manual_seed(seed)
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if config is None:
        config = tiny.BertConfig(vocab_size=len(WORDS), **SIZES, **without_dropout)
    return CoLearningForMaskedLM.from_backbone(config, 4, **{"dense": True, "training_heads": VOKENS, **options})


def masked_inputs():
    inputs = dict(tokenizer()(TEXTS[:2], padding=True, return_tensors="pt"))
    inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
    inputs["labels"][0, 2], inputs["labels"][1, 2], inputs["labels"][1, 4] = 7, 8, 12
    return inputs


def texts():
    tokens = tokenizer()(TEXTS)
    return with_sample_ids(Dataset.from_dict({name: tokens[name] for name in ("input_ids", "attention_mask")}))


def trained(folder, dataset=None, model=None, resume=None, **options):
    """Two epochs and a half, by masks of an augmentation unless a collator makes them."""
    args = {name: options.pop(name) for name in [*options] if name not in ("data_collator", "augment")}
    if not options:
        options = {"augment": TokenMasking(tokenizer(), 0.5), "data_collator": DataCollatorWithPadding(tokenizer())}
    trainer = CoLearningTrainer(
        student() if model is None else model,
        tiny.arguments(folder, **{"per_device_train_batch_size": 4, "max_steps": 5, **args}),
        train_dataset=texts() if dataset is None else dataset,
        **options,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# ---- values ----
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_stock_model_and_latents(tied):
    model = student(tiny.BertConfig(vocab_size=len(WORDS), tie_word_embeddings=tied, **SIZES)).eval()
    stock, inputs = model.to_transformers(), masked_inputs()
    assert isinstance(stock, BertForMaskedLM)
    embeddings = model.get_input_embeddings().weight
    assert (model.get_output_embeddings().weight is embeddings) == tied
    ours, theirs = model(**inputs), stock(**inputs)
    assert torch.equal(ours.logits, theirs.logits)  # [B, T, V]
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert ours.latents.shape == (2, 4) and ours.dense_latents.shape == (2, 8, 4)
    assert ours.training_outputs["vokens"].shape == (2, 8, 5)
    assert ours.dense_mask.sum(1).tolist() == [5, 8]  # "[CLS] a frog sleeps [SEP]"


def test_the_loss_is_a_mean_over_the_labels_of_the_step():
    model, inputs = student().eval(), masked_inputs()
    assert model.label_counts(**inputs).tolist() == [3]
    # a step of two micro-batches, of which the other has 1 label: 2 a micro-batch, and three halves of this one's mean
    torch.testing.assert_close(
        model(**inputs, num_items_in_batch=torch.tensor([2.0])).loss, 1.5 * model(**inputs).loss
    )
    inputs["labels"].fill_(-100)
    nothing = model(**inputs).loss
    nothing.backward()
    assert nothing.item() == 0 and model.get_input_embeddings().weight.grad.abs().sum() == 0


# ---- its life in files ----
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_loaded_by_every_way_and_fills_masks(tied, tmp_path):
    model, inputs = (
        student(tiny.BertConfig(vocab_size=len(WORDS), tie_word_embeddings=tied, **SIZES)).eval(),
        masked_inputs(),
    )
    save_student(model, tokenizer(), tmp_path)
    # with trust_remote_code, where hf_colearn is not: the folder has the code, and says which
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert (
        auto_map["AutoModelForMaskedLM"] == "masked_lm.CoLearningForMaskedLM" and (tmp_path / "masked_lm.py").is_file()
    )
    ours = [loading.from_pretrained(tmp_path) for loading in (CoLearningForMaskedLM, AutoModelForMaskedLM)]
    for loaded in ours:
        embeddings = loaded.get_input_embeddings().weight
        assert (loaded.get_output_embeddings().weight is embeddings) == tied
        assert torch.equal(loaded.eval()(**inputs).logits, model(**inputs).logits)
    answers = pipeline("fill-mask", str(tmp_path), device="cpu")("a [MASK] runs")
    expected = model(**tokenizer()("a [MASK] runs", return_tensors="pt")).logits[0, 2].softmax(0).topk(5)
    assert [answer["token"] for answer in answers] == expected.indices.tolist()
    kinds = ModelKind.of_model(model), ModelKind.of_folder(tmp_path)
    assert {(kind.hub_tag, kind.is_ours, kind.class_name) for kind in kinds} == {
        ("fill-mask", True, "CoLearningForMaskedLM")
    }


def test_a_checkpoint_of_transformers_keeps_its_language_model_head(tmp_path):
    stock = BertForMaskedLM(tiny.BertConfig(vocab_size=len(WORDS), **SIZES)).eval()
    stock.save_pretrained(tmp_path)
    model, inputs = CoLearningForMaskedLM.from_backbone(tmp_path, 4), masked_inputs()
    assert torch.equal(model(**inputs).logits, stock(**inputs).logits)
    other = student(RobertaConfig(vocab_size=len(WORDS), **SIZES))
    assert type(other.to_transformers()).__name__ == "RobertaForMaskedLM"


def test_a_larger_vocabulary_is_saved(tmp_path):
    model = student().eval()
    model.resize_token_embeddings(20, mean_resizing=False)
    model.save_pretrained(tmp_path)
    loaded, inputs = CoLearningForMaskedLM.from_pretrained(tmp_path), masked_inputs()
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits) and loaded(**inputs).logits.shape[-1] == 20


def test_adapters_train_it_and_are_merged(tmp_path):
    adapted = trained(tmp_path / "run", model=with_lora(student(), 2), max_steps=1).model
    inputs = masked_inputs()
    with torch.no_grad():
        expected = copy.deepcopy(adapted).eval()(**inputs).logits
    save_student(adapted, tokenizer(), tmp_path / "student")
    torch.testing.assert_close(CoLearningForMaskedLM.from_pretrained(tmp_path / "student")(**inputs).logits, expected)


# ---- training ----
def test_a_resumed_run_has_the_masks_of_the_whole_one(tmp_path):
    whole = trained(tmp_path / "whole", save_strategy="steps", save_steps=2)
    resumed = trained(tmp_path / "resumed", resume=tmp_path / "whole" / "checkpoint-2")
    assert losses(resumed) == losses(whole) and len(set(losses(whole))) == 5
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, whole.model.state_dict()[name]), name


def test_micro_batches_with_more_and_fewer_labels_are_one_step(tmp_path):
    tokens = tokenizer()([TEXTS[1]] * 8)
    labels = [
        [-100, token, *[-100] * 6] if row < 5 else tokens["input_ids"][row] for row, token in enumerate(range(5, 13))
    ]
    labels[2] = [-100] * 8
    columns = {name: tokens[name] for name in ("input_ids", "attention_mask")} | {"labels": labels}
    dataset = Dataset.from_dict(columns)
    options = {"max_steps": 1, "data_collator": default_data_collator}
    one = trained(tmp_path / "one", dataset, per_device_train_batch_size=8, **options)
    several = trained(
        tmp_path / "several", dataset, per_device_train_batch_size=2, gradient_accumulation_steps=4, **options
    )
    assert losses(several) == pytest.approx(losses(one), rel=1e-5)
    for name, weight in several.model.state_dict().items():
        torch.testing.assert_close(weight, one.model.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert one.evaluate(dataset.select(range(3)))["eval_loss"] == pytest.approx(
        several.evaluate(dataset.select(range(2)))["eval_loss"], rel=1e-4
    )


def test_the_collator_of_transformers_makes_labels_and_metrics_see_tokens(tmp_path):
    seen = []

    def accuracy(evaluation):
        seen.append(evaluation.predictions.shape)
        is_asked = evaluation.label_ids != -100
        return {"accuracy": (evaluation.predictions == evaluation.label_ids)[is_asked].mean()}

    trainer = trained(tmp_path, data_collator=DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.5))
    trainer.compute_metrics, trainer.preprocess_logits_for_metrics = accuracy, lambda logits, _: logits.argmax(dim=-1)
    assert 0 <= trainer.evaluate(texts())["eval_accuracy"] <= 1
    assert seen == [(12, 8)]  # tokens, and not logits of every word
    assert losses(trainer)[0] == pytest.approx(2.64, abs=0.3)  # about log 14


# ---- refusals ----
refusals = Refusals()


@refusals.case(ValueError, "head='bottleneck' of a masked language model", "leave `head` out")
def a_head_of_classes(folder):
    yield
    student(head="bottleneck")


@refusals.case(ValueError, "num_labels is given to a masked language model", "leave it out")
def a_number_of_classes(folder):
    yield
    CoLearningForMaskedLM.from_backbone(tiny.bert(), 4, 3)


@refusals.case(ValueError, "problem_type='regression'", "leave it out")
def another_problem(folder):
    yield
    student(problem_type="regression")


@refusals.case(
    ValueError, "labels of shape (4,) for (4, 8) tokens", "DataCollatorForLanguageModeling(tokenizer)", "`label`"
)
def a_column_of_classes(folder):
    tokens = tokenizer()([TEXTS[1]] * 4)
    dataset = Dataset.from_dict({"input_ids": tokens["input_ids"], "label": [0, 1, 0, 1]})
    yield
    trained(folder / "out", dataset, data_collator=default_data_collator)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
