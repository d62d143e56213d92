"""What the recipes share: the null controls, the runs of all arms, and the results.

A recipe is a script that loads its data, teacher and student and hands them to [`run_recipe`]; the YAML beside it holds
the published hyperparameters. Shapes: N test samples, C classes, D latent width.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
from datasets.utils.logging import disable_progress_bar
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_colearn.analysis.report.reporting import report
from hf_colearn.analysis.runs import Run, compare_runs, write_experiment, write_report
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.evaluation.metrics import classification_metrics
from hf_colearn.experiments.experiment import ArmPlan, check_comparable, pick, run_arms, run_folder
from hf_colearn.experiments.options import OPTIMIZERS, RecipeOptions
from hf_colearn.experiments.student_folder import ExperimentInfo, finish_student, keep_student, load_student
from hf_colearn.hub.card import AUTO_CLASSES
from hf_colearn.hub.check import report_check, student_folder
from hf_colearn.hub.record import TrainingRecord, public
from hf_colearn.models.lora import with_lora
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.null_controls import ConstantTarget, Permuted, RandomPrototypes
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed


def null_controls(
    num_classes: int, true_pairing: Pairing, labels: Sequence[int] | np.ndarray, id_column: str | None = None
) -> list[ArmPlan]:
    """The arms whose targets carry nothing of the teacher's knowledge; see [`~hf_colearn.teachers.null_controls`].

    Args:
        num_classes (`int`): C, the number of random vectors.
        true_pairing (`Pairing`): The one whose targets are permuted.
        labels (`Sequence[int]`): The class of sample id 0, 1, ...
        id_column (`str`, *optional*): Of the arms that depend on the class, see [`ArmPlan`].
    """
    return [
        ArmPlan("constant target", "null", ConstantTarget()),
        ArmPlan("random vectors", "null", RandomPrototypes(num_prototypes=num_classes)),
        ArmPlan("class vectors", "null", RandomPrototypes(labels), id_column),
        ArmPlan("permuted pairing", "null", Permuted(true_pairing, labels), id_column),
    ]


def chosen_arms(options: RecipeOptions, plans: Sequence[ArmPlan]) -> list[ArmPlan]:
    """The arms that `--arms` names; call it before the teacher is asked, so that a wrong name shows at once.

    Raises:
        ValueError: If a name is none of theirs, or the arms could not be compared.
    """
    plans = pick(plans, options.arms)
    check_comparable(plans, options.seeds)
    return plans


def optimizer_of(options: RecipeOptions, training: Mapping[str, Any]) -> tuple[type, dict[str, Any]] | None:
    """What `--optimizer` names, as Trainer takes it in `optimizer_cls_and_kwargs`; None for `--optim`."""
    if options.optimizer is None:
        return None
    kind, kwargs = OPTIMIZERS[options.optimizer]
    return kind, {**kwargs, "lr": training["learning_rate"], "weight_decay": training["weight_decay"]}


def check_drop_last(training: Mapping[str, Any]) -> None:
    """Refuses what would leave test samples out.

    Raises:
        ValueError: If `dataloader_drop_last` is set.
    """
    if training.get("dataloader_drop_last"):
        raise ValueError("dataloader_drop_last=True would leave test samples out, too: leave it False.")


def keeps_first(
    kept: ArmPlan, first_seed: int, keep: Callable[[CoLearningTrainer], None]
) -> Callable[[ArmPlan, int, CoLearningTrainer], None]:
    """What [`run_arms`] calls after a run: keeps one arm's student of the first seed, fixed beforehand and not the best."""

    def on_trained(plan: ArmPlan, seed: int, trainer: CoLearningTrainer) -> None:
        if plan is kept and seed == first_seed and distributed.rank() == 0:
            keep(trainer)
        distributed.barrier()

    return on_trained


