"""A trained student on its test set: its scores, predictions and latents, as a run folder keeps them.

Shapes: N test samples, M modalities, C classes, D latent width.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import expit
from torch.utils.data import Subset
from transformers import EvalPrediction

from hf_colearn.analysis.runs import Run, Samples, kept_rows
from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.analysis.statistics.target_variance import target_variance
from hf_colearn.data.labels import is_labelled, label_column, labelled_rows
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.evaluation.regression import with_r2
from hf_colearn.experiments.cost import Cost
from hf_colearn.hub.record import public
from hf_colearn.hub.training_samples import problem_type_of, training_samples
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.teachers import fingerprint
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed


MULTI_LABEL = "multi_label_classification"
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
    problem = problem_type_of(trainer.model)
    scored = _scored(trainer, test_dataset, arm)
    test, metrics, missing = scored.samples, scored.metrics, {"test": scored.num_unlabelled}
    for name, dataset in (more_tests or {}).items():
        other = _scored(trainer, dataset, arm)
        metrics |= {f"{metric}_on_{name}": value for metric, value in other.metrics.items()}
        missing[name] = other.num_unlabelled
    for name, values in (groups or {}).items():
        if len(values) != len(scored.is_labelled):
            raise ValueError(
                f"groups['{name}'] has {len(values)} values for {len(scored.is_labelled)} test samples: give one each."
            )
    facts = _facts_of(trainer, *scored.logits.shape)
    if missing := {name: count for name, count in missing.items() if count}:
        facts["num_unlabelled"] = missing
    if cost is not None:
        facts |= {"peak_memory": cost.peak_memory, "peak_memory_of_device": cost.of_device}
    if modality is not None:
        facts["modality"] = modality  # the only one that the arm is of
    if sweep is not None:
        facts["sweep"] = {"variable": sweep[0], "level": sweep[1]}
    predictions, confidences = _predictions(scored.logits, problem)
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
        predictions=predictions,
        confidences=confidences,
        test=Samples(test.labels[kept], test.latents[kept], modality_latents=by_modality),
        train=_training_samples(trainer, arm, facts),  # which adds to the facts
        groups={name: np.asarray(values, dtype=str)[scored.is_labelled] for name, values in (groups or {}).items()},
        facts=facts,
    )


def check_tests(tests: Mapping[str, Any]) -> None:
    """Refuses, before anything is trained, a test set in whose column of labels there is none."""
    for name, dataset in tests.items():
        column = label_column(dataset)
        if isinstance(dataset, Dataset) and column is not None and not labelled_rows(dataset, column).any():
            raise ValueError(
                f"none of the {len(dataset)} samples of '{name}' has a label (all are -100, NaN or None in column '{column}'), "
                "so no arm could be scored: test on samples with labels."
            )


def _predictions(logits_NC: np.ndarray, problem: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What is predicted, and how confidently, as a [`Run`] keeps them."""
    if problem == "regression":
        return _values(logits_NC), None
    if problem == MULTI_LABEL:
        return (logits_NC > 0).astype(np.int8), expit(logits_NC).astype(np.float32)
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    return logits_NC.argmax(axis=1), 1 / np.exp(shifted_NC).sum(axis=1)


def _values(outputs: np.ndarray) -> np.ndarray:
    """Those of a regression, `(N,)` of one output."""
    outputs = outputs.astype(np.float32)
    return outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs


def _facts_of(trainer: CoLearningTrainer, num_test: int, num_outputs: int) -> dict[str, Any]:
    id2label = getattr(getattr(_unadapted(trainer), "config", None), "id2label", None) or {}
    weights, problem = list(trainer.model.parameters()), problem_type_of(trainer.model)
    names = [id2label.get(i, str(i)) for i in range(num_outputs)]
    return {
        "problem_type": problem,
        "class_names": None if problem == "regression" else names,
        "num_test": num_test,
        **training_samples(trainer),
        "parameters": sum(weight.numel() for weight in weights),
        "trained_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
        "processes": distributed.world_size(),
        "objective": None if trainer.auxiliary_objective is None else repr(trainer.auxiliary_objective),
        "alpha": None if trainer.alpha is None else repr(trainer.alpha),
        "teacher": None if trainer.bank is None else public(trainer.bank.description),
    }


