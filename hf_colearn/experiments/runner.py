"""Trains the arms of a comparison over seeds, and makes table, report and card of the run folders that this leaves.

All arms of a seed start from the same weights and see the same samples, so that their scores are paired by seed.
"""

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.utils.logging import disable_progress_bar
from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from hf_colearn.analysis.report.reporting import report
from hf_colearn.analysis.report.summary import summary
from hf_colearn.analysis.runs import (
    EXPERIMENT,
    RUN,
    Run,
    compare_all,
    main_metric,
    read_json,
    read_runs,
    write_experiment,
    write_report,
)
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.multimodal import only_modality
from hf_colearn.experiments.arms import ArmPlan, check_comparable, run_folder
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.scoring import check_tests, identity_of, scored_run
from hf_colearn.experiments.student_folder import check_student, finish_student, keep_student
from hf_colearn.hub.record import public
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed
from hf_colearn.utils.recipe_files import is_recipe


def run_recipe(
    options: Any,
    training: Mapping[str, Any],
    info: ExperimentInfo,
    plans: Sequence[ArmPlan],
    make_trainer: Callable[[Any, CoLearningArguments], CoLearningTrainer],
    data: Mapping[str, Any],
    processor: Any = None,
    *,
    keeps_student: bool = True,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    score: Callable[..., Run] = scored_run,
) -> list[Run]:
    """Trains a recipe's arms over its seeds, and writes run folders, table, report, and a student with its card.

    Of the first seed (not of the best) the student of the first co-learned arm is saved in `student`; where no arm has a
    teacher, that of the last one in `model`.

    Args:
        options, training: As [`~hf_colearn.experiments.options.parse_recipe`] returns them.
        info ([`ExperimentInfo`]): For report and card.
        plans (`Sequence[ArmPlan]`): The arms, from [`~hf_colearn.experiments.arms.chosen_arms`].
        make_trainer (`Callable`): Builds the trainer of an arm with the arguments of a run, see [`ArmPlan.arguments`].
        data (`Mapping`): The splits in the student's inputs with `labels`, `test` among them.
        processor (*optional*): Saved beside the student; of a multimodal model a mapping by modality.
        keeps_student (`bool`, *optional*, defaults to `True`): Whether to save one.
        groups, more_tests (`Mapping`, *optional*): As of [`run_arms`].
        notes (`Mapping`, *optional*): More for `experiment.json`, such as samples that were skipped.
        score (`Callable`, *optional*, defaults to [`~hf_colearn.experiments.scoring.scored_run`]): As of [`run_arms`].

    Returns:
        `list[Run]`: All runs, on the main process; nothing on the others.

    Raises:
        ValueError: If a split is missing, the arguments would leave test samples out, or the arms cannot be compared.
    """
    folder, first_seed = Path(training["output_dir"]), training.get("seed") or 0
    # Whichever arms are chosen: some of a recipe with a teacher have none.
    has_teacher = info.teacher is not None or any(plan.pairing is not None for plan in plans)
    _check_input(training, data, ("test",) if has_teacher else ("train", "validation", "test"))
    if options.check is not None:
        baseline = next(plan for plan in plans if plan.kind == "baseline")

        def evaluator(**changed: Any) -> CoLearningTrainer:
            return make_trainer(baseline, baseline.arguments({**training, **changed}, first_seed))

        own_score = None if score is scored_run else score
        tag = info.pipeline_tag if has_teacher else None
        check_student(options.check, tag, evaluator, data["test"], info, own_score)
    colearned = [plan for plan in plans if plan.kind == "colearned"] or [plans[0]]
    kept = colearned[0 if has_teacher else -1]
    student = folder / ("student" if has_teacher else "model")

    def keep_first(plan: ArmPlan, seed: int, trainer: CoLearningTrainer) -> None:
        if keeps_student and plan is kept and seed == first_seed and distributed.rank() == 0:
            keep_student(trainer, processor, student)
        distributed.barrier()

    runs = run_arms(
        plans,
        range(first_seed, first_seed + options.seeds),
        lambda plan, seed: make_trainer(plan, plan.arguments(training, seed)),
        data["test"],
        keep_first,
        folder,
        bool(training.get("resume_from_checkpoint")),
        groups,
        more_tests,
        score,
    )
    if is_main := distributed.rank() == 0:
        known = {
            **replace(info, license=options.license, recipe=info.recipe if _is_recipe() else None).to_dict(),
            "metric": main_metric(runs[0]),
            "source": "teacher" if has_teacher else "pairing",
            "teacher": _teacher(runs, folder),
            "student": {"folder": student.name, "arm": kept.name} if keeps_student else None,
            "options": public({**vars(options), **training}),
            "samples": {split: len(part) for split, part in data.items() if hasattr(part, "__len__")},  # no streams
            **(notes or {}),
        }
        write_experiment(folder, known, [run_folder(folder, run.arm, run.seed) for run in runs])
        runs = show_results(folder, options.report)
    distributed.destroy_process_group()
    return runs if is_main else []


