"""What a user of transformers' Trainer expects, with teacher targets."""

import math

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

import tiny
from hf_colearn import (
    CoLearningTrainer,
    ConstantAlpha,
    HeuristicAlpha,
    LatentMatching,
    Paired,
    classification_metrics,
)
from hf_colearn.training.before_training import try_first_batch


def trainer(student=None, digits=None, **kwargs):
    """A co-learning trainer of tiny parts; argument fields and trainer keywords alike."""
    ours = {key: kwargs.pop(key) for key in ("bank", "pairing", "objective", "alpha_object") if key in kwargs}
    passed = {key: kwargs.pop(key) for key in ("eval_dataset", "compute_metrics", "callbacks") if key in kwargs}
    if "alpha_object" in ours:
        ours["alpha"] = ours.pop("alpha_object")
    ours.setdefault("bank", tiny.bank())
    ours.setdefault("pairing", tiny.random_prompt())
    return CoLearningTrainer(
        tiny.student() if student is None else student,
        tiny.arguments(**kwargs),
        train_dataset=tiny.digits(64) if digits is None else digits,
        **ours,
        **passed,
    )


def losses(trained, key="loss"):
    return [entry[key] for entry in trained.state.log_history if key in entry]


def test_the_loss_is_the_alpha_weighted_sum_of_its_logged_terms():
    run = trainer(alpha=0.3)
    run.train()
    for entry in run.state.log_history[:-1]:
        assert entry["alpha"] == pytest.approx(0.3)
        assert entry["loss"] == pytest.approx(0.7 * entry["loss_task"] + 0.3 * entry["loss_latent"], rel=1e-5)


def test_terms_are_averaged_over_the_steps_of_a_logging_interval():
    every, fourth = trainer(logging_steps=1), trainer(logging_steps=4)
    every.train()
    fourth.train()
    for key in ("loss_task", "loss_latent"):
        single = losses(every, key)
        assert losses(fourth, key) == pytest.approx([np.mean(single[:4]), np.mean(single[4:])], rel=1e-5)


def test_the_first_losses_are_those_worked_out_by_hand():
    # One batch of the whole set, in whatever order: the means do not depend on it.
    digits, bank, pairing = tiny.digits(64), tiny.bank(), Paired(tiny.digits(64)["labels"])
    student = tiny.student().eval()
    with torch.no_grad():
        outputs = student(pixel_values=digits["pixel_values"][:])
    labels = digits["labels"][:]
    targets = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32))[labels]
    task = -torch.log_softmax(outputs.logits, dim=1)[torch.arange(64), labels].mean()
    latent = ((outputs.latents - targets) ** 2).sum() / (64 * 24)

    fields = {"per_device_train_batch_size": 64, "max_steps": 1, "latent_scaling": "none"}
    run = trainer(student, digits, bank=bank, pairing=pairing, **fields)
    run.train()
    assert losses(run, "loss_task") == pytest.approx([task.item()], rel=1e-5)
    assert losses(run, "loss_latent") == pytest.approx([latent.item()], rel=1e-5)


