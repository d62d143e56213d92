"""Masked tokens, the task of masked language modelling, drawn on the device as an augmentation of training batches.

Shapes: B texts of a batch, T tokens.
"""

from typing import Any

import torch
from datasets import Dataset

from hf_colearn.data.columns import check_columns
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.utils.checks import check_integer, is_number


class TokenMasking:
    r"""Masks tokens anew in every batch, as the trainer's `augment`, and makes `labels` of them.

    Each token that is not special is chosen with a probability of 15 %: 80 % of the chosen ones become the mask token, 10 % a
    random token, 10 % stay. The labels are the chosen tokens, and -100 elsewhere. Source: "BERT: Pre-training of Deep
    Bidirectional Transformers for Language Understanding" (Devlin et al., NAACL 2019).

    [`~transformers.DataCollatorForLanguageModeling`] makes the same labels in the data loader, which draws a batch ahead: a
    run that is resumed within an epoch goes on with other masks there, and with the same ones here.

    Args:
        tokenizer: The student's, with a mask token.
        probability (`float`, *optional*, defaults to 0.15): Of a token to be chosen.

    Raises:
        ValueError: If the tokenizer has no mask token, or the probability is none.

    Example:

    ```python
    >>> import torch
    >>> from transformers import BertTokenizer
    >>> from hf_colearn.data.token_masking import TokenMasking

    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "frog"]
    >>> mask = TokenMasking(BertTokenizer(vocab={word: i for i, word in enumerate(words)}), probability=1.0)
    >>> mask({"input_ids": torch.tensor([[2, 5, 6, 3]])})["labels"].tolist()
    [[-100, 5, 6, -100]]

    ```
    """

    def __init__(self, tokenizer: Any, probability: float = 0.15):
        if not is_number(probability) or not 0 < probability <= 1:
            raise ValueError(f"probability={probability!r} masks nothing: pass a number above 0, up to 1.")
        if getattr(tokenizer, "mask_token_id", None) is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no mask token: use the tokenizer of a masked language model."
            )
        self.probability, self.mask_id, self.vocab_size = probability, tokenizer.mask_token_id, len(tokenizer)
        self.special = torch.tensor(sorted(set(tokenizer.all_special_ids)))

    def __call__(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> dict[str, Any]:
        """The batch with masked `input_ids` `(B, T)` and their `labels`."""
        ids_BT = batch["input_ids"]
        self.special = self.special.to(ids_BT.device)

        def drawn() -> torch.Tensor:
            return torch.rand(ids_BT.shape, generator=generator, device=ids_BT.device)

        chosen_BT = (drawn() < self.probability) & ~torch.isin(ids_BT, self.special)
        fate_BT, others_BT = drawn(), (drawn() * self.vocab_size).long().clamp(max=self.vocab_size - 1)
        masked_BT = torch.where(chosen_BT & (fate_BT < 0.8), self.mask_id, ids_BT)
        masked_BT = torch.where(chosen_BT & (fate_BT >= 0.9), others_BT, masked_BT)
        return {**batch, "input_ids": masked_BT, "labels": torch.where(chosen_BT, ids_BT, NO_LABEL)}

    def fixed(self, dataset: Dataset, seed: int) -> Dataset:
        """A data set of `input_ids` with masks that are drawn once and its `labels`, to evaluate on; text by text.

        Args:
            dataset ([`datasets.Dataset`]): With a column `input_ids`, as long as each text is.
            seed (`int`): Draws the masks.
        """
        check_columns(dataset, "input_ids")
        check_integer("seed", seed)
        generator = torch.Generator().manual_seed(seed)
        special, self.special = self.special, self.special.cpu()
        rows = [self({"input_ids": torch.tensor([ids])}, generator) for ids in dataset.with_format(None)["input_ids"]]
        self.special = special
        kept = dataset.remove_columns([name for name in ("input_ids", "labels") if name in dataset.column_names])
        for name in ("input_ids", "labels"):
            kept = kept.add_column(name, [row[name][0].tolist() for row in rows])
        return kept
