"""A recipe's options: YAML, its section for a smoke test, and the command line over both."""

import re
import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml

from hf_colearn import CoLearningArguments
from hf_colearn.experiments import options
from hf_colearn.experiments.options import RecipeOptions, parse_recipe
from hf_colearn.utils.recipe_files import recipe_names, recipe_script


RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass
class Options(RecipeOptions):
    size: int = field(default=224, metadata={"help": "Of a picture."})
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


def test_a_yaml_is_found_beside_the_recipe_by_its_name_alone(script, tmp_path, monkeypatch):
    (tmp_path / "other.yaml").write_text("student: other\n")
    monkeypatch.chdir(
        Path(__file__).parent
    )  # as `recipes/other.yaml` is in a command that somebody recorded in a clone
    assert parse_recipe(Options, script, ["--config", "recipes/other.yaml"])[0].student == "other"
    with pytest.raises(ValueError, match="--config recipes/another.yaml cannot be read"):
        parse_recipe(Options, script, ["--config", "recipes/another.yaml"])


# ---- what the machine cannot do ----
def test_a_format_that_the_machine_lacks_gives_way_where_a_yaml_asks_for_it(script, tmp_path, capsys, monkeypatch):
    for name in options.PRECISIONS:
        monkeypatch.setitem(options.PRECISIONS, name, lambda: False)
    (tmp_path / "fits.yaml").write_text("bf16: true\ntf32: true\nfp16: false\n")
    told = []
    monkeypatch.setattr(options, "warn", told.append)
    training = parse_recipe(Options, script, [])[1]
    assert (training["bf16"], training["tf32"], training["fp16"]) == (False, None, False)
    assert told == ["bf16 and tf32 of fits.yaml needs a GPU that has it, and there is none: computing in float32."]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_what_the_command_line_asks_for_and_the_machine_lacks_is_refused(script, tmp_path):
    (tmp_path / "fits.yaml").write_text("bf16: true\n")
    with pytest.raises(ValueError, match="doesn't support bf16"):
        parse_recipe(Options, script, ["--bf16", "true"])
    assert parse_recipe(Options, script, [])[1]["bf16"] is False
    assert parse_recipe(Options, script, ["--bf16", "false"])[1]["bf16"] is False


# ---- --help ----
def test_help_shows_the_recipes_own_options_first_and_transformers_last(script, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_recipe(Options, script, ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    titles = ["options of this recipe", "options of every recipe", "options of co-learning", "options of transformers"]
    first, *groups = re.split("|".join(f"\n{title}" for title in titles), shown)
    assert first.startswith("usage: ") and "[options]" in first and "--config" in first
    own, shared, ours, of_transformers = (set(re.findall(r"^  --(\w+)", group, re.MULTILINE)) for group in groups)
    assert own == {"size", "noise"}
    assert {"data_dir", "small", "license"} <= shared and {"alpha", "labelled_per_batch", "ema_decay"} <= ours
    assert {"learning_rate", "bf16", "push_to_hub"} <= of_transformers
    assert not (shared & of_transformers or ours & of_transformers or shared & ours)
    assert "(default: 224)" in groups[0]


def test_a_recipe_that_gives_a_shared_option_a_default_of_its_own_shows_it_among_its_own(script, capsys):
    @dataclass
    class Own(Options):
        student: str = field(default="speech", metadata={"help": "Speech or text."})

    with pytest.raises(SystemExit):
        parse_recipe(Own, script, ["--help"])
    own = capsys.readouterr().out.split("options of this recipe")[1].split("options of every recipe")[0]
    assert "Speech or text. (default: big)" in own  # which the YAML has changed


def test_a_mistyped_option_of_a_recipe_is_told_in_one_line(script, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_recipe(Options, script, ["--learning-rat", "0.1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("'--learning-rat' is no option: did you mean --learning_rate?\n")


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
        (["--lr_scheduler_kwargs", "{min_lr: 0}"], "'{min_lr: 0}' is no JSON"),
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


@pytest.mark.parametrize("name", ["cremad", "kinetics_sounds"])
def test_balance_methods_have_the_protocol_of_the_recipe_of_their_data(name):
    theirs, ours = protocol(f"{name}_av"), protocol(f"balance_{name}")
    assert ours.pop("data") == name
    assert {**theirs, **ours} == theirs
    assert set(theirs) - set(ours) == {"fusion", "alpha", "alpha_interval", "alpha_learning_rate", "alpha_solver"}


# Their students are those of the last step: with few labels there is no validation split to choose on.
LAST_STEP = ("digits_pairs", "emoji_l2v", "pairs", "stamps_pairs", "weak_modality")
LAST_STEP += ("balance", "balance_stamps")  # methods that put back weights of their own are compared there
LAST_STEP += ("vokens",)  # whose metric is a probe's, on none of the logits
LAST_STEP += ("translation", "language_shaped", "dense_signal", "graph_classes")  # few labels, as in the first ones
LAST_STEP += ("co_training",)  # few labels, equal updates
LAST_STEP += ("missing_modality",)  # equal updates in all arms, as of the balance methods
LAST_STEP += ("emergent_alignment",)  # a model without classes
LAST_STEP += ("many_tasks",)  # few labels, equal updates a task in all arms
LAST_STEP += ("unpaired",)  # few labels, equal updates
LAST_STEP += ("unpaired_distribution",)  # few labels
LAST_STEP += ("infer_missing",)  # no labels, equal updates
LAST_STEP += ("masked_latents",)  # few labels, equal updates
LAST_STEP += ("mined_positives",)  # few labels
LAST_STEP += ("zero_shot",)  # which knows none of the classes that it is judged on
YAMLS = [path for path in sorted(RECIPES.glob("*.yaml")) if not path.stem.endswith("_settings")]


@pytest.mark.parametrize("small", [False, True], ids=["published", "small"])
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_fits_its_recipe(path, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = next(name for name in reversed(recipe_names()) if f"{path.stem}_".startswith(f"{name}_"))
    script = recipe_script(recipe)
    options_class = runpy.run_path(str(script), run_name="recipe")["Options"]
    argv = ["--config", str(path), "--use_cpu", "true", *(["--small"] if small else [])]
    options, training = parse_recipe(options_class, str(script), argv)
    args = CoLearningArguments(**training)
    assert options.small == small and args.seed == 0
    if path.stem not in LAST_STEP:
        assert args.load_best_model_at_end and args.metric_for_best_model == "accuracy"
    assert not args.dataloader_drop_last  # Trainer would drop test samples, too


def test_an_option_may_have_a_yaml_for_its_value(script):
    Path(script).with_name("fits_tiny.yaml").write_text("student: of tiny\n")
    students = {
        value: parse_recipe(Options, script, argv, by="student")[0].student
        for value, argv in {
            "": [],
            "tiny": ["--student=tiny", "--student", "tiny"],
            "other": ["--student", "other"],
        }.items()
    }
    assert students == {"": "big", "tiny": "tiny", "other": "other"}
    options, training = parse_recipe(Options, script, ["--student", "tiny"], by="student")
    assert (options.size, training["output_dir"]) == (224, "runs/fits_tiny")  # and nothing of the other YAML
    assert parse_recipe(Options, script, ["--student", "tiny"])[1]["output_dir"] == "runs/fits"