def test_eval_loss_is_the_task_loss_alone():
    digits = tiny.digits(64)
    run = trainer(alpha=0.9, eval_dataset=digits)
    metrics = run.evaluate()
    with torch.no_grad():
        expected = tiny.student().eval()(pixel_values=digits["pixel_values"][:], labels=digits["labels"][:]).loss
    assert metrics["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_predict_gives_logits_and_the_latents_only_when_asked_for():
    run = trainer(compute_metrics=classification_metrics(("accuracy",)))
    output = run.predict(tiny.digits(20))
    assert output.predictions.shape == (20, 10)
    assert 0 <= output.metrics["test_accuracy"] <= 1
    run.compute_metrics = None
    logits, latents = run.predict(tiny.digits(20), ignore_keys=[]).predictions
    assert logits.shape == (20, 10) and latents.shape == (20, 24)
    without_labels = run.predict(tiny.digits(20).remove_columns("labels"))
    np.testing.assert_allclose(without_labels.predictions, logits, rtol=1e-5)


@pytest.mark.parametrize("config", [tiny.vit, tiny.resnet])
def test_the_best_model_on_a_metric_is_loaded_at_the_end(config):
    scores = iter([0.2, 0.9, 0.4])  # best in the second of three evaluations
    run = trainer(
        tiny.student(config()),
        eval_dataset=tiny.digits(16),
        compute_metrics=lambda prediction: {"score": next(scores)},
        max_steps=12,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    run.train()
    assert run.state.best_model_checkpoint.endswith("checkpoint-8")
    best = type(run.model).from_pretrained(run.state.best_model_checkpoint)
    last = type(run.model).from_pretrained(run.state.best_model_checkpoint.replace("-8", "-12"))
    weight = "latent_head.weight"
    assert not torch.equal(best.state_dict()[weight], last.state_dict()[weight])
    for name, value in best.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name


def test_early_stopping_stops():
    run = trainer(
        eval_dataset=tiny.digits(16),
        compute_metrics=lambda prediction: {"constant": 0.5},
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
        max_steps=50,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="constant",
    )
    run.train()
    assert run.state.global_step == 4


def test_label_smoothing_changes_the_task_term_as_in_the_plain_trainer():
    kwargs = {"max_steps": 1, "label_smoothing_factor": 0.2, "per_device_train_batch_size": 64}
    plain = Trainer(
        tiny.student(), tiny.arguments(**kwargs), train_dataset=tiny.digits(64).remove_columns("sample_id")
    )
    plain.train()
    ours = trainer(**kwargs)
    ours.train()
    assert losses(ours, "loss_task") == pytest.approx(losses(plain), rel=1e-6)


def test_a_loss_function_of_the_users_own_is_the_task_term_and_accumulates_correctly():
    def twice_the_cross_entropy(outputs, labels, num_items_in_batch=None):
        return 2 * torch.nn.functional.cross_entropy(outputs.logits, labels)

    def run(batch, accumulation):
        made = CoLearningTrainer(
            tiny.student(),
            tiny.arguments(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=3),
            train_dataset=tiny.digits(64),
            bank=tiny.bank(),
            pairing=tiny.random_prompt(),
            compute_loss_func=twice_the_cross_entropy,
        )
        made.train()
        return losses(made)

    plain = trainer(per_device_train_batch_size=8, max_steps=1)
    plain.train()
    whole = run(8, 1)
    assert whole == pytest.approx(run(2, 4), rel=1e-4)
    first = trainer(per_device_train_batch_size=8, max_steps=1)
    first.train()
    assert whole[0] == pytest.approx(
        0.5 * 2 * losses(first, "loss_task")[0] + 0.5 * losses(first, "loss_latent")[0], rel=1e-4
    )


def test_heuristic_alpha_follows_the_epochs():
    run = trainer(alpha_schedule="heuristic", max_steps=-1, num_train_epochs=3, per_device_train_batch_size=32)
    run.train()
    # 64 samples in batches of 32: two steps an epoch; 1 - exp(-1/t) for t = 1, 2, 3.
    expected = [1 - math.exp(-1 / t) for t in (1, 1, 2, 2, 3, 3)]
    assert losses(run, "alpha") == pytest.approx(expected)


def test_several_terms_have_one_alpha_each():
    class TwoTerms:
        terms = ("latent", "norm")

        def __call__(self, outputs, batch):
            latent = LatentMatching()(outputs, batch)["latent"]
            return {"latent": latent, "norm": outputs["latents"].pow(2).mean()}

    run = trainer(objective=TwoTerms(), alpha_object=ConstantAlpha({"latent": 0.2, "norm": 0.1}))
    run.train()
    for entry in run.state.log_history[:-1]:
        mixed = 0.7 * entry["loss_task"] + 0.2 * entry["loss_latent"] + 0.1 * entry["loss_norm"]
        assert entry["loss"] == pytest.approx(mixed, rel=1e-5)
        assert (entry["alpha_latent"], entry["alpha_norm"]) == pytest.approx((0.2, 0.1))


def test_a_model_of_the_users_own_trains_as_it_is():
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.latent, self.classifier = torch.nn.Linear(64, 24), torch.nn.Linear(24, 10)

        def forward(self, pixel_values, labels=None):
            latents = self.latent(pixel_values.flatten(1))
            logits = self.classifier(latents)
            loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits, "latents": latents}

    paired = Paired(tiny.digits(64)["labels"])
    run = trainer(Mine(), pairing=paired, max_steps=60, learning_rate=1e-2, latent_scaling="none")
    run.train()
    assert np.mean(losses(run, "loss_latent")[-8:]) < 0.7 * losses(run, "loss_latent")[0]
    assert run.predict(tiny.digits(8)).predictions.shape == (8, 10)


def test_workers_give_the_same_targets_as_the_main_process():
    alone, workers = (
        trainer(num_train_epochs=2, max_steps=-1),
        trainer(num_train_epochs=2, max_steps=-1, dataloader_num_workers=2, dataloader_persistent_workers=True),
    )
    alone.train()
    workers.train()
    assert losses(workers, "loss_latent") == losses(alone, "loss_latent")


def test_a_dataset_that_is_not_of_datasets_and_a_streamed_one_train_too():
    rows = [dict(row) for row in tiny.digits(64)]
    listed, streamed = trainer(digits=rows), trainer(digits=tiny.digits(64).to_iterable_dataset())
    listed.train()
    streamed.train()
    assert len(losses(listed, "loss_latent")) == len(losses(streamed, "loss_latent")) == 8


def test_a_hyperparameter_search_over_alpha_reaches_the_loss():
    pytest.importorskip("optuna")
    seen = []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "alpha" in (logs or {}):
                seen.append((args.alpha, logs["alpha"]))

    run = CoLearningTrainer(
        None,
        tiny.arguments(max_steps=2, eval_strategy="steps", eval_steps=2),
        model_init=lambda: tiny.student(),
        train_dataset=tiny.digits(64),
        eval_dataset=tiny.digits(16),
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        callbacks=[Watch()],
    )
    best = run.hyperparameter_search(
        hp_space=lambda trial: {"alpha": trial.suggest_categorical("alpha", [0.1, 0.8])},
        backend="optuna",
        n_trials=3,
        direction="minimize",
    )
    assert best.hyperparameters["alpha"] in (0.1, 0.8)
    assert len({alpha for alpha, _ in seen}) >= 1 and all(a == pytest.approx(b) for a, b in seen)


def test_alpha_objects_are_callbacks_of_the_run():
    alpha = HeuristicAlpha()
    run = trainer(alpha_object=alpha)
    assert alpha in run.callback_handler.callbacks


def test_tensorboard_gets_every_term(tmp_path):
    run = trainer(output_dir=tmp_path / "out", report_to="tensorboard")
    run.train()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = next((tmp_path / "out").rglob("events.out.tfevents*")).parent
    events = EventAccumulator(str(folder)).Reload()
    assert {"train/loss_task", "train/loss_latent", "train/alpha"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("options", [{"bf16": True}, {"gradient_checkpointing": True}, {"torch_compile": True}])
def test_precision_checkpointing_and_compile_options_train(options):
    if "torch_compile" in options:
        options = {**options, "torch_compile_backend": "aot_eager"}
    run, plain = trainer(**options), trainer()
    run.train()
    plain.train()
    tolerance = 5e-2 if "bf16" in options else 1e-3
    assert losses(run) == pytest.approx(losses(plain), rel=tolerance)


def test_the_dry_run_before_training_moves_no_random_numbers_and_no_batch_statistics():
    student = tiny.student(tiny.resnet())
    run = trainer(student)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    try_first_batch(run)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert student.training


def test_evaluation_labels_and_missing_training_labels_show_before_training():
    wrong = tiny.digits(16).map(lambda row: {"labels": row["labels"] + 5})
    for evaluated in (wrong, {"first": tiny.digits(16), "second": wrong}):
        with pytest.raises(ValueError, match="labels in column 'labels' are out of range"):
            trainer(eval_dataset=evaluated).train()
    with pytest.raises(ValueError, match="no `loss`.*pixel_values.*column `labels`"):
        trainer(digits=tiny.digits(64).remove_columns("labels")).train()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), "callback_states.pt' is damaged.*earlier checkpoint"),
        (lambda path: path.unlink(), "holds the state of no callback.*HeuristicAlpha"),
        (lambda path: torch.save({"FittedAlpha": {"t": 1}}, path), "FittedAlpha.*HeuristicAlpha"),
    ],
)
def test_resuming_without_the_state_of_alpha_is_refused(tmp_path, damage, message):
    options = {
        "output_dir": tmp_path / "out",
        "alpha_schedule": "heuristic",
        "save_strategy": "steps",
        "save_steps": 4,
    }
    trainer(**options).train()
    damage(tmp_path / "out" / "checkpoint-4" / "callback_states.pt")
    with pytest.raises(ValueError, match=message):
        trainer(**options).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))


