"""Where the recipes lie, in a checkout and in an installation: scripts and their YAML files, found without importing them."""

import ast
import difflib
import re
import runpy
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from hf_colearn.utils.command_line import called_as


TRAIN = "pairs"  # the recipe that `hf-colearn train` runs


def recipes_folder() -> Path:
    """The folder of the recipes: within the package where a wheel is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """The names of all recipes, such as `"digits_l2v"`, in alphabetical order; none where only the package was copied."""
    return sorted(path.stem for path in recipes_folder().glob("*.py"))


def recipe_script(name: str) -> Path:
    """The script of a recipe.

    Raises:
        FileNotFoundError: If there is no recipe of this name; it says which one may be meant.
    """
    names = recipe_names()
    if not names:
        raise FileNotFoundError(
            f"there are no recipes in '{recipes_folder()}': install hf_colearn, pip install hf-colearn."
        )
    if name not in names:
        near = difflib.get_close_matches(name.removesuffix(".py"), names, n=1)
        meant = f"did you mean '{near[0]}'?" if near else f"choose among {', '.join(names)}."
        raise FileNotFoundError(f"there is no recipe '{name}': {meant}")
    return recipes_folder() / f"{name}.py"


def recipe_files(name: str) -> list[Path]:
    """The script of a recipe, its YAML files and tables: `x.py`, `x.yaml`, and `x_y.yaml` where no recipe is called `x_y`."""
    script = recipe_script(name)
    others = [other for other in recipe_names() if other.startswith(f"{name}_")]
    beside = [
        path
        for path in sorted(script.parent.glob(f"{name}*"))
        if path.suffix in (".csv", ".yaml")
        if path.stem == name or path.stem.startswith(f"{name}_")
        if not any(path.stem == other or path.stem.startswith(f"{other}_") for other in others)
    ]
    return [script, *beside]


def is_recipe(script: str | Path) -> bool:
    """Whether a script is one of the recipes or a copy of it, with YAML files that nobody has changed."""
    script = Path(script)
    if script.stem not in recipe_names():
        return False
    pairs = [(script.with_name(file.name), file) for file in recipe_files(script.stem)]
    return all(own.is_file() and own.read_bytes() == file.read_bytes() for own, file in pairs)


def recipe_line(name: str, width: int = 100) -> str:
    """What a recipe is about, in a line: the beginning of its docstring."""
    text = ast.get_docstring(ast.parse(recipe_script(name).read_text(encoding="utf-8"))) or ""
    return textwrap.shorten(re.split(r"(?<!al)\. |\n\n", text)[0].removesuffix("."), width, placeholder=" ...")


def recipe_command(name: str, argv: Sequence[str], processes: int = 1) -> str:
    """What to type to run a recipe with these options, wherever hf_colearn is installed."""
    ours = ["hf-colearn", "train"] if name == TRAIN else ["hf-colearn", "recipe", name, "--run"]
    if processes > 1:
        ours = ["accelerate", "launch", "--num_processes", str(processes), "-m", "hf_colearn", *ours[1:]]
    return shlex.join([*ours, *argv])


def is_installed(script: str) -> bool:
    """Whether a recipe lies in an installed package, where nobody's files belong, and not in a checkout or a copy."""
    return Path(script).resolve().parents[1].name == "hf_colearn" and Path(script).resolve().parent.name == "recipes"


def described(script: str, docstring: str | None) -> str:
    """A recipe's docstring for its `--help`: where it is installed, with the commands that work without a clone."""
    name, text = Path(script).stem, docstring or ""
    if not is_installed(script):
        return text
    text = re.sub(rf"(accelerate launch|python) recipes/{name}\.py", recipe_command(name, []), text)
    return text.replace("--config recipes/", "--config ")


def run_recipe_script(name: str, argv: Sequence[str], prog: str | None = None) -> None:
    """Runs a recipe in this process, as `python recipes/NAME.py ARGV` does; `prog` is how its `--help` calls it."""
    script = str(recipe_script(name))
    sys.argv = [script, *argv]
    with called_as(prog):
        runpy.run_path(script, run_name="__main__")
