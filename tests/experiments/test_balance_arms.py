"""The arms of a comparison of balance methods: what is trained, with which model, and where it starts."""

import numpy as np
import pytest
import torch

import tiny_modalities as tiny
from hf_colearn import FeatureBackboneConfig
from hf_colearn.balance import OGM
from hf_colearn.experiments.balance import RATES, balance_arms, check_methods, epochs_of, methods
from hf_colearn.experiments.balance_data import BalanceData, BalanceOptions
from hf_colearn.experiments.scoring import identity_of
from hf_colearn.experiments.tiny_models import resnet_tiny


def names(arms, kind):
    return [arm.name for arm in arms if arm.kind == kind]


@pytest.fixture(scope="module")
def data():
    part = tiny.data()
    return BalanceData(
        {"train": part, "validation": part, "test": part},
        {name: FeatureBackboneConfig(4, [5], standardized=True) for name in tiny.NAMES},
        {0: "a", 1: "b", 2: "c"},
        {},
        features={name: part[f"{name}_features"][:] for name in tiny.NAMES},
    )


def test_every_method_has_its_arm_null_controls_and_references_stand_beside_them():
    arms, notes = balance_arms(["ogm", "greedy", "mla"], tiny.NAMES)
    assert names(arms, "baseline") == ["ce"] and names(arms, "colearned") == ["OGM-GE", "Greedy, mmtm", "MLA"]
    assert names(arms, "null") == [
        "OGM-GE, shuffled", "Greedy, random curation, mmtm", "MLA, no projection", "ce + heads",
    ]  # fmt: skip
    late = ["late ensemble", "late ensemble, probabilities", "late ensemble, as long"]
    assert names(arms, "reference") == ["ce, mmtm", "image alone", "audio alone", *late]
    assert notes == [
        "Greedy works with fusion='mmtm' alone, and has it.",
        "MLA works with fusion='entropy' alone, and has it.",
    ]
    against = {arm.name: arm.baseline for arm in arms if arm.kind == "colearned"}
    assert against == {"OGM-GE": "ce", "Greedy, mmtm": "ce, mmtm", "MLA": "ce"}


def test_each_fusion_has_the_methods_that_can_use_it():
    arms, _ = balance_arms(["ogm", "dgl", "reconboost"], tiny.NAMES, ["film", "sum"])
    assert names(arms, "baseline") == ["ce, film"] and "ce, sum" in names(arms, "reference")
    # DGL detaches what a head of the fusion reads, and `sum` has none; ReconBoost is of summed logits.
    assert names(arms, "colearned") == ["OGM-GE, film", "OGM-GE, sum", "DGL, film", "ReconBoost, sum"]


def test_every_arm_has_four_settings_that_its_method_takes():
    arms, _ = balance_arms(None, tiny.NAMES)
    assert {len(arm.grid) for arm in arms} == {4} and {arm.name for arm in arms if arm.make is None} >= {"ce"}
    for arm in arms:
        for setting in arm.grid:
            assert arm.make is None or type(arm.make(**{k: v for k, v in setting.items() if k != "rate"}))
    assert len([arm for arm in arms if arm.kind == "colearned"]) == 16  # fifteen methods, G-Blend offline and online


def test_the_setting_is_of_the_method_and_the_learning_rate_of_the_arguments():
    arms, _ = balance_arms(["ogm"], tiny.NAMES)
    by_name = {arm.name: arm for arm in arms}
    method, null = by_name["OGM-GE"].balance(), by_name["OGM-GE, shuffled"].balance()
    assert isinstance(method, OGM) and (method.alpha, method.shuffled) == (0.8, False) and null.shuffled
    assert by_name["ce"].balance() is None and by_name["ce"].grid == RATES
    arguments = by_name["OGM-GE"].arguments({"learning_rate": 0.5, "output_dir": "x", "report_to": "none"}, seed=3)
    assert (arguments.learning_rate, arguments.seed) == (0.5, 3)


