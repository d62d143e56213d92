"""The student that a recipe saves, with its processor, the record of its training and its card; and how it is checked."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import transformers
from datasets import ClassLabel, Dataset

from hf_colearn.analysis.report.by_modality import compare_parts, modality_table, parts_text
from hf_colearn.analysis.runs import Run
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.levels import LevelComparisons
from hf_colearn.evaluation.regression import with_r2
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.hub.card import adapter_card, measured_emissions, student_card
from hf_colearn.hub.check import report_check, student_folder
from hf_colearn.hub.model_kind import AUTO_CLASSES
from hf_colearn.hub.record import TrainingRecord
from hf_colearn.hub.teachers import teachers_in_record
from hf_colearn.hub.training_samples import problem_type_of, training_samples
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.models.lora import save_student
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.training.data_checks import labelled_part
from hf_colearn.utils import distributed
from hf_colearn.utils.tables import markdown_table


def keep_student(trainer: CoLearningTrainer, processor: Any, folder: Path) -> None:
    """Saves a trained student with the record of its training and its processor, a multimodal model's by modality into
    folders of their names; for LoRA its adapter and base, too.
    """
    by_modality = processor if isinstance(processor, dict) else {}
    save_student(trainer.model, None if by_modality else processor, folder)
    for modality, its_own in by_modality.items():
        its_own.save_pretrained(folder / modality)
        for code in (folder / modality).glob("*.py"):  # transformers looks for code in the root alone
            code.replace(folder / code.name)
    history, objective = trainer.state.log_history, trainer.auxiliary_objective
    known = {"training_samples": training_samples(trainer), **teachers_in_record(trainer.teachers)}
    of_trainer = (objective, trainer.alpha, trainer.model, trainer.balance)
    TrainingRecord.of(trainer.args, history, *of_trainer, **known).save(folder)


def finish_student(
    folder: Path, runs: Sequence[Run], experiment: Mapping[str, Any], comparison: Comparison | LevelComparisons
) -> None:
    """Adds what the runs have shown to the record of a saved student, and writes its card from all of it.

    The runs are all, with the first seed's first; `experiment` is what `experiment.json` says.
    """
    info, arm = ExperimentInfo.of(experiment), experiment["student"]["arm"]
    run = next(run for run in runs if run.arm == arm)
    record, modalities = TrainingRecord.load(folder), modality_table(runs, experiment["metric"])
    teacher = record.teacher  # None of an arm without one, whatever the others have
    if teacher is not None:
        teacher = {**teacher, **(experiment["teacher"] or {}), **({"words": info.teacher} if info.teacher else {})}
    record = replace(
        record,
        recipe=info.recipe,
        argv=experiment["argv"],
        arm=arm,
        scores=_scores(run),
        dataset={"name": info.dataset_name, "type": info.dataset_type, "split": "test", **_test_samples(run)},
        teacher=teacher,
        pairing=info.pairing if run.kind == "colearned" and (teacher or modalities) else record.pairing,
        seconds=run.seconds if np.isfinite(run.seconds) else None,
    )
    record.save(folder)
    metadata: dict[str, Any] = {
        "title": info.title,
        "pipeline_tag": None if modalities else info.pipeline_tag,
        "license": info.license,
        "language": info.language,
    }
    verdict = "\n".join(f"- {line}" for line in comparison.verdict.splitlines())
    compared = f"{verdict}\n\n{comparison.to_markdown()}"
    if modalities:
        parts = parts_text(compare_parts(runs, comparison.metric, comparison.source), markdown_table)
        compared = f"{parts}\n\nBy the fused prediction of all modalities:\n\n{compared}"
    student_card(
        folder,
        comparison=compared,
        modalities=modalities,
        published=info.published,
        stock_class=None if modalities else _stock_class(folder, info.pipeline_tag),
        all_runs=(len(runs), sum(run.seconds for run in runs)),
        emissions=measured_emissions(folder.parent),
        **metadata,
    ).save(folder / "README.md")
    if (folder / "adapter").is_dir():
        adapter_card(folder, **metadata).save(folder / "adapter" / "README.md")


def _test_samples(run: Run) -> dict[str, int]:
    """How many the scores are of, and where some have no label, how many were left out."""
    unlabelled = run.facts.get("num_unlabelled", {}).get("test", 0)
    return {"samples": len(run.labels), **({"unlabelled": unlabelled} if unlabelled else {})}


def _scores(run: Run) -> dict[str, float]:
    """On the test split alone, and no counts; by modality, by subset, and last those of the fused prediction."""
    heads = tuple(f"_{name}" for name in run.test.modality_latents)

    def place(name: str) -> int:
        return 1 if "_given_" in name else 0 if heads and name.endswith(heads) else 2

    kept = [name for name in run.metrics if "excluded" not in name and "_on_" not in name]
    return {name: run.metrics[name] for name in sorted(kept, key=place)}


def _stock_class(folder: Path, pipeline_tag: str) -> str:
    """What `to_transformers()` makes of a student; empty where no stock model computes the same logits."""
    try:
        return type(load_student(folder, pipeline_tag).to_transformers()).__name__
    except ValueError:
        return ""


def load_student(folder: Path, pipeline_tag: str | None) -> Any:
    """A saved student, or without a tag a multimodal model, by the code of this package; that of its folder never runs."""
    if pipeline_tag == "feature-classification":
        return CoLearningForFeatureClassification.from_pretrained(folder)
    auto_class = "AutoModel" if pipeline_tag is None else AUTO_CLASSES[pipeline_tag]
    return getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=False)


def check_student(
    student: str,
    pipeline_tag: str | None,
    make_trainer: Callable[..., CoLearningTrainer],
    test_dataset: Any,
    info: ExperimentInfo | None = None,
    score: Callable[..., Run] | None = None,
) -> NoReturn:
    """Scores a student as its recipe does, prints its card's numbers beside that, and ends the process.

    The exit status is 0 where the card says what was measured, 1 where it does not, and 2 where there is no such student
    or it is damaged. A multimodal model has no pipeline tag; `make_trainer` takes changed training arguments. With `info`,
    what the card says of the data is held against what the recipe has read. `score` makes a run of a trainer, where the
    recipe has a way of its own.
    """
    try:
        folder = student_folder(student)
        stated = TrainingRecord.load(folder).scores
        with TemporaryDirectory() as scratch:
            recipe = make_trainer(output_dir=scratch, report_to="none", push_to_hub=False, ema_decay=None)
            model, metrics = load_student(folder, pipeline_tag), recipe.compute_metrics
            trainer = CoLearningTrainer(
                model,
                recipe.args,
                data_collator=recipe.data_collator,
                eval_dataset=test_dataset,
                compute_metrics=with_r2(metrics) if problem_type_of(model) == "regression" else metrics,
            )
            if score is None:
                measured = trainer.predict(test_dataset, metric_key_prefix="test").metrics or {}
            else:
                run = score(trainer, test_dataset, "student", "colearned")
                if isinstance(test_dataset, Dataset):
                    test_dataset = test_dataset.select(range(len(run.labels)))  # so many count
                measured = {f"test_{name}": value for name, value in run.metrics.items()}
        scores = {name: measured[f"test_{name}"] for name in stated if f"test_{name}" in measured}
        found = _measured_data(test_dataset, model, measured, info)
        status = report_check(folder, scores, found) if distributed.rank() == 0 else 0
    except (FileNotFoundError, ValueError) as error:
        print(f"--check {student}: {error}", file=sys.stderr)
        status = 2
    distributed.destroy_process_group()
    sys.exit(status)


def _measured_data(
    dataset: Any, model: Any, measured: Mapping[str, float], info: ExperimentInfo | None
) -> dict[str, Any]:
    """What is known of the data that a student was measured on; see [`~hf_colearn.hub.check.check_data`]."""
    found: dict[str, Any] = {}
    if hasattr(dataset, "__len__"):
        labelled = len(
            labelled_part(dataset, model)
        )  # where the labels are a column, and otherwise as they were counted
        left_out = measured.get("test_num_unlabelled", 0) if labelled == len(dataset) else 0
        found["samples"] = labelled - left_out
    features = getattr(dataset, "features", None) or {}
    label = next((features[name] for name in ("label", "labels") if isinstance(features.get(name), ClassLabel)), None)
    if label is not None:
        found["classes"] = label.names
    if info is not None:
        found |= {"name": info.dataset_name, "type": info.dataset_type, "published": info.published}
    return found
