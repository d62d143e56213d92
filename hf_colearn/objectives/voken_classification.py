"""Every token of a text is told which image belongs to it. Shapes: B texts of a batch, T tokens, K images or their clusters."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.models.training_heads import model_reading
from hf_colearn.objectives.dense_matching import mean_of_samples
from hf_colearn.objectives.objective import CoLearningBatch


HEAD = "vokens"  # the term, and the training head that it reads


class VokenClassification:
    r"""Predicts the voken, the image's id, of every token of a text: the term `vokens`.

    \\(-\frac{1}{N} \sum_i \frac{1}{T_i} \sum_t \log p(v_{it} | x_i)\\): cross-entropy over the K ids at all tokens that have
    one, masked or not; of each text the mean over its tokens, and then the mean over the texts of the optimizer step. A text
    without ids does not count. The probabilities are those of the student's training head `vokens`, which reads its dense
    latents.

    The teacher's bank holds ids ([`SequenceBank.from_ids`]), one a token of the student's input, special tokens included: -100
    where there is none. [`hf_colearn.teachers.vokens`] makes them.

    Source: "Vokenization: Improving Language Understanding with Contextualized, Visual-Grounded Supervision" (Tan & Bansal,
    EMNLP 2020). The sum of this and of the masked language model's loss is an alpha of .5 here.

    Args:
        teacher (`str`, *optional*, defaults to `"vokens"`): Its name among `CoLearningTrainer(teachers=...)`.

    Raises:
        ValueError: When the trainer is built, if the student has no head `vokens` on dense latents, or not as wide as there
            are ids; in a batch, if the ids are not as many as the tokens.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import VokenClassification
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> batch = CoLearningBatch(targets={"vokens": torch.tensor([[-100, 3, 1, -100]])})
    >>> VokenClassification()({"training_outputs": {"vokens": torch.zeros(1, 4, 5)}}, batch)  # log 5
    {'vokens': tensor(1.6094)}

    ```
    """

    terms: tuple[str, ...] = (HEAD,)

    def __init__(self, teacher: str = "vokens"):
        if not isinstance(teacher, str) or not teacher:
            raise TypeError(
                f"teacher={teacher!r} is no name of a teacher: pass the one that `teachers=` has, such as 'vokens'."
            )
        self.teacher = teacher

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        logits_BTK, ids_BT = outputs["training_outputs"][HEAD], batch.targets[self.teacher]
        if logits_BTK.shape[:2] != ids_BT.shape:
            raise ValueError(
                f"the input has {logits_BTK.shape[1]} tokens, and teacher '{self.teacher}' {ids_BT.shape[1]} ids a text: make "
                "the ids of the very tokens of the training set, special ones included, with the same truncation, and pad "
                "batches to their longest text alone (no `pad_to_multiple_of`, no `padding='max_length'`)."
            )
        return {HEAD: voken_loss(logits_BTK, ids_BT) * batch.weight(self.teacher)}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a student without the head, and a teacher of latents, or of another number of ids than the head has."""
        if self.teacher not in teachers:
            raise ValueError(
                f"there is no teacher '{self.teacher}' (there are {', '.join(map(repr, teachers)) or 'none'}): pass "
                f"`teachers={{'{self.teacher}': Teacher(SequenceBank.from_ids(ids))}}`."
            )
        num_ids = getattr(teachers[self.teacher].bank, "num_ids", None)
        if num_ids is None:
            raise ValueError(
                f"the bank of teacher '{self.teacher}' holds latents, and a voken is an id a token: pass "
                "`SequenceBank.from_ids(ids, num_ids=K)`."
            )
        config = getattr(model, "config", None)
        heads = getattr(config, "training_heads", None) or {}
        way_out = (
            f"`from_backbone(..., dense=True, training_heads={{'{HEAD}': {{'out_features': {num_ids}, 'reads': "
            "'dense_latents'}})`"
        )
        if HEAD not in heads:
            raise ValueError(
                f"the student has no training head '{HEAD}' (it has {list(heads) or 'none'}): build it by {way_out}."
            )
        read, width = model_reading(heads, HEAD), heads[HEAD].get("out_features")
        if read != "dense_latents":
            raise ValueError(
                f"the training head '{HEAD}' reads {read}, one vector a text, and vokens are one a token: build the "
                f"student by {way_out}."
            )
        if width != num_ids:
            raise ValueError(
                f"the training head '{HEAD}' has {width} outputs, and teacher '{self.teacher}' {num_ids} ids: build the "
                f"student by {way_out}."
            )

    def __repr__(self) -> str:
        return f"VokenClassification('{self.teacher}')"


def voken_loss(logits_BTK: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """The mean over texts that have ids of the mean cross-entropy of their tokens that have one; 0 where no text has.

    Args:
        logits_BTK (`torch.Tensor` of shape `(B, T, K)`): Before the softmax.
        ids_BT (`torch.Tensor` of shape `(B, T)`): 0 to K - 1, or -100 for none.
    """
    losses_BT = F.cross_entropy(logits_BTK.float().transpose(1, 2), ids_BT, ignore_index=NO_LABEL, reduction="none")
    return mean_of_samples(losses_BT, ids_BT != NO_LABEL)
