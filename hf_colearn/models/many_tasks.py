"""Many tasks of many modalities through one trunk.

This file travels with every such checkpoint. Shapes: B samples, T tokens, H the trunk's width, D latent width, C classes of a
task, K tasks.
"""

import copy
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import can_return_tuple

from .checkpoint import CheckedModel
from .configuration import CoLearningStudentConfig
from .encoders import student_class_for
from .heads import check_choice, label_mask, task_loss, zero_gradient
from .many_tasks_configuration import PROBLEM_TYPES, CoLearningManyTasksConfig
from .modality_mask import batch_size, by_modality
from .outputs import CoLearningManyTasksOutput
from .pooling import pool
from .stems import Stem, make_stem
from .student import CoLearningStudent
from .training_heads import make_training_heads, training_outputs
from .trunk import Trunk
from .trunk_configuration import TrunkBackboneConfig


class TaskHead(nn.Module):
    """A latent head, its norm and a classifier on the latent, as a student has them: one task's, or that of several."""

    def __init__(self, width: int, latent_dim: int, num_labels: int, latent_norm: str):
        super().__init__()
        self.latent_head = nn.Linear(width, latent_dim)
        self.latent_norm = nn.LayerNorm(latent_dim) if latent_norm == "layernorm" else nn.Identity()
        self.classifier = nn.Linear(latent_dim, num_labels)

    def reset_parameters(self) -> None:
        """In torch's own scheme, as the heads of students."""
        for child in (self.latent_head, self.latent_norm, self.classifier):
            if not isinstance(child, nn.Identity):
                child.reset_parameters()

    def latents(self, features: torch.Tensor) -> torch.Tensor:
        """Of pooled features `[B, H]` or of positions `[B, T, H]`."""
        return self.latent_norm(self.latent_head(features))

    def forward(self, pooled_BH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents `[B, D]` and logits `[B, C]`."""
        latents_BD = self.latents(pooled_BH)
        return latents_BD, self.classifier(latents_BD)


class CoLearningForManyTasks(CheckedModel):
    r"""Several tasks, each of one modality or of several, through one trunk; see [`~CoLearningForManyTasks.from_stems`].

    A modality's stem makes tokens of its inputs, with an embedding of every position and one of the modality; of a task of
    several modalities the tokens stand side by side. The trunk is the same for all, its output is averaged over the tokens
    that are no padding, and the task's head makes a latent and logits of it. After Liang et al., "High-Modality Multimodal
    Transformer" (HighMMT), TMLR 2023; with one head for tasks of several modalities it is the supervised learner from
    unpaired data of "Better Together: Leveraging Unpaired Multimodal Data for Stronger Unimodal Models" (ICLR 2026).

    A batch is of one task. Its loss is \\(w_t\\) times the mean over the batch's labels that count; of an optimizer step
    with batches of several tasks, under [`CoLearningTrainer`], \\(\sum_t w_t\\) times the mean over all labels of task t in it.
    """

    config_class = CoLearningManyTasksConfig
    config: CoLearningManyTasksConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _can_compile_fullgraph = True
    stems: Any  # by modality name
    heads: Any  # by head name

    def __init__(self, config: CoLearningManyTasksConfig):
        super().__init__(config)
        width = config.trunk_config.hidden_size
        self.stems = nn.ModuleDict({name: make_stem(stem, width) for name, stem in config.stems.items()})
        self.backbone = Trunk(config.trunk_config, config.causal)
        self.heads = nn.ModuleDict(
            {
                name: TaskHead(width, config.latent_dim, task["num_labels"], config.latent_norm)
                for name, task in config.heads.items()
            }
        )
        self.tasks, self.modalities = tuple(config.tasks), tuple(config.stems)
        self.main_input_name = self.input_names[0]
        self._no_split_modules = list(self.backbone._no_split_modules)
        self.post_init()
        # Last, so that a seed gives the other weights the same values without them.
        widths = {"latents": config.latent_dim, "features": width, "dense_latents": config.latent_dim}
        self.training_heads = make_training_heads(config.training_heads, **widths)

    def _init_weights(self, module):
        # The trunk initialises itself.
        if isinstance(module, (Stem, TaskHead)):
            module.reset_parameters()

    # ---- making one ----
    @classmethod
    def from_stems(
        cls,
        stems: Mapping[str, Mapping[str, Any]],
        tasks: Mapping[str, Mapping[str, Any]],
        trunk: Mapping[str, Any] | PreTrainedConfig | str | os.PathLike,
        latent_dim: int,
        *,
        latent_norm: str = "layernorm",
        causal: bool = False,
        dense: bool | None = None,
        training_heads: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype = "float32",
        attn_implementation: str | None = None,
        **trunk_kwargs: Any,
    ) -> "CoLearningForManyTasks":
        """Makes a model of a stem a modality, a trunk and tasks.

        Args:
            stems (`dict[str, dict]`): By modality, such as `{"image": {"kind": "patches", "image_size": 28, "patch_size": 7}}`,
                see [`TrunkBackboneConfig`]. The kind decides the columns: `image_pixel_values`, `text_input_ids`, ...
            tasks (`dict[str, dict]`): By name, such as `{"digits": {"modalities": ["image"], "num_labels": 10}}`, see
                [`CoLearningManyTasksConfig`].
            trunk (`dict`, [`ViTConfig`], [`BertConfig`] or `str`): The layers' sizes, for random weights; or a Hub id or the
                folder of a ViT or a BERT, whose layers are taken over.
            latent_dim (`int`): D.
            latent_norm, causal, dense, training_heads (*optional*): See [`CoLearningManyTasksConfig`].
            dtype (*optional*, defaults to `"float32"`): Of the weights.
            attn_implementation (`str`, *optional*): Of the trunk.
            trunk_kwargs: For a checkpoint's `from_pretrained`, such as `revision`.

        Raises:
            ValueError: Naming the modality, the task or the value that does not fit.

        Example:

        ```python
        >>> import torch
        >>> from hf_colearn import CoLearningForManyTasks

        >>> model = CoLearningForManyTasks.from_stems(
        ...     {
        ...         "image": {"kind": "patches", "image_size": 8, "patch_size": 4, "num_channels": 1},
        ...         "wine": {"kind": "table", "num_columns": 13},
        ...     },
        ...     tasks={
        ...         "digits": {"modalities": ["image"], "num_labels": 10},
        ...         "cultivar": {"modalities": ["wine"], "num_labels": 3, "weight": 0.5},
        ...     },
        ...     trunk={"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
        ...     latent_dim=8,
        ... )
        >>> model(task="cultivar", wine_features=torch.randn(4, 13)).logits.shape
        torch.Size([4, 3])
        >>> type(model.student("digits")).__name__
        'CoLearningForImageClassification'

        ```
        """
        is_checkpoint = isinstance(trunk, (str, os.PathLike))
        if not is_checkpoint and trunk_kwargs:
            raise ValueError(f"{sorted(trunk_kwargs)} are options of a checkpoint, and the trunk is a configuration.")
        # False, or transformers would ask at the terminal whether the code may run
        read: Any = (
            AutoConfig.from_pretrained(trunk, trust_remote_code=False, **trunk_kwargs) if is_checkpoint else trunk
        )
        config = CoLearningManyTasksConfig(
            stems=stems,
            tasks=tasks,
            trunk_config=copy.deepcopy(read),
            latent_dim=latent_dim,
            latent_norm=latent_norm,
            causal=causal,
            dense=dense,
            training_heads=training_heads,
        )
        attention = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        model = cls._from_config(config, dtype=dtype, **attention)
        if is_checkpoint:
            model.backbone.load_layers(trunk, **trunk_kwargs)
        return model

    def student(self, name: str) -> CoLearningStudent:
        """A task of one modality as a student of its own, with a copy of its weights: it predicts what the model does.

        Args:
            name (`str`): A task; or a modality that one task alone is of.

        Raises:
            ValueError: If there is no such task, or if it has several modalities.

        Returns:
            [`CoLearningStudent`]: As its modality's kind has it, such as a [`CoLearningForImageClassification`] of patches.
        """
        task = self._task_of(name)
        spec = self.config.tasks[task]
        if len(spec["modalities"]) > 1:
            raise ValueError(
                f"the task '{task}' has the modalities {', '.join(spec['modalities'])}, and a student has one: predict with "
                "the whole model, or train a task of one of them, with the same `head`."
            )
        modality = spec["modalities"][0]
        backbone = TrunkBackboneConfig(
            stem=self.config.stems[modality],
            trunk_config=copy.deepcopy(self.config.trunk_config),
            causal=self.config.causal,
        )
        classes = {"num_labels": spec["num_labels"]} if spec["id2label"] is None else {"id2label": spec["id2label"]}
        if spec["id2label"] is not None:
            classes["label2id"] = {label: index for index, label in spec["id2label"].items()}
        config = CoLearningStudentConfig(
            backbone_config=backbone,
            latent_dim=self.config.latent_dim,
            latent_norm=self.config.latent_norm,
            pooling="mean",
            dense=self.config.dense,
            problem_type=spec["problem_type"],
            **classes,
        )
        student: Any = student_class_for(backbone)._from_config(config, dtype=self.dtype)
        parts = {"backbone.stem": self.stems[modality], "backbone.trunk": self.backbone, "": self.heads[spec["head"]]}
        weights = {
            f"{prefix}.{key}".removeprefix("."): value
            for prefix, part in parts.items()
            for key, value in part.state_dict().items()
        }
        if weights.keys() != student.state_dict().keys():
            raise ValueError(
                "the model holds adapters, which a student of one task has not: merge them first, "
                "`model.merge_and_unload().student(...)`."
            )
        student.load_state_dict(weights)
        return student.to(self.device).train(self.training)

    def _task_of(self, name: str) -> str:
        if name in self.tasks:
            return name
        if name not in self.modalities:
            raise ValueError(
                f"there is no task or modality '{name}': the model has the tasks {', '.join(self.tasks)} and the modalities "
                f"{', '.join(self.modalities)}."
            )
        tasks = [task for task, spec in self.config.tasks.items() if spec["modalities"] == [name]]
        if len(tasks) != 1:
            found = f"the tasks {', '.join(tasks)} have" if tasks else "no task has"
            raise ValueError(f"{found} the modality '{name}' alone: name a task, one of {', '.join(self.tasks)}.")
        return tasks[0]

    def to_transformers(self) -> PreTrainedModel:
        # There is nothing to export to.
        raise ValueError(
            "transformers has no model of many tasks to export to: export a program of a task's student, "
            "`export_program(model.student(...), ...)`."
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """The columns of every modality that `forward` reads, such as `image_pixel_values`."""
        return tuple(f"{name}_{column}" for name, stem in self.stems.items() for column in stem.input_names)

    # ---- forward ----
    @can_return_tuple
    def forward(
        self,
        task: str | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        **inputs: torch.Tensor | None,
    ) -> CoLearningManyTasksOutput:
        """
        Args:
            task (`str`, *optional*): Which task the batch is of; of a model of one task it may be left out.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            num_items_in_batch (`torch.Tensor` of shape `(K,)`, *optional*): By task what the sum of its losses is divided by;
                by default the labels that count.
            inputs (`torch.Tensor`): `{modality}_{input}` of all modalities of the task, see `input_names`.

        Raises:
            TypeError: If an input belongs to no modality of the task.
            ValueError: If there is no such task, a modality's inputs are missing, or batch sizes disagree.
        """
        task = self._known(task)
        spec, head = self.config.tasks[task], self.heads[self.config.tasks[task]["head"]]
        given = by_modality(inputs, self.config.inputs_of(task))
        if missing := [name for name in spec["modalities"] if name not in given]:
            raise ValueError(
                f"the task '{task}' has the modalities {', '.join(spec['modalities'])}, and there are no inputs of "
                f"{', '.join(missing)}: pass them."
            )
        batch_size(given, labels=labels)
        tokens_BTH, mask_BT = self._tokens({name: given[name] for name in spec["modalities"]})
        hidden_BTH = self.backbone(tokens_BTH, mask_BT)
        pooled_BH = pool(hidden_BTH, "mean" if mask_BT is None else "masked_mean", mask_BT)
        latents_BD, logits_BC = head(pooled_BH)
        readings = {"latents": latents_BD, "features": pooled_BH}
        dense_mask = None
        if self.config.dense:
            readings["dense_latents"] = head.latents(hidden_BTH)
            dense_mask = (torch.ones_like(hidden_BTH[..., 0]) if mask_BT is None else mask_BT).bool()
        if self.training and torch.is_grad_enabled():
            logits_BC = zero_gradient(logits_BC, self._perhaps_unused(task))
        return CoLearningManyTasksOutput(
            loss=None if labels is None else self._loss(task, logits_BC, labels, num_items_in_batch),
            logits=logits_BC,
            latents=latents_BD,
            dense_latents=readings.get("dense_latents"),
            dense_mask=dense_mask,
            task=task,
            training_outputs=training_outputs(self, **readings),
        )

    def _known(self, task: str | None) -> str:
        if task is None and len(self.tasks) == 1:
            return self.tasks[0]
        if task is None or task not in self.tasks:
            raise ValueError(f"task={task!r} is none of the model's: pass one of {', '.join(self.tasks)}.")
        return task

    def _tokens(self, given: Mapping[str, dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens of all modalities side by side, `[B, T, H]`, and which of them are no padding."""
        tokens, masks = zip(*(self.stems[name](**inputs) for name, inputs in given.items()), strict=True)
        if all(mask is None for mask in masks):
            return torch.cat(tokens, dim=1), None
        whole = [
            x.new_ones(x.shape[:2], dtype=torch.bool) if m is None else m.bool()
            for x, m in zip(tokens, masks, strict=True)
        ]
        return torch.cat(tokens, dim=1), torch.cat(whole, dim=1)

    # ---- loss ----
    def _loss(self, task: str, logits_BC: torch.Tensor, labels: torch.Tensor, num_items: Any) -> torch.Tensor:
        spec = self.config.tasks[task]
        count = None if num_items is None else num_items[self.tasks.index(task)]
        return spec["weight"] * task_loss(logits_BC, labels, spec["problem_type"], count)

    def label_counts(self, labels: torch.Tensor, task: str | None = None, **inputs: Any) -> torch.Tensor:
        """How many labels of a batch count, `(K,)`: at its task's place, 0 at the others'."""
        task = self._known(task)
        counts_K = torch.zeros(len(self.tasks), device=labels.device)
        counts_K[self.tasks.index(task)] = label_mask(labels, self.config.tasks[task]["problem_type"]).sum()
        return counts_K

    def parameters_beside(self, tasks: Collection[str]) -> Iterator[nn.Parameter]:
        """The weights of stems and heads that none of these tasks has a use for."""
        specs = [self.config.tasks[task] for task in tasks]
        stems = {modality for spec in specs for modality in spec["modalities"]}
        heads = {spec["head"] for spec in specs}
        for parts, used in ((self.stems, stems), (self.heads, heads)):
            for name, part in parts.items():
                if name not in used:
                    yield from part.parameters()

    def _perhaps_unused(self, task: str) -> list[nn.Parameter]:
        """The parameters that plain DDP waits for and this batch, or an objective that reads no training head, has no use
        for; on one process none is waited for, and weights without a gradient stay as they are."""
        parallel = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        return [*self.training_heads.parameters(), *(self.parameters_beside([task]) if parallel else ())]

    def set_problem_type(self, problem_type: str, task: str | None = None) -> None:
        """Writes a task's problem type to the configuration."""
        check_choice("problem_type", problem_type, PROBLEM_TYPES)
        self.config.tasks[self._known(task)]["problem_type"] = problem_type


AutoModel.register(CoLearningManyTasksConfig, CoLearningForManyTasks)
CoLearningForManyTasks.register_for_auto_class("AutoModel")
