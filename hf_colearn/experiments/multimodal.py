"""What the multimodal recipes share: their options, the arms of Yang et al. (NeurIPS 2024), and the trainer of an arm."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from hf_colearn.alpha.alpha import Alpha, check_weights
from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.alpha.schedules import ConstantAlpha, FittedAlpha, HeuristicAlpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.data.multimodal import MultimodalCollator, only_modality
from hf_colearn.evaluation.metrics import classification_metrics
from hf_colearn.evaluation.modality_metrics import LabelAlignment, ModalityAccuracy, ModalityGap
from hf_colearn.experiments.arms import ArmPlan
from hf_colearn.experiments.late_ensemble import LateEnsembleTrainer
from hf_colearn.experiments.options import RecipeOptions
from hf_colearn.models.configuration import LATENT_NORMS
from hf_colearn.models.fusion import FUSIONS
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.contrastive_alignment import ContrastiveAlignment
from hf_colearn.objectives.distribution_alignment import DistributionAlignment
from hf_colearn.objectives.misaligned_pairs import MisalignedPairs
from hf_colearn.objectives.objective import Objective
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.checks import check_choice


OBJECTIVES = ("contrastive", "distribution")


@dataclass
class MultimodalOptions(RecipeOptions):
    """What every multimodal recipe takes; a recipe adds its own by inheriting."""

    fusion: str = field(default="concat", metadata={"help": "concat, sum, weighted, film, mmtm or lstm."})
    latent_dim: int = field(default=128, metadata={"help": "Width of every modality's latent."})
    latent_norm: str = field(default="none", metadata={"help": "Of the latents: none or layernorm."})
    modality_dropout: float = field(default=0.0, metadata={"help": "Probability of hiding a modality in training."})
    modality_loss_weight: float = field(default=0.0, metadata={"help": "Weight of the modalities' own label losses."})
    objective: str = field(default="contrastive", metadata={"help": "contrastive, or distribution (Jensen-Shannon)."})
    temperature: float = field(
        default=0.07, metadata={"help": "Of the contrastive loss; where it starts, if learned."}
    )
    learned_temperature: bool = field(default=False, metadata={"help": "Learn the temperature, as CLIP does."})
    mask_same_class: bool = field(default=False, metadata={"help": "No negatives of the sample's own class."})
    alphas: list[float] = field(
        default_factory=list, metadata={"help": "More constant alphas, an arm each: 'alpha 0.1', ..."}
    )

    def __post_init__(self):
        super().__post_init__()
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("latent_norm", self.latent_norm, LATENT_NORMS)
        if self.lora and self.learned_temperature:
            raise ValueError(
                "learned_temperature=True is frozen by --lora, which trains modules: leave one of them out."
            )
        self.make_objective()  # a temperature that is none shows now
        for alpha in self.alphas:
            check_weights({"alphas": alpha})

    def make_objective(self) -> Objective:
        """The auxiliary objective of the co-learned arms."""
        if self.objective == "distribution":
            return DistributionAlignment()
        return ContrastiveAlignment("learned" if self.learned_temperature else self.temperature, self.mask_same_class)

    def make_model(self, backbones: Mapping[str, Any], **labels: Any) -> CoLearningForMultimodalClassification:
        """A model of these options; `labels` are `num_labels` or `id2label`, and what else `from_backbones` takes."""
        learned: dict[str, Any] = {"learned_temperature": True, "temperature": self.temperature}
        return CoLearningForMultimodalClassification.from_backbones(
            backbones,
            latent_dim=self.latent_dim,
            fusion=self.fusion,
            latent_norm=self.latent_norm,
            modality_dropout=self.modality_dropout,
            modality_loss_weight=self.modality_loss_weight,
            **(learned if self.learned_temperature else {}),
            **labels,
        )


def multimodal_arms(
    options: MultimodalOptions, training: Mapping[str, Any], modalities: Sequence[str]
) -> list[ArmPlan]:
    """The label loss alone (`ce`), its mixture with the objective by constant, heuristic, fitted and learned alphas (of
    which one lowers the fused loss of its outer split, and one the sum of the heads' losses), the mixture with misaligned
    pairs as a null control, and as references every modality alone and their late ensemble.

    A modality alone has as many optimizer steps as the joint model, hence as its encoder there; the late ensemble's share
    them, see [`~hf_colearn.experiments.late_ensemble.LateEnsembleTrainer`].

    Args:
        options ([`MultimodalOptions`]): Their objective.
        training (`Mapping`): `alpha` is that of the constant arms and the learned one's start (0.5 where it is None);
            `alpha_interval` and its neighbours are the learned one's.
        modalities (`Sequence[str]`): Those of the model.
    """
    if training["alpha_schedule"] != "constant":
        raise ValueError(
            f"alpha_schedule='{training['alpha_schedule']}' is what the arms differ in: leave it out, and choose by "
            "`--arms ce constant heuristic fitted learned`."
        )
    if training["alpha_outer"] != "fused":
        raise ValueError(
            f"alpha_outer='{training['alpha_outer']}' is what the learned arms differ in: leave it out, and choose by "
            "`--arms ce 'learned by modality'`."
        )
    alpha = 0.5 if training["alpha"] is None else float(training["alpha"])
    objective = options.make_objective()
    misaligned = MisalignedPairs(objective)
    term = objective.terms[0]

    def constant(value: float) -> Callable[[int], Alpha]:
        return lambda seed: ConstantAlpha(value, term)

    def learned(outer: str) -> Callable[[int], Alpha]:
        return lambda seed: LearnedAlpha(
            term,
            alpha,
            float(training["alpha_learning_rate"]),
            training["alpha_interval"],
            training["alpha_solver"],
            outer_split=float(training["alpha_outer_split"]),
            batch_size=training["alpha_batch_size"],
            seed=seed,
            outer=outer,
        )

    def mixed(name: str, make_alpha: Callable[[int], Alpha]) -> ArmPlan:
        return ArmPlan(name, "colearned", objective=objective, make_alpha=make_alpha)

    return [
        ArmPlan("ce", "baseline"),
        mixed("constant", constant(alpha)),
        *(mixed(f"alpha {value:g}", constant(value)) for value in options.alphas),
        mixed("heuristic", lambda seed: HeuristicAlpha(term)),
        mixed("fitted", lambda seed: FittedAlpha.released(term)),
        mixed("learned", learned("fused")),
        mixed("learned by modality", learned("modalities")),
        ArmPlan("misaligned pairs", "null", objective=misaligned, make_alpha=constant(alpha)),
        *(ArmPlan(f"{modality} alone", "reference", modality=modality) for modality in modalities),
        ArmPlan("late ensemble", "reference", late_ensemble=True),
    ]


def multimodal_trainer(
    options: RecipeOptions,
    arm: ArmPlan,
    args: CoLearningArguments,
    model: CoLearningForMultimodalClassification,
    data: Mapping[str, Any],
    collators: Mapping[str, Callable | None],
    metrics: Sequence[str],
    balance: BalanceMethod | None = None,
    callbacks: Callable[[], list[TrainerCallback]] = list,
) -> CoLearningTrainer:
    """The trainer of an arm: of all modalities, of the one that the arm is of, or of each by itself for a late ensemble.

    Args:
        options, arm, args: What is trained, with which adapters and optimizer, and the run's arguments.
        model ([`CoLearningForMultimodalClassification`]): A fresh one of all modalities.
        data (`Mapping`): `train` and `validation`, with columns `{modality}_{input}` and `labels`.
        collators (`Mapping`): By modality name; None stacks.
        metrics (`Sequence[str]`): Of [`classification_metrics`]; arms are compared on the first.
        balance ([`BalanceMethod`], *optional*): The method of the joint model.
        callbacks (`Callable`, *optional*): Makes more callbacks, of every trainer.
    """
    shared: dict[str, Any] = {"augment": arm.augment, "compute_metrics": classification_metrics(tuple(metrics))}
    whole = {
        **shared,
        "data_collator": MultimodalCollator(collators),
        "train_dataset": data["train"],
        "eval_dataset": data["validation"],
    }

    def alone(modality: str, args: CoLearningArguments) -> CoLearningTrainer:
        return CoLearningTrainer(
            options.adapted(model.student(modality)),
            args,
            data_collator=collators[modality],
            train_dataset=only_modality(data["train"], modality),
            eval_dataset=only_modality(data["validation"], modality),
            optimizer_cls_and_kwargs=options.optimizer_for(args),
            callbacks=callbacks(),
            **shared,
        )

    if arm.late_ensemble:
        return LateEnsembleTrainer(model, args, alone, **arm.ensemble_options, **whole)
    if arm.modality is not None:
        return alone(arm.modality, args)
    return CoLearningTrainer(
        options.adapted(model),
        args,
        objective=arm.objective,
        alpha=arm.alpha(args.seed),
        balance=balance,
        callbacks=[*callbacks(), ModalityGap(), ModalityAccuracy(), LabelAlignment()],
        optimizer_cls_and_kwargs=options.optimizer_for(args),
        **whole,
    )
