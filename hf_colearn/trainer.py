"""`CoLearningTrainer`: transformers' Trainer with teacher targets, auxiliary terms and their weights alpha."""

import json
import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset, IterableDataset
from transformers import Trainer
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from hf_colearn.alpha.bilevel import BilevelTrainer
from hf_colearn.alpha.learned import LearnedAlpha, alpha_from
from hf_colearn.alpha.schedules import Alpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.evaluation.modality_metrics import ModalityMetrics
from hf_colearn.hub.trainer_hub import PublishingTrainer
from hf_colearn.objectives.objectives import LatentMatching, Objective
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.collator import TARGETS, EpochClock, TargetCollator
from hf_colearn.teachers.pairing import Paired, Pairing
from hf_colearn.training import checks
from hf_colearn.training.checkpoints import load_weights, position_in_stream
from hf_colearn.training.learning_rates import LearningRateTrainer
from hf_colearn.training.weight_average import AveragingTrainer
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


logger = logging.get_logger(__name__)

ALPHA_STATE = "alpha.json"


class CoLearningTrainer(BilevelTrainer, AveragingTrainer, LearningRateTrainer, PublishingTrainer):
    r"""Trains a student with latent targets of a frozen teacher of another modality, or several modalities together.

    The loss is \\((1 - \sum_k \alpha_k) L_{task} + \sum_k \alpha_k L_k\\). Training logs carry every term unweighted
    (`loss_task`, `loss_latent`, ...) and `alpha`, averaged over steps and processes; `eval_loss` is the task loss
    alone, so that it compares between arms. Without a bank and an objective this *is* transformers' Trainer. Under
    gradient accumulation every term is a mean over its micro-batch.

    With `ema_decay` the averaged weights are what is evaluated, predicted with and saved, as `model.safetensors` in a
    checkpoint; after `train()` the model holds them, and another `train()` without resuming goes on from them.

    A training stream ([`datasets.IterableDataset`]) is split between the processes by
    `datasets.distributed.split_dataset_by_node`, unless it is split already or `dispatch_batches` is set; all processes
    end an epoch together. A resumed run reads the current epoch of the stream again up to where it was, and goes on with
    the very samples that would have come, if the stream is the same and its shuffle has a seed.

    Args:
        model: As in [`~transformers.Trainer`]; a co-learning student, or any model whose output has `loss`, `logits`
            `[B, C]` and `latents` `[B, D]`; for objectives between modalities, such as [`ContrastiveAlignment`], a
            [`CoLearningForMultimodalClassification`].
        args ([`CoLearningArguments`], *optional*): As in [`~transformers.Trainer`].
        bank ([`TeacherBank`], *optional*): The teacher's latents.
        pairing ([`Pairing`], *optional*): Which row of the bank a sample sees; `Paired()` by default.
        objective (*optional*): The auxiliary terms; `LatentMatching` by the arguments where there is a bank.
        alpha ([`Alpha`], *optional*): The terms' weights; by the arguments where it is not given. [`LearnedAlpha`]
            takes its outer split from the training set: `trainer.outer_dataset`.
        augment (`Callable[[dict], dict]`, *optional*): Changes every training batch, on the device, before the loss:
            the student's inputs, `labels`, and `teacher_latents` `[B, D]` where there is a bank, so that mixup can mix
            all three. It draws from torch's generators, if a resumed run is to be the same. Evaluation never sees it.
        trainer_kwargs: Everything else that [`~transformers.Trainer`] takes.

    Raises:
        TypeError: If `args` are not [`CoLearningArguments`].
        ValueError: If the bank, pairing, objective and alpha do not fit each other or the student.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=student, args=CoLearningArguments("out", alpha=0.5), train_dataset=with_sample_ids(train),
        bank=bank, pairing=RandomPrompt("This is about class {}.", num_classes=1000),
    )
    trainer.train()
    ```
    """

    data_collator: Any
    accelerator: Any

    def __init__(
        self,
        model: Any = None,
        args: CoLearningArguments | None = None,
        *trainer_args: Any,
        bank: TeacherBank | None = None,
        pairing: Pairing | None = None,
        objective: Objective | None = None,
        alpha: Alpha | None = None,
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        **trainer_kwargs: Any,
    ):
        args = CoLearningArguments("tmp_trainer") if args is None else args
        if not isinstance(args, CoLearningArguments):
            raise TypeError(f"args is a {type(args).__name__}: pass CoLearningArguments, which take the same fields.")
        if bank is None and pairing is not None:
            raise ValueError(f"pairing={type(pairing).__name__} needs a bank to draw from: pass `bank=` as well.")
        self.bank = bank
        self.pairing = Paired() if bank is not None and pairing is None else pairing
        if objective is None and bank is not None:
            objective = LatentMatching(args.latent_loss, args.latent_reduction)
        self.auxiliary_objective = objective  # `objective` is a name of Trainer's hyperparameter search
        checks.alpha_has_its_terms(args, objective, alpha)
        super().__init__(model, args, *trainer_args, **trainer_kwargs)
        shards = "DeepSpeed" if self.is_deepspeed_enabled else "FSDP" if self.is_fsdp_enabled else None
        checks.arguments_fit(args, self.optimizer is not None, self.lr_scheduler is not None, shards)
        self.augment = augment.to(args.device) if isinstance(augment, torch.nn.Module) else augment
        self._in_step = distributed.SynchronisedBatches()
        self.alpha: Any = None  # an Alpha, where there are terms to weigh
        self._terms: tuple[str, ...] = () if objective is None else objective.terms
        self._alpha_is_given = alpha is not None
        self._uncut = self.train_dataset
        if objective is not None:
            # Every term is a mean over its micro-batch, so Trainer must divide by the accumulation steps: a task loss
            # that is normalised over the accumulated batch would not mix with them.
            self.loss_is_scaled_for_ga = False
            self.model_accepts_loss_kwargs = False
            self._clock = EpochClock()
            self.add_callback(self._clock)
            self._set_alpha(alpha if alpha is not None else alpha_from(args, self._terms))
            self._sums: torch.Tensor | None = None
            self._alpha_sums = dict.fromkeys(self._terms, 0.0)
            self._count = 0
        if bank is not None and self.model is not None:
            checks.latent_width(self.model, bank)
            checks.latent_head_learns(self.model)

    def _set_alpha(self, alpha: Alpha) -> None:
        if self.alpha is not None:
            self.remove_callback(self.alpha)
        assert self.auxiliary_objective is not None
        checks.weights_match_terms(alpha, self.auxiliary_objective)
        self.alpha = alpha
        self.add_callback(alpha)
        if isinstance(alpha, LearnedAlpha):
            self._learn_alpha(alpha, self._uncut)

    # ---- before training ----
    def train(self, *args, **kwargs):
        # Bad input must show before anything is written, so the data, the ids and one small batch are looked at first.
        if self.train_dataset is not None and self.model is not None:  # no model yet in a hyperparameter search
            checks.training_data(self.train_dataset, self.args, self.model, self.bank, self.pairing)
            evaluated = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
            for dataset in evaluated.values():
                if isinstance(dataset, Dataset):
                    checks.labels_fit(dataset, self.model)
            self._try_one_batch()
        return super().train(*args, **kwargs)

    def _try_one_batch(self) -> None:
        """Sends the first few samples through the student, to see whether its outputs fit the targets and the terms."""
        is_sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        nothing_to_try = self.auxiliary_objective is None and self.augment is None
        if nothing_to_try or is_sharded or not hasattr(self.train_dataset, "__len__"):
            return  # then the first step looks
        device = next(self.model.parameters()).device
        was_training = self.model.training
        with preserve_rng_state(self.args.device), torch.no_grad():
            dataset, collator = self.train_dataset, self._collator(with_targets=True)
            if isinstance(dataset, Dataset):
                dataset = self._remove_unused_columns(dataset)
            else:
                collator = self._get_collator_with_removed_columns(collator)
            batch = collator([dataset[i] for i in range(min(4, self.args.train_batch_size, len(dataset)))])
            if self.augment is not None:
                batch = self._augmented(self._prepare_input(batch))
                checks.augmented_labels_fit(batch, self.label_smoother is not None)
            batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            targets = batch.pop(TARGETS, None)
            with self.accelerator.autocast():
                outputs = self.model.eval()(**batch)
            self.model.train(was_training)
            checks.outputs_fit(outputs, targets, type(self.model).__name__)
            if self.auxiliary_objective is not None:
                self.auxiliary_objective(outputs, targets)
        if self.compute_loss_func is None and self.label_smoother is None:
            checks.has_task_loss(outputs, list(batch), type(self.model).__name__)

    def _hp_search_setup(self, trial):
        # A search sets `args.alpha` for every trial, after the trainer was built.
        super()._hp_search_setup(trial)
        if self.auxiliary_objective is not None and not self._alpha_is_given:
            self._set_alpha(alpha_from(self.args, self._terms))

    # ---- targets ----
    def _collator(self, with_targets: bool) -> TargetCollator:
        if self.bank is None or not with_targets:
            return TargetCollator(self.data_collator, self.args.id_column)
        return TargetCollator(
            self.data_collator, self.args.id_column, self.bank, self.pairing, self.args.seed, self._clock.epoch
        )

    def _set_signature_columns_if_needed(self):
        # Trainer drops the columns that `forward` does not name; the ids must reach the collator, and a multimodal
        # model's forward takes any of its `input_names`.
        super()._set_signature_columns_if_needed()
        for column in (self.args.id_column, *getattr(self.model, "input_names", ())):
            if column not in self._signature_columns:
                self._signature_columns.append(column)

    def _get_dataloader(self, dataset, description, *args, is_training=False, **kwargs):
        # Adds the targets in the workers of the training loader, and keeps the ids out of the student's inputs.
        share = self._share_of_stream(dataset, is_training)
        collator, accelerator = self.data_collator, self.accelerator
        self.data_collator = self._collator(with_targets=is_training)
        if share is not None:  # accelerate would shard it again, or read it on the main process alone
            dataset, self.accelerator = share, SimpleNamespace(prepare=lambda loader: loader)
        try:
            loader = super()._get_dataloader(dataset, description, *args, is_training=is_training, **kwargs)
        finally:
            self.data_collator, self.accelerator = collator, accelerator
        if share is None:
            return loader
        alone = {"num_processes": 1, "process_index": 0, "dispatch_batches": False}
        return prepare_data_loader(
            loader, accelerator.device, put_on_device=True, non_blocking=accelerator.non_blocking, **alone
        )

    # ---- streams ----
    def _share_of_stream(self, dataset: Any, is_training: bool) -> IterableDataset | None:
        if not isinstance(dataset, IterableDataset) or self.accelerator.parallelism_config is not None:
            return None
        config = self.args.accelerator_config
        if is_training:
            return distributed.share_of_stream(dataset, config.dispatch_batches, config.split_batches)
        checks.evaluated_stream(dataset, config.dispatch_batches)
        return None

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        # The shares of a stream may differ in length, and a process that went on alone would wait for ever.
        if not hasattr(self.train_dataset, "__len__"):
            epoch_iterator = iter(self._in_step.take(epoch_iterator, num_batches))
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        # Trainer takes a stream for one endless epoch and would skip as many batches as the whole run has seen.
        position = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        is_stream = not hasattr(self.train_dataset, "__len__")
        if resume_from_checkpoint is None or not is_stream or self.args.ignore_data_skip:
            return position
        return position_in_stream(resume_from_checkpoint, self.args.gradient_accumulation_steps)

    # ---- the loss ----
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Mixes the auxiliary terms in while training; evaluation is the task's alone.
        if self.auxiliary_objective is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs.pop(TARGETS, None)
        task, outputs = super().compute_loss(model, inputs, return_outputs=True)
        task = task.mean()  # under DataParallel one a device
        checks.outputs_fit(outputs, targets, type(model).__name__)
        terms = self.auxiliary_objective(outputs, targets)
        alphas = self.alpha.weights()
        loss = (1 - sum(alphas.values())) * task + sum(alphas[name] * terms[name] for name in self._terms)
        self._track(task, terms, alphas)
        if self.compute_loss_func is not None and not hasattr(Trainer, "loss_is_scaled_for_ga"):
            loss = loss / self.current_gradient_accumulation_steps  # older versions leave that to the user's function
        return (loss, outputs) if return_outputs else loss

    def _prepare_input(self, data):
        # Convolutions read images with the channels innermost, too.
        data = super()._prepare_input(data)
        if self.args.channels_last and isinstance(data, torch.Tensor) and data.ndim == 4 and data.is_floating_point():
            return data.to(memory_format=torch.channels_last)
        return data

    def _prepare_inputs(self, inputs):
        # Augments what trains: here the batch is on the device, and autocast does not reach it yet.
        inputs = super()._prepare_inputs(inputs)
        return self._augmented(inputs) if self.augment is not None and self.model.training else inputs

    def _augmented(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert self.augment is not None
        with torch.no_grad():
            augmented = self.augment(batch)
        if not isinstance(augmented, Mapping):
            raise TypeError(f"augment returned a {type(augmented).__name__}: let it return the batch, a dictionary.")
        return self._prepare_input(dict(augmented))

    def _track(self, task: torch.Tensor, terms: Mapping[str, torch.Tensor], alphas: Mapping[str, float]) -> None:
        # Sums on the device: reading a value here would make the host wait for every step.
        values = torch.stack([task.detach(), *(terms[name].detach() for name in self._terms)])
        self._sums = values if self._sums is None else self._sums + values
        for name in self._terms:
            self._alpha_sums[name] += alphas[name]
        self._count += 1

    def log(self, logs, start_time=None):
        # Adds the terms' means and the curves since the last log to the training logs (which have a key `loss`), and
        # the curves of an evaluation to its logs.
        trains = "loss" in logs
        if self.auxiliary_objective is not None and trains and self._count:
            logs = {**logs, **self._drain()}
        if isinstance(self.alpha, LearnedAlpha) and trains:
            logs = {**logs, **self.alpha.drain()}
        evaluated = next((key.removesuffix("runtime") for key in logs if key.endswith("_runtime")), "train_")
        if trains or evaluated != "train_":
            for curves in self.callback_handler.callbacks:
                if isinstance(curves, ModalityMetrics):
                    drained = curves.drain(training=trains)
                    logs = {
                        **logs,
                        **{f"{'' if trains else evaluated}{name}": value for name, value in drained.items()},
                    }
        super().log(logs, start_time)

    def _drain(self) -> dict[str, float]:
        assert self._sums is not None  # something was tracked
        means = (distributed.mean_over_processes(self._sums) / self._count).tolist()
        names = self._terms
        logs = {f"loss_{name}": mean for name, mean in zip(("task", *names), means, strict=True)}
        for name in names:
            logs["alpha" if len(names) == 1 else f"alpha_{name}"] = self._alpha_sums[name] / self._count
        self._sums, self._count, self._alpha_sums = None, 0, dict.fromkeys(names, 0.0)
        return logs

    def _wrap_model(self, model, *args, **kwargs):
        # Both training and evaluation come by here.
        if self.args.channels_last:
            self.model.to(memory_format=torch.channels_last)
        return super()._wrap_model(model, *args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        # `compute_metrics` expects logits; the latents are gathered only when asked for with `ignore_keys=[]`.
        if ignore_keys is None:
            config = getattr(self.model, "config", None)
            ignore_keys = [*getattr(config, "keys_to_ignore_at_inference", []), "latents"]
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    # ---- checkpoints ----
    def _save(self, output_dir=None, state_dict=None):
        # safetensors takes plain layouts alone. The weights are the averaged ones, where there is an average.
        with self._averaged():
            if self.args.channels_last and self.args.should_save:
                state_dict = self.model.state_dict() if state_dict is None else state_dict
                state_dict = {name: weight.contiguous() for name, weight in state_dict.items()}
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir):
        # Alpha is a part of the run's state, as the optimizer is.
        super()._save_optimizer_and_scheduler(output_dir)
        if self.alpha is not None and self.args.should_save:
            with open(os.path.join(output_dir, ALPHA_STATE), "w") as file:
                json.dump({"class": type(self.alpha).__name__, "state": self.alpha.state_dict()}, file)

    def _load_optimizer_and_scheduler(self, checkpoint):
        # The counterpart: the alpha object stays, its state comes back.
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.alpha is None or checkpoint is None:
            return
        path = os.path.join(checkpoint, ALPHA_STATE)
        saved = {"class": "no alpha", "state": {}}
        if os.path.isfile(path):
            try:
                with open(path) as file:
                    saved = json.load(file)
            except ValueError as error:
                raise ValueError(f"'{path}' is damaged ({error}): resume from an earlier checkpoint.") from error
        if saved["class"] == type(self.alpha).__name__:
            self.alpha.load_state_dict(saved["state"])
        elif saved["state"] or self.alpha.state_dict():
            raise ValueError(
                f"'{checkpoint}' holds the state of {saved['class']}, and the run has {type(self.alpha).__name__}: "
                "resume with the alpha of that run, or start anew."
            )

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        # Trainer loads the names that match and only warns about the rest. Checkpoints of ViT and others hold the names
        # of older versions, so that nothing would be loaded at all, and the run would go on from random weights.
        model = self.model if model is None else model
        if self._holds_plain_weights(resume_from_checkpoint):
            load_weights(model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        # As above.
        if self._holds_plain_weights(self.state.best_model_checkpoint):
            load_weights(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _holds_plain_weights(self, checkpoint: str) -> bool:
        is_sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        return not is_sharded and os.path.isfile(os.path.join(checkpoint, SAFE_WEIGHTS_NAME))
