"""The data of the recipe of balance methods: digits, stamps, clips, and precomputed features of any data set.

Shapes: N samples of a split, F width of a modality's features.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from hf_colearn.corpora.audio_visual import ClipOptions
from hf_colearn.corpora.cremad import load_cremad
from hf_colearn.corpora.features import load_features, modalities_of
from hf_colearn.corpora.image_audio import AVDigitsOptions, av_processors, with_av_inputs
from hf_colearn.corpora.kinetics_sounds import load_kinetics_sounds
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.multimodal import missing_as_none
from hf_colearn.experiments.balance import SIX_FUSIONS, check_methods
from hf_colearn.experiments.frozen_features import stamp_features
from hf_colearn.experiments.info import ExperimentInfo, folder_name, named_data
from hf_colearn.experiments.settings import SettingsOptions
from hf_colearn.experiments.tiny_models import RESNETS, resnet_tiny
from hf_colearn.models.configuration import LATENT_NORMS, FeatureBackboneConfig
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.utils.checks import check_choice, check_integer


DATA = ("av_digits", "stamps", "cremad", "kinetics_sounds")
AV_BACKBONES = ("mlp", "resnet_tiny")


@dataclass
class BalanceOptions(AVDigitsOptions, ClipOptions, SettingsOptions):
    """What the recipe of balance methods takes."""

    data: str = field(default="av_digits", metadata={"help": f"{', '.join(DATA)}; or --features."})
    features: str | None = field(
        default=None, metadata={"help": "A folder of precomputed features of any data set, npz or Parquet, by split."}
    )
    methods: list[str] | None = field(
        default=None, metadata={"help": "Names of methods, such as ogm agm mla; all by default."}
    )
    fusions: list[str] = field(
        default_factory=lambda: ["concat"], metadata={"help": f"Some of {', '.join(SIX_FUSIONS)}, an arm each."}
    )
    latent_dim: int = field(default=64, metadata={"help": "Width of every modality's latent."})
    latent_norm: str = field(default="none", metadata={"help": "Of the latents: none or layernorm."})
    hidden_dim: int = field(default=64, metadata={"help": "Width of the hidden layer on features."})
    av_backbone: str = field(
        default="mlp", metadata={"help": "Of the digits: mlp, of pixels and of the spectrogram's, or resnet_tiny."}
    )
    split: str = field(default="lists", metadata={"help": "Of CREMA-D: lists, actor or auto."})
    test_split: str = field(default="test", metadata={"help": "Of Kinetics-Sounds: test or validation."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("data", self.data, DATA)
        check_choice("av_backbone", self.av_backbone, AV_BACKBONES)
        check_choice("latent_norm", self.latent_norm, LATENT_NORMS)
        for name in ("latent_dim", "hidden_dim"):
            check_integer(name, getattr(self, name), 1)
        check_methods(self.methods)
        for fusion in self.fusions:
            check_choice("fusions", fusion, SIX_FUSIONS)

    @property
    def comparison(self) -> str:
        """The entry in a file of settings."""
        name = self.data if self.features is None else f"features {folder_name(self.features)}"
        return f"{name}, small" if self.small else name


@dataclass
class BalanceData:
    """The splits of a data set as a multimodal model takes them.

    Args:
        inputs (`Mapping[str, Dataset]`): `train`, `validation` and `test`, with `{modality}_{input}` and `labels`.
        backbones (`Mapping[str, Any]`): By modality, as `from_backbones` takes them.
        id2label (`Mapping[int, str]`): The names of the classes.
        info (`Mapping[str, Any]`): Fields of [`ExperimentInfo`].
        processor (*optional*): As of [`~hf_colearn.experiments.runner.run_recipe`].
        groups (`Mapping`, *optional*): As there.
        features (`Mapping[str, torch.Tensor]`): Of the modalities that are features those of the training set, `(N, F)`, by
            which they are standardised.
        stages (`list[int]`): After which stages of convolutional backbones the fusion `mmtm` exchanges channels.
    """

    inputs: Mapping[str, Dataset]
    backbones: Mapping[str, Any]
    id2label: Mapping[int, str]
    info: Mapping[str, Any]
    processor: Any = None
    groups: Mapping[str, Any] | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[int, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in the model's order."""
        return tuple(self.backbones)

    def experiment(self, recipe: str) -> ExperimentInfo:
        """For report and card."""
        return ExperimentInfo(recipe=recipe, title="Modality balance", **self.info)

    def make_model(
        self, options: BalanceOptions, fusion: str, **changed: Any
    ) -> CoLearningForMultimodalClassification:
        """A new model; its encoders have the same weights whatever the fusion and the other arguments are, at one state of the
        random generators."""
        plain = self._model(options)
        model = self._model(options, fusion=fusion, **changed)
        for name, encoder in plain.encoders.items():
            model.encoders[name].load_state_dict(encoder.state_dict())
        return model

    def _model(self, options: BalanceOptions, **arguments: Any) -> CoLearningForMultimodalClassification:
        if arguments.get("fusion") == "mmtm" and self.stages:
            arguments["fusion_options"] = {"stages": list(self.stages)}
        model = CoLearningForMultimodalClassification.from_backbones(
            copy.deepcopy(dict(self.backbones)),
            latent_dim=options.latent_dim,
            latent_norm=options.latent_norm,
            id2label=dict(self.id2label),
            **arguments,
        )
        for name, features_NF in self.features.items():
            model.encoders[name].backbone.set_statistics(features_NF)
        return model


