"""What a card says in words of a model, its training, its data and how it is loaded. Nothing is said that is not recorded."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_colearn.hub.model_kind import AUTO_CLASSES, MANY_TASKS, OUR_CLASSES, ModelKind
from hf_colearn.hub.record import TrainingRecord
from hf_colearn.models.many_tasks_configuration import CoLearningManyTasksConfig
from hf_colearn.utils.tables import markdown_table


ALPHAS = {
    "ConstantAlpha": "constant",
    "HeuristicAlpha": "1 - exp(-1/t) in epoch t = 1, 2, ...",
    "FittedAlpha": "a polynomial in the epoch, clipped to [0, 1]",
    "LearnedAlpha": "learned, by the gradient of the label loss on training samples that were set aside for it",
}
# What each objective does; another one is named by its class.
_OBJECTIVES = {
    "LatentMatching": "its latents were pulled to those of {teacher}",
    "SoftLabels": "its predictions were pulled to the class probabilities of {teacher}",
    "Consistency": "its predictions of two views of a sample were pulled together, for which no teacher is needed",
    "ContrastiveAlignment": "a contrastive loss pulled the modalities of a sample together",
    "DistributionAlignment": "the predictions of its modalities were pulled together",
    "DistributionMatching": "the distribution of its latents was pulled to that of {teacher}, without pairs",
    "ClassConcepts": "a training head answered questions about the class of a sample",
    "CrossModalMining": "its latents were pulled to those of the samples that are nearest in another modality",
    "CyclicTranslation": "its latents were translated into what {teacher} gives for the other modality",
    "CaptionGeneration": "a training head generated the caption of an input from its latent",
    "DenseMatching": "its latents of every position were pulled to those of {teacher}",
    "VokenClassification": "a training head told which image belongs to every token",
    "LatentImputation": "the latents that it imputes for absent modalities were pulled to true ones",
    "NextStepPrediction": "from every position it predicted the next step of its input",
    "MaskedLatentPrediction": "at hidden positions of its input it predicted what an average of itself makes of the whole "
    "input, for which no teacher is needed",
}
_OF_OBJECTIVES = ("Combined", "MisalignedPairs")  # which hold others
_INPUTS = {"audio": "audio", "feature": "precomputed features", "image": "images", "text": "text"}
_READING = {  # what the model's output means, where it is no distribution over classes
    "multi_label_classification": "Every class has a probability of its own, `model(...).logits.sigmoid()`: a sample may have "
    "several classes, or none.",
    "regression": "It predicts values: `model(...).logits`.",
}
_CLASSES = 20  # that are named
_ROWS = 8  # of the table of a moving alpha


def introduction(kind: ModelKind, problem: str | None) -> str:
    """What the model is, in the first sentence."""
    if kind.is_multimodal:
        return f"A {_task(None, problem)} that reads several modalities together and any of them alone."
    adapted = "A PEFT adapter of a" if kind.is_adapter else "A"
    if kind.pipeline_tag == MANY_TASKS:
        return f"{adapted} model of several tasks, whose modalities go through one transformer trunk."
    if kind.is_encoder:
        of = _INPUTS[(kind.pipeline_tag or "").split("-")[0]]
        return (
            f"{adapted}n encoder of {of}: `model(...).latents` are vectors in the space of its teacher. It has no classes. "
            "It sees only its own modality; no teacher is needed to use it."
        )
    if kind.is_ours:
        return (
            f"{adapted} student for {_task(kind.pipeline_tag, problem)}. It sees only its own modality; no teacher is needed "
            "to use it."
        )
    name = "model of PyTorch" if kind.class_name is None else f"model of the class {code(kind.class_name)}"
    return f"{adapted} {name}. No teacher is needed to use it."


def training(record: TrainingRecord | None, is_encoder: bool = False) -> str:
    """What it learned from, beside labels; of an encoder without them."""
    if record is None:
        return "How it was trained is not recorded."
    balanced = f" Its modalities were balanced by `{record.balance}`." if record.balance else ""
    if not record.terms and "num_predicted" in record.training_samples:
        return "It was trained with the label loss, on given labels and on those that co-training or self-training predicted."
    if not record.terms:
        return balanced.strip() or "It was trained with the label loss alone."
    done = objectives_in_words(
        record.objective or "", "frozen teachers" if _has_several(record) else "a frozen teacher"
    )
    if is_encoder:
        return f"It was trained on pairs alone, without any label: {'; '.join(done)}."
    return f"It was trained by co-learning: beside the label loss, {'; '.join(done)}.{balanced}"


def objectives_in_words(objective: str, teacher: str = "a frozen teacher") -> list[str]:
    """What objectives do, from the `repr` that a record keeps of them: one entry for each."""
    names = re.findall(r"(?<![\w.'\"=])([A-Z]\w*)(?=[(,)]|$)", objective)
    done = [
        _OBJECTIVES[name].format(teacher=teacher)
        if name in _OBJECTIVES
        else f"it learned from a loss of its own, `{name}`"
        for name in dict.fromkeys(names)
        if name not in _OF_OBJECTIVES
    ]
    if "MisalignedPairs" in names:
        done.append("as a null control, the pairs of modalities were misaligned")
    return done or ["it learned from an auxiliary loss"]


def question(record: TrainingRecord | None, is_multimodal: bool) -> str:
    """The heading above a comparison."""
    if is_multimodal:
        return "Did the loss between the modalities help?"
    if record is None or not record.terms:
        return "How does it compare?"
    return "Did the teacher help?" if record.teacher is not None else "Did the auxiliary loss help?"


def _has_several(record: TrainingRecord) -> bool:
    return len((record.teacher or {}).get("teachers", ())) > 1


def _task(pipeline_tag: str | None, problem: str | None) -> str:
    """What a student is for, and what a multimodal model is, in words."""
    modality = "" if pipeline_tag is None else pipeline_tag.split("-")[0]
    several = "multi-label " if problem == "multi_label_classification" else ""
    if problem == "regression":
        return f"regression on {_INPUTS[modality]}" if modality else "regression model"
    if pipeline_tag == "fill-mask":
        return "masked language modelling"
    if pipeline_tag == "feature-classification":
        return f"{several}classification of {_INPUTS[modality]}"
    return f"{several}{pipeline_tag or 'classifier'}"


def reading(problem: str | None, has_pipeline: bool) -> str | None:
    if problem not in _READING:
        return None
    return _READING[problem] + (" A pipeline shows them as scores." if has_pipeline else "")


def teacher_in_words(record: TrainingRecord) -> str | None:
    if record.teacher is None:
        return None
    known = {name: record.teacher.get(name) for name in ("revision", "pooling", "dtype")}
    details = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    words = record.teacher.get("words") or record.teacher.get("teacher") or "not named"
    return f"{words} ({details})" if details else words


def alpha_in_words(record: TrainingRecord) -> dict[str, str | None]:
    """Alpha in words; the loss, with the number of an alpha that is constant; a table of one that changes."""
    names = ["alpha"] if len(record.terms) == 1 else [f"alpha_{term}" for term in record.terms]
    history = [entry for entry in record.alpha_history if all(entry.get(name) is not None for name in names)]
    kind = (record.alpha or "").split("(")[0]
    weights, table = names, None
    words = [f"`{record.alpha}`", *([ALPHAS[kind]] if kind in ALPHAS else [])]
    if any(len({round(entry[name], 6) for entry in history}) > 1 for name in names):
        ends = [f"from {history[0][name]:.3f} at first to {history[-1][name]:.3f} in the end" for name in names]
        words.append(" and ".join(ends))
        shown = np.unique(np.linspace(0, len(history) - 1, min(_ROWS, len(history))).round().astype(int))
        rows = [[_epoch(history[i]), *(f"{history[i][name]:.3f}" for name in names)] for i in shown]
        table = markdown_table([["epoch", *names], *rows])
    elif history:
        weights = [f"{history[0][name]:.6g}" for name in names]
    loss = "L = L_task"
    if record.terms:
        terms = [f"{weight} * L_{term}" for weight, term in zip(weights, record.terms, strict=True)]
        loss = f"L = (1 - {' - '.join(weights)}) * L_task + {' + '.join(terms)}"
    return {"alpha": "; ".join(words), "equation": loss, "alpha_table": table}


def _epoch(entry: Mapping) -> str:
    return "-" if entry.get("epoch") is None else f"{entry['epoch']:.3g}"


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"


def measured_on(record: TrainingRecord) -> str:
    """What the scores are of: the data, their split and count, and the step, where the training went on from there."""
    data = record.dataset
    more = f"; {data['unlabelled']} more have no label" if data.get("unlabelled") else ""
    after = f" It was measured {data['after']}, and the training went on from there." if data.get("after") else ""
    count = "an unknown number of" if data["samples"] is None else data["samples"]
    return f"Measured on {data['name']}, split `{data['split']}` ({count} samples{more}).{after}"


def others_in_words(record: TrainingRecord) -> str | None:
    """The metrics that are no finite number, and counts of what was left out."""
    if not record.other_scores:
        return None
    noted = [f"{code(name)} ({' '.join(words.split())})" for name, words in record.other_scores.items()]
    return f"Reported as well, and no score that a table could hold: {', '.join(noted)}."


def classes_in_words(folder: Path) -> str | None:
    """The classes by name, from the model's configuration; `None` where they have none."""
    names = class_names(folder)
    if names is None:
        return None
    more = f" and {len(names) - _CLASSES:,} more, which `model.config.id2label` has" if len(names) > _CLASSES else ""
    return f"{len(names):,} classes: {', '.join(map(code, names[:_CLASSES]))}{more}."


