"""Section of a report: what did the methods of modality balance do?"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.plots.balance import PREFIX, balance_curve, modality_styles, plot_balance
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table


COEFFICIENT = "coefficient"


def section_balance(results: MergedResults) -> Section | None:
    """What did the methods of modality balance do?"""
    logged = {arm: names for arm, runs in results.logs.items() if (names := _names(runs))}
    if not logged:
        return None
    section = Section("balance", "What the balance methods did", has_arms_in_pictures=False)
    section.lead = (
        "What each method logged over the optimizer steps, in its own unit. Coefficients multiply a gradient, a loss or a "
        "learning rate, as the method's docstring says."
    )
    modalities = _modalities(results, logged)
    styles, last = modality_styles(modalities), _last(results, logged)
    quantities = {arm: _quantities(names, modalities) for arm, names in logged.items()}
    columns = (
        [*modalities, ""]
        if any("" in of for by_name in quantities.values() for of in by_name.values())
        else modalities
    )
    rows, numbers = [], dict[str, Any]()
    # The coefficients of all arms first, side by side; then what else they logged.
    found = [(arm, quantity, keys) for arm, by_name in quantities.items() for quantity, keys in by_name.items()]
    for arm, quantity, keys in sorted(found, key=lambda one: one[1] != COEFFICIENT):
        what, curves = quantity.replace("_", " "), dict[str, Any]()
        for part, key in keys.items():
            with section.error_notes(f"'{arm}'"):
                curves[part] = balance_curve(results.logs[arm], key)
        numbers.setdefault(arm, {}).update({keys[part].removeprefix(PREFIX): curve for part, curve in curves.items()})
        rows.append([arm, what, *(_cell(curves[part]) if part in curves else "-" for part in columns)])
        if all(len(curve["steps"]) < 2 for curve in curves.values()):
            continue  # the table says it all
        draw = partial(plot_balance, results.logs[arm], keys, what, styles=styles, heading=arm, last=last)
        row = "Coefficients" if quantity == COEFFICIENT else "What else was measured"
        section.add_picture(f"balance_{quantity}_{arm}", draw, f"{what} of '{arm}' over the optimizer steps", row=row)
    header = ["arm", "quantity", *(part or "of no modality" for part in columns)]
    section.tables.append(
        Table(header, rows, "Means over steps and seeds, and in brackets the lowest and the highest value")
    )
    section.numbers["curves"] = numbers
    return section


def _names(runs: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """What the method of an arm logged, without the prefix."""
    keys = dict.fromkeys(key for run in runs for entry in run for key in entry if key.startswith(PREFIX))
    return [key.removeprefix(PREFIX) for key in keys]


def _modalities(results: MergedResults, logged: dict[str, list[str]]) -> list[str]:
    """Of the models, where latents were kept, and what else has a coefficient, such as the fused loss."""
    known = dict.fromkeys(name for run in results.runs for name in run.test.modality_latents)
    marker = f"{COEFFICIENT}_"
    named = [name.removeprefix(marker) for names in logged.values() for name in names if name.startswith(marker)]
    return list(known | dict.fromkeys(named))


def _quantities(names: Sequence[str], modalities: Sequence[str]) -> dict[str, dict[str, str]]:
    """By quantity, the key in the logs of each modality; of `""` where it is of no modality."""
    quantities: dict[str, dict[str, str]] = {}
    for name in names:
        part = max((modality for modality in modalities if name.endswith(f"_{modality}")), key=len, default="")
        quantities.setdefault(name.removesuffix(f"_{part}") if part else name, {})[part] = f"{PREFIX}{name}"
    return quantities


def _cell(curve: dict[str, list[float]]) -> str:
    """As in `0.554 [0.286, 0.856]`; one number where it was the same in all steps and seeds."""
    low, high = min(curve["lowest"]), max(curve["highest"])
    mean = f"{np.mean(curve['mean']):.3g}"
    return mean if high - low < 1e-6 else f"{mean} [{low:.3g}, {high:.3g}]"


def _last(results: MergedResults, arms: Iterable[str]) -> int:
    """The last step of these arms, so that their figures have one axis."""
    return max(entry["step"] for arm in arms for run in results.logs[arm] for entry in run if "step" in entry)
