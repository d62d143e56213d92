"""What every balance method stands on: where it is called, what it sees, what it is refused with."""

import copy

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

import hf_colearn
import tiny
from hf_colearn import (
    CoLearningForMultimodalClassification,
    ConstantAlpha,
    ContrastiveAlignment,
    LearnedAlpha,
    MultimodalCollator,
    balance,
)
from hf_colearn.balance.batch import ModalityBatch, unimodal_logits
from hf_colearn.balance.frozen import FrozenEncoders
from hf_colearn.balance.method import BalanceMethod, encoder_parameters, inner_model
from hf_colearn.data.multimodal import without_modality
from hf_colearn.data.splits import hide_labels
from hf_colearn.models.lora import with_lora
from hf_colearn.objectives.objective import CoLearningBatch
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


class Recorder(BalanceMethod):
    """Keeps what it sees of every optimizer step."""

    def __init__(self, unimodal="heads"):
        super().__init__(unimodal)
        self.losses, self.gradients, self.saves, self.groups = {}, [], 0, []

    def observe(self, seen):
        for name, loss in {"fused": seen.fused_loss, **seen.unimodal_losses}.items():
            self.losses.setdefault(name, []).append(loss.item())

    def on_gradients(self, model):
        self.gradients.append(
            [parameter.grad.clone() for parameters in encoder_parameters(model).values() for parameter in parameters]
        )

    def before_save(self):
        self.saves += 1

    def group_parameters(self, optimizer, model):
        self.groups.append(len(optimizer.param_groups))


class Sum(BalanceMethod):
    """l(z) and the losses of all modalities."""

    replaces_loss = True

    def loss(self, seen, task):
        return seen.fused_loss + sum(seen.unimodal_losses.values())


# ---- what a method sees ----


def test_losses_of_a_batch_are_means_over_the_labels_of_the_samples_that_have_the_modality():
    net = model().eval()
    samples = data(4)[:]
    mask_BM = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1]]).bool()
    labels = torch.tensor([0, 1, 2, -100])
    inputs = {name: value for name, value in samples.items() if name != "labels"}
    outputs = net(**inputs, modality_mask=mask_BM)
    seen = ModalityBatch(outputs, CoLearningBatch(labels), net)
    each_B = {name: cross_entropy(x, labels, reduction="none") for name, x in outputs.modality_logits.items()}
    assert seen.counts.tolist() == [3, 2, 2] and seen.counted_BM.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]
    torch.testing.assert_close(seen.unimodal_losses["image"], each_B["image"][[0, 1]].mean())
    torch.testing.assert_close(seen.unimodal_losses["audio"], each_B["audio"][[0, 2]].mean())
    torch.testing.assert_close(seen.fused_loss, cross_entropy(outputs.logits[:3], labels[:3]))


