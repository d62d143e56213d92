"""MLA: one optimizer step a modality, through one head whose gradient is projected."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_resumes
from hf_colearn import AlternatingAdaptation, ContrastiveAlignment, MultimodalCollator
from hf_colearn.balance.method import BalanceMethod, inner_model
from hf_colearn.balance.mla import MLA, updated_projection
from hf_colearn.data.multimodal import without_modality
from hf_colearn.models.lora import trained_layer, with_lora
from refusals import Refusals, assert_refused
from tiny_modalities import NAMES, data, trainer
from tiny_modalities import model as any_model


THREE = ("image", "audio", "text")


def model(names=NAMES, **kwargs):
    return any_model(names, fusion="entropy", shared_classifier=True, **kwargs)


# ---- the projection ----


@pytest.mark.parametrize(
    "normalised, diagonal",
    [
        # k = (1, 0), r k = 1: the first becomes 1 - 1 / 1.1 = .09091.
        (False, (0.09091, 1.0)),
        # Divided by sqrt(.09091^2 + 1) = 1.00412.
        (True, (0.09054, 0.99589)),
    ],
)
def test_a_direction_is_taken_out_of_the_projection(normalised, diagonal):
    P = updated_projection(torch.eye(2), torch.tensor([1.0, 0.0]), 0.1, normalised)
    assert P.diagonal().tolist() == pytest.approx(diagonal, abs=1e-5) and P[0, 1] == P[1, 0] == 0


def test_it_is_recursive_least_squares():
    # lam (lam I + sum r r')^-1, by the Woodbury identity one direction at a time, from P = I and one lam.
    torch.manual_seed(0)
    P, means = torch.eye(4), torch.randn(3, 4)
    for mean in means:
        P = updated_projection(P, mean, 0.1)
    torch.testing.assert_close(P, 0.1 * torch.linalg.inv(0.1 * torch.eye(4) + means.T @ means), atol=1e-5, rtol=1e-4)


# ---- the steps ----


def in_turn(net, batches, names, optimizer, projection="rls", lams=(0.1, 0.1**1.5), norm=0.0):
    """By the equations alone: every modality's step on each batch, with P as of the steps before."""
    head, P = net.encoders[names[0]].classifier, torch.eye(4)
    for batch, lam in zip(batches, lams, strict=True):
        for name in names:
            net.zero_grad()
            outputs = net(**{f"{name}_features": batch[f"{name}_features"]})
            cross_entropy(outputs.modality_logits[name], batch["labels"]).backward()
            for other in names:
                for key, parameter in net.encoders[other].named_parameters():
                    if other != name and "classifier" not in key:
                        parameter.grad = None
            if projection != "off":
                head.weight.grad = head.weight.grad @ P
                P = updated_projection(P, outputs.modality_latents[name].mean(0).detach(), lam, "norm" in projection)
            if norm:
                torch.nn.utils.clip_grad_norm_(net.parameters(), norm)
            optimizer.step()
    return net


