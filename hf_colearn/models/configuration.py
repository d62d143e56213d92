"""What a student and a backbone of features are made of, as `config.json` keeps it; travels with every checkpoint."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .heads import is_width
from .pooling import POOLINGS
from .training_heads import check_training_heads


HEADS = ("bottleneck", "auxiliary")
LATENT_NORMS = ("layernorm", "none")


class CoLearningStudentConfig(PreTrainedConfig):
    r"""Configuration of a student.

    Args:
        backbone_config ([`PreTrainedConfig`] or `dict`): The backbone's own configuration.
        latent_dim (`int`): D, the width of the latent; the teacher's, for latent matching.
        num_labels (`int`, *optional*, defaults to 2): C; 1 means regression, as in transformers.
        head (`str`, *optional*, defaults to `"bottleneck"`): `"bottleneck"`: pool -> Linear(D) -> norm -> classifier,
            so that the classifier reads the latent (as published). `"auxiliary"`: the stock classification model of
            transformers with its own classifier, and the latent as a side branch.
        latent_norm (`str`, *optional*, defaults to `"layernorm"`): `"layernorm"` (published for ViT) or `"none"`
            (published for ResNet; needed to export a bottleneck student to a stock checkpoint).
        pooling (`str`, *optional*): `"cls"`, `"mean"` (without padding, where an attention mask is given),
            `"masked_mean"` (the same, but an error without a mask) or `"pooler"`; by default what suits the backbone:
            its own pooler for convolutional networks and where that has no weights (Swin), the mean for audio, for
            precomputed features, for VideoMAE, which has no CLS token, and for causal language models, whose first
            token attends to itself alone, and else the first token.
        classifier_dim (`int`, *optional*): Width of a hidden layer with GELU in a bottleneck's classifier (published
            for IEMOCAP's audio student: 128); a single Linear layer by default.
        training_heads (`dict`, *optional*): Heads that only training needs, by name: `{"out_features": int,
            "hidden_features": int, "reads": str}`, or `out_features` alone. They are Linear layers, or two with GELU
            between where `hidden_features` is given, and read the `"latents"` (by default) or the pooled `"features"`
            of the backbone. What they give is in `outputs.training_outputs`; exports leave them out.

    Raises:
        ValueError: Naming the value that is none of the above.
    """

    model_type = "colearning_student"
    sub_configs = {"backbone_config": AutoConfig}
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["latents", "training_outputs"]

    def __init__(
        self,
        backbone_config: PreTrainedConfig | dict | None = None,
        latent_dim: int | None = None,
        head: str = "bottleneck",
        latent_norm: str = "layernorm",
        pooling: str | None = None,
        classifier_dim: int | None = None,
        training_heads: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        if isinstance(backbone_config, dict):
            backbone_config = AutoConfig.for_model(**backbone_config)
        if head not in HEADS:
            raise ValueError(f"head='{head}' is unknown: choose 'bottleneck' or 'auxiliary'.")
        if latent_norm not in LATENT_NORMS:
            raise ValueError(f"latent_norm='{latent_norm}' is unknown: choose 'layernorm' or 'none'.")
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"pooling='{pooling}' is unknown: choose one of {', '.join(POOLINGS)}.")
        if latent_dim is not None and not is_width(latent_dim):
            raise ValueError(f"latent_dim={latent_dim!r} is no width: pass the teacher's, `bank.dim`.")
        if classifier_dim is not None and not is_width(classifier_dim):
            raise ValueError(f"classifier_dim={classifier_dim!r} is no width: pass at least 1, or leave it out.")
        if classifier_dim is not None and head != "bottleneck":
            raise ValueError(f"classifier_dim={classifier_dim} belongs to head='bottleneck': '{head}' has its own.")
        self.backbone_config: Any = backbone_config
        self.latent_dim = latent_dim
        self.head = head
        self.latent_norm = latent_norm
        self.pooling: Any = pooling
        self.classifier_dim = classifier_dim
        self.training_heads = check_training_heads(training_heads, ("latents", "features"))
        super().__init__(**kwargs)
        if self.num_labels == 1 and self.problem_type is None:  # type: ignore[has-type]
            self.problem_type = "regression"

    def to_dict(self) -> dict[str, Any]:
        # A student without training heads is described as to code that knows none.
        output = super().to_dict()
        if not output["training_heads"]:
            del output["training_heads"]
        return output

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        # A checkpoint of another architecture must not be read as a student without a backbone.
        if config_dict.get("model_type", cls.model_type) != cls.model_type or not config_dict.get("backbone_config"):
            raise ValueError(
                f"this is a checkpoint of the architecture '{config_dict.get('model_type')}', not a co-learning "
                "student: make it one with `CoLearningFor...Classification.from_backbone(checkpoint, latent_dim=...)`."
            )
        return super().from_dict(config_dict, **kwargs)


class FeatureBackboneConfig(PreTrainedConfig):
    r"""Configuration of a [`~hf_colearn.models.features.FeatureBackbone`], precomputed features as a modality.

    Args:
        feature_dim (`int`): F, the width of the features.
        hidden_dims (`list[int]`, *optional*, defaults to none): Widths of the MLP's layers, each with GELU.

    Raises:
        ValueError: If a width is none.

    Example:

    ```python
    >>> FeatureBackboneConfig(feature_dim=300, hidden_dims=[128]).hidden_size
    128
    ```
    """

    model_type = "colearning_features"
    has_no_defaults_at_init = True

    def __init__(self, feature_dim: int | None = None, hidden_dims: list[int] | tuple[int, ...] = (), **kwargs):
        for width in (feature_dim, *hidden_dims):
            if not is_width(width):
                raise ValueError(
                    f"feature_dim={feature_dim!r}, hidden_dims={list(hidden_dims)}: {width!r} is no width, which is at "
                    "least 1."
                )
        self.feature_dim: Any = feature_dim
        self.hidden_dims = list(hidden_dims)
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """H, the width of what the backbone gives."""
        return (self.hidden_dims or [self.feature_dim])[-1]


AutoConfig.register(FeatureBackboneConfig.model_type, FeatureBackboneConfig)
AutoConfig.register(CoLearningStudentConfig.model_type, CoLearningStudentConfig)
CoLearningStudentConfig.register_for_auto_class()
