"""Arms of a comparison, trained over seeds and written down: what every recipe shares.

An arm is one configuration (baseline, co-learned, null control). All arms of a seed start from the same weights and
see the same samples, so that their scores are paired by seed. Shapes: N test samples, C classes, D latent width.
"""

import json
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hf_colearn import __version__, distributed
from hf_colearn.analysis.compare import Arm, Comparison, Kind, compare
from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.trainer import CoLearningTrainer


RUN, LATENTS = "run.json", "latents.npz"  # of a finished run
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
        kind (`str`): `"baseline"`, `"colearned"`, `"null"` or `"reference"`; see [`~hf_colearn.analysis.compare.Arm`].
        pairing ([`Pairing`], *optional*): What its samples see of the teacher; none for the baseline.
        id_column (`str`, *optional*): The column that the pairing knows samples by, where it is another one than
            `CoLearningArguments.id_column`: a copy of the labels, for a pairing by class in a stream.
    """

    name: str
    kind: Kind
    pairing: Pairing | None = None
    id_column: str | None = None


@dataclass
class Run:
    """One arm trained with one seed."""

    plan: ArmPlan
    seed: int
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    latents: np.ndarray  # [N, D] of the test samples
    labels: np.ndarray  # [N]
    seconds: float


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
                kept = None if folder is None else run_folder(folder, plan, seed)
                identity = _identity(trainer)  # before training: saving a model adds to its configuration
                if resume and kept is not None and (kept / RUN).is_file():
                    runs.append(_read(kept, plan, seed, identity))
                else:
                    checkpoint = get_last_checkpoint(kept) if resume and kept is not None and kept.is_dir() else None
                    started = time.perf_counter()
                    trainer.train(resume_from_checkpoint=checkpoint)
                    seconds = time.perf_counter() - started
                    test = test_dataset(plan) if callable(test_dataset) else test_dataset
                    runs.append(_score(trainer, plan, seed, test, seconds))
                    if on_trained is not None:
                        on_trained(plan, seed, trainer)
                    if kept is not None and distributed.rank() == 0:
                        _write(kept, runs[-1], identity)
                bar.update()
    return runs


def run_folder(folder: str | Path, plan: ArmPlan, seed: int) -> Path:
    """Where one run keeps its checkpoints and, once it is finished, its scores and the test samples' latents."""
    return Path(folder) / re.sub(r"[^a-z0-9]+", "-", plan.name.lower()).strip("-") / f"seed-{seed}"


def _identity(trainer: CoLearningTrainer) -> dict[str, Any]:
    """What a run depends on, as far as it can be told: the arguments, the terms, the teacher's latents, the student."""
    arguments = {name: value for name, value in trainer.args.to_dict().items() if name not in _OF_THE_SESSION}
    model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    config = model.config.to_dict() if hasattr(model, "config") else {}
    bank = trainer.bank.fingerprint if trainer.bank is not None else None
    terms = {"objective": repr(trainer.auxiliary_objective), "weights of terms": repr(trainer.alpha)}
    identity = {**arguments, **terms, "bank": bank, "student": fingerprint.of_json(config)}
    return json.loads(json.dumps(identity, default=str))


def _write(folder: Path, run: Run, identity: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / LATENTS, latents=run.latents, labels=run.labels)
    content = {"metrics": run.metrics, "seconds": run.seconds, "history": run.history, "identity": identity}
    unfinished = folder / f"{RUN}.part"
    unfinished.write_text(json.dumps(content))
    unfinished.replace(folder / RUN)  # last: a run whose file is there is whole


def _read(folder: Path, plan: ArmPlan, seed: int, identity: dict[str, Any]) -> Run:
    content = json.loads((folder / RUN).read_text())
    changed = [name for name in identity if content["identity"].get(name) != identity[name]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"the finished run in '{folder}' has {name}={content['identity'].get(name)!r}, and {identity[name]!r} is asked "
            "for now: resume with what it was trained with, or choose another --output_dir."
        )
    with np.load(folder / LATENTS) as arrays:
        return Run(
            plan,
            seed,
            content["metrics"],
            content["history"],
            arrays["latents"],
            arrays["labels"],
            content["seconds"],
        )


def _score(trainer: CoLearningTrainer, plan: ArmPlan, seed: int, test_dataset: Any, seconds: float) -> Run:
    compute_metrics, trainer.compute_metrics = trainer.compute_metrics, None
    # The logits and the latents, and what a multimodal model's metrics need.
    ignored = getattr(trainer.model.config, "keys_to_ignore_at_inference", [])
    output = trainer.predict(test_dataset, ignore_keys=[key for key in ignored if key != "latents"])
    trainer.compute_metrics = compute_metrics
    if not isinstance(output.predictions, tuple):
        raise ValueError(
            f"the student of arm '{plan.name}' returns only logits, and the latents of every arm are kept: give all arms "
            "the same student, whose output has `logits` and `latents`."
        )
    logits_NC, latents_ND, *others = output.predictions
    scored = (logits_NC, *others) if others else logits_NC
    metrics = compute_metrics(EvalPrediction(scored, output.label_ids)) if compute_metrics else {}
    return Run(plan, seed, metrics, trainer.state.log_history, latents_ND, output.label_ids, seconds)


def compare_runs(runs: Sequence[Run], metric: str = "accuracy", source: str = "teacher") -> Comparison:
    """The arms' scores, paired by seed; see [`~hf_colearn.analysis.compare.compare`].

    Raises:
        ValueError: If the runs were not scored on the metric.
    """
    for run in runs:
        if metric not in run.metrics:
            raise ValueError(
                f"metric='{metric}' was not measured in arm '{run.plan.name}', which has {sorted(run.metrics)}: choose "
                "one of these, or give the trainer a `compute_metrics` that returns it."
            )
    plans = {run.plan.name: run.plan for run in runs}
    return compare(
        [
            Arm(plan.name, plan.kind, [run.metrics[metric] for run in runs if run.plan is plan])
            for plan in plans.values()
        ],
        metric=metric,
        source=source,
    )


def write_report(folder: str | Path, runs: Sequence[Run], comparison: Comparison, facts: dict[str, Any]) -> Path:
    """Writes `report.json`: the facts given, what was installed, the comparison, and every run with its history.

    Returns:
        `Path`: Of the file.
    """
    installed = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    report = {
        **facts,
        "processes": distributed.world_size(),
        "installed": {"python": platform.python_version(), "hf_colearn": __version__, **installed},
        "comparison": comparison.to_dict(),
        "runs": [
            {"arm": run.plan.name, "kind": run.plan.kind, "seed": run.seed, "metrics": run.metrics,
             "seconds": round(run.seconds, 2), "history": run.history}
            for run in runs
        ],
    }  # fmt: skip
    path = Path(folder) / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str))  # paths among the facts
    return path


def histories(runs: Sequence[Run]) -> dict[str, list[list[dict[str, Any]]]]:
    """The log histories of every arm, one a seed, as `plot_losses` takes them.

    An arm without an auxiliary term logs one loss, which is its task loss.
    """
    by_arm: dict[str, list[list[dict[str, Any]]]] = {}
    for run in runs:
        entries = [
            {**entry, "loss_task": entry.get("loss_task", entry["loss"])} for entry in run.history if "loss" in entry
        ]
        by_arm.setdefault(run.plan.name, []).append(entries)
    return by_arm
