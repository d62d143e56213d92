"""Classification from several modalities: a complete student for each, and a fusion of their latents or logits.

This file travels with every multimodal checkpoint. Shapes: B samples, M modalities, H a backbone's width, D latent
width, F width of the fused latent, C classes.
"""

import copy
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, CLIPConfig, PreTrainedConfig
from transformers.utils import can_return_tuple

from .backbones import backbone_width
from .checkpoint import CheckedModel
from .encoders import read_clip, student_class_for
from .encoding import begin, pooled_features, run_stages, stage_widths
from .fusion import FUSIONS, HEAD_FUSIONS, check_problem_type
from .fusion_base import Fusion, masked
from .heads import zero_gradient
from .imputation import Imputation, check_some_present, filled, make_imputation
from .modality_mask import (
    Rows,
    batch_size,
    by_modality,
    drop_modalities,
    mask_and_rows,
    only,
    proper_subsets,
)
from .multimodal_configuration import MIN_LEARNED_TEMPERATURE, CoLearningMultimodalConfig, modality_configs
from .multimodal_loss import label_counts, multimodal_loss, perhaps_unused
from .outputs import CoLearningMultimodalOutput
from .shared_head import check_tied, tie_classifiers, tied_names
from .student import CoLearningStudent
from .training_heads import make_training_heads, training_outputs


