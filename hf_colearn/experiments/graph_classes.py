"""What the recipe of graph classes compares: where class vectors come from, and prototypes of classes that come later.

Shapes: N samples, C classes, F features, D latent width.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.corpora.concepts import ConceptTable
from hf_colearn.data.splits import with_validation
from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.experiments.frozen_features import encoded_splits
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.objectives.class_concepts import ClassConcepts
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.class_vectors import centred
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.few_shot_prototypes import few_shot_prototypes, text_to_latents
from hf_colearn.teachers.graph_vectors import permuted_classes, wordnet_vectors
from hf_colearn.trainer import CoLearningTrainer


_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_LOW_RATES = ({"rate": 0.1}, {"rate": 0.3}, {"rate": 1.0})  # what fits seen classes closely tells unseen ones less
_TARGETS = ({"alpha": 0.3, "rate": 1.0}, {"alpha": 0.5, "rate": 1.0}, {"alpha": 0.5, "rate": 3.0})
_NO_TEXT = tuple({"text_weight": 0.0, "rate": rate} for rate in (0.1, 0.3, 1.0))
_TEXT_WEIGHTS = tuple({"text_weight": weight, "rate": 0.3} for weight in (0.5, 1.0, 2.0))
PERMUTED, RANDOM = ", permuted", "random vectors"
TARGETS = "concepts as targets"
IMAGES, TEXT, OTHER_TEXT = "images", "images + text", "images + another class's text"


def class_arms() -> list[TunedArm]:
    """The arms of the first task, each with three settings.

    | arm | kind | the head |
    |---|---|---|
    | ordinary head | baseline | a linear layer on the latent |
    | one-hot vectors | null | class vectors that say nothing |
    | WordNet paths | co-learned | path similarities to all classes |
    | WordNet eigenvectors | co-learned | of the Laplacian of what is above the classes, as commute times |
    | concepts as vectors | co-learned | the rows of the table of concepts |
    | concepts as targets | co-learned | the ordinary one, and one that answers the questions in training |
    | each of these, permuted | null | as that, with the vector or the row of another class |
    """
    arms = [TunedArm("ordinary head", "baseline", grid=_RATES), TunedArm("one-hot vectors", "null", grid=_RATES)]
    for name in ("WordNet paths", "WordNet eigenvectors", "concepts as vectors", TARGETS):
        grid = _TARGETS if name == TARGETS else _RATES
        arms += [TunedArm(name, "colearned", grid=grid), TunedArm(name + PERMUTED, "null", grid=grid)]
    return arms


def few_shot_arms() -> list[TunedArm]:
    """The arms of the second task; images alone, which have no weight to choose, are tried with as many rates."""
    return [
        TunedArm(IMAGES, "baseline", grid=_NO_TEXT),
        TunedArm(TEXT, "colearned", grid=_TEXT_WEIGHTS),
        TunedArm(OTHER_TEXT, "null", grid=_TEXT_WEIGHTS),
    ]


def unseen_arms() -> list[TunedArm]:
    """The arms of the third task: heads of the first one, whose new classes have vectors that training has not seen.

    With random vectors nothing is known of a new class. In a permuted arm, the new classes have each other's vectors.
    """
    arms = [TunedArm(RANDOM, "baseline", grid=_LOW_RATES)]
    for name in ("WordNet paths", "WordNet eigenvectors", "concepts as vectors"):
        arms += [TunedArm(name, "colearned", grid=_LOW_RATES), TunedArm(name + PERMUTED, "null", grid=_LOW_RATES)]
    return arms


def read_synsets(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """The WordNet sense of these classes, from a csv with the columns `class` and `synset`."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["class"]: row["synset"] for row in csv.DictReader(file) if row["class"] in classes}


