"""A comparison with missing modalities: the arms, training sets with a share of complete samples, and what is scored.

Shapes: N samples, M = 2 modalities, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction

from hf_colearn.analysis.run import Run
from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.evaluation.imputation_error import ImputationError
from hf_colearn.evaluation.metrics import classification_metrics
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.experiments.balance_data import BalanceData, BalanceOptions, load_balance_data
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.experiments.settings import SettingsOptions
from hf_colearn.training.centroids import ModalityCentroids
from hf_colearn.utils.checks import check_choice, check_integer


SHARES = "complete samples (%)"  # what is swept
MODALITIES = {"av_digits": ("image", "audio"), "stamps": ("image", "speech")}
MAIN, AT_TEST = "accuracy_one_missing", "accuracy_at_test"
# `rate` is relative to the recipe's learning rate.
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_DROPOUT = ({"rate": 1.0, "dropout": 0.3}, {"rate": 1.0, "dropout": 0.5}, {"rate": 3.0, "dropout": 0.5})
_IMPUTED = (
    {"rate": 1.0, "dropout": 0.3, "alpha": 0.1},
    {"rate": 1.0, "dropout": 0.5, "alpha": 0.1},
    {"rate": 1.0, "dropout": 0.5, "alpha": 0.5},
)
_BOTH = (
    {"rate": 1.0, "dropout": 0.5, "heads": 0.0},
    {"rate": 1.0, "dropout": 0.5, "heads": 1.0},
    {"rate": 3.0, "dropout": 0.5, "heads": 1.0},
)


@dataclass
class MissingOptions(SettingsOptions):
    """What the recipe of missing modalities takes."""

    data: str = field(default="av_digits", metadata={"help": f"{' or '.join(MODALITIES)}."})
    audio_dir: str | None = field(default=None, metadata={"help": "Spoken digits: FSDD's files, or a folder a digit."})
    only: str | None = field(
        default=None, metadata={"help": "Train with both modalities, test with this one: another comparison."}
    )
    shares: list[int] = field(
        default_factory=lambda: [10, 20, 50, 100], metadata={"help": "Complete training samples in percent, a sweep."}
    )
    num_centroids: int = field(default=16, metadata={"help": "Of every modality's latents."})
    latent_dim: int = field(default=64, metadata={"help": "Width of every modality's latent."})
    hidden_dim: int = field(default=64, metadata={"help": "Width of the hidden layer on features."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("data", self.data, MODALITIES)
        if self.only is not None:
            check_choice("only", self.only, MODALITIES[self.data])
        for name in ("num_centroids", "latent_dim", "hidden_dim"):
            check_integer(name, getattr(self, name), 1)
        if wrong := [share for share in self.shares if not 0 < share <= 100]:
            raise ValueError(f"shares={wrong} of complete samples: pass percents above 0, up to 100.")

    @property
    def comparison(self) -> str:
        """The entry in a file of settings."""
        name = f"{self.data}, {'one missing' if self.only is None else f'{self.only} at test'}"
        return f"{name}, small" if self.small else name

    def load(self) -> tuple[BalanceData, BalanceOptions]:
        """The two modalities of the data, and the options that their models are made by."""
        names = ("data", "data_dir", "audio_dir", "small", "latent_dim", "hidden_dim", "skip_bad_samples")
        # Layer norm: without it the latents grow while the centroids of the epoch's start stay.
        options = BalanceOptions(latent_norm="layernorm", **{name: getattr(self, name) for name in names})
        data = load_balance_data(options)
        kept = MODALITIES[self.data]
        features = {name: data.features[name] for name in kept}
        return replace(data, backbones={name: data.backbones[name] for name in kept}, features=features), options


@dataclass(frozen=True)
class MissingArm(TunedArm):
    """An arm of either comparison. Of its setting, `dropout` is the modality dropout's, `alpha` the objective's, and `heads`
    the weight of the modalities' own losses (0: their heads are probes).

    Args:
        centroids (`int`): Of its imputation; 0 for none.
        permuted (`bool`): Whether they change places.
        noise (`bool`): Whether the modality that is not tested is noise.
    """

    centroids: int = 0
    permuted: bool = False
    noise: bool = False

    def model(self) -> dict[str, Any]:
        """The arguments of its model, beside what the recipe says."""
        given: dict[str, Any] = {
            "fusion": "concat",
            "modality_dropout": self.setting.get("dropout", 0.0),
            "modality_loss_weight": self.setting.get("heads", 0.0),
        }
        if self.centroids:
            given |= {"imputation": "centroids", "imputation_options": {"num_centroids": self.centroids}}
        return given

    def callbacks(self) -> list[Any]:
        """New ones, for one run."""
        return [ModalityCentroids(permuted=self.permuted), ImputationError()] if self.centroids else []


def missing_arms(options: MissingOptions) -> list[MissingArm]:
    """What is compared where a modality is missing, at every share of complete samples.

    | arm | kind | |
    |---|---|---|
    | joint | baseline | zeros for an absent modality, as the training samples have it |
    | modality dropout | null | that, and complete samples lose a modality at random |
    | global mean | null | that, and an absent latent is the mean of the complete samples' |
    | permuted centroids | null | that of 16 centroids, which change places in every epoch and at the end |
    | centroids | co-learned | imputed from the other modality by 16 centroids |
    | late ensemble | reference | each modality alone, and the mean of their logits |

    Imputations have the same dropout, the same objective and as many updates; the late ensemble as many of each modality.
    """
    imputed: dict[str, Any] = {"grid": _IMPUTED}
    arms = [
        MissingArm("joint", "baseline", grid=_RATES),
        MissingArm("modality dropout", "null", grid=_DROPOUT),
        MissingArm("global mean", "null", centroids=1, **imputed),
        MissingArm("permuted centroids", "null", centroids=options.num_centroids, permuted=True, **imputed),
        MissingArm("centroids", "colearned", centroids=options.num_centroids, **imputed),
        MissingArm(
            "late ensemble", "reference", grid=_RATES, late_ensemble=True, ensemble_options={"shares_steps": False}
        ),
    ]
    shares = options.shares[:1] if options.choose else options.shares  # the first one's settings are those of all
    return [arm.at(SHARES, share) for share in shares for arm in arms]  # type: ignore[misc]


def one_at_test_arms(tested: str) -> list[MissingArm]:
    """What is compared where both modalities train and one is there at test: that one alone, both with modality dropout (the
    student of the one is tested), and as a null control both with noise for the other."""
    return [
        MissingArm(f"{tested} alone", "baseline", grid=_RATES, modality=tested),
        MissingArm("noise for the other", "null", grid=_BOTH, noise=True),
        MissingArm("trained with both", "colearned", grid=_BOTH),
    ]


# ---- data ----
def with_share_complete(dataset: Dataset, modalities: Sequence[str], share: float, seed: int) -> Dataset:
    """The dataset with a column `modality_mask`: a share of the samples is complete, every other one lacks one modality, as
    many the one as the other. With one seed, what is complete at a small share is so at every larger one.

    Args:
        dataset ([`datasets.Dataset`]): Of the format "torch".
        modalities (`Sequence[str]`): Their names in the model's order.
        share (`float`): From 0 to 1.
        seed (`int`): Of the draw.
    """
    order_N = np.random.default_rng(seed).permutation(len(dataset))
    mask_NM = np.ones((len(dataset), len(modalities)), dtype=bool)
    incomplete = order_N[round(share * len(dataset)) :]
    mask_NM[incomplete, np.arange(len(incomplete)) % len(modalities)] = False
    masked = dataset.with_format(None).add_column("modality_mask", list(mask_NM))
    return masked.with_format("torch")


def those_with(dataset: Dataset, modality: str, modalities: Sequence[str]) -> Dataset:
    """The samples whose `modality_mask` has the modality, and no mask."""
    if "modality_mask" not in dataset.column_names:
        return dataset
    mask_NM = np.asarray(dataset.with_format("numpy")["modality_mask"][:])
    kept = dataset.select(np.flatnonzero(mask_NM[:, list(modalities).index(modality)]))
    return kept.remove_columns("modality_mask")


def with_noise(dataset: Dataset, modality: str, seed: int) -> Dataset:
    """The dataset with Gaussian noise, of the mean and the covariance that it has, for a modality's features."""
    column = f"{modality}_features"
    features_NF = np.asarray(dataset.with_format("numpy")[column][:])
    mean_F = features_NF.mean(axis=0)
    drawn_NN = np.random.default_rng(seed).standard_normal((len(dataset), len(dataset)), dtype=np.float32)
    noise_NF = mean_F + drawn_NN @ (features_NF - mean_F) / np.float32(np.sqrt(len(dataset)))
    columns = {name: dataset.with_format("numpy")[name][:] for name in dataset.column_names}
    return Dataset.from_dict({**columns, column: noise_NF}).with_format("torch")


