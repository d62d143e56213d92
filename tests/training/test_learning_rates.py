"""Learning rates: by layer, and in steps of epochs."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForImageClassification, SwinConfig

import families
import tiny
from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.training.argument_checks import arguments_fit
from hf_colearn.training.learning_rates import layers_above


def deep_vit(layers=3):
    config = tiny.vit()
    config.num_hidden_layers = layers
    return config


def swin():
    return SwinConfig(image_size=8, patch_size=2, num_channels=1, embed_dim=8, depths=[1, 1], num_heads=[2, 2])


def trainer(student=None, digits=None, **kwargs):
    passed = {key: kwargs.pop(key) for key in ("optimizers",) if key in kwargs}
    options = {"lr_scheduler_type": "linear", "per_device_train_batch_size": 16, **kwargs}
    return CoLearningTrainer(
        tiny.student(deep_vit()) if student is None else student,
        tiny.arguments(**options),
        train_dataset=tiny.digits(64) if digits is None else digits,
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        **passed,
    )


def logged(run, key):
    return [entry[key] for entry in run.state.log_history if key in entry]


def of_prefixes(model, expected):
    """The layers above every parameter, where `expected` gives them by the longest prefix of its name."""
    above = layers_above(model)
    found = {name: above[parameter] for name, parameter in model.named_parameters()}
    wanted = {
        name: expected[max((prefix for prefix in expected if name.startswith(prefix)), key=len)] for name in found
    }
    assert found == wanted
    assert set(found.values()) == set(expected.values())  # no prefix was for nothing


# Worked out from the models' definitions: the top (heads and what follows the last layer) is 0, the last layer 1.
LAYERS = {
    "vit": (
        lambda: tiny.student(deep_vit()),
        {"": 0, "backbone.embeddings": 4, "backbone.layers.0": 3, "backbone.layers.1": 2, "backbone.layers.2": 1},
    ),
    "resnet": (
        lambda: tiny.student(tiny.resnet()),
        {"": 0, "backbone.embedder": 3, "backbone.encoder.stages.0": 2, "backbone.encoder.stages.1": 1},
    ),
    "convnext": (
        lambda: tiny.student(tiny.convnext()),
        {"": 0, "backbone.embeddings": 3, "backbone.encoder.stages.0": 2, "backbone.encoder.stages.1": 1},
    ),
    "swin": (
        lambda: tiny.student(swin()),
        {"": 0, "backbone.embeddings": 3, "backbone.encoder.layers.0": 2, "backbone.encoder.layers.1": 1},
    ),
    "bert": (
        lambda: families.student("bert"),
        {"": 0, "backbone.embeddings": 2, "backbone.encoder.layer.0": 1},
    ),
    # Seven convolutions, then one block; between them the projection and what precedes the blocks.
    "wav2vec2": (
        lambda: families.student("wav2vec2"),
        {
            "": 0,
            "backbone.masked_spec_embed": 9,
            **{f"backbone.feature_extractor.conv_layers.{i}": 8 - i for i in range(7)},
            "backbone.feature_projection": 2,
            "backbone.encoder": 2,
            "backbone.encoder.layers.0": 1,
        },
    ),
    "auxiliary head": (
        lambda: tiny.student(tiny.resnet(), head="auxiliary"),
        {
            "": 0,
            "backbone.resnet.embedder": 3,
            "backbone.resnet.encoder.stages.0": 2,
            "backbone.resnet.encoder.stages.1": 1,
        },
    ),
    "stock model": (
        lambda: AutoModelForImageClassification.from_config(tiny.resnet(num_labels=10)),
        {"": 0, "resnet.embedder": 3, "resnet.encoder.stages.0": 2, "resnet.encoder.stages.1": 1},
    ),
    "adapters": (
        lambda: get_peft_model(
            tiny.student(deep_vit()), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["latent_head"])
        ),
        {
            "": 0,
            "base_model.model.backbone.embeddings": 4,
            **{f"base_model.model.backbone.layers.{i}": 3 - i for i in range(3)},
        },
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_knows_the_layers_above_it(name):
    make, expected = LAYERS[name]
    of_prefixes(make(), expected)


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="Sequential has no nn.ModuleList"):
        layers_above(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor"])
def test_learning_rates_decay_by_layer_and_the_rest_of_the_groups_stays(optim):
    options = {"optim": optim, "weight_decay": 0.1, "learning_rate": 0.01}
    plain, ours = trainer(**options), trainer(layer_decay=0.5, **options)

    def settings(run):
        names = {parameter: name for name, parameter in run.model.named_parameters()}
        groups = run.create_optimizer().param_groups
        found = [
            (names[p], g["lr"], {k: g[k] for k in g if k not in ("params", "lr")}) for g in groups for p in g["params"]
        ]
        assert len(found) == len(names)
        return {name: (lr, rest) for name, lr, rest in found}

    stock, decayed = settings(plain), settings(ours)
    assert stock.keys() == decayed.keys()
    for name, (lr, rest) in stock.items():
        above = next((4 - 1 - i for i in range(3) if f"layers.{i}." in name), 4 if "embeddings" in name else 0)
        assert decayed[name] == (pytest.approx(lr * 0.5**above), rest), name
    assert {rest["weight_decay"] for _, rest in decayed.values()} == {0.0, 0.1}


def test_a_step_of_gradient_descent_moves_each_layer_by_its_own_rate():
    start = dict(tiny.student(deep_vit()).named_parameters())
    runs = [
        trainer(layer_decay=decay, optim="sgd", learning_rate=0.1, max_steps=1, max_grad_norm=0.0)
        for decay in (None, 0.5)
    ]
    for run in runs:
        run.train()
    plain, ours = (dict(run.model.named_parameters()) for run in runs)
    for name, above in (
        ("backbone.embeddings.cls_token", 4),
        ("backbone.layers.2.mlp.fc1.weight", 1),
        ("latent_head.weight", 0),
    ):
        moved = plain[name] - start[name]
        assert moved.abs().max() > 1e-5
        torch.testing.assert_close(ours[name] - start[name], moved * 0.5**above, rtol=1e-2, atol=2e-7, msg=name)
    assert logged(runs[1], "learning_rate") == [0.1]  # what is logged is the top's


def test_a_decay_of_one_trains_as_without_it():
    plain, ours = trainer(max_steps=3), trainer(max_steps=3, layer_decay=1.0)
    plain.train(), ours.train()
    assert logged(ours, "loss") == logged(plain, "loss")
    for one, other in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_training_again_does_not_decay_the_rates_again():
    run = trainer(max_steps=2, layer_decay=0.5, lr_scheduler_type="constant")
    run.train()
    rates = [group["lr"] for group in run.optimizer.param_groups]
    run.train()
    assert [group["lr"] for group in run.optimizer.param_groups] == rates
    assert sorted(set(rates)) == pytest.approx([1e-3 * 0.5**above for above in (4, 3, 2, 1, 0)])


def test_layer_decay_is_refused_with_an_optimizer_of_the_users_own_and_with_deepspeed():
    student = tiny.student()
    with pytest.raises(ValueError, match="layer_decay=0.5 splits the optimizer.*an optimizer of your own"):
        trainer(student, layer_decay=0.5, optimizers=(torch.optim.SGD(student.parameters(), lr=0.1), None))
    with pytest.raises(ValueError, match="layer_decay=0.5 .*DeepSpeed"):
        arguments_fit(CoLearningArguments("out", layer_decay=0.5), False, False, "DeepSpeed")


# ---- steps of epochs ----
def test_the_learning_rate_falls_after_every_so_many_epochs():
    # 64 samples in batches of 16: 4 steps an epoch; the first step of an epoch has the new rate.
    run = trainer(max_steps=-1, num_train_epochs=5, lr_step_epochs=2, lr_step_gamma=0.5, learning_rate=0.8)
    run.train()
    assert logged(run, "learning_rate") == pytest.approx([0.8] * 8 + [0.4] * 8 + [0.2] * 4)


def test_a_part_of_an_epoch_accumulation_and_max_steps_count_as_well():
    # Half an epoch of 64 samples, 8 at a time and two times a step: 2 steps.
    options = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_steps": 5}
    run = trainer(lr_step_epochs=0.5, learning_rate=1.0, **options)
    run.train()
    assert logged(run, "learning_rate") == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_steps_and_layers_go_together():
    run = trainer(max_steps=-1, num_train_epochs=2, lr_step_epochs=1, layer_decay=0.5, learning_rate=1e-2)
    run.train()
    assert logged(run, "learning_rate") == pytest.approx([1e-2] * 4 + [1e-3] * 4)
    rates = {group["lr"] for group in run.optimizer.param_groups}  # after the last step of the second epoch
    assert sorted(rates) == pytest.approx([1e-4 * 0.5**above for above in (4, 3, 2, 1, 0)])


def test_training_again_starts_from_the_first_learning_rate():
    run = trainer(max_steps=6, lr_step_epochs=1)
    run.train()
    first = logged(run, "learning_rate")
    run.train()
    assert logged(run, "learning_rate") == first == pytest.approx([1e-3] * 4 + [1e-4] * 2)


def test_a_stream_and_a_scheduler_of_the_users_own_have_no_place_for_steps_of_epochs():
    with pytest.raises(ValueError, match="lr_step_epochs=2 counts epochs, and the training set has no length"):
        trainer(digits=tiny.digits(64).to_iterable_dataset(), lr_step_epochs=2).train()
    student = tiny.student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    mine = (optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
    with pytest.raises(ValueError, match="lr_step_epochs=2 is a schedule, and you pass one of your own"):
        trainer(student, lr_step_epochs=2, optimizers=mine)


def test_the_decayed_rates_are_in_the_log(caplog):
    package = logging.getLogger("hf_colearn")
    package.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger="hf_colearn.training.learning_rates"):
        trainer(layer_decay=0.1, learning_rate=1.0).create_optimizer()
    package.removeHandler(caplog.handler)
    assert "layer_decay=0.1: learning rates from 0.0001 to 1." in caplog.text
