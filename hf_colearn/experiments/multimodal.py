"""What the multimodal recipes share: the arms of Yang et al. (NeurIPS 2024), their runs, and the results.

A recipe loads its data and builds its model, and hands both to [`run_multimodal_recipe`]; the YAML beside it holds the published
hyperparameters. Arms: the label loss alone (`ce`), the mixture with a constant, heuristic, fitted and learned alpha, the
mixture with misaligned pairs as a null control, and every modality alone.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.alpha.schedules import Alpha, ConstantAlpha, FittedAlpha, HeuristicAlpha
from hf_colearn.analysis.runs import Run, compare_runs
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.multimodal import MultimodalCollator, only_modality
from hf_colearn.evaluation.metrics import classification_metrics
from hf_colearn.evaluation.modality_metrics import LabelAlignment, ModalityAccuracy, ModalityGap
from hf_colearn.experiments.experiment import ArmPlan, run_arms, run_folder
from hf_colearn.experiments.options import RecipeOptions
from hf_colearn.experiments.recipe import check_drop_last, check_student, keeps_first, optimizer_of, write_findings
from hf_colearn.experiments.student_folder import ExperimentInfo, finish_student, keep_student
from hf_colearn.hub.record import public
from hf_colearn.models.configuration import LATENT_NORMS
from hf_colearn.models.fusion import FUSIONS
from hf_colearn.models.lora import with_lora
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.objectives import ContrastiveAlignment, DistributionAlignment, MisalignedPairs, Objective
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed


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

    def __post_init__(self):
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective='{self.objective}' is unknown: choose one of {', '.join(OBJECTIVES)}.")
        for name, choices in (("fusion", FUSIONS), ("latent_norm", LATENT_NORMS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}='{getattr(self, name)}' is unknown: choose one of {', '.join(choices)}.")
        if self.lora and self.learned_temperature:
            raise ValueError(
                "learned_temperature=True is frozen by --lora, which trains modules: leave one of them out."
            )
        self.make_objective()  # a temperature that is none shows now

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


@dataclass(frozen=True)
class MultimodalArm(ArmPlan):
    """An arm of a multimodal comparison.

    Args:
        objective ([`Objective`], *optional*): Its auxiliary terms; none for the label loss alone.
        make_alpha (`Callable[[int], Alpha]`, *optional*): Their weight, new for every run, from the seed.
        modality (`str`, *optional*): The one modality that the arm is trained and tested with.
        augment (`Callable`, *optional*): Of its training batches, as the trainer takes it.
    """

    objective: Objective | None = None
    make_alpha: Callable[[int], Alpha] | None = None
    modality: str | None = None
    augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None


def multimodal_arms(
    options: MultimodalOptions, training: Mapping[str, Any], modalities: Sequence[str]
) -> list[MultimodalArm]:
    """The arms of the paper, with a null control and every modality alone.

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
    alpha = 0.5 if training["alpha"] is None else float(training["alpha"])
    objective = options.make_objective()
    term = objective.terms[0]

    def learned(seed: int) -> LearnedAlpha:
        return LearnedAlpha(
            term,
            alpha,
            float(training["alpha_learning_rate"]),
            training["alpha_interval"],
            training["alpha_solver"],
            outer_split=float(training["alpha_outer_split"]),
            batch_size=training["alpha_batch_size"],
            seed=seed,
        )

    def mixed(name: str, make_alpha: Callable[[int], Alpha]) -> MultimodalArm:
        return MultimodalArm(name, "colearned", objective=objective, make_alpha=make_alpha)

    return [
        MultimodalArm("ce", "baseline"),
        mixed("constant", lambda seed: ConstantAlpha(alpha, term)),
        mixed("heuristic", lambda seed: HeuristicAlpha(term)),
        mixed("fitted", lambda seed: FittedAlpha.released(term)),
        mixed("learned", learned),
        MultimodalArm(
            "misaligned pairs",
            "null",
            objective=MisalignedPairs(objective),
            make_alpha=lambda seed: ConstantAlpha(alpha, term),
        ),
        *(MultimodalArm(f"{modality} alone", "reference", modality=modality) for modality in modalities),
    ]


