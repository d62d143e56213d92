"""A trained student on its test set: its scores, predictions and latents, as a run folder keeps them.

Shapes: N test samples, M modalities, C classes, D latent width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Subset
from transformers import EvalPrediction

from hf_colearn.analysis.runs import Run, Samples, kept_rows
from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.analysis.statistics.target_variance import target_variance
from hf_colearn.experiments.cost import Cost
from hf_colearn.hub.record import public
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.teachers import fingerprint
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed


MAX_TRAINING = 2000  # training samples whose latents are kept
# Arguments that may change between the sessions of one run.
_OF_THE_SESSION = {
    "output_dir", "logging_dir", "resume_from_checkpoint", "local_rank", "report_to", "disable_tqdm", "log_level",
    "save_total_limit", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "push_to_hub",
    "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "run_name", "logging_steps",
}  # fmt: skip


def save_run(
    trainer: CoLearningTrainer,
    test_dataset: Any,
    folder: str | Path,
    arm: str,
    kind: Kind,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
) -> Run:
    """Scores a trained student and writes the run folder that `hf-colearn report` reads; a collective.

    Args:
        trainer ([`CoLearningTrainer`]): After `train()`.
        test_dataset: What it is scored on.
        folder (`str` or `Path`): Of the run, below that of the report, such as `runs/mine/baseline/seed-0`.
        arm (`str`): Its name in the report.
        kind (`str`): `"baseline"`, `"colearned"`, `"null"` or `"reference"`; see
            [`~hf_colearn.analysis.statistics.compare.Arm`].
        groups, more_tests (`Mapping`, *optional*): As of [`~hf_colearn.experiments.runner.run_arms`].

    Returns:
        [`~hf_colearn.analysis.runs.Run`]: What the folder holds.

    Example:

    ```python
    trainer.train()
    save_run(trainer, test, f"runs/mine/prompts/seed-{args.seed}", arm="prompts", kind="colearned")
    ```
    """
    run = scored_run(trainer, test_dataset, arm, kind, groups=groups, more_tests=more_tests)
    if distributed.rank() == 0:
        run.save(folder, identity_of(trainer))
    distributed.barrier()
    return run


def identity_of(trainer: CoLearningTrainer) -> dict[str, Any]:
    """What a run depends on, as far as it is known: the arguments, the terms, the teacher's latents, the student."""
    arguments = {name: value for name, value in trainer.args.to_dict().items() if name not in _OF_THE_SESSION}
    config = getattr(_unadapted(trainer), "config", None)
    banks = {name: teacher.bank.fingerprint for name, teacher in trainer.teachers.items()}
    identity = {
        **arguments,
        "objective": repr(trainer.auxiliary_objective),
        "weights of terms": repr(trainer.alpha),
        "bank": banks if len(banks) > 1 else next(iter(banks.values()), None),
        "student": fingerprint.of_json({} if config is None else config.to_dict()),
    }
    return json.loads(json.dumps(identity, default=str))


def scored_run(
    trainer: CoLearningTrainer,
    test_dataset: Any,
    arm: str,
    kind: Kind,
    *,
    cost: Cost | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
    sweep: tuple[str, float] | None = None,
    modality: str | None = None,
) -> Run:
    """Scores a trained student, and collects what table, report and card need; a collective."""
    test, logits_NC, metrics = _scored(trainer, test_dataset, arm)
    for name, dataset in (more_tests or {}).items():
        metrics |= {f"{metric}_on_{name}": value for metric, value in _scored(trainer, dataset, arm)[2].items()}
    for name, values in (groups or {}).items():
        if len(values) != len(test.labels):
            raise ValueError(
                f"groups['{name}'] has {len(values)} values for {len(test.labels)} test samples: give one each."
            )
    facts = _facts_of(trainer, *logits_NC.shape)
    if cost is not None:
        facts |= {"peak_memory": cost.peak_memory, "peak_memory_of_device": cost.of_device}
    if modality is not None:
        facts["modality"] = modality  # the only one that the arm is of
    if sweep is not None:
        facts["sweep"] = {"variable": sweep[0], "level": sweep[1]}
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    kept = kept_rows(len(test.labels))
    by_modality = {name: z_ND[kept] for name, z_ND in test.modality_latents.items()}
    return Run(
        arm=arm,
        kind=kind,
        seed=trainer.args.seed,
        metrics=metrics,
        history=trainer.state.log_history,
        seconds=float("nan") if cost is None else cost.seconds,
        labels=test.labels,
        predictions=logits_NC.argmax(axis=1),
        confidences=1 / np.exp(shifted_NC).sum(axis=1),
        test=Samples(test.labels[kept], test.latents[kept], modality_latents=by_modality),
        train=_training_samples(trainer, arm, facts),  # which adds to the facts
        groups={name: np.asarray(values, dtype=str) for name, values in (groups or {}).items()},
        facts=facts,
    )


