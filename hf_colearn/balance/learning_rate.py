"""`LearningRatePerModality` (MSLR): every modality learns at a rate of its own, by its accuracy on the validation split."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_colearn.balance.method import balanced_model
from hf_colearn.balance.validation import ValidatedMethod
from hf_colearn.utils.checks import check_integer, check_positive


_MODALITY = "modality"  # the entry of a parameter group that names whose it is


class LearningRatePerModality(ValidatedMethod):
    r"""Multiplies the learning rate of every modality by how its accuracy on the validation split moves.

    $$\eta_m = \eta \, c_m \, \frac{a_m(t)}{\frac{1}{n} \sum_{i=1}^{n} a_m(t - i)}$$

    after evaluation t, with the accuracy \\(a_m\\) of the modality's own prediction over the validation samples that have
    it, and n = `memory` evaluations before; fewer at the beginning, and \\(c_m\\) alone until the second evaluation and
    where all of those before are 0. \\(\eta\\) is what the schedule and `layer_decay` say. Encoder and head of a modality
    learn at its rate, all else (the fusion, a shared head) at \\(\eta\\).

    The rate stands in parameter groups, where it also acts under Adam, in which a scaled gradient cancels. It is multiplied
    before the optimizer's step and put back after it, so that any schedule goes on from its own value, and the logged
    `learning_rate` stays the schedule's. The decay of AdamW, which is multiplied by the rate, changes with it.

    Source: Yao and Mihalcea, "Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion", Findings of
    ACL 2022, whose models are `fusion="sum"`, as it is compared against in Li et al. (AGM, ICCV 2023); no code of its authors
    was read. It is defined for any number of modalities. The logs get `balance_coefficient_{modality}`, the factor. With
    `ema_decay` the accuracies are those of the averaged weights.

    Cost: nothing in a step; sums over the batches of every evaluation.

    Args:
        factors (`Mapping[str, float]`, *optional*): \\(c_m\\) by modality; 1 for those that it does not name.
        memory (`int`, *optional*, defaults to 5): n, over how many earlier evaluations the mean is.
        unimodal (`str`, *optional*, defaults to `"heads"`): See [`~hf_colearn.balance.batch.unimodal_logits`].

    Raises:
        TypeError: If the factors are no mapping.
        ValueError: If a factor is not above 0 or of no modality of the model, or the optimizer is the user's own.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=multimodal, args=CoLearningArguments("out", eval_strategy="epoch"), train_dataset=train,
        eval_dataset=validation, balance=LearningRatePerModality({"image": 1.1, "audio": 0.9}),
    )
    ```
    """

    needs_whole_weights = False

    def __init__(self, factors: Mapping[str, float] | None = None, memory: int = 5, unimodal: str = "heads"):
        super().__init__(unimodal)
        if factors is not None and not isinstance(factors, Mapping):
            raise TypeError(f"factors={factors!r}: pass a dict by modality, such as {{'image': 0.9}}.")
        for name, factor in (factors or {}).items():
            check_positive(f"factors[{name!r}]", factor)
        check_integer("memory", memory, 1)
        self.factors, self.memory = dict(factors or {}), memory
        self._accuracies: dict[str, list[float]] = {}  # of the evaluations so far, the last `memory` ones
        self._speeds: dict[str, float] = {}
        self._rates: list[Any] = []  # of the schedule, while an optimizer step is taken

    def coefficient(self, name: str) -> float:
        """What the learning rate of a modality is multiplied by now."""
        return self.factors.get(name, 1.0) * self._speeds.get(name, 1.0)

    def setup(self, trainer):
        super().setup(trainer)
        groups = [] if trainer.optimizer is None else trainer.optimizer.param_groups
        if not all(_MODALITY in group for group in groups):
            raise ValueError(
                "LearningRatePerModality splits the parameter groups that Trainer makes, and the optimizer is one of your own "
                f"({type(trainer.optimizer).__name__}): leave `optimizers` out, and set `optim` or `optimizer_cls_and_kwargs`."
            )

    def check_model(self, model):
        super().check_model(model)
        if unknown := sorted(self.factors.keys() - set(model.modalities)):
            raise ValueError(
                f"factors names {', '.join(unknown)}, and the model has {', '.join(model.modalities)}: name those."
            )

    def group_parameters(self, optimizer, model):
        owners = _owners(model)
        groups = []
        for group in optimizer.param_groups:
            parts: dict[str | None, list[Any]] = {}
            for parameter in group["params"]:
                parts.setdefault(owners.get(parameter), []).append(parameter)
            groups += [{**group, "params": parameters, _MODALITY: name} for name, parameters in parts.items()]
        optimizer.param_groups[:] = groups

    def validated(self, scores, model, control):
        for name in balanced_model(model).modalities:
            accuracy, before = scores[name].accuracy, self._accuracies.setdefault(name, [])
            self._speeds[name] = speed(accuracy, before)
            self._accuracies[name] = [*before, accuracy][-self.memory :]

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            if group[_MODALITY] is not None:
                group["lr"] = group["lr"] * self.coefficient(group[_MODALITY])

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self.record(**{f"coefficient_{name}": self.coefficient(name) for name in balanced_model(model).modalities})

    def state_dict(self):
        return {
            "accuracies": {name: list(kept) for name, kept in self._accuracies.items()},
            "speeds": {**self._speeds},
        }

    def load_state_dict(self, state):
        self._accuracies = {name: list(kept) for name, kept in state["accuracies"].items()}
        self._speeds = dict(state["speeds"])


def speed(accuracy: float, before: Sequence[float]) -> float:
    """An accuracy over the mean of those before; 1 where there is none, or all are 0."""
    return accuracy * len(before) / sum(before) if sum(before) else 1.0


def _owners(model: Any) -> dict[Any, str]:
    """Whose encoder or head a parameter is, where it is of one modality alone."""
    owners: dict[Any, set[str]] = {}
    for name, encoder in balanced_model(model).encoders.items():
        for parameter in encoder.parameters():
            owners.setdefault(parameter, set()).add(name)
    return {parameter: next(iter(names)) for parameter, names in owners.items() if len(names) == 1}


MSLR = LearningRatePerModality
