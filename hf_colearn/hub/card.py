"""Model cards for students and dataset cards for teacher banks, filled from what was measured and nothing else."""

import math
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData


TAGS = ["co-learning", "hf_colearn"]
AUTO_CLASSES = {
    "audio-classification": "AutoModelForAudioClassification",
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
}
# Our metric names -> the metric's id on the Hub and its pretty name; other names stand for themselves.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "top5": ("top_5_accuracy", "Top-5 accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "map": ("mean_average_precision", "Macro mAP"),
}


def student_card(
    *,
    model_name: str,
    repo_id: str,
    pipeline_tag: str,
    dataset_name: str,
    dataset_type: str,
    dataset_split: str,
    teacher: str,
    pairing: str,
    objective: str,
    alpha: str,
    comparison: str,
    verdict: str,
    metrics: dict[str, float],
    command: str,
    base_model: str | None = None,
    license: str = "apache-2.0",
    language: str | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """The model card of a student, with every one of its metrics in the `model-index`.

    Args:
        model_name (`str`): Title of the card.
        repo_id (`str`): Where the student is loaded from: a repository id or a local path.
        pipeline_tag (`str`): `"image-classification"`, `"audio-classification"` or `"text-classification"`.
        dataset_name (`str`): Pretty name of the data, such as `"MNIST"`.
        dataset_type (`str`): Its id on the Hub, such as `"ylecun/mnist"`; a word without a slash for data that is not
            there, which is then not linked.
        dataset_split (`str`): The split that `metrics` were measured on.
        teacher (`str`): The teacher and its revision, in words.
        pairing (`str`): Which of the teacher's latents a sample saw, in words.
        objective (`str`): The terms of the loss, in words.
        alpha (`str`): How the weight of a term was set, in words.
        comparison (`str`): `Comparison.to_markdown()` of the arms that were trained.
        verdict (`str`): `Comparison.verdict`.
        metrics (`dict[str, float]`): What this student reached, by name, such as `{"accuracy": 0.97}`.
        command (`str`): The command line that repeats the training.
        base_model (`str`, *optional*): Repository id of the backbone that the student was fine-tuned from.
        license (`str`, *optional*, defaults to `"apache-2.0"`): Of the student.
        language (`str`, *optional*): ISO 639 code, for a student of text or speech.
        tags (`Sequence[str]`, *optional*): More tags, beside "co-learning" and "hf_colearn".

    Returns:
        `ModelCard`: Write it with `card.save("README.md")` or publish it with `card.push_to_hub(repo_id)`.

    Raises:
        `ValueError`: If the pipeline tag is none of the three, or the metrics are empty or not finite.
    """
    if pipeline_tag not in AUTO_CLASSES:
        raise ValueError(f"no student is loaded for pipeline_tag='{pipeline_tag}': choose from {sorted(AUTO_CLASSES)}")
    results = _eval_results(pipeline_tag, dataset_type, dataset_name, dataset_split, metrics)
    data = ModelCardData(
        model_name=model_name,
        base_model=base_model,
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=[*TAGS, *tags],
        datasets=[dataset_type] if "/" in dataset_type else None,
        metrics=[result.metric_type for result in results],
        eval_results=results,
    )
    return ModelCard.from_template(
        data,
        template_path=str(Path(__file__).parent / "student_card.md"),
        model_name=model_name,
        repo_id=repo_id,
        auto_class=AUTO_CLASSES[pipeline_tag],
        dataset_name=dataset_name,
        dataset_split=dataset_split,
        results=[(result.metric_name, f"{result.metric_value:.4g}") for result in results],
        teacher=teacher,
        pairing=pairing,
        objective=objective,
        alpha=alpha,
        comparison=comparison,
        verdict=verdict,
        command=command,
    )


def multimodal_card(
    *,
    model_name: str,
    repo_id: str,
    dataset_name: str,
    dataset_type: str,
    dataset_split: str,
    arm: str,
    objective: str,
    alpha: str,
    comparison: str,
    verdict: str,
    modalities: str,
    metrics: dict[str, float],
    command: str,
    license: str = "apache-2.0",
    language: str | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """The model card of a multimodal classifier, with every one of its metrics in the `model-index`.

    The Hub has no pipeline for several modalities, so the card has no `pipeline_tag`.

    Args:
        model_name, repo_id, dataset_name, dataset_type, dataset_split, comparison, verdict, metrics, command, license,
            language, tags: As [`student_card`] takes them.
        arm (`str`): Which of the comparison's arms the model is.
        objective, alpha (`str`): The auxiliary loss and its weight, in words.
        modalities (`str`): A Markdown table of the arms by modality.

    Returns:
        `ModelCard`: Write it with `card.save("README.md")`.

    Raises:
        `ValueError`: If the metrics are empty or not finite.
    """
    results = _eval_results("multimodal-classification", dataset_type, dataset_name, dataset_split, metrics)
    data = ModelCardData(
        model_name=model_name,
        language=language,
        license=license,
        library_name="transformers",
        tags=[*TAGS, "multimodal", *tags],
        datasets=[dataset_type] if "/" in dataset_type else None,
        metrics=[result.metric_type for result in results],
        eval_results=results,
    )
    return ModelCard.from_template(
        data,
        template_path=str(Path(__file__).parent / "multimodal_card.md"),
        model_name=model_name,
        repo_id=repo_id,
        dataset_name=dataset_name,
        dataset_split=dataset_split,
        results=[(result.metric_name, f"{result.metric_value:.4g}") for result in results],
        arm=arm,
        objective=objective,
        alpha=alpha,
        comparison=comparison,
        verdict=verdict,
        modalities=modalities,
        command=command,
    )


def _eval_results(
    task: str, dataset_type: str, dataset_name: str, dataset_split: str, metrics: dict[str, float]
) -> list[EvalResult]:
    if not metrics:
        raise ValueError("metrics is empty: evaluate the student first, a card states what was measured")
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric '{name}' is {value}: evaluate the student again, or leave the metric out")
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset_type,
            dataset_name=dataset_name,
            dataset_split=dataset_split,
            metric_type=HUB_METRICS[name][0] if name in HUB_METRICS else name,
            metric_name=HUB_METRICS[name][1] if name in HUB_METRICS else name,
            metric_value=float(value),  # YAML knows no NumPy numbers
        )
        for name, value in metrics.items()
    ]