def load_balance_data(options: BalanceOptions) -> BalanceData:
    """What `--features`, or else `--data`, names."""
    if options.features is not None:
        return _of_features(options)
    if options.data == "av_digits":
        return _digits(options)
    return _stamps(options) if options.data == "stamps" else _clips(options)


def _of_features(options: BalanceOptions) -> BalanceData:
    raw = load_features(str(options.features))
    inputs = {str(split): part.rename_column("label", "labels") for split, part in raw.items()}
    has_all = not any(
        part.data.column(f"{name}_features").null_count for part in raw.values() for name in modalities_of(part)
    )
    ready = {
        split: part.with_format("torch") if has_all else part.with_transform(missing_as_none)
        for split, part in inputs.items()
    }
    groups = {"group": raw["test"]["group"]} if "group" in raw["test"].column_names else None
    info = {
        **named_data(folder_name(str(options.features)), raw, "samples", "precomputed features"),
        "pipeline_tag": "feature-extraction",
        "pairing": "features of the same samples",
    }
    return _on_features(options, ready, modalities_of(raw["train"]), _names(raw["train"]), info, groups=groups)


def _digits(options: BalanceOptions) -> BalanceData:
    raw = options.load(options.small, options.skip_bad_samples)
    processors = av_processors(options.spectrogram_size)
    inputs = with_av_inputs(raw, processors)
    info = {
        **named_data("AV-digits", raw, "pairs", f"handwritten and {options.sound}"),
        "pipeline_tag": "image-classification",
        "pairing": "by class, at random within a split",
    }
    groups = {"speaker": raw["test"]["speaker"]} if options.audio_dir else None
    names = _names(raw["train"])
    if options.av_backbone == "resnet_tiny":
        backbones = {name: resnet_tiny(num_channels=1) for name in ("image", "audio")}
        return BalanceData(inputs, backbones, names, info, processors, groups, stages=(1, 2))
    flat = {split: _flat(part, ("image", "audio")) for split, part in inputs.items()}
    return _on_features(options, flat, ("image", "audio"), names, info, groups=groups)


def _flat(part: Dataset, names: tuple[str, ...]) -> Dataset:
    """The pixels of each modality as features."""
    columns = {f"{name}_features": part[f"{name}_pixel_values"][:].flatten(1).numpy() for name in names}
    return Dataset.from_dict({**columns, "labels": part["labels"][:].numpy()}).with_format("torch")


def _stamps(options: BalanceOptions) -> BalanceData:
    needs_stamps(options.data_dir)
    raw = load_stamps(str(options.data_dir))
    inputs = stamp_features(raw, options.seconds)
    info = {
        **named_data("Tux Paint stamps", raw, "stamps", "frozen features"),
        "pipeline_tag": "feature-extraction",
        "pairing": "real triples, split by description",
        "language": "en",
    }
    return _on_features(options, inputs, ("image", "text", "speech"), _names(raw["train"]), info)


def _clips(options: BalanceOptions) -> BalanceData:
    is_cremad = options.data == "cremad"
    what = (
        "CREMA-D's folder, with AudioWAV and VideoFlash" if is_cremad else "Kinetics-400's, with its lists and videos"
    )
    options.needs_data(options.data_dir, what)
    processor = options.processor(RESNETS)
    shared: dict[str, Any] = {"skip_bad_samples": options.skip_bad_samples, "min_frames": options.frames}
    if is_cremad:
        split: Any = options.split
        raw = load_cremad(options.data_dir, options.hub_id, split, **shared)
        name, how = "CREMA-D", [] if options.hub_id else [f"split by {options.split}"]
    else:
        tested: Any = options.test_split
        raw = load_kinetics_sounds(options.data_dir, options.hub_id, tested, validation_share=0.1, **shared)
        name, how = "Kinetics-Sounds", [f"tested on {options.test_split}"]
    info = {
        **named_data(name, raw, "clips", *how, hub_id=options.hub_id),
        "pipeline_tag": "video-classification",
        "pairing": "the two tracks of a clip",
    }
    inputs, backbones = options.inputs(raw, processor), options.backbones(RESNETS)
    depths = {len(getattr(backbone, "depths", ())) for backbone in backbones.values()}
    stages = tuple(range(2, 1 + min(depths)))  # the last three of ResNet-18
    return BalanceData(inputs, backbones, _names(raw["train"]), info, {"video": processor}, stages=stages)


def _on_features(
    options: BalanceOptions,
    inputs: Mapping[str, Dataset],
    modalities: tuple[str, ...],
    names: Mapping[int, str],
    info: Mapping[str, Any],
    groups: Mapping[str, Any] | None = None,
) -> BalanceData:
    """A network of one hidden layer on the standardised features of every modality."""
    features = {name: _present(inputs["train"], f"{name}_features") for name in modalities}
    backbones = {
        name: FeatureBackboneConfig(features_NF.shape[1], [options.hidden_dim], standardized=True)
        for name, features_NF in features.items()
    }
    return BalanceData(inputs, backbones, names, info, groups=groups, features=features)


def _present(train: Dataset, column: str) -> Any:
    """The features `(N, F)` of the samples that have some."""
    here_N = train.data.column(column).is_valid().to_numpy()
    if train._indices is not None:
        here_N = here_N[train._indices.column(0).to_numpy()]
    return train.select_columns(column).with_format("torch").select(np.flatnonzero(here_N))[column][:]


def _names(train: Dataset) -> dict[int, str]:
    label = train.features["label"]
    assert isinstance(label, ClassLabel)
    return dict(enumerate(label.names))
