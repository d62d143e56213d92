"""Arguments: ranges, the command line, YAML and JSON."""

import copy
import json

import pytest
import torch
from transformers import HfArgumentParser, TrainingArguments

from hf_colearn import CoLearningArguments


OURS = {
    "alpha": 0.3,
    "alpha_schedule": "constant",
    "latent_loss": "cosine",
    "latent_reduction": "sum",
    "latent_scaling": "l2",
    "alpha_interval": 25,
    "alpha_learning_rate": 0.03,
    "alpha_batch_size": 96,
    "alpha_solver": "cg",
    "alpha_outer_split": 0.2,
    "alpha_outer": "modalities",
    "labelled_per_batch": 3,
    "id_column": "row",
    "ema_decay": 0.999,
    "gradient_cache_chunk_size": 4,
    "layer_decay": 0.75,
    "lr_step_epochs": 25.0,
    "lr_step_gamma": 0.2,
    "channels_last": True,
}


def ours(args):
    return {name: getattr(args, name) for name in OURS}


def parser():
    return HfArgumentParser(CoLearningArguments)


def test_nothing_is_needed_and_trainings_own_defaults_stay():
    args = CoLearningArguments("out")
    assert ours(args) == {
        "alpha": None,
        "alpha_schedule": "constant",
        "latent_loss": "mse",
        "latent_reduction": "mean",
        "latent_scaling": "standardized",
        "alpha_interval": 100,
        "alpha_learning_rate": 0.02,
        "alpha_batch_size": None,
        "alpha_solver": "adam",
        "alpha_outer_split": 0.1,
        "alpha_outer": "fused",
        "labelled_per_batch": None,
        "id_column": "sample_id",
        "ema_decay": None,
        "gradient_cache_chunk_size": None,
        "layer_decay": None,
        "lr_step_epochs": None,
        "lr_step_gamma": 0.1,
        "channels_last": False,
    }
    stock = TrainingArguments("out").to_dict()
    found = args.to_dict()
    assert {name: found[name] for name in stock} == stock
    assert found.keys() - stock.keys() == OURS.keys()


