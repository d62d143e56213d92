"""Model cards of students and of their adapters, filled from what was measured and nothing else."""

import csv
import json
import math
import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_colearn.hub.record import TrainingRecord
from hf_colearn.hub.training_samples import samples_in_words
from hf_colearn.utils.metric_names import written
from hf_colearn.utils.recipe_files import recipe_command
from hf_colearn.utils.tables import markdown_table


TAGS = ["co-learning", "hf_colearn"]
AUTO_CLASSES = {
    "audio-classification": "AutoModelForAudioClassification",
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "feature-classification": "AutoModel",  # of precomputed features, for which the Hub has no pipeline
}
_OWN_CLASSES = {  # of what transformers has no Auto class for
    None: "CoLearningForMultimodalClassification", "feature-classification": "CoLearningForFeatureClassification",
}  # fmt: skip
_SAMPLES = {"audio": '"clip.wav"', "image": '"picture.png"', "text": '"A sentence."'}  # what a pipeline is called with
# Our metric names -> the metric's id on the Hub and its pretty name; other names are used as they are.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "top5": ("top_5_accuracy", "Top-5 accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "map": ("mean_average_precision", "Macro mAP"),
    "mean_average_precision": ("mean_average_precision", "Macro mAP"),
    "f1_micro": ("f1", "Micro F1"),
    "f1_macro": ("f1", "Macro F1"),
    "r2": ("r_squared", "R2"),
    "mse": ("mse", "MSE"),
    "pearson": ("pearsonr", "Pearson correlation"),
}
ALPHAS = {
    "ConstantAlpha": "constant",
    "HeuristicAlpha": "1 - exp(-1/t) in epoch t = 1, 2, ...",
    "FittedAlpha": "a polynomial in the epoch, clipped to [0, 1]",
    "LearnedAlpha": "learned, by the gradient of the label loss on training samples that were set aside for it",
}
_INPUTS = {"audio": "audio", "feature": "precomputed features", "image": "images", "text": "text"}
_READING = {  # what the model's output means, where it is no distribution over classes
    "multi_label_classification": "Every class has a probability of its own, `model(...).logits.sigmoid()`: a sample may have "
    "several classes, or none.",
    "regression": "It predicts values: `model(...).logits`.",
}
_KINDS = {"multi_label_classification": "multi-label-classification", "regression": "regression"}  # tags of cards
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
_ROWS = 8  # of the table of a moving alpha