def test_slices_of_the_fused_head_sum_to_its_logits_with_adapters_too():
    for net in (model(("a", "b", "c")), with_lora(model(("a", "b", "c")), 2)):
        inner = inner_model(net)
        samples = data(4, ("a", "b", "c"))[:]
        outputs = net(**samples)
        slices = unimodal_logits(inner, outputs, "fused")
        torch.testing.assert_close(sum(slices.values()), outputs.logits)
        weight_CF, bias_C = (
            next(
                value for name, value in inner.state_dict().items() if name.startswith("fusion") and name.endswith(end)
            )
            for end in ("classifier.weight", "classifier.bias")
        )
        second_C4 = weight_CF[:, 4:8]  # of three latents of width 4
        expected_BC = outputs.modality_latents["b"] @ second_C4.T + bias_C / 3
        torch.testing.assert_close(slices["b"], expected_BC)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_losses_and_gradients_of_a_step_are_the_same_however_it_is_cut(missing):
    dataset = without_modality(data(8), "audio", missing, seed=1) if missing else data(8)
    dataset = hide_labels(dataset, 2, 0) if missing else dataset
    collator = MultimodalCollator(dict.fromkeys(("image", "audio")))
    seen = {}
    for size in (8, 1):
        method = Recorder()
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        trainer(method, dataset=dataset, data_collator=collator, max_steps=1, **cut).train()
        seen[size] = method
    for name in ("fused", "image", "audio"):
        assert sum(seen[1].losses[name]) / 8 == pytest.approx(seen[8].losses[name][0], rel=1e-5)
    (whole,), (cut,) = seen[8].gradients, seen[1].gradients
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_gradients_are_seen_before_they_are_clipped_and_may_be_changed():
    clipped, unclipped = Recorder(), Recorder()
    runs = [
        trainer(method, max_steps=1, max_grad_norm=norm)
        for method, norm in ((clipped, 1e-3), (unclipped, 0.0))
    ]  # fmt: skip
    for run in runs:
        run.train()
    assert all(map(torch.equal, clipped.gradients[0], unclipped.gradients[0]))

    class OfOneEncoder(BalanceMethod):
        def on_gradients(self, model):
            for parameter in encoder_parameters(model)["audio"]:
                parameter.grad.zero_()

    run = trainer(OfOneEncoder(), max_steps=1, optim="sgd", weight_decay=0.0)
    before = copy.deepcopy(run.model.state_dict())
    run.train()
    moved = {name for name, weight in run.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert any(name.startswith("encoders.image.backbone") for name in moved)
    assert not any(name.startswith("encoders.audio.") and "classifier" not in name for name in moved)


def test_encoders_have_adapters_and_no_classifier():
    net = with_lora(model(), 2)
    found = encoder_parameters(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for modality, parameters in found.items():
        of_modality = [names[id(parameter)] for parameter in parameters]
        assert any("lora_A" in name for name in of_modality) and any("latent_head" in name for name in of_modality)
        assert all(f"encoders.{modality}." in name and ".classifier." not in name for name in of_modality)


def test_the_model_is_found_within_adapters_and_compilation():
    net = model()
    assert inner_model(torch.compile(net, backend="eager")) is net
    adapted = with_lora(net, 2)
    assert inner_model(torch.compile(adapted, backend="eager")) is net and inner_model(torch.nn.Linear(1, 1)) is None


@pytest.mark.parametrize(
    "acronym, name",
    [("OGMGE", "OGM"), ("GBlend", "GradientBlending"), ("ETMC", "EvidentialFusion"), ("MSES", "EarlyStopPerModality"),
     ("MSLR", "LearningRatePerModality"), ("Greedy", "GreedyCuration"), ("DOMFN", "DynamicFusion"),
     ("MLA", "AlternatingAdaptation"), ("DGL", "DisentangledGradients")],
)  # fmt: skip
def test_the_acronym_is_the_same_class(acronym, name):
    assert getattr(balance, acronym) is getattr(hf_colearn, name)


# ---- what it changes ----


def test_a_loss_takes_the_place_of_the_tasks_beside_a_contrastive_term():
    alone, beside = (
        trainer(Sum(), max_steps=1),
        trainer(Sum(), max_steps=1, objective=ContrastiveAlignment(0.5), alpha=ConstantAlpha(0.25, "contrastive")),
    )
    alone.train(), beside.train()
    task, mixed = alone.state.log_history[0], beside.state.log_history[0]
    assert mixed["loss_task"] == pytest.approx(task["loss"], rel=1e-6)
    assert mixed["loss"] == pytest.approx(0.75 * task["loss"] + 0.25 * mixed["loss_contrastive"], rel=1e-6)


def test_a_method_among_the_callbacks_is_the_same():
    first, second = trainer(Sum(), max_steps=2), trainer(None, max_steps=2, callbacks=[Sum()])
    first.train(), second.train()
    assert first.balance is not None and isinstance(second.balance, Sum)
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))


def test_a_step_of_its_own_may_run_the_trainers_several_times():
    class EachAlone(BalanceMethod):
        replaces_loss, accumulates = True, False

        def loss(self, seen, task):
            return seen.unimodal_losses[self.active]

        def training_step(self, trainer, model, inputs, step):
            inputs, losses = trainer._prepare_inputs(inputs), []
            for self.active in ("image", "audio"):
                alone = {k: v for k, v in inputs.items() if k.startswith(self.active) or "features" not in k}
                losses.append(step(model, alone))
                if self.active == "image":  # the last step is the trainer's
                    trainer.optimizer.step(), model.zero_grad()
            return sum(losses)

    run = trainer(EachAlone(), net := model(), data(8), max_steps=1, optim="sgd", learning_rate=0.5, max_grad_norm=0.0)
    expected, samples = copy.deepcopy(net), data(8)[:]
    optimizer = torch.optim.SGD(expected.parameters(), 0.5)
    for name in ("image", "audio"):
        optimizer.zero_grad()
        logits = expected(**{f"{name}_features": samples[f"{name}_features"]}).modality_logits[name]
        cross_entropy(logits, samples["labels"]).backward()
        optimizer.step()
    run.train()
    for weight, other in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other)


def test_frozen_encoders_are_bit_identical_under_momentum_decay_and_batch_norms():
    class FrozenFromStep2(BalanceMethod):
        def __init__(self):
            super().__init__()
            self.frozen = FrozenEncoders()

        def on_train_begin(self, args, state, control, model=None, **kwargs):
            super().on_train_begin(args, state, control)
            self.frozen.attach(model)

        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                self.frozen.names = {"audio"}
                self.before = copy.deepcopy(model.state_dict())

        def on_gradients(self, model):
            self.frozen.take_gradients(model)

    torch.manual_seed(0)
    net = CoLearningForMultimodalClassification.from_backbones(
        {"image": tiny.resnet(), "audio": tiny.resnet()}, latent_dim=4, num_labels=3
    )
    pictures = {f"{name}_pixel_values": torch.rand(16, 1, 8, 8) for name in ("image", "audio")}
    pictures = Dataset.from_dict({**pictures, "labels": data()["labels"][:]}).with_format("torch")
    method = FrozenFromStep2()
    run = trainer(method, net, pictures, max_steps=5, weight_decay=0.1, learning_rate=0.01)
    run.train()
    same = {name for name, weight in run.model.state_dict().items() if torch.equal(weight, method.before[name])}
    assert {name for name in method.before if name.startswith("encoders.audio.") and "classifier" not in name} <= same
    assert not any(
        name.startswith("encoders.image.") for name in same if "running" not in name and "num_b" not in name
    )