@pytest.mark.parametrize("alpha", [0, 0.5, 1, "5e-1"])
def test_an_alpha_from_0_to_1_is_kept_as_a_float(alpha):
    args = CoLearningArguments("out", alpha=alpha)
    assert args.alpha == float(alpha)
    assert isinstance(args.alpha, float)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", -0.1, "alpha=-0.1 for the term 'latent' is outside"),
        ("alpha", 1.5, "alpha=1.5 for the term 'latent' is outside"),
        ("alpha", float("nan"), "alpha=nan"),
        ("alpha_schedule", "linear", "alpha_schedule='linear' is unknown: choose one of constant, heuristic"),
        ("latent_loss", "l2", "latent_loss='l2' is unknown: choose one of mse, smooth_l1, cosine"),
        ("latent_scaling", "whitened", "latent_scaling='whitened' is unknown: choose one of standardized, l2, none"),
        ("latent_reduction", "max", "latent_reduction='max' is unknown: choose one of mean, sum"),
        ("id_column", "", "id_column='' names no column"),
        ("ema_decay", 0.0, r"ema_decay=0.0 is outside \(0, 1\)"),
        ("ema_decay", 1, r"ema_decay=1.0 is outside \(0, 1\)"),
        ("ema_decay", float("nan"), "ema_decay=nan is outside"),
        ("gradient_cache_chunk_size", 0, "gradient_cache_chunk_size=0: pass a whole number, at least 1"),
        ("gradient_cache_chunk_size", 2.5, "gradient_cache_chunk_size=2.5: pass a whole number"),
        ("layer_decay", 0.0, r"layer_decay=0.0 is outside \(0, 1\]"),
        ("layer_decay", 1.1, r"layer_decay=1.1 is outside \(0, 1\]"),
        ("lr_step_epochs", 0, "lr_step_epochs=0.0 is no number of epochs"),
        ("lr_step_epochs", float("inf"), "lr_step_epochs=inf is no number of epochs"),
        ("lr_step_gamma", 1.0, r"lr_step_gamma=1.0 is outside \(0, 1\)"),
        ("lr_step_gamma", 0.5, "lr_step_gamma=0.5 does nothing without lr_step_epochs"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        CoLearningArguments("out", **{field: value})


def test_the_heuristic_takes_no_alpha():
    assert CoLearningArguments("out", alpha_schedule="heuristic").alpha is None
    with pytest.raises(ValueError, match="alpha=0.5 has no place in alpha_schedule='heuristic'"):
        CoLearningArguments("out", alpha_schedule="heuristic", alpha=0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr_scheduler_type", "cosine"), ("warmup_steps", 10), ("warmup_steps", 0.1), ("lr_scheduler_kwargs", {"x": 1})],
)
def test_steps_of_epochs_exclude_another_schedule(field, value):
    with pytest.raises(ValueError, match=f"lr_step_epochs=25 is a schedule of its own, and so is {field}="):
        CoLearningArguments("out", lr_step_epochs=25, **{field: value})
    assert CoLearningArguments("out", lr_step_epochs=25, lr_scheduler_type="linear").lr_step_epochs == 25.0


def test_an_optimizer_that_averages_by_itself_takes_no_average():
    with pytest.raises(ValueError, match="ema_decay=0.9 with optim='schedule_free_adamw'"):
        CoLearningArguments("out", ema_decay=0.9, optim="schedule_free_adamw")


@pytest.mark.parametrize(
    ("field", "text"), [("ema_decay", "9e-1"), ("layer_decay", "5e-1"), ("lr_step_epochs", "2e1")]
)
def test_numbers_that_yaml_reads_as_text_become_numbers(field, text):
    assert getattr(CoLearningArguments("out", **{field: text}), field) == float(text)


def test_the_command_line_sets_them():
    flags = [word for name, value in OURS.items() for word in (f"--{name}", str(value))]
    (args,) = parser().parse_args_into_dataclasses(["--output_dir", "out", "--learning_rate", "1e-3", *flags])
    assert ours(args) == OURS
    assert args.learning_rate == 1e-3


def test_the_command_line_refuses_what_is_out_of_range():
    with pytest.raises(ValueError, match="alpha=2.0"):
        parser().parse_args_into_dataclasses(["--output_dir", "out", "--alpha", "2"])


def test_the_command_line_explains_every_field_of_ours():
    usage = " ".join(parser().format_help().split())
    for text in ("Share of the auxiliary term", "How alpha moves", "Distance of latents", "mean or sum", "sample ids"):
        assert text in usage
    for text in ("average of the weights", "Learning rate of a layer", "every so many epochs", "channels innermost"):
        assert text in usage


def test_yaml_and_json_set_them(tmp_path):
    yaml = "output_dir: out\nalpha: 3e-1\nlatent_loss: cosine\nlatent_reduction: sum\nid_column: row\n"
    yaml += "latent_scaling: l2\nlabelled_per_batch: 3\n"
    yaml += "alpha_interval: 25\nalpha_learning_rate: 3e-2\nalpha_batch_size: 96\nalpha_solver: cg\nalpha_outer_split: 2e-1\n"
    yaml += "alpha_outer: modalities\n"
    yaml += "ema_decay: 0.999\ngradient_cache_chunk_size: 4\nlayer_decay: 7.5e-1\nlr_step_epochs: 25\n"
    yaml += "lr_step_gamma: 0.2\nchannels_last: true\n"
    (tmp_path / "args.yaml").write_text(yaml)
    (args,) = parser().parse_yaml_file(str(tmp_path / "args.yaml"))
    assert ours(args) == OURS
    (tmp_path / "args.json").write_text(json.dumps({"output_dir": "out", **OURS}))
    (args,) = parser().parse_json_file(str(tmp_path / "args.json"))
    assert ours(args) == OURS


def test_yaml_refuses_a_field_that_does_not_exist(tmp_path):
    (tmp_path / "args.yaml").write_text("output_dir: out\nalhpa: 0.3\n")
    with pytest.raises(ValueError, match="alhpa"):
        parser().parse_yaml_file(str(tmp_path / "args.yaml"))


def test_they_come_back_from_their_dictionary_and_from_json():
    args = CoLearningArguments("out", learning_rate=1e-3, **OURS)
    assert ours(CoLearningArguments(**{name: args.to_dict()[name] for name in ("output_dir", *OURS)})) == OURS
    (again,) = parser().parse_dict(json.loads(args.to_json_string()), allow_extra_keys=True)
    assert again.to_dict() == args.to_dict()


def test_a_token_stays_out_of_what_trainer_writes_and_pushes(tmp_path):
    args = CoLearningArguments(str(tmp_path), hub_token="hf_secret_of_this_test")
    torch.save(args, tmp_path / "training_args.bin")
    written = (tmp_path / "training_args.bin").read_bytes() + f"{args} {args.to_json_string()}".encode()
    assert b"hf_secret" not in written
    assert torch.load(tmp_path / "training_args.bin", weights_only=False).alpha_interval == args.alpha_interval
    assert copy.deepcopy(args).hub_token == args.hub_token == "hf_secret_of_this_test"
