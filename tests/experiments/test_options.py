"""A recipe's options: YAML, its section for a smoke test, and the command line over both."""

import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from hf_colearn import CoLearningArguments
from hf_colearn.experiments.options import RecipeOptions, parse_recipe


RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass
class Options(RecipeOptions):
    size: int = field(default=224)
    noise: float | None = field(default=None)


@pytest.fixture
def script(tmp_path):
    (tmp_path / "fits.yaml").write_text(
        "student: big\nlearning_rate: 1e-3\nalpha: 0.3\nlr_scheduler_kwargs: {min_lr: 0.0}\n"
        "lr_scheduler_type: cosine_with_min_lr\nsmall:\n  student: tiny\n  size: 28\n"
    )
    return str(tmp_path / "fits.py")


def test_the_yaml_beside_the_script_gives_the_defaults(script):
    options, training = parse_recipe(Options, script, [])
    assert (options.student, options.size, options.small) == ("big", 224, False)
    args = CoLearningArguments(**training)
    # YAML 1.1 reads 1e-3 as a text.
    assert (args.learning_rate, args.alpha, args.lr_scheduler_kwargs) == (0.001, 0.3, {"min_lr": 0.0})
    assert args.output_dir == "runs/fits"


def test_small_takes_its_section_and_the_command_line_goes_over_both(script):
    argv = [
        "--small",
        "--size",
        "16",
        "--learning_rate",
        "0.5",
        "--noise",
        "1e-3",
        "--arms",
        "baseline",
        "random other",
    ]
    options, training = parse_recipe(Options, script, argv)
    assert (options.student, options.size, options.noise) == ("tiny", 16, 0.001)
    assert training["learning_rate"] == 0.5 and training["alpha"] == 0.3
    assert options.arms == ["baseline", "random other"]


def test_another_yaml_takes_the_place_of_the_scripts(script, tmp_path):
    (tmp_path / "other.yaml").write_text("student: other\n")
    options, training = parse_recipe(Options, script, ["--config", str(tmp_path / "other.yaml")])
    assert options.student == "other" and CoLearningArguments(**training).alpha is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rat: 0.1", "'learning_rat' .* did you mean 'learning_rate'"),
        ("small:\n  zzzzz: 1", "'zzzzz' .* `--help`"),
        ("- a\n- b", "holds a list"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_yaml_that_is_none_is_refused_by_name(script, tmp_path, text, message):
    (tmp_path / "fits.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_recipe(Options, script, [])


def test_a_missing_yaml_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.yaml"):
        parse_recipe(Options, str(tmp_path / "nowhere.py"), [])


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--alpha", "1.5"], "1.5"),
        (["--seeds", "0"], "seeds=0"),
        (["--lora_rank", "0"], "lora_rank=0"),
        (["--optimizer", "lion"], "optimizer='lion'"),
    ],
)
def test_values_out_of_range_are_refused_before_any_data_is_loaded(script, argv, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(Options, script, argv)


# ---- the published protocols, copied from the paper's tables ----
def protocol(name):
    loaded = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    loaded.pop("small")
    return loaded


def test_imagenets_vit_has_the_published_protocol():
    vit = protocol("imagenet_l2v")
    published = {
        "per_device_train_batch_size": 256, "num_train_epochs": 300, "learning_rate": 1e-3, "weight_decay": 0.05,
        "drop_path": 0.25, "ema_decay": 0.99992, "rand_magnitude": 9, "rand_magnitude_std": 0.5, "random_erasing": 0.25,
        "label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "max_grad_norm": 1.0, "bf16": True, "alpha": 0.5,
    }  # fmt: skip
    assert {key: vit[key] for key in published} == published
    # From 1e-6 to 1e-3, in 20 of 300 epochs of 1,281,167 / 1,024 = 1,251 steps.
    assert vit["lr_scheduler_kwargs"]["warmup_lr_rate"] * vit["learning_rate"] == pytest.approx(1e-6)
    assert round(vit["warmup_steps"] * 300) == 20


@pytest.mark.parametrize("name", ["iemocap_l2a", "iemocap_a2l"])
def test_iemocap_has_the_published_protocol(name):
    published = {
        "num_train_epochs": 30, "optimizer": "adam", "learning_rate": 5e-5, "weight_decay": 5e-4,
        "per_device_train_batch_size": 4, "alpha": 0.3, "split": "session",
    }  # fmt: skip
    assert {key: protocol(name)[key] for key in published} == published


@pytest.mark.parametrize("name", ["avmnist_v2a", "avmnist_a2v"])
def test_avmnist_has_the_published_protocol(name):
    published = {
        "num_train_epochs": 30, "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 5e-4,
        "per_device_train_batch_size": 32, "alpha": 0.3, "lr_step_epochs": 25, "lr_step_gamma": 0.1,
    }  # fmt: skip
    assert {key: protocol(name)[key] for key in published} == published


# Their students are those of the last step: with few labels there is no validation split to choose on.
LAST_STEP = ("digits_pairs", "emoji_l2v", "pairs", "stamps_pairs", "weak_modality")
YAMLS = [path for path in sorted(RECIPES.glob("*.yaml")) if not path.stem.endswith("_settings")]


@pytest.mark.parametrize("small", [False, True], ids=["published", "small"])
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_fits_its_recipe(path, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = RECIPES / f"{path.stem.removesuffix('_resnet50')}.py"
    options_class = runpy.run_path(str(script), run_name="recipe")["Options"]
    argv = ["--config", str(path), "--use_cpu", "true", *(["--small"] if small else [])]
    options, training = parse_recipe(options_class, str(script), argv)
    args = CoLearningArguments(**training)
    assert options.small == small and args.seed == 0
    if path.stem not in LAST_STEP:
        assert args.load_best_model_at_end and args.metric_for_best_model == "accuracy"
    assert not args.dataloader_drop_last  # Trainer would drop test samples, too
