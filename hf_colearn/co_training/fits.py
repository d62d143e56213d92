"""One fit of a co-training: a fresh student of a view on the labels that it has by now, and what it says of all samples.

Shapes: N samples, n of them that have the view, C classes.
"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from transformers import PreTrainedModel, PrinterCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.co_training.labels import labelled, relabelled
from hf_colearn.co_training.state import STUDENT, fit_folder
from hf_colearn.co_training.views import HELD_OUT, TRAIN, Part, without_labels
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed


_OWN = ("model", "args", "train_dataset")  # what a co-training itself gives a trainer


class Fits:
    """Makes the trainers of every view's fits.

    All fits begin with the same weights and the same random numbers, so that two rounds differ in their labels alone.

    Args:
        students (`Mapping`): By view a model, whose weights every fit begins with, or a function that makes one.
        args (`Mapping[str, CoLearningArguments]`): By view.
        trainer_kwargs (`Mapping[str, Mapping]`): By view, as of [`CoLearningTrainer`].
        parts (`Mapping[str, Part]`): The training set and what else is predicted.
        folder (`Path`): Of the co-training.
    """

    num_labels: int  # of all views, once they are known to agree

    def __init__(
        self,
        students: Mapping[str, PreTrainedModel | Callable[[], PreTrainedModel]],
        args: Mapping[str, CoLearningArguments],
        trainer_kwargs: Mapping[str, Mapping[str, Any]],
        parts: Mapping[str, Part],
        folder: Path,
    ):
        self.students, self.args, self.parts, self.folder = students, args, parts, folder
        self.trainer_kwargs = {view: dict(trainer_kwargs.get(view, {})) for view in students}
        if unknown := [view for view in trainer_kwargs if view not in students]:
            raise ValueError(
                f"trainer_kwargs are of '{unknown[0]}', which is no view that learns: those are {', '.join(students)}."
            )
        for view, kwargs in self.trainer_kwargs.items():
            if own := [name for name in _OWN if name in kwargs]:
                raise ValueError(
                    f"trainer_kwargs of '{view}' hold '{own[0]}', which every fit has of its own: leave it out."
                )

    def fresh(self, view: str) -> PreTrainedModel:
        """The student that every fit of a view begins with."""
        set_seed(self.args[view].seed)
        given = self.students[view]
        return copy.deepcopy(given) if isinstance(given, PreTrainedModel) or hasattr(given, "parameters") else given()

    def trainer(self, view: str, round_: int, labels_N: np.ndarray) -> CoLearningTrainer:
        """The trainer of a fit to labels `(N,)`."""
        args = copy.deepcopy(self.args[view])
        args.output_dir = str(fit_folder(self.folder, view, round_))
        args.resume_from_checkpoint = None
        seen, rows = self.parts[TRAIN].view(view)
        train = relabelled(seen, labels_N[rows])
        kwargs = self.trainer_kwargs[view]
        # Without auxiliary terms a sample without a label would be read for nothing.
        uses_pool = args.labelled_per_batch is not None or {"objective", "bank", "teachers"} & set(kwargs)
        kwargs = {**kwargs, "train_dataset": train if uses_pool else labelled(train)}
        if HELD_OUT in self.parts and args.eval_strategy != "no":
            kwargs = {"eval_dataset": self.parts[HELD_OUT].view(view)[0], **kwargs}
        trainer = CoLearningTrainer(self.fresh(view), args, **kwargs)
        trainer.remove_callback(PrinterCallback)
        trainer.predicted_labels = int((labels_N != self.parts[TRAIN].labels)[rows].sum())
        return trainer

    def trained(self, view: str, round_: int, labels_N: np.ndarray) -> tuple[dict[str, np.ndarray], list[dict]]:
        """Trains a fresh student, from the fit's last checkpoint where there is one, and saves it.

        Returns:
            `tuple`: Its probabilities `(N, C)` by part of the data, and the log of its training.
        """
        trainer, folder = self.trainer(view, round_, labels_N), fit_folder(self.folder, view, round_)
        checkpoint = get_last_checkpoint(str(folder)) if distributed.rank() == 0 and folder.is_dir() else None
        trainer.train(resume_from_checkpoint=distributed.from_main_process(checkpoint))
        outputs = {name: probabilities(trainer, part, view) for name, part in self.parts.items()}
        trainer.save_model(str(folder / STUDENT))
        return outputs, trainer.state.log_history

    def read(self, view: str, round_: int, labels_N: np.ndarray) -> CoLearningTrainer:
        """A trainer that holds the student of a finished fit, with the labels that it was fitted to."""
        trainer = self.trainer(view, round_, labels_N)
        trainer._load_from_checkpoint(str(fit_folder(self.folder, view, round_) / STUDENT))
        return trainer


def probabilities(trainer: CoLearningTrainer, part: Part, view: str) -> np.ndarray:
    """A student's class probabilities `(N, C)`, NaN of samples that lack the view; a collective."""
    seen, rows = part.view(view)
    found = trainer.predict(without_labels(seen)).predictions
    logits_nC = np.asarray(found[0] if isinstance(found, tuple) else found, dtype=np.float64)
    return spread(softmax(logits_nC, axis=1), rows, len(part.labels))


def spread(values_nC: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Rows `(n, C)` at their places among all `(N, C)`, NaN elsewhere."""
    values_NC = np.full((size, values_nC.shape[1]), np.nan)
    values_NC[rows] = values_nC
    return values_NC
