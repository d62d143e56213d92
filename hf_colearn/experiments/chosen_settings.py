"""Settings of arms that are chosen on some seeds, written down, and confirmed on others.

The rule: every arm has as many settings to choose from, and its best one is that with the highest mean of the test metric
over the choice seeds. As that looks at the test set, the confirmation has other seeds, hence other labels, and a split of its
own where the recipe draws one from the first seed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from tqdm.auto import tqdm
from transformers import PrinterCallback, set_seed

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.experiments.arms import ArmPlan, check_comparable, pick
from hf_colearn.experiments.options import RecipeOptions
from hf_colearn.experiments.semi_supervised import (
    BUDGET,
    ORACLE,
    SemiSupervised,
    SemiSupervisedArm,
    semi_supervised_arms,
)
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils import distributed
from hf_colearn.utils.recipe_files import is_installed
from hf_colearn.utils.tables import text_table


@dataclass
class SemiSupervisedOptions(RecipeOptions):
    """What every semi-supervised recipe takes."""

    labels_per_class: list[int] = field(
        default_factory=lambda: [5],
        metadata={"help": "Samples of every class that have a label; several are a sweep."},
    )
    choose: bool = field(
        default=False,
        metadata={"help": "No report: try every arm's settings on these seeds, and write the best into --settings."},
    )
    check_teacher: bool = field(
        default=False, metadata={"help": "No training: what teacher_check says of every seed's labels."}
    )
    settings: str | None = field(
        default=None, metadata={"help": "YAML of the chosen settings; that beside the recipe by default."}
    )

    def settings_file(self, script: str) -> Path:
        """`recipes/{recipe}_settings.yaml`, or what `--settings` names."""
        return Path(self.settings or Path(script).with_name(f"{Path(script).stem}_settings.yaml"))

    def plans(
        self, script: str, comparison: str, rows: Sequence[int] | np.ndarray | None = None
    ) -> list[SemiSupervisedArm]:
        """The arms that `--arms` names at all levels of `--labels_per_class`, with their chosen settings.

        Args:
            script (`str`): The recipe's `__file__`.
            comparison (`str`): The entry of the settings' file, such as `"speech from text"`.
            rows (`Sequence[int]`, *optional*): As of [`semi_supervised_arms`].

        Raises:
            ValueError: If a name is none of the arms', or the file holds none of the settings of an arm.
        """
        pick(semi_supervised_arms(rows), self.arms)  # which refuses a wrong name
        of_all = [arm for arm in semi_supervised_arms(rows) if self.arms is None or arm.name in self.arms]
        plans = [arm for arm in of_all if arm.method != ORACLE]
        plans = [cast(SemiSupervisedArm, arm.at(BUDGET, k)) for k in self.labels_per_class for arm in plans]
        plans += [arm for arm in of_all if arm.method == ORACLE]  # once
        if self.choose and len(self.labels_per_class) > 1:
            raise ValueError(
                f"--choose with --labels_per_class {self.labels_per_class}: settings are chosen at one number of labels, such "
                "as 5."
            )
        if self.choose and self.settings is None and is_installed(script):
            raise ValueError(
                f"--choose would write {self.settings_file(script).name} into the installed package: name a file of yours, "
                "--settings mine.yaml, and pass it to the runs that follow."
            )
        if self.choose:
            return plans
        check_comparable(plans, self.seeds)
        return with_chosen(plans, self.settings_file(script), comparison)


def with_chosen(plans: Sequence[SemiSupervisedArm], path: Path, comparison: str) -> list[SemiSupervisedArm]:
    """The arms with the settings that the file has for them, whatever their number of labels; others keep their usual ones,
    which is printed.

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


def ask(
    options: SemiSupervisedOptions,
    training: Mapping[str, Any],
    plans: Sequence[SemiSupervisedArm],
    semi: SemiSupervised,
    test_dataset: Any,
    script: str,
    comparison: str,
) -> None:
    """What a recipe does with `--check_teacher` or `--choose` instead of its experiment."""
    first = training.get("seed") or 0
    seeds = range(first, first + options.seeds)
    if options.check_teacher:
        check_teacher(plans, seeds, semi, comparison)
    else:
        file = options.settings_file(script)
        choose_settings(plans, seeds, training, semi.make_trainer, test_dataset, file, comparison)


