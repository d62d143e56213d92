"""OGM-GE: the encoder of the modality that learns faster gets a smaller gradient, and noise. Shapes: M modalities."""

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from hf_colearn.balance.method import BalanceMethod, encoder_parameters
from hf_colearn.balance.scores import StepSums, mean_of_others, means_of, score_sums
from hf_colearn.utils.checks import check_epochs, check_positive
from hf_colearn.utils.draws import draw_bits
from hf_colearn.utils.sharded import local_part, part_of


class OGM(BalanceMethod):
    r"""On-the-fly gradient modulation with generalization enhancement (OGM-GE; Peng et al., CVPR 2022).

    Once a step, with the mean probability \\(s_m\\) of the true class by the logits of modality m:

    \\(\rho_m = s_m / s_{other}\\), \\(k_m = 1 - \tanh(\alpha \rho_m)\\) where \\(\rho_m > 1\\), and else 1;
    the gradient g of every tensor of encoder m becomes \\(k_m g + \epsilon\\), \\(\epsilon \sim N(0, std(g)^2)\\).

    The standard deviation is that of the unscaled gradient, and encoders with k = 1 get the noise, too; a tensor of one
    element has none. Of more than two modalities (the paper has two) \\(s_{other}\\) is the mean over the others. The whole
    gradient is scaled, that of auxiliary terms, too, before it is clipped.

    The paper sums \\(s_m\\) over a batch. These are means over the labelled samples that have the modality, in all micro-
    batches and processes of the step, which have the same ratio where every sample has every modality. A modality that no
    sample of the step has is neither scaled nor compared with.

    The released code changes the weights of convolutions alone, and with equal scores (rho = 1) it damps the audio encoder.
    It reads the slices of the fused head (`unimodal="fused"`) under `concat`.

    A step costs M softmaxes over a batch, a reduction of 2 M numbers, and one draw and sum for every encoder's weight.
    The noise is a function of the seed and the step: all processes and a resumed run draw the same. Under FSDP2 every tensor's
    gradient is gathered for its deviation, one at a time.

    Args:
        alpha (`float`, *optional*, defaults to 0.8): The paper's for CREMA-D; 0.1 for VGGSound.
        noise (`bool`, *optional*, defaults to `True`): Generalization enhancement (GE); without it this is the paper's OGM.
        epochs (`tuple[int, int]`, *optional*, defaults to `(0, 50)`): The first and the last epoch, from 0, in which
            gradients change.
        shuffled (`bool`, *optional*, defaults to `False`): A null control: every modality gets the factor of the one before
            it, so that the slower one of two is damped.
        unimodal (`str`, *optional*): `"fused"` or `"heads"`, see [`~hf_colearn.balance.batch.unimodal_logits`]; by default
            `"fused"` under `concat` and `"heads"` under other fusions, whose heads have no slices.

    Raises:
        ValueError: If a value is out of range, or the model has no such logits.

    Example:

    ```python
    >>> from hf_colearn import OGM

    >>> balance = OGM(alpha=0.1, epochs=(0, 30))  # CoLearningTrainer(model, args, train_dataset=data, balance=balance)
    ```
    """

    needs_whole_weights = False

    def __init__(
        self,
        alpha: float = 0.8,
        noise: bool = True,
        epochs: tuple[int, int] = (0, 50),
        unimodal: str | None = None,
        shuffled: bool = False,
    ):
        super().__init__("heads" if unimodal is None else unimodal)
        check_positive("alpha", alpha)
        if not isinstance(noise, bool):
            raise ValueError(f"noise={noise!r}: pass True for OGM-GE, or False for OGM.")
        if not isinstance(shuffled, bool):
            raise ValueError(f"shuffled={shuffled!r}: pass True for the null control, or leave it out.")
        self.shuffled = shuffled
        self.alpha, self.noise, self.epochs = alpha, noise, check_epochs(epochs)
        self._is_given = unimodal is not None
        self._sums = StepSums()
        self._seed = self._step = self._epoch = 0

    def check_model(self, model):
        if not self._is_given:
            self.unimodal = "fused" if model.config.fusion == "concat" else "heads"
        super().check_model(model)

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._sums.clear()

    def on_step_begin(self, args, state, control, **kwargs):
        self._seed, self._step = args.seed, state.global_step

    def observe(self, seen):
        self._epoch = seen.batch.epoch
        self._sums.add(score_sums(seen))

    def on_gradients(self, model):
        means_M = means_of(self._sums.take())
        first, last = self.epochs
        is_active = first <= self._epoch <= last
        factors_M = coefficients(means_M, self.alpha) if is_active else torch.ones_like(means_M)
        factors_M = factors_M.roll(1) if self.shuffled else factors_M
        parameters = encoder_parameters(model)
        self.record(**{f"coefficient_{name}": k for name, k in zip(parameters, factors_M.unbind(), strict=True)})
        if not is_active:
            return
        generator = _generator(means_M.device, self._seed, self._step) if self.noise else None
        for factor, of_encoder in zip(factors_M.unbind(), parameters.values(), strict=True):
            for parameter in of_encoder:
                if parameter.grad is not None:
                    _modulate(parameter.grad, factor, generator)


OGMGE = OGM


def coefficients(means_M: torch.Tensor, alpha: float) -> torch.Tensor:
    """k of every modality, `(M,)`, of their mean scores; 1 where a score is NaN, or there is none to compare with."""
    ratios_M = means_M / mean_of_others(means_M)
    return torch.where(ratios_M > 1, 1 - torch.tanh(alpha * ratios_M), 1)


def _modulate(gradient: torch.Tensor, factor: torch.Tensor, generator: torch.Generator | None) -> None:
    """`gradient` becomes the factor times itself, plus noise of its standard deviation, in place."""
    part = local_part(gradient)
    draws = generator is not None and gradient.numel() > 1
    deviation = (
        (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).float().std() if draws else None
    )
    part.mul_(factor)
    if deviation is not None:
        noise = torch.randn(gradient.shape, generator=generator, device=gradient.device)
        part.add_((deviation * local_part(part_of(noise, gradient))).to(part.dtype))


def _generator(device: torch.device, seed: int, step: int) -> torch.Generator:
    bits = int(draw_bits(np.array([step]), epoch=0, seed=seed)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(bits)
