"""`CoLearningTrainer`: transformers' Trainer with teacher targets, auxiliary terms and their weights alpha."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from transformers import Trainer

from hf_colearn.alpha.alpha import Alpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.hub.trainer_hub import HubRecord, check_hub_names
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.objectives.objective import TEACHER, CoLearningBatch, Objective
from hf_colearn.teachers.latent_column import LatentColumn
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.teachers.scaling import scaled_teachers
from hf_colearn.teachers.sequence_bank import AnyBank
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.training import (
    argument_checks,
    batch_checks,
    checkpoints,
    counts,
    data_checks,
    learning_rates,
    sharding,
    streams,
)
from hf_colearn.training.batches import Batches, decoder_inputs
from hf_colearn.training.before_training import check_before_training
from hf_colearn.training.deepspeed_checks import check_deepspeed
from hf_colearn.training.gradient_cache import GradientCache, check_gradient_cache
from hf_colearn.training.hooks import Hooks, own_callbacks, set_up
from hf_colearn.training.sampler import own_sampler
from hf_colearn.training.share_loader import ShareLoader
from hf_colearn.training.stream_batches import StreamBatches
from hf_colearn.training.task_loss import evaluation_loss, heads_need_function, probes_are_whole, task_loss
from hf_colearn.training.term_log import TermLog
from hf_colearn.training.weight_average import RunAverage
from hf_colearn.utils.sharded import whole_weights


class CoLearningTrainer(Trainer):
    r"""Trains a student with latent targets of frozen teachers of other modalities, or several modalities together.

    The loss is \\((1 - \sum_k \alpha_k) L_{task} + \sum_k \alpha_k L_k\\). Training logs carry every term unweighted
    (`loss_task`, `loss_latent`, ...) and `alpha`, averaged over steps and processes; `eval_loss` is the task loss
    alone, so that it compares between arms. Without a teacher and an objective this *is* transformers' Trainer.

    A sample may have no label (-100 among classes, NaN among numbers, None in the data set's column) and no target: the
    task's loss and the latent terms are means over the samples that count in the whole optimizer step, of all its
    micro-batches and processes. Contrastive terms, whose negatives are a micro-batch's, are means over micro-batches.

    A `compute_loss_func` (weights of classes, say) and label smoothing take the labels away from the model. Of a multimodal
    model the function is called for the fused prediction, and for every head that learns: with the outputs of a student
    (`logits`, `latents`), the labels of the samples that have the modality, and their number.

    With `ema_decay` the averaged weights are what is evaluated, predicted with and saved, as `model.safetensors` in a
    checkpoint; after `train()` the model holds them, and another `train()` without resuming goes on from them.

    A training stream ([`datasets.IterableDataset`]) is split between the processes, unless it is split already or
    `dispatch_batches` is set. Every sample is seen once an epoch, however long the shares are: a process whose share has ended
    goes on with micro-batches in which nothing counts. (Where a loss is no mean over samples, such as a contrastive one, all
    end an epoch with the shortest share.) A resumed run goes on with the samples that would have come, if the stream is the
    same and its shuffle has a seed: where torchdata is installed, without reading the current epoch again, unless the stream
    has a shuffle buffer or the processes are other ones.

    With [`UnpairedBatches`] every batch is of one task of a [`CoLearningForManyTasks`], whose loss is the weighted sum of the
    means over each task's labels in the optimizer step. Logs carry `loss_{task}`, evaluations `eval_{task}_accuracy`.

    Args:
        model: As in [`~transformers.Trainer`]; a co-learning student, or any model whose output has `loss`, `logits`
            `[B, C]` and `latents` `[B, D]`; for objectives between modalities, such as [`ContrastiveAlignment`], a
            [`CoLearningForMultimodalClassification`].
        args ([`CoLearningArguments`], *optional*): As in [`~transformers.Trainer`].
        bank ([`TeacherBank`], [`SequenceBank`] or [`LatentColumn`], *optional*): The latents of a single teacher, its
            sequences, or the column of the training data that holds its latents.
        pairing ([`Pairing`], *optional*): Which row of the bank a sample sees; `Paired()` by default.
        teachers (`dict[str, Teacher]`, *optional*): Several teachers by name instead, each with a bank, a pairing and a
            term (`latent_text`, ...), hence an alpha. A teacher whose latents have another width than the student's needs
            a training head of the student with the term's name: `training_heads={"latent_text": bank.dim}`.
        objective ([`Objective`], *optional*): The auxiliary terms; `LatentMatching` by the arguments where there is a
            teacher.
        alpha ([`Alpha`], *optional*): The terms' weights; by the arguments where it is not given. [`LearnedAlpha`]
            takes its outer split from the training set: `trainer.outer_dataset`.
        balance ([`BalanceMethod`], *optional*): A method of modality balance, such as `OGM()`, for a
            [`CoLearningForMultimodalClassification`]; see [`hf_colearn.balance`].
        augment (`Callable[[dict], dict]`, *optional*): Changes every training batch, on the device, before the loss: the
            student's inputs, `labels`, and `teacher_latents` `[B, D]` (`teacher_latents_text`, ... of several teachers).
            It draws from torch's generators, if a resumed run is to be the same.
        trainer_kwargs: As in [`~transformers.Trainer`]; its `callbacks` may be [`CoLearningCallback`]s.

    Raises:
        TypeError: If an argument is of another kind, such as a class or a number where an object belongs.
        ValueError: If teachers, objective and alpha do not fit each other or the student.
        FloatingPointError: In `train()`, if a loss is not finite.

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
    lr_scheduler: Any
    train_dataset: Any

    def __init__(
        self,
        model: Any = None,
        args: CoLearningArguments | None = None,
        *trainer_args: Any,
        bank: AnyBank | LatentColumn | None = None,
        pairing: Pairing | None = None,
        teachers: Mapping[str, Teacher] | None = None,
        objective: Objective | None = None,
        alpha: Alpha | None = None,
        balance: BalanceMethod | None = None,
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        **trainer_kwargs: Any,
    ):
        args = CoLearningArguments("tmp_trainer") if args is None else args
        argument_checks.model_and_arguments_fit(model, args, trainer_kwargs.get("compute_metrics"))
        self.teachers = self._unscaled_teachers = argument_checks.named_teachers(teachers, bank, pairing)
        given_objective = objective
        if objective is None and self.teachers:
            objective = self._latent_matching(args)
        argument_checks.objective_is_valid(objective)
        argument_checks.alpha_is_valid(alpha, args, objective)
        argument_checks.balance_is_valid(balance)
        self.auxiliary_objective: Any = objective  # `objective` is a name of Trainer's hyperparameter search
        super().__init__(model, args, *trainer_args, **trainer_kwargs)
        argument_checks.arguments_fit(args, self.optimizer is not None, self.lr_scheduler is not None, self.sharded_by)
        if self.is_fsdp_enabled:
            sharding.check_shards(self)
        probes_are_whole(self)
        check_deepspeed(self)
        self.alpha: Any = None  # where there are terms to weigh
        self.outer_dataset: Any = None  # the samples that a learned alpha is fitted to
        self.predicted_labels = 0  # of the training set, which a co-training has given: for record and card
        self._given_alpha, self._given_objective = alpha, given_objective
        self._steps_per_epoch: int | None = None
        self.batches, self.hooks = Batches(self, augment), Hooks(self.callback_handler)
        self._averaged, self._hub = RunAverage(self), HubRecord(self)
        self._gradient_cache = GradientCache(self)
        self._stream = StreamBatches()
        for callback in self.callback_handler.callbacks:
            set_up(callback, self)
        self.add_callback(self.batches.clock)
        if objective is not None or heads_need_function(self):
            # Every loss's mean over the micro-batches is the step's, so Trainer must divide by their number.
            self.loss_is_scaled_for_ga = False
            self.model_accepts_loss_kwargs = False
        if objective is not None:
            self._term_log = TermLog(objective.terms)
            self._set_alpha(alpha or args.make_alpha(objective.terms))
        if objective is not None and self.model is not None:
            argument_checks.objective_fits(self.model, self.teachers, objective)
        if self.teachers and self.model is not None:
            argument_checks.latent_head_learns(self.model)
        for callback in own_callbacks(self, objective, balance):
            self.add_callback(callback)
        check_gradient_cache(self)

    def _latent_matching(self, args: CoLearningArguments) -> LatentMatching:
        names = () if list(self.teachers) == [TEACHER] else tuple(self.teachers)
        return LatentMatching(args.latent_loss, args.latent_reduction, names)

    def _set_alpha(self, alpha: Alpha) -> None:
        if self.alpha is not None:
            self.remove_callback(self.alpha)
            self.alpha.release(self)  # what a learned one took from the training set
        argument_checks.weights_match_terms(alpha, self.auxiliary_objective)
        self.alpha = alpha
        self.add_callback(alpha)

    def create_accelerator_and_postprocess(self):
        # accelerate shards on GPUs alone, and says nothing where there is none.
        super().create_accelerator_and_postprocess()
        if sharding.shard_on_cpu(self):
            super().create_accelerator_and_postprocess()

    @property
    def is_plain(self) -> bool:
        """Whether neither an objective nor a model of ours takes part, so that this is transformers' Trainer."""
        return self.auxiliary_objective is None and not counts.counts_its_labels(self.model)

    @property
    def sharded_by(self) -> str | None:
        """What spreads the weights over the processes, `"FSDP"` or `"DeepSpeed"`; None where all hold them whole."""
        return "DeepSpeed" if self.is_deepspeed_enabled else "FSDP" if self.is_fsdp_enabled else None

    @property
    def balance(self) -> BalanceMethod | None:
        """The balance method of the run, given as `balance` or among the callbacks."""
        return self.hooks.balance

    @property
    def bank(self) -> AnyBank | LatentColumn | None:
        """The bank of the only teacher; None without a teacher, or with several."""
        return next(iter(self.teachers.values())).bank if len(self.teachers) == 1 else None

    @property
    def pairing(self) -> Pairing | None:
        """The pairing of the only teacher; None without a teacher, or with several."""
        return next(iter(self.teachers.values())).pairing if len(self.teachers) == 1 else None

    # ---- before training ----
    def add_callback(self, callback):
        # A callback of ours is given the trainer, to look at what it was added to.
        super().add_callback(callback)
        set_up(self.callback_handler.callbacks[-1], self)

    def train(self, *args, **kwargs):
        if self.model_init is None:
            self._begin()
        return super().train(*args, **kwargs)

    def _hp_search_setup(self, trial):
        # Trainer calls this in every `train()`, when `model_init` has made the model; a search sets our fields, too, after
        # the trainer was built.
        before = self.args.of_terms()
        super()._hp_search_setup(trial)
        if trial is not None:
            self.args.check()
            given = self._given_alpha, self._given_objective
            argument_checks.search_is_read(before, self.args, self.auxiliary_objective, *given)
            if self.teachers and self._given_objective is None:
                self.auxiliary_objective = self._latent_matching(self.args)
            if self.auxiliary_objective is not None and self._given_alpha is None:
                self._set_alpha(self.args.make_alpha(self.auxiliary_objective.terms))
        if self.model_init is not None:
            self._begin()

    def _begin(self) -> None:
        # Bad input must show before anything is written, so the data and one small batch are looked at first.
        self.hooks.begin(self)
        check_gradient_cache(self)
        self._scale_teachers()
        if self.train_dataset is not None and not self.is_plain:
            check_before_training(self)
        if self.balance is not None:
            self.balance.setup(self)  # the labels may have told only now what the problem is

    def _scale_teachers(self) -> None:
        if self._unscaled_teachers and self.train_dataset is not None:
            ids = data_checks.sample_ids(self.train_dataset, self.args.id_column)
            scaling = self.args.latent_scaling, self.args.seed, self.train_dataset
            self.teachers = scaled_teachers(self._unscaled_teachers, ids, *scaling)

    # ---- batches ----
    def _set_signature_columns_if_needed(self):
        # Trainer drops the columns that `forward` does not name; ids and latents must reach the collator, and a multimodal
        # model's forward takes any of its `input_names`.
        super()._set_signature_columns_if_needed()
        if self.is_plain:
            return
        latents = [column for teacher in self.teachers.values() for column in teacher.columns]
        for column in (self.args.id_column, *latents, *getattr(self.model, "input_names", ())):
            if column not in self._signature_columns:
                self._signature_columns.append(column)

    def _get_dataloader(self, dataset, description, batch_size, *args, is_training=False, **kwargs):
        # Adds targets in the workers, keeps the ids out of the student's inputs, and reads this process's share; a sample
        # without a label has no part in an evaluation.
        if description == "Evaluation":
            dataset = data_checks.labelled_part(dataset, self.model)
        dataset = self.batches.with_null_latents(dataset)
        share, collator = streams.share_for(self, dataset, is_training), self.data_collator
        self.data_collator = self.batches.collator(is_training, dataset)
        try:
            if share is None:
                return super()._get_dataloader(
                    dataset, description, batch_size, *args, is_training=is_training, **kwargs
                )
            collate = self._get_collator_with_removed_columns(self.data_collator, description=description)
            return ShareLoader(share, self.args, batch_size, collate, self.accelerator)
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset=None):
        # Two streams, of labelled and unlabelled samples; or batches of one task each.
        sampler = own_sampler(self, self.train_dataset if train_dataset is None else train_dataset)
        return super()._get_train_sampler(train_dataset) if sampler is None else sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        # The shares of a stream may differ in length, and a process that went on alone would wait for ever; means over
        # the step need to know all its micro-batches.
        if not hasattr(self.train_dataset, "__len__"):
            epoch_iterator = iter(self._stream.take(epoch_iterator, num_batches, self.state.global_step > 0))
        samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        return (self.batches.of_step(samples) if self._takes_means_over_steps else samples), num_items

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        # Trainer takes a stream for one endless epoch and would skip as many batches as the whole run has seen, one by one.
        position = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None or hasattr(self.train_dataset, "__len__") or self.args.ignore_data_skip:
            return position
        position = streams.position_in_stream(resume_from_checkpoint, self.args.gradient_accumulation_steps)
        self._stream.resume(resume_from_checkpoint, position[0])
        return position

    def _prepare_input(self, data):
        # Convolutions read images with the channels innermost, too.
        data = super()._prepare_input(data)
        if self.args.channels_last and isinstance(data, torch.Tensor) and data.ndim == 4 and data.is_floating_point():
            return data.to(memory_format=torch.channels_last)
        return data

    def _prepare_inputs(self, inputs):
        # Augments what trains: here the batch is on the device, and autocast does not reach it yet.
        inputs = super()._prepare_inputs(inputs)
        return self.batches.prepared(inputs) if self.model.training else inputs

    # ---- the loss ----
    @property
    def _takes_means_over_steps(self) -> bool:
        """Whether the losses are means over the optimizer step: with an objective, or of a model of ours; a student's by a
        function of the user's is as in Trainer."""
        is_ours = counts.counts_its_labels(self.model) and self.compute_loss_func is None
        return self.auxiliary_objective is not None or is_ours or heads_need_function(self)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Mixes the auxiliary terms in while training; evaluation is the task's alone. Callbacks see the outputs.
        if not model.training or not self._takes_means_over_steps:
            if not self.hooks.callbacks and not heads_need_function(self):
                model = self._gradient_cache.caching(model)
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            batch = self.batches.taken_from(inputs)
            loss, outputs = evaluation_loss(
                self, inputs, partial(self._loss_of_trainer, model, num_items=num_items_in_batch)
            )
            self.hooks.on_outputs(outputs, batch, model)
            return (loss, outputs) if return_outputs else loss
        losses, outputs, batch = self.losses(model, inputs)
        self.hooks.on_outputs(outputs, batch, model)
        losses = self.hooks.on_terms(losses)
        loss = losses["task"]
        if self.auxiliary_objective is not None:
            alphas = self.alpha.weights()
            loss = (1 - sum(alphas.values())) * losses["task"] + sum(alphas[term] * losses[term] for term in alphas)
            self._term_log.add(losses, alphas, counts.of_terms(batch))
        if self.compute_loss_func is not None and not hasattr(Trainer, "loss_is_scaled_for_ga"):
            loss = loss / self.current_gradient_accumulation_steps  # older versions leave that to the user's function
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        # A balance method may need more than one forward, backward or step. Callbacks see the gradients before they are
        # clipped, which Trainer does next.
        step = partial(super().training_step, num_items_in_batch=num_items_in_batch)
        if (balance := self.balance) is None:
            with self._gradient_cache.of_step(model):
                loss = step(model, inputs)
        else:
            model.train()  # as Trainer's own step begins: batches of training are augmented
            loss = balance.training_step(self, model, inputs, step)
        if self.accelerator.sync_gradients:
            self.hooks.on_gradients(self.model)
        return loss

    def losses(self, model: Any, inputs: dict[str, Any]) -> tuple[Mapping[str, torch.Tensor], Any, CoLearningBatch]:
        """The losses of a training batch, `"task"` and every term; the model's outputs; what the objective was given."""
        inputs, batch = self.hooks.on_inputs(inputs, self.batches.taken_from(inputs), model)
        inputs = {**inputs, **decoder_inputs(self.model, batch)}
        task, outputs = self.task_loss(model, inputs, batch.step_counts.get(counts.TASK))
        if self.auxiliary_objective is None:
            return {"task": task}, outputs, batch
        batch_checks.outputs_fit(outputs, batch.targets, type(model).__name__, self.auxiliary_objective.terms)
        terms = self.auxiliary_objective(outputs, batch)
        batch_checks.terms_fit(terms, self.auxiliary_objective)
        return {"task": task, **terms}, outputs, batch

    def task_loss(
        self, model: Any, inputs: dict[str, Any], mean_count: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        """The task's loss, a scalar, and the model's outputs; see [`~hf_colearn.training.task_loss.task_loss`]."""
        model = self._gradient_cache.caching(model)
        return task_loss(self, model, inputs, partial(self._loss_of_trainer, model), mean_count)

    def _loss_of_trainer(self, model: Any, inputs: dict[str, Any], num_items: Any = None) -> tuple[torch.Tensor, Any]:
        return super().compute_loss(self._gradient_cache.caching(model), inputs, True, num_items)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        # `compute_metrics` expects logits, the latents are gathered only with `ignore_keys=[]`; without labels no loss is
        # computed, and callbacks see the outputs here.
        if ignore_keys is None and not self.is_plain:
            config = getattr(self.model, "config", None)
            ignore_keys = [*getattr(config, "keys_to_ignore_at_inference", ["past_key_values"]), "latents"]
        if self.label_names and not any(inputs.get(name) is not None for name in self.label_names):
            model = self.hooks.observing(model)
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def log(self, logs, start_time=None):
        # Adds what was averaged or measured since the last log: to training's logs (which have a key `loss`) the terms
        # and the callbacks' metrics, to an evaluation's the callbacks' alone.
        training = "loss" in logs
        prefix = next((key.removesuffix("runtime") for key in logs if key.endswith("_runtime")), "train_")
        if training and self.auxiliary_objective is not None:
            logs = {**logs, **self._term_log.pop_metrics()}
        if training or prefix != "train_":
            logs = {**logs, **self.hooks.metrics(training, "" if training else prefix)}
        super().log(logs, start_time)

    def _wrap_model(self, model, *args, **kwargs):
        # Both training and evaluation come by here.
        if self.args.channels_last and self.sharded_by != "FSDP":  # whose shards are contiguous; its inputs suffice
            self.model.to(memory_format=torch.channels_last)
        return super()._wrap_model(model, *args, **kwargs)

    # ---- learning rates ----
    def create_optimizer(self, model=None):
        # Gives every layer its learning rate, in the groups that Trainer makes, and lets callbacks split them.
        is_made_here = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if self.args.layer_decay is not None and is_made_here:
            whole = self.model if model is None else model
            learning_rates.decay_learning_rates(optimizer, whole, self.args.layer_decay)
        if is_made_here:
            self.hooks.group_parameters(optimizer, self.model if model is None else model)
        return optimizer

    def set_initial_training_values(self, args, dataloader):
        # A schedule in epochs needs to know how many steps they have; the loader is the run's.
        self._stream = StreamBatches(self, dataloader)
        values = super().set_initial_training_values(args, dataloader)
        self._steps_per_epoch = values[1] if hasattr(self.train_dataset, "__len__") else None
        return values

    def create_scheduler(self, num_training_steps, optimizer=None):
        # Trainer has no schedule in steps of epochs.
        if self.args.lr_step_epochs is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = learning_rates.step_schedule(
            optimizer, self.args.lr_step_epochs, self._steps_per_epoch, self.args.lr_step_gamma
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- averaged weights ----
    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        # What an earlier run left of callbacks and sums is forgotten before a checkpoint's states are loaded. The average
        # starts from the weights as they are now on their device, or goes on from the checkpoint's.
        self.hooks.reset()
        if self.auxiliary_objective is not None:
            self._term_log = TermLog(self.auxiliary_objective.terms)
        with sharding.preparing(self) if self.is_fsdp_enabled else nullcontext():
            prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self._averaged.start(max_steps, resume_from_checkpoint)
        return prepared

    def _finalize_training(self, *args, **kwargs):
        # From here on the model is its average, for the callbacks too, unless the best checkpoint takes its place.
        self._averaged.finish()
        return super()._finalize_training(*args, **kwargs)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        # The averaged weights are the model; a card says what was evaluated last.
        self._agree()
        with self._averaged.in_place(agree=True):
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        self._hub.evaluations.add(eval_dataset, metric_key_prefix)
        return metrics

    def predict(self, *args, **kwargs):
        self._agree()
        with self._averaged.in_place(agree=True):  # as above
            return super().predict(*args, **kwargs)

    def _agree(self) -> None:
        """What FSDP leaves out: every process holds the main one's batch statistics, as with plain data parallelism."""
        if self.is_fsdp_enabled:
            if not self.accelerator._models:  # not trained yet: accelerate asks for an optimizer, too
                sharding.shard_for_evaluation(self)
            sharding.agree_on_buffers(self.model)

    # ---- checkpoints ----
    def save_model(self, output_dir=None, _internal_call=False):
        # Trainer gathers no weights where checkpoints are in shards, and of the averages none.
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        in_shards = _internal_call and output_dir is not None and checkpoints.are_in_shards(self)
        sharding.agree_on_buffers(self.model)
        with self._averaged.in_place():
            self._save(output_dir, {} if in_shards else whole_weights(self.model))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir=None, state_dict=None):
        # The averaged weights are the model; safetensors takes plain layouts alone; our record lies beside the weights.
        with self._averaged.in_place():
            if self.args.channels_last and self.args.should_save:
                state_dict = self.model.state_dict() if state_dict is None else state_dict
                state_dict = {name: weight.contiguous() for name, weight in state_dict.items()}
            super()._save(output_dir, state_dict)
            if self.args.should_save:
                self._hub.save(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir):
        # The states of alpha and callbacks are a part of the run's, and the raw weights belong to the optimizer's. FSDP's
        # shards of the model are written here, too: those of the averages.
        with self._averaged.in_place() if self.is_fsdp_enabled else nullcontext():
            super()._save_optimizer_and_scheduler(output_dir)
        self.hooks.before_save()
        if self.args.should_save:
            checkpoints.save_callback_states(self.hooks.callbacks, output_dir)
        self._averaged.save(output_dir)

    def _save_rng_state(self, output_dir):
        # As the random numbers, where in a stream it is differs from process to process.
        super()._save_rng_state(output_dir)
        self._stream.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint):
        # The counterpart, whole or in shards.
        if checkpoint is None or not checkpoints.load_optimizer(self, checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            checkpoints.load_callback_states(self.hooks.callbacks, checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        # Trainer loads the names that match and only warns about the rest: of a ViT's, which are older ones, nothing.
        if not checkpoints.load_model(self, resume_from_checkpoint, self.model if model is None else model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        # As above.
        if not checkpoints.load_model(self, self.state.best_model_checkpoint, self.model):
            super()._load_best_model()

    def _load_rng_state(self, checkpoint):
        # Trainer says nothing that is seen where a checkpoint is of another number of processes.
        if checkpoint is not None:
            checkpoints.tell_of_other_processes(checkpoint, self.args.world_size)
        super()._load_rng_state(checkpoint)

    # ---- the Hub ----
    def init_hf_repo(self, *args, **kwargs):
        # Names that the Hub does not take are told before a token is looked for.
        check_hub_names(self.args)
        super().init_hf_repo(*args, **kwargs)

    def push_to_hub(self, commit_message="End of training", blocking=True, token=None, revision=None, **kwargs):
        # Without the heads that only training needs; names are checked first, as above.
        check_hub_names(self.args, revision)
        with self._hub.publishing():
            return super().push_to_hub(commit_message, blocking, token, revision, **kwargs)

    def _finish_current_push(self):
        # Trainer drops what went wrong in a push in the background.
        super()._finish_current_push()
        self._hub.warn_of_lost_pushes()

    def _push_from_checkpoint(self, checkpoint_folder):
        # Trainer copies weights and configuration alone, with the heads that only training needs; and that configuration
        # names the model's code.
        self._hub.push(checkpoint_folder, super()._push_from_checkpoint)

    def create_model_card(
        self, language=None, license=None, tags=None, model_name=None, finetuned_from=None, tasks=None,
        dataset_tags=None, dataset=None, dataset_args=None,
    ):  # fmt: skip
        """Writes the card of a model of ours, or of any that was co-learned; that of another model is Trainer's draft.

        `dataset` and `dataset_tags` are the name and the Hub id of what the last evaluation was on.
        """
        ours = (language, license, tags, model_name, finetuned_from, dataset_tags, dataset)
        if self.is_world_process_zero() and not self._hub.write_card(*ours):
            dataset_tags = self._hub.tags_of_draft(dataset_tags)
            super().create_model_card(
                language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
