"""Figures of losses, alphas and accuracies over the optimizer steps. Need `pip install hf-colearn[report]`.

All have one x axis, from 0 to the last step of any arm, so that they can be read one below another. Every function takes
`histories` (for each arm by name, one `trainer.state.log_history` a seed) and returns a matplotlib `Figure`, written where
`path` is given, whose ending gives the format. `styles` are of [`~hf_colearn.analysis.plots.style.arm_styles`], by default with
the first arm as the baseline. With `legend=False` and one term it is a single panel for a page that has one legend for all
figures.

Shape legend: S logged steps that all seeds of an arm have in common.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import combinations
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import (
    ArmStyle,
    arm_styles,
    finish,
    label_right,
    legend_right,
    new_figure,
    plain_axes,
    seeds,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Histories = Mapping[str, list[list[dict[str, Any]]]]  # for each arm by name, one `trainer.state.log_history` a seed
LOSSES = {  # title, label of the y axis
    "loss": ("Total loss", "weighted sum of the terms"),
    "loss_task": ("Task loss", "cross-entropy [nats]"),
    "loss_latent": ("Latent loss", "latent loss [squared latent units]"),
    "loss_contrastive": ("Contrastive loss", "InfoNCE [nats]"),
    "loss_distribution": ("Distribution loss", "Jensen-Shannon divergence [nats]"),
}


def plot_losses(
    histories: Histories,
    path: str | PathLike | None = None,
    terms: Sequence[str] = ("loss_task", "loss_latent"),
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    target_variance: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
    last: int | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws each loss term over the optimizer steps: mean over seeds as a line, lowest to highest seed as a band.

    A term that spans more than a factor of 20 gets a logarithmic axis. An arm without a term, as the baseline without
    a latent loss, is missing from that panel. Steps that not every seed of an arm logged are left out. An arm of which a
    seed's loss is not finite ends there with a cross.

    Args:
        histories, path, styles, legend: As the module says.
        terms (`Sequence[str]`, *optional*, defaults to `("loss_task", "loss_latent")`): Keys of the logs, a panel each.
        target_variance (`Mapping[str, float]`, *optional*): The variance of a sample's targets over the epochs, below which
            no student's latent loss can come, as lines across `loss_latent`: by arm, or by other words for beside the line.
        units (`Mapping[str, str]`, *optional*): What the axis of a term says, as in `{"loss_task": "squared error"}`.
        last (`int`, *optional*): Where the x axis ends; by default at the last step that is logged.

    Raises:
        `ValueError`: If no arm logged a term, or none a finite value of it, or a target variance is given without
            `loss_latent`.
    """
    if target_variance and "loss_latent" not in terms:
        raise ValueError(f"a target variance is drawn in 'loss_latent', which is not among the terms {list(terms)}")
    curves = CurveFigure(histories, styles, len(terms))
    curves.last = last or curves.last
    names = {term: LOSSES.get(term, (_in_words(term), _in_words(term))) for term in terms}
    for axis, (term, (heading, ylabel)) in zip(curves.axes, names.items(), strict=True):
        values = curves.draw(axis, term)
        if values.min() > 0 and values.max() / values.min() > 20:
            axis.set_yscale("log")
        if target_variance and term == "loss_latent":
            curves.draw_target_variances(axis, target_variance)
        axis.set_title(heading if len(terms) > 1 else "", fontsize=10)
        axis.set_ylabel((units or {}).get(term, ylabel))
    return curves.finish("Training losses" if len(terms) > 1 else names[terms[0]][0], legend, path)


