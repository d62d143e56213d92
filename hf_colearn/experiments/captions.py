"""Captions as ids of tokens: a tokenizer of their own words, banks of ids, and captions whose words are in another order."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_colearn.teachers.sequence_bank import SequenceBank


_SPECIAL = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}


def word_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary are the captions' words and signs, in lower case and without accents, sorted.

    A caption is `[CLS]`, its words, `[SEP]`. The captions alone decide the ids, the same in every process.

    Args:
        captions (`Sequence[str]`): N texts.

    Example:

    ```python
    >>> from hf_colearn.experiments.captions import word_tokenizer

    >>> tokenizer = word_tokenizer(["A frog.", "a green frog"])
    >>> len(tokenizer), tokenizer("A red frog.").tokens()
    (8, ['[CLS]', 'a', '[UNK]', 'frog', '.', '[SEP]'])

    ```
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in captions for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    vocabulary = {word: i for i, word in enumerate([*_SPECIAL.values(), *sorted(words - set(_SPECIAL.values()))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)


def caption_bank(
    tokenizer: PreTrainedTokenizerFast, captions: Sequence[str], max_length: int | None = None
) -> SequenceBank:
    """The ids of every caption, a row each; an empty caption is refused with its number.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerFast`]): With special tokens before and after a text.
        captions (`Sequence[str]`): N texts.
        max_length (`int`, *optional*): Of ids, special ones included; longer captions lose their end.
    """
    ids = tokenizer(list(captions), truncation=max_length is not None, max_length=max_length).input_ids
    least = tokenizer.num_special_tokens_to_add()
    if (empty := next((row for row, tokens in enumerate(ids) if len(tokens) <= least), None)) is not None:
        raise ValueError(
            f"caption {empty} is empty ('{captions[empty]}' has no token): write one, or leave the sample without a partner "
            "(`WherePaired`)."
        )
    return SequenceBank.from_ids(ids, inputs=list(captions), num_ids=len(tokenizer), tokenizer="words")


def with_shuffled_words(bank: SequenceBank, seed: int = 0) -> SequenceBank:
    """The same captions with their tokens in a random order, but for the first and the last.

    Args:
        bank ([`SequenceBank`]): Of ids.
        seed (`int`, *optional*, defaults to 0): Draws the orders.

    Example:

    ```python
    >>> from hf_colearn import SequenceBank
    >>> from hf_colearn.experiments.captions import with_shuffled_words

    >>> bank = SequenceBank.from_ids([[1, 5, 6, 7, 8, 2]])
    >>> shuffled = with_shuffled_words(bank).lookup([0])[0].tolist()
    >>> shuffled[0], sorted(shuffled[1:-1]), shuffled[-1]
    (1, [5, 6, 7, 8], 2)

    ```
    """
    rng = np.random.default_rng(seed)
    shuffled = []
    for row in range(len(bank)):
        first, *words, last = bank.lookup([row])[0].tolist()
        shuffled.append([first, *rng.permutation(words).astype(int).tolist(), last])
    return SequenceBank.from_ids(shuffled, num_ids=bank.num_ids, words="shuffled")
