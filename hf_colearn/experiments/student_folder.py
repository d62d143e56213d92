"""The student that a recipe keeps: saved with its processor, the record of its training and its card."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from hf_colearn.analysis.runs import Run
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.hub.card import AUTO_CLASSES, adapter_card, measured_emissions, student_card
from hf_colearn.hub.record import TrainingRecord, public_argv
from hf_colearn.models.lora import save_student


@dataclass(frozen=True)
class ExperimentInfo:
    """What a recipe's report and card say of it in words.

    Args:
        recipe (`str`): Its name, `"avmnist_v2a"`.
        title (`str`): Of the card.
        pipeline_tag (`str`): Of the student.
        dataset_name (`str`): Pretty name of the data, such as `"MNIST"`.
        dataset_type (`str`): Its id on the Hub, such as `"ylecun/mnist"`; a word without a slash for data that is not
            there, which is then not linked.
        teacher, pairing (`str`): What the teacher is, and what it shows a sample.
        published (`str`, *optional*): The published numbers, with their data and source.
        language (`str`, *optional*): ISO 639 code, of text and speech.
        license (`str`, *optional*, defaults to `"apache-2.0"`): Of the student.
    """

    recipe: str
    title: str
    pipeline_tag: str
    dataset_name: str
    dataset_type: str
    teacher: str
    pairing: str
    published: str | None = None
    language: str | None = None
    license: str = "apache-2.0"

    @property
    def command(self) -> str:
        """The command line that repeats the run, without tokens and folders of the machine."""
        return shlex.join(["accelerate", "launch", f"recipes/{self.recipe}.py", *public_argv(sys.argv[1:])])


def keep_student(trainer: Any, processor: Any, folder: Path, processors: Mapping[str, Any] | None = None) -> None:
    """Saves a trained student with its processor and the record of its training; for LoRA its adapter and base, too.

    Args:
        trainer ([`~trainer.CoLearningTrainer`]): After `train()`.
        processor (*optional*): Saved beside the student.
        folder (`Path`): Where they go.
        processors (`Mapping`, *optional*): Of a multimodal model's modalities, each saved in a folder of its name.
    """
    save_student(trainer.model, processor, folder)
    for modality, its_own in (processors or {}).items():
        its_own.save_pretrained(folder / modality)
        for code in (folder / modality).glob("*.py"):  # transformers looks for code in the root alone
            code.replace(folder / code.name)
    history, objective = trainer.state.log_history, trainer.auxiliary_objective
    TrainingRecord.of(trainer.args, history, objective, trainer.alpha, trainer.model).save(folder)


def finish_student(
    folder: Path,
    runs: Sequence[Run],
    arm: str,
    facts: ExperimentInfo,
    comparison: Comparison,
    *,
    teacher: Mapping[str, Any] | None = None,
    modalities: str | None = None,
) -> None:
    """Adds what the runs have shown to the record of a student that was kept, and writes its card, which tells all of it.

    Args:
        folder (`Path`): Of the student, below that of the runs.
        runs (`Sequence[Run]`): All runs, with the first seed's first.
        arm (`str`): The one of the student.
        facts ([`ExperimentInfo`]): What it was, in words.
        comparison ([`Comparison`]): Of the arms.
        teacher (`Mapping`, *optional*): `words`, and the bank's description.
        modalities (`str`, *optional*): Of a multimodal model, the table of the arms by modality.
    """
    run = next(run for run in runs if run.arm == arm)
    record = replace(
        TrainingRecord.load(folder),
        recipe=facts.recipe,
        argv=public_argv(sys.argv[1:]),
        arm=arm,
        # on the test split alone, and no counts
        scores={name: value for name, value in run.metrics.items() if "excluded" not in name and "_on_" not in name},
        dataset={"name": facts.dataset_name, "type": facts.dataset_type, "split": "test", "samples": len(run.labels)},
        teacher=None if teacher is None else dict(teacher),
        pairing=facts.pairing if run.kind == "colearned" else None,
        seconds=run.seconds if np.isfinite(run.seconds) else None,
    )
    record.save(folder)
    told: dict[str, Any] = {
        "title": facts.title,
        "pipeline_tag": None if modalities else facts.pipeline_tag,
        "license": facts.license,
        "language": facts.language,
    }
    student_card(
        folder,
        comparison=comparison,
        modalities=modalities,
        published=facts.published,
        stock_class=None if modalities else stock_class(folder, AUTO_CLASSES[facts.pipeline_tag]),
        all_runs=(len(runs), sum(run.seconds for run in runs)),
        emissions=measured_emissions(folder.parent),
        **told,
    ).save(folder / "README.md")
    if (folder / "adapter").is_dir():
        adapter_card(folder, **told).save(folder / "adapter" / "README.md")


def stock_class(folder: Path, auto_class: str) -> str | None:
    """What `to_transformers()` makes of a saved student; None where no stock model computes the same logits."""
    student = load_student(folder, auto_class)
    try:
        return type(student.to_transformers()).__name__
    except ValueError:
        return None


def load_student(folder: Path, auto_class: str) -> Any:
    """A saved student, by the code of this package; that of its folder never runs."""
    return getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=False)
