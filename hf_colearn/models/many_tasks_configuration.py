"""What a model of many tasks is made of, as its checkpoint's `config.json` keeps it; travels with every such checkpoint."""

import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from .backbones import class_names
from .configuration import LATENT_NORMS, CheckedConfig
from .heads import check_choice, check_width
from .training_heads import check_training_heads
from .trunk_configuration import STEM_INPUTS, check_causal, check_stem, check_trunk


PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
_OF_TASK = ("modalities", "num_labels", "head", "weight", "problem_type", "id2label")
_RESERVED = ("label", "labels", "modality", "sample", "task", "teacher")  # beginnings of the other columns of a batch


class CoLearningManyTasksConfig(CheckedConfig):
    r"""Configuration of a [`CoLearningForManyTasks`].

    Args:
        stems (`dict[str, dict]`): By modality, see [`TrunkBackboneConfig`].
        tasks (`dict[str, dict]`): By name: `"modalities"`, a list of them; `"num_labels"` or `"id2label"`; and where they
            differ from the defaults `"head"`, by default the task's own name, tasks of one head having one latent head, norm
            and classifier; `"weight"` (1), which its loss is multiplied by; `"problem_type"`, by default what the labels
            tell.
        trunk_config ([`ViTConfig`], [`BertConfig`] or `dict`): Of the layers, see [`TrunkBackboneConfig`].
        latent_dim (`int`): D, the width of every head's latent.
        latent_norm (`str`, *optional*, defaults to `"layernorm"`): `"layernorm"` or `"none"`, of every latent.
        causal (`bool`, *optional*, defaults to `False`): Whether a token sees those before it alone.
        dense (`bool`, *optional*): Whether the model returns `dense_latents` `[B, T, D]`; by default where it is causal.
        training_heads (`dict`, *optional*): As in [`CoLearningStudentConfig`], of all tasks; they read the `"latents"`, the
            pooled `"features"` or, where there are some, the `"dense_latents"`.

    Raises:
        ValueError: Naming the modality, the task and the value that do not fit.
    """

    model_type = "colearning_many_tasks"
    sub_configs = {"trunk_config": AutoConfig}
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["latents", "dense_latents", "dense_mask", "task", "training_outputs"]
    content, kind = "stems", "model of many tasks"
    way_out = "CoLearningForManyTasks.from_stems({'image': {...}, ...}, tasks={...}, ...)"

    def __init__(
        self,
        stems: Mapping[str, Any] | Sequence[Any] | None = None,
        tasks: Mapping[str, Any] | Sequence[Any] | None = None,
        trunk_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        latent_dim: int | None = None,
        latent_norm: str = "layernorm",
        causal: bool = False,
        dense: bool | None = None,
        training_heads: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        stems, tasks = dict(stems or {}), dict(tasks or {})  # lists of pairs in `config.json`
        _check_names("modality", list(stems))
        _check_names("task", list(tasks))
        check_width("latent_dim", latent_dim, "pass the common width of the latents")
        check_choice("latent_norm", latent_norm, LATENT_NORMS)
        self.causal = check_causal(causal)
        if not isinstance(dense, bool | None):
            raise TypeError(f"dense={dense!r} is a {type(dense).__name__}: pass a bool.")
        self.dense = causal if dense is None else dense
        self.stems = {name: check_stem(name, stem) for name, stem in stems.items()}
        self.tasks = {name: _checked_task(name, task, self.stems) for name, task in tasks.items()}
        _check_use(self.stems, self.tasks)
        self.trunk_config: Any = check_trunk(trunk_config)
        self.latent_dim: Any = latent_dim
        self.latent_norm = latent_norm
        readable = ("latents", "features", *(("dense_latents",) if self.dense else ()))
        super().__init__(check_training_heads(training_heads, readable), **kwargs)

    @property
    def heads(self) -> dict[str, dict[str, Any]]:
        """The first task of every head, by the head's name."""
        heads: dict[str, dict[str, Any]] = {}
        for task in self.tasks.values():
            heads.setdefault(task["head"], task)
        return heads

    def inputs_of(self, task: str) -> dict[str, tuple[str, ...]]:
        """What a task's modalities are given, by modality."""
        return {name: STEM_INPUTS[self.stems[name]["kind"]] for name in self.tasks[task]["modalities"]}

    def to_dict(self) -> dict[str, Any]:
        # transformers sorts what it writes by key, and the order of modalities and tasks is that of weights and counts.
        output = super().to_dict()
        return output | {name: [[*item] for item in getattr(self, name).items()] for name in ("stems", "tasks")}


def _check_names(kind: str, names: list[Any]) -> None:
    if not names:
        raise ValueError(f"the model has no {kind}: pass at least one by name.")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"'{name}' cannot name a {kind}: it must be an identifier, such as 'digits'.")
        if name in _RESERVED or (kind != "task" and hasattr(nn.ModuleDict(), name)):
            raise ValueError(f"'{name}' cannot name a {kind}: it has another meaning. Choose another name.")
        for other in names if kind == "modality" else ():
            if other.startswith(f"{name}_"):
                raise ValueError(
                    f"the modality '{name}' begins the columns of '{other}' ('{other}_...'), so whose they are is unclear: "
                    "rename one of them."
                )


