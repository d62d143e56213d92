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
from transformers import EvalPrediction, Trainer

from hf_colearn.analysis.run import Run, Samples, check_folder, kept_rows
from hf_colearn.analysis.statistics.arm import Kind, check_arm
from hf_colearn.analysis.statistics.target_variance import target_variance
from hf_colearn.analysis.timing import training_time
from hf_colearn.data.labels import is_labelled, label_column, labelled_rows
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.evaluation.metrics import classification_metrics
from hf_colearn.evaluation.multi_label import multi_label_metrics
from hf_colearn.evaluation.regression import regression_metrics
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.predicting import MULTI_LABEL, Predictions, class_names, predicted, problem_of
from hf_colearn.hub.record import public
from hf_colearn.hub.training_samples import training_samples
from hf_colearn.models.lora import base_model
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.latent_column import LatentColumn
from hf_colearn.teachers.sequence_bank import SequenceBank
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
    trainer: Trainer,
    test_dataset: Any,
    folder: str | Path,
    arm: str,
    kind: Kind,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
) -> Run:
    """Scores a trained model and writes the run folder that `hf-colearn report` reads; a collective.

    The model is a student of ours, one of transformers' or PEFT's, or any `nn.Module` that Trainer trains: its output is a
    mapping or a dataclass with `logits` `[N, C]`, or a tuple that begins with them after the loss. Where it has `latents`
    `[N, D]`, the report tells of them, too. Without a configuration that says it, the problem is told by the labels: numbers
    that are not whole are a regression, rows of 0 and 1 several labels.

    Args:
        trainer ([`~transformers.Trainer`]): After `train()`; a [`CoLearningTrainer`], or a plain one, as of a baseline. Of its
            `compute_metrics` a run keeps what is a number; without one, the metrics of the problem are measured.
        test_dataset: What it is scored on.
        folder (`str` or `Path`): Of the run, below that of the report, such as `runs/mine/baseline/seed-0`. A run of the
            same arm and seed is replaced there.
        arm (`str`): Its name in the report, any text of one line; the seed is the trainer's `args.seed`.
        kind (`str`): `"baseline"`, `"colearned"`, `"null"` or `"reference"`; see
            [`~hf_colearn.analysis.statistics.arm.Arm`].
        groups, more_tests (`Mapping`, *optional*): As of [`~hf_colearn.experiments.runner.run_arms`].

    Returns:
        [`~hf_colearn.analysis.run.Run`]: What the folder holds.

    Raises:
        ValueError: Before anything is scored, if the kind is none of the four, the arm has no name, or the folder holds a run
            of another arm or seed; and if the test set has no labels, or the model's output no logits of them.

    Example:

    ```python
    trainer.train()
    save_run(trainer, test, f"runs/mine/prompts/seed-{args.seed}", arm="prompts", kind="colearned")
    ```
    """
    check_arm(arm, kind)
    check_folder(folder, arm, trainer.args.seed)
    run = scored_run(trainer, test_dataset, arm, kind, groups=groups, more_tests=more_tests)
    if distributed.rank() == 0:
        run.save(folder, identity_of(trainer))
    distributed.barrier()
    return run


def identity_of(trainer: Trainer) -> dict[str, Any]:
    """What a run depends on, as far as it is known: the arguments, the terms, the balance method, the teacher's latents, the
    student."""
    arguments = {name: value for name, value in trainer.args.to_dict().items() if name not in _OF_THE_SESSION}
    config = getattr(base_model(trainer.model), "config", None)
    ours = trainer if isinstance(trainer, CoLearningTrainer) else None
    banks = {name: teacher.bank.fingerprint for name, teacher in (ours.teachers if ours else {}).items()}
    identity = {
        **arguments,
        "objective": repr(ours.auxiliary_objective if ours else None),
        "weights of terms": repr(ours.alpha if ours else None),
        "balance": repr(ours.balance if ours else None),
        "bank": banks if len(banks) > 1 else next(iter(banks.values()), None),
        "student": fingerprint.of_json({} if config is None else config.to_dict()),
    }
    return json.loads(json.dumps(identity, default=str))


