"""PMR: the modality that learns slower is drawn to the means of its classes."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_resumes, gradients, incomplete
from hf_colearn import PMR, ConstantAlpha
from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.balance.pmr import Prototypes, coefficients, has_prototype, prototype_logits
from hf_colearn.objectives.objective import CoLearningBatch
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")
NAN = float("nan")


# ---- prototypes and their probabilities ----


def test_probabilities_fall_with_the_distance_and_the_slower_modality_gets_the_second_loss():
    # Distances a = (1, 2), v = (1, 1), y = 0: q_a = 1 / (1 + e^-1) = .73106, q_v = 1 / 2, rho = 1.46212.
    h_BD, y = torch.zeros(1, 2), torch.tensor([0])
    logits = {"a": prototype_logits(h_BD, torch.tensor([[1.0, 0.0], [0.0, 2.0]])),
              "v": prototype_logits(h_BD, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))}  # fmt: skip
    scores_M = torch.stack([logits_BC.softmax(1)[0, 0] for logits_BC in logits.values()])
    assert scores_M.tolist() == pytest.approx([0.73106, 0.5], abs=1e-5)
    assert coefficients(scores_M, 1.0).tolist() == [0, 1]
    assert coefficients(scores_M, 2.0, graded=True).tolist() == pytest.approx([0, 2 * 0.46212], abs=1e-5)
    assert cross_entropy(logits["v"], y).item() == pytest.approx(math.log(2))


def test_graded_coefficients_are_at_most_alpha():
    # rho = .9 / .3 = 3, and min(3 - 1, 1) = 1.
    assert coefficients(torch.tensor([0.9, 0.3]), 0.5, graded=True).tolist() == [0, 0.5]


def test_a_latent_at_its_prototype_has_a_finite_gradient():
    # sqrt(|h - c|^2), as released, has the gradient 0 / 0 here.
    h_BD = torch.tensor([[1.0, 2.0]], requires_grad=True)
    c_CD = torch.tensor([[1.0, 2.0], [1.0, 5.0]])
    cross_entropy(prototype_logits(h_BD, c_CD), torch.tensor([0])).backward()
    # L = -log softmax(0, -3)_0; dL/d(distance_1) = -q_1, and d(distance_1)/dh = (h - c_1) / 3 = (0, -1).
    assert h_BD.grad.tolist() == [[0, pytest.approx(1 / (1 + math.exp(3)), rel=1e-5)]]
    released = torch.tensor([[1.0, 2.0]], requires_grad=True)
    (released - c_CD).square().sum(1).sqrt().sum().backward()
    assert released.grad.isnan().all()


def one_hot(*classes):
    return torch.eye(3)[list(classes)]


def test_prototypes_are_class_means_of_whole_epochs_with_momentum():
    found = Prototypes(momentum=0.2)
    found.begin(0)
    assert not found.means
    found.add("image", torch.tensor([[2.0], [7.0]]), one_hot(0, 0))
    found.add("image", torch.tensor([[3.0], [9.0], [5.0]]), torch.cat([one_hot(0, 1), torch.zeros(1, 3)]))  # no label
    found.begin(0)  # the same epoch goes on
    assert not found.means
    found.begin(1)  # means (2 + 7 + 3) / 3 = 4 and 9; of the third class none, where 0 / 0 would be a prototype of NaN
    torch.testing.assert_close(found.means["image"], torch.tensor([[4.0], [9.0], [NAN]]), equal_nan=True)
    found.add("image", torch.tensor([[9.0], [6.0]]), one_hot(0, 2))
    found.begin(2)  # .8 * 9 + .2 * 4 = 8; the second stays, the third is new
    torch.testing.assert_close(found.means["image"], torch.tensor([[8.0], [9.0], [6.0]]))


def test_a_class_without_a_prototype_has_no_part_in_the_softmax():
    c_CD = torch.tensor([[1.0], [NAN], [3.0]])
    h_BD = torch.zeros(1, 1, requires_grad=True)
    log_q_BC = prototype_logits(h_BD, c_CD).log_softmax(1)
    q = 1 / (1 + math.exp(-2))  # of distances 1 and 3
    assert log_q_BC.exp()[0].tolist() == pytest.approx([q, 0, 1 - q])
    log_q_BC[0, 0].backward()
    assert h_BD.grad.isfinite().all() and has_prototype(c_CD).tolist() == [True, False, True]
    assert prototype_logits(h_BD, torch.full((3, 1), NAN)).log_softmax(1).isfinite().all()


def test_samples_of_a_class_without_a_prototype_add_nothing():
    method, net = PMR(), model(names := ("a", "b"))
    trainer(method, net, data(2, names)).current_gradient_accumulation_steps = 1
    samples = data(2, names)[:] | {"labels": torch.tensor([0, 1])}
    seen = ModalityBatch(net(**samples), CoLearningBatch(samples["labels"]), net)
    first = {name: h_BD[0].detach() for name, h_BD in seen.latents.items()}
    nothing = torch.full((4,), NAN)
    # The first sample is 1 from the prototypes of classes 0 and 2 of a, and 1 and 0 of b: q = 1/2 and 1 / (1 + e).
    offset = torch.tensor([1.0, 0, 0, 0])
    method.prototypes.means = {
        "a": torch.stack([first["a"] + offset, nothing, first["a"] - offset]),
        "b": torch.stack([first["b"] + offset, nothing, first["b"]]),
    }
    # b is slower: CE = log(1 + e) of one sample, a mean over two labels.
    assert method.loss(seen, torch.tensor(0.0)).item() == pytest.approx(math.log(1 + math.e) / 2, rel=1e-5)


def test_sums_that_the_processes_share_may_be_shared_again():
    # A save in the middle of an epoch: what is added after it counts as before, and once.
    saved, plain = Prototypes(0.2), Prototypes(0.2)
    for found in (saved, plain):
        found.begin(0)
        for latent in (1.0, 2.0, 6.0):
            found.add("image", torch.tensor([[latent]]), one_hot(0))
            if found is saved:
                found.share()
        found.begin(1)
    assert saved.means["image"][0].item() == plain.means["image"][0].item() == 3


# ---- which modality is slower ----


def test_equal_modalities_get_no_second_loss():
    assert coefficients(torch.tensor([0.5, 0.5]), 1.0).tolist() == [0, 0]


def test_of_three_those_below_the_mean_of_the_others_get_it():
    # .6 > (.3 + .5) / 2, .3 < (.6 + .5) / 2, .5 > (.6 + .3) / 2; graded .55 / .3 - 1.
    assert coefficients(torch.tensor([0.6, 0.3, 0.5]), 1.0).tolist() == [0, 1, 0]
    assert coefficients(torch.tensor([0.9, 0.3, 0.5]), 1.0).tolist() == [0, 1, 1]
    assert coefficients(torch.tensor([0.6, 0.3, 0.5]), 1.0, graded=True)[1].item() == pytest.approx(0.25 / 0.3)


def test_an_absent_modality_is_not_compared():
    assert coefficients(torch.tensor([0.5, NAN]), 1.0).tolist() == [0, 0]
    assert coefficients(torch.tensor([0.5, NAN, 0.4]), 1.0).tolist() == [0, 0, 1]


# ---- the loss of a run ----


@pytest.mark.parametrize("graded", [False, True])
def test_it_trains_as_the_equations_say(graded):
    dataset = data(12)
    samples, net = dataset[:], model()
    labels = samples["labels"]
    expected = copy.deepcopy(net).train()
    optimizer = torch.optim.SGD(expected.parameters(), 0.5)
    prototypes, coefficients_seen = {}, []
    for _ in range(4):  # an epoch is one step
        outputs = expected(**samples)
        loss, terms, scores = outputs.loss, {}, {}
        for name, c_CD in prototypes.items():
            distances_BC = (outputs.modality_latents[name][:, None] - c_CD).square().sum(2).sqrt()
            terms[name] = cross_entropy(-distances_BC, labels)
            scores[name] = (-distances_BC).softmax(1)[range(12), labels].sum().item()
        if terms:
            slow, fast = sorted(scores, key=scores.get)
            weight = min(scores[fast] / scores[slow] - 1, 1) if graded else 1
            loss = loss + 0.7 * weight * terms[slow]
            coefficients_seen.append({slow: 0.7 * weight, fast: 0})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, h_BD in outputs.modality_latents.items():
            new_CD = torch.stack([h_BD[labels == k].mean(0) for k in range(3)]).detach()
            prototypes[name] = 0.8 * new_CD + 0.2 * prototypes[name] if name in prototypes else new_CD
    fields = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "per_device_train_batch_size": 12}
    run = trainer(PMR(0.7, graded=graded), net, dataset, max_steps=4, **fields)
    run.train()
    for weight, other in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-5, rtol=1e-4)
    logs = run.state.log_history[:-1]
    assert logs[0]["balance_coefficient_image"] == logs[0]["balance_coefficient_audio"] == 0
    for log, seen in zip(logs[1:], coefficients_seen, strict=True):
        assert {name: log[f"balance_coefficient_{name}"] for name in seen} == pytest.approx(seen, rel=1e-4)


def test_it_acts_in_its_epochs_alone():
    run = trainer(PMR(epochs=(2, 2)), dataset=data(8), max_steps=4)
    run.train()
    logs = run.state.log_history[:-1]
    sums = [log["balance_coefficient_image"] + log["balance_coefficient_audio"] for log in logs]
    assert sums == [0, 0, 1, 0]


class Nothing:
    """A term of 0, which takes a share of the loss."""

    terms = ("nothing",)

    def __call__(self, outputs, batch):
        return {"nothing": 0 * outputs["logits"].sum()}


@pytest.mark.parametrize("kind", ["all", "incomplete", "beside a term", "mmtm"])
def test_a_step_is_the_same_however_it_is_cut(kind):
    fields = incomplete(8) if kind == "incomplete" else {"dataset": data(8)}
    if kind == "beside a term":
        fields |= {"objective": Nothing(), "alpha": ConstantAlpha(0.25, "nothing")}
    net = {"fusion": "mmtm"} if kind == "mmtm" else {}
    whole, cut = (
        gradients(PMR(), model(**net), steps=3, per_device_train_batch_size=size,
                  gradient_accumulation_steps=8 // size, **fields)[2]
        for size in (8, 1)
    )  # fmt: skip
    plain = gradients(PMR(epochs=(9, 9)), model(**net), steps=3, **fields)[2]
    assert not all(torch.allclose(whole[name], plain[name]) for name in plain)  # of the second loss
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-4)


def test_what_is_added_after_the_last_micro_batch_is_clipped_with_the_rest():
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    found = gradients(PMR(100.0), dataset=data(8), steps=2, max_grad_norm=1e-3, **cut)[1]
    norm = torch.stack([gradient.norm() for gradient in found.values()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("save", [2, 3])
def test_it_resumes_in_the_middle_and_at_the_end_of_an_epoch(save, tmp_path):
    assert_resumes(PMR, tmp_path, save=save)  # two steps an epoch
    assert_resumes(PMR, tmp_path / "cut", save=save, per_device_train_batch_size=4, gradient_accumulation_steps=2)


def test_evaluations_make_no_prototypes():
    plain, evaluated = (trainer(PMR(), max_steps=4, **fields) for fields in (
        {}, {"eval_dataset": data(6), "eval_strategy": "steps", "eval_steps": 1}))  # fmt: skip
    plain.train(), evaluated.train()
    assert all(map(torch.equal, plain.model.parameters(), evaluated.model.parameters()))


def test_a_method_that_is_used_again_starts_anew():
    method = PMR()
    first, second = trainer(method, max_steps=3), trainer(method, max_steps=3)
    first.train(), second.train()
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))


@pytest.mark.parametrize("kind", ["soft labels", "a class without samples"])
def test_it_trains(kind):
    net, dataset = model(classes=5), data(8)
    if kind == "soft labels":
        net = model(problem_type="single_label_classification")
        dataset = dataset.remove_columns("labels").add_column("labels", torch.rand(8, 3).softmax(1).tolist())
    run = trainer(PMR(), net, dataset, max_steps=4)
    run.train()
    logs = run.state.log_history[:-1]
    shares = [log["balance_coefficient_image"] + log["balance_coefficient_audio"] for log in logs]
    assert shares[0] == 0 and 1 in shares
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "alpha=-1", "above 0")
def a_negative_alpha(folder):
    yield
    PMR(alpha=-1)


@refusals.case(ValueError, "momentum=1", "from 0 to below 1")
def prototypes_that_never_change(folder):
    yield
    PMR(momentum=1)


@refusals.case(ValueError, "epochs=(3, 1) end before they begin", "pass the first and the last one")
def epochs_that_end_before_they_begin(folder):
    yield
    PMR(epochs=(3, 1))


@refusals.case(ValueError, "graded='yes'", "pass True")
def a_word(folder):
    yield
    PMR(graded="yes")


@refusals.case(ValueError, "PMR is defined for single_label_classification", "problem_type='regression'")
def a_regression(folder):
    net = model(classes=1)
    yield
    trainer(PMR(), net, folder=folder / "out")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
