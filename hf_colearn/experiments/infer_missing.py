"""The latent of a text that is missing, inferred from the other modalities: the arms, their trainers, and retrieval.

Shapes: N known samples, which are trained on and retrieved, M held-out ones, F features of a modality, D latent width, H width
of a joint latent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.evaluation.retrieval import retrieval_metrics, retrieval_scores
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.scoring import own_run
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.lora import base_model
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.latent_imputation import LatentImputation
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.training.centroids import ModalityCentroids
from hf_colearn.utils.extras import extra


TEXT = "text"  # what is inferred
SCORES = ("map", "precision_at_10")  # by class
CHANCE = "map_by_chance"
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_SHARES = ({"share": 0.25}, {"share": 0.5}, {"share": 1.0})  # of the latent's components
_PENALTIES = ({"penalty": 30.0}, {"penalty": 300.0}, {"penalty": 3000.0})
_NEIGHBOURS = ({"neighbours": 3}, {"neighbours": 10}, {"neighbours": 30})


@dataclass(frozen=True)
class InferenceArm(TunedArm):
    """One arm; `rate` of its setting is that of a network, all others are of what is solved or looked up, and not trained.

    Args:
        imputation (`str`, *optional*): That of its model, where it is trained.
        permuted (`bool`): Whether every modality's samples are permuted in training.
    """

    imputation: str | None = None
    permuted: bool = False

    @property
    def infers(self) -> bool:
        """Whether its query is a latent that is inferred."""
        return self.imputation is not None or not {"penalty", "neighbours"}.isdisjoint(self.setting)

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run, such that no weight changes where nothing is trained."""
        still = {} if self.imputation is not None else {"learning_rate": 0.0, "max_steps": 1, "warmup_steps": 0}
        return super().arguments({**training, **still}, seed)


def inference_arms() -> list[InferenceArm]:
    """What is compared, each at its usual setting.

    | arm | kind | the query, and what it is compared with |
    |---|---|---|
    | unimodal query | baseline | the given modality's latent, with those of known samples: nothing is inferred |
    | mean text | null | the mean direction of the known texts, whatever is given, with known texts |
    | permuted pairs | null | the text that the autoencoder infers after training on wrong triples, with known texts |
    | masked autoencoder | co-learned | the text that it infers, with known texts |
    | centroids | reference | the same of imputation by centroids |
    | ridge regression, nearest neighbours | reference | the same of a regression for every set of modalities that is given |
    | true text | reference | the held-out sample's own text, with known texts |
    """
    return [
        InferenceArm("unimodal query", "baseline", grid=_SHARES),
        InferenceArm("mean text", "null", grid=_SHARES),
        InferenceArm("permuted pairs", "null", grid=_RATES, imputation="autoencoder", permuted=True),
        InferenceArm("masked autoencoder", "colearned", grid=_RATES, imputation="autoencoder"),
        InferenceArm("centroids", "reference", grid=_RATES, imputation="centroids"),
        InferenceArm("ridge regression", "reference", grid=_PENALTIES),
        InferenceArm("nearest neighbours", "reference", grid=_NEIGHBOURS),
        InferenceArm("true text", "reference", grid=_SHARES),
    ]


def feature_rows(features: Mapping[str, torch.Tensor], labels: Sequence[int], sentences: Sequence[str]) -> Dataset:
    """A dataset of `{modality}_features`, `labels` and `sentence`, as torch tensors and texts."""
    columns: dict[str, Any] = {f"{name}_features": x_NF.numpy() for name, x_NF in features.items()}
    columns |= {"labels": np.asarray(labels), "sentence": list(sentences)}
    return Dataset.from_dict(columns).with_format("torch")


@dataclass(frozen=True)
class Split:
    """The known and the held-out samples of a seed, the state of the encoders, and both parts' latents by modality."""

    known: Dataset
    held_out: Dataset
    encoders: Mapping[str, torch.Tensor]
    known_latents: Mapping[str, torch.Tensor]
    latents: Mapping[str, torch.Tensor]