def head_in_words(folder: Path) -> str | None:
    """The head whose logits are cosines to class vectors, and what a dense student returns; `None` of other models."""
    config = _config(folder)
    said = []
    if config.get("head") == "prototypes":
        learned = config.get("learned_class_vectors")
        scale = f"{config['logit_scale']:g}" + (" (where its learning began)" if config["learned_logit_scale"] else "")
        made = "The vectors were learned with the other weights" if learned else "The vectors are fixed"
        source = " ".join((config.get("class_vectors_from") or "").split())
        made += f", and {'began as' if learned else 'come from'}: {source}" if source else ""
        said.append(
            f'Its head is `"prototypes"`: the logits are {scale} times the cosines between the latent and one vector of width '
            f"{config['latent_dim']} a class. {made}."
        )
    for name, task in config["tasks"] if config.get("model_type") == CoLearningManyTasksConfig.model_type else ():
        shared = f", the head `{task['head']}`" if task["head"] != name else ""
        kinds = "value" if task["problem_type"] == "regression" else "class"
        count = f"{task['num_labels']} {kinds}{'' if task['num_labels'] == 1 else 'es' if kinds == 'class' else 's'}"
        said.append(f"- `{name}`: {', '.join(map(code, task['modalities']))}; {count}{shared}")
    if config.get("dense"):
        said.append(
            "Beside one latent an input it returns one for every position of its encoder, `dense_latents` `[B, T, D]`, and "
            "`dense_mask` `[B, T]`, which of them are no padding."
        )
    return "\n".join(said) or None


