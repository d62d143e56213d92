"""Arms of a comparison, trained over seeds and written down: what every recipe shares.

An arm is one configuration (baseline, co-learned, null control). All arms of a seed start from the same weights and
see the same samples, so that their scores are paired by seed. Shapes: N test samples, C classes, D latent width.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Subset
from tqdm.auto import tqdm
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hf_colearn.analysis.runs import RUN, Run, Samples, kept_rows, read_json
from hf_colearn.analysis.statistics.compare import Arm, Kind, compare
from hf_colearn.analysis.statistics.target_variance import latent_floor
from hf_colearn.experiments.cost import Cost
from hf_colearn.objectives.objectives import LatentMatching
from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed


MAX_TRAINING = 2000  # training samples whose latents are kept
# Arguments that may change between the sessions of one run.
_OF_THE_SESSION = {
    "output_dir", "logging_dir", "resume_from_checkpoint", "local_rank", "report_to", "disable_tqdm", "log_level",
    "save_total_limit", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "push_to_hub",
    "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "run_name", "logging_steps",
}  # fmt: skip


@dataclass(frozen=True)
class ArmPlan:
    """One arm to train.

    Args:
        name (`str`): Unique, as it stands in tables.
        kind (`str`): `"baseline"`, `"colearned"`, `"null"` or `"reference"`; see [`~hf_colearn.analysis.statistics.compare.Arm`].
        pairing ([`Pairing`], *optional*): What its samples see of the teacher; none for the baseline.
        id_column (`str`, *optional*): The column that the pairing knows samples by, where it is another one than
            `CoLearningArguments.id_column`: a copy of the labels, for a pairing by class in a stream.
        sweep (`tuple[str, float]`, *optional*): Where the arm is one step of a sweep: of what, and how much of it, as in
            `("share of mismatched pairs", 0.25)`.
    """

    name: str
    kind: Kind
    pairing: Pairing | None = None
    id_column: str | None = None
    sweep: tuple[str, float] | None = None


def pick(plans: Sequence[ArmPlan], names: Sequence[str] | None) -> list[ArmPlan]:
    """The arms of these names, or all of them.

    Raises:
        ValueError: If a name is none of theirs.
    """
    known = [plan.name for plan in plans]
    for name in names or []:
        if name not in known:
            raise ValueError(f"there is no arm '{name}': choose among {', '.join(map(repr, known))}.")
    return [plan for plan in plans if names is None or plan.name in names]


def check_comparable(plans: Sequence[ArmPlan], num_seeds: int) -> None:
    """A rehearsal: what the comparison would refuse after hours of training, it refuses now.

    Raises:
        ValueError: If the arms cannot be compared: no baseline, a name twice, an unknown kind, no seeds.
    """
    compare([Arm(plan.name, plan.kind, [0.0] * num_seeds) for plan in plans])


def run_arms(
    plans: Sequence[ArmPlan],
    seeds: Sequence[int],
    make_trainer: Callable[[ArmPlan, int], CoLearningTrainer],
    test_dataset: Any,
    on_trained: Callable[[ArmPlan, int, CoLearningTrainer], None] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Trains every arm with every seed and scores it on the test set, with a progress bar.

    Args:
        plans (`Sequence[ArmPlan]`): The arms.
        seeds (`Sequence[int]`): One run of every arm each.
        make_trainer (`Callable`): Builds the trainer of an arm and a seed. It is called right after `set_seed(seed)`,
            so a student built in it starts from the same weights in all arms of a seed.
        test_dataset: What the runs are scored on, once, after training; or a function of the arm that gives it.
        on_trained (`Callable`, *optional*): Called with the arm, seed and trainer of every run that was trained.
        folder (`str` or `Path`, *optional*): Where finished runs are kept, in [`run_folder`].
        resume (`bool`, *optional*, defaults to `False`): Whether to take up runs of `folder`: finished ones are read
            back, one that was interrupted goes on from its last checkpoint.
        groups (`Mapping[str, Sequence]`, *optional*): What the test samples are grouped by in reports, such as their
            speakers: a value a sample.
        more_tests (`Mapping[str, Dataset]`, *optional*): Other test sets, or functions of the arm, by name: every run is
            also scored on these, as `{metric}_on_{name}`.

    Returns:
        `list[Run]`: Arm by arm within each seed.

    Raises:
        ValueError: If the arms could not be compared afterwards: no baseline, a name twice, an unknown kind, no seeds;
            or if a finished run was trained with other arguments.
    """
    check_comparable(plans, len(seeds))
    runs = []
    with tqdm(total=len(plans) * len(seeds), unit="run", disable=distributed.rank() > 0) as bar:
        for seed in seeds:
            for plan in plans:
                bar.set_description(f"{plan.name}, seed {seed}")
                set_seed(seed)
                trainer = make_trainer(plan, seed)
                for callback in (PrinterCallback, ProgressCallback):
                    trainer.remove_callback(callback)  # one bar for all runs, not one each
                kept = None if folder is None else run_folder(folder, plan.name, seed)
                identity = _identity(trainer)  # before training: saving a model adds to its configuration
                if resume and kept is not None and (kept / RUN).is_file():
                    runs.append(_taken_up(kept, identity))
                else:
                    checkpoint = get_last_checkpoint(kept) if resume and kept is not None and kept.is_dir() else None
                    with Cost() as cost:
                        trainer.train(resume_from_checkpoint=checkpoint)
                    test = test_dataset(plan) if callable(test_dataset) else test_dataset
                    others = {name: of(plan) if callable(of) else of for name, of in (more_tests or {}).items()}
                    run = finished_run(
                        trainer, test, plan.name, plan.kind, cost=cost, groups=groups, more_tests=others, sweep=plan.sweep
                    )  # fmt: skip
                    runs.append(run)
                    if on_trained is not None:
                        on_trained(plan, seed, trainer)
                    if kept is not None and distributed.rank() == 0:
                        run.save(kept, identity)
                bar.update()
    return runs