class ClassKnowledge:
    """What is known of the classes beside their pictures.

    Args:
        classes (`Sequence[str]`): Their names, in the labels' order.
        synsets (`Mapping[str, str]`): The WordNet sense of each.
        table ([`ConceptTable`]): With a row of each.
        seen (`Sequence[str]`, *optional*): The classes that paths lead to, and whose mean is that of the vectors; all by
            default.
    """

    def __init__(
        self,
        classes: Sequence[str],
        synsets: Mapping[str, str],
        table: ConceptTable,
        seen: Sequence[str] | None = None,
    ):
        self.classes, self.seen = list(classes), list(classes if seen is None else seen)
        rows_CQ = table.answers(self.classes)
        paths = wordnet_vectors(self.classes, synsets=synsets)
        self.similarities_CC = torch.stack(list(paths.values())).numpy()
        to_seen = wordnet_vectors(self.classes, anchors=self.seen, synsets=synsets)
        random_CD = torch.from_numpy(np.random.default_rng(0).standard_normal((len(self.classes), 64))).float()
        self._known = {
            "one-hot vectors": dict(zip(self.classes, torch.eye(len(self.classes)), strict=True)),
            RANDOM: dict(zip(self.classes, random_CD, strict=True)),
            "WordNet paths": centred(to_seen, self.seen),
            "WordNet eigenvectors": wordnet_vectors(self.classes, "commute_time", synsets=synsets),
            "concepts as vectors": centred(dict(zip(self.classes, rows_CQ, strict=True)), self.seen),
            TARGETS: dict(zip(self.classes, rows_CQ, strict=True)),
        }

    def of(self, arm: TunedArm, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What an arm of [`class_arms`] has of it: arguments of `from_backbone`, and of the trainer."""
        known = self._known.get(arm.method.removesuffix(PERMUTED))
        if known is None:
            return {"latent_dim": len(self.classes)}, {}
        if arm.method.endswith(PERMUTED):
            known = permuted_classes(known, seed)
        if not arm.method.startswith(TARGETS):
            return {"head": "prototypes", "class_vectors": known}, {}
        answers_CQ = torch.stack(list(known.values()))
        heads = {"latent_dim": len(self.classes), "training_heads": {"concepts": answers_CQ.shape[1]}}
        alpha = ConstantAlpha({"concepts": arm.setting["alpha"]})
        return heads, {"objective": ClassConcepts(answers_CQ), "alpha": alpha}

    def unseen(self, arm: TunedArm, seed: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """What an arm of [`unseen_arms`] has of it: arguments of `from_backbone` for the seen classes, and the vectors of the
        others."""
        known = self._known[arm.method.removesuffix(PERMUTED)]
        later = {name: known[name] for name in self.classes if name not in self.seen}
        if arm.method.endswith(PERMUTED):
            later = permuted_classes(later, seed)
        return {"head": "prototypes", "class_vectors": {name: known[name] for name in self.seen}}, later

    def metrics(self, of_classes: ComputeMetrics) -> ComputeMetrics:
        """Those metrics, and `path_similarity`: how near the predicted class is to the true one in WordNet, 1 if it is that."""

        def measure(logits_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
            nearness_N = self.similarities_CC[logits_NC.argmax(axis=1), labels_N]
            return of_classes.measure(logits_NC, labels_N) | {"path_similarity": float(nearness_N.mean())}

        return replace(of_classes, measure=measure)


# ---- data ----
@dataclass(frozen=True)
class EncodedEmoji:
    """Emoji of one split.

    Args:
        images (`torch.Tensor` of shape `(N, F)`): Features of the pictures.
        texts (`torch.Tensor` of shape `(N, E)`): Latents of the emoji's names.
        labels (`np.ndarray` of shape `(N,)`): Their classes.
        names (`Sequence[str]`): Of the classes.
        class_texts (`torch.Tensor` of shape `(C, E)`): Latents of the classes' names.
    """

    images: torch.Tensor
    texts: torch.Tensor
    labels: np.ndarray
    names: Sequence[str]
    class_texts: torch.Tensor

    def at(self, rows: np.ndarray) -> "EncodedEmoji":
        """Those of some rows."""
        return replace(self, images=self.images[rows], texts=self.texts[rows], labels=self.labels[rows])

    def of(self, classes: np.ndarray) -> "EncodedEmoji":
        """Those of some classes, in ascending order, which are counted anew."""
        chosen = self.at(np.flatnonzero(np.isin(self.labels, classes)))
        names, labels = [self.names[label] for label in classes], np.searchsorted(classes, chosen.labels)
        return replace(chosen, labels=labels, names=names, class_texts=self.class_texts[classes])

    def dataset(self) -> Dataset:
        """With `features`, `labels` and the `row` here, as torch tensors."""
        columns = {"features": self.images.numpy(), "labels": self.labels, "row": np.arange(len(self.labels))}
        return Dataset.from_dict(columns).with_format("torch")


def encoded_emoji(
    raw: Mapping[str, Dataset], image: FrozenEncoder, text: FrozenEncoder, seed: int, validation_share: float = 0.3
) -> dict[str, EncodedEmoji]:
    """The splits of [`~hf_colearn.corpora.emoji.load_emoji`], and a validation one that is cut from training.

    See [`~hf_colearn.experiments.frozen_features.encoded_splits`].
    """
    parts = with_validation(raw, validation_share, seed)
    images, texts = encoded_splits(parts, image, "image", "emoji"), encoded_splits(parts, text, "text", "emoji")
    classes = parts["train"].features["label"].names
    of_classes = TeacherBank.encode(
        text, [name.replace("-", " ").replace("&", "and") for name in classes], show_progress=False
    )
    class_texts_CE = of_classes.lookup(np.arange(len(classes)))
    return {
        split: EncodedEmoji(images[split], texts[split], np.asarray(part["label"][:]), classes, class_texts_CE)
        for split, part in parts.items()
    }


def student_of(seen: EncodedEmoji, **head: Any) -> CoLearningForFeatureClassification:
    """A small network of these classes, on features that are standardised by theirs; `head` is for `from_backbone`."""
    config = FeatureBackboneConfig(seen.images.shape[1], [128], standardized=True)
    known = dict(enumerate(seen.names))
    student = CoLearningForFeatureClassification.from_backbone(config, id2label=known, latent_norm="none", **head)
    student.backbone.set_statistics(seen.images, scale=0.1)  # close to a linear classifier, as few labels need
    return student


# ---- classes that come later ----
class LaterClassesTrainer(CoLearningTrainer):
    """Trains a student on some classes; after that it knows others alone, by vectors that training has not seen.

    Args:
        later (`Callable`): From the trained student to the vectors of the new classes, in the order of their labels.
        examples ([`datasets.Dataset`]): Of the new classes; what a run shows beside the test set.
    """

    model: Any

    def __init__(self, *args: Any, later: Callable[[Any], dict[str, torch.Tensor]], examples: Dataset, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.later, self.examples = later, examples

    # The classes change once the weights are trained, and before anything is scored.
    def train(self, *args: Any, **kwargs: Any) -> Any:
        trained = super().train(*args, **kwargs)
        self.model = self.model_wrapped = self.model.with_classes(self.later(self.model.eval()), keep=False)
        self.train_dataset = self.examples
        return trained


def shot_vectors(
    student: Any, arm: TunedArm, seed: int, seen: EncodedEmoji, shots: EncodedEmoji
) -> dict[str, torch.Tensor]:
    """The prototypes of new classes by an arm of [`few_shot_arms`], in the order of their labels.

    Args:
        student: Trained on the seen classes.
        arm ([`TunedArm`]): With its `text_weight`.
        seed (`int`): Draws whose text is another class's.
        seen ([`EncodedEmoji`]): Its texts are translated into the student's latents.
        shots ([`EncodedEmoji`]): A few emoji of every new class; what is read of it are its name and theirs.
    """
    generated = None
    if arm.method != IMAGES:
        generate, generated = text_to_latents(seen.texts, latents_of(student, seen)), {}
        for label, name in enumerate(shots.names):
            texts_ME = torch.cat([shots.class_texts[[label]], shots.texts[shots.labels == label]])
            generated[name] = generate(texts_ME)
        if arm.method == OTHER_TEXT:
            generated = permuted_classes(generated, seed)
    classes, weight = [shots.names[label] for label in shots.labels], arm.setting["text_weight"]
    prototypes = few_shot_prototypes(latents_of(student, shots), classes, generated, weight)
    return {name: prototypes[name] for name in shots.names}


@torch.no_grad()
def latents_of(student: Any, emoji: EncodedEmoji) -> torch.Tensor:
    """The student's latents `(N, D)`."""
    return student(features=emoji.images.to(student.device)).latents.cpu()
