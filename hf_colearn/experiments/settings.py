"""Settings of arms that are chosen on some seeds, written down, and confirmed on others.

Every arm has as many settings to choose from, and its best one is that with the highest mean of the metric over the choice
seeds. The confirmation has other seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from tqdm.auto import tqdm
from transformers import PrinterCallback, set_seed

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.experiments.arms import ArmPlan, TunedArm
from hf_colearn.experiments.options import RecipeOptions
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed
from hf_colearn.utils.recipe_files import is_installed
from hf_colearn.utils.tables import text_table


Tuned = TypeVar("Tuned", bound=TunedArm)


@dataclass
class SettingsOptions(RecipeOptions):
    """What a recipe takes whose arms have settings to choose."""

    choose: bool = field(
        default=False,
        metadata={"help": "No report: try every arm's settings on these seeds, and write the best into --settings."},
    )
    settings: str | None = field(
        default=None, metadata={"help": "YAML of the chosen settings; that beside the recipe by default."}
    )

    def settings_file(self, script: str) -> Path:
        """`recipes/{recipe}_settings.yaml`, or what `--settings` names."""
        return Path(self.settings or Path(script).with_name(f"{Path(script).stem}_settings.yaml"))

    def check_settings_file(self, script: str) -> None:
        """Refuses to choose into the installed package."""
        if self.choose and self.settings is None and is_installed(script):
            raise ValueError(
                f"--choose would write {self.settings_file(script).name} into the installed package: name a file of yours, "
                "--settings mine.yaml, and pass it to the runs that follow."
            )


def with_chosen(plans: Sequence[Tuned], path: Path, comparison: str) -> list[Tuned]:
    """The arms with the settings that the file has for them, whatever their level; others keep their usual ones, which is
    printed.

    Raises:
        ValueError: If the file is no YAML of settings, or an arm's setting is of another kind.
    """
    chosen = _read(path).get(comparison, {})
    usual = sorted({plan.method for plan in plans} - set(chosen))
    if distributed.rank() == 0 and usual:
        print(f"Not chosen in '{path}' for '{comparison}', at their usual settings: {', '.join(usual)}.")
    for plan in plans:
        if plan.method in chosen and set(chosen[plan.method]) != set(plan.setting):
            raise ValueError(
                f"the setting of '{plan.method}' in '{path}', '{comparison}', is {chosen[plan.method]}: expected is "
                f"{' and '.join(plan.setting)}. Choose it anew with --choose."
            )
    return [replace(plan, setting=chosen.get(plan.method, plan.setting)) for plan in plans]


def choose_settings(
    plans: Sequence[TunedArm],
    seeds: Sequence[int],
    training: Mapping[str, Any],
    make_trainer: Callable[[Any, CoLearningArguments], CoLearningTrainer],
    dataset: Any,
    path: Path,
    comparison: str,
    metric: str = "accuracy",
) -> dict[str, Mapping[str, float]]:
    """Trains every arm with every setting of its grid on the choice seeds, prints the means, and writes the best ones down,
    each arm's as soon as it is known. Arms of one method are tried once.

    Args:
        plans (`Sequence[TunedArm]`): The arms, each at one level; its setting is that of all levels.
        seeds (`Sequence[int]`): Those to choose on, which the confirmation may not have.
        training, make_trainer: As of [`~hf_colearn.experiments.runner.run_recipe`].
        dataset: What the settings are chosen on; None for the validation split of each arm's trainer.
        path (`Path`): The YAML file; other entries and arms in it stay.
        comparison (`str`): The entry in it.
        metric (`str`, *optional*, defaults to `"accuracy"`): The higher, the better.

    Returns:
        `dict`: The chosen setting of every arm.
    """
    rows, chosen = [["arm", "setting", metric]], dict[str, Mapping[str, float]]()
    methods: dict[str, TunedArm] = {}
    for plan in plans:
        methods.setdefault(plan.method, plan)
    num_runs = sum(len(plan.grid) for plan in methods.values()) * len(seeds)
    bar = tqdm(total=num_runs, unit="run", disable=distributed.rank() > 0)
    for method, plan in methods.items():
        means = []
        for setting in plan.grid:
            scores = []
            for seed in seeds:
                bar.set_description(f"{plan.name}, seed {seed}")
                tried = replace(plan, setting=setting)
                scores.append(_score(tried, seed, training, make_trainer, dataset, metric))
                bar.update()
            means.append(float(np.mean(scores)))
            rows.append([plan.name, words_of(setting), f"{100 * means[-1]:.2f}"])
        best = int(np.argmax(means))  # the first of equals
        chosen[method] = plan.grid[best]
        rows[best - len(means)][1] += " *"
        if distributed.rank() == 0:
            known = _read(path)
            known[comparison] = {**known.get(comparison, {}), method: dict(chosen[method])}
            path.write_text(yaml.safe_dump(known, sort_keys=False))
    bar.close()
    if distributed.rank() == 0:
        print(f"\n{text_table(rows)}\nseeds {seeds[0]} to {seeds[-1]}; * is chosen\nWritten:\n  {path}")
    return chosen


def _score(
    plan: ArmPlan,
    seed: int,
    training: Mapping[str, Any],
    make_trainer: Callable[[Any, CoLearningArguments], CoLearningTrainer],
    dataset: Any,
    metric: str,
) -> float:
    set_seed(seed)
    trainer = make_trainer(plan, plan.arguments(training, seed))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.evaluate(dataset)[f"eval_{metric}"]


def words_of(setting: Mapping[str, float]) -> str:
    """As in `rate 0.3, alpha 0.8`."""
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text()) if path.is_file() else {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--settings {path} cannot be read ({error}): choose settings anew with --choose.") from error
    if not isinstance(found, dict | None):
        raise ValueError(f"--settings {path} holds a {type(found).__name__}: choose settings anew with --choose.")
    return found or {}
