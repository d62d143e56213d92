"""What is typed wrongly at a recipe or at its command is refused by its value, with the way out, before anything is written."""

import shutil

import pytest
import torch
from PIL import Image

from hf_colearn import RandomPrompt
from hf_colearn.cli import make_parser
from hf_colearn.corpora.imagenet import load_imagenet
from hf_colearn.experiments.chosen_settings import SemiSupervisedOptions
from hf_colearn.experiments.options import RecipeOptions, parse_recipe
from hf_colearn.utils.recipe_files import recipe_script, recipes_folder
from refusals import Refusals, assert_refused


refusals = Refusals()
case = refusals.case


def recipe(folder, yaml="alpha: 0.3\n"):
    """The place of a recipe with these defaults."""
    (folder / "mine.yaml").write_text(yaml)
    return str(folder / "mine.py")


# ---- prompts ----
@case(ValueError, "template='a photo of {name}'", "pass names=[...]", "write {} for their numbers")
def a_template_of_names_without_names(folder):
    yield
    RandomPrompt("a photo of {name}", num_classes=3)


@case(ValueError, "num_classes=3 and 2 names", "pass a name a class")
def fewer_names_than_classes(folder):
    yield
    RandomPrompt("a photo of {name}", 3, names=["cat", "dog"])


@case(ValueError, "template='a photo of {nome}'", "{name} for its name")
def a_template_with_a_mistyped_name(folder):
    yield
    RandomPrompt("a photo of {nome}", names=["cat", "dog"])


# ---- the command `hf-colearn recipe` ----
@case(FileNotFoundError, "there is no recipe 'stamp'", "did you mean 'stamps'?")
def a_mistyped_recipe(folder):
    yield
    recipe_script("stamp")


@case(FileExistsError, "stamps.yaml' exists", "remove it, or copy into another folder")
def a_copy_over_a_changed_file(folder):
    (folder / "stamps.yaml").write_text("learning_rate: 0.7\n")
    options = make_parser().parse_args(["recipe", "stamps", "--copy", str(folder)])
    yield
    options.action(options)


@case(ValueError, "emoji_l2v_settings.yaml into the installed package", "--settings mine.yaml")
def settings_that_would_be_written_into_the_package(folder):
    installed = folder / "hf_colearn" / "recipes"
    installed.mkdir(parents=True)
    script = str(shutil.copy(recipes_folder() / "emoji_l2v.py", installed))
    yield
    SemiSupervisedOptions(choose=True).plans(script, "openmoji, category, en")


# ---- options ----
@case(ValueError, "--config", "other.yaml cannot be read", "pass a YAML file of options")
def a_configuration_that_is_not_there(folder):
    script = recipe(folder)
    yield
    parse_recipe(RecipeOptions, script, ["--config", str(folder / "elsewhere" / "other.yaml")])


@case(ValueError, "'{min_lr: 0}' is no JSON", "write an option's dictionary as '{\"min_lr\": 0.0}'")
def a_dictionary_that_is_no_json(folder):
    script = recipe(folder)
    yield
    parse_recipe(RecipeOptions, script, ["--lr_scheduler_kwargs", "{min_lr: 0}"])


@case(ValueError, "'licence' in", "did you mean 'license'?")
def a_mistyped_option_in_the_yaml(folder):
    script = recipe(folder, "licence: mit\n")
    yield
    parse_recipe(RecipeOptions, script, [])


if not torch.accelerator.is_available():

    @case(ValueError, "doesn't support bf16", "use_cpu")
    def a_format_that_this_machine_lacks(folder):
        script = recipe(folder, "bf16: true\n")
        parse_recipe(RecipeOptions, script, [])  # where the YAML asks for it, it gives way
        yield
        parse_recipe(RecipeOptions, script, ["--bf16"])


# ---- somebody's pictures ----
@case(ValueError, "num_validation=3", "the 4 classes")
def a_validation_split_smaller_than_the_classes(folder):
    for split, count in (("train", 3), ("val", 1)):
        for label in "abcd":
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4)).save(folder / split / label / f"{number}.png")
    yield
    load_imagenet(folder, num_validation=3)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
