"""Model cards of students and of their adapters, filled from what was measured and nothing else."""

import csv
import json
import os
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_colearn.hub import card_words
from hf_colearn.hub.model_kind import AUTO_CLASSES, OUR_CLASSES, ModelKind
from hf_colearn.hub.record import HUB_ID, TrainingRecord
from hf_colearn.hub.training_samples import samples_in_words
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.metric_names import written
from hf_colearn.utils.recipe_files import recipe_command
from hf_colearn.utils.tables import markdown_table


TAGS = ["co-learning", "hf_colearn"]
_SAMPLES = {  # what a pipeline is called with
    "audio": '"clip.wav"',
    "fill": 'f"A {classify.tokenizer.mask_token}."',
    "image": '"picture.png"',
    "text": '"A sentence."',
}
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
_KINDS = {"multi_label_classification": "multi-label-classification", "regression": "regression"}  # tags of cards
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json")


def student_card(folder: str | os.PathLike, *, title: str, pipeline_tag: str | None, **options: Any) -> ModelCard:
    """The model card of a saved student or multimodal model, with every one of its scores in the `model-index`.

    Args:
        folder (`str`): Of the student, with its [`TrainingRecord`].
        title (`str`): Of the card.
        pipeline_tag (`str` or `None`): `"image-classification"`, `"audio-classification"` or `"text-classification"`, of a
            regression, too, which transformers loads by these; `"feature-classification"` for a student of precomputed
            features and `None` for a multimodal model, for which the Hub has no pipeline.
        options: See [`model_card`].

    Raises:
        FileNotFoundError, ValueError: If there is no `colearning.json`, or no such pipeline.
    """
    if pipeline_tag not in OUR_CLASSES:
        raise ValueError(f"no student is loaded for pipeline_tag='{pipeline_tag}': choose from {sorted(AUTO_CLASSES)}")
    record = TrainingRecord.load(folder)
    is_encoder = ModelKind.of_folder(folder).is_encoder
    kind = ModelKind(OUR_CLASSES[pipeline_tag], pipeline_tag, is_ours=True, is_encoder=is_encoder)
    return model_card(folder, kind, record, title=title, **options)