def test_recorded_values_are_averaged_between_logs():
    class Counts(BalanceMethod):
        count = 0

        def observe(self, seen):
            self.count += 1
            self.record(coefficient_image=torch.tensor(float(self.count)), rho=0.5)

    run = trainer(Counts(), max_steps=4, logging_steps=2, gradient_accumulation_steps=2)
    run.train()
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    assert [entry["balance_coefficient_image"] for entry in logs] == [2.5, 6.5]  # of 1, 2, 3, 4 and of 5, 6, 7, 8
    assert [entry["balance_rho"] for entry in logs] == [0.5, 0.5]


def test_groups_are_shown_once_and_a_save_is_announced(tmp_path):
    method = Recorder()
    trainer(method, folder=tmp_path, max_steps=4, save_strategy="steps", save_steps=2).train()
    assert method.groups == [2] and method.saves == 2


# ---- what is refused ----

refusals = Refusals()


@refusals.case(TypeError, "Recorder is a class", "pass an object of it")
def a_class(folder):
    yield
    trainer(Recorder)


@refusals.case(TypeError, "balance='ogm' is a str", "such as `hf_colearn.balance.OGM()`")
def a_name(folder):
    yield
    trainer("ogm")


@refusals.case(TypeError, "is a CoLearningForImageClassification, of one modality", "leave `balance` out")
def one_modality(folder):
    yield
    trainer(Recorder(), tiny.student(), tiny.digits(8))


@refusals.case(ValueError, "Sum and Recorder would balance the same gradients twice", "pass one")
def two_methods(folder):
    yield
    trainer(Sum(), callbacks=[Recorder()])


@refusals.case(ValueError, "unimodal='both'", "heads", "fused")
def no_source_of_logits(folder):
    yield
    Recorder("both")


@refusals.case(ValueError, "Recorder(unimodal='fused') reads slices", "fusion='film'", "pass unimodal='heads'")
def slices_of_another_fusion(folder):
    yield
    trainer(Recorder("fused"), model(fusion="film"))


@refusals.case(ValueError, "Sum trains on another loss", "LearnedAlpha", "use a constant alpha")
def a_learned_alpha(folder):
    yield
    trainer(Sum(), objective=ContrastiveAlignment(), alpha=LearnedAlpha(interval=2))


@refusals.case(ValueError, "Sum computes the loss itself", "label_smoothing_factor", "leave it out")
def label_smoothing(folder):
    yield
    trainer(Sum(), label_smoothing_factor=0.1)


@refusals.case(ValueError, "Recorder is defined for single_label_classification", "problem_type='regression'")
def a_regression(folder):
    yield
    trainer(Recorder(), model(classes=1))


@refusals.case(ValueError, "Recorder is defined for single_label_classification", "multi_label_classification")
def several_labels_that_only_the_data_tell(folder):
    several = data().remove_columns("labels").add_column("labels", [[1.0, 0.0, 1.0]] * 16).with_format("torch")
    run = trainer(Recorder(), dataset=several, folder=folder / "out")
    yield
    run.train()


class Strict(BalanceMethod):
    fusions, most_modalities, accumulates, takes_objective, needs_validation = ("sum",), 2, False, False, True


@refusals.case(ValueError, "Strict works with fusion='sum'", "fusion='concat'", "build it with that")
def another_fusion(folder):
    yield
    trainer(Strict(), eval_dataset=data(), eval_strategy="steps", eval_steps=1)


@refusals.case(ValueError, "Strict is defined for 2 modalities, and the model has 3 (a, b, c)")
def too_many_modalities(folder):
    yield
    names = ("a", "b", "c")
    net = model(names, fusion="sum")
    trainer(Strict(), net, data(names=names), eval_dataset=data(), eval_strategy="steps", eval_steps=1)


@refusals.case(ValueError, "gradient_accumulation_steps=2 has no meaning", "per_device_train_batch_size")
def accumulation(folder):
    yield
    trainer(Strict(), model(fusion="sum"), gradient_accumulation_steps=2)


@refusals.case(ValueError, "ContrastiveAlignment has nothing to compare", "leave `objective` out")
def an_objective(folder):
    yield
    trainer(Strict(), model(fusion="sum"), objective=ContrastiveAlignment())


@refusals.case(ValueError, "Strict needs a validation split", "pass `eval_dataset`")
def no_validation_split(folder):
    yield
    trainer(Strict(), model(fusion="sum"))


@refusals.case(ValueError, "reads one validation split", "eval_dataset has a, b", "pass one")
def several_validation_splits(folder):
    yield
    trainer(Strict(), model(fusion="sum"), eval_dataset={"a": data(), "b": data()}, eval_strategy="epoch")


@refusals.case(ValueError, "reads the validation split during training", "eval_strategy='epoch'")
def no_evaluation_during_training(folder):
    yield
    trainer(Strict(), model(fusion="sum"), eval_dataset=data())


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