def run_folder(folder: str | Path, arm: str, seed: int) -> Path:
    """Where one run keeps its checkpoints and, once it is finished, what [`~hf_colearn.analysis.runs.Run`] holds."""
    return Path(folder) / re.sub(r"[^a-z0-9]+", "-", arm.lower()).strip("-") / f"seed-{seed}"


def _identity(trainer: CoLearningTrainer) -> dict[str, Any]:
    """What a run depends on, as far as it can be told: the arguments, the terms, the teacher's latents, the student."""
    arguments = {name: value for name, value in trainer.args.to_dict().items() if name not in _OF_THE_SESSION}
    model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    config = model.config.to_dict() if hasattr(model, "config") else {}
    bank = trainer.bank.fingerprint if trainer.bank is not None else None
    terms = {"objective": repr(trainer.auxiliary_objective), "weights of terms": repr(trainer.alpha)}
    identity = {**arguments, **terms, "bank": bank, "student": fingerprint.of_json(config)}
    return json.loads(json.dumps(identity, default=str))


def _taken_up(folder: Path, identity: dict[str, Any]) -> Run:
    trained_with = read_json(folder / RUN).get("identity", {})
    changed = [name for name in identity if trained_with.get(name) != identity[name]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"the finished run in '{folder}' has {name}={trained_with.get(name)!r}, and {identity[name]!r} is asked "
            "for now: resume with what it was trained with, or choose another --output_dir."
        )
    return Run.load(folder)


def save_run(
    trainer: CoLearningTrainer,
    test_dataset: Any,
    folder: str | Path,
    arm: str,
    kind: Kind,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
) -> Run:
    """Scores a trained student and keeps what `hf-colearn report` reads; a collective, the main process writes.

    Args:
        trainer ([`CoLearningTrainer`]): After `train()`.
        test_dataset: What it is scored on.
        folder (`str` or `Path`): Where the run goes, such as `runs/mine/baseline/seed-0`; a report is made of all runs
            below one folder.
        arm (`str`): Its name in the report.
        kind (`str`): `"baseline"`, `"colearned"`, `"null"` or `"reference"`; see [`~hf_colearn.analysis.statistics.compare.Arm`].
        groups, more_tests (`Mapping`, *optional*): As of [`run_arms`].

    Returns:
        [`~hf_colearn.analysis.runs.Run`]: What was kept.

    Example:

    ```python
    trainer.train()
    save_run(trainer, test, f"runs/mine/prompts/seed-{args.seed}", arm="prompts", kind="colearned")
    ```
    """
    run = finished_run(trainer, test_dataset, arm, kind, groups=groups, more_tests=more_tests)
    if distributed.rank() == 0:
        run.save(folder, _identity(trainer))
    distributed.barrier()
    return run