def model_card(
    folder: str | os.PathLike,
    kind: ModelKind,
    record: TrainingRecord | None,
    *,
    title: str,
    repo_id: str | None = None,
    comparison: str | None = None,
    modalities: str | None = None,
    published: str | None = None,
    stock_class: str | None = None,
    all_runs: tuple[int, float] | None = None,
    emissions: tuple[float, float] | None = None,
    license: str | None = None,
    language: str | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """The model card of any saved model.

    What was trained and measured is in its record; the card says how to load the processors, adapter and base that lie in
    the folder, and names the classes that the configuration there has. It names the folder; publishing puts the repository
    in its place.

    Args:
        folder (`str`): Of the model.
        kind ([`ModelKind`]): Of the model.
        record ([`TrainingRecord`], *optional*): Of its training; without one the card says that it is not known.
        title (`str`): Of the card.
        repo_id (`str`, *optional*): Where it is loaded from; the folder, by default.
        comparison (`str`, *optional*): Of the arms that were trained, in Markdown; without one, the card claims nothing.
        modalities (`str`, *optional*): Of a multimodal model: a Markdown table of the arms by modality.
        published (`str`, *optional*): The published numbers of the same data, with their source.
        stock_class (`str`, *optional*): What `to_transformers()` makes of the student, `""` where no stock model computes
            the same logits; `None` where it was not tried.
        all_runs (`tuple[int, float]`, *optional*): How many runs the comparison took, and seconds of training in all.
        emissions (`tuple[float, float]`, *optional*): See [`measured_emissions`].
        license (`str`, *optional*): Of the weights; a card has none that nobody chose.
        language (`str`, *optional*): ISO 639 code, of text and speech.
        tags (`Sequence[str]`, *optional*): More tags, beside "co-learning" and "hf_colearn".

    Returns:
        `ModelCard`: Write it with `card.save(f"{folder}/README.md")`.
    """
    folder, known = Path(folder), record or TrainingRecord()
    metadata = _metadata(known, kind, title, license, language)
    kinds = [
        name for name in ("multimodal" if kind.is_multimodal else "", _KINDS.get(known.problem_type or "")) if name
    ]
    metadata |= {"library_name": kind.library, "tags": [*TAGS, *(["lora"] if kind.is_adapter else []), *kinds, *tags]}
    if bases := [kind.base] if kind.base and is_on_the_hub(kind.base) else known.base_model:
        metadata |= {"base_model": bases, "base_model_relation": "adapter" if kind.is_adapter else "finetune"}
    energy = "not measured"
    if emissions is not None:
        kwh, grams = emissions[0], 1000 * emissions[1]
        energy = f"{kwh:.3g} kWh, {grams:.3g} g of CO2 equivalents (codecarbon, all runs together)"
        co2 = {"emissions": grams, "source": "codecarbon", "hardware_used": known.hardware}
        metadata["co2_eq_emissions"] = co2
    repo_id = str(folder) if repo_id is None else repo_id
    has_processor = any((folder / name).is_file() for name in _PROCESSORS)
    return ModelCard.from_template(
        ModelCardData(**metadata),
        template_path=str(Path(__file__).parent / "student_card.md"),
        record=known,
        is_recorded=record is not None,
        title=" ".join(title.split()),
        repo_id=repo_id,
        results=_results(known, published),
        comparison=comparison,
        modalities=modalities,
        is_multimodal=kind.is_multimodal,
        pipeline_tag=metadata["pipeline_tag"],
        **_words(folder, kind, record, repo_id, has_processor),
        versions=", ".join(f"{name} {v}" for name, v in {"hf_colearn": known.hf_colearn, **known.versions}.items()),
        seconds="not measured" if known.seconds is None else card_words.duration(known.seconds),
        all_runs=None if all_runs is None else (all_runs[0], card_words.duration(all_runs[1])),
        energy=energy,
        auto_class=AUTO_CLASSES.get(kind.pipeline_tag or "", "AutoModel"),
        own_class=card_words.own_class(kind),
        sample=_SAMPLES.get((kind.pipeline_tag or "").split("-")[0]),
        stock_class="" if card_words.more_classes(folder) and stock_class is None else stock_class,
        has_processor=has_processor,
        processors=sorted({path.parent.name for name in _PROCESSORS for path in folder.glob(f"*/{name}")}),
        has_adapter=(folder / "adapter").is_dir(),
        command=recipe_command(known.recipe, known.argv) if known.recipe else None,
    )


def _words(
    folder: Path, kind: ModelKind, record: TrainingRecord | None, repo_id: str, has_processor: bool
) -> dict[str, str | None]:
    """What the template has in words."""
    known = record or TrainingRecord()
    has_pipeline = kind.hub_tag is not None
    return {
        "introduction": card_words.introduction(kind, known.problem_type),
        "training": card_words.training(record, kind.is_encoder),
        "question": card_words.question(record, kind.is_multimodal),
        "measured_on": card_words.measured_on(known) if known.scores else None,
        "others": card_words.others_in_words(known),
        "classes": card_words.classes_in_words(folder),
        "head": card_words.head_in_words(folder),
        "more_classes": card_words.more_classes(folder),
        "reading": card_words.reading(known.problem_type, has_pipeline),
        "training_samples": samples_in_words(known.training_samples),
        "teacher": card_words.teacher_in_words(known),
        "usage": card_words.usage(kind, repo_id, has_processor),
        **card_words.alpha_in_words(known),
    }


def adapter_card(
    folder: str | os.PathLike,
    *,
    title: str,
    pipeline_tag: str | None,
    license: str | None = None,
    language: str | None = None,
) -> ModelCard:
    """The model card of the adapter in a LoRA student's folder, whose base model its configuration names.

    The arguments are those of [`student_card`]; write it with `card.save(f"{folder}/adapter/README.md")`.
    """
    record, adapter = TrainingRecord.load(folder), Path(folder) / "adapter"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    kind = ModelKind(OUR_CLASSES[pipeline_tag], pipeline_tag, is_ours=True)
    metadata = _metadata(record, kind, title, license, language)
    metadata |= {"library_name": "peft", "tags": [*TAGS, "lora"]}
    return ModelCard.from_template(
        ModelCardData(**metadata, base_model=base, base_model_relation="adapter"),
        template_path=str(Path(__file__).parent / "adapter_card.md"),
        own_class=card_words.own_class(kind),
        title=title,
        repo_id=str(adapter),
        results=_results(record),
        measured_on=card_words.measured_on(record) if record.scores else None,
        auto_class=AUTO_CLASSES.get(pipeline_tag or "", "AutoModel"),
    )


def _metadata(
    record: TrainingRecord, kind: ModelKind, title: str, license: str | None, language: str | None
) -> dict[str, Any]:
    """What the metadata of both kinds of cards share, with an evaluation result for every score."""
    task = (
        kind.hub_tag or kind.pipeline_tag or ("multimodal-classification" if kind.is_multimodal else "classification")
    )
    data, regression = record.dataset, record.problem_type == "regression"
    results = [
        EvalResult(
            task_type=task.replace("classification", "regression") if regression else task,
            dataset_type=without_folders(data["type"]),
            dataset_name=data["name"],
            dataset_split=data["split"],
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
        "pipeline_tag": kind.hub_tag,
        "datasets": [data["type"]] if "/" in data.get("type", "") and is_on_the_hub(data["type"]) else None,
        "metrics": [result.metric_type for result in results] or None,
        "eval_results": results or None,
    }


def is_on_the_hub(name: str) -> bool:
    """Whether a name is of the form of a Hub id and no folder that lies here, which a card must not link."""
    return re.fullmatch(HUB_ID, name) is not None and not Path(name).exists()


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


def measured_emissions(folder: str | os.PathLike) -> tuple[float, float] | None:
    """Energy in kWh and kg of CO2 equivalents, summed over the `emissions.csv` of the runs in a folder; `None` without one.

    `pip install codecarbon` and `--report_to codecarbon` make transformers write them.
    """
    files = sorted(Path(folder).rglob("emissions.csv"))
    rows = [row for path in files for row in csv.DictReader(path.read_text().splitlines())]
    if not rows:
        return None
    return sum(float(row["energy_consumed"]) for row in rows), sum(float(row["emissions"]) for row in rows)
