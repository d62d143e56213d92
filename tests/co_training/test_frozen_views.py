"""Frozen language models as views: near prompts, pipelines of transformers, calibration by a text without content."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    pipeline,
)

import tiny
from docstrings import run_example
from hf_colearn import PipelineTexts, PromptedTexts


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "frog", "tram", "animal", "vehicle", "this", "is", "about", ":"]
TEXTS = Dataset.from_dict({"text": ["a frog", "a tram a tram", "frog"], "other": ["a", "a", "a"]})


def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def pipe(task):
    torch.manual_seed(0)
    if task == "text-generation":
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 2, "eos_token_id": 3}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), **sizes)).eval()
    else:
        labels = (
            {0: "vehicle", 1: "animal"} if task == "text-classification" else {0: "contradiction", 1: "entailment"}
        )
        model = BertForSequenceClassification(
            tiny.bert(id2label=labels, label2id={n: i for i, n in labels.items()})
        ).eval()
    return pipeline(task, model=model, tokenizer=tokenizer(), device="cpu")


@pytest.mark.parametrize("task", ["text-classification", "zero-shot-classification", "text-generation"])
def test_a_pipeline_gives_every_text_probabilities_in_the_order_of_the_classes(task):
    pipeline_of_task = pipe(task)
    found = PipelineTexts(pipeline_of_task, ["animal", "vehicle"]).probabilities(TEXTS)
    model, words = pipeline_of_task.model, pipeline_of_task.tokenizer
    with torch.no_grad():
        if task == "text-classification":  # the model's own softmax, in the other order
            expected = [
                model(**words(text, return_tensors="pt")).logits[0].softmax(-1).flip(0) for text in TEXTS["text"]
            ]
        elif task == "zero-shot-classification":  # the softmax over the classes of their entailment's logit

            def entailment(text, name):
                return model(**words(text, f"This example is {name}.", return_tensors="pt")).logits[0, 1]

            expected = [
                torch.stack([entailment(text, "animal"), entailment(text, "vehicle")]).softmax(-1)
                for text in TEXTS["text"]
            ]
        else:  # of one token each: the next token's log-probability, renormalised
            ids = [words(f"{text}\nThis is about:")["input_ids"] for text in TEXTS["text"]]
            both = [WORDS.index("animal"), WORDS.index("vehicle")]
            expected = [model(torch.tensor([each])).logits[0, -1, both].softmax(-1) for each in ids]
    np.testing.assert_allclose(found, torch.stack(list(expected)).numpy(), atol=1e-5)


def test_a_name_of_several_tokens_counts_by_their_mean():
    view = PipelineTexts(pipe("text-generation"), ["animal", "a tram"], prompt="{text} is")
    words, model = view.pipeline.tokenizer, view.pipeline.model
    whole = words("frog is a tram")["input_ids"]
    with torch.no_grad():
        log_p = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        # After "frog is": "a" is read off at "is", "tram" at "a".
        mean = (log_p[1, whole[2]] + log_p[2, whole[3]]) / 2
    np.testing.assert_allclose(view.scores(["frog"])[0, 1], mean.item(), rtol=1e-5)


class Scores(PromptedTexts):
    def scores(self, texts):
        return np.log([[0.8, 0.2] if text == "N/A" else [0.6, 0.4] for text in texts])


def test_calibration_divides_by_what_a_text_without_content_scores():
    # .6 / .8 = .75 and .4 / .2 = 2: .2727 and .7273.
    view = object.__new__(Scores)
    view.content_free, view.column = "N/A", "text"
    np.testing.assert_allclose(view.probabilities(TEXTS)[0], [3 / 11, 8 / 11])
    view.content_free = None
    np.testing.assert_allclose(view.probabilities(TEXTS)[0], [0.6, 0.4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["animal", "plant"]}, "has no label 'plant' .it has 'vehicle', 'animal'.: pass the names"),
        ({"classes": ["animal"]}, "pass two names at least"),
        ({"classes": ["animal", "animal"]}, "pass two names at least, each once"),
        ({"classes": ["animal", "vehicle"], "prompt": "text"}, "prompt='text' has no {text}"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PipelineTexts(pipe("text-classification"), **options)


def test_another_task_and_another_column_are_refused():
    embeds = pipe("text-classification")
    embeds.task = "feature-extraction"
    with pytest.raises(
        ValueError, match="the pipeline's task='feature-extraction' is unknown: choose one of text-class"
    ):
        PipelineTexts(embeds, ["animal", "vehicle"])
    view = PipelineTexts(pipe("text-classification"), ["animal", "vehicle"], column="caption")
    with pytest.raises(ValueError, match="no column 'caption'"):
        view.probabilities(TEXTS)


def test_the_example_of_prompts_runs():
    run_example(PromptedTexts)
