"""InfoReg: the encoder of the dominant modality is drawn to where its epoch began. Shapes: M modalities."""

from collections.abc import Sequence

import torch

from hf_colearn.balance.method import BalanceMethod, encoder_parameters
from hf_colearn.balance.scores import StepSums, mean_of_others, means_of, score_sums
from hf_colearn.utils.checks import check_choice, check_positive, is_number
from hf_colearn.utils.distributed import mean_over_processes, world_size


TARGETS = ("dominant", "weaker")
WINDOW = 10  # epochs that a trace is averaged over


class InfoReg(BalanceMethod):
    r"""Information acquisition regulation (Huang et al., "Adaptive unimodal regulation", CVPR 2025).

    The loss is \\(l_z + \sum_m l_m\\). As long as the information that the dominant encoder holds still grows, its gradient
    becomes \\(g + \beta_t (\theta - \theta_0)\\), with \\(\theta_0\\) its weights at the beginning of the epoch and

    \\(\beta_t = \beta \exp(\tanh(s_{dominant} - s_{other}))\\),

    s the sum over a step of the true class's probability by a modality's head. Dominant is the modality with the largest s.
    Information is the trace of the Fisher matrix, the mean over an epoch's steps of an encoder's \\(|g|^2\\), without the
    added term; of its mean over 10 epochs, earlier ones counted as 0, the growth is \\((t_e - t_{e-1}) / t_e\\), read once an
    epoch: in the first two it is 1, and the encoder is regulated where it is above `threshold`.

    Of more than two modalities (the paper has two) the largest is regulated, and \\(s_{other}\\) is the mean over the others.
    Where samples lack modalities, s is the mean over the samples that have one, times their number for the dominant. Sums
    are over micro-batches and processes; tanh makes of them a gap that grows with the batch, as published.

    The released code can only regulate the first of its two modalities: the second branch has the condition of the first.
    Its trace is the sum over layers of the mean of squared gradients, the added term among them, of that modality alone, and
    its threshold 0.04.

    A step costs the losses of M heads, a norm of every encoder's gradient, and a difference and a sum for every weight; the
    run holds \\(\theta_0\\) of all encoders, once their size, and so does a checkpoint, in which a resumed run finds it: it may
    lie in the middle of an epoch.

    Args:
        beta (`float`, *optional*, defaults to 0.95): As in the authors' code.
        threshold (`float`, *optional*, defaults to 0.05): Of the growth; below 0 it never ends.
        on (`str`, *optional*, defaults to `"dominant"`): Or `"weaker"`, a null control: in the same steps the same
            \\(\beta_t\\) on the encoder of the modality with the smallest s.

    Raises:
        ValueError: If a value is out of range.

    Example:

    ```python
    >>> from hf_colearn import InfoReg

    >>> balance, control = InfoReg(beta=0.5), InfoReg(beta=0.5, on="weaker")  # CoLearningTrainer(..., balance=balance)
    ```
    """

    replaces_loss = True

    def __init__(self, beta: float = 0.95, threshold: float = 0.05, on: str = "dominant"):
        super().__init__()
        check_positive("beta", beta)
        if not is_number(threshold) or not threshold < 1:
            raise ValueError(
                f"threshold={threshold!r}: the growth is 1 in the first two epochs, so choose a number below 1."
            )
        check_choice("on", on, TARGETS)
        self.beta, self.threshold, self.on = beta, threshold, on
        self._sums = StepSums()
        self._traces: list[list[float]] = []  # of epochs that have ended, of every modality
        self._squares_M: torch.Tensor | None = None  # of the steps of this one
        self._steps = 0
        self._epoch: int | None = None  # the number of the one that has begun
        self._is_resumed = False  # until the first epoch begins, which may be the rest of one
        self._start: dict[
            str, list[torch.Tensor]
        ] = {}  # the encoders' weights when it began; none where nothing grows
        self._grows_M: torch.Tensor | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._sums.clear()

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        parameters = encoder_parameters(model)
        goes_on, self._is_resumed = self._is_resumed and int(state.epoch or 0) == self._epoch, False
        if not goes_on and self._squares_M is not None:
            self._traces.append((mean_over_processes(self._squares_M) / self._steps).tolist())
            self._squares_M, self._steps = None, 0
        grows = [growth([trace[m] for trace in self._traces]) > self.threshold for m in range(len(parameters))]
        if not goes_on:
            self._epoch = 0 if self._epoch is None else self._epoch + 1
            kept = parameters if any(grows) else {}
            self._start = {name: [x.detach().clone() for x in of_encoder] for name, of_encoder in kept.items()}
        device = next(model.parameters()).device
        self._start = {name: [x.to(device) for x in weights] for name, weights in self._start.items()}
        self._grows_M = torch.tensor(grows, device=device)

    def observe(self, seen):
        self._sums.add(score_sums(seen))

    def loss(self, seen, task):
        return seen.fused_loss + seen.sum_of_unimodal_losses

    def on_gradients(self, model):
        assert self._grows_M is not None
        parameters, sums_2M = encoder_parameters(model), self._sums.take()
        counts_M = sums_2M.chunk(2)[1] * world_size()
        betas_M = coefficients(means_of(sums_2M), counts_M, self._grows_M, self.beta, self.on)
        squares_M = torch.stack([_squared_norm(of_encoder, betas_M) for of_encoder in parameters.values()])
        self._squares_M = squares_M if self._squares_M is None else self._squares_M.to(squares_M.device) + squares_M
        self._steps += 1
        for (name, of_encoder), beta in zip(parameters.items(), betas_M.unbind(), strict=True):
            self.record(**{f"coefficient_{name}": beta})
            if self._start:
                _draw_to(self._start[name], of_encoder, beta)

    def state_dict(self):
        return {
            "traces": [list(trace) for trace in self._traces],
            "squares": None if self._squares_M is None else self._squares_M.cpu(),
            "steps": self._steps,
            "epoch": self._epoch,
            "start": {name: [x.cpu() for x in weights] for name, weights in self._start.items()},
        }

    def load_state_dict(self, state):
        self._traces, self._squares_M, self._steps = state["traces"], state["squares"], state["steps"]
        self._epoch, self._start, self._grows_M = state["epoch"], state["start"], None
        self._is_resumed = self._epoch is not None


