"""The reference of a multimodal comparison: the modalities trained one at a time, and the mean of their predictions."""

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.models.fusion import SumFusion
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.checks import check_choice


MEANS = ("logits", "probabilities")


class LateEnsembleTrainer(CoLearningTrainer):
    """Trains a student of every modality by itself, one after another, and predicts by the mean of their logits or
    probabilities.

    The students share the optimizer steps that one model of all modalities would have, `steps // M` each, and one more for
    as many as it takes: a comparison at equal updates. What is counted in steps or epochs is shortened alike. With
    `shares_steps=False` each has all of these steps: as many updates of every encoder as in the joint model.

    What it evaluates and predicts with is a model of the fusion `sum` with the students as its encoders, so that heads,
    subsets and absent modalities are scored as those of any other arm; the mean of probabilities is its logarithm there.

    Args:
        model ([`CoLearningForMultimodalClassification`]): A fresh one of all modalities, of any fusion.
        args ([`CoLearningArguments`]): Those of the model that it is compared with.
        make_trainer (`Callable`): Builds the trainer of a modality's student, from its name and arguments.
        mean (`str`, *optional*, defaults to `"logits"`): What is averaged over the modalities of a sample: `"logits"` or
            `"probabilities"`.
        shares_steps (`bool`, *optional*, defaults to `True`): Whether the modalities share the steps.
        trainer_kwargs: As in [`CoLearningTrainer`], in all modalities.

    Raises:
        ValueError: If the weights are sharded, or there are fewer steps than modalities.
    """

    def __init__(
        self,
        model: CoLearningForMultimodalClassification,
        args: CoLearningArguments,
        make_trainer: Callable[[str, CoLearningArguments], CoLearningTrainer],
        mean: str = "logits",
        shares_steps: bool = True,
        **trainer_kwargs: Any,
    ):
        check_choice("mean", mean, MEANS)
        super().__init__(mean_of_logits(model), args, **trainer_kwargs)
        if mean == "probabilities":
            self.model.fusion = ProbabilityFusion.like(self.model)
        self.make_trainer, self.shares_steps = make_trainer, shares_steps
        if self.sharded_by is not None:
            raise ValueError(
                f"a late ensemble is made of whole students, and {self.sharded_by} shards them: leave its arm out."
            )

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        # One student after another, each with a trainer of its own.
        *_, total = self.set_initial_training_values(self.args, self.get_train_dataloader())
        names = self.model.modalities
        if self.shares_steps and total < len(names):
            raise ValueError(
                f"{total} optimizer steps cannot be shared by {len(names)} modalities: train longer, or leave the arm out."
            )
        history: list[dict[str, Any]] = []
        steps, epochs = 0, 0.0
        for i, name in enumerate(names):
            share = total // len(names) + (i < total % len(names)) if self.shares_steps else total
            trainer = self.make_trainer(name, self._share(name, share, total))
            for callback in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(callback)
            folder = trainer.args.output_dir
            resumes = self.args.resume_from_checkpoint and Path(folder).is_dir()
            trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if resumes else None)
            student: Any = trainer.model
            student = student.merge_and_unload() if isinstance(student, PeftModel) else student
            self.model.encoders[name].load_state_dict(student.state_dict())
            history += [_as_one_run(entry, name, steps, epochs) for entry in trainer.state.log_history]
            steps, epochs = steps + trainer.state.global_step, epochs + float(trainer.state.epoch or 0)
        self.state.log_history, self.state.global_step, self.state.epoch = history, steps, epochs
        return TrainOutput(steps, float("nan"), {})

    def _share(self, name: str, steps: int, total: int) -> CoLearningArguments:
        """The arguments of one modality, with its share of the steps."""
        args = copy.deepcopy(self.args)
        args.max_steps, args.output_dir = steps, str(Path(args.output_dir) / name)
        if args.lr_step_epochs is not None:
            args.lr_step_epochs *= steps / total
        for field in ("warmup_steps", "eval_steps", "save_steps"):
            if (value := getattr(args, field)) and value >= 1:  # below, it is a share already
                setattr(args, field, max(1, round(value * steps / total)))
        return args


class ProbabilityFusion(SumFusion):
    """The mean of the present modalities' probabilities; its logits are the logarithm."""

    @classmethod
    def like(cls, model: CoLearningForMultimodalClassification) -> "ProbabilityFusion":
        """In the place of the fusion `sum` of a model."""
        config = model.config
        return cls([0] * len(model.modalities), config.latent_dim, config.num_labels)

    def forward(self, latents, logits, mask_BM):
        probabilities = [logits_BC.float().softmax(dim=1) for logits_BC in logits]
        fused_BD, mean_BC = super().forward(latents, probabilities, mask_BM)
        return fused_BD, mean_BC.clamp(min=torch.finfo(torch.float32).tiny).log()


def mean_of_logits(model: CoLearningForMultimodalClassification) -> CoLearningForMultimodalClassification:
    """A model with copies of another one's encoders that predicts by the mean of their heads' logits, the fusion `sum`."""
    config = copy.deepcopy(model.config)
    config.fusion, config.modality_dropout, config.learned_temperature = "sum", 0.0, False
    config.training_heads, config.fusion_options, config.shared_classifier = {}, {}, False
    config.imputation, config.imputation_options = None, {}
    ensemble: Any = type(model)._from_config(config, dtype=model.dtype)
    ensemble.encoders.load_state_dict(model.encoders.state_dict())
    return ensemble


def one_log(logs: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The logs of trainings that followed one another, with their steps counted on."""
    history, steps = list[dict[str, Any]](), 0
    for log in logs:
        history += [{**entry, "step": entry["step"] + steps} for entry in log]
        steps += max((entry["step"] for entry in log), default=0)
    return history


def _as_one_run(entry: dict[str, Any], name: str, steps: int, epochs: float) -> dict[str, Any]:
    """What a student has logged, after those before it: its evaluation is that of a modality."""
    moved = {"step": entry["step"] + steps, "epoch": entry.get("epoch", 0.0) + epochs}
    return {f"{key}_{name}" if key.startswith("eval_") else key: value for key, value in entry.items()} | moved
