"""Hypergradients of real students: differences against exact Hessian products, attention, LoRA, half precision."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.func import functional_call

import families
from hf_colearn.alpha.hypergradient import HESSIANS, implicit_gradient
from hf_colearn.alpha.solvers import AdamDiagonal, ConjugateGradient, adam_diagonal


FAMILIES = ["bert", "vit", "resnet"]
DEFAULT_STEP = 0.01 * 2.0 ** (-23 / 3)  # float32


class Directions:
    """A solver that asks for the Hessian products of the gradient and of a random direction, and keeps them."""

    def solve(self, product, g_P):
        random_P = torch.randn(g_P.shape, generator=torch.Generator().manual_seed(3))
        self.products = {"gradient": product(g_P), "random": product(random_P)}
        return g_P


def student(family, attention="eager", **kwargs):
    backbone = families.config(family)
    options = {} if family == "resnet" else {"attn_implementation": attention}
    return families.student(family, backbone, **options, **kwargs)


def batch(family, seed, repeats=1):
    labels = torch.randint(0, 3, (2 * repeats,), generator=torch.Generator().manual_seed(seed))
    parts = [families.inputs(family, 10 * seed + part) for part in range(repeats)]
    return {**{name: torch.cat([part[name] for part in parts]) for name in parts[0]}, "labels": labels}


def hypergradient(model, family, solver, hessian="finite_difference", repeats=2, forward=functional_call, **kwargs):
    """alpha = 0.3 between the label loss and a latent loss; the outer loss is of another batch."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    inner_batch, outer_batch = batch(family, 1, repeats), batch(family, 2, repeats)
    targets_BD = torch.randn(2 * repeats, 24, generator=torch.Generator().manual_seed(4))

    def outputs(parameters, inputs):
        return forward(model, dict(zip(named, parameters, strict=True)), kwargs=inputs)

    def inner_losses(parameters):
        found = outputs(parameters, inner_batch)
        return {"task": found.loss, "latent": (found.latents.float() - targets_BD).square().mean()}

    return implicit_gradient(
        list(named.values()),
        lambda parameters: outputs(parameters, outer_batch).loss,
        inner_losses,
        {"latent": 0.3},
        solver,
        hessian,
        **kwargs,
    )


def error(value, expected):
    return ((value - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_differences_agree_with_exact_hessian_products(family):
    model = student(family)
    exact, differences = Directions(), Directions()
    expected = hypergradient(model, family, exact, "exact")
    found = hypergradient(model, family, differences)
    assert error(differences.products["gradient"], exact.products["gradient"]) < 1e-3
    assert error(found.gradients["latent"], expected.gradients["latent"]) < 1e-3
    assert error(found.residual, expected.residual) < 1e-3
    # a random direction is flat beside the gradient, so rounding weighs more
    assert error(differences.products["random"], exact.products["random"]) < 3e-3


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_steps_a_hundred_times_smaller_and_larger_are_worse(family):
    model, exact = student(family), Directions()
    hypergradient(model, family, exact, "exact")
    errors = []
    for factor in (0.01, 1, 100):
        differences = Directions()
        hypergradient(model, family, differences, relative_step=factor * DEFAULT_STEP)
        errors.append(error(differences.products["gradient"], exact.products["gradient"]))
    by_default = Directions()
    hypergradient(model, family, by_default)
    assert error(by_default.products["gradient"], exact.products["gradient"]) == errors[1]
    assert errors[0] > 3 * errors[1] and errors[2] > 100 * errors[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_conjugate_gradients_by_differences_agree_with_exact_ones(family):
    model, solver = student(family), ConjugateGradient(damping=0.1, iterations=5)
    expected = hypergradient(model, family, solver, "exact")
    found = hypergradient(model, family, solver)
    assert error(found.gradients["latent"], expected.gradients["latent"]) < 1e-2
    assert found.residual.item() == pytest.approx(expected.residual.item(), rel=1e-2)


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_sdpa_attention_gives_what_eager_gives(family):
    solver = ConjugateGradient(damping=0.1, iterations=5)
    found, expected = (hypergradient(student(family, attention), family, solver) for attention in ("sdpa", "eager"))
    assert error(found.gradients["latent"], expected.gradients["latent"]) < 1e-3


def test_the_exact_hessian_says_that_fused_attention_has_none():
    with pytest.raises(RuntimeError, match="attn_implementation='eager', or hessian='finite_difference'"):
        hypergradient(student("vit", "sdpa"), "vit", Directions(), "exact")


@pytest.mark.parametrize("hessian", HESSIANS)
def test_a_student_with_batch_norm_and_gradients_stays_bit_for_bit(hessian):
    model = families.stir(student("resnet"))
    model(**batch("resnet", 5)).loss.backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    hypergradient(model, "resnet", ConjugateGradient(iterations=3), hessian)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, (parameter.grad for parameter in model.parameters()), gradients))


def test_gradient_checkpointing_changes_nothing_in_evaluation_mode():
    model, solver = student("vit"), ConjugateGradient(damping=0.1, iterations=3)
    expected = hypergradient(model, "vit", solver)
    model.gradient_checkpointing_enable()
    assert hypergradient(model, "vit", solver).gradients["latent"] == expected.gradients["latent"]


def test_lora_adapters_alone():
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(student("vit"), config).eval()
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 4  # one layer: A and B of two matrices
    solver = ConjugateGradient(damping=0.1, iterations=5)
    expected = hypergradient(model, "vit", solver, "exact")
    assert error(hypergradient(model, "vit", solver).gradients["latent"], expected.gradients["latent"]) < 1e-2


def test_adams_diagonal_after_training_steps():
    model = student("bert")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for seed in range(3):
        model(**batch("bert", seed)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    diagonal = adam_diagonal(optimizer, list(model.parameters()))
    assert [d.shape for d in diagonal] == [p.shape for p in model.parameters()]
    solver = AdamDiagonal(diagonal)
    expected = hypergradient(model, "bert", solver, "exact")
    found = hypergradient(model, "bert", solver, relative_step=5e-4)  # v is spread over all weights
    assert error(found.gradients["latent"], expected.gradients["latent"]) < 1e-2
    assert found.cost == 9