# ---- augmentation ----
class Watch:
    """An augmentation that changes nothing and keeps what it saw."""

    def __init__(self):
        self.batches, self.modes = [], []

    def __call__(self, batch):
        self.batches.append({name: value.clone() for name, value in batch.items()})
        self.modes.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return batch


def mixup(batch):
    """Mixes images, labels and targets of a batch with the batch upside down, by one random weight."""
    weight = torch.rand(())
    labels = torch.nn.functional.one_hot(batch["labels"], 10).float()
    mixed = {"pixel_values": batch["pixel_values"], "labels": labels}
    mixed |= {name: batch[name] for name in ("teacher_latents",) if name in batch}
    return {name: weight * value + (1 - weight) * value.flip(0) for name, value in mixed.items()}


def augmented(augment, with_bank=True, **kwargs):
    passed = {key: kwargs.pop(key) for key in ("eval_dataset",) if key in kwargs}
    teacher = {"bank": tiny.bank(), "pairing": tiny.random_prompt()} if with_bank else {}
    return CoLearningTrainer(
        tiny.student(), tiny.arguments(**kwargs), train_dataset=tiny.digits(64), augment=augment, **teacher, **passed
    )


@pytest.mark.parametrize("with_bank", [True, False])
def test_an_augmentation_sees_every_training_batch_with_its_targets_and_no_other(with_bank):
    watch = Watch()
    run = augmented(watch, with_bank, eval_dataset=tiny.digits(16), eval_strategy="steps", eval_steps=2, bf16=True)
    run.train()
    run.predict(tiny.digits(16))
    keys = {"pixel_values", "labels"} | ({"teacher_latents"} if with_bank else set())
    assert [len(batch["labels"]) for batch in watch.batches] == [4] + 8 * [8]  # the dry run's samples first
    assert all(set(batch) == keys for batch in watch.batches)
    assert set(watch.modes) == {(False, False)}  # neither gradients nor half precision


