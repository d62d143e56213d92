"""MLA: each modality trains in turn through one head. Shapes: B samples, M modalities, D latent width, C classes."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.frozen import FrozenEncoders
from hf_colearn.balance.method import BalanceMethod, balanced_model
from hf_colearn.data.sample_ids import STEP_COUNTS
from hf_colearn.models.heads import LEAST_COUNT
from hf_colearn.models.lora import trained_layer
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.distributed import mean_over_processes


PROJECTIONS = ("off", "rls", "rls_normalised")


class AlternatingAdaptation(BalanceMethod):
    r"""Multimodal learning with alternating unimodal adaptation (MLA; Zhang et al., CVPR 2024).

    A batch is M optimizer steps, one for each modality in the model's order: the forward of its inputs alone, the backward
    of \\(l(u_m)\\) through the head that all share, a step of its encoder and the head. The other encoders stay bit-identical.
    So that a step does not undo what the head has learnt of the modalities before it, the gradient of the head's weight
    `(C, D)` is projected, \\(\nabla W \leftarrow \nabla W P\\), with P = I at first and after each modality's step

    $$ P \leftarrow P - \frac{k k^\top}{\lambda + r^\top k}, \qquad k = P r, \qquad \lambda = 0.1^{1 + t}, $$

    where r is the modality's mean latent of the batch `(D,)`, unlabelled samples among them, over all processes, and t the
    share of the epoch that is over. The head's bias is not projected. P goes on through the whole run and is saved in
    checkpoints, so that the head moves less and less along the latents that it has seen; with `"rls_normalised"` it is
    divided by its Frobenius norm after every update, as in the released code.

    Build the model with `shared_classifier=True` and `fusion="entropy"`, by which it predicts: each head's logits weighted by
    their certainty, or with `fusion_options={"weights": "fixed"}` all alike.

    The released code never applies the projection: it asks for a name that no weight has. What it trains is `"off"`. Were the
    projection applied there, P would hold the modality's own latents before its own gradient is projected, so that a step
    could not learn along them; here they come after the step.

    A batch costs a forward and a backward of each encoder, as a plain one, and M optimizer steps, reductions of gradients and
    updates of P (D^2). Each step is clipped by `max_grad_norm`. Learning rates, averaged weights and `global_step` move once a
    batch, with the last modality's step. A modality that no sample of the batch has takes no step; where there is a
    `modality_mask`, finding that out waits for the device, as the model does. The loss in the logs is the sum over modalities.
    Logged is `balance_coefficient_{modality}`: what the projection leaves of the length of the head's gradient. Mean latents
    are much alike from batch to batch, so that it may soon be a few hundredths.

    Accumulation, auxiliary terms and a learned alpha are refused: a step sees one modality.

    Args:
        projection (`str`, *optional*, defaults to `"rls"`): `"rls"`, as above, `"rls_normalised"`, or `"off"`.

    Raises:
        ValueError: If `projection` is none of these, or the model has a head for each modality or another fusion.

    Example:

    ```python
    >>> from hf_colearn import AlternatingAdaptation

    >>> balance = AlternatingAdaptation()  # CoLearningTrainer(model, args, train_dataset=data, balance=balance)
    ```
    """

    fusions = ("entropy",)
    replaces_loss = True
    takes_objective = False
    accumulates = False

    def __init__(self, projection: str = "rls"):
        super().__init__()
        check_choice("projection", projection, PROJECTIONS)
        self.projection = projection
        self._frozen = FrozenEncoders()
        self._active = ""
        self._mean_D: torch.Tensor | None = None  # of the active modality's latents
        self._P_DD: torch.Tensor | None = None  # I before the first update

    def check_model(self, model):
        super().check_model(model)
        if not model.config.shared_classifier:
            raise ValueError(
                "AlternatingAdaptation trains one head with all modalities, and the model has one for each: build it with "
                "`from_backbones(..., fusion='entropy', shared_classifier=True)`."
            )

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._frozen.attach(model)

    def on_train_end(self, args, state, control, **kwargs):
        self._frozen.detach()

    def training_step(self, trainer, model, inputs, step):
        inputs = trainer._prepare_inputs(inputs)
        inner = balanced_model(model)
        names = _to_train(inner.modalities, inputs)
        total = torch.zeros((), device=trainer.args.device)
        for name in names:
            self._active = name
            self._frozen.names = {*inner.modalities} - {name}
            total = total + step(model, _inputs_of(name, inner.modalities, inputs))
            self._frozen.take_gradients(model)
            if self.projection != "off":
                self._project(_shared_head(inner).weight, (trainer.state.epoch or 0) % 1)
            if name != names[-1]:  # Trainer takes the last step
                if trainer.args.max_grad_norm > 0:
                    trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
                trainer.optimizer.step()
                model.zero_grad()
        return total

    def observe(self, seen: ModalityBatch) -> None:
        latents_BD = seen.latents[self._active].detach().float()  # 0 where it is absent
        count = seen.present_BM[:, seen.modalities.index(self._active)].sum().float()
        sums = mean_over_processes(torch.cat([latents_BD.sum(0), count.view(1)]))
        self._mean_D = sums[:-1] / sums[-1].clamp(min=LEAST_COUNT)

    def loss(self, seen: ModalityBatch, task: torch.Tensor) -> torch.Tensor:
        return seen.unimodal_losses[self._active]

    def _project(self, weight_CD: torch.nn.Parameter, passed: float) -> None:
        """Projects the head's gradient by what came before, then adds the active modality's direction to P."""
        mean_D = self._mean_D
        assert mean_D is not None
        P_DD = torch.eye(len(mean_D), device=mean_D.device) if self._P_DD is None else self._P_DD.to(mean_D.device)
        if weight_CD.grad is not None:
            projected_CD = weight_CD.grad.float() @ P_DD
            length = weight_CD.grad.float().norm()
            left = torch.where(length > 0, projected_CD.norm() / torch.where(length > 0, length, 1), 1)
            self.record(**{f"coefficient_{self._active}": left})
            weight_CD.grad.copy_(projected_CD)
        self._P_DD = updated_projection(P_DD, mean_D, 0.1 ** (1 + passed), self.projection == "rls_normalised")

    def state_dict(self):
        return {} if self.projection == "off" else {"projection": None if self._P_DD is None else self._P_DD.cpu()}

    def load_state_dict(self, state):
        self._P_DD = state.get("projection")


MLA = AlternatingAdaptation


def updated_projection(P_DD: torch.Tensor, mean_D: torch.Tensor, lam: float, normalised: bool = False) -> torch.Tensor:
    """P without most of the direction of a mean latent: a step of recursive least squares."""
    k_D = P_DD @ mean_D
    P_DD = P_DD - torch.outer(k_D, k_D) / (lam + mean_D @ k_D)
    return P_DD / P_DD.norm() if normalised else P_DD


def _to_train(modalities: tuple[str, ...], inputs: Mapping[str, Any]) -> list[str]:
    """The modalities that a labelled sample of the step has on any process, alike on all of them."""
    counts = inputs[STEP_COUNTS].get("labels")
    if inputs.get("modality_mask") is None or counts is None:
        return [*modalities]
    return [name for name, count in zip(modalities, counts[1:].tolist(), strict=True) if count > 0]


def _inputs_of(name: str, modalities: tuple[str, ...], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch with one modality's inputs alone; the whole batch where none of this process's samples has it."""
    mask_BM = inputs.get("modality_mask")
    index = modalities.index(name)
    if mask_BM is not None and not mask_BM[:, index].any():
        return dict(inputs)  # a forward needs a sample; the loss is 0
    others = tuple(f"{other}_" for other in modalities if other != name)
    alone = {key: value for key, value in inputs.items() if not key.startswith(others)}
    if mask_BM is not None:
        is_active_M = torch.arange(len(modalities), device=mask_BM.device) == index
        alone["modality_mask"] = mask_BM.bool() & is_active_M
    return alone


def _shared_head(model: Any) -> Any:
    return trained_layer(model.encoders[model.modalities[0]].classifier)