def bank_card(
    *,
    bank_name: str,
    repo_id: str,
    teacher: str,
    revision: str | None,
    inputs: str,
    pooling: str,
    dtype: str,
    num_rows: int,
    num_distinct: int,
    dim: int,
    fingerprint: str,
    license: str | None = None,
    language: str | None = None,
    source_datasets: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> DatasetCard:
    """The dataset card of a published teacher bank.

    Push the card before the bank: `TeacherBank.push_to_hub` keeps it and adds its configurations to the metadata.
    Pushed afterwards, the card would overwrite them and the bank could not be loaded.

    Args:
        bank_name (`str`): Title of the card.
        repo_id (`str`): The dataset repository that the bank is loaded from.
        teacher (`str`): Repository id or path of the teacher.
        revision (`str` or `None`): The commit of its weights; `None` for local weights without one.
        inputs (`str`): What the teacher was fed, in words.
        pooling (`str`): How the teacher's tokens became one latent.
        dtype (`str`): What the teacher computed in, such as `"float32"`.
        num_rows (`int`): N, `len(bank)`.
        num_distinct (`int`): `bank.num_distinct`.
        dim (`int`): D, `bank.dim`.
        fingerprint (`str`): `bank.fingerprint`.
        license (`str`, *optional*): Of the latents, which follow from the teacher's and the inputs'.
        language (`str`, *optional*): ISO 639 code of the inputs.
        source_datasets (`Sequence[str]`, *optional*): Repository ids of the data that the inputs come from.
        tags (`Sequence[str]`, *optional*): More tags.

    Returns:
        `DatasetCard`: Write it with `card.save("README.md")` or publish it with `card.push_to_hub(repo_id)`.
    """
    data = DatasetCardData(
        pretty_name=bank_name,
        language=language,
        license=license,
        source_datasets=list(source_datasets) or None,
        tags=[*TAGS, "teacher-bank", *tags],
    )
    return DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).parent / "bank_card.md"),
        bank_name=bank_name,
        repo_id=repo_id,
        teacher=teacher,
        revision=revision or "none: local weights",
        inputs=inputs,
        pooling=pooling,
        dtype=dtype,
        num_rows=num_rows,
        num_distinct=num_distinct,
        dim=dim,
        fingerprint=fingerprint,
    )
