"""Settings of semi-supervised arms that are chosen on some seeds and confirmed on others, see
[`~hf_colearn.experiments.settings`].

The metric is of the test set. As the choice looks at it, the confirmation has other seeds, hence other labels, and a split of
its own where the recipe draws one from the first seed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.semi_supervised import (
    BUDGET,
    ORACLE,
    SemiSupervised,
    SemiSupervisedArm,
    semi_supervised_arms,
)
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen


@dataclass
class SemiSupervisedOptions(SettingsOptions):
    """What every semi-supervised recipe takes."""

    labels_per_class: list[int] = field(
        default_factory=lambda: [5],
        metadata={"help": "Samples of every class that have a label; several are a sweep."},
    )
    check_teacher: bool = field(
        default=False, metadata={"help": "No training: what teacher_check says of every seed's labels."}
    )

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
        self.check_settings_file(script)
        if self.choose:
            return plans
        check_comparable(plans, self.seeds)
        return with_chosen(plans, self.settings_file(script), comparison)


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