def plot_curves(
    histories: Histories,
    key: str,
    path: str | PathLike | None = None,
    *,
    ylabel: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws whatever is in the logs over the steps, such as `eval_accuracy_image` or `modality_gap_image_audio`.

    Args:
        histories, path, styles, legend: As the module says.
        key (`str`): Of the log entries.
        ylabel (`str`, *optional*): Of the y axis, with its unit; by default the key in words.

    Raises:
        `ValueError`: If no arm logged the key or none a finite value of it.
    """
    curves = CurveFigure(histories, styles)
    curves.draw(curves.axes[0], key)
    curves.axes[0].set_ylabel(_in_words(key) if ylabel is None else ylabel)
    return curves.finish(_in_words(key), legend, path)


def plot_alphas(
    histories: Histories,
    path: str | PathLike | None = None,
    terms: Sequence[str] | None = None,
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws alpha over the steps, the arms' mean over seeds as a line and every seed as a thin one; a panel a term.

    Args:
        histories, path, styles, legend: As the module says; arms that log no alpha are left out.
        terms (`Sequence[str]`, *optional*): Keys of the log entries, as `"alpha_contrastive"`; all by default.

    Raises:
        `ValueError`: If no arm logged an alpha.
    """
    logged = [key for key in _logged_keys(histories) if key == "alpha" or key.startswith("alpha_")]
    terms = logged if terms is None else terms
    if not logged:
        raise ValueError(f"no arm logged an alpha: the log histories hold {_logged_keys(histories)}")
    drawn = [arm for arm, runs in histories.items() if set(terms) & set(_logged_keys({arm: runs}))]
    widths = dict(zip(drawn, np.linspace(3.4, 1.2, len(drawn)), strict=True))
    curves = CurveFigure(histories, styles, len(terms))
    for axis, term in zip(curves.axes, terms, strict=True):
        curves.draw(axis, term, widths)
        axis.set_title(term.removeprefix("alpha").removeprefix("_") if len(terms) > 1 else "", fontsize=10)
        axis.set(ylabel="alpha (share of the loss)", ylim=(-0.03, 1.03))
    heading = "Alpha" if len(terms) > 1 or terms[0] == "alpha" else f"Alpha of the {terms[0][6:]} loss"
    return curves.finish(heading, legend, path, "mean over {}, and every seed")


def plot_head_gaps(
    histories: Histories,
    modalities: Sequence[str],
    path: str | PathLike | None = None,
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws the difference in accuracy of two modalities' heads over the steps: mean over seeds, and range; a panel a pair.

    Args:
        histories, path, styles, legend: As the module says; arms without `eval_accuracy_{modality}`, as
            [`~hf_colearn.evaluation.metrics.classification_metrics`] gives it, are left out.
        modalities (`Sequence[str]`): At least two.

    Raises:
        `ValueError`: If no arm logged the accuracies of a pair.
    """
    pairs = {
        f"accuracy of {one} minus {other}": (f"eval_accuracy_{one}", f"eval_accuracy_{other}")
        for one, other in combinations(modalities, 2)
    }

    def with_gaps(entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {gap: entry[a] - entry[b] for gap, (a, b) in pairs.items() if a in entry and b in entry}

    gaps = {arm: [[*map(with_gaps, run)] for run in runs] for arm, runs in histories.items()}
    for gap, (one, other) in pairs.items():
        if gap not in _logged_keys(gaps):
            raise ValueError(f"no arm logged '{one}' and '{other}': the log histories hold {_logged_keys(histories)}")
    curves = CurveFigure(gaps, styles, len(pairs))
    for axis, gap in zip(curves.axes, pairs, strict=True):
        curves.draw(axis, gap)
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=1)
        axis.set_ylabel(gap)
    return curves.finish("Difference in accuracy of the heads", legend, path)


class CurveFigure:
    """Panels of curves side by side, which share styles, legend and subtitle."""

    def __init__(self, histories: Histories, styles: Mapping[str, ArmStyle] | None, panels: int = 1):
        if styles is None:
            styles = arm_styles({arm: "colearned" if i else "baseline" for i, arm in enumerate(histories)})
        if strangers := [arm for arm in histories if arm not in styles]:
            how = "make the styles of all arms with arm_styles({arm: kind})"
            raise ValueError(f"arms without a style: {strangers}; {how}")
        self.histories, self.styles = histories, styles
        self.figure, self.axes = new_figure(panels)
        self.lines: dict[str, Any] = {}  # of the arms that were drawn, for the legend
        self.notes: list[str] = []  # what did not go well
        self.last = max(
            (e["step"] for runs in histories.values() for run in runs for e in run if "step" in e), default=1
        )

    def draw(self, axis: "Axes", key: str, widths: Mapping[str, float] | None = None) -> np.ndarray:
        """Draws the mean over seeds of every arm that logged the key, and returns all values drawn.

        The seeds are a band from the lowest to the highest, or with `widths` of the mean lines a thin line each.
        """
        logged = {arm: series(runs, key) for arm, runs in self.histories.items()}
        found = {arm: series for arm, series in logged.items() if len(series[0])}
        for arm, runs in self.histories.items():
            if arm not in found and all(any(key in entry for entry in run) for run in runs):
                self.notes.append(f"'{arm}' is missing: its seeds logged it at no common step")
        if not found:
            raise ValueError(f"no arm logged '{key}': the log histories hold {_logged_keys(self.histories)}")
        drawn = []
        for i, (arm, (x_S, values)) in enumerate(found.items()):
            finite_S = np.isfinite(values).all(axis=0)
            end = len(x_S) if finite_S.all() else int(finite_S.argmin())
            if end == 0:
                self.notes.append(f"'{arm}' was never finite")
                continue
            line = self.styles[arm].line
            if widths is not None:  # wider lines lie below narrower ones, so that arms with equal values are all seen
                line |= {"linewidth": widths[arm], "zorder": 2 + 0.01 * i}
            every = max(1, end // 4)  # few markers, at other places in each arm
            markers = {"markevery": (min(i * every // len(found), end - 1), every), "markersize": 4.5}
            x_S, values, all_steps = x_S[:end], values[:, :end], len(x_S)
            if widths is None:
                range_S, alpha = (values.min(axis=0), values.max(axis=0)), 0.16 if len(found) <= 4 else 0.09
                axis.fill_between(x_S, *range_S, color=line["color"], alpha=alpha, lw=0, zorder=1.5)
            elif len(values) > 1:
                axis.plot(x_S, values.T, **line | {"linewidth": 0.6, "alpha": 0.5})
            mean_S = values.mean(axis=0)
            self.lines[arm] = axis.plot(x_S, mean_S, **line, **self.styles[arm].points | markers)[0]
            if end < all_steps:
                cross: dict[str, Any] = {"marker": "x", "markersize": 9, "markeredgewidth": 2, "zorder": 4}
                axis.plot(x_S[-1], mean_S[-1], color=line["color"], **cross)
                self.notes.append("x: a seed's value is not finite from here on")
            drawn.append(values.ravel())
        if not drawn:
            raise ValueError(f"'{key}' was never finite in {list(found)}: the runs diverged")
        axis.set(xlabel="optimizer step", xlim=(-0.02 * self.last, 1.02 * self.last))
        plain_axes(axis)
        return np.concatenate(drawn)

    def draw_target_variances(self, axis: "Axes", variances: Mapping[str, float]) -> None:
        """Lines across the panel by the names of arms or other words; those of one value together, named at the right."""
        names: dict[float, list[str]] = {}
        for name, value in variances.items():
            if not np.isfinite(value):
                raise ValueError(f"the target variance '{name}' is {value}, and no line can be drawn there")
            names.setdefault(float(value), []).append(name)
        labels = []
        for value, of_value in names.items():
            axis.axhline(value, color="0.25", linestyle=(0, (1, 1)), linewidth=1.0, zorder=1.8)
            arms = [name for name in of_value if name in self.styles]
            words = [name for name in of_value if name not in self.styles]
            words += [f"target variance of {', '.join(arms)}"] if arms else []
            text = "\n".join([*textwrap.wrap(", ".join(words), 15), f"{value:.3g}"])
            labels.append((text, value, self.styles[arms[0]].colour if len(of_value) == len(arms) == 1 else "0.25"))
        label_right(self.figure, axis, labels, size=8)

    def finish(
        self, heading: str, legend: bool, path: str | PathLike | None, below: str = "mean and range over {}"
    ) -> "Figure":
        """Writes the title, the number of seeds, notes and the legend; and the file."""
        counts = {arm: len(self.histories[arm]) for arm in self.lines}
        if legend:
            names = {f"{arm} ({seeds([counts[arm]])})": line for arm, line in self.lines.items()}
            legend_right(self.figure, names, "arm")
        many = below.format(seeds([*counts.values()])) if max(counts.values()) > 1 else "1 seed"
        return finish(self.figure, heading, "; ".join([many, *dict.fromkeys(self.notes)]), path)


def _in_words(key: str) -> str:
    """As in `Modality gap image audio (evaluation)`."""
    words = key.removeprefix("eval_").replace("_", " ")
    return f"{words[:1].upper()}{words[1:]}{' (evaluation)' if key.startswith('eval_') else ''}"


def _logged_keys(histories: Histories) -> list[str]:
    """Keys of the entries, in the order of their first appearance."""
    return list(dict.fromkeys(key for runs in histories.values() for run in runs for entry in run for key in entry))


def series(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (S,) that every seed logged, and the values (seeds, S) there, the first of several at one."""
    by_step = [{entry["step"]: entry[key] for entry in reversed(run) if key in entry} for run in runs]
    steps = sorted(set.intersection(*(set(values) for values in by_step)))
    return np.array(steps), np.array([[values[step] for step in steps] for values in by_step], dtype=float)
