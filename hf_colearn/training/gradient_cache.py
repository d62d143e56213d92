"""Gradient caching: the loss of a large batch, in the memory for activations of a small one.

Source: GradCache ("Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", Gao et al., RepL4NLP 2021).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten
from transformers.trainer_pt_utils import find_batch_size

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.models.lora import base_model
from hf_colearn.training.counts import label_counts
from hf_colearn.utils.rng import preserve_rng_state, rng_state, set_rng_state


_COUNTS = "num_items_in_batch"  # the input that a model divides its loss by, of no sample
_OF_MODEL = "logit_scale"  # the output that is of the weights alone


def check_gradient_cache(trainer: Any) -> None:
    """Refuses what is not the same for a batch in chunks.

    Raises:
        ValueError: If the trainer's arguments ask for gradient caching, and the model has batch normalisation, there is a
            balance method, weights are sharded, or several devices share a process.
    """
    chunk = trainer.args.gradient_cache_chunk_size
    if chunk is None:
        return
    given = f"gradient_cache_chunk_size={chunk}"
    if trainer.sharded_by is not None:
        raise ValueError(
            f"{given} calls the model as often as a process has chunks, and {trainer.sharded_by} gathers shards of its weights "
            "in every call: train with plain data parallelism, or leave gradient_cache_chunk_size out."
        )
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"{given} is of one device, and {trainer.args.n_gpu} share this process (DataParallel): start a process for each, "
            "`torchrun --nproc_per_node`."
        )
    if trainer.balance is not None:
        raise ValueError(
            f"{given} hands the losses outputs that lead to no weights, and {type(trainer.balance).__name__} balances the "
            "gradients of a whole batch: leave one of the two out."
        )
    layers = trainer.model.named_modules()
    name = next((name for name, layer in layers if isinstance(layer, nn.modules.batchnorm._BatchNorm)), None)
    if name is not None:
        raise ValueError(
            f"{given} with batch normalisation ('{name}'), whose statistics would be those of a chunk: leave "
            "gradient_cache_chunk_size out, or take a student with another normalisation, such as a ViT or a ConvNeXt."
        )


class GradientCache:
    """Calls a trainer's model in chunks of its batch: first without gradients, for the outputs of all samples, and once the
    losses have given the gradient of every output, again with them.

    The losses see one batch, so that contrastive terms have all its samples as negatives; activations are those of a chunk.
    A chunk draws the same random numbers both times. Processes reduce their gradients once, after the last chunk.

    A batch that is no larger than a chunk is left as it is, and so are evaluations, and batches beside the training, as a
    learned alpha draws them. A loss that a model of another library computes is taken for the mean over its labels, or for
    their sum over `num_items_in_batch`.

    Args:
        trainer ([`CoLearningTrainer`]): Whose `args.gradient_cache_chunk_size` it follows.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._calls: list[_ChunkedCall] | None = None  # of the training step that goes on

    @contextmanager
    def of_step(self, model: nn.Module) -> Iterator[None]:
        """Around forward and backward of a training micro-batch; afterwards all weights have their gradients."""
        if self._trainer.args.gradient_cache_chunk_size is None:
            yield
            return
        self._calls = []
        try:
            yield
            for call in self._calls:
                call.backward(is_last=call is self._calls[-1])
        finally:
            self._calls = None

    def caching(self, model: Any) -> Any:
        """What to call in a model's place: within a training step, one that works in chunks."""
        if self._calls is None or isinstance(model, _CachedModel):
            return model
        return _CachedModel(model, self._trainer, self._calls)


class _CachedModel(nn.Module):
    """Called as the model is."""

    def __init__(self, model: nn.Module, trainer: Any, calls: list["_ChunkedCall"]):
        super().__init__()
        self._model, self._trainer, self._calls = model, trainer, calls

    def forward(self, **inputs: Any) -> Any:
        chunk = self._trainer.args.gradient_cache_chunk_size
        size = find_batch_size({name: value for name, value in inputs.items() if name != _COUNTS})
        if size is None or size <= chunk:
            return self._model(**inputs)
        self._calls.append(_ChunkedCall(self._model, inputs, size, chunk, self._trainer))
        return self._calls[-1].outputs

    def _get_name(self) -> str:
        # Trainer tells language models, whose labels it shifts before it smooths them, by their class's name.
        return base_model(self._trainer.model)._get_name()