def more_classes(folder: Path) -> str | None:
    """How a student with class vectors is given further classes, in Markdown; `None` of other models."""
    config = _config(folder)
    if config.get("head") != "prototypes":
        return None
    lines = [
        "import torch",
        "",
        f"vector = torch.randn({config['latent_dim']})  # in its place, one from where those of the other classes come",
        'larger = model.with_classes({"a new class": vector})  # keep=False: the new classes alone',
        'larger.save_pretrained("larger")',
    ]
    said = "**More classes**, without training: each is one more vector, and the student's own classes stay."
    return "\n".join([said, "", "```python", *lines, "```"])


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def class_names(folder: Path) -> list[str] | None:
    """The names of the classes in order, from the configuration in a folder; `None` where they are transformers' own."""
    labels = _config(folder).get("id2label")
    if not labels or all(str(name) == f"LABEL_{number}" for number, name in labels.items()):
        return None
    return [str(labels[number]) for number in sorted(labels, key=int)]


def code(text: str) -> str:
    """A text as code in Markdown, in one line, whatever marks it has."""
    text = " ".join(text.split()) or " "
    fence = "`" * (1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def usage(kind: ModelKind, repo_id: str, has_processor: bool) -> str | None:
    """How a model is loaded that is no student of ours, an encoder, or an adapter, in Markdown; else `None`."""
    if kind.pipeline_tag == MANY_TASKS and not kind.is_adapter:
        return _usage_of_tasks(repo_id)
    if kind.is_encoder and not kind.is_adapter:
        return _usage_of_encoder(kind, repo_id, has_processor)
    if kind.is_ours and not kind.is_adapter:
        return None
    name = kind.class_name or "Model"
    own = (
        ""
        if kind.is_stock or kind.is_ours
        else f"\n{code(name)} is a class of the code that trained it, which must be at hand."
    )
    source = "hf_colearn" if kind.is_ours else "transformers" if kind.is_stock else "your_code"
    lines = [f"from {source} import {name}"]
    if kind.is_adapter:
        # A base that was built by the training's own code, or lies in a folder of its machine, has no address.
        is_known = (
            kind.base is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", kind.base) and not Path(kind.base).exists()
        )
        made = (
            f'{name}.from_pretrained("{kind.base}")' if is_known else "...  # the model that the training started from"
        )
        lines = ["from peft import PeftModel", *(lines if is_known else []), "", f"base = {made}"]
        lines += [f'model = PeftModel.from_pretrained(base, "{repo_id}").eval()']
        own = own if is_known else "\nThe adapter needs its base model, which is none of the Hub's."
    elif kind.is_pretrained:
        lines += ["", f'model = {name}.from_pretrained("{repo_id}").eval()']
    else:
        lines = ["from huggingface_hub import hf_hub_download", "from safetensors.torch import load_file", *lines, ""]
        lines += [f"model = {name}(...)", f'weights = hf_hub_download("{repo_id}", "model.safetensors")']
        lines += ["model.load_state_dict(load_file(weights))"]
    if has_processor:
        lines = ["from transformers import AutoProcessor", *lines]
        lines += [f'processor = AutoProcessor.from_pretrained("{repo_id}")']
    return "\n".join(["```python", *lines, "```", own]).rstrip("\n")


def own_class(kind: ModelKind) -> str | None:
    """The class of ours that loads what transformers has no Auto class for."""
    own = (None, "feature-classification", MANY_TASKS)
    return OUR_CLASSES[kind.pipeline_tag] if kind.pipeline_tag in own else None


def _usage_of_encoder(kind: ModelKind, repo_id: str, has_processor: bool) -> str:
    auto = AUTO_CLASSES[str(kind.pipeline_tag)]
    ours = str(kind.class_name) if kind.pipeline_tag == "feature-classification" else auto
    source = "transformers" if ours == auto else "hf_colearn"
    names = f"{ours}, AutoProcessor" if has_processor else ours
    with_hf_colearn = [
        "import hf_colearn  # registers the student with the Auto classes",
        f"from {source} import {names}",
        "",
        f'model = {ours}.from_pretrained("{repo_id}").eval()',
        *([f'processor = AutoProcessor.from_pretrained("{repo_id}")'] if has_processor else []),
        "latents = model(**processor(..., return_tensors='pt')).latents"
        if has_processor
        else "latents = model(...).latents",
    ]
    without = [
        f"from transformers import {auto}",
        "",
        f'model = {auto}.from_pretrained("{repo_id}", trust_remote_code=True)',
    ]
    return _both_ways(with_hf_colearn, without)


def _usage_of_tasks(repo_id: str) -> str:
    with_hf_colearn = [
        "from hf_colearn import CoLearningForManyTasks",
        "",
        f'model = CoLearningForManyTasks.from_pretrained("{repo_id}").eval()',
        "model.tasks, model.input_names  # what `model(task=..., ...)` takes: of a task all its modalities' inputs",
        "student = model.student(model.tasks[0])  # a task of one modality as a model of its own",
    ]
    without = [
        "from transformers import AutoModel",
        "",
        f'model = AutoModel.from_pretrained("{repo_id}", trust_remote_code=True)',
    ]
    return _both_ways(with_hf_colearn, without)


def _both_ways(with_hf_colearn: list[str], without: list[str]) -> str:
    words = (
        "**Without `hf_colearn`**, let transformers run the model code that lies beside the weights (read it first):"
    )
    return "\n".join(["```python", *with_hf_colearn, "```", "", words, "", "```python", *without, "```"])