@pytest.mark.parametrize("fusion", ["concat", "sum", "weighted", "film", "mmtm", "lstm"])
def test_every_method_takes_the_model_of_its_arm(data, fusion, tmp_path):
    arms, _ = balance_arms(None, tiny.NAMES, [fusion], epochs=20)
    options = BalanceOptions(latent_dim=4)
    torch.manual_seed(0)
    plain = data.make_model(options, fusion="concat").encoders.state_dict()
    fields = {"max_steps": 20, "eval_dataset": data.inputs["validation"], "eval_strategy": "steps", "eval_steps": 5}
    for arm in arms:
        if arm.modality is not None or arm.late_ensemble:
            continue
        torch.manual_seed(0)
        model = data.make_model(options, **arm.model)
        run = tiny.trainer(arm.balance(), model, data.inputs["train"], tmp_path, **fields)
        assert run.model.config.fusion == arm.model["fusion"]
        for key, weight in plain.items():  # whatever the fusion, the seed's encoders are the same
            if "classifier" not in key or not model.config.shared_classifier:
                assert torch.equal(model.encoders.state_dict()[key], weight), (arm.name, key)


def test_a_finished_run_is_not_that_of_another_setting_of_the_method(tmp_path):
    known = [identity_of(tiny.trainer(balance, folder=tmp_path)) for balance in (None, OGM(alpha=0.1), OGM(alpha=0.8))]
    starts = ("None", "OGM(alpha=0.1,", "OGM(alpha=0.8,")
    assert all(one["balance"].startswith(start) for one, start in zip(known, starts, strict=True))


def test_channels_are_exchanged_between_the_stages_of_convolutional_encoders():
    backbones = {name: resnet_tiny(num_channels=1) for name in tiny.NAMES}
    of_pixels = BalanceData({}, backbones, {0: "a", 1: "b"}, {}, stages=(1, 2))
    options = BalanceOptions(latent_dim=4)
    assert of_pixels.make_model(options, fusion="mmtm").fusion.stages == (1, 2)
    assert of_pixels.make_model(options, fusion="concat").config.fusion_options == {}


def test_schedules_in_epochs_are_shorter_in_short_runs():
    training = {"max_steps": 30, "per_device_train_batch_size": 8, "num_train_epochs": 3}
    assert epochs_of(training, 24) == 10  # 30 steps of 8 samples
    assert epochs_of({**training, "max_steps": -1}, 24) == 3
    short, long = methods(10), methods(200)
    assert dict(short["reconboost"].fixed) == {"stage_epochs": 1, "joint_epochs": 1} and not long["reconboost"].fixed
    assert dict(short["arl"].fixed) == {"start": 0} and not long["arl"].fixed
    assert {setting["annealing_epochs"] for setting in short["etmc"].grid} == {10, 2}
    assert (short["domfn"].fixed["pretraining_epochs"], long["domfn"].fixed["pretraining_epochs"]) == (2, 40)


@pytest.mark.parametrize(
    "make, told",
    [
        (
            lambda: check_methods(["ogm", "gradnorm"]),
            "--methods gradnorm: there is no such method; choose among ogm, ",
        ),
        (lambda: BalanceOptions(methods=["OGM"]), "--methods OGM: .* or all"),
        (
            lambda: BalanceOptions(fusions=["concat", "attention"]),
            "fusions='attention' is unknown: choose one of concat",
        ),
        (lambda: BalanceOptions(data="mosei"), "data='mosei' is unknown: choose one of av_digits, stamps"),
        (lambda: BalanceOptions(hidden_dim=0), "hidden_dim=0: pass a whole number, at least 1"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_loaded(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_all_names_every_method_and_one_is_named_once():
    assert check_methods(["all"]) == check_methods(None) == list(methods())
    assert check_methods(["mla", "ogm", "mla"]) == ["mla", "ogm"]


def test_features_are_standardised_by_those_that_are_there(data):
    model = data.make_model(BalanceOptions(latent_dim=4), fusion="concat")
    for name in tiny.NAMES:
        features_NF = np.asarray(data.inputs["train"][f"{name}_features"][:])
        np.testing.assert_allclose(
            model.encoders[name].backbone.mean_F, features_NF.mean(axis=0), rtol=1e-4, atol=1e-6
        )