class _ChunkedCall:
    """One forward of a model on B samples, in chunks.

    Attributes:
        outputs: The model's, of all samples; every tensor of real numbers begins a graph of its own.
    """

    def __init__(self, model: nn.Module, inputs: dict[str, Any], size: int, chunk: int, trainer: Any):
        self._model, self._trainer, self._device = model, trainer, trainer.args.device
        self._rows = [slice(start, min(start + chunk, size)) for start in range(0, size, chunk)]
        self._chunks = [
            {name: _rows_of(name, value, rows, size) for name, value in inputs.items()} for rows in self._rows
        ]
        # Plain DDP has collectives in its forward, and processes may have unequal numbers of chunks.
        whole = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self._states, found = [], []
        with torch.no_grad():
            for of_chunk in self._chunks:
                self._states.append(rng_state(self._device))
                found.append(whole(**of_chunk))
        self._names = _names(found[0])
        self._shares = self._shares_of_loss() if "loss" in self._names else []
        leaves = zip(*map(tree_leaves, found), strict=True)
        self._joined = [self._join(name, parts) for name, parts in zip(self._names, leaves, strict=True)]
        # Trainer scales a loss in place, as no leaf can be.
        given = [x.clone() if name == "loss" else x for name, x in zip(self._names, self._joined, strict=True)]
        self.outputs = tree_unflatten(given, tree_structure(found[0]))

    def _shares_of_loss(self) -> Sequence[torch.Tensor | float]:
        """What the chunks' losses are multiplied with before they are summed, `(K,)` of K chunks."""
        model = base_model(self._trainer.model)
        problem = getattr(getattr(model, "config", None), "problem_type", None)
        # Those of transformers for numbers and several labels are means, whatever number they are given.
        is_mean = not isinstance(model, CheckedModel) and problem in ("regression", "multi_label_classification")
        if _COUNTS in self._chunks[0] and not is_mean:
            return [1.0] * len(self._chunks)
        found = []
        for chunk in self._chunks:
            labels = next((chunk[name] for name in LABELS if name in chunk), None)
            count = label_counts(self._trainer.model, labels, chunk)
            if count is None:
                raise ValueError(
                    f"{type(model).__name__} computes a loss without labels in a tensor, and those of chunks cannot be put "
                    "together: leave gradient_cache_chunk_size out, or pass a `compute_loss_func`."
                )
            found.append(count[0].float())
        counts_K = torch.stack(found)
        return (counts_K / counts_K.sum().clamp(min=1)).unbind()

    def _join(self, name: str, parts: Sequence[Any]) -> Any:
        """An output of all samples by those of the chunks."""
        if not isinstance(parts[0], torch.Tensor):
            return parts[0]
        sizes = [rows.stop - rows.start for rows in self._rows]
        if name == "loss":
            shared = [_shared(loss, share) for loss, share in zip(parts, self._shares, strict=True)]
            joined = torch.stack(shared).sum(dim=0)
        elif name == _OF_MODEL:
            joined = parts[0].clone()
        elif [len(part) if part.ndim else 0 for part in parts] == sizes:
            joined = torch.cat(list(parts))
        else:
            raise ValueError(
                f"the output '{name}' has shapes {[tuple(part.shape) for part in parts]} for chunks of {sizes} samples, and "
                "only those with a row for each can be put together: leave gradient_cache_chunk_size out."
            )
        return joined.requires_grad_() if joined.is_floating_point() else joined

    def backward(self, is_last: bool) -> None:
        """Adds the gradients of the weights to them, by the outputs' gradients; processes reduce them in the last call."""
        with preserve_rng_state(self._device):
            for place, state in enumerate(self._states):
                reduces = is_last and place == len(self._states) - 1
                with nullcontext() if reduces else self._trainer.accelerator.no_sync(self._model):
                    set_rng_state(state, self._device)
                    outputs = tree_leaves(self._model(**self._chunks[place]))
                    found = [(x, self._gradient(index, place)) for index, x in enumerate(outputs)]
                    found = [(x, grad) for x, grad in found if grad is not None and x.requires_grad]
                    if found:
                        torch.autograd.backward([x for x, _ in found], [grad for _, grad in found])

    def _gradient(self, index: int, place: int) -> torch.Tensor | None:
        """That of an output of a chunk."""
        joined, name = self._joined[index], self._names[index]
        if not isinstance(joined, torch.Tensor) or joined.grad is None:
            return None
        if name == "loss":
            return joined.grad * self._shares[place]
        if name == _OF_MODEL:
            return joined.grad if place == len(self._chunks) - 1 else None
        return joined.grad[self._rows[place]]


def _rows_of(name: str, value: Any, rows: slice, size: int) -> Any:
    """Some samples' part of an input."""
    if isinstance(value, Mapping):
        return {key: _rows_of(f"{name}.{key}", of_key, rows, size) for key, of_key in value.items()}
    is_tensor = isinstance(value, torch.Tensor)
    if name == _COUNTS or value is None or isinstance(value, (str, int, float)) or (is_tensor and not value.ndim):
        return value
    if not is_tensor or len(value) != size:
        shown = f"has shape {tuple(value.shape)}" if is_tensor else f"is a {type(value).__name__}"
        raise ValueError(
            f"the input '{name}' of {size} samples {shown}, and only tensors with a row for each of them can be cut into "
            "chunks: leave gradient_cache_chunk_size out."
        )
    return value[rows]


def _names(outputs: Any) -> list[str]:
    """What the leaves of a model's outputs belong to."""
    if isinstance(outputs, Mapping):
        return [name for name, value in outputs.items() for _ in tree_leaves(value)]
    is_first_loss = isinstance(outputs[0], torch.Tensor) and outputs[0].ndim == 0
    names = ["loss" if is_first_loss else "0", *map(str, range(1, len(outputs)))]
    return [name for name, value in zip(names, outputs, strict=True) for _ in tree_leaves(value)]


def _shared(loss: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    """A mean over no label, which has no share, is no number."""
    return torch.where(share > 0, loss, 0) * share if isinstance(share, torch.Tensor) else share * loss
