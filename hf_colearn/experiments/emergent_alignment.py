"""Two modalities that never meet in training, aligned through a third: the arms, their pairs, and how a run is scored.

Source: "ImageBind: One Embedding Space To Bind Them All" (Girdhar et al., CVPR 2023). Shapes: N samples, F features, D
dimensions of a latent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import means_table
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.evaluation.modality_retrieval import ModalityRetrieval
from hf_colearn.evaluation.retrieval import retrieval_metrics
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.experiments.predicting import predicted
from hf_colearn.experiments.scoring import own_run
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.contrastive_alignment import ContrastiveAlignment
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.metric_names import called
from hf_colearn.utils.tables import text_table


MEASURED = ("recall_at_5", "recall_at_1", "recall_at_10", "map", "median_rank")  # arms are compared on the first
CHANCE = "_by_chance"
OWN, ANY, OF_CLASS = "own", "any", "class"  # whose latent a pair has
_GRID = ({"rate": 1.0, "temperature": 0.07}, {"rate": 1.0, "temperature": 0.2}, {"rate": 3.0, "temperature": 0.2})


@dataclass(frozen=True)
class AlignedArm(TunedArm):
    """An arm by the pairs that it is trained on; its setting is `rate` and `temperature`.

    Args:
        pairs (`tuple[str, ...]`): Of `"anchor-query"`, `"anchor-found"` and `"query-found"`, in equal parts.
        partner (`str`): Which sample's latent stands for the found modality in a pair: its own, that of any other sample, or
            that of another one of its class, the same throughout training.
    """

    pairs: tuple[str, ...] = ("anchor-query", "anchor-found")
    partner: str = OWN


def alignment_arms() -> list[AlignedArm]:
    """What is compared, each at its usual setting.

    | arm | kind | half of the training samples | the other half |
    |---|---|---|---|
    | query alone | baseline | anchor and query | - (the found modality's projection stays random) |
    | permuted pairs | null | anchor and query | anchor and the found modality of another sample |
    | pairs by class | null | anchor and query | anchor and the found modality of another sample of its class |
    | emergent alignment | co-learned | anchor and query | anchor and found modality |
    | direct pairs | reference | query and found modality | query and found modality |
    """
    return [
        AlignedArm("query alone", "baseline", grid=_GRID, pairs=("anchor-query",)),
        AlignedArm("permuted pairs", "null", grid=_GRID, partner=ANY),
        AlignedArm("pairs by class", "null", grid=_GRID, partner=OF_CLASS),
        AlignedArm("emergent alignment", "colearned", grid=_GRID),
        AlignedArm("direct pairs", "reference", grid=_GRID, pairs=("query-found",)),
    ]


class EmergentAlignment:
    """Builds the trainers of [`alignment_arms`], and scores them by how queries find the modality that they never met.

    Args:
        features (`Mapping[str, torch.Tensor]` of shape `(N, F)`): Of the training samples by modality.
        labels (`Sequence[int]`): Their classes, which no model sees.
        anchor, query, found (`str`): What both others are paired with, what asks, and what is asked.
        latent_dim, hidden_dim (`int`): Widths of the projections.
        scales (`Mapping[str, float]`): Of every modality's standardised features.
    """

    def __init__(
        self,
        features: Mapping[str, torch.Tensor],
        labels: Sequence[int],
        *,
        anchor: str,
        query: str,
        found: str,
        latent_dim: int,
        hidden_dim: int,
        scales: Mapping[str, float],
    ):
        self.features, self.labels_N = features, np.asarray(labels)
        self.roles = {"anchor": anchor, "query": query, "found": found}
        self.latent_dim, self.hidden_dim, self.scales = latent_dim, hidden_dim, scales
        self.metric = f"{query}_to_{found}_recall_at_5"

    def modalities_of(self, pair: str) -> tuple[str, str]:
        """As in `"anchor-query"` for `("image", "text")`."""
        first, second = (self.roles[role] for role in pair.split("-"))
        return first, second

    def make_trainer(self, arm: AlignedArm, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        pairs = [self.modalities_of(pair) for pair in arm.pairs]
        return CoLearningTrainer(
            self.make_model(),
            args,
            train_dataset=self.training_pairs(arm, args.seed),
            objective=ContrastiveAlignment(arm.setting["temperature"], pairs=pairs),
            alpha=ConstantAlpha(1.0, "contrastive"),
            callbacks=[ModalityRetrieval([(self.roles["query"], self.roles["found"])])],
        )

    def make_model(self) -> CoLearningForMultimodalClassification:
        """A projection a modality, and no classes."""
        configs = {
            name: FeatureBackboneConfig(x_NF.shape[1], [self.hidden_dim], standardized=True)
            for name, x_NF in self.features.items()
        }
        model = CoLearningForMultimodalClassification.from_backbones(configs, self.latent_dim, id2label={})
        for name, x_NF in self.features.items():
            model.encoders[name].backbone.set_statistics(x_NF, self.scales[name])
        return model

    def training_pairs(self, arm: AlignedArm, seed: int) -> Dataset:
        """The pairs of an arm: samples of two modalities each, and NaN in place of the third."""
        drawn = np.random.default_rng(seed)
        order_N = drawn.permutation(len(self.labels_N))
        halves = {"anchor-query": order_N[::2], "anchor-found": order_N[1::2], "query-found": order_N}
        parts = []
        for pair in arm.pairs:
            rows = halves[pair]
            sources = dict.fromkeys(self.modalities_of(pair), rows)
            if pair == "anchor-found" and arm.partner != OWN:
                sources[self.roles["found"]] = self._others(rows, by_class=arm.partner == OF_CLASS)
            parts.append(self._part(sources, len(rows)))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Dataset.from_dict(columns).with_format("torch")

    def _others(self, rows: np.ndarray, by_class: bool) -> np.ndarray:
        """For each row the next one in a circle, of all or of its class; one that is alone there keeps its own."""
        others = np.roll(rows, 1)
        for label in np.unique(self.labels_N[rows]) if by_class else ():
            of_class = np.flatnonzero(self.labels_N[rows] == label)
            others[of_class] = np.roll(rows[of_class], 1)
        return others

    def _part(self, sources: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
        part = {
            f"{name}_features": x_NF.numpy()[sources[name]]
            if name in sources
            else np.full((size, x_NF.shape[1]), np.nan, dtype=np.float32)
            for name, x_NF in self.features.items()
        }
        return part | {"modality_mask": np.tile([name in sources for name in self.features], (size, 1))}


def triples(features: Mapping[str, torch.Tensor], split: Dataset) -> Dataset:
    """What is scored: complete samples of a split with its `text` and `label`, of every text the first one alone."""
    first = np.unique(np.asarray(split["text"][:]), return_index=True)[1]
    columns = {f"{name}_features": x_NF.numpy()[first] for name, x_NF in features.items()}
    columns |= {name: np.asarray(split[name][:])[first] for name in ("text", "label")}
    return Dataset.from_dict(columns).cast_column("label", split.features["label"]).with_format("torch")


class FoundPartners:
    """Scores a run by retrieval among the test samples, as `run_recipe(score=...)` takes it.

    Of queries that ask for the found modality it has the recall at 5, 1 and 10, the mean average precision by sample and by
    class, and the median rank, each beside chance ([`~hf_colearn.evaluation.retrieval.retrieval_metrics`]); of the way back
    and of the pairs with the anchor the recall at 5. The predicted class of a query is that of the first latent that it finds.

    Args:
        anchor, query, found (`str`): As of [`EmergentAlignment`].
    """

    def __init__(self, anchor: str, query: str, found: str):
        self.pairs = ((query, found), (found, query), (anchor, query), (anchor, found))

    def __call__(self, trainer: Any, test_dataset: Dataset, arm: str, kind: Any, *, cost: Any = None, **_: Any) -> Run:
        latents = predicted(trainer, test_dataset.remove_columns(["text", "label"]), arm).modalities[
            "modality_latents"
        ]
        labels_N = np.asarray(test_dataset["label"][:])
        (query, found), *others = self.pairs
        measured = retrieval_metrics(latents[query], latents[found])
        by_class = retrieval_metrics(latents[query], latents[found], labels_N.tolist())
        names = [f"{name}{end}" for end in ("", CHANCE) for name in MEASURED]
        metrics = {f"{query}_to_{found}_{name}": measured[name] for name in names}
        metrics |= {f"{query}_to_{found}_map_by_class{end}": by_class[f"map{end}"] for end in ("", CHANCE)}
        for a, b in others:
            metrics[f"{a}_to_{b}_recall_at_5"] = retrieval_metrics(latents[a], latents[b])["recall_at_5"]
        q_ND, f_ND = (latents[name] / np.linalg.norm(latents[name], axis=1, keepdims=True) for name in self.pairs[0])
        return own_run(
            trainer,
            arm,
            kind,
            cost,
            labels_N,
            test_dataset.features["label"].names,
            metrics=metrics,
            predictions=labels_N[(q_ND @ f_ND.T).argmax(axis=1)],
            confidences=None,
            test=Samples(labels_N, modality_latents={name: z_ND.astype(np.float32) for name, z_ND in latents.items()}),
        )

    def table(self, runs: Sequence[Run]) -> str:
        """The means over the seeds by arm, in %, and what random orders have."""
        (query, found), *others = self.pairs
        metrics = ("recall_at_1", "recall_at_5", "recall_at_10", "map", "map_by_class")
        names = {f"{query}_to_{found}_{metric}": called(metric) for metric in metrics}
        by_chance = [100 * runs[0].metrics[f"{name}{CHANCE}"] for name in names]
        names |= {f"{a}_to_{b}_recall_at_5": f"{a} to {b}, at 5" for a, b in others}
        by_chance += [by_chance[1]] * len(others)  # of as many samples
        chance = ["by chance", *(f"{value:.2f}" for value in by_chance)]
        return text_table([*means_table(runs, names), chance])
