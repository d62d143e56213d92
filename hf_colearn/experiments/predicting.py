"""What a model returns of all samples of a data set, by name: a student of ours, or any model that Trainer trains.

Shapes: N samples, M modalities, C classes or outputs, D latent width.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import Trainer

from hf_colearn.data.labels import is_labelled, label_column
from hf_colearn.hub.training_samples import problem_type_of
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.models.lora import base_model


MULTI_LABEL = "multi_label_classification"
_READ = ("logits", "latents", "modality_logits", "modality_latents", "modality_mask", "subset_logits")
# What Trainer must do while all samples are predicted: keep the outputs of all, whole and as they are.
_SETTINGS = {"prediction_loss_only": False, "eval_do_concat_batches": True, "batch_eval_metrics": False,
             "dataloader_drop_last": False}  # fmt: skip


@dataclass
class Predictions:
    """Of N samples the logits `(N, C)`, labels, latents `(N, D)` where the model has some, and of a multimodal model the rest
    by name: `modality_logits`, `modality_latents`, `modality_mask` `(N, M)`, `subset_logits`. Without labels they are None.
    """

    logits: np.ndarray
    labels: np.ndarray | None
    latents: np.ndarray | None = None
    modalities: dict[str, Any] = field(default_factory=dict)

    def rows(self, is_chosen_N: np.ndarray) -> "Predictions":
        """Those of some samples."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return Predictions(**{name: _rows(value, is_chosen_N) for name, value in values.items()})


def predicted(trainer: Trainer, dataset: Any, arm: str) -> Predictions:
    """What the trained model returns of all samples, and their labels; a collective.

    Raises:
        ValueError: If its output has no logits of one prediction a sample, or there are several columns of labels.
    """
    outputs = _Outputs(arm)
    with outputs.looked_at(trainer.model), _as_is(trainer):
        output = trainer.predict(dataset, ignore_keys=outputs.ignored)  # type: ignore[arg-type]  # which grows
    values: Any = output.predictions
    if outputs.names is None:  # a tuple, of which Trainer has taken the loss away
        named = {"logits": values[0] if isinstance(values, tuple) else values}
    else:
        named = dict(zip(outputs.names, values if isinstance(values, tuple) else (values,), strict=True))
    logits, labels = np.asarray(named.pop("logits"), dtype=np.float64), output.label_ids
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2:
        raise ValueError(
            f"the model of arm '{arm}' returns logits of shape {logits.shape}: a run keeps one prediction a sample, [N, C]."
        )
    if isinstance(labels, tuple):
        raise ValueError(
            f"arm '{arm}' has {len(labels)} columns of labels ({', '.join(trainer.label_names)}), and a run keeps one: name it "
            "in the argument `label_names`."
        )
    return Predictions(logits, labels, named.pop("latents", None), named)


def problem_of(model: Any, found: Predictions, arm: str) -> str:
    """What the predictions are for, as the model's configuration says, or where it does not, by labels and logits.

    Raises:
        ValueError: If the labels are no classes of the logits.
    """
    base = base_model(model)
    if isinstance(base, CheckedModel) or getattr(getattr(base, "config", None), "problem_type", None):
        return problem_type_of(model)
    num_outputs = found.logits.shape[1]
    labels = np.zeros(0) if found.labels is None else found.labels[is_labelled(found.labels)]
    values = labels[np.isfinite(labels) & (labels != -100)] if labels.ndim == 2 else labels
    if labels.ndim == 2:
        return MULTI_LABEL if np.isin(values, (0, 1)).all() else "regression"
    is_whole = bool(np.equal(np.mod(values, 1), 0).all())
    if num_outputs == 1 and values.dtype.kind in "iub" and np.isin(values, (0, 1)).all():
        raise ValueError(
            f"the model of arm '{arm}' returns one logit a sample, and the labels are 0 and 1: give it an output for each of "
            "the two classes, or say `config.problem_type` ('regression', or 'multi_label_classification' with labels [N, 1])."
        )
    if num_outputs == 1 or not is_whole:
        return "regression"
    if len(values) and not 0 <= values.min() <= values.max() < num_outputs:
        raise ValueError(
            f"the labels of arm '{arm}' go from {values.min():g} to {values.max():g}, and the model returns {num_outputs} "
            "logits a sample: build it with as many outputs as there are classes."
        )
    return "single_label_classification"


def class_names(model: Any, dataset: Any, num_outputs: int) -> list[str]:
    """By the model's configuration, or where nobody has named them there, by the data set, or else their numbers."""
    base = base_model(model)
    id2label = getattr(getattr(base, "config", None), "id2label", None) or {}
    names = [str(id2label.get(i, f"LABEL_{i}")) for i in range(num_outputs)]
    if any(name != f"LABEL_{i}" for i, name in enumerate(names)):  # what transformers calls them
        return names
    column, features = label_column(dataset), getattr(dataset, "features", None) or {}
    known = getattr(features.get(column), "names", None) or []
    return list(known) if len(known) == num_outputs else [str(i) for i in range(num_outputs)]


class _Outputs:
    """Looks at the outputs of a model, and names what of them is kept and what Trainer shall ignore."""

    def __init__(self, arm: str):
        self.arm, self.ignored = arm, list[str]()
        self.names: list[str] | None = None  # of a mapping; a tuple has none

    @contextmanager
    def looked_at(self, model: Any) -> Iterator[None]:
        handle = model.register_forward_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def _look(self, module: Any, inputs: Any, output: Any) -> Any:
        if dataclasses.is_dataclass(output) and not isinstance(output, Mapping):  # which Trainer cannot read
            values = {each.name: getattr(output, each.name) for each in dataclasses.fields(output)}
            output = _Named({name: value for name, value in values.items() if value is not None})
        if isinstance(output, Mapping):
            if "logits" not in output:
                raise ValueError(
                    f"the model of arm '{self.arm}' returns {', '.join(map(repr, output))}, and no 'logits' [N, C]: name its "
                    "predictions so."
                )
            self.names = [name for name in output if name in _READ and output[name] is not None]
            self.ignored += [name for name in output if name not in [*self.names, *self.ignored]]
        return output


class _Named(dict):
    """A dictionary whose entries are attributes, too, as a loss function of the user's reads them."""

    __getattr__ = dict.__getitem__


@contextmanager
def _as_is(trainer: Any) -> Iterator[None]:
    """Without what makes metrics of the outputs."""
    args, kept = trainer.args, {name: getattr(trainer.args, name) for name in _SETTINGS}
    of_trainer = {name: getattr(trainer, name) for name in ("compute_metrics", "preprocess_logits_for_metrics")}
    for owner, values in ((args, _SETTINGS), (trainer, dict.fromkeys(of_trainer))):
        for name, value in values.items():
            setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, values in ((args, kept), (trainer, of_trainer)):
            for name, value in values.items():
                setattr(owner, name, value)


def _rows(values: Any, is_chosen_N: np.ndarray) -> Any:
    if isinstance(values, Mapping):
        return {name: _rows(value, is_chosen_N) for name, value in values.items()}
    return None if values is None else values[is_chosen_N]
