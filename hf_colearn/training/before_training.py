"""What is looked at before training: the data, the pairs, and whether the student's outputs fit the targets and the terms."""

from typing import Any

import torch
from datasets import Dataset

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.training import argument_checks, batch_checks, data_checks, pair_checks, task_checks
from hf_colearn.training.batches import decoder_inputs
from hf_colearn.utils.rng import preserve_rng_state


def check_before_training(trainer: Any) -> None:
    """Refuses data, pairs, metrics and outputs that do not fit, before anything is written."""
    dataset, model, collate = trainer.train_dataset, trainer.model, trainer.batches.collate_of_user
    task_checks.data_are_of_tasks(dataset, model)
    task_checks.losses_are_the_models(model, trainer.compute_loss_func, trainer.args)
    is_unpaired = isinstance(dataset, UnpairedBatches)
    fits = task_checks.unpaired_data_fit if is_unpaired else data_checks.training_data_fits
    fits(dataset, trainer.args, model, trainer.teachers, trainer.alpha, collate)
    pair_checks.pairs_fit(dataset, trainer.args.id_column, trainer.teachers)
    task_checks.evaluation_data_fit(trainer.eval_dataset, model, collate)
    data_checks.evaluation_labels_fit(trainer.eval_dataset, model, collate)
    data_checks.metrics_fit(trainer.compute_metrics, model, trainer.args)
    argument_checks.options_fit(model, trainer.args, trainer.label_smoother is not None)
    try_first_batch(trainer)


def try_first_batch(trainer: Any) -> None:
    """Computes all losses of a small batch, of every task; gradients, statistics and random numbers stay as they are.

    With DeepSpeed, or where the training set is a stream, the first step alone looks at its batch.
    """
    dataset = trainer.train_dataset
    if trainer.auxiliary_objective is None and trainer.batches.augment is None:
        return
    if trainer.sharded_by == "DeepSpeed" or not hasattr(dataset, "__len__"):
        return
    is_unpaired = isinstance(dataset, UnpairedBatches)
    firsts = [dataset.rows(task) for task in dataset.datasets] if is_unpaired else [range(len(dataset))]
    was_training = trainer.model.training
    with preserve_rng_state(trainer.args.device), torch.no_grad():
        for rows in firsts:
            _try_batch(trainer, rows[: min(4, trainer.args.train_batch_size)], has_to_have_labels=not is_unpaired)
    trainer.model.train(was_training)


def _try_batch(trainer: Any, rows: range, has_to_have_labels: bool) -> None:
    dataset, objective = trainer.train_dataset, trainer.auxiliary_objective
    device = next(trainer.model.parameters()).device
    collator = trainer.batches.collator(with_targets=True)
    if isinstance(dataset, Dataset):
        dataset = trainer._remove_unused_columns(dataset)
    else:
        collator = trainer._get_collator_with_removed_columns(collator)
    batch = collator([dataset[row] for row in rows])
    if trainer.batches.augment is not None:
        batch = trainer.batches.augmented(trainer._prepare_input(batch))
        batch_checks.augmented_labels_fit(batch, trainer.label_smoother is not None)
    batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    with trainer.accelerator.autocast():
        batch, seen = trainer.hooks.on_inputs(batch, trainer.batches.taken_from(batch), trainer.model)
        outputs = trainer.model.eval()(**batch, **decoder_inputs(trainer.model, seen))
    name = type(trainer.model).__name__
    batch_checks.outputs_fit(outputs, seen.targets, name, objective.terms if objective is not None else ())
    if objective is not None:
        batch_checks.terms_fit(objective(outputs, seen), objective)
    has_labels = bool(set(LABELS) & set(batch))
    needs_labels = has_to_have_labels and not data_checks.task_has_no_weight(trainer.alpha)
    if trainer.compute_loss_func is None and trainer.label_smoother is None and (has_labels or needs_labels):
        batch_checks.has_task_loss(outputs, list(batch), name)
