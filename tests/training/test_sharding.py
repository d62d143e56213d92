"""What is decided of sharded students before any process shards: layers, embeddings, the form of checkpoints, names."""

import logging

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

import mechanism_cases
import tiny
from hf_colearn.training import sharding
from hf_colearn.training.checkpoints import tell_of_other_processes
from hf_colearn.training.shards import by_name


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "SHARDED_STATE_DICT"),
        ({"save_only_model": True}, "FULL_STATE_DICT"),
        ({"fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}, "FULL_STATE_DICT"),
    ],
)
def test_checkpoints_are_in_shards_unless_the_user_says_otherwise(fields, expected, tmp_path):
    assert tiny.arguments(tmp_path, fsdp=True, **fields).fsdp_plugin_args["state_dict_type"] == expected
    assert tiny.arguments(tmp_path).fsdp_plugin_args is None


def test_another_version_of_fsdp_is_refused(tmp_path):
    with pytest.raises(ValueError, match="FSDP version 1 flattens weights, .* leave `version` out of fsdp_config"):
        tiny.arguments(tmp_path, fsdp=True, fsdp_config={"version": 1})


@pytest.mark.parametrize(
    ("model", "layers", "stays"),
    [
        # A ViT names its embeddings, too, which hold the input embedding; a BERT ties its output's weight and bias.
        (tiny.student, ["ViTLayer"], False),
        (mechanism_cases.of_texts, ["BertLayer"], True),
        (mechanism_cases.student, [], True),
    ],
)
def test_layers_are_sharded_by_themselves_and_embeddings_where_they_can(model, layers, stays):
    plugin, model = FullyShardedDataParallelPlugin(fsdp_version=2), model()
    sharding.choose_layers(plugin, model)
    assert plugin.transformer_cls_names_to_wrap == layers
    assert sharding._embeddings_stay(model) is stays
    plugin.transformer_cls_names_to_wrap = ["Linear"]
    sharding.choose_layers(plugin, model)
    assert plugin.transformer_cls_names_to_wrap == ["Linear"]  # the user's choice


def test_an_optimizers_state_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    groups = [{"params": [model[1].weight, model[0].weight]}, {"params": [model[0].bias, model[1].bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    names = sharding.names_of_parameters(optimizer, model)
    assert names == [["1.weight", "0.weight"], ["0.bias", "1.bias"]]
    state = by_name(optimizer.state_dict(), names)
    assert [group["params"] for group in state["param_groups"]] == names
    assert torch.equal(state["state"]["0.weight"]["momentum_buffer"], model[0].weight.grad)
    with pytest.raises(
        ValueError, match="optimizer has 4 parameters in 2 groups, and this one 4 in 1: resume with that"
    ):
        by_name(optimizer.state_dict(), [sum(names, [])])


@pytest.mark.parametrize(("processes", "told"), [(2, False), (1, True), (4, True)])
def test_random_states_of_other_processes_are_told(processes, told, tmp_path, caplog):
    for rank in range(2):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    package = logging.getLogger("hf_colearn")
    package.addHandler(caplog.handler)
    try:
        tell_of_other_processes(str(tmp_path), processes)
    finally:
        package.removeHandler(caplog.handler)
    assert (f"was written by 2 processes and is resumed by {processes}: " in caplog.text) is told