class Batches(BalanceMethod):
    """Keeps the order in which a run reads its samples, and changes nothing."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, trainer, model, inputs, step):
        self.seen.append({name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return step(model, inputs)


@pytest.mark.parametrize("names", [NAMES, THREE])
@pytest.mark.parametrize("projection", ["off", "rls", "rls_normalised"])
def test_each_modality_has_its_step_and_the_head_its_projected_gradient(names, projection):
    # Adam would move an encoder whose gradient is 0 by its momentum: those that are not in turn must have none.
    fields = {"max_steps": 2, "learning_rate": 0.05, "max_grad_norm": 0.0, "weight_decay": 0.0}
    dataset, order = data(16, names), Batches()
    trainer(order, model(names), dataset, **fields).train()  # two batches an epoch: lam = .1 and .1^1.5
    expected = copy.deepcopy(model(names))
    in_turn(expected, order.seen, names, torch.optim.AdamW(expected.parameters(), 0.05, weight_decay=0.0), projection)
    run = trainer(AlternatingAdaptation(projection), model(names), dataset, **fields)
    run.train()
    for (name, weight), other in zip(run.model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name} {m}")


def test_every_step_is_clipped():
    names, dataset, order = NAMES, data(8), Batches()
    fields = {"max_steps": 1, "learning_rate": 0.5, "max_grad_norm": 0.1, "optim": "sgd"}
    trainer(order, model(), dataset, **fields).train()
    expected = copy.deepcopy(model())
    in_turn(expected, order.seen, names, torch.optim.SGD(expected.parameters(), 0.5), lams=(0.1,), norm=0.1)
    run = trainer(AlternatingAdaptation(), model(), dataset, **fields)
    run.train()
    for weight, other in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-6, rtol=1e-4)


def answer_to_the_first(projection):
    """How much the second modality's step changes the head's answer to the mean latent of the first, `(C,)`."""

    class Between(AlternatingAdaptation):
        def training_step(self, trainer, model, inputs, step):
            def stepped(model, inputs):
                head = inner_model(model).encoders["image"].classifier
                self.before, self.mean = head.weight.detach().clone(), self._mean_D
                return step(model, inputs)

            return super().training_step(trainer, model, inputs, stepped)

    method = Between(projection)
    run = trainer(method, model(), data(8), max_steps=1, optim="sgd", learning_rate=0.5, max_grad_norm=0.0)
    run.train()
    head = run.model.encoders["image"].classifier
    return (head.weight.detach() - method.before) @ method.mean, method.mean


def test_the_second_modality_does_not_undo_the_firsts_answer():
    # Of released code, whose projection is never applied, this is 1 and not lam / (lam + |r|^2).
    (unprojected, mean), (projected, same) = answer_to_the_first("off"), answer_to_the_first("rls")
    torch.testing.assert_close(mean, same)
    torch.testing.assert_close(projected, 0.1 / (0.1 + mean @ mean) * unprojected, atol=1e-6, rtol=1e-3)
    assert projected.norm() < 0.8 * unprojected.norm()


def test_what_is_left_of_the_heads_gradient_is_logged():
    logs = {}
    for projection in ("off", "rls"):
        run = trainer(MLA(projection), model(), max_steps=2)
        run.train()
        logs[projection] = run.state.log_history
    first, second = logs["rls"][:2]
    assert first["balance_coefficient_image"] == pytest.approx(1)  # P = I
    assert first["balance_coefficient_audio"] < 1 and second["balance_coefficient_image"] < 1
    assert first["loss"] == pytest.approx(logs["off"][0]["loss"], rel=0.1) and first["loss"] > 1.5  # of two modalities
    assert not any(name.startswith("balance") for name in logs["off"][0])


# ---- with what a Trainer does ----


def test_a_resumed_run_is_the_same(tmp_path):
    # Three of four batches of an epoch: P and the share of the epoch come back.
    assert_resumes(AlternatingAdaptation, tmp_path, net=model(), dataset=data(32))


def test_a_run_that_does_not_resume_begins_with_no_projection():
    run = trainer(AlternatingAdaptation(), model(), max_steps=2)
    run.train(), run.train()
    assert run.state.log_history[0]["balance_coefficient_image"] == pytest.approx(1)


def test_a_modality_that_no_sample_of_a_batch_has_takes_no_step():
    # One of eight samples has audio, and a batch is one sample; decay and momentum would move the encoder every time.
    dataset, collator = without_modality(data(8), "audio", 0.9), MultimodalCollator(dict.fromkeys(NAMES))
    weights = []

    class Keeps(AlternatingAdaptation):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            weights.append({name: weight.clone() for name, weight in model.state_dict().items()})

    fields = {"max_steps": 8, "per_device_train_batch_size": 1, "weight_decay": 0.1, "data_collator": collator}
    run = trainer(Keeps(), model(), dataset, **fields)
    first = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    run.train()
    steps = [first, *weights]
    moved = {name: sum(not all(torch.equal(now[key], before[key]) for key in now if f"{name}.latent_head" in key)
                       for before, now in zip(steps, weights, strict=False)) for name in NAMES}  # fmt: skip
    assert moved == {"image": 8, "audio": 1}


def test_incomplete_samples_are_means_over_those_that_have_the_modality():
    dataset, collator = without_modality(data(8), "audio", 0.5, seed=1), MultimodalCollator(dict.fromkeys(NAMES))
    fields = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
    run = trainer(AlternatingAdaptation("off"), model(), dataset, data_collator=collator, **fields)
    run.train()
    batch = collator([dataset[i] for i in range(8)])
    here_B = batch["modality_mask"][:, 1]
    expected, losses = copy.deepcopy(model()), []
    optimizer = torch.optim.SGD(expected.parameters(), 0.5)
    for name, rows_B in (("image", here_B | True), ("audio", here_B)):
        optimizer.zero_grad()
        outputs = expected(**{f"{name}_features": batch[f"{name}_features"][rows_B]})
        losses.append(cross_entropy(outputs.modality_logits[name], batch["labels"][rows_B]))
        losses[-1].backward()
        optimizer.step()
    assert 0 < here_B.sum() < 8 and run.state.log_history[0]["loss"] == pytest.approx(sum(losses).item(), abs=1e-4)
    for weight, other in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-6, rtol=1e-4)


def test_bf16_adapters_and_averaged_weights():
    net = with_lora(model(), 2)
    head = trained_layer(inner_model(net).encoders["image"].classifier).weight
    before = head.detach().clone()
    run = trainer(AlternatingAdaptation(), net, max_steps=2, bf16=True, ema_decay=0.9)
    run.train()
    other = trained_layer(inner_model(net).encoders["audio"].classifier).weight
    assert other is head and not torch.equal(head, before) and head.isfinite().all()
    assert run.state.log_history[0]["balance_coefficient_audio"] < 1


def test_predictions_do_not_depend_on_the_batch():
    run = trainer(AlternatingAdaptation(), model(), max_steps=2)
    run.train()
    net, samples = run.model.eval(), data(6)[:]
    with torch.no_grad():
        together = net(**samples).logits
        alone = [net(**{name: value[i : i + 1] for name, value in samples.items()}).logits for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), together)


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "projection='owm'", "rls_normalised")
def an_unknown_projection(folder):
    yield
    AlternatingAdaptation("owm")


@refusals.case(ValueError, "fusion='entropy'", "the model has fusion='concat'")
def another_fusion(folder):
    yield
    trainer(AlternatingAdaptation(), any_model())


@refusals.case(ValueError, "one head with all modalities", "shared_classifier=True")
def a_head_for_each(folder):
    yield
    trainer(AlternatingAdaptation(), any_model(fusion="entropy"))


@refusals.case(ValueError, "gradient_accumulation_steps=2", "per_device_train_batch_size")
def accumulation(folder):
    yield
    trainer(AlternatingAdaptation(), model(), gradient_accumulation_steps=2)


@refusals.case(ValueError, "ContrastiveAlignment has nothing to compare", "leave `objective` out")
def a_contrastive_term(folder):
    yield
    trainer(AlternatingAdaptation(), model(), objective=ContrastiveAlignment())


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