def _is_recipe() -> bool:
    """Whether the running script is a recipe as we have it: a changed copy is not what `hf-colearn recipe` would repeat."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and is_recipe(script)


def _check_input(training: Mapping[str, Any], data: Mapping[str, Any], splits: Sequence[str]) -> None:
    if training.get("dataloader_drop_last"):
        raise ValueError("dataloader_drop_last=True would leave test samples out, too: leave it False.")
    if missing := [split for split in splits if split not in data]:
        raise ValueError(
            f"the data have no split '{missing[0]}' (they have {', '.join(data)}): cut it from another one."
        )


def _teacher(runs: Sequence[Run], folder: Path) -> dict[str, Any] | None:
    described = [run.facts["teacher"] for run in runs if run.facts.get("teacher")]
    if not described and (folder / EXPERIMENT).is_file():  # runs did not hold it before 2026-12
        return read_json(folder / EXPERIMENT).get("teacher")
    return described[0] if described else None


def brief_training(output_dir: str, max_steps: int, batch_size: int, **training: Any) -> dict[str, Any]:
    """Fields of [`CoLearningArguments`] for runs of seconds: no checkpoints, a dozen logs, the batch shared out."""
    return {
        "output_dir": output_dir,
        "max_steps": max_steps,
        "per_device_train_batch_size": batch_size // distributed.world_size(),
        "per_device_eval_batch_size": 256,
        "logging_steps": max(1, max_steps // 12),
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",
        "report_to": "none",
        **training,
    }


def quiet() -> None:
    """Leaves the terminal to the recipe's own bar and table."""
    logging.set_verbosity_error(), logging.disable_progress_bar(), disable_progress_bar()


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
    score: Callable[..., Run] = scored_run,
) -> list[Run]:
    """Trains every arm with every seed and scores it on the test set, with a progress bar.

    Args:
        plans (`Sequence[ArmPlan]`): The arms; one of a modality is scored on that modality alone.
        seeds (`Sequence[int]`): One run of every arm each.
        make_trainer (`Callable`): Builds the trainer, and its student, of an arm and a seed, right after `set_seed(seed)`.
        test_dataset: What the runs are scored on, once, after training.
        on_trained (`Callable`, *optional*): Called with the arm, seed and trainer of every run that was trained.
        folder (`str` or `Path`, *optional*): Where finished runs are written, in [`run_folder`].
        resume (`bool`, *optional*, defaults to `False`): Whether to read finished runs of `folder` back, and to go on with
            interrupted ones from their last checkpoint.
        groups (`Mapping[str, Sequence]`, *optional*): What reports group by, such as speakers: a value a test sample.
        more_tests (`Mapping[str, Dataset]`, *optional*): Other test sets: every run is scored as `{metric}_on_{name}`, too.
        score (`Callable`, *optional*): Makes the [`Run`] of a trained student, from the arguments of
            [`~hf_colearn.experiments.scoring.scored_run`], which is the default.

    Returns:
        `list[Run]`: Arm by arm within each seed.

    Raises:
        ValueError: If the arms could not be compared afterwards, or a finished run was trained with other arguments.
    """
    check_comparable(plans, len(seeds))
    check_tests({"test": test_dataset, **(more_tests or {})})
    runs = []
    with tqdm(total=len(plans) * len(seeds), unit="run", disable=distributed.rank() > 0) as bar:
        for seed, plan in itertools.product(seeds, plans):
            bar.set_description(f"{plan.name}, seed {seed}")
            set_seed(seed)
            trainer = make_trainer(plan, seed)
            for callback in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(callback)  # one bar for all runs, not one each
            of_run = None if folder is None else run_folder(folder, plan.name, seed)
            identity = identity_of(trainer)  # before training: saving a model adds to its configuration
            if resume and of_run is not None and (of_run / RUN).is_file():
                runs.append(_finished(of_run, identity))
            else:
                checkpoint = get_last_checkpoint(of_run) if resume and of_run is not None and of_run.is_dir() else None
                with Cost() as cost:
                    trainer.train(resume_from_checkpoint=checkpoint)
                tests = {"": test_dataset, **(more_tests or {})}
                if plan.modality is not None:
                    tests = {name: only_modality(dataset, plan.modality) for name, dataset in tests.items()}
                test = tests.pop("")
                run = score(
                    trainer, test, plan.name, plan.kind, cost=cost, groups=groups, more_tests=tests,
                    sweep=plan.sweep, modality=plan.modality,
                )  # fmt: skip
                runs.append(run)
                if on_trained is not None:
                    on_trained(plan, seed, trainer)
                if of_run is not None and distributed.rank() == 0:
                    run.save(of_run, identity)
            bar.update()
    return runs


def _finished(folder: Path, identity: Mapping[str, Any]) -> Run:
    trained_with = read_json(folder / RUN).get("identity", {})
    for name, asked in identity.items():
        # A name that is not there is of a later version, and had its default.
        if name in trained_with and trained_with[name] != asked:
            raise ValueError(
                f"the finished run in '{folder}' has {name}={trained_with[name]!r}, and {asked!r} is asked for now: resume "
                "with what it was trained with, or choose another --output_dir."
            )
    return Run.load(folder)


def show_results(folder: Path, with_page: bool = True) -> list[Run]:
    """Prints what the run folders of an experiment say, and writes the report (without a page, `report.json` alone) and,
    of a saved student, its record and card. For the main process.
    """
    runs, known = read_runs([folder])
    comparison = compare_all(runs, known["metric"], known["source"])
    print(f"\n{summary(runs, comparison, known)}")
    written = report(runs, folder, known).files if with_page else [write_report(folder, runs, comparison, known)]
    if known["student"] is not None and (student := folder / known["student"]["folder"]).is_dir():
        finish_student(student, runs, known, comparison)
        written.append(student)
    print("Written:", *(f"  {path}" for path in written), sep="\n")
    return runs