def check_teacher(
    plans: Sequence[SemiSupervisedArm], seeds: Sequence[int], semi: SemiSupervised, comparison: str
) -> dict[str, str]:
    """Prints what [`~hf_colearn.analysis.teacher_check.teacher_check`] says of the true pairs, by number of labels.

    It is what most seeds say, of "likely to help", "undecided", and no help, which is "will harm" or "cannot help", whichever
    is said more often; "undecided" where two are as frequent.

    Returns:
        `dict`: The verdicts, such as `{"speech from text, 5 labels a class": "likely to help"}`.
    """
    verdicts: dict[str, str] = {}
    for arm in [plan for plan in plans if plan.method == "latent transfer"]:
        assert arm.sweep is not None
        checks = [semi.check(arm, seed) for seed in seeds]
        counts = Counter(check.verdict for check in checks)
        name = f"{comparison}, {arm.sweep[1]:g} {BUDGET}"
        verdicts[name] = _majority(counts)
        shown = ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
        print(f"{checks[0]}\n\n{name}: {verdicts[name]} (of {len(checks)} draws of labels: {shown})\n")
    return verdicts


def _majority(counts: Counter) -> str:
    no_help = max("will harm", "cannot help", key=counts.__getitem__)
    of_three = Counter({"likely to help": counts["likely to help"], "undecided": counts["undecided"]})
    of_three[no_help] = counts["will harm"] + counts["cannot help"]
    (first, most), (_, next_most), _ = of_three.most_common()
    return "undecided" if most == next_most else first


def choose_settings(
    plans: Sequence[SemiSupervisedArm],
    seeds: Sequence[int],
    training: Mapping[str, Any],
    make_trainer: Callable[[ArmPlan, CoLearningArguments], CoLearningTrainer],
    test_dataset: Any,
    path: Path,
    comparison: str,
    metric: str = "accuracy",
) -> dict[str, Mapping[str, float]]:
    """Trains every arm with every setting of its grid on the choice seeds, prints the means, and writes the best ones down.

    Args:
        plans (`Sequence[SemiSupervisedArm]`): The arms, each at one number of labels; its setting is that of all numbers.
        seeds (`Sequence[int]`): Those to choose on, which the confirmation may not have.
        training, make_trainer: As of [`~hf_colearn.experiments.runner.run_recipe`].
        test_dataset: What the settings are chosen on.
        path (`Path`): The YAML file; other entries and arms in it stay.
        comparison (`str`): The entry in it.
        metric (`str`, *optional*, defaults to `"accuracy"`): The higher, the better.

    Returns:
        `dict`: The chosen setting of every arm.
    """
    rows, chosen = [["arm", "setting", metric]], {}
    bar = tqdm(total=sum(len(plan.grid) for plan in plans) * len(seeds), unit="run", disable=distributed.rank() > 0)
    for plan in plans:
        means = []
        for setting in plan.grid:
            scores = []
            for seed in seeds:
                bar.set_description(f"{plan.name}, seed {seed}")
                set_seed(seed)
                tried = replace(plan, setting=setting)
                trainer = make_trainer(tried, tried.arguments(training, seed))
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                scores.append(trainer.evaluate(test_dataset)[f"eval_{metric}"])
                bar.update()
            means.append(float(np.mean(scores)))
            rows.append([plan.name, _words(setting), f"{100 * means[-1]:.2f}"])
        best = int(np.argmax(means))  # the first of equals
        chosen[plan.method] = plan.grid[best]
        rows[best - len(means)][1] += " *"
    bar.close()
    if distributed.rank() == 0:
        known = _read(path)
        known[comparison] = {**known.get(comparison, {}), **{name: dict(setting) for name, setting in chosen.items()}}
        path.write_text(yaml.safe_dump(known, sort_keys=False))
        print(f"\n{text_table(rows)}\nseeds {seeds[0]} to {seeds[-1]}; * is chosen\nWritten:\n  {path}")
    return chosen


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text()) if path.is_file() else {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--settings {path} cannot be read ({error}): choose settings anew with --choose.") from error
    if not isinstance(found, dict | None):
        raise ValueError(f"--settings {path} holds a {type(found).__name__}: choose settings anew with --choose.")
    return found or {}


def _words(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())
