"""What a shared trunk and the stems of its modalities are made of, as `config.json` keeps it; travels with every checkpoint."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, BertConfig, PreTrainedConfig, ViTConfig

from .heads import check_choice, check_width


# The options of every kind of stem and their defaults; None is one that has to be given.
STEM_OPTIONS: dict[str, dict[str, Any]] = {
    "patches": {"image_size": None, "patch_size": None, "num_channels": 3},
    "frames": {"num_bands": None, "max_length": None, "patch_length": 4},
    "tokens": {"vocab_size": None, "max_length": None},
    "features": {"feature_dim": None, "num_tokens": 1, "max_length": 1, "standardized": False},
    "table": {"num_columns": None},
}
STEM_INPUTS: dict[str, tuple[str, ...]] = {
    "patches": ("pixel_values",),
    "frames": ("pixel_values",),
    "tokens": ("input_ids", "attention_mask"),
    "features": ("features", "attention_mask"),
    "table": ("features",),
}
TRUNKS: dict[str, type[PreTrainedConfig]] = {"vit": ViTConfig, "bert": BertConfig}


class TrunkBackboneConfig(PreTrainedConfig):
    r"""Configuration of a [`~hf_colearn.models.trunk.TrunkBackbone`]: one modality's stem and a trunk of transformer layers.

    Args:
        stem (`dict`): Its `"kind"` and options: `{"kind": "patches", "image_size", "patch_size", "num_channels": 3}`, sizes as
            a number or `[height, width]`; `{"kind": "frames", "num_bands", "max_length", "patch_length": 4}` of spectrograms, a
            token for every `patch_length` of at most `max_length` frames; `{"kind": "tokens", "vocab_size", "max_length"}`;
            `{"kind": "features", "feature_dim", "num_tokens": 1, "max_length": 1, "standardized": False}`, where a single
            vector becomes `num_tokens` tokens, or each of at most `max_length` vectors one; `{"kind": "table",
            "num_columns"}`, a token a column.
        trunk_config ([`ViTConfig`], [`BertConfig`] or `dict`): Of the layers: normalised before attention and MLP, as a ViT's,
            or after them, as a BERT's. Of a dict without a `model_type` it is a ViT's.
        causal (`bool`, *optional*, defaults to `False`): Whether a token sees those before it alone.

    Raises:
        ValueError: Naming the option that is missing, unknown or does not fit.
    """

    model_type = "colearning_trunk"
    sub_configs = {"trunk_config": AutoConfig}
    has_no_defaults_at_init = True

    def __init__(
        self,
        stem: Mapping[str, Any] | None = None,
        trunk_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        causal: bool = False,
        **kwargs,
    ):
        self.stem = check_stem("stem", stem)
        self.trunk_config: Any = check_trunk(trunk_config)
        self.causal = check_causal(causal)
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """H, the width of every token."""
        return self.trunk_config.hidden_size


def check_trunk(trunk: Any) -> PreTrainedConfig:
    """The layers' configuration; a ValueError where it is of another kind, or an option of none."""
    if isinstance(trunk, Mapping):
        options = dict(trunk)
        kind = options.pop("model_type", None)
        check_choice("model_type", kind or "vit", TRUNKS)
        config_class = TRUNKS[kind or "vit"]
        # What was read from a file names its kind, and may have been written by another version of transformers.
        if kind is None and (unknown := sorted(options.keys() - config_class().to_dict().keys())):
            raise ValueError(
                f"the trunk has no options {unknown}: they are those of a {config_class.__name__}, such as hidden_size, "
                "num_hidden_layers, num_attention_heads and intermediate_size."
            )
        trunk = config_class.from_dict(options)
    if getattr(trunk, "model_type", None) not in TRUNKS:
        shown = f"'{trunk.model_type}'" if isinstance(trunk, PreTrainedConfig) else repr(trunk)
        raise ValueError(
            f"the trunk is {shown}: pass a dict of sizes, such as {{'hidden_size': 64, 'num_hidden_layers': 2, ...}}, or a "
            "ViTConfig or BertConfig."
        )
    if trunk.hidden_size % trunk.num_attention_heads:
        raise ValueError(
            f"hidden_size={trunk.hidden_size} of the trunk is no multiple of num_attention_heads="
            f"{trunk.num_attention_heads}: choose others."
        )
    return trunk


def check_causal(causal: Any) -> bool:
    """A TypeError where it is no truth value."""
    if not isinstance(causal, bool):
        raise TypeError(f"causal={causal!r} is a {type(causal).__name__}: pass a bool.")
    return causal


def check_stem(name: str, stem: Any) -> dict[str, Any]:
    """A stem's kind and all of its options; a ValueError that names the one that is missing, unknown or does not fit."""
    if not isinstance(stem, Mapping) or "kind" not in stem:
        raise ValueError(
            f"'{name}' is {stem!r}: pass a dict with a kind, such as {{'kind': 'tokens', 'vocab_size': 30522, "
            "'max_length': 64}."
        )
    kind, given = stem["kind"], {option: value for option, value in stem.items() if option != "kind"}
    check_choice(f"kind of {name}", kind, STEM_OPTIONS)
    defaults = STEM_OPTIONS[kind]
    options = {**defaults, **given}
    missing = [option for option, value in options.items() if value is None]
    if missing or (unknown := sorted(given.keys() - defaults.keys())):
        problem = f"lacks {', '.join(missing)}" if missing else f"has no option {', '.join(unknown)}"
        raise ValueError(f"'{name}' {problem}: a stem of kind '{kind}' has {', '.join(defaults)}.")
    for option, value in options.items():
        if option in ("image_size", "patch_size"):
            options[option] = _two_sizes(name, option, value)
        elif option == "standardized":
            if not isinstance(value, bool):
                raise TypeError(f"{option}={value!r} of '{name}' is a {type(value).__name__}: pass a bool.")
        else:
            check_width(option, value, of=f" of '{name}'")
    _check_lengths(name, options)
    return {"kind": kind, **options}


def _two_sizes(name: str, option: str, value: Any) -> list[int]:
    sizes = [value, value] if isinstance(value, int) else list(value) if isinstance(value, (list, tuple)) else []
    if len(sizes) != 2:
        raise ValueError(f"{option}={value!r} of '{name}' is no size: pass a number or [height, width].")
    for size in sizes:
        check_width(option, size, of=f" of '{name}'")
    return sizes


def _check_lengths(name: str, options: Mapping[str, Any]) -> None:
    if "patch_size" in options:
        image, patch = options["image_size"], options["patch_size"]
        if any(size % part for size, part in zip(image, patch, strict=True)):
            raise ValueError(f"image_size={image} of '{name}' is no multiple of patch_size={patch}: choose another.")
    elif "patch_length" in options and options["max_length"] % options["patch_length"]:
        raise ValueError(
            f"max_length={options['max_length']} of '{name}' is no multiple of patch_length={options['patch_length']}: "
            "choose another."
        )
    elif "num_tokens" in options and options["num_tokens"] > 1 and options["max_length"] > 1:
        raise ValueError(
            f"num_tokens={options['num_tokens']} and max_length={options['max_length']} of '{name}': one vector becomes "
            "several tokens, or each of several vectors one. Leave one of them out."
        )


AutoConfig.register(TrunkBackboneConfig.model_type, TrunkBackboneConfig)