def finished_run(
    trainer: CoLearningTrainer,
    test_dataset: Any,
    arm: str,
    kind: Kind,
    *,
    cost: Cost | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
    sweep: tuple[str, float] | None = None,
) -> Run:
    """Scores a trained student, and collects what a report needs; a collective."""
    scored = _predict(trainer, test_dataset, arm)
    metrics = dict(scored.metrics)
    for name, dataset in (more_tests or {}).items():
        elsewhere = _predict(trainer, dataset, arm).metrics
        metrics |= {f"{metric}_on_{name}": value for metric, value in elsewhere.items()}
    for name, values in (groups or {}).items():
        if len(values) != len(scored.labels):
            raise ValueError(
                f"groups['{name}'] has {len(values)} values for {len(scored.labels)} test samples: give one each."
            )
    shifted_NC = scored.logits - scored.logits.max(axis=1, keepdims=True)
    kept = kept_rows(len(scored.labels))
    model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    id2label = getattr(getattr(model, "config", None), "id2label", None) or {}
    facts: dict[str, Any] = {
        "class_names": [id2label.get(i, str(i)) for i in range(scored.logits.shape[1])],
        "num_test": len(scored.labels),
        "num_train": len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else None,
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "trained_parameters": sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad),
        "processes": distributed.world_size(),
        "objective": None if trainer.auxiliary_objective is None else repr(trainer.auxiliary_objective),
        "alpha": None if trainer.alpha is None else repr(trainer.alpha),
    }
    if cost is not None:
        facts |= {"peak_memory": cost.peak_memory, "peak_memory_of_device": cost.of_device}
    if sweep is not None:
        facts["sweep"] = {"variable": sweep[0], "level": sweep[1]}
    train = _training_samples(trainer, arm, facts)
    return Run(
        arm=arm,
        kind=kind,
        seed=trainer.args.seed,
        metrics=metrics,
        history=trainer.state.log_history,
        seconds=float("nan") if cost is None else cost.seconds,
        labels=scored.labels,
        predictions=scored.logits.argmax(axis=1),
        confidences=1 / np.exp(shifted_NC).sum(axis=1),
        test=Samples(
            scored.labels[kept],
            scored.latents[kept],
            modality_latents={name: z_ND[kept] for name, z_ND in scored.modality_latents.items()},
        ),
        train=train,
        groups={name: np.asarray(values, dtype=str) for name, values in (groups or {}).items()},
        facts=facts,
    )


@dataclass
class _Scored:
    logits: np.ndarray  # [N, C]
    latents: np.ndarray  # [N, D]
    labels: np.ndarray  # [N]
    metrics: dict[str, float]
    modality_latents: dict[str, np.ndarray]  # [N, D], rows of NaN where absent


def _predict(trainer: CoLearningTrainer, dataset: Any, arm: str) -> _Scored:
    compute_metrics, trainer.compute_metrics = trainer.compute_metrics, None
    # The logits and the latents, and what a multimodal model's metrics need.
    ignored = getattr(trainer.model.config, "keys_to_ignore_at_inference", [])
    output = trainer.predict(
        dataset, ignore_keys=[key for key in ignored if key not in ("latents", "modality_latents")]
    )
    trainer.compute_metrics = compute_metrics
    if not isinstance(output.predictions, tuple):
        raise ValueError(
            f"the student of arm '{arm}' returns only logits, and the latents of every arm are kept: give all arms "
            "the same student, whose output has `logits` and `latents`."
        )
    logits_NC, latents_ND, *others = output.predictions
    labels = output.label_ids
    modality_latents: dict[str, np.ndarray] = {}
    scored = logits_NC
    if others:
        modality_logits, by_modality, mask_NM, subset_logits = others
        scored = (logits_NC, modality_logits, mask_NM, subset_logits)
        modality_latents = {
            name: np.where(mask_NM[:, [i]].astype(bool), z_ND, np.nan).astype(np.float32)
            for i, (name, z_ND) in enumerate(by_modality.items())
        }
    metrics = compute_metrics(EvalPrediction(scored, labels)) if compute_metrics else {}
    labels_N = labels if labels.ndim == 1 else labels.argmax(axis=1)  # soft ones, of a training set
    return _Scored(logits_NC.astype(np.float64), latents_ND, labels_N, metrics, modality_latents)


def _training_samples(trainer: CoLearningTrainer, arm: str, facts: dict[str, Any]) -> Samples | None:
    """Latents and targets of some training samples; none of a stream. Adds the latent loss's floor to the facts."""
    dataset = trainer.train_dataset
    if not hasattr(dataset, "__len__"):
        return None
    rows = kept_rows(len(dataset), MAX_TRAINING)
    part = dataset.select(rows) if isinstance(dataset, Dataset) else Subset(dataset, rows.tolist())
    compute_metrics, trainer.compute_metrics = trainer.compute_metrics, None
    try:
        scored = _predict(trainer, part, arm)
    finally:
        trainer.compute_metrics = compute_metrics
    targets = None
    if trainer.bank is not None and trainer.pairing is not None:
        column = trainer.args.id_column
        ids = np.array(part[column] if isinstance(part, Dataset) else [part[i][column] for i in range(len(part))])
        last = max(int(trainer.state.epoch or 0) - 1, 0)
        targets = trainer.pairing.targets(trainer.bank, ids, last, trainer.args.seed).numpy()
        objective = trainer.auxiliary_objective
        has_some = bool(np.isfinite(targets[:500]).all(axis=1).any())  # a small budget of pairs may miss them all
        if isinstance(objective, LatentMatching) and objective.loss == "mse" and has_some:
            facts["latent_floor"] = latent_floor(
                trainer.pairing, trainer.bank, ids[:500], trainer.args.seed, objective.reduction
            )
    return Samples(scored.labels, scored.latents, targets, scored.modality_latents)
