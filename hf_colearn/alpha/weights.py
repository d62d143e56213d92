"""The weights that a hypergradient is taken at: points in one vector, the gradients there, and the norms of both.

Shapes: P weights, all flattened into one vector; of sharded weights those that this process holds.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from hf_colearn.alpha.solvers import flat
from hf_colearn.utils.distributed import mean_over_processes
from hf_colearn.utils.sharded import local_part, reshard


class Weights(Protocol):
    """What implicit differentiation needs of weights, wherever they lie."""

    theta_P: torch.Tensor

    def at(self, point_P: torch.Tensor) -> Any:
        """What losses are functions of, with the values of a point."""

    def gradient(self, loss: torch.Tensor, point_P: torch.Tensor, create_graph: bool) -> torch.Tensor | None:
        """This process's gradient `(P,)` of a loss at the point that it was computed at; None where it has none."""

    def mean(self, gradient_P: torch.Tensor) -> torch.Tensor:
        """The mean over the processes of what is linear in `gradient`."""

    def norm(self, x_P: torch.Tensor) -> torch.Tensor:
        """The Euclidean norm over all weights, a scalar; but for one factor of all norms, of which only ratios count."""


class WholeWeights:
    """Tensors that every process has whole; a point is the same tensors with other values, and nothing is written."""

    def __init__(self, parameters: Sequence[torch.Tensor], average: Callable[[torch.Tensor], torch.Tensor]):
        self.theta_P = flat(parameters)
        self.mean = average
        self._shapes = [parameter.shape for parameter in parameters]

    def at(self, point_P):
        return _pieces(point_P.requires_grad_(), self._shapes)

    def gradient(self, loss, point_P, create_graph):
        return torch.autograd.grad(loss, point_P, create_graph=create_graph, allow_unused=True)[0]

    def norm(self, x_P):
        return x_P.norm()


class ShardedWeights:
    """The shards of a model's weights that are on this process; a point is the model itself with other values in them.

    FSDP2 gathers weights by hooks around the model's forward and backward, and its backward averages the gradients over
    the processes into the shards. Within this context gradients are put aside; at its end these, and the weights to the
    last bit, are back.
    """

    def __init__(self, model: nn.Module, weights: Sequence[nn.Parameter]):
        self._model, self._weights = model, weights
        self._shards = [local_part(weight.detach()) for weight in weights]
        self._shapes = [shard.shape for shard in self._shards]
        self.theta_P = flat(self._shards)

    def __enter__(self) -> "ShardedWeights":
        self._gradients = [(weight, weight.grad) for weight in self._model.parameters()]
        self._take_gradients()
        return self

    def __exit__(self, *_: object) -> None:
        self.at(self.theta_P)
        for weight, gradient in self._gradients:
            weight.grad = gradient

    @torch.no_grad()
    def at(self, point_P):
        reshard(self._model)
        for shard, piece in zip(self._shards, _pieces(point_P, self._shapes), strict=True):
            shard.copy_(piece)
        return self._model

    def gradient(self, loss, point_P, create_graph):
        loss.backward()
        found = [None if weight.grad is None else local_part(weight.grad) for weight in self._weights]
        self._take_gradients()
        if all(gradient is None for gradient in found):
            return None
        pairs = zip(found, self._shards, strict=True)
        return flat([torch.zeros_like(shard) if gradient is None else gradient for gradient, shard in pairs])

    def mean(self, gradient_P):
        return gradient_P  # FSDP has averaged it

    def norm(self, x_P):
        return mean_over_processes(x_P @ x_P).sqrt()

    def _take_gradients(self) -> None:
        for weight in self._model.parameters():
            weight.grad = None


def _pieces(point_P: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    parts = point_P.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
