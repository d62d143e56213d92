"""How much a model gains and overfits when copies of it learn from single losses. M modalities."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.utils.data import DataLoader

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.method import balanced_model
from hf_colearn.balance.validation import FUSED, score_sums, scores
from hf_colearn.models.heads import zero_gradient
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.utils.distributed import (
    is_distributed,
    mean_over_processes,
    overwrite_from_main_process,
    rank,
    world_size,
)
from hf_colearn.utils.rng import preserve_rng_state


@dataclass(frozen=True)
class Learned:
    """What a loss learned: how far its value on held-out samples fell, and how far the gap to the training set's grew."""

    gain: float
    overfitting: float


def learned(
    trainer: Any, held_out: Any, epochs: int, seed: Sequence[int], unimodal: str = "heads"
) -> dict[str, Learned]:
    """Trains copies of a trainer's model on single losses and measures each before and after; nothing of the run changes.

    A copy has an optimizer of the run's class with the run's arguments and the learning rate that the schedule began with,
    without a schedule, and clips gradients as the run does. Its steps are of as many samples as the run's, in an order of
    their own; the samples of an epoch that fill no step are left out. The modalities' losses share a copy where no
    parameter has a part in two of them.

    The processes share the samples of a step and average their gradients.

    Args:
        trainer ([`CoLearningTrainer`]): In its `train()`, with an optimizer.
        held_out (`datasets.Dataset`): Samples that the copies do not train on.
        epochs (`int`): How long they train.
        seed (`Sequence[int]`): Draws the order and what augmentation and dropout draw.
        unimodal (`str`, *optional*, defaults to `"heads"`): See [`~hf_colearn.balance.batch.unimodal_logits`].

    Returns:
        `dict[str, Learned]`: Of `"fused"` and of every modality.
    """
    inner = balanced_model(trainer.model)
    splits = {"the training set": trainer.train_dataset, "the split of held-out samples": held_out}
    found: dict[str, Learned] = {}
    before: dict[str, dict[str, float]] = {}
    with preserve_rng_state(trainer.args.device):
        for names in losses_by_copy(inner, unimodal):
            model = copy.deepcopy(trainer.model)
            before = before or {
                where: _losses(trainer, model, split, unimodal, where) for where, split in splits.items()
            }
            rng = np.random.default_rng(seed)
            torch.manual_seed(int(rng.integers(2**31)) + rank())
            _train(trainer, model, names, epochs, rng, unimodal)
            after = {where: _losses(trainer, model, split, unimodal, where) for where, split in splits.items()}
            for name in names:
                trained, held = (after[where][name] - before[where][name] for where in splits)
                found[name] = Learned(gain=-held, overfitting=held - trained)
            del model
    return found


def losses_by_copy(model: CoLearningForMultimodalClassification, unimodal: str) -> list[tuple[str, ...]]:
    """The losses by the copies that they are trained on: all modalities' on one where they have no parameter in common."""
    is_apart = unimodal == "heads" and model.config.fusion != "mmtm" and not model.config.shared_classifier
    of_modalities = [model.modalities] if is_apart else [(name,) for name in model.modalities]
    return [*of_modalities, (FUSED,)]


def fresh_optimizer(optimizer: Any, model: nn.Module, copied: nn.Module) -> torch.optim.Optimizer:
    """One of the same class and arguments for a copy of a model, without any state."""
    optimizer = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    weights = dict(zip(model.parameters(), copied.parameters(), strict=True))
    groups = [
        {
            **group,
            "lr": group.get("initial_lr", group["lr"]),
            "params": [weights[weight] for weight in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    return type(optimizer)(groups)


def _train(
    trainer: Any, model: nn.Module, names: Sequence[str], epochs: int, rng: np.random.Generator, unimodal: str
) -> None:
    optimizer = fresh_optimizer(trainer.optimizer, trainer.model, model)
    inner = balanced_model(model)
    # Losses that share a copy are clipped apart, as if each had its own.
    parts = [model] if len(names) == 1 else [inner.encoders[name] for name in names]
    model.train()
    for _ in range(epochs):
        for batches in _steps(trainer, rng):
            for batch in trainer.batches.of_step(batches):
                inputs = trainer.batches.prepared(batch)
                told = trainer.batches.taken_from(inputs)
                seen = ModalityBatch(model(**inputs), told, inner, unimodal)
                (_loss(seen, names) / len(batches)).backward()
            for weight in model.parameters() if is_distributed() else ():
                if weight.grad is not None:
                    weight.grad.copy_(mean_over_processes(weight.grad))
            for part in parts if trainer.args.max_grad_norm else ():
                nn.utils.clip_grad_norm_(part.parameters(), trainer.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
    overwrite_from_main_process([*model.buffers()])


def _loss(seen: ModalityBatch, names: Sequence[str]) -> torch.Tensor:
    """The sum of the losses; every parameter has a gradient, or processes would average different ones."""
    wanted = [seen.fused_loss if name == FUSED else seen.unimodal_losses[name] for name in names]
    return zero_gradient(torch.stack(wanted).sum(), seen.all_logits)


def _steps(trainer: Any, rng: np.random.Generator) -> Iterator[list[dict[str, Any]]]:
    """The micro-batches of this process of every step of an epoch."""
    dataset, size, processes = trainer.train_dataset, trainer._train_batch_size, world_size()
    per_step = min(size * trainer.args.gradient_accumulation_steps * processes, len(dataset) // processes * processes)
    rows = rng.permutation(len(dataset))
    rows_by_step = rows[: len(rows) // per_step * per_step].reshape(-1, per_step)[:, rank() :: processes]
    parts = [_cut(share, size) for share in rows_by_step]
    batches = iter(_loader(trainer, dataset, [*itertools.chain(*parts)]))
    for part in parts:
        yield [*itertools.islice(batches, len(part))]


@torch.no_grad()
def _losses(trainer: Any, model: nn.Module, dataset: Any, unimodal: str, where: str) -> dict[str, float]:
    """The means of the losses over all samples of a split, by name; a collective."""
    inner = balanced_model(model)
    model.eval()
    sums = torch.zeros(1 + len(inner.modalities), 3, device=trainer.args.device)
    rows = np.arange(len(dataset))[rank() :: world_size()]
    for batch in _loader(trainer, dataset, _cut(rows, trainer.args.eval_batch_size)):
        inputs = trainer._prepare_input(batch)
        told = trainer.batches.taken_from(inputs)
        seen = ModalityBatch(model(**inputs), told, inner, unimodal)
        sums += score_sums(seen, len(seen.labels))
    return {name: score.loss for name, score in scores(sums, inner.modalities, where).items()}


def _cut(rows: np.ndarray, size: int) -> list[list[int]]:
    return [rows[i : i + size].tolist() for i in range(0, len(rows), size)]


def _loader(trainer: Any, dataset: Any, rows: list[list[int]]) -> DataLoader:
    columns, collate = trainer._remove_unused_columns(dataset), trainer.batches.collator(False, dataset)
    workers = trainer.args.dataloader_num_workers
    return DataLoader(columns, batch_sampler=rows, collate_fn=collate, num_workers=workers)