class CoLearningForMultimodalClassification(CheckedModel):
    r"""Classifies samples of two or more modalities; see [`~CoLearningForMultimodalClassification.from_backbones`].

    The loss is the task loss of the fused prediction, plus `modality_loss_weight` times the mean of the heads' own task
    losses, each over the samples that have the modality. Where the heads have no part in either (weight 0 and a fusion
    of latents), they are probes: their loss on the detached latents is in the gradient, not in the value of `loss`.

    A modality may be absent in some samples (`modality_mask`) or, where its inputs are not passed, in all. An encoder
    runs on the samples that have its modality alone: what stands in the place of others is never read.
    """

    config_class = CoLearningMultimodalConfig
    config: CoLearningMultimodalConfig
    base_model_prefix = "encoders"
    _keys_to_ignore_on_load_missing = [r"^fusion\.gate_"]  # running means, which earlier versions did not keep
    _keep_in_fp32_modules_strict = ["gate_mean"]  # in bfloat16 a mean would soon stand still
    _checkpoint_conversion_mapping = {r"^branches\.": "encoders."}
    encoders: Any  # by modality name
    fusion: Any

    def __init__(self, config: CoLearningMultimodalConfig):
        super().__init__(config)
        encoders: dict[str, Any] = {}
        for name, student_config in config.modalities.items():
            student_config.id2label, student_config.label2id = config.id2label, config.label2id
            student_config.problem_type = config.problem_type
            student_class = student_class_for(student_config.backbone_config)
            encoders[name] = student_class._from_config(student_config, dtype=config.dtype)
        self.encoders = nn.ModuleDict(encoders)
        widths = [backbone_width(encoder.backbone_config) for encoder in config.modalities.values()]
        options = dict(config.fusion_options)
        if "stages" in options:
            options["stage_widths"] = stage_widths(config.modalities)
        self.fusion = FUSIONS[config.fusion](widths, config.latent_dim, config.num_labels, **options)
        if config.learned_temperature:
            self.log_scale = nn.Parameter(torch.empty(1))
        self.modalities = tuple(encoders)
        if config.shared_classifier:
            self._tied_weights_keys = tied_names(self.modalities)
        self._subsets = proper_subsets(len(encoders))
        students = [*encoders.values()]
        self.main_input_name = f"{self.modalities[0]}_{students[0].main_input_name}"
        self.supports_gradient_checkpointing = any(encoder.supports_gradient_checkpointing for encoder in students)
        self._no_split_modules = sorted({name for encoder in students for name in encoder._no_split_modules})
        self.post_init()
        # Last, so that a seed gives the other weights the same values without them.
        self.training_heads = make_training_heads(config.training_heads, latents=self.fusion.width)
        self.imputation: Any = make_imputation(config)

    def _init_weights(self, module):
        # Fusion, imputation and temperature; an encoder initialises itself.
        if module is self:
            if self.config.learned_temperature:
                nn.init.constant_(self.log_scale, -math.log(self.config.initial_temperature))
        elif isinstance(module, (Fusion, Imputation, nn.Linear, nn.LSTMCell)):
            module.reset_parameters()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict:
        # transformers ties what it is told to where `tie_word_embeddings` is set, and these are heads.
        return super().get_expanded_tied_weights_keys(all_submodels) | (self._tied_weights_keys or {})

    # ---- making one ----
    @classmethod
    def from_backbones(
        cls,
        backbones: Mapping[str, str | os.PathLike | PreTrainedConfig],
        latent_dim: int,
        num_labels: int | None = None,
        *,
        fusion: str = "concat",
        fusion_options: Mapping[str, Any] | None = None,
        shared_classifier: bool = False,
        poolings: Mapping[str, str] | None = None,
        latent_norm: str = "none",
        modality_dropout: float = 0.0,
        modality_loss_weight: float = 0.0,
        learned_temperature: bool = False,
        temperature: float = 0.07,
        id2label: dict[int, str] | None = None,
        label2id: dict[str, int] | None = None,
        training_heads: Mapping[str, Any] | None = None,
        imputation: str | None = None,
        imputation_options: Mapping[str, Any] | None = None,
        problem_type: str | None = None,
        dtype: str | torch.dtype = "float32",
        attn_implementation: str | dict[str, str] | None = None,
        backbone_kwargs: Mapping[str, dict[str, Any]] | None = None,
    ) -> "CoLearningForMultimodalClassification":
        """Makes a model of one backbone a modality.

        What a backbone takes decides the columns: `image_pixel_values`, `audio_input_values`, `text_input_ids`, ... A
        spectrogram goes through an image backbone with `num_channels=1`; a video through a video backbone, or frame by
        frame through an image backbone; precomputed features through a [`FeatureBackboneConfig`].

        Args:
            backbones (`dict`): By modality name, in the order of `modality_mask`: a Hub id or a folder, whose pretrained
                weights are kept, or a configuration (which is copied), for random ones.
            latent_dim (`int`): D, the common width of the latents.
            num_labels (`int`, *optional*): C; by default that of `id2label`.
            fusion, fusion_options, shared_classifier, modality_dropout, modality_loss_weight, learned_temperature,
                training_heads, imputation, imputation_options (*optional*): See [`CoLearningMultimodalConfig`].
            temperature (`float`, *optional*, defaults to 0.07): Where the learned temperature begins.
            poolings (`dict[str, str]`, *optional*): By modality name; by default what suits the backbone.
            latent_norm (`str`, *optional*, defaults to `"none"`): `"none"` or `"layernorm"`, of every latent.
            id2label, label2id, problem_type, dtype (*optional*): As of [`CoLearningStudent.from_backbone`], but for what
                is taken from a backbone there.
            attn_implementation (`str` or `dict[str, str]`, *optional*): For all encoders, or by modality name.
            backbone_kwargs (`dict[str, dict]`, *optional*): By modality name, for a checkpoint's `from_pretrained`, such
                as `{"text": {"revision": "..."}}`.

        Returns:
            [`CoLearningForMultimodalClassification`]: In evaluation mode where a backbone is a checkpoint.

        Raises:
            ValueError: Naming the value or the modality that does not fit.

        Example:

        ```python
        >>> import torch
        >>> from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig

        >>> model = CoLearningForMultimodalClassification.from_backbones(
        ...     {"audio": FeatureBackboneConfig(feature_dim=12), "text": FeatureBackboneConfig(feature_dim=20)},
        ...     latent_dim=8, num_labels=3, fusion="sum",
        ... )
        >>> outputs = model(audio_features=torch.randn(4, 12), text_features=torch.randn(4, 20))
        >>> outputs.logits.shape, list(outputs.modality_logits)
        (torch.Size([4, 3]), ['audio', 'text'])
        ```
        """
        options = {name: dict((backbone_kwargs or {}).get(name, {})) for name in backbones}
        names, modalities = modality_configs(
            backbones,
            options,
            {"poolings": poolings, "backbone_kwargs": backbone_kwargs, "attn_implementation": attn_implementation},
            {"num_labels": num_labels, "id2label": id2label, "label2id": label2id},
            latent_dim=latent_dim,
            latent_norm=latent_norm,
        )
        if dtype == "auto":
            raise ValueError("dtype='auto' would give every encoder another: name one, such as 'bfloat16'.")
        config = CoLearningMultimodalConfig(
            modalities=modalities,
            latent_dim=latent_dim,
            fusion=fusion,
            fusion_options=fusion_options,
            shared_classifier=shared_classifier,
            modality_dropout=modality_dropout,
            modality_loss_weight=modality_loss_weight,
            learned_temperature=learned_temperature,
            initial_temperature=temperature,
            training_heads=training_heads,
            imputation=imputation,
            imputation_options=imputation_options,
            problem_type=problem_type,
            **names,
        )
        attention = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        model = cls._from_config(config, dtype=dtype, **attention)
        for name, backbone in backbones.items():
            if not isinstance(backbone, PreTrainedConfig):
                model.eval().encoders[name]._load_backbone(backbone, options[name])
        return model

    @classmethod
    def from_clip(
        cls,
        clip: str | os.PathLike | CLIPConfig,
        num_labels: int | None = None,
        *,
        clip_kwargs: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype = "float32",
        **kwargs: Any,
    ) -> "CoLearningForMultimodalClassification":
        """Makes a model of CLIP's paired encoders: modalities `image` and `text`, a learned temperature.

        The projections become the latent heads (with a bias of 0), so that the latents are CLIP's embeddings before
        normalisation; the temperature goes on from CLIP's.

        Args:
            clip (`str` or [`CLIPConfig`]): A Hub id or a folder, whose pretrained weights are kept; or a configuration.
            clip_kwargs (`dict`, *optional*): For the checkpoint's `from_pretrained`, such as `{"revision": "..."}`.
            num_labels, dtype, kwargs (*optional*): As of [`~CoLearningForMultimodalClassification.from_backbones`].

        Returns:
            [`CoLearningForMultimodalClassification`]: In evaluation mode where built from a checkpoint.
        """
        config, scale, weights = read_clip(clip, dtype, dict(clip_kwargs or {}))
        model = cls.from_backbones(
            {"image": config.vision_config, "text": config.text_config},
            latent_dim=config.projection_dim,
            num_labels=num_labels,
            poolings={"image": "pooler", "text": "pooler"},
            learned_temperature=True,
            temperature=max(math.exp(-scale), MIN_LEARNED_TEMPERATURE),
            dtype=dtype,
            **kwargs,
        )
        for name, of_encoder in weights.items():
            encoder = model.eval().encoders[name]
            encoder.load_state_dict(encoder.state_dict() | of_encoder)
        return model

    def student(self, name: str) -> CoLearningStudent:
        """A modality's encoder as a student of its own, with a copy of its weights and configuration.

        It predicts what `modality_logits` does; under `mmtm`, without the gates that the other modalities set.

        Raises:
            ValueError: If there is no such modality.
        """
        if name not in self.modalities:
            raise ValueError(f"there is no modality '{name}': the model has {', '.join(self.modalities)}.")
        student: CoLearningStudent = copy.deepcopy(self.encoders[name])
        student.zero_grad()
        return student

    def tie_classifiers(self) -> None:
        """Makes the modalities' heads one again, after something like adapters has given each a copy of its own."""
        if self.config.shared_classifier:
            tie_classifiers(self.encoders)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The columns of every modality that `forward` reads, such as `image_pixel_values`."""
        return tuple(f"{name}_{column}" for name, encoder in self.encoders.items() for column in encoder.input_names)

    def probe_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The heads' parameters, by name, where they are probes, which the value of the loss does not depend on."""
        if self.heads_are_probes:
            for name, parameter in self.encoders.named_parameters(prefix="encoders"):  # a shared one once
                if name.split(".")[2] == "classifier":
                    yield name, parameter

    @property
    def heads_are_probes(self) -> bool:
        """Whether the heads learn beside the model, which has no use for them."""
        return self.config.modality_loss_weight == 0 and self.config.fusion not in HEAD_FUSIONS

    # ---- forward ----
    @can_return_tuple
    def forward(
        self,
        labels: torch.Tensor | None = None,
        modality_mask: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        **inputs: torch.Tensor | None,
    ) -> CoLearningMultimodalOutput:
        """
        Args:
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            modality_mask (`torch.BoolTensor` of shape `(B, M)`, *optional*): Which modalities each sample has; all by
                default, without host synchronisation.
            num_items_in_batch (`torch.Tensor` of shape `(1 + M,)`, *optional*): What the sums of the losses, the fused
                prediction's and every modality's, are divided by; by default the labels that count.
            inputs (`torch.Tensor`): `{modality}_{input}`, see `input_names`. A modality without inputs is absent.

        Raises:
            TypeError: If an input belongs to no modality.
            ValueError: If batch sizes disagree, no modality is given, or the mask does not fit.
        """
        given = by_modality(inputs, {name: encoder.input_names for name, encoder in self.encoders.items()})
        size = batch_size(given, labels=labels, modality_mask=modality_mask)
        mask_BM, rows = mask_and_rows(self.modalities, given, modality_mask, size, self.device)
        if self.imputation is not None and modality_mask is not None:
            check_some_present(mask_BM)
        features = self._encode(given, rows, size)
        latents, logits = heads = self._heads(features, mask_BM)
        is_dropping = self.training and self.config.modality_dropout
        seen_BM = drop_modalities(mask_BM, self.config.modality_dropout) if is_dropping else mask_BM
        imputed = None if self.imputation is None else self.imputation(latents, mask_BM)
        fused_BF, logits_BC = self._fuse(features, heads, mask_BM, seen_BM, imputed)
        if self.training and torch.is_grad_enabled():
            logits_BC = zero_gradient(logits_BC, perhaps_unused(self, rows, labels))
        loss = None
        if labels is not None:
            if num_items_in_batch is None:
                num_items_in_batch = self.label_counts(labels, modality_mask=mask_BM)
            loss = multimodal_loss(self, logits_BC, latents, logits, rows, labels, num_items_in_batch)
        subset_logits: Any = None if self.training else {}
        for subset in () if self.training else self._subsets:
            name = "_".join(self.modalities[i] for i in subset)
            subset_logits[name] = self._fuse(features, heads, mask_BM, only(subset, mask_BM))[1]
        is_whole = modality_mask is None and len(given) == len(self.modalities)
        return CoLearningMultimodalOutput(
            loss=loss,
            logits=logits_BC,
            latents=fused_BF,
            modality_logits=dict(zip(self.modalities, logits, strict=True)),
            modality_latents=dict(zip(self.modalities, latents, strict=True)),
            modality_mask=None if self.training and is_whole else mask_BM,
            imputed_latents=imputed and dict(zip(self.modalities, imputed.means, strict=True)),
            joint_latents=imputed and imputed.joint,
            subset_logits=subset_logits,
            logit_scale=self._logit_scale() if self.config.learned_temperature else None,
            labels=labels,
            training_outputs=training_outputs(self, latents=fused_BF),
        )

    def _encode(self, given: Mapping[str, Any], rows: list[Rows], size: int) -> list[Any]:
        """Every modality's pooled features `[B, H]`; where channels are exchanged between stages, what precedes the first."""
        parts = zip(self.encoders.items(), rows, strict=True)
        if self._exchanges_between_stages:
            stage = self.fusion.stages[0]
            return [begin(encoder, given.get(name), index, stage) for (name, encoder), index in parts]
        return [pooled_features(encoder, given.get(name), index, size) for (name, encoder), index in parts]

    def _heads(
        self, features: list[Any], mask_BM: torch.Tensor, is_tracked: bool = True
    ) -> tuple[list[Any], list[Any]]:
        """Every modality's latents `[B, D]` and logits `[B, C]`, 0 where it is absent."""
        encoders = [*self.encoders.values()]
        if self.config.shared_classifier and self.training:
            check_tied(self.encoders)
        if self._exchanges_between_stages:
            features = run_stages(encoders, features, self.fusion, mask_BM, self.fusion.curated, is_tracked)
        elif self.config.fusion == "mmtm":
            features = self.fusion.exchange(features, mask_BM, self.fusion.curated, is_tracked)
        pairs = [encoder.classify(x) for encoder, x in zip(encoders, features, strict=True)]
        latents, logits = (masked(values, mask_BM) for values in zip(*pairs, strict=True))
        return latents, logits

    @property
    def _exchanges_between_stages(self) -> bool:
        return "stages" in self.config.fusion_options

    def _fuse(self, features: list[Any], heads: Any, mask_BM: Any, seen_BM: Any, imputed: Any = None) -> Any:
        """Fused latents and logits from the modalities that are seen, which alone exchange channels; `imputed` is from all."""
        if seen_BM is not mask_BM and self.config.fusion == "mmtm":
            heads = self._heads(features, seen_BM, is_tracked=False)
        latents, logits = heads
        if self.imputation is not None:
            imputed = imputed if seen_BM is mask_BM else self.imputation(latents, seen_BM)
            latents, logits, seen_BM = filled(self, imputed, latents, logits, seen_BM)
        return self.fusion(latents, logits, seen_BM)

    def _logit_scale(self) -> torch.Tensor:
        scale = self.log_scale.float().exp().squeeze(0)
        # Held at 100 at most in value alone: a clamp would give it no gradient to come back by.
        return scale - (scale - scale.clamp(max=1 / MIN_LEARNED_TEMPERATURE)).detach()

    # ---- loss ----
    def label_counts(self, labels: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """How many labels of a batch count, `(1 + M,)`: all, and those of every modality's samples."""
        return label_counts(self, labels, inputs)

    def set_problem_type(self, problem_type: str) -> None:
        """Writes the problem type to the configuration, and to every modality's."""
        check_problem_type(self.config.fusion, problem_type)
        self.config.problem_type = problem_type
        for encoder in self.encoders.values():
            encoder.set_problem_type(problem_type)


AutoModel.register(CoLearningMultimodalConfig, CoLearningForMultimodalClassification)
CoLearningForMultimodalClassification.register_for_auto_class("AutoModel")
