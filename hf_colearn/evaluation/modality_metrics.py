"""Metrics of the modalities of a run in the trainer's logs, and so in whatever `report_to` names.

Shapes: B samples of a batch, M modalities, D dimensions of a latent, C classes.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hf_colearn.models.heads import label_mask
from hf_colearn.models.lora import trained_layer
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.models.student import CoLearningStudent
from hf_colearn.utils import distributed
from hf_colearn.utils.callback import CoLearningCallback


MULTI_LABEL = "multi_label_classification"


class ModalityMetrics(CoLearningCallback):
    """Base of the metrics of single modalities, passed in the trainer's `callbacks`. Subclasses give `sums`.

    Sums over samples are kept on the device and read once a log. Training's metrics go over the samples since the last
    log, while the weights move; evaluation's go over the evaluation set, of which the rows that fill up the last batch of a
    distributed evaluation count, too.
    """

    reads: tuple[str, ...] = ()  # what the model's output must hold
    prefix = ""  # of the curves' names
    problem_type: str | None = None  # the only one that it measures

    def __init__(self):
        self._sums: dict[bool, dict[str, torch.Tensor]] = {True: {}, False: {}}  # of training, of evaluation

    def sums(
        self, outputs: Mapping[str, Any], labels: torch.Tensor | None, model: nn.Module, training: bool
    ) -> dict[str, torch.Tensor]:
        """What a batch adds, by modality: vectors of one length. Called without gradients."""
        raise NotImplementedError

    def curves(self, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """The values of the sums over all steps and processes, on the CPU; here the means of `sum_and_count`."""
        return {
            f"{self.prefix}_{name}".removesuffix("_"): (total / count).item()
            for name, (total, count) in sums.items()
            if count > 0
        }

    def on_outputs(self, outputs, batch, model, training):
        # Raises a ValueError if the outputs lack what is read; it names the model.
        found = [key for key in outputs if outputs[key] is not None] if isinstance(outputs, Mapping) else []
        if missing := [key for key in self.reads if key not in found]:
            raise ValueError(
                f"{type(self).__name__} reads {', '.join(missing)} of the model's output, and {type(model).__name__} gives "
                f"{found or type(outputs).__name__}: pass a CoLearningForMultimodalClassification, or leave the callback out."
            )
        total = self._sums[training]
        with torch.no_grad():
            for name, value in self.sums(outputs, batch.labels, model, training).items():
                total[name] = total[name] + value if name in total else value

    def metrics(self, training: bool) -> dict[str, float]:
        sums, self._sums[training] = self._sums[training], {}
        values = torch.stack(list(sums.values())).cpu() if sums else torch.empty(0)
        total: dict[str, torch.Tensor] = {}
        # As objects, since a process may have seen no batch of a small evaluation set, and knows no shapes then.
        for names, of_process in distributed.from_all_processes((list(sums), values)):
            for name, value in zip(names, of_process, strict=True):
                total[name] = total[name] + value if name in total else value
        return self.curves(total) if total else {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if self.problem_type is not None:
            _check_problem(self, model)
        self._sums = {True: {}, False: {}}

    def on_predict(self, args, state, control, metrics, **kwargs):
        self._sums[False] = {}  # predictions are not logged


class ModalityGap(ModalityMetrics):
    r"""The distance between two modalities' latents: `modality_gap_{a}_{b}` for every pair.

    \\(\| \frac{1}{n_a} \sum_i z_i^a / \|z_i^a\| - \frac{1}{n_b} \sum_i z_i^b / \|z_i^b\| \|_2\\), the Euclidean distance
    between the means of the normalised latents, each over the samples that have the modality: from 0 to 2, whatever
    their scale. A pair of which one is absent throughout has no value.

    Source: section 4.2 of Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
    Representation Learning" (NeurIPS 2022).

    Example:

    ```python
    trainer = CoLearningTrainer(model, args, train_dataset=train, callbacks=[ModalityGap(), ModalityAccuracy()])
    ```
    """

    reads = ("modality_latents",)

    def sums(self, outputs, labels, model, training):
        latents = outputs["modality_latents"]
        if len({z_BD.shape[-1] for z_BD in latents.values()}) > 1:
            widths = {name: z_BD.shape[-1] for name, z_BD in latents.items()}
            raise ValueError(f"the modality gap needs latents of one width, and they have {widths}: leave it out.")
        return {
            # The absent ones' latents mean nothing.
            name: sum_and_count(F.normalize(latents[name].float(), dim=-1), present_B)
            for name, present_B in _present(outputs, latents).items()
        }

    def curves(self, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
        means = {name: value[:-1] / value[-1] for name, value in sums.items() if value[-1] > 0}
        return {
            f"modality_gap_{a}_{b}": torch.linalg.vector_norm(means[a] - means[b]).item()
            for a, b in itertools.combinations(means, 2)
        }


class ModalityAccuracy(ModalityMetrics):
    """Every modality's own accuracy in training: `accuracy_{modality}`, in [0, 1], over the samples that have it.

    For single-label classification; [`ModalityF1`] and [`ModalityError`] are for several labels and for regression. Soft
    labels count by their largest entry, and samples without a label do not. In evaluation [`classification_metrics`] gives
    the same names, so this adds nothing there.
    """

    reads, prefix, problem_type = ("modality_logits",), "accuracy", "single_label_classification"

    def sums(self, outputs, labels, model, training):
        if not training:
            return {}
        logits = outputs["modality_logits"]
        labels_B, counts_B = _classes(labels, "ModalityAccuracy")
        hits = {name: (logits_BC.argmax(dim=-1) == labels_B).float() for name, logits_BC in logits.items()}
        return {
            name: sum_and_count(hits[name][:, None], present_B & counts_B)
            for name, present_B in _present(outputs, logits).items()
        }


class ModalityF1(ModalityMetrics):
    """Every modality's own F1 in multi-label training: `f1_micro_{modality}`, in [0, 1], over the samples that have it.

    Of all entries of all classes together; a class is predicted where its logit is above 0, and entries without a label do
    not count. In evaluation [`multi_label_metrics`] gives the same names, so this adds nothing there.
    """

    reads, prefix, problem_type = ("modality_logits",), "f1_micro", MULTI_LABEL

    def sums(self, outputs, labels, model, training):
        if not training:
            return {}
        logits, labels_BC = outputs["modality_logits"], _given(labels, "ModalityF1")
        counts_BC, is_positive_BC = label_mask(labels_BC, MULTI_LABEL), labels_BC == 1
        found = {}
        for name, present_B in _present(outputs, logits).items():
            is_predicted_BC = (logits[name] > 0) & counts_BC
            hits_BC, claims_BC = 2.0 * (is_predicted_BC & is_positive_BC), 1.0 * is_predicted_BC + is_positive_BC
            each_B2 = torch.stack([hits_BC.sum(dim=-1), claims_BC.sum(dim=-1)], dim=-1)
            found[name] = sum_and_count(each_B2, present_B & counts_BC.any(dim=-1))
        return found

    def curves(self, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return {
            f"{self.prefix}_{name}": (hits / claims.clamp(min=1)).item()
            for name, (hits, claims, count) in sums.items()
            if count > 0
        }


class ModalityError(ModalityMetrics):
    """Every modality's own error in training a regression: `mse_{modality}`, in the labels' unit squared.

    The mean squared difference over the labels of the samples that have the modality. In evaluation
    [`regression_metrics`] gives the same names, so this adds nothing there.
    """

    reads, prefix, problem_type = ("modality_logits",), "mse", "regression"

    def sums(self, outputs, labels, model, training):
        if not training:
            return {}
        logits, labels = outputs["modality_logits"], _given(labels, "ModalityError")
        labels_BC = labels.float().reshape(len(labels), -1)
        counts_BC, found = label_mask(labels_BC, "regression"), {}
        for name, present_B in _present(outputs, logits).items():
            is_here_BC = counts_BC & present_B[:, None]
            errors_BC = torch.where(is_here_BC, logits[name].float() - labels_BC, 0.0).pow(2)
            found[name] = torch.stack([errors_BC.sum(), is_here_BC.sum().to(errors_BC.dtype)])
        return found


class LabelAlignment(ModalityMetrics):
    r"""How well features point at their labels: the mean cosine of a latent and its true class's weights.

    \\(\frac{1}{n} \sum_i \cos(z_i, w_{y_i})\\), from -1 to 1, where z is the latent `(D,)` that a linear classifier reads,
    and w the row `(D,)` of its weights for the sample's class, as it is at that step; the bias has no part in it.

    A multimodal model has a curve a modality, `label_alignment_{modality}`, of its own head and the samples that have it.
    A student has one, `label_alignment`, where its classifier is a single linear layer on the latent
    (`head="bottleneck"` without a `classifier_dim`). Soft labels count by their largest entry, and labels of -100 do not.
    A forward in evaluation mode without labels, such as a prediction, adds nothing.

    Source: figure 4 of Yang et al., "Facilitating Multimodal Classification via Dynamically Learning Modality Gap"
    (NeurIPS 2024), the similarity of features and labels while training.
    """

    reads, prefix = ("latents",), "label_alignment"

    def sums(self, outputs, labels, model, training):
        if not training and labels is None:
            return {}
        owner, students = _students(model)
        if owner.config.problem_type in ("multi_label_classification", "regression"):
            raise ValueError(
                f"LabelAlignment compares a latent with the weights of its one true class, and {type(owner).__name__} is "
                f"trained with problem_type='{owner.config.problem_type}': leave the callback out."
            )
        latents = outputs["modality_latents"] if "" not in students else {"": outputs["latents"]}
        labels_B, counts_B = _classes(labels, "LabelAlignment")
        return {
            name: sum_and_count(
                label_cosines(latents[name], _class_weights(students[name], latents[name]), labels_B)[:, None],
                present_B & counts_B,
            )
            for name, present_B in _present(outputs, latents).items()
        }


def label_cosines(z_BD: torch.Tensor, weight_CD: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """The cosine of each latent and the weights of its class, `(B,)`; where the label is -100, of any class."""
    w_BD = weight_CD.float()[labels_B.clamp(min=0)]
    return (F.normalize(z_BD.float(), dim=-1) * F.normalize(w_BD, dim=-1)).sum(dim=-1)


def _students(model: nn.Module) -> tuple[Any, dict[str, CoLearningStudent]]:
    """The co-learning model within wrappers such as PEFT's, and its encoders by modality; a student is the encoder ""."""
    for module in model.modules():  # a wrapper comes before what it wraps, and a model before its encoders
        if isinstance(module, CoLearningForMultimodalClassification):
            return module, dict(module.encoders.items())
        if isinstance(module, CoLearningStudent):
            return module, {"": module}
    raise ValueError(
        f"LabelAlignment reads the weights of a co-learning student's classifier, and {type(model).__name__} is none: "
        "build one with `CoLearningFor...Classification.from_backbone`, or leave the callback out."
    )