# ---- scores ----
@dataclass(frozen=True)
class MissingMetrics(ComputeMetrics):
    """Accuracies, first of all what the arms are compared on: the mean over which modality is missing, or that of the only
    one that is there.

    Args:
        only (`str`, *optional*): The modality that is there at test.
    """

    only: str | None = None

    @classmethod
    def of(cls, only: str | None) -> "MissingMetrics":
        """Of accuracies."""
        base = classification_metrics(("accuracy",))
        return cls(base.problem_type, base.measure, base.check, only)

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        found = super().__call__(evaluation)
        if self.only is not None:
            return {AT_TEST: found.get(f"accuracy_{self.only}", found["accuracy"]), **found}
        given = [value for name, value in found.items() if name.startswith("accuracy_given_")]
        return {MAIN: float(np.mean(given)), **found} if given else found


def scored_with_imputation(trainer: Any, test_dataset: Any, arm: str, kind: Any, **kwargs: Any) -> Run:
    """As [`~hf_colearn.experiments.scoring.scored_run`], with the error of the imputed latents: `imputation_mse_{modality}`,
    relative to their variance."""
    errors = {}
    if any(isinstance(callback, ImputationError) for callback in trainer.callback_handler.callbacks):
        trainer.evaluate(test_dataset)
        logged: Mapping[str, Any] = trainer.state.log_history.pop()
        start = "eval_imputation_error_"
        errors = {name.removeprefix(start): value for name, value in logged.items() if name.startswith(start)}
    run = scored_run(trainer, test_dataset, arm, kind, **kwargs)
    run.metrics |= {f"imputation_mse_{name}": value for name, value in errors.items()}
    return run
