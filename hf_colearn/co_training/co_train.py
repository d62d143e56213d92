"""Self-training and co-training: students of several views label the pool of unlabelled samples for each other.

Shapes: N training samples, C classes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xxhash
from datasets import Dataset
from transformers import PreTrainedModel

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.co_training.fits import Fits
from hf_colearn.co_training.frozen import FrozenView
from hf_colearn.co_training.report import write_report
from hf_colearn.co_training.result import CoTrainingResult
from hf_colearn.co_training.rounds import Rounds
from hf_colearn.co_training.selection import Selection
from hf_colearn.co_training.state import begun
from hf_colearn.co_training.views import (
    HELD_OUT,
    TEST,
    TRAIN,
    Part,
    check_data,
    check_students,
    held_out_rows,
    num_classes,
    part_of,
    true_labels_of,
)
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.utils import distributed
from hf_colearn.utils.checks import check_integer


# Of the arguments, what decides on the labels that are gained.
_DECIDING = ("seed", "max_steps", "num_train_epochs", "learning_rate")


def co_train(
    students: Mapping[str, PreTrainedModel | Callable[[], PreTrainedModel] | FrozenView],
    train_dataset: Dataset,
    args: CoLearningArguments | Mapping[str, CoLearningArguments],
    rounds: int = 5,
    *,
    per_class: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    held_out: Dataset | float | None = 0.2,
    test_dataset: Dataset | None = None,
    true_labels: str | None = None,
    trainer_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    resume: bool = False,
    report: bool = True,
) -> CoTrainingResult:
    r"""Co-training, or with one view self-training, in rounds of fresh fits.

    "Combining Labeled and Unlabeled Data with Co-Training" (Blum & Mitchell, COLT 1998). In round 0 a student of every view is
    fitted to the labelled samples. In each round after it, of every class the most confident predictions of one view become
    labels of the pool for the *others*, and new students are fitted. Labels that were gained stay. A student never learns
    from its own predictions, unless it is the only view. With more than two views each gains what all others select; what two
    views select with different classes is left out ([`~hf_colearn.co_training.selection.exchanged`]).

    A view may be a frozen language model with prompts ([`PromptedTexts`], [`PipelineTexts`]), which labels the pool of the
    others from round 1 on, even where there is no labelled sample. Where a class has none, students begin in round 1.

    Every fit is a run of [`CoLearningTrainer`] in `args.output_dir`, of as many steps as `args` say, and begins with the same
    weights and random numbers. A round after which the students tell fewer of the held-out samples (the mean over the views
    that learn) harms: it is undone, and the earlier students are kept.

    All processes of a run take the same decisions. What is done is written after every fit: with `resume=True` a run goes on
    after a break, within a fit from Trainer's last checkpoint (`save_strategy`).

    Args:
        students (`Mapping`): By view a model, whose weights every fit begins with; a function that makes one, called with the
            run's seed set; or a [`FrozenView`].
        train_dataset ([`datasets.Dataset`]): N samples with the columns `{view}_{input}` of every view, `labels` (classes; None
            or -100 for the pool) and, where there is a teacher, `sample_id`. Where a view's columns are None, it is absent.
        args ([`CoLearningArguments`]): Of every fit, or by view with one `output_dir`.
        rounds (`int`, *optional*, defaults to 5): After round 0. It ends earlier when nothing is gained or a round harms.
        per_class, share, threshold: What becomes a label in a round, as of [`~hf_colearn.co_training.selection.Selection`].
        held_out (`Dataset` or `float`, *optional*, defaults to 0.2): The samples that each round is checked with; a share is
            cut from the labelled samples, at least one of each class, which are then not trained with. None for no check.
        test_dataset ([`datasets.Dataset`], *optional*): Scored after every round; no decision depends on it.
        true_labels (`str`, *optional*): The column of the training set with the hidden classes of the pool, if these are known.
            They tell how many of the gained labels are right, and are used in nothing else.
        trainer_kwargs (`Mapping[str, Mapping]`, *optional*): By view, further arguments of [`CoLearningTrainer`]:
            `data_collator`, `augment`, `objective`, `teachers`, `compute_metrics`, ...
        resume (`bool`, *optional*, defaults to `False`): Whether to go on with what `args.output_dir` holds; else it is begun
            anew, and what an earlier co-training left there is removed.
        report (`bool`, *optional*, defaults to `True`): Whether to write `report.html`, `report.md` and `report.json`.

    Returns:
        [`CoTrainingResult`]: Rounds, labels, students, and their ensemble.

    Raises:
        TypeError, ValueError: Before anything is written, if the views, the data or the rule do not fit each other.

    Example:

    ```python
    result = co_train({"image": image_student, "speech": speech_student}, train, args, per_class=10, test_dataset=test)
    print(result)
    result.students["image"].save_pretrained("image")
    result.predict(test).argmax(axis=1)
    ```
    """
    select = Selection(per_class, share, threshold)
    check_integer("rounds", rounds, least=1)
    check_students(students)
    by_view = _arguments(students, args)
    first = next(iter(by_view.values()))
    parts = _parts(train_dataset, test_dataset, held_out, first.seed)
    truth_N = true_labels_of(train_dataset, true_labels)
    learning = {view: given for view, given in students.items() if not isinstance(given, FrozenView)}
    frozen = {view: given for view, given in students.items() if isinstance(given, FrozenView)}
    folder = Path(first.output_dir)
    fits = Fits(learning, by_view, trainer_kwargs or {}, parts, folder)
    fits.num_labels = num_classes(students, {view: fits.fresh(view) for view in learning})
    check_data(students, parts[TRAIN], fits.num_labels, {name: part for name, part in parts.items() if name != TRAIN})
    identity = {
        "views": {view: "frozen" if view in frozen else "student" for view in students},
        "selection": repr(select),
        "labels": xxhash.xxh64(parts[TRAIN].labels.tobytes()).hexdigest(),
        "arguments": {view: {name: getattr(of, name) for name in _DECIDING} for view, of in by_view.items()},
    }
    state = begun(folder, identity, resume)
    done = Rounds(fits, frozen, parts, select, truth_N, state)
    done.go_on(rounds)
    result = CoTrainingResult(done)
    if report and distributed.rank() == 0:
        write_report(folder, result)
    distributed.barrier()
    return result


def _arguments(students: Mapping[str, Any], args: Any) -> dict[str, CoLearningArguments]:
    """The arguments of every view that learns."""
    learning = [view for view, given in students.items() if not isinstance(given, FrozenView)]
    by_view = dict(args) if isinstance(args, Mapping) else dict.fromkeys(learning, args)
    if set(by_view) != set(learning):
        raise ValueError(
            f"args are of {', '.join(map(repr, by_view))}, and the views that learn are {', '.join(map(repr, learning))}."
        )
    for view, of_view in by_view.items():
        if not isinstance(of_view, CoLearningArguments):
            raise TypeError(f"the args of '{view}' are a {type(of_view).__name__}: pass CoLearningArguments.")
        if of_view.push_to_hub:
            raise ValueError("push_to_hub=True would push every fit: leave it out, and push `result.students`.")
    if len(folders := sorted({of_view.output_dir for of_view in by_view.values()})) > 1:
        raise ValueError(f"the args of the views have the output_dir {' and '.join(folders)}: give all of them one.")
    return by_view


def _parts(train: Dataset, test: Dataset | None, held_out: Any, seed: int) -> dict[str, Part]:
    """The training set, in which held-out samples neither have a label nor gain one; what is held out; and the test set."""
    whole = part_of(train, "training")
    parts = {TRAIN: whole}
    if isinstance(held_out, Dataset):
        parts[HELD_OUT] = part_of(held_out, "held-out")
    elif held_out is not None:
        rows = held_out_rows(whole, held_out, seed)
        parts[HELD_OUT] = part_of(whole.dataset.select(rows), "held-out")
        whole.labels[rows] = NO_LABEL
        whole.is_pool[rows] = False
    if test is not None:
        parts[TEST] = part_of(test, "test")
    for name in (HELD_OUT, TEST):
        if name in parts and (parts[name].labels == NO_LABEL).all():
            raise ValueError(
                f"no sample of the {name.replace('_', '-')} set has a label, so nothing can be scored on it: leave it out."
            )
    return parts
