"""Every loss is a mean over the samples that count in the whole optimizer step, whatever micro-batch or process they are in."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import processes
import tiny
from hf_colearn import CoLearningTrainer, ConstantAlpha, LearnedAlpha
from scripts import step_means as steps


SHAPES = [(8, 1), (1, 8), (2, 4)]  # batch size, accumulation steps


def by_hand(labelled, paired, alpha=0.4):
    """One step of SGD on the mixture, with plain torch on all eight samples."""
    model, batch = tiny.student().train(), steps.data(labelled).with_format("torch")[:]
    outputs = model(pixel_values=batch["pixel_values"])
    losses = {"task": torch.zeros(()), "latent": torch.zeros(())}
    if labelled:
        losses["task"] = F.cross_entropy(outputs.logits[:labelled], batch["labels"][:labelled])
    if paired:
        targets = steps.bank().lookup(np.arange(8 - paired, 8))
        losses["latent"] = (outputs.latents[8 - paired :] - targets).square().mean()
    alpha = 1.0 if labelled == 0 else alpha
    loss = (1 - alpha) * losses["task"] + alpha * losses["latent"]
    if loss.requires_grad:
        loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * (0 if parameter.grad is None else parameter.grad)
    return model.state_dict(), {name: value.item() for name, value in losses.items()}


def agree(found, expected):
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6, msg=name)


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    processes.forked(steps.__file__, folder, folder=folder, processes=2)
    return [torch.load(folder / f"steps-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("labelled", "paired"), steps.CASES)
def test_the_step_is_the_same_however_the_samples_are_split(labelled, paired, of_two_processes):
    expected, losses = by_hand(labelled, paired)
    split = [steps.step(labelled, paired, *shape) for shape in SHAPES]
    first, second = (found.get((labelled, paired)) for found in of_two_processes)
    for weights, logged in [*split, *([] if first is None else [first])]:
        agree(weights, expected)
        assert logged["loss_task"] == pytest.approx(losses["task"], rel=1e-5)
        assert logged["loss_latent"] == pytest.approx(losses["latent"], rel=1e-5)
    if first is not None:
        agree(second[0], first[0])


def multimodal_by_hand(labelled, weight):
    model, batch = steps.multimodal(weight).train(), steps.COLLATOR(list(steps.multimodal_data(labelled)))
    labels, mask = batch.pop("labels"), batch["modality_mask"]
    outputs = model(**batch)
    loss = F.cross_entropy(outputs.logits[:labelled], labels[:labelled])
    heads = []
    for name, here in zip(steps.MODALITIES, mask.T, strict=True):
        rows = [i for i in range(labelled) if here[i]]
        if rows:
            heads.append(F.cross_entropy(outputs.modality_logits[name][rows], labels[rows]))
    (loss + weight * sum(heads) / len(heads)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * (0 if parameter.grad is None else parameter.grad)
    return model.state_dict()


@pytest.mark.parametrize("labelled", steps.COUNTS)
def test_the_heads_of_modalities_are_means_over_their_labelled_samples(labelled, of_two_processes):
    expected = multimodal_by_hand(labelled, 0.5)
    split = [steps.multimodal_step(labelled, *shape)[0] for shape in SHAPES]
    for weights in [*split, *(found[labelled][0] for found in of_two_processes if labelled in found)]:
        agree(weights, expected)


@pytest.mark.parametrize("kind", ["label smoothing", "own loss", "bf16", "ema"])
def test_micro_batches_without_labels_leave_other_task_losses_finite_and_means_over_the_step(kind):
    options = {"label smoothing": {"label_smoothing_factor": 0.1}, "bf16": {"bf16": True}, "ema": {"ema_decay": 0.5}}
    kwargs = {"arguments": options.get(kind, {})}
    if kind == "own loss":
        kwargs["compute_loss_func"] = lambda outputs, labels, num_items_in_batch=None: F.cross_entropy(
            outputs["logits"], labels
        )
    whole, logged = steps.step(3, 4, 8, **kwargs)
    pieces, logged_pieces = steps.step(3, 4, 1, 8, **kwargs)
    loose = {"rtol": 2e-2, "atol": 2e-2} if kind == "bf16" else {"rtol": 1e-6, "atol": 1e-6}
    for name, weight in whole.items():
        assert weight.isfinite().all()
        torch.testing.assert_close(pieces[name], weight, msg=name, **loose)
    assert logged_pieces["loss_task"] == pytest.approx(logged["loss_task"], rel=1e-2 if kind == "bf16" else 1e-5)
    assert logged["loss_task"] > 1  # of 10 classes


def test_a_baseline_of_ours_takes_means_over_the_step_too():
    expected, _ = by_hand(3, 0, alpha=0.0)
    for shape in SHAPES:
        run = CoLearningTrainer(tiny.student(), steps.arguments("out", *shape), train_dataset=steps.data(3))
        agree(steps.trained(run)[0], expected)


def test_losses_are_logged_as_means_over_what_counted_since_the_last_log():
    # Two steps of four: 4 labels in the first, 1 in the second, none of the weights moves.
    data = steps.data(8).with_format("numpy")
    labels = [*data["labels"][:4].tolist(), int(data["labels"][4]), -100, -100, -100]
    data = data.remove_columns("labels").add_column("labels", labels).with_format("torch")
    options = {"learning_rate": 0.0, "max_steps": 2, "logging_steps": 2, "train_sampling_strategy": "sequential"}
    run = CoLearningTrainer(
        tiny.student(), steps.arguments("out", 4, 1, **options), train_dataset=data, bank=steps.bank(),
        alpha=ConstantAlpha(0.5),
    )  # fmt: skip
    logged = steps.trained(run)[1]
    with torch.no_grad():
        logits = tiny.student().train()(pixel_values=data["pixel_values"][:5]).logits
    assert logged["loss_task"] == pytest.approx(F.cross_entropy(logits, torch.tensor(labels[:5])).item(), rel=1e-5)


def test_a_learned_alpha_is_measured_where_a_micro_batch_has_no_label():
    data = tiny.digits(64).with_format("numpy")
    labels = np.where(np.arange(64) % 2, data["labels"][:], -100).tolist()
    data = data.remove_columns("labels").add_column("labels", labels).with_format("torch")
    outer, inner = data.select(range(1, 40, 2)), data.select([*range(0, 40, 2), *range(40, 64)])
    run = CoLearningTrainer(
        tiny.student(), tiny.arguments(per_device_train_batch_size=1, gradient_accumulation_steps=4, max_steps=4),
        train_dataset=inner, bank=tiny.bank(64),
        alpha=LearnedAlpha("latent", interval=1, outer_split=outer, solver="identity", batch_size=1, learning_rate=1.0),
    )  # fmt: skip
    run.train()
    gradients = [entry["hypergradient"] for entry in run.state.log_history if "hypergradient" in entry]
    assert len(gradients) == 4 and all(map(math.isfinite, gradients))
    assert all(math.isfinite(entry["loss"]) for entry in run.state.log_history if "loss" in entry)