def test_an_augmentation_that_changes_nothing_trains_as_without_it():
    watched, plain = augmented(Watch()), augmented(None)
    watched.train(), plain.train()
    assert losses(watched) == losses(plain)


def test_the_loss_is_that_of_the_augmented_images_labels_and_targets():
    digits, labels = tiny.digits(64), tiny.digits(64)["labels"][:]
    wanted = {
        "pixel_values": 1 - digits["pixel_values"][:],
        "labels": torch.full((64, 10), 0.1),
        "teacher_latents": torch.ones(64, 24),
    }
    student = tiny.student().eval()
    with torch.no_grad():
        outputs = student(pixel_values=wanted["pixel_values"])
    task = -torch.log_softmax(outputs.logits, dim=1).mean()  # a tenth of each of the ten classes
    latent = (outputs.latents - 1).pow(2).mean()

    def augment(batch):
        assert batch["teacher_latents"].shape == (len(batch["labels"]), 24) and not batch["labels"].is_floating_point()
        return {
            "pixel_values": 1 - batch["pixel_values"],
            "labels": wanted["labels"][: len(batch["labels"])],
            "teacher_latents": torch.ones_like(batch["teacher_latents"]),
        }

    run = augmented(augment, per_device_train_batch_size=64, max_steps=1)
    run.train()
    assert len(labels) == 64
    assert losses(run, "loss_task") == pytest.approx([task.item()], rel=1e-5)
    assert losses(run, "loss_latent") == pytest.approx([latent.item()], rel=1e-5)


def test_the_dry_run_of_an_augmentation_moves_no_random_numbers_and_shows_what_is_wrong():
    run = augmented(mixup)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    try_first_batch(run)
    assert torch.equal(torch.rand(4), expected)
    with pytest.raises(TypeError, match="augment returned a NoneType: let it return the batch"):
        augmented(lambda batch: None, with_bank=False).train()
    with pytest.raises(ValueError, match="the augmentation gives soft `labels`, and label_smoothing_factor takes"):
        augmented(mixup, label_smoothing_factor=0.1).train()


