"""What every balance method stands on: where it is called, what it sees, what it is refused with."""

import torch

from hf_colearn.balance.method import BalanceMethod, encoder_parameters
from tiny_modalities import trainer


class Recorder(BalanceMethod):
    def __init__(self, unimodal="heads"):
        super().__init__(unimodal)
        self.losses, self.gradients, self.steps = [], [], 0

    def observe(self, seen):
        self.losses.append(
            {"fused": seen.fused_loss.detach(), **{k: v.detach() for k, v in seen.unimodal_losses.items()}}
        )
        self.record(seen_image=float(len(self.losses)))

    def on_gradients(self, model):
        norms = {
            name: torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
            for name, parameters in encoder_parameters(model).items()
        }
        self.gradients.append(norms)
