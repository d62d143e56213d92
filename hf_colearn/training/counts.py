"""How many samples of an optimizer step count, which its means are over: in all micro-batches, of all processes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.models.heads import label_mask
from hf_colearn.models.imputation import imputable
from hf_colearn.models.lora import base_model
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.models.modality_mask import mask_of_batch
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.dense_matching import dense_term
from hf_colearn.objectives.latent_matching import latent_term
from hf_colearn.objectives.objective import IMPUTABLE, LABELLED, CoLearningBatch
from hf_colearn.utils.distributed import mean_over_processes


TASK = (
    "labels"  # the labels that count, of a multimodal model also those of every modality's samples; or of every task
)
_OF_TASK_LOSS = "labels of the task's loss"  # their number, which the loss that is logged is a mean over


def counts_its_labels(model: Any) -> bool:
    """Whether the model divides its loss by a number of labels that it is given, as ours do."""
    return isinstance(base_model(model), CheckedModel)


def label_counts(model: Any, labels: Any, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """How many labels of a micro-batch count, `(1,)`; of a multimodal model followed by those of every modality, `(1 + M,)`; of
    a model of many tasks by task, `(K,)`."""
    if not isinstance(labels, torch.Tensor):
        return None  # none, or of a form that the model alone knows
    base = base_model(model)
    if isinstance(base, CheckedModel):
        return base.label_counts(labels, **{name: value for name, value in inputs.items() if name not in LABELS})
    return label_mask(labels, getattr(getattr(base, "config", None), "problem_type", None)).sum().view(1)


def step_counts(model: Any, batches: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """What counts in a micro-batch of a step on average, over its micro-batches and processes: labels, labelled samples,
    the samples that have a target of each teacher, and latents that could be imputed. No wait for the device."""
    found: dict[str, list[torch.Tensor]] = {}
    base = base_model(model)
    for inputs in batches:
        batch = CoLearningBatch.taken_from(dict(inputs))
        labels = label_counts(model, batch.labels, inputs)
        if labels is not None and batch.labelled is not None:
            found.setdefault(TASK, []).append(labels)
            found.setdefault(LABELLED, []).append(batch.labelled.sum().view(1))
        if isinstance(base, CoLearningForMultimodalClassification) and base.imputation is not None:
            found.setdefault(IMPUTABLE, []).append(imputable_count(base.modalities, inputs))
        for name, paired_B in batch.paired.items():
            found.setdefault(name, []).append(paired_B.sum().view(1))
    if not found:
        return {}
    sizes = [len(counts[0]) for counts in found.values()]
    sums = torch.cat([torch.stack(counts).sum(0).float() for counts in found.values()])
    means = mean_over_processes(sums / len(batches))
    counts = dict(zip(found, means.split(sizes), strict=True))
    if TASK in counts:
        is_by_task = isinstance(base, CoLearningForManyTasks)
        counts[_OF_TASK_LOSS] = counts[TASK].sum().view(1) if is_by_task else counts[TASK][:1]
    return {name: mean if name == TASK else mean.squeeze(0) for name, mean in counts.items()}


def imputable_count(modalities: tuple[str, ...], inputs: Mapping[str, Any]) -> torch.Tensor:
    """How many latents of a micro-batch are there together with another modality of their sample, `(1,)`."""
    first = next(inputs[key] for key in inputs if key.startswith(tuple(f"{name}_" for name in modalities)))
    return imputable(mask_of_batch(modalities, inputs, len(first), first.device)).sum().view(1)


def of_terms(batch: CoLearningBatch) -> dict[str, torch.Tensor]:
    """What the task's loss, every teacher's term and that of imputed latents are means over, by the name of the loss."""
    of_step = batch.step_counts
    named = [
        (term(name), of_step[name]) for name in batch.targets if name in of_step for term in (latent_term, dense_term)
    ]
    counts = dict(named)
    counts |= {"imputation": of_step[IMPUTABLE]} if IMPUTABLE in of_step else {}
    return counts | ({"task": of_step[_OF_TASK_LOSS]} if _OF_TASK_LOSS in of_step else {})