def _facts_of(trainer: CoLearningTrainer, num_test: int, num_classes: int) -> dict[str, Any]:
    id2label = getattr(getattr(_unadapted(trainer), "config", None), "id2label", None) or {}
    weights = list(trainer.model.parameters())
    return {
        "class_names": [id2label.get(i, str(i)) for i in range(num_classes)],
        "num_test": num_test,
        "num_train": len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else None,
        "parameters": sum(weight.numel() for weight in weights),
        "trained_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
        "processes": distributed.world_size(),
        "objective": None if trainer.auxiliary_objective is None else repr(trainer.auxiliary_objective),
        "alpha": None if trainer.alpha is None else repr(trainer.alpha),
        "teacher": None if trainer.bank is None else public(trainer.bank.description),
    }


def _unadapted(trainer: CoLearningTrainer) -> Any:
    return trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model


def _scored(
    trainer: CoLearningTrainer, dataset: Any, arm: str, with_metrics: bool = True
) -> tuple[Samples, np.ndarray, dict[str, float]]:
    """All samples of a dataset, their logits `(N, C)`, and the metrics."""
    # The logits and the latents, and what a multimodal model's metrics need.
    wanted = ("latents", "modality_latents")
    ignored = [key for key in getattr(trainer.model.config, "keys_to_ignore_at_inference", []) if key not in wanted]
    compute_metrics, trainer.compute_metrics = trainer.compute_metrics, None  # which take no latents
    try:
        output = trainer.predict(dataset, ignore_keys=ignored)
    finally:
        trainer.compute_metrics = compute_metrics
    if not isinstance(output.predictions, tuple):
        raise ValueError(
            f"the student of arm '{arm}' returns only logits, and the latents of every arm are kept: give all arms "
            "the same student, whose output has `logits` and `latents`."
        )
    logits_NC, latents_ND, *others = output.predictions
    labels: Any = output.label_ids
    indices = labels if labels.ndim == 1 else labels.argmax(axis=1)  # soft ones, of a training set
    samples = Samples(indices, latents_ND)
    judged = logits_NC
    if others:
        modality_logits, by_modality, mask_NM, subset_logits = others
        judged = (logits_NC, modality_logits, mask_NM, subset_logits)
        samples.modality_latents = {
            name: np.where(mask_NM[:, [i]].astype(bool), z_ND, np.nan).astype(np.float32)
            for i, (name, z_ND) in enumerate(by_modality.items())
        }
    metrics = compute_metrics(EvalPrediction(judged, labels)) if compute_metrics and with_metrics else {}
    return samples, logits_NC.astype(np.float64), dict(metrics)


def _training_samples(trainer: CoLearningTrainer, arm: str, facts: dict[str, Any]) -> Samples | None:
    """Latents and targets of some training samples; none of a stream. Adds the targets' variance to the facts."""
    dataset = trainer.train_dataset
    if not hasattr(dataset, "__len__"):
        return None
    rows = kept_rows(len(dataset), MAX_TRAINING)
    part = dataset.select(rows) if isinstance(dataset, Dataset) else Subset(dataset, rows.tolist())
    samples, _, _ = _scored(trainer, part, arm, with_metrics=False)
    if trainer.bank is not None and trainer.pairing is not None:
        column = trainer.args.id_column
        ids = np.array(part[column] if isinstance(part, Dataset) else [part[i][column] for i in range(len(part))])
        last = max(int(trainer.state.epoch or 0) - 1, 0)
        targets = samples.targets = trainer.pairing.targets(trainer.bank, ids, last, trainer.args.seed).numpy()
        objective = trainer.auxiliary_objective
        has_some = bool(np.isfinite(targets[:500]).all(axis=1).any())  # a small paired fraction may miss them all
        if isinstance(objective, LatentMatching) and objective.loss == "mse" and has_some:
            facts["target_variance"] = target_variance(
                trainer.pairing, trainer.bank, ids[:500], trainer.args.seed, objective.reduction
            )
    return samples
