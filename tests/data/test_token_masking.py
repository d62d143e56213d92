"""Masked tokens: which are chosen and what becomes of them; the same ones in every evaluation."""

import pytest
import torch
from datasets import Dataset
from transformers import BertTokenizer, GPT2Tokenizer

from hf_colearn.data.token_masking import TokenMasking


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
MASK = 4


def tokenizer():
    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def test_a_share_of_the_tokens_is_masked_replaced_or_kept():
    torch.manual_seed(0)
    ids_BT = torch.randint(5, 15, (100, 200))
    ids_BT[:, 0], ids_BT[:, -1] = 2, 3  # [CLS] and [SEP]
    batch = TokenMasking(tokenizer(), probability=0.3)({"input_ids": ids_BT, "attention_mask": torch.ones(100, 200)})
    masked_BT, labels_BT = batch["input_ids"], batch["labels"]
    chosen_BT = labels_BT != -100
    assert torch.equal(labels_BT[chosen_BT], ids_BT[chosen_BT]) and torch.equal(
        masked_BT[~chosen_BT], ids_BT[~chosen_BT]
    )
    assert not chosen_BT[:, [0, -1]].any()
    assert chosen_BT[:, 1:-1].float().mean().item() == pytest.approx(0.3, abs=0.01)
    # a random token is the mask token once in 15, and the token itself as often: .8 + .1 / 15, and .1 + .1 / 15
    assert (masked_BT == MASK)[chosen_BT].float().mean().item() == pytest.approx(0.8067, abs=0.015)
    assert (masked_BT == ids_BT)[chosen_BT].float().mean().item() == pytest.approx(0.1067, abs=0.015)


def test_fixed_masks_do_not_move_the_random_numbers_and_are_the_same_every_time():
    dataset = Dataset.from_dict({"input_ids": [[2, 5, 6, 7, 3], [2, 8, 9, 3]], "category": [0, 1]})
    masking, state = TokenMasking(tokenizer(), 0.5), torch.get_rng_state()
    one, two = masking.fixed(dataset, seed=1), masking.fixed(dataset, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert one[:] == two[:] and one["category"][:] == [0, 1]
    assert [len(labels) for labels in one["labels"]] == [5, 4]
    assert one["labels"][:] != masking.fixed(dataset, seed=2)["labels"][:]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TokenMasking(tokenizer(), 0.0), "probability=0.0 masks nothing"),
        (lambda: TokenMasking(GPT2Tokenizer()), "has no mask token: use the tokenizer of a masked language model"),
    ],
)
def test_what_masks_nothing_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