def _checked_task(name: str, given: Any, stems: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not given.get("modalities"):
        raise ValueError(
            f"task '{name}' is {given!r}: pass a dict, such as {{'modalities': ['image'], 'num_labels': 10}}."
        )
    if unknown := sorted(given.keys() - {*_OF_TASK}):
        raise ValueError(f"task '{name}' has no option {', '.join(unknown)}: a task has {', '.join(_OF_TASK)}.")
    task = {"head": name, "weight": 1.0, "problem_type": None, "id2label": None, "num_labels": None, **given}
    modalities = [task["modalities"]] if isinstance(task["modalities"], str) else [*task["modalities"]]
    if unknown := [modality for modality in modalities if modality not in stems]:
        raise ValueError(f"task '{name}' names the modalities {unknown}, and the model has {', '.join(stems)}.")
    if len(set(modalities)) < len(modalities):
        raise ValueError(f"task '{name}' names a modality twice: {modalities}.")
    if task["num_labels"] is None and task["id2label"] is None:
        raise ValueError(f"the number of classes of task '{name}' is missing: pass num_labels or id2label.")
    if task["id2label"] is not None:
        task["id2label"] = {int(index): label for index, label in dict(task["id2label"]).items()}
        class_names(task["num_labels"], task["id2label"], None)
        task["num_labels"] = len(task["id2label"])
    check_width("num_labels", task["num_labels"], "pass at least 1", f" of task '{name}'")
    if task["problem_type"] is None and task["num_labels"] == 1:
        task["problem_type"] = "regression"
    if task["problem_type"] is not None:
        check_choice(f"problem_type of task '{name}'", task["problem_type"], PROBLEM_TYPES)
    weight: Any = task["weight"]
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise ValueError(f"weight={weight!r} of task '{name}' is no weight: pass 0 or more.")
    return {option: modalities if option == "modalities" else task[option] for option in _OF_TASK}


def _check_use(stems: Mapping[str, Any], tasks: Mapping[str, dict[str, Any]]) -> None:
    used = {modality for task in tasks.values() for modality in task["modalities"]}
    if unused := [name for name in stems if name not in used]:
        raise ValueError(
            f"no task has the modalities {unused}, so that their weights would learn nothing: leave them out, or name a task."
        )
    _check_names("head", [task["head"] for task in tasks.values()])
    for name, task in tasks.items():
        for other, of_other in tasks.items():
            if task["head"] == of_other["head"] and task["num_labels"] != of_other["num_labels"]:
                raise ValueError(
                    f"the tasks '{name}' and '{other}' have one head, '{task['head']}', and {task['num_labels']} and "
                    f"{of_other['num_labels']} labels: give them as many, or heads of their own."
                )


AutoConfig.register(CoLearningManyTasksConfig.model_type, CoLearningManyTasksConfig)
CoLearningManyTasksConfig.register_for_auto_class()