def scored_run(
    trainer: Trainer,
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
    scored = _scored(trainer, test_dataset, arm)
    problem = scored.problem
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
    facts = _facts_of(trainer, test_dataset, scored)
    if missing := {name: count for name, count in missing.items() if count}:
        facts["num_unlabelled"] = missing
    if cost is not None:
        facts |= cost.memory
    if modality is not None:
        facts["modality"] = modality  # the only one that the arm is of
    if sweep is not None:
        facts["sweep"] = {"variable": sweep[0], "level": sweep[1]}
    metrics, facts = _numbers(metrics, facts)
    predictions, confidences = _predictions(scored.logits, problem)
    kept, time = kept_rows(len(test.labels)), training_time(trainer.state.log_history)
    latents = None if test.latents is None else test.latents[kept]
    by_modality = {name: z_ND[kept] for name, z_ND in test.modality_latents.items()}
    seconds = cost.seconds if cost is not None else float("nan") if time is None else time.seconds + time.evaluation
    return Run(
        arm=arm,
        kind=kind,
        seed=trainer.args.seed,
        metrics=metrics,
        history=trainer.state.log_history,
        seconds=seconds,
        labels=test.labels,
        predictions=predictions,
        confidences=confidences,
        test=Samples(test.labels[kept], latents, modality_latents=by_modality),
        train=None if latents is None else _training_samples(trainer, arm, problem, facts),  # which adds to the facts
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


def _numbers(metrics: Mapping[str, Any], facts: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The metrics that are one number, and the facts with the names of the others: lists by class, words, None."""
    numbers = {
        name: value.item() if isinstance(value, (np.generic, np.ndarray)) else value
        for name, value in metrics.items()
        if isinstance(value, (int, float)) or (isinstance(value, (np.generic, np.ndarray)) and np.size(value) == 1)
    }
    numbers = {name: value for name, value in numbers.items() if isinstance(value, (int, float))}
    others = [name for name in metrics if name not in numbers]
    return numbers, facts | ({"metrics_without_a_number": others} if others else {})


def _facts_of(trainer: Trainer, test_dataset: Any, scored: "_Scored") -> dict[str, Any]:
    num_test, num_outputs = scored.logits.shape
    names = class_names(trainer.model, test_dataset, num_outputs)
    return {
        "problem_type": scored.problem,
        "class_names": None if scored.problem == "regression" else names,
        "num_test": num_test,
        **facts_of_training(trainer),
    }


def own_run(
    trainer: Trainer,
    arm: str,
    kind: Kind,
    cost: Cost | None,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    problem_type: str = "single_label_classification",
    facts: Mapping[str, Any] | None = None,
    **measured: Any,
) -> Run:
    """The run of a recipe that scores students in a way of its own, as `run_recipe(score=...)` returns it.

    Args:
        trainer ([`~transformers.Trainer`]): After training.
        arm, kind (`str`): As of [`scored_run`].
        cost ([`Cost`], *optional*): Of the training.
        labels (`np.ndarray` of shape `(N, ...)`): Of the test samples.
        class_names, problem_type (*optional*): As of a student's configuration; other problems have no names of classes.
        facts (`Mapping`, *optional*): What else the recipe knows.
        measured: The other fields of [`~hf_colearn.analysis.run.Run`], such as `metrics` and `predictions`.
    """
    return Run(
        arm=arm,
        kind=kind,
        seed=trainer.args.seed,
        history=trainer.state.log_history,
        seconds=float("nan") if cost is None else cost.seconds,
        labels=labels,
        facts={
            "problem_type": problem_type,
            "class_names": None if class_names is None else list(class_names),
            "num_test": len(labels),
            **(facts or {}),
            **facts_of_training(trainer),
            **({} if cost is None else cost.memory),
        },
        **measured,
    )


def facts_of_training(trainer: Trainer) -> dict[str, Any]:
    """What a run keeps of its training: samples, weights, processes, objective, alpha, balance method and teacher."""
    model: Any = trainer.model
    weights = list(model.parameters())
    facts = {
        **training_samples(trainer),
        "parameters": sum(weight.numel() for weight in weights),
        "trained_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
        "processes": distributed.world_size(),
    }
    if not isinstance(trainer, CoLearningTrainer):
        return {**facts, "objective": None, "alpha": None, "balance": None, "teacher": None}
    return {
        **facts,
        "objective": None if trainer.auxiliary_objective is None else repr(trainer.auxiliary_objective),
        "alpha": None if trainer.alpha is None else repr(trainer.alpha),
        "balance": None if trainer.balance is None else repr(trainer.balance),
        "teacher": None if trainer.bank is None else public(trainer.bank.description),
    }


@dataclass
class _Scored:
    """The samples of a data set that have a label, their logits `(n, C)`, and the metrics; which of all N these are."""

    samples: Samples
    logits: np.ndarray
    problem: str
    metrics: dict[str, Any]
    is_labelled: np.ndarray

    @property
    def num_unlabelled(self) -> int:
        return int(np.sum(~self.is_labelled))


def _scored(trainer: Trainer, dataset: Any, arm: str) -> _Scored:
    found = predicted(trainer, dataset, arm)
    if found.labels is None or not (is_labelled_N := is_labelled(found.labels)).any():
        raise ValueError(
            f"none of the {len(found.logits)} test samples has a label (all are missing, -100 or NaN): nothing can be scored."
        )
    problem, found = problem_of(trainer.model, found, arm), found.rows(is_labelled_N)
    metrics = _metrics(trainer, dataset, found, is_labelled_N, problem)
    return _Scored(_samples(found, problem), found.logits, problem, metrics, is_labelled_N)


def _metrics(
    trainer: Trainer, dataset: Any, found: Predictions, is_labelled_N: np.ndarray, problem: str
) -> dict[str, Any]:
    """What the trainer's `compute_metrics` makes of the predictions: ours from what is here, any other in a pass of its own,
    with the outputs that it has in `trainer.evaluate`. Arms of a regression are compared on `r2`, which has no unit.
    """
    compute_metrics: Any = trainer.compute_metrics
    judged: Any = found.logits
    if "modality_logits" in found.modalities:
        judged = (judged, *(found.modalities[name] for name in ("modality_logits", "modality_mask", "subset_logits")))
    evaluation = EvalPrediction(judged, found.labels)
    if compute_metrics is None:
        made = {"regression": regression_metrics, MULTI_LABEL: multi_label_metrics}.get(
            problem, classification_metrics
        )
        compute_metrics = made()
    if isinstance(compute_metrics, ComputeMetrics):
        results = dict(compute_metrics(evaluation))
    else:
        is_part = isinstance(dataset, Dataset) and not is_labelled_N.all()
        results = _measured(trainer, dataset.select(np.flatnonzero(is_labelled_N)) if is_part else dataset)
    if problem == "regression" and "r2" not in results:
        results |= regression_metrics(("r2",))(evaluation)
    return results


def _measured(trainer: Any, dataset: Any) -> dict[str, Any]:
    """What the user's function returns where Trainer calls it."""
    results: dict[str, Any] = {}
    compute_metrics = trainer.compute_metrics

    def kept(*args: Any, **kwargs: Any) -> Any:
        found = compute_metrics(*args, **kwargs)
        results.update(found)
        return found

    trainer.compute_metrics = kept
    try:
        trainer.predict(dataset)
    finally:
        trainer.compute_metrics = compute_metrics
    return results


def _samples(found: Predictions, problem: str) -> Samples:
    """What is kept of the samples, of which some may have no label."""
    labels, shape = found.labels, found.logits.shape
    if labels is None:  # a training set for its pairs alone
        labels = np.full(shape if problem == MULTI_LABEL else len(found.logits), np.nan)
    if problem == "regression":
        labels = _values(labels)
    elif problem == MULTI_LABEL:
        labels = np.where(np.isnan(labels), NO_LABEL, labels).astype(np.int8)
    elif labels.ndim == 2:  # soft ones, of a training set
        labels = np.where(np.isnan(labels).any(axis=1), NO_LABEL, labels.argmax(axis=1))
    elif labels.dtype.kind == "f":
        labels = np.where(np.isnan(labels), NO_LABEL, labels).astype(np.int64)
    samples = Samples(labels, found.latents)
    by_modality, mask_NM = (found.modalities.get(name) for name in ("modality_latents", "modality_mask"))
    if by_modality is not None and mask_NM is not None:
        samples.modality_latents = {
            name: np.where(mask_NM[:, [i]].astype(bool), z_ND, np.nan).astype(np.float32)
            for i, (name, z_ND) in enumerate(by_modality.items())
        }
    return samples


def _training_samples(trainer: Any, arm: str, problem: str, facts: dict[str, Any]) -> Samples | None:
    """Latents and targets of some training samples, whose variance is added to the facts; none of streams and unpaired data."""
    dataset = trainer.train_dataset
    if not hasattr(dataset, "__len__") or isinstance(dataset, UnpairedBatches):
        return None
    rows = kept_rows(len(dataset), MAX_TRAINING)
    part = dataset.select(rows) if isinstance(dataset, Dataset) else Subset(dataset, rows.tolist())
    samples = _samples(predicted(trainer, part, arm), problem)
    has_bank = isinstance(trainer, CoLearningTrainer) and trainer.bank is not None and trainer.pairing is not None
    if has_bank and not isinstance(trainer.bank, (SequenceBank, LatentColumn)):  # one vector a sample, by its id
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