def _class_weights(student: CoLearningStudent, z_BD: torch.Tensor) -> torch.Tensor:
    """The weights `(C, D)` of the linear layer that reads the latent."""
    if student.config.head != "bottleneck":
        raise ValueError(
            f"LabelAlignment needs a classifier that reads the latent, and that of a student with "
            f"head='{student.config.head}' reads the backbone's features: use head='bottleneck', or leave the callback out."
        )
    layer = trained_layer(student.classifier)
    if not isinstance(layer, nn.Linear):
        kind = f"{type(layer).__module__.split('.')[0]}'s {type(layer).__name__}"
        kind = "two layers (classifier_dim)" if isinstance(layer, nn.Sequential) else kind
        raise ValueError(
            f"LabelAlignment needs a classifier with one row of weights a class, and the student's is {kind}: make it a "
            "single linear layer (with PEFT, list it in modules_to_save), or leave the callback out."
        )
    if layer.weight.shape != (layer.out_features, z_BD.shape[-1]):
        raise ValueError(
            f"LabelAlignment found a classifier's weights of shape {tuple(layer.weight.shape)}, and not "
            f"{(layer.out_features, z_BD.shape[-1])}: they are spread over processes (FSDP, ZeRO-3); leave the callback out."
        )
    return layer.weight