# ---- memory format ----
def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def convolutional(**kwargs):
    """With three channels: of one, the layouts would be the same."""
    digits = tiny.digits(64)
    pixels = np.repeat(np.asarray(digits["pixel_values"]), 3, axis=1) * np.array([1, 0.5, 0.2])[:, None, None]
    digits = digits.remove_columns("pixel_values").add_column("pixel_values", pixels.astype(np.float32).tolist())
    return {"student": tiny.student(tiny.resnet(num_channels=3)), "digits": digits.with_format("torch"), **kwargs}


def test_channels_last_lays_out_weights_and_images_and_gives_the_same_losses(tmp_path):
    seen = []
    options = {"output_dir": tmp_path, "save_strategy": "steps", "save_steps": 8}
    ours, plain = trainer(**convolutional(channels_last=True, **options)), trainer(**convolutional())
    ours.model.register_forward_pre_hook(
        lambda model, args, kwargs: seen.append((model.training, is_channels_last(kwargs["pixel_values"]))),
        with_kwargs=True,
    )
    ours.train(), plain.train()
    assert losses(ours) == pytest.approx(losses(plain), rel=1e-3)
    assert [laid_out for is_training, laid_out in seen if is_training] == 8 * [True]
    weight = "backbone.embedder.embedder.convolution.weight"
    assert is_channels_last(ours.model.state_dict()[weight])
    saved = type(ours.model).from_pretrained(tmp_path / "checkpoint-8")
    for name, value in ours.model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value), name
    seen.clear()
    ours.evaluate(convolutional()["digits"])
    assert set(seen) == {(False, True)}


def test_channels_last_saves_a_model_of_the_users_own_and_adapters(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file

    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.latent, self.classifier = torch.nn.Conv2d(3, 24, 3), torch.nn.Linear(24, 10)

        def forward(self, pixel_values, labels=None):
            latents = self.latent(pixel_values).mean((2, 3))
            logits = self.classifier(latents)
            loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits, "latents": latents}

    run = trainer(**convolutional(student=Mine(), channels_last=True, max_steps=1))
    run.train()
    run.save_model(tmp_path / "mine")
    assert torch.equal(load_file(tmp_path / "mine" / "model.safetensors")["latent.weight"], run.model.latent.weight)

    def base():
        return tiny.student(tiny.resnet(num_channels=3))

    adapted = get_peft_model(base(), LoraConfig(r=2, target_modules=["convolution"], modules_to_save=["classifier"]))
    run = trainer(**convolutional(student=adapted, channels_last=True, max_steps=2))
    run.train()
    run.save_model(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(), tmp_path / "adapter").state_dict()
    adapters = [name for name in loaded if "lora_" in name]
    assert adapters and any(is_channels_last(run.model.state_dict()[name]) for name in adapters)
    for name in adapters:
        assert torch.equal(loaded[name], run.model.state_dict()[name]), name


# ---- all of it ----
def test_everything_together_resumes_in_mid_epoch_to_the_last_bit(tmp_path):
    # 64 samples, 4 at a time and two times a step: 8 steps an epoch; the checkpoint is of the second epoch's third.
    options = {
        "ema_decay": 0.8,
        "layer_decay": 0.5,
        "lr_step_epochs": 1.25,
        "lr_scheduler_type": "linear",
        "channels_last": True,
        "bf16": True,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": -1,
        "num_train_epochs": 3,
        "alpha_schedule": "heuristic",
        "save_strategy": "steps",
        "save_steps": 11,
        "eval_strategy": "steps",
        "eval_steps": 3,
    }

    def run(name, resume=None):
        parts = convolutional()
        made = CoLearningTrainer(
            parts["student"],
            tiny.arguments(tmp_path / name, **options),
            train_dataset=parts["digits"],
            eval_dataset=parts["digits"].select(range(16)),
            bank=tiny.bank(),
            pairing=tiny.random_prompt(),
            augment=mixup,
        )
        made.train(resume_from_checkpoint=resume)
        return made

    whole = run("whole")
    again = run("again", resume=str(tmp_path / "whole" / "checkpoint-11"))
    for key in ("loss", "loss_task", "loss_latent", "alpha", "grad_norm", "learning_rate", "eval_loss"):
        assert losses(again, key) == losses(whole, key), key
    assert losses(whole, "learning_rate") == pytest.approx([1e-3] * 10 + [1e-4] * 10 + [1e-5] * 4)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    last = whole.optimizer.state_dict()["param_groups"]
    assert [group["lr"] for group in again.optimizer.state_dict()["param_groups"]] == [group["lr"] for group in last]