def brief_arguments(
    output_dir: str | Path, max_steps: int, batch_size: int, seed: int, **training: Any
) -> CoLearningArguments:
    """[`CoLearningArguments`] of a run of seconds on data in memory: no checkpoints, a dozen logs, the batch shared out."""
    return CoLearningArguments(
        str(output_dir),
        max_steps=max_steps,
        per_device_train_batch_size=batch_size // distributed.world_size(),
        per_device_eval_batch_size=256,
        logging_steps=max(1, max_steps // 12),
        ddp_find_unused_parameters=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        **training,
    )


def quiet() -> None:
    """Leaves the terminal to the recipe's own bar and table."""
    logging.set_verbosity_error(), logging.disable_progress_bar(), disable_progress_bar()


def run_recipe(
    options: RecipeOptions,
    training: dict[str, Any],
    *,
    facts: ExperimentInfo,
    plans: Sequence[ArmPlan],
    bank: TeacherBank,
    data: Mapping[str, Any],
    make_student: Callable[[], PreTrainedModel],
    processor: Any = None,
    collator: Callable | None = None,
    augment: Callable | None = None,
    metrics: Sequence[str] = ("accuracy", "macro_f1"),
    notes: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Trains the arms over the seeds, scores them on the test split, and writes table, report and student.

    The checkpoint of a run is chosen on `data["validation"]`, as `load_best_model_at_end` and `metric_for_best_model`
    say; the test split is looked at once. The student of the first co-learned arm and seed is saved with its card.

    Args:
        options ([`RecipeOptions`]): As parsed.
        training (`dict`): Fields of [`CoLearningArguments`]; `alpha` and its schedule are dropped for the baseline.
        facts ([`ExperimentInfo`]): For report and card.
        plans (`Sequence[ArmPlan]`): The arms, from [`chosen_arms`].
        bank ([`TeacherBank`]): The teacher's latents.
        data (`Mapping`): `train` with sample ids, `validation` and `test`, in the student's inputs with `labels`.
        make_student (`Callable`): A fresh student; the seed is set before.
        processor (*optional*): Saved beside the student.
        collator, augment (`Callable`, *optional*): The trainer's.
        metrics (`Sequence[str]`, *optional*): Of [`classification_metrics`]; arms are compared on the first.
        notes (`Mapping`, *optional*): More for the report, such as samples that were skipped.
        groups, more_tests (`Mapping`, *optional*): As of [`~hf_colearn.experiments.experiment.run_arms`].

    Returns:
        `list[Run]`: All runs.

    Raises:
        ValueError: If the arguments would leave test samples out.
    """
    check_drop_last(training)
    if options.check is not None:
        check_student(options.check, AUTO_CLASSES[facts.pipeline_tag], training, data["test"], collator, metrics)
    output_dir = Path(training["output_dir"])
    kept = next((plan for plan in plans if plan.kind == "colearned"), plans[0])
    id_columns = {plan.id_column or training["id_column"] for plan in plans}
    first_seed = training.get("seed") or 0
    optimizer = optimizer_of(options, training)

    def make_trainer(plan: ArmPlan, seed: int) -> CoLearningTrainer:
        values = {**copy.deepcopy(training), "seed": seed, "output_dir": str(run_folder(output_dir, plan.name, seed))}
        if plan.pairing is None:
            values |= {"alpha": None, "alpha_schedule": "constant"}
        id_column = values["id_column"] = plan.id_column or training["id_column"]
        train = data["train"]
        if id_columns - {id_column}:  # the student's forward would be handed the others
            train = train.remove_columns(list(id_columns - {id_column}))
        student = make_student()
        return CoLearningTrainer(
            with_lora(student, options.lora_rank) if options.lora else student,
            CoLearningArguments(**{**values, "disable_tqdm": True}),
            data_collator=collator,
            train_dataset=train,
            eval_dataset=data["validation"],
            bank=bank if plan.pairing else None,
            pairing=plan.pairing,
            augment=augment,
            optimizer_cls_and_kwargs=copy.deepcopy(optimizer),
            compute_metrics=classification_metrics(tuple(metrics)),
        )

    keep_first = keeps_first(kept, first_seed, lambda run: keep_student(run, processor, output_dir / "student"))
    seeds = range(first_seed, first_seed + options.seeds)
    resume = training.get("resume_from_checkpoint")
    runs = run_arms(plans, seeds, make_trainer, data["test"], keep_first, output_dir, bool(resume), groups, more_tests)
    if distributed.rank() == 0:
        samples = {split: len(part) for split, part in data.items() if hasattr(part, "__len__")}  # streams have none
        asked = {"options": public({**vars(options), **training}), "samples": samples, **(notes or {})}
        write_results(output_dir, runs, kept, facts, bank, asked, options.report)
    return runs


def write_results(
    output_dir: Path,
    runs: Sequence[Run],
    kept: ArmPlan,
    facts: ExperimentInfo,
    bank: TeacherBank,
    notes: Mapping[str, Any],
    with_page: bool = True,
) -> None:
    """Prints the table of the arms and writes the report and, where a student was kept, its record and card.

    Args:
        output_dir (`Path`): Where they go; the student is in `student`.
        runs (`Sequence[Run]`): All runs, with the first seed's first.
        kept ([`ArmPlan`]): The arm of the student.
        facts ([`ExperimentInfo`]): What it was, in words.
        bank ([`TeacherBank`]): The teacher's latents.
        notes (`Mapping`): More for the report.
        with_page (`bool`, *optional*, defaults to `True`): Whether to draw `report.html`, or to write its numbers alone.
    """
    metric = next(iter(runs[0].metrics))
    comparison = compare_runs(runs, metric)
    told = {
        "recipe": facts.recipe, "title": facts.title, "dataset": facts.dataset_name, "metric": metric,
        "command": facts.command, "published": facts.published, "teacher": public(bank.description),
        "teacher_in_words": facts.teacher, "pairing": facts.pairing, "source": "teacher", **notes,
    }  # fmt: skip
    print(f"\n{facts.title}: {facts.dataset_name}, {len(runs[0].labels):,} test samples\n")
    print(comparison.table(), comparison.verdict, sep="\n")
    if facts.published is not None:
        print(f"Published: {facts.published}")
    written = write_findings(output_dir, runs, comparison, told, with_page)
    if (output_dir / "student").is_dir():
        teacher = {"words": facts.teacher, **bank.description} if kept.pairing else None
        finish_student(output_dir / "student", runs, kept.name, facts, comparison, teacher=teacher)
        written.append(output_dir / "student")
    print("Written:", *(f"  {path}" for path in written), sep="\n")


def write_findings(
    output_dir: Path, runs: Sequence[Run], comparison: Comparison, told: Mapping[str, Any], with_page: bool
) -> list[Path]:
    """Writes what `hf-colearn report` reads beside the runs, and its page or, without one, its numbers."""
    write_experiment(output_dir, told, [run_folder(output_dir, run.arm, run.seed) for run in runs])
    if with_page:
        return report(runs, output_dir, told).files
    return [write_report(output_dir, runs, comparison, told)]


def check_student(
    student: str,
    auto_class: str,
    training: Mapping[str, Any],
    test_dataset: Any,
    collator: Callable | None = None,
    metrics: Sequence[str] = ("accuracy", "macro_f1"),
) -> NoReturn:
    """Scores a student as its recipe does, prints its card's numbers beside that, and ends the process.

    The exit status is 0 where the card says what was measured, 1 where it does not, and 2 where there is no such student
    or it is damaged; see [`~hf_colearn.hub.check.check_card`].

    Args:
        student (`str`): Its folder or repository id.
        auto_class (`str`): Of transformers, that loads it.
        training (`Mapping`): Fields of [`CoLearningArguments`], of which those of evaluation count.
        test_dataset: What it is scored on.
        collator (`Callable`, *optional*): The trainer's.
        metrics (`Sequence[str]`, *optional*): Of [`classification_metrics`].
    """
    try:
        folder = student_folder(student)
        stated = TrainingRecord.load(folder).scores
        measured = _measured(load_student(folder, auto_class), training, test_dataset, collator, metrics)
        scores = {name: measured[name] for name in stated if name in measured}
        status = report_check(folder, scores) if distributed.rank() == 0 else 0
    except (FileNotFoundError, ValueError) as error:
        print(f"--check {student}: {error}", file=sys.stderr)
        status = 2
    distributed.destroy_process_group()
    sys.exit(status)


def _measured(
    student: Any, training: Mapping[str, Any], test_dataset: Any, collator: Callable | None, metrics: Sequence[str]
) -> dict[str, float]:
    values = {**copy.deepcopy(dict(training)), "alpha": None, "alpha_schedule": "constant", "ema_decay": None}
    values |= {"report_to": "none", "push_to_hub": False, "disable_tqdm": True}
    with TemporaryDirectory() as scratch:
        trainer = CoLearningTrainer(
            student,
            CoLearningArguments(**{**values, "output_dir": scratch}),
            data_collator=collator,
            eval_dataset=test_dataset,
            compute_metrics=classification_metrics(tuple(metrics)),
        )
        measured = trainer.predict(test_dataset, metric_key_prefix="test").metrics or {}
    return {name.removeprefix("test_"): value for name, value in measured.items()}