def _check_problem(callback: ModalityMetrics, model: nn.Module) -> None:
    """A ValueError where the model is trained for another problem type than the callback measures."""
    models = (part for part in model.modules() if isinstance(part, CoLearningForMultimodalClassification))
    found = next((part.config.problem_type for part in models), None)
    if found not in (None, callback.problem_type):
        raise ValueError(
            f"{type(callback).__name__} is for problem_type='{callback.problem_type}', and the model is trained with "
            f"'{found}': pass {_CALLBACKS[str(found)]}() instead."
        )


_CALLBACKS = {
    "single_label_classification": "ModalityAccuracy", MULTI_LABEL: "ModalityF1", "regression": "ModalityError",
}  # fmt: skip


def _given(labels: torch.Tensor | None, reader: str) -> torch.Tensor:
    if labels is None:
        raise ValueError(
            f"{reader} found no labels in a training batch: give the training set a column `labels`, or leave the callback "
            "out."
        )
    return labels


def _classes(labels: torch.Tensor | None, reader: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels `(B,)`, of soft ones the largest entry, and which of them count."""
    labels = _given(labels, reader)
    counts_B = label_mask(labels, "single_label_classification")
    return labels.argmax(dim=-1) if labels.is_floating_point() else labels, counts_B


def _present(outputs: Mapping[str, Any], by_modality: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Which samples `(B,)` have each modality."""
    mask_BM = outputs.get("modality_mask")
    if mask_BM is None:
        return {name: torch.ones(len(x), dtype=torch.bool, device=x.device) for name, x in by_modality.items()}
    return dict(zip(by_modality, mask_BM.unbind(dim=1), strict=True))


def sum_and_count(values_BD: torch.Tensor, counts_B: torch.Tensor) -> torch.Tensor:
    """The sum of the rows that count and, at its end, their number: `(D + 1,)`."""
    kept_BD = torch.where(counts_B[:, None], values_BD, 0.0)
    return torch.cat([kept_BD.sum(dim=0), counts_B.sum()[None].to(values_BD.dtype)])
