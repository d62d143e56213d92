"""What a student and a backbone of features are made of, as `config.json` keeps it; travels with every checkpoint."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .heads import check_choice, check_width
from .pooling import POOLINGS
from .prototypes import check_prototypes
from .training_heads import check_training_heads
from .trunk_configuration import TrunkBackboneConfig  # noqa: F401  so that a student's `config.json` is known by it


HEADS = ("bottleneck", "auxiliary", "prototypes")
LATENT_NORMS = ("layernorm", "none")


class CheckedConfig(PreTrainedConfig):
    """Base of the models' configurations, which reads those of its own architecture alone."""

    content = ""  # the field without which there is no model
    kind = ""  # in words, and how to make one
    way_out = ""

    def __init__(self, training_heads: dict[str, dict[str, Any]] | None = None, **kwargs):
        self.training_heads = training_heads or {}
        super().__init__(**kwargs)
        if self.num_labels == 1 and self.problem_type is None:  # type: ignore[has-type]
            self.problem_type = "regression"

    def to_dict(self) -> dict[str, Any]:
        # A model without training heads is described as to code that knows none.
        output = super().to_dict()
        if not output["training_heads"]:
            del output["training_heads"]
        return output

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        # A checkpoint of another architecture must not be read as a model without a backbone.
        if config_dict.get("model_type", cls.model_type) != cls.model_type or not config_dict.get(cls.content):
            raise ValueError(
                f"this is a checkpoint of the architecture '{config_dict.get('model_type')}', not a {cls.kind}: make "
                f"one with `{cls.way_out}`."
            )
        return super().from_dict(config_dict, **kwargs)


