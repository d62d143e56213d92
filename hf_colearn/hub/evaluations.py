"""Which evaluation of a trainer a card states, and what it was on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState

from hf_colearn.hub.scores import finite_scalars
from hf_colearn.training.data_checks import labelled_part
from hf_colearn.utils.hub_names import check_repo_id


_NO_SCORES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
FILE_LOADERS = (
    "arrow",
    "audiofolder",
    "csv",
    "generator",
    "imagefolder",
    "json",
    "pandas",
    "parquet",
    "text",
    "webdataset",
)
UNNAMED, UNNAMED_TYPE = "the evaluation data", "evaluation-data"


class Evaluations:
    """What a trainer has evaluated: its log, and the data that each entry of it is of.

    Args:
        trainer ([`CoLearningTrainer`]): Whose evaluations they are.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._log: Any = None  # which another training begins anew
        self._data: dict[int, Any] = {}  # by the index of the log's entry

    def add(self, dataset: Any, prefix: str) -> None:
        """Notes what the last evaluation was of; each of several data sets is evaluated, and noted, by itself."""
        known, history = self._trainer.eval_dataset, self._trainer.state.log_history
        dataset = known if dataset is None else known[dataset] if isinstance(dataset, str) else dataset
        if isinstance(dataset, dict):
            return
        index = next((i for i in reversed(range(len(history))) if f"{prefix}_runtime" in history[i]), None)
        if index is not None:
            self._data = {**self._known(), index: dataset}

    def _known(self) -> dict[int, Any]:
        history = self._trainer.state.log_history
        if self._log is not history:
            self._log, self._data = history, {}
        return self._data

    def of_record(self, dataset: str | None, dataset_type: str | None, model: Any) -> dict[str, Any]:
        """`scores`, `other_scores` and `dataset` of a record: those of the weights as they are now, as far as there are any."""
        history, state = self._trainer.state.log_history, self._trainer.state
        found = self._last(history, state)
        if not found:
            return {}
        scores: dict[str, Any] = {}
        facts, unlabelled = [], 0
        for name, index in found.items():
            prefix = _prefix(history[index])
            metrics = {
                key.removeprefix(f"{prefix}_"): value
                for key, value in history[index].items()
                if key.startswith(f"{prefix}_")
            }
            unlabelled = metrics.pop("num_unlabelled", 0)
            metrics = {key: value for key, value in metrics.items() if key not in _NO_SCORES}
            if len(metrics) > 1:  # of a model without metrics the loss is what there is
                metrics.pop("loss", None)
            scores |= {f"{key}_on_{name}" if name else key: value for key, value in metrics.items()}
            default = self._trainer.eval_dataset[name] if name else self._trainer.eval_dataset
            facts.append(_facts(self._known().get(index, default), unlabelled, model))
        finite, others = finite_scalars(scores)
        of_data = {**facts[0], "type": dataset_type or facts[0]["type"]}
        if len(found) > 1:
            counts = [fact["samples"] for fact in facts]
            sizes = ", ".join(f"{name}: {count}" for name, count in zip(found, counts, strict=True))
            of_data |= {
                "name": f"{len(found)} data sets ({sizes})",
                "samples": None if None in counts else sum(counts),
            }
        of_data["name"] = dataset or of_data["name"]
        step = history[next(iter(found.values()))].get("step", state.global_step)
        if not self._is_of_the_model(next(iter(found.values())), history, state):
            of_data["after"] = f"after step {step} of {state.global_step}"
        return {"scores": finite, "other_scores": others, "dataset": of_data}

    def _last(self, history: list, state: TrainerState) -> dict[str, int]:
        """The index of the last evaluation, one of the model as it is now if there is one; by name of several data sets."""
        indices = [i for i, entry in enumerate(history) if _prefix(entry) is not None]
        best = [i for i in indices if self._is_of_the_model(i, history, state)] or indices
        if not best:
            return {}
        data, last = self._trainer.eval_dataset, _prefix(history[best[-1]])
        if not isinstance(data, dict) or last not in {f"eval_{name}" for name in data}:
            return {"": best[-1]}
        names = {_prefix(history[i]): i for i in best}
        return {str(name): names[f"eval_{name}"] for name in data if f"eval_{name}" in names}

    def _is_of_the_model(self, index: int, history: list, state: TrainerState) -> bool:
        """Whether the weights that are evaluated there are those of the model now, which may be the best of a training."""
        ends = [i for i, entry in enumerate(history) if "train_runtime" in entry]
        if ends and index > ends[-1]:
            return True
        is_best = bool(ends) and self._trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
        return history[index].get("step") == (state.best_global_step if is_best else state.global_step)


def _prefix(entry: Mapping[str, Any]) -> str | None:
    """Of an evaluation's entry in the log: `"eval"`, or `"eval_name"` where there are several data sets."""
    key = next((key for key in entry if key.endswith("_runtime") and key != "train_runtime"), None)
    return None if key is None else key.removesuffix("_runtime")


def _facts(dataset: Any, unlabelled: int, model: Any) -> dict[str, Any]:
    """Name, type, split and number of labelled samples of a data set, as far as it knows them itself."""
    info, split = getattr(dataset, "info", None), getattr(dataset, "split", None)
    name = getattr(info, "dataset_name", None)
    name = None if name in FILE_LOADERS else name  # which is of a loader of files, and not of the data
    samples = len(labelled_part(dataset, model)) - unlabelled if hasattr(dataset, "__len__") else None
    return {
        "name": name or UNNAMED,
        "type": name or UNNAMED_TYPE,
        "split": "evaluation" if split is None else str(split),
        "samples": samples,
    }


def dataset_id(dataset_tags: str | list[str] | None) -> str | None:
    """What a card calls the type of the data: a Hub id, or a word; of a folder its name, which is not linked."""
    name = dataset_tags[0] if isinstance(dataset_tags, list) and dataset_tags else dataset_tags
    if not name:
        return None
    if "/" in str(name) and Path(str(name)).expanduser().exists():
        return Path(str(name)).name
    if "/" in str(name):
        check_repo_id(name, "dataset_tags")
    return str(name)
