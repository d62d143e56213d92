"""What a multimodal model is made of, as its checkpoint's `config.json` keeps it; travels with every checkpoint."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .backbones import class_names, read_backbone_config
from .configuration import CheckedConfig, CoLearningStudentConfig
from .encoding import check_stages
from .fusion import FUSIONS, check_fusion_options, check_problem_type
from .heads import check_choice, check_width
from .imputation import check_imputation
from .training_heads import check_training_heads


MIN_LEARNED_TEMPERATURE = 0.01  # CLIP keeps its scale at 100 or below
_RESERVED = (
    *("label", "labels", "modality", "sample"),  # beginnings of the other columns of a batch
    *("fusion", "imputation", "modalities", "training_heads"),  # of this configuration's own
)


class CoLearningMultimodalConfig(CheckedConfig):
    r"""Configuration of a multimodal model.

    Args:
        modalities (`dict[str, CoLearningStudentConfig]`): At least two, in the order in which `modality_mask` and the
            fusion see them. A name is an identifier that begins no other's columns (`image` and `image_rgb` do not go
            together).
        latent_dim (`int`): D, the common width of the latents.
        fusion (`str`, *optional*, defaults to `"concat"`): `"concat"`, `"sum"`, `"weighted"`, `"film"`, `"mmtm"`, `"lstm"`,
            `"entropy"`, `"evidential"` or `"dynamic"`.
        modality_dropout (`float`, *optional*, defaults to 0): Probability, below 1, that a training sample's fusion does
            not see a modality.
        modality_loss_weight (`float`, *optional*, defaults to 0): Weight of the mean of the heads' own task losses.
        learned_temperature (`bool`, *optional*, defaults to `False`): Learn the temperature of a contrastive objective.
        initial_temperature (`float`, *optional*, defaults to 0.07): Where that begins (transformers keeps the name
            `temperature` for generation).
        fusion_options (`dict`, *optional*): The options of the fusion, by name: `ratio` and `stages` of
            `"mmtm"`, `weights` of `"entropy"`, `gamma` and `tau` of `"dynamic"`; see their classes in `hf_colearn.models`.
        shared_classifier (`bool`, *optional*, defaults to `False`): Whether one linear layer on the latents is the head of all
            modalities. Its weights are tied, and saved once; `student(name)` has a copy of its own.
        training_heads (`dict`, *optional*): As in [`CoLearningStudentConfig`]; they read the fused `"latents"`.
        imputation (`str`, *optional*): `"centroids"` or `"autoencoder"`: the latent of an absent modality is imputed from
            those that are there before the fusion, which sees it as present; see
            [`~hf_colearn.models.imputation.CentroidImputation`] and
            [`~hf_colearn.models.autoencoder_imputation.AutoencoderImputation`].
        imputation_options (`dict`, *optional*): Of centroids `num_centroids` (8) and `modulation` (`True`), noise in training;
            of the autoencoder `hidden_dim` (256), `num_layers` (1) and `mask_probability` (0.5).

    Raises:
        ValueError: Naming the value that does not fit.
    """

    model_type = "colearning_multimodal"
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = [
        *("latents", "modality_latents", "imputed_latents", "joint_latents", "logit_scale", "labels"),
        "training_outputs",
    ]
    content, kind = "modalities", "multimodal model"
    way_out = "CoLearningForMultimodalClassification.from_backbones({'image': checkpoint, ...}, ...)"

    def __init__(
        self,
        modalities: dict[str, Any] | list[Any] | None = None,
        latent_dim: int | None = None,
        fusion: str = "concat",
        modality_dropout: float = 0.0,
        modality_loss_weight: float = 0.0,
        learned_temperature: bool = False,
        initial_temperature: float = 0.07,
        training_heads: Mapping[str, Any] | None = None,
        fusion_options: Mapping[str, Any] | None = None,
        shared_classifier: bool = False,
        imputation: str | None = None,
        imputation_options: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        modalities = dict(modalities or {})  # a list of pairs in `config.json`
        _check_names(list(modalities))
        _check_numbers(fusion, modality_dropout, modality_loss_weight, learned_temperature, initial_temperature)
        check_width("latent_dim", latent_dim, "pass the common width of the latents")
        self.modalities: dict[str, CoLearningStudentConfig] = {
            name: CoLearningStudentConfig.from_dict(config) if isinstance(config, dict) else config
            for name, config in modalities.items()
        }
        for name, config in self.modalities.items():
            if config.latent_dim != latent_dim:
                raise ValueError(
                    f"latent_dim={latent_dim}, but the latents of '{name}' are {config.latent_dim} wide: they must meet."
                )
            if config.head != "bottleneck":
                raise ValueError(
                    f"head='{config.head}' of '{name}': a modality of a multimodal model is a bottleneck."
                )
            if config.training_heads:
                raise ValueError(
                    f"'{name}' has training heads {list(config.training_heads)}: those of a multimodal model read its fused "
                    "latents, so pass training_heads to the model's own configuration."
                )
        if not isinstance(shared_classifier, bool):
            raise TypeError(
                f"shared_classifier={shared_classifier!r} is a {type(shared_classifier).__name__}: pass a bool."
            )
        if shared_classifier:
            _check_linear_heads(self.modalities)
            self.tie_word_embeddings = False  # or PEFT would look for embeddings among the tied weights
        self.latent_dim: Any = latent_dim
        self.fusion = fusion
        self.fusion_options = check_fusion_options(fusion, fusion_options)
        if "stages" in self.fusion_options:
            check_stages(self.fusion_options["stages"], self.modalities)
        self.shared_classifier = shared_classifier
        self.imputation_options = check_imputation(imputation, imputation_options)
        self.imputation = imputation
        self.modality_dropout = modality_dropout
        self.modality_loss_weight = modality_loss_weight
        self.learned_temperature = learned_temperature
        self.initial_temperature = initial_temperature
        super().__init__(check_training_heads(training_heads, ("latents",)), **kwargs)
        check_problem_type(fusion, self.problem_type)

    @property
    def sub_configs(self) -> dict[str, Any]:
        """Where transformers looks for the configurations that dtype and attention must reach: by modality name."""
        return dict.fromkeys(self.modalities, CoLearningStudentConfig)

    def __getattr__(self, name: str) -> Any:
        # transformers reads a sub-configuration as an attribute, such as `config.image`.
        modalities = self.__dict__.get("modalities", {})
        if name in modalities:
            return modalities[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def to_dict(self) -> dict[str, Any]:
        # transformers sorts what it writes by key, and the modalities' order counts: they are written as a list of pairs.
        output = super().to_dict()
        output["modalities"] = [[name, config.to_dict()] for name, config in self.modalities.items()]
        for _, config in output["modalities"]:
            del config["transformers_version"]
        # A model without these is described as to code that does not know them.
        for name in ("fusion_options", "shared_classifier", "imputation", "imputation_options"):
            if not output[name]:
                del output[name]
        return output


def modality_configs(
    backbones: Mapping[str, Any],
    options: Mapping[str, dict[str, Any]],
    by_name: Mapping[str, Any],
    classes: Mapping[str, Any],
    *,
    latent_dim: int,
    latent_norm: str,
) -> tuple[dict[str, Any], dict[str, CoLearningStudentConfig]]:
    """What a configuration knows of the classes, and every modality's configuration.

    `options` are of a backbone's checkpoint, `by_name` the other arguments that may name modalities, `classes` a number or
    names.
    """
    for argument, values in by_name.items():
        given = values.keys() if isinstance(values, Mapping) else set()
        if unknown := sorted(given - backbones.keys()):
            raise ValueError(f"{argument} names {unknown}, and the modalities are {list(backbones)}.")
    if all(value is None for value in classes.values()):
        raise ValueError("the number of classes is missing: pass num_labels or id2label.")
    names = class_names(**classes)
    return names, {
        name: CoLearningStudentConfig(
            backbone_config=read_backbone_config(backbone, options[name]),
            latent_dim=latent_dim,
            latent_norm=latent_norm,
            pooling=(by_name["poolings"] or {}).get(name),
            **names,
        )
        for name, backbone in backbones.items()
    }


def _check_linear_heads(modalities: Mapping[str, CoLearningStudentConfig]) -> None:
    for name, config in modalities.items():
        if config.classifier_dim is not None:
            raise ValueError(
                f"classifier_dim={config.classifier_dim} of '{name}': with shared_classifier=True one linear layer is the head "
                "of all modalities. Leave classifier_dim out, or give every modality a head of its own."
            )


def _check_names(names: list[Any]) -> None:
    if len(names) < 2:
        raise ValueError(f"modalities={names}: a multimodal model has at least two; for one, take a student.")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"'{name}' cannot name a modality: its columns begin with it, so it must be an identifier."
            )
        if name in _RESERVED or hasattr(PreTrainedConfig, name):
            raise ValueError(f"'{name}' cannot name a modality: it has another meaning. Choose another name.")
        for other in names:
            if other.startswith(f"{name}_"):
                raise ValueError(
                    f"the modality '{name}' begins the columns of '{other}' ('{other}_...'), so whose they are is unclear: "
                    "rename one of them."
                )


def _check_numbers(fusion: Any, dropout: Any, weight: Any, learned: Any, temperature: Any) -> None:
    check_choice("fusion", fusion, FUSIONS)
    for name, number in (
        ("modality_dropout", dropout),
        ("modality_loss_weight", weight),
        ("temperature", temperature),
    ):
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{name}={number!r} is a {type(number).__name__}: pass a number.")
    if not 0 <= dropout < 1:
        raise ValueError(f"modality_dropout={dropout} is no probability of dropping a modality: pass 0 to below 1.")
    if not 0 <= weight < float("inf"):
        raise ValueError(f"modality_loss_weight={weight} is no weight: pass 0 or more.")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} is no temperature: it must be positive, such as 0.07.")
    if learned and temperature < MIN_LEARNED_TEMPERATURE:
        raise ValueError(
            f"temperature={temperature} is below {MIN_LEARNED_TEMPERATURE}, where a learned temperature is kept from "
            "going: begin higher."
        )
    if not learned and temperature != 0.07:
        raise ValueError(
            f"temperature={temperature} is the initial value of a learned temperature: pass learned_temperature=True, or "
            "give a fixed one to the objective, `ContrastiveAlignment(temperature=...)`."
        )


AutoConfig.register(CoLearningMultimodalConfig.model_type, CoLearningMultimodalConfig)
CoLearningMultimodalConfig.register_for_auto_class()