def student_card(
    folder: str | os.PathLike,
    *,
    title: str,
    pipeline_tag: str | None,
    repo_id: str | None = None,
    comparison: str | None = None,
    modalities: str | None = None,
    published: str | None = None,
    stock_class: str | None = None,
    all_runs: tuple[int, float] | None = None,
    emissions: tuple[float, float] | None = None,
    license: str = "apache-2.0",
    language: str | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """The model card of a saved student or multimodal model, with every one of its scores in the `model-index`.

    What was trained and measured is read from the `colearning.json` in the folder; the card says how to load the
    processors, adapter and base that lie there. It names the folder; publishing puts the repository in its place.

    Args:
        folder (`str`): Of the student, with its [`TrainingRecord`].
        title (`str`): Of the card.
        pipeline_tag (`str` or `None`): `"image-classification"`, `"audio-classification"` or `"text-classification"`, of a
            regression, too, which transformers loads by these; `"feature-classification"` for a student of precomputed
            features and `None` for a multimodal model, for which the Hub has no pipeline.
        repo_id (`str`, *optional*): Where it is loaded from; the folder, by default.
        comparison (`str`, *optional*): Of the arms that were trained, in Markdown; without one, the card claims nothing.
        modalities (`str`, *optional*): Of a multimodal model: a Markdown table of the arms by modality.
        published (`str`, *optional*): The published numbers, with their data and source.
        stock_class (`str`, *optional*): What `to_transformers()` makes of the student, where that is exact.
        all_runs (`tuple[int, float]`, *optional*): How many runs the comparison took, and seconds of training in all.
        emissions (`tuple[float, float]`, *optional*): See [`measured_emissions`].
        license (`str`, *optional*, defaults to `"apache-2.0"`): Of the weights.
        language (`str`, *optional*): ISO 639 code, of text and speech.
        tags (`Sequence[str]`, *optional*): More tags, beside "co-learning" and "hf_colearn".

    Returns:
        `ModelCard`: Write it with `card.save(f"{folder}/README.md")`.

    Raises:
        FileNotFoundError, ValueError: If there is no `colearning.json`, no such pipeline, or a score is not finite.
    """
    folder = Path(folder)
    record = TrainingRecord.load(folder)
    if pipeline_tag is not None and pipeline_tag not in AUTO_CLASSES:
        raise ValueError(f"no student is loaded for pipeline_tag='{pipeline_tag}': choose from {sorted(AUTO_CLASSES)}")
    metadata = _metadata(record, title, pipeline_tag, license, language)
    kinds = [name for name in ("" if pipeline_tag else "multimodal", _KINDS.get(record.problem_type or "")) if name]
    metadata |= {"library_name": "transformers", "tags": [*TAGS, *kinds, *tags]}
    if record.base_model:
        metadata |= {"base_model": record.base_model, "base_model_relation": "finetune"}
    energy = "not measured"
    if emissions is not None:
        kwh, grams = emissions[0], 1000 * emissions[1]
        energy = f"{kwh:.3g} kWh, {grams:.3g} g of CO2 equivalents (codecarbon, all runs together)"
        co2 = {"emissions": grams, "source": "codecarbon", "hardware_used": record.hardware}
        metadata["co2_eq_emissions"] = co2
    return ModelCard.from_template(
        ModelCardData(**metadata),
        template_path=str(Path(__file__).parent / "student_card.md"),
        record=record,
        title=title,
        repo_id=str(folder) if repo_id is None else repo_id,
        results=_results(record, published),
        comparison=comparison,
        is_multimodal=pipeline_tag is None,
        own_class=_OWN_CLASSES.get(pipeline_tag),
        task=_task(pipeline_tag, record.problem_type),
        reading=_reading(record.problem_type, has_pipeline=metadata["pipeline_tag"] is not None),
        training_samples=samples_in_words(record.training_samples),
        modalities=modalities,
        teacher=_teacher_in_words(record),
        pipeline_tag=metadata["pipeline_tag"],
        **_alpha(record),
        versions=", ".join(f"{name} {v}" for name, v in {"hf_colearn": record.hf_colearn, **record.versions}.items()),
        seconds="not measured" if record.seconds is None else _duration(record.seconds),
        all_runs=None if all_runs is None else (all_runs[0], _duration(all_runs[1])),
        energy=energy,
        auto_class=AUTO_CLASSES.get(pipeline_tag or "", "AutoModel"),
        sample=_SAMPLES.get((pipeline_tag or "").split("-")[0]),
        stock_class=stock_class,
        has_processor=any((folder / name).is_file() for name in _PROCESSORS),
        processors=sorted({path.parent.name for name in _PROCESSORS for path in folder.glob(f"*/{name}")}),
        has_adapter=(folder / "adapter").is_dir(),
        command=recipe_command(record.recipe, record.argv) if record.recipe else None,
    )


def adapter_card(
    folder: str | os.PathLike,
    *,
    title: str,
    pipeline_tag: str | None,
    license: str = "apache-2.0",
    language: str | None = None,
) -> ModelCard:
    """The model card of the adapter in a LoRA student's folder, whose base model its configuration names.

    The arguments are those of [`student_card`]; write it with `card.save(f"{folder}/adapter/README.md")`.
    """
    record, adapter = TrainingRecord.load(folder), Path(folder) / "adapter"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    metadata = _metadata(record, title, pipeline_tag, license, language)
    metadata |= {"library_name": "peft", "tags": [*TAGS, "lora"]}
    return ModelCard.from_template(
        ModelCardData(**metadata, base_model=base, base_model_relation="adapter"),
        template_path=str(Path(__file__).parent / "adapter_card.md"),
        record=record,
        own_class=_OWN_CLASSES.get(pipeline_tag),
        title=title,
        repo_id=str(adapter),
        results=_results(record),
        auto_class=AUTO_CLASSES.get(pipeline_tag or "", "AutoModel"),
    )


def _metadata(
    record: TrainingRecord, title: str, pipeline_tag: str | None, license: str, language: str | None
) -> dict[str, Any]:
    """What the metadata of both kinds of cards share, with an evaluation result for every score."""
    for name, value in record.scores.items():
        if not math.isfinite(value):
            raise ValueError(f"metric '{name}' is {value}: evaluate the student again, or leave the metric out")
    task, regression = pipeline_tag or "multimodal-classification", record.problem_type == "regression"
    results = [
        EvalResult(
            task_type=task.replace("classification", "regression") if regression else task,
            dataset_type=record.dataset["type"],
            dataset_name=record.dataset["name"],
            dataset_split=record.dataset["split"],
            metric_type=HUB_METRICS[name][0] if name in HUB_METRICS else name,
            metric_name=pretty(name),
            metric_value=float(value),
        )
        for name, value in record.scores.items()
    ]
    return {
        "model_name": title,
        "license": license,
        "language": language,
        "pipeline_tag": None if pipeline_tag == "feature-classification" else pipeline_tag,
        "datasets": [record.dataset["type"]] if "/" in record.dataset.get("type", "") else None,
        "metrics": [result.metric_type for result in results] or None,
        "eval_results": results or None,
    }


def _task(pipeline_tag: str | None, problem: str | None) -> str:
    """What a student is for, and what a multimodal model is, in words."""
    modality = "" if pipeline_tag is None else pipeline_tag.split("-")[0]
    several = "multi-label " if problem == "multi_label_classification" else ""
    if problem == "regression":
        return f"regression on {_INPUTS[modality]}" if modality else "regression model"
    if pipeline_tag == "feature-classification":
        return f"{several}classification of {_INPUTS[modality]}"
    return f"{several}{pipeline_tag or 'classifier'}"


def _reading(problem: str | None, has_pipeline: bool) -> str | None:
    if problem not in _READING:
        return None
    return _READING[problem] + (" A pipeline shows them as scores." if has_pipeline else "")


def pretty(name: str) -> str:
    """The name of a metric as cards have it."""
    return HUB_METRICS[name][1] if name in HUB_METRICS else name


def _results(record: TrainingRecord, published: str | None = None) -> str | None:
    """The table of results, with the published numbers beside the first one."""
    if not record.scores:
        return None
    rows = [["metric", "value"], *([pretty(name), written(name, value)] for name, value in record.scores.items())]
    if published is not None:
        rows = [[*row, cell] for row, cell in zip_longest(rows, ["published", published], fillvalue="-")]
    return markdown_table(rows)


def _teacher_in_words(record: TrainingRecord) -> str | None:
    if record.teacher is None:
        return None
    known = {name: record.teacher.get(name) for name in ("revision", "pooling", "dtype")}
    details = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    words = record.teacher.get("words") or record.teacher.get("teacher") or "not named"
    return f"{words} ({details})" if details else words


def _alpha(record: TrainingRecord) -> dict[str, str | None]:
    """Alpha in words; the loss, with the number of an alpha that is constant; a table of one that changes."""
    history, kind = record.alpha_history, (record.alpha or "").split("(")[0]
    names = ["alpha"] if len(record.terms) == 1 else [f"alpha_{term}" for term in record.terms]
    weights, table = names, None
    words = [f"`{record.alpha}`", *([ALPHAS[kind]] if kind in ALPHAS else [])]
    if any(len({round(entry[name], 6) for entry in history}) > 1 for name in names):
        ends = [f"from {history[0][name]:.3f} at first to {history[-1][name]:.3f} in the end" for name in names]
        words.append(" and ".join(ends))
        shown = np.unique(np.linspace(0, len(history) - 1, min(_ROWS, len(history))).round().astype(int))
        rows = [[f"{history[i]['epoch']:.3g}", *(f"{history[i][name]:.3f}" for name in names)] for i in shown]
        table = markdown_table([["epoch", *names], *rows])
    elif history:
        weights = [f"{history[0][name]:.6g}" for name in names]
    loss = "L = L_task"
    if record.terms:
        terms = [f"{weight} * L_{term}" for weight, term in zip(weights, record.terms, strict=True)]
        loss = f"L = (1 - {' - '.join(weights)}) * L_task + {' + '.join(terms)}"
    return {"alpha": "; ".join(words), "equation": loss, "alpha_table": table}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"


def measured_emissions(folder: str | os.PathLike) -> tuple[float, float] | None:
    """Energy in kWh and kg of CO2 equivalents, summed over the `emissions.csv` of the runs in a folder; `None` without one.

    `pip install codecarbon` and `--report_to codecarbon` make transformers write them.
    """
    files = sorted(Path(folder).rglob("emissions.csv"))
    rows = [row for path in files for row in csv.DictReader(path.read_text().splitlines())]
    if not rows:
        return None
    return sum(float(row["energy_consumed"]) for row in rows), sum(float(row["emissions"]) for row in rows)
