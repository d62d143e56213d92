"""A decoder says the caption of the student's input. Shapes: B samples, T tokens of a caption, V tokens of the vocabulary."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.objectives.objective import CoLearningBatch


class CaptionGeneration:
    r"""Lets the student's latent generate the caption of its input: the term `captions`,
    \\(-\sum_t \log p(w_t \mid w_{<t}, h)\\).

    The sum over a caption's tokens, in nats, and the mean over the samples of the optimizer step that have a caption; 0 where
    none has. The first token, such as a tokenizer's `[CLS]`, is where a decoder begins, and is not predicted. The decoder is a
    training head, which only training runs and no export has, so that the student reads its own modality alone.

    Source: "Shaping Visual Representations with Language for Few-shot Classification" (Mu et al., ACL 2020), equation 5: the
    task's loss plus lambda times this. With [`ConstantAlpha.from_weights`], `ConstantAlpha.from_weights({"captions": lam})`.

    Args:
        teacher (`str`, *optional*, defaults to `"captions"`): The teacher whose bank holds the captions' token ids.
        head (`str`, *optional*): The training head that decodes, by default that of the teacher's name:
            `training_heads={"captions": {"vocab_size": V}}`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import CaptionGeneration
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> ids = torch.tensor([[1, 3, 2], [1, 2, -100]])  # captions of two tokens and of one, after the first
    >>> outputs = {"training_outputs": {"captions": torch.zeros(2, 2, 4)}}  # [B, T - 1, V]
    >>> CaptionGeneration()(outputs, CoLearningBatch(targets={"captions": ids}))  # (2 log 4 + log 4) / 2
    {'captions': tensor(2.0794)}

    ```
    """

    terms: tuple[str, ...] = ("captions",)

    def __init__(self, teacher: str = "captions", head: str | None = None):
        for of, name in (("teacher", teacher), ("head", teacher if head is None else head)):
            if not isinstance(name, str) or not name:
                raise TypeError(f"{of}={name!r} is no name: pass the {of}'s, such as 'captions'.")
        self.teacher, self.head = teacher, teacher if head is None else head

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        logits_BTV = outputs["training_outputs"][self.head]
        loss = caption_loss(logits_BTV, batch.targets[self.teacher])
        return {"captions": loss * batch.weight(self.teacher)}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a student without the decoder, and captions that it cannot learn, with the row's number.

        Raises:
            ValueError: If there is no such teacher or decoder, the decoder has another teacher, a caption is empty, or a token
                is outside of the vocabulary.
        """
        heads = getattr(getattr(model, "config", None), "training_heads", None) or {}
        decoder = heads.get(self.head, {})
        wanted = f"training_heads={{'{self.head}': {{'vocab_size': V, 'teacher': '{self.teacher}'}}}}"
        if "vocab_size" not in decoder:
            found = f"'{self.head}' is none of captions" if decoder else f"the student has {list(heads) or 'no heads'}"
            raise ValueError(f"CaptionGeneration needs a decoder, and {found}: build the student with `{wanted}`.")
        if decoder["teacher"] != self.teacher:
            raise ValueError(
                f"the decoder '{self.head}' is given the captions of '{decoder['teacher']}', and CaptionGeneration reads those "
                f"of '{self.teacher}': build the student with `{wanted}`."
            )
        if self.teacher not in teachers:
            raise ValueError(
                f"CaptionGeneration reads the teacher '{self.teacher}', and there is {list(teachers) or 'none'}: pass "
                f"`teachers={{'{self.teacher}': Teacher(bank)}}` with a bank of token ids."
            )
        check_captions(teachers[self.teacher].bank, decoder["vocab_size"], self.teacher)

    def __repr__(self) -> str:
        return f"CaptionGeneration('{self.teacher}', '{self.head}')"


def caption_loss(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    r"""\\(-\sum_t \log p(w_t)\\) of the tokens after the first, the mean over the samples that have one; 0 where none has.

    Args:
        logits_BTV (`torch.Tensor` of shape `(B, T - 1, V)`): Of tokens 2 to T; computed in float32.
        ids_BT (`torch.Tensor` of shape `(B, T)`): The caption with its first token; -100 is padding.
    """
    if logits_BTV.shape[:2] != ids_BT[:, 1:].shape:
        raise ValueError(
            f"logits of shape {tuple(logits_BTV.shape)} are none of captions of {tuple(ids_BT.shape)}: give one for each token "
            "after the first."
        )
    targets_BT = ids_BT[:, 1:]
    losses_BT = F.cross_entropy(
        logits_BTV.float().transpose(1, 2), targets_BT, ignore_index=NO_LABEL, reduction="none"
    )
    has_B = (targets_BT != NO_LABEL).any(dim=1)
    return losses_BT.sum() / has_B.sum().clamp(min=1)


def check_captions(bank: Any, vocab_size: int, teacher: str, rows: int = 4096) -> None:
    """Refuses a bank of anything but ids below `vocab_size`, and an empty caption; so many rows are read at once."""
    num_ids = getattr(bank, "num_ids", None)
    if num_ids is None:
        raise ValueError(
            f"the bank of '{teacher}' is a {type(bank).__name__} of latents, and captions are ids of tokens: make it by "
            "`SequenceBank.from_ids(tokenizer(captions).input_ids, num_ids=len(tokenizer))`."
        )
    if num_ids > vocab_size:
        raise ValueError(
            f"the bank of '{teacher}' has tokens 0 to {num_ids - 1}, and the decoder knows {vocab_size}: build the student "
            f"with `vocab_size={num_ids}` (`vocab_size=bank.num_ids`)."
        )
    for start in range(0, len(bank), rows):
        ids_BT = bank.lookup(np.arange(start, min(start + rows, len(bank))))
        if (is_empty_B := (ids_BT[:, 1:] == NO_LABEL).all(dim=1)).any():
            raise ValueError(
                f"row {start + int(is_empty_B.int().argmax())} of the bank of '{teacher}' is an empty caption, without a token "
                "after the first: write one, or leave the row out and its samples without a partner (`WherePaired`)."
            )
