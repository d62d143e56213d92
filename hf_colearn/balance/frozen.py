"""Modules that an optimizer leaves as they are for a while."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from hf_colearn.balance.method import balanced_model, no_gradient


class FrozenEncoders:
    """Keeps encoders of a multimodal model bit-identical while others train: their gradients are taken away, so that momentum
    and weight decay do not move them, and they run in evaluation mode, so that statistics of batches stay.

    `names` are the modalities that are frozen now. The heads go with their encoders where `heads` is True.
    """

    def __init__(self, heads: bool = False):
        self.names: set[str] = set()
        self.heads = heads
        self._handle: Any = None

    def attach(self, model: nn.Module) -> None:
        """Before a run: from now on frozen encoders of the model run in evaluation mode."""
        self.detach()
        inner = balanced_model(model)

        def evaluate(module: nn.Module, *_: Any) -> None:
            if module.training:
                for name in self.names:
                    inner.encoders[name].eval()

        self._handle = inner.register_forward_pre_hook(evaluate)

    def detach(self) -> None:
        """After a run."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def take_gradients(self, model: nn.Module) -> None:
        """Before an optimizer step."""
        no_gradient(self.parameters(model))

    def parameters(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """Those that are frozen now."""
        inner = balanced_model(model)
        for name in self.names:
            for key, parameter in inner.encoders[name].named_parameters():
                if self.heads or not key.startswith("classifier"):
                    yield parameter
