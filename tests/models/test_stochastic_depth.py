"""Stochastic depth: what is dropped while a ViT trains, and that nothing else changes."""

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import tiny
from hf_colearn import CoLearningForImageClassification
from hf_colearn.models.stochastic_depth import DropPath, add_stochastic_depth


def vit(layers=5, **kwargs):
    config = tiny.vit(**kwargs)
    config.num_hidden_layers = layers
    return config


def images(samples=4):
    return torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def probabilities(model):
    return [module.probability for module in model.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("kind", ["student", "auxiliary student", "stock"])
def test_the_probability_rises_linearly_over_the_layers(kind):
    if kind == "stock":
        model = ViTForImageClassification(vit())
    else:
        model = tiny.student(vit(), head="auxiliary" if "auxiliary" in kind else "bottleneck")

    add_stochastic_depth(model, 0.2)

    assert probabilities(model) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_a_sample_loses_a_branch_whole_or_has_it_scaled_up():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    branch_BTH = torch.randn(4000, 3, 2)

    kept_B = drop(branch_BTH) / branch_BTH

    # Each sample's factor is 0 or 1 / (1 - 0.25), one for all its tokens.
    assert torch.all((kept_B == 0) | (kept_B - 4 / 3 < 1e-5).logical_and(kept_B > 1))
    assert torch.all((kept_B == 0) == (kept_B[:, :1, :1] == 0))
    # 4000 samples: three standard deviations of the share are 3 * sqrt(0.25 * 0.75 / 4000) = 0.021.
    assert (kept_B[:, 0, 0] == 0).float().mean() == pytest.approx(0.25, abs=0.021)


def test_both_branches_of_a_layer_drop_on_their_own():
    # In a layer that drops nearly always, a sample comes out as it went in; else one branch or both were added.
    model = ViTForImageClassification(vit(layers=2)).train()
    add_stochastic_depth(model, 0.5)
    layer = model.vit.layers[1]
    torch.manual_seed(0)
    x_BTH = torch.randn(1, 5, 32).expand(200, 5, 32)

    with torch.no_grad():
        out_BTH = layer(x_BTH)

    # Neither, attention, MLP of the input, both: four outcomes, a quarter each (50 +- 3 * 6.1 of 200).
    outcomes, counts = torch.unique((out_BTH[:, 0] * 1e4).round(), dim=0, return_counts=True)
    assert len(outcomes) == 4
    assert all(31 <= count <= 69 for count in counts.tolist())


def test_weights_configuration_and_evaluation_stay_as_they_are():
    plain, changed = tiny.student(vit()), tiny.student(vit())
    config = changed.config.to_dict()
    add_stochastic_depth(changed, 0.5)

    assert list(changed.state_dict()) == list(plain.state_dict())
    assert changed.config.to_dict() == config
    assert torch.equal(
        changed.eval()(pixel_values=images()).latents, plain.eval()(pixel_values=images()).latents
    )  # fmt: skip
    changed.train(), plain.train()
    assert not torch.equal(changed(pixel_values=images()).latents, plain(pixel_values=images()).latents)


def test_a_model_in_evaluation_mode_stays_in_it():
    model = tiny.student(vit()).eval()
    add_stochastic_depth(model, 0.9)

    assert torch.equal(model(pixel_values=images()).logits, model(pixel_values=images()).logits)


def test_the_dropout_of_the_configuration_goes_on():
    config = vit()
    config.hidden_dropout_prob = 0.3
    model = tiny.student(config)
    add_stochastic_depth(model, 0.1)

    assert [layer.dropout[0].p for layer in model.backbone.layers] == [0.3] * 5


def test_a_saved_student_loads_as_if_nothing_had_been_added(tmp_path):
    model = tiny.student(vit())
    add_stochastic_depth(model, 0.5)
    model.save_pretrained(tmp_path)

    loaded = CoLearningForImageClassification.from_pretrained(tmp_path)

    assert not probabilities(loaded)
    assert torch.equal(loaded(pixel_values=images()).logits, model.eval()(pixel_values=images()).logits)


def test_it_goes_with_gradient_checkpointing_and_autocast():
    gradients = []
    for checkpointing in (False, True):
        model = tiny.student(vit())
        add_stochastic_depth(model, 0.5)
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.train()(pixel_values=images(), labels=torch.arange(4)).loss
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))

    assert gradients[0].isfinite().all()
    assert torch.equal(*gradients)  # the recomputed forward pass drops the same samples


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match=f"rate={rate}"):
        add_stochastic_depth(tiny.student(vit()), rate)


def test_a_backbone_with_a_rate_of_its_own_is_told_to_set_it():
    with pytest.raises(ValueError, match="'convnext' has stochastic depth of its own.*drop_path_rate=0.2"):
        add_stochastic_depth(tiny.student(tiny.convnext()), 0.2)


def test_a_model_without_layers_of_a_vit_is_refused():
    with pytest.raises(ValueError, match="'resnet' has no layers of a ViT"):
        add_stochastic_depth(tiny.student(tiny.resnet()), 0.2)


def test_adding_it_twice_is_refused():
    model = ViTForImageClassification(ViTConfig(**vit().to_diff_dict()))
    add_stochastic_depth(model, 0.2)

    with pytest.raises(ValueError, match="already"):
        add_stochastic_depth(model, 0.2)