class CoLearningStudentConfig(CheckedConfig):
    r"""Configuration of a student.

    Args:
        backbone_config ([`PreTrainedConfig`] or `dict`): The backbone's own configuration.
        latent_dim (`int`): D, the width of the latent; the teacher's, for latent matching.
        num_labels (`int`, *optional*, defaults to 2): C; 1 means regression, as in transformers.
        head (`str`, *optional*, defaults to `"bottleneck"`): `"bottleneck"`: pool -> Linear(D) -> norm -> classifier,
            so that the classifier reads the latent (as published). `"auxiliary"`: the stock classification model of
            transformers with its own classifier, and the latent as a side branch. `"prototypes"`: pool -> Linear(D) ->
            norm, and logits that are scaled cosines between the latent and one vector a class.
        learned_class_vectors (`bool`, *optional*, defaults to `False`): Whether the class vectors of `"prototypes"` are
            trained.
        logit_scale (`float`, *optional*, defaults to 10): What its cosines are multiplied by, 1 / temperature.
        learned_logit_scale (`bool`, *optional*, defaults to `False`): Whether `logit_scale` is where learning begins.
        class_vectors_from (`str`, *optional*): In words where the class vectors come from, such as `"MiniLM reads 'a photo of a
            cat'"`, so that whoever adds classes finds theirs; the card says it.
        latent_norm (`str`, *optional*, defaults to `"layernorm"`): `"layernorm"` (published for ViT) or `"none"`
            (published for ResNet; needed to export a bottleneck student to a stock checkpoint).
        pooling (`str`, *optional*): `"cls"`, `"mean"` (without padding, where an attention mask is given),
            `"masked_mean"` (the same, but an error without a mask) or `"pooler"`. By default the pooler for convolutional
            networks and where it has no weights (Swin); the mean for audio, precomputed features, VideoMAE (no CLS token)
            and causal language models (the first token sees itself alone); else the first token.
        classifier_dim (`int`, *optional*): Width of a hidden layer with GELU in a bottleneck's classifier (published
            for IEMOCAP's audio student: 128); a single Linear layer by default.
        dense (`bool`, *optional*, defaults to `False`): Whether the student returns `dense_latents` `[B, T, D]`, the latent
            head's of every token, frame or patch, beside those of the whole input.
        training_heads (`dict`, *optional*): Heads that only training needs, by name: `{"out_features": int,
            "hidden_features": int, "reads": str}`, or `out_features` alone. A hidden layer has GELU; by default there is
            none. They read the `"latents"` (by default), the pooled `"features"`, the `"dense_latents"` or another head's
            output by its name, and give `outputs.training_outputs`; exports leave them out. `{"vocab_size": int,
            "hidden_size": 128, "teacher": str}` is a decoder of captions, whose token ids are those of a teacher (by default
            of the head's name), see [`CaptionGeneration`].

    Raises:
        ValueError: Naming the value that is none of the above.
    """

    model_type = "colearning_student"
    sub_configs = {"backbone_config": AutoConfig}
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["latents", "dense_latents", "dense_mask", "training_outputs"]
    content, kind = "backbone_config", "co-learning student"
    way_out = "CoLearningFor...Classification.from_backbone(checkpoint, latent_dim=...)"

    def __init__(
        self,
        backbone_config: PreTrainedConfig | dict | None = None,
        latent_dim: int | None = None,
        head: str = "bottleneck",
        latent_norm: str = "layernorm",
        pooling: str | None = None,
        classifier_dim: int | None = None,
        training_heads: Mapping[str, Any] | None = None,
        learned_class_vectors: bool = False,
        logit_scale: float = 10.0,
        learned_logit_scale: bool = False,
        class_vectors_from: str | None = None,
        dense: bool = False,
        **kwargs,
    ):
        if isinstance(backbone_config, dict):
            backbone_config = AutoConfig.for_model(**backbone_config)
        check_choice("head", head, HEADS)
        check_choice("latent_norm", latent_norm, LATENT_NORMS)
        if pooling is not None:
            check_choice("pooling", pooling, POOLINGS)
        if latent_dim is not None:
            check_width("latent_dim", latent_dim, "pass the teacher's, `bank.dim`")
        if classifier_dim is not None:
            check_width("classifier_dim", classifier_dim, "pass at least 1, or leave it out")
            if head != "bottleneck":
                raise ValueError(
                    f"classifier_dim={classifier_dim} belongs to head='bottleneck': '{head}' has its own."
                )
        check_prototypes(head, learned_class_vectors, logit_scale, learned_logit_scale, class_vectors_from)
        if not isinstance(dense, bool):
            raise TypeError(f"dense={dense!r} is a {type(dense).__name__}: pass a bool.")
        self.learned_class_vectors = learned_class_vectors
        self.logit_scale = logit_scale
        self.learned_logit_scale = learned_logit_scale
        self.class_vectors_from = class_vectors_from
        self.dense = dense
        self.backbone_config: Any = backbone_config
        self.latent_dim = latent_dim
        self.head = head
        self.latent_norm = latent_norm
        self.pooling: Any = pooling
        self.classifier_dim = classifier_dim
        readable = ("latents", "features", "dense_latents") if dense else ("latents", "features")
        super().__init__(check_training_heads(training_heads, readable, decoders=True), **kwargs)
        if head == "prototypes" and self.problem_type == "regression":
            raise ValueError(
                "head='prototypes' has a vector a class, and a regression has no classes: use 'bottleneck'."
            )

    @property
    def prototypes(self) -> dict[str, Any]:
        """The options of `head="prototypes"`."""
        return {
            "learned": self.learned_class_vectors,
            "scale": self.logit_scale,
            "learned_scale": self.learned_logit_scale,
        }

    def to_dict(self) -> dict[str, Any]:
        # A student without these is described as to code that does not know them.
        output = super().to_dict()
        if self.head != "prototypes":
            for name in ("learned_class_vectors", "logit_scale", "learned_logit_scale", "class_vectors_from"):
                output.pop(name, None)
        if not self.dense:
            output.pop("dense", None)
        return output


class FeatureBackboneConfig(PreTrainedConfig):
    r"""Configuration of a [`~hf_colearn.models.features.FeatureBackbone`], precomputed features as a modality.

    Args:
        feature_dim (`int`): F, the width of the features.
        hidden_dims (`list[int]`, *optional*, defaults to none): Widths of the MLP's layers, each with GELU.
        standardized (`bool`, *optional*, defaults to `False`): Whether the features are standardised first, by statistics
            that are saved with the weights: `backbone.set_statistics(training_features)`.

    Raises:
        ValueError: If a width is none.
    """

    model_type = "colearning_features"
    has_no_defaults_at_init = True

    def __init__(
        self,
        feature_dim: int | None = None,
        hidden_dims: list[int] | tuple[int, ...] = (),
        standardized: bool = False,
        **kwargs,
    ):
        check_width("feature_dim", feature_dim)
        for i, width in enumerate(hidden_dims):
            check_width(f"hidden_dims[{i}]", width)
        self.feature_dim: Any = feature_dim
        self.hidden_dims = list(hidden_dims)
        self.standardized = standardized
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """H, the width of what the backbone gives."""
        return (self.hidden_dims or [self.feature_dim])[-1]


AutoConfig.register(FeatureBackboneConfig.model_type, FeatureBackboneConfig)
AutoConfig.register(CoLearningStudentConfig.model_type, CoLearningStudentConfig)
CoLearningStudentConfig.register_for_auto_class()