def _unadapted(trainer: CoLearningTrainer) -> Any:
    return trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model


@dataclass
class _Scored:
    """The samples of a data set that have a label, their logits `(n, C)`, and the metrics; which of all N these are."""

    samples: Samples
    logits: np.ndarray
    metrics: dict[str, float]
    is_labelled: np.ndarray

    @property
    def num_unlabelled(self) -> int:
        return int(np.sum(~self.is_labelled))


def _scored(trainer: CoLearningTrainer, dataset: Any, arm: str) -> _Scored:
    predictions, labels = _predicted(trainer, dataset, arm)
    problem = problem_type_of(trainer.model)
    is_labelled_N = is_labelled(labels)
    if not is_labelled_N.any():
        raise ValueError(
            f"none of the {len(labels)} test samples has a label (all are -100 or NaN): nothing can be scored."
        )
    predictions, labels = _rows(predictions, is_labelled_N), labels[is_labelled_N]
    logits_NC, _, *others = predictions
    judged = logits_NC
    if others:
        modality_logits, _, mask_NM, subset_logits = others
        judged = (logits_NC, modality_logits, mask_NM, subset_logits)
    compute_metrics = with_r2(trainer.compute_metrics) if problem == "regression" else trainer.compute_metrics
    metrics = dict(compute_metrics(EvalPrediction(judged, labels))) if compute_metrics else {}
    samples = _samples(predictions, labels, problem)
    return _Scored(samples, logits_NC.astype(np.float64), metrics, is_labelled_N)


def _predicted(trainer: CoLearningTrainer, dataset: Any, arm: str) -> tuple[Any, np.ndarray]:
    """What the student returns of all samples of a dataset (logits, latents, and what a multimodal one adds), and labels."""
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
    labels: Any = output.label_ids
    if labels is None:  # a training set for its pairs alone
        logits_NC, problem = output.predictions[0], problem_type_of(trainer.model)
        labels = np.full(logits_NC.shape if problem == MULTI_LABEL else len(logits_NC), np.nan)
        labels = labels if problem in (MULTI_LABEL, "regression") else np.full(len(labels), NO_LABEL)
    return output.predictions, labels


def _rows(values: Any, is_chosen_N: np.ndarray) -> Any:
    """Some rows of arrays, in tuples and mappings."""
    if isinstance(values, np.ndarray):
        return values[is_chosen_N]
    if isinstance(values, Mapping):
        return {name: _rows(value, is_chosen_N) for name, value in values.items()}
    return tuple(_rows(value, is_chosen_N) for value in values)


def _samples(predictions: Any, labels: np.ndarray, problem: str) -> Samples:
    """What is kept of the samples, of which some may have no label."""
    _, latents_ND, *others = predictions
    if problem == "regression":
        labels = _values(labels)
    elif problem == MULTI_LABEL:
        labels = np.where(np.isnan(labels), NO_LABEL, labels).astype(np.int8)
    elif labels.ndim == 2:  # soft ones, of a training set
        labels = np.where(np.isnan(labels).any(axis=1), NO_LABEL, labels.argmax(axis=1))
    samples = Samples(labels, latents_ND)
    if others:
        _, by_modality, mask_NM, _ = others
        samples.modality_latents = {
            name: np.where(mask_NM[:, [i]].astype(bool), z_ND, np.nan).astype(np.float32)
            for i, (name, z_ND) in enumerate(by_modality.items())
        }
    return samples


def _training_samples(trainer: CoLearningTrainer, arm: str, facts: dict[str, Any]) -> Samples | None:
    """Latents and targets of some training samples; none of a stream. Adds the targets' variance to the facts."""
    dataset = trainer.train_dataset
    if not hasattr(dataset, "__len__"):
        return None
    rows = kept_rows(len(dataset), MAX_TRAINING)
    part = dataset.select(rows) if isinstance(dataset, Dataset) else Subset(dataset, rows.tolist())
    samples = _samples(*_predicted(trainer, part, arm), problem_type_of(trainer.model))
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