def run_multimodal_recipe(
    options: MultimodalOptions,
    training: dict[str, Any],
    *,
    facts: ExperimentInfo,
    plans: Sequence[MultimodalArm],
    data: Mapping[str, Any],
    make_model: Callable[[], CoLearningForMultimodalClassification],
    collators: Mapping[str, Callable | None],
    processors: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = ("accuracy", "macro_f1"),
    notes: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    more_tests: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Trains the arms over the seeds, scores them on the test split, and writes tables, report and model.

    The checkpoint of a run is chosen on `data["validation"]`; the test split is looked at once. The model of the last
    co-learned arm that was asked for (`learned`, by default) and of the first seed is saved with its card.

    Args:
        options ([`MultimodalOptions`]): As parsed.
        training (`dict`): Fields of [`CoLearningArguments`].
        facts ([`ExperimentInfo`]): For report and card.
        plans (`Sequence[MultimodalArm]`): The arms, from [`~hf_colearn.experiments.recipe.chosen_arms`].
        data (`Mapping`): `train`, `validation` and `test`, with columns `{modality}_{input}` and `labels`.
        make_model (`Callable`): A fresh model; the seed is set before.
        collators (`Mapping`): Of every modality, by its name; None stacks.
        processors (`Mapping`, *optional*): Saved beside the model, in a folder a modality.
        metrics (`Sequence[str]`, *optional*): Of [`classification_metrics`]; arms are compared on the first.
        notes (`Mapping`, *optional*): More for the report.
        groups, more_tests (`Mapping`, *optional*): As of [`~hf_colearn.experiments.experiment.run_arms`].

    Returns:
        `list[Run]`: All runs.

    Raises:
        ValueError: If a split is missing, or the arguments would leave test samples out.
    """
    if missing := [split for split in ("train", "validation", "test") if split not in data]:
        raise ValueError(
            f"the data have no split '{missing[0]}' (they have {', '.join(data)}): cut it from another one."
        )
    check_drop_last(training)
    if options.check is not None:
        check_student(options.check, "AutoModel", training, data["test"], MultimodalCollator(collators), metrics)
    output_dir, first_seed = Path(training["output_dir"]), training.get("seed") or 0
    kept = next((plan for plan in reversed(plans) if plan.kind == "colearned"), plans[0])
    optimizer = optimizer_of(options, training)

    def make_trainer(plan: ArmPlan, seed: int) -> CoLearningTrainer:
        assert isinstance(plan, MultimodalArm)
        values = {**copy.deepcopy(training), "seed": seed, "output_dir": str(run_folder(output_dir, plan.name, seed))}
        values |= {"alpha": None, "alpha_schedule": "constant", "disable_tqdm": True}
        train, validation, model = data["train"], data["validation"], make_model()
        collator: Any = MultimodalCollator(collators)
        curves: list[TrainerCallback] = [ModalityGap(), ModalityAccuracy(), LabelAlignment()]
        if plan.modality is not None:
            train, validation = (only_modality(part, plan.modality) for part in (train, validation))
            model, collator, curves = model.student(plan.modality), collators[plan.modality], []
        return CoLearningTrainer(
            with_lora(model, options.lora_rank) if options.lora else model,
            CoLearningArguments(**values),
            data_collator=collator,
            train_dataset=train,
            eval_dataset=validation,
            objective=plan.objective,
            alpha=None if plan.make_alpha is None else plan.make_alpha(seed),
            augment=plan.augment,
            callbacks=curves,
            optimizer_cls_and_kwargs=copy.deepcopy(optimizer),
            compute_metrics=classification_metrics(tuple(metrics)),
        )

    def of_arm(plan: ArmPlan, dataset: Any) -> Any:
        assert isinstance(plan, MultimodalArm)
        return dataset if plan.modality is None else only_modality(dataset, plan.modality)

    keep_first = keeps_first(kept, first_seed, lambda run: keep_student(run, None, output_dir / "model", processors))
    seeds = range(first_seed, first_seed + options.seeds)
    resume = bool(training.get("resume_from_checkpoint"))
    test = functools.partial(of_arm, dataset=data["test"])
    others = {name: functools.partial(of_arm, dataset=dataset) for name, dataset in (more_tests or {}).items()}
    runs = run_arms(plans, seeds, make_trainer, test, keep_first, output_dir, resume, groups, others)
    if distributed.rank() == 0:
        samples = {split: len(part) for split, part in data.items()}
        asked = {"options": public({**vars(options), **training}), "samples": samples, **(notes or {})}
        write_multimodal_results(output_dir, runs, kept, facts, asked, options.report)
    return runs


def write_multimodal_results(
    output_dir: Path,
    runs: Sequence[Run],
    kept: MultimodalArm,
    facts: ExperimentInfo,
    notes: Mapping[str, Any],
    with_page: bool = True,
) -> None:
    """Prints the tables of the arms and their modalities, and writes the report and the model's card."""
    metric = next(iter(runs[0].metrics))
    comparison = compare_runs(runs, metric, source="pairing")
    told = {
        "recipe": facts.recipe, "title": facts.title, "dataset": facts.dataset_name, "metric": metric,
        "command": facts.command, "published": facts.published, "pairing": facts.pairing, "source": "pairing", **notes,
    }  # fmt: skip
    by_modality = modality_table(runs, metric)
    print(f"\n{facts.title}: {facts.dataset_name}, {len(runs[0].labels):,} test samples\n")
    print(comparison.table(), *([comparison.verdict] if comparison.verdict else []), "", by_modality, sep="\n")
    if facts.published is not None:
        print(f"Published: {facts.published}")
    written = write_findings(output_dir, runs, comparison, told, with_page)
    if (output_dir / "model").is_dir():
        finish_student(output_dir / "model", runs, kept.name, facts, comparison, modalities=by_modality)
        written.append(output_dir / "model")
    print("Written:", *(f"  {path}" for path in written), sep="\n")


def modality_table(runs: Sequence[Run], metric: str = "accuracy") -> str:
    """Every arm's metric in percent, of the fused prediction, of each modality's own head, and of each subset: Markdown.

    Means over the seeds; the test samples are those that have the modality.
    """
    keys = [
        key
        for key in dict.fromkeys(key for run in runs for key in run.metrics)
        if key.startswith(metric) and "_on_" not in key
    ]
    rows = [["arm", *(key.removeprefix(metric).removeprefix("_").replace("_", " ") or "fused" for key in keys)]]
    for arm in dict.fromkeys(run.arm for run in runs):
        of_arm = [run.metrics for run in runs if run.arm == arm]
        means = [[scores[key] for scores in of_arm if key in scores] for key in keys]
        rows.append([arm, *(f"{100 * sum(values) / len(values):.2f}" if values else "-" for values in means)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    )