class Inference:
    """Builds the trainers of the arms and scores what they infer, as `run_recipe` takes both.

    Every seed has a split of its own. The latents of a modality are the principal components of its standardised features, in
    units of their root mean square, by the known samples: a fixed space, in which an inferred latent and a true one are
    compared, and which no training can make collapse. Known samples are trained on without their labels, and they are what is
    retrieved: queries come from held-out samples, of which the text is hidden. What is relevant has the query's class.

    Args:
        samples ([`datasets.Dataset`]): All of them, of [`feature_rows`].
        split (`Callable[[int], tuple]`): From a seed to the rows of the known and of the held-out samples.
        modalities (`Sequence[str]`): `"text"` and what it is inferred from.
        given (`str`): The one of them that the main metrics are given.
        classes (`Sequence[str]`): Their names.
        plans (`Sequence[InferenceArm]`): By whose names a run is scored.
        latent_dim (`int`): D, at most N and the narrowest F.
        autoencoder, centroids (`Mapping`): The options of these imputations.
    """

    def __init__(
        self,
        samples: Dataset,
        split: Callable[[int], tuple[Sequence[int], Sequence[int]]],
        modalities: Sequence[str],
        given: str,
        classes: Sequence[str],
        plans: Sequence[InferenceArm],
        *,
        latent_dim: int,
        autoencoder: Mapping[str, Any],
        centroids: Mapping[str, Any],
    ):
        self.samples, self.rows, self.latent_dim = samples, split, latent_dim
        self.given, self.classes, self.modalities = given, list(classes), list(modalities)
        self.plans = {plan.name: plan for plan in plans}
        self.options = {"autoencoder": autoencoder, "centroids": centroids}
        self.split = cache(self._split)
        others = [name for name in self.modalities if name != TEXT]
        self.subsets = [*chain.from_iterable(combinations(others, size) for size in range(1, len(others) + 1))]

    def _split(self, seed: int) -> Split:
        known, held_out = (self.samples.select(rows) for rows in self.rows(seed))
        is_known_M = np.isin(held_out["labels"][:], known["labels"][:])  # or nothing would be relevant
        held_out = held_out.select(np.flatnonzero(is_known_M))
        model = self._model()
        for name, encoder in model.encoders.items():
            set_principal_components(encoder, known[f"{name}_features"][:])
        latents = (self.outputs(model, part).modality_latents for part in (known, held_out))
        return Split(known, held_out, model.encoders.state_dict(), *latents)

    # ---- training ----
    def _model(self, **kwargs: Any) -> CoLearningForMultimodalClassification:
        """A new one, whose encoders no training changes."""
        widths = {name: self.samples[f"{name}_features"][0].shape[0] for name in self.modalities}
        backbones = {name: FeatureBackboneConfig(width, standardized=True) for name, width in widths.items()}
        model = CoLearningForMultimodalClassification.from_backbones(backbones, self.latent_dim, id2label={}, **kwargs)
        model.encoders.requires_grad_(False)
        return model

    def make_trainer(self, arm: InferenceArm, args: CoLearningArguments) -> "InferenceTrainer":
        """The trainer of an arm, of whose evaluation see [`InferenceTrainer`]. It sees no labels."""
        split = self.split(args.seed)
        train = split.known.remove_columns(["labels", "sentence"])
        if arm.permuted:
            train = permuted_rows(train, args.seed)
        kind = arm.imputation or "autoencoder"
        model = self._model(imputation=kind, imputation_options=self.options[kind])
        model.encoders.load_state_dict(split.encoders)
        learned: dict[str, Any] = {}
        if arm.imputation is not None:
            learned = {"objective": LatentImputation(), "alpha": ConstantAlpha(1.0, "imputation")}
        callbacks = [ModalityCentroids(every=10_000)] if kind == "centroids" else []  # once, as the latents stay
        return InferenceTrainer(self, arm, model, args, train_dataset=train, callbacks=callbacks, **learned)

    # ---- scores ----
    def outputs(self, model: Any, part: Dataset, given: Sequence[str] | None = None) -> Any:
        """What a model makes of all samples, given some modalities, on the CPU."""
        inputs = {f"{name}_features": part[f"{name}_features"][:] for name in given or self.modalities}
        with torch.no_grad():
            return model.cpu().eval()(**inputs)

    def query(
        self, arm: InferenceArm, model: Any, seed: int, given: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries `(M, D)` of the held-out samples, given some modalities, and what they are compared with, `(N, D)`."""
        split = self.split(seed)
        texts_ND = split.known_latents[TEXT]
        width = round(arm.setting.get("share", 1.0) * self.latent_dim)
        asked_MX, known_NX = (
            torch.cat([latents[name][:, :width] for name in given], dim=1)
            for latents in (split.latents, split.known_latents)
        )
        match arm.method:
            case "unimodal query":
                return asked_MX, known_NX
            case "true text":
                return split.latents[TEXT][:, :width], texts_ND[:, :width]
            case "mean text":
                mean_D = F.normalize(texts_ND[:, :width]).mean(dim=0)
                return mean_D.expand(len(asked_MX), -1), texts_ND[:, :width]
            case "ridge regression" | "nearest neighbours":
                return regressed(arm.setting, known_NX, texts_ND, asked_MX), texts_ND
        return self.outputs(model, split.held_out, given).imputed_latents[TEXT], texts_ND

    def by_class(
        self, seed: int, queries_MD: torch.Tensor, known_ND: torch.Tensor, names: Sequence[str] = SCORES
    ) -> dict[str, float]:
        """Scores of queries among what is known: what has their class is relevant."""
        split = self.split(seed)
        asked, known = (part["labels"][:].tolist() for part in (split.held_out, split.known))
        found = retrieval_metrics(queries_MD.numpy(), known_ND.numpy(), asked, known, at=(10,))
        return {name: found[name] for name in names}

    def metrics(self, arm: InferenceArm, model: Any, seed: int) -> dict[str, float]:
        """The metrics of an arm's queries: by class given one modality, as `{metric}_from_{modalities}` given others, of joint
        latents as `joint_{metric}` and, with the text, `joint_{metric}_with_text`; and how near they are to the own text."""
        found: dict[str, float] = {}
        split, main = self.split(seed), (self.given,)
        for given in [main, *(subset for subset in self.subsets if subset != main)]:
            queries_MD, known_ND = self.query(arm, model, seed, given)
            end, names = ("", (*SCORES, CHANCE)) if given == main else (f"_from_{'_'.join(given)}", SCORES)
            by_class = self.by_class(seed, queries_MD, known_ND, names)
            found |= {f"{name}{end}": value for name, value in by_class.items()}
            if arm.infers:
                partners = split.held_out["sentence"][:]
                own = retrieval_scores(queries_MD.numpy(), split.latents[TEXT].numpy(), partners)
                found |= {f"{name}{end}": own[name] for name in ("recall_at_5", "explained_variance")}
        if arm.imputation == "autoencoder":
            known_NH = self.outputs(model, split.known).joint_latents
            for end, given in (("", main), (f"_with_{TEXT}", (self.given, TEXT))):
                joint_MH = self.outputs(model, split.held_out, given).joint_latents
                found |= {f"joint_{name}{end}": x for name, x in self.by_class(seed, joint_MH, known_NH).items()}
        return found

    def __call__(
        self,
        trainer: "InferenceTrainer",
        test_dataset: Dataset,
        arm: str,
        kind: Any,
        *,
        cost: Cost | None = None,
        **_: Any,
    ) -> Run:
        """The run of a trained arm; a held-out sample is predicted to have the class of what it retrieves first."""
        plan, model, seed = self.plans[arm], base_model(trainer.model), trainer.args.seed
        split = self.split(seed)
        queries_MD, known_ND = self.query(plan, model, seed, (self.given,))
        first_M = (F.normalize(queries_MD) @ F.normalize(known_ND).T).argmax(dim=1)
        labels_M = split.held_out["labels"][:].numpy()
        return own_run(
            trainer,
            arm,
            kind,
            cost,
            labels_M,
            self.classes,
            metrics=self.metrics(plan, model, seed),
            predictions=split.known["labels"][:].numpy()[first_M],
            confidences=None,
            test=Samples(labels_M, queries_MD.numpy()),
        )


class InferenceTrainer(CoLearningTrainer):
    """Its evaluation is retrieval by what is inferred, of the held-out samples of an [`Inference`]."""

    def __init__(self, inference: Inference, arm: InferenceArm, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.inference, self.arm = inference, arm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        # Of all samples together, which ask each other.
        found = self.inference.metrics(self.arm, base_model(self.model), self.args.seed)
        return {f"eval_{name}": value for name, value in found.items()}


# ---- latents ----
def set_principal_components(student: Any, features_NF: torch.Tensor) -> None:
    """Makes a student's latents the first D principal components of its standardised features, in the order of their
    variance, divided by the root mean square of them all.

    Args:
        student ([`CoLearningForFeatureClassification`]): Without hidden layers.
        features_NF (`torch.Tensor` of shape `(N, F)`): What the components are of.

    Raises:
        ValueError: If there are fewer than D.
    """
    head, backbone = student.latent_head, student.backbone
    if head.out_features > min(features_NF.shape):
        raise ValueError(
            f"latent_dim={head.out_features}, and {features_NF.shape[0]} samples of {features_NF.shape[1]} features have "
            f"{min(features_NF.shape)} principal components at most: pass no larger latent_dim."
        )
    backbone.set_statistics(features_NF)
    with torch.no_grad():
        standardized_NF = backbone(features_NF).last_hidden_state[:, 0]
        axes_DF = torch.linalg.svd(standardized_NF, full_matrices=False).Vh[: head.out_features]
        scale = (standardized_NF @ axes_DF.T).square().mean().sqrt()
        head.weight.copy_(axes_DF / scale)
        head.bias.zero_()


def regressed(
    setting: Mapping[str, float], known_NX: torch.Tensor, texts_ND: torch.Tensor, asked_MX: torch.Tensor
) -> torch.Tensor:
    """What a ridge regression of a penalty, or the mean over so many nearest neighbours by cosine, makes of the inputs."""
    with extra("report", "regressions are scikit-learn's"):
        from sklearn.linear_model import Ridge
        from sklearn.neighbors import KNeighborsRegressor
    if "penalty" in setting:
        regression: Any = Ridge(alpha=setting["penalty"])
    else:
        regression = KNeighborsRegressor(min(int(setting["neighbours"]), len(known_NX)), metric="cosine")
    regression.fit(known_NX.numpy(), texts_ND.numpy())
    return torch.from_numpy(regression.predict(asked_MX.numpy())).float()


def permuted_rows(dataset: Dataset, seed: int) -> Dataset:
    """The dataset with the rows of every column permuted, each on its own: wrong pairs, each modality as it was."""
    rng = np.random.default_rng(seed)
    columns = {name: dataset[name][:].numpy()[rng.permutation(len(dataset))] for name in dataset.column_names}
    return Dataset.from_dict(columns).with_format("torch")
