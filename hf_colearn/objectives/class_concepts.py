"""The student learns what is true of the sample's class. Shapes: B samples, C classes, Q questions."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.objectives.objective import LABELLED, CoLearningBatch


HEAD = "concepts"


class ClassConcepts:
    r"""Soft targets that a language model knows of the classes: the term `concepts`.

    A training head of the student with Q outputs, \\(o\\), answers Q questions about the sample's class c, whose answers
    \\(a_{cq} \in [0, 1]\\) are in a table: binary cross-entropy

    \\(-\frac{1}{Q} \sum_q a_{cq} \log \sigma(o_q) + (1 - a_{cq}) \log (1 - \sigma(o_q))\\),

    the mean over the questions that have an answer, and then over the samples of the optimizer step that have a label; 0 where
    none has. The label alone says which row a sample sees, so that hidden labels stay hidden. The head is not needed at test
    time, and not in an export.

    The other way to use such a table is to predict *classes* by their concepts: rows as class vectors,
    `from_backbone(..., head="prototypes", class_vectors=table.rows)`, whose logits are cosines between the student's latent,
    one entry a question, and the classes' answers. A new class is then a row of answers, `student.with_classes({...})`.

    Source: answers to concept questions about classes as soft targets, after the abstract of "LaViD" (ICML 2026), whose losses
    were not read; concepts between input and class as in "Concept Bottleneck Models" (Koh et al., ICML 2020).

    Args:
        answers (`torch.Tensor` of shape `(C, Q)`): In [0, 1], in the order of the labels, such as
            [`ConceptTable.answers`](~hf_colearn.corpora.concepts.ConceptTable) gives them; NaN is no answer.
        head (`str`, *optional*, defaults to `"concepts"`): The student's training head,
            `from_backbone(..., training_heads={"concepts": Q})`.

    Raises:
        ValueError: If the answers are no such table; when the trainer is built, if the student has no such head, or one of
            another width, or another number of classes; in training, if a label is no class index.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import ClassConcepts
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> is_alive_and_worn = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # of animals and of clothing
    >>> outputs = {"training_outputs": {"concepts": torch.zeros(2, 2)}}  # one half each: log 2
    >>> ClassConcepts(is_alive_and_worn)(outputs, CoLearningBatch(torch.tensor([0, -100])))
    {'concepts': tensor(0.6931)}
    ```
    """

    terms: tuple[str, ...] = ("concepts",)

    def __init__(self, answers: torch.Tensor, head: str = HEAD):
        answers_CQ = torch.as_tensor(answers).float()
        if answers_CQ.ndim != 2 or not answers_CQ.numel():
            raise ValueError(
                f"the answers are of shape {tuple(answers_CQ.shape)}: pass a table [C, Q], a row a class and a column a "
                "question, such as `table.answers(class_names)`."
            )
        if not (answers_CQ.isnan() | ((answers_CQ >= 0) & (answers_CQ <= 1))).all():
            raise ValueError(
                f"the answers reach from {float(answers_CQ.nan_to_num(0).min()):g} to "
                f"{float(answers_CQ.nan_to_num(0).max()):g}: pass probabilities from 0 (no) to 1 (yes)."
            )
        if answers_CQ.isnan().all(dim=1).any():
            which = int(answers_CQ.isnan().all(dim=1).nonzero()[0])
            raise ValueError(f"class {which} has no answer to any question: ask them of it, too.")
        self.answers, self.head = answers_CQ, head

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        counts_B = batch.labelled
        if counts_B is None or batch.labels is None or batch.labels.ndim > 1 or batch.labels.is_floating_point():
            shown = None if batch.labels is None else tuple(batch.labels.shape)
            raise ValueError(f"the labels are of shape {shown}: concepts are of one class a sample, an index each.")
        logits_BQ = outputs["training_outputs"][self.head].float()
        self.answers = self.answers.to(logits_BQ.device)  # moved once
        answers_BQ = self.answers[batch.labels.clamp(min=0)]
        has_BQ = ~answers_BQ.isnan() & counts_B[:, None]
        answers_BQ = torch.where(has_BQ, answers_BQ, 0)
        losses_BQ = F.binary_cross_entropy_with_logits(logits_BQ, answers_BQ, reduction="none")
        losses_B = torch.where(has_BQ, losses_BQ, 0).sum(dim=1) / has_BQ.sum(dim=1).clamp(min=1)
        return {"concepts": losses_B.sum() / counts_B.sum().clamp(min=1) * batch.weight(LABELLED)}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a student without the head, with one of another width, or with other classes."""
        config = getattr(model, "config", None)
        heads, (classes, questions) = getattr(config, "training_heads", None) or {}, self.answers.shape
        if self.head not in heads:
            raise ValueError(
                f"the student has no training head '{self.head}' (it has {', '.join(heads) or 'none'}): build it with "
                f"training_heads={{'{self.head}': {questions}}}."
            )
        if (width := heads[self.head].get("out_features")) != questions:
            raise ValueError(
                f"training head '{self.head}' is {width} wide, and the table has {questions} questions: build the student with "
                f"training_heads={{'{self.head}': {questions}}}."
            )
        if (known := getattr(config, "num_labels", classes)) != classes:
            raise ValueError(
                f"the table has {classes} classes and the student {known}: pass a row for each, in their order."
            )

    def __repr__(self) -> str:
        return f"ClassConcepts({self.answers.shape[0]} classes, {self.answers.shape[1]} questions)"