def coefficients(
    means_M: torch.Tensor, counts_M: torch.Tensor, grows_M: torch.Tensor, beta: float, on: str = "dominant"
) -> torch.Tensor:
    """beta of every modality, `(M,)`: 0 but for the one that is regulated.

    Args:
        means_M (`torch.Tensor` of shape `(M,)`): Mean scores; NaN where there is none.
        counts_M (`torch.Tensor` of shape `(M,)`): The samples that they are over.
        grows_M (`torch.Tensor` of shape `(M,)`): Whether the information of each still grows, booleans.
        beta (`float`): The largest is e times it.
        on (`str`, *optional*, defaults to `"dominant"`): Or `"weaker"`.
    """
    dominant = means_M.nan_to_num(-torch.inf).argmax()
    weaker = means_M.nan_to_num(torch.inf).argmin()
    gap = counts_M[dominant] * (means_M[dominant] - mean_of_others(means_M)[dominant])
    is_on = grows_M[dominant] & (gap > 0)  # NaN where there is none to compare with
    regulated = dominant if on == "dominant" else weaker
    is_regulated_M = torch.arange(len(means_M), device=means_M.device) == regulated
    return torch.where(is_regulated_M & is_on, beta * gap.tanh().exp(), 0)


def growth(traces: Sequence[float]) -> float:
    """Of the mean over 10 epochs up to the last one, beside that up to the one before; 1 before there is any."""
    now, before = sum(traces[-WINDOW:]), sum(traces[-WINDOW - 1 : -1])
    return (now - before) / now if now > 0 else 1.0


def _draw_to(start: Sequence[torch.Tensor], parameters: Sequence[torch.nn.Parameter], beta: torch.Tensor) -> None:
    for parameter, of_start in zip(parameters, start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(beta * (parameter.detach() - of_start))


def _squared_norm(parameters: Sequence[torch.nn.Parameter], like: torch.Tensor) -> torch.Tensor:
    squares = [parameter.grad.float().square().sum() for parameter in parameters if parameter.grad is not None]
    return torch.stack(squares).sum() if squares else like.new_zeros(())
