"""How losses, alphas and modalities went while training: pictures. Needs `pip install hf-colearn[report]`.

Every function here returns a matplotlib `Figure`, and writes it where `path` is given. With `legend=False` and one term
it is a single panel for a page, which makes one legend for all pictures out of [`arm_styles`].

Shape legend: S logged steps (or epochs) that all seeds of an arm have in common.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.curve_axes import (
    Histories,
    draw,
    finish,
    floors,
    logged_keys,
    panels,
    series,
    styles_of,
    words,
)
from hf_colearn.analysis.plots.projection import plot_projection
from hf_colearn.analysis.plots.style import PANEL, ArmStyle, arm_styles, new_figure, seeds, spread


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ArmStyle", "arm_styles", "plot_alphas", "plot_curves", "plot_head_gaps", "plot_losses", "plot_modalities",
    "plot_projection",
]  # fmt: skip
LOSSES = {  # title, label of the y axis
    "loss": ("Total loss", "weighted sum of the terms"),
    "loss_task": ("Task loss", "cross-entropy [nats]"),
    "loss_latent": ("Latent loss", "latent loss [squared latent units]"),
    "loss_contrastive": ("Contrastive loss", "InfoNCE [nats]"),
    "loss_distribution": ("Distribution loss", "Jensen-Shannon divergence [nats]"),
}
ALONG = {"step": "optimizer step", "epoch": "epoch"}
ACCURACY = "eval_accuracy_"  # and the name of a modality: its own head's


def plot_losses(
    histories: Histories,
    path: str | PathLike | None = None,
    terms: Sequence[str] = ("loss_task", "loss_latent"),
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    floor: Mapping[str, float] | None = None,
    ylabels: Mapping[str, str] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws each loss term over the optimizer steps: mean over seeds as a line, lowest to highest seed as a band.

    A term that spans more than a factor of 20 gets a logarithmic axis. An arm without a term, as the baseline without
    a latent loss, is missing from that panel. Steps that not every seed of an arm logged are left out. An arm of which a
    seed's loss is not finite ends there with a cross.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            For each arm by name, one `trainer.state.log_history` a seed.
        path (`str` or `PathLike`, *optional*):
            Where to write the picture; the ending gives the format, as in `losses.png` or `losses.pdf`.
        terms (`Sequence[str]`, *optional*, defaults to `("loss_task", "loss_latent")`):
            Keys of the log entries, one panel each.
        styles (`Mapping[str, ArmStyle]`, *optional*):
            As of [`arm_styles`]; by default the first arm is taken for the baseline.
        floor (`Mapping[str, float]`, *optional*):
            Lines across the panel of `loss_latent` at what no student can get below, as the variance of the targets is
            where prompts are random: by arm, or one by the words that stand beside it.
        ylabels (`Mapping[str, str]`, *optional*):
            Labels of y axes by term, where the default is not true, as that of a latent loss other than `mse`.
        legend (`bool`, *optional*, defaults to `True`):
            Whether to name the arms at the right.

    Returns:
        `Figure`: A panel a term.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged a term, or none a finite value of it, or a floor is given without `loss_latent`.
    """
    if floor and "loss_latent" not in terms:
        raise ValueError(f"a floor is drawn below 'loss_latent', which is not among the terms {list(terms)}")
    looks = styles_of(histories, styles)
    figure, axes = panels(len(terms))
    lines: dict[str, Any] = {}
    notes: list[str] = []
    for axis, term in zip(axes, terms, strict=True):
        heading, ylabel = LOSSES.get(term, (words(term), words(term)))
        values = draw(axis, histories, term, "step", looks, lines, notes)
        if values.min() > 0 and values.max() / values.min() > 20:
            axis.set_yscale("log")
        if floor and term == "loss_latent":
            floors(axis, floor, looks)
        axis.set_title(heading if len(terms) > 1 else "", fontsize=10)
        axis.set(xlabel=ALONG["step"], ylabel=(ylabels or {}).get(term, ylabel))
    heading = LOSSES.get(terms[0], (words(terms[0]),))[0] if len(terms) == 1 else "Training losses"
    return finish(figure, heading, histories, lines, notes, legend, path)


def plot_curves(
    histories: Histories,
    key: str,
    path: str | PathLike | None = None,
    *,
    along: str = "epoch",
    heading: str | None = None,
    ylabel: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws whatever is in the logs, such as `label_alignment_image` or `modality_gap_image_audio`, in one panel.

    Args:
        histories (`Mapping[str, list[list[dict]]]`), path, styles, legend:
            As of [`plot_losses`].
        key (`str`):
            Of the log entries.
        along (`str`, *optional*, defaults to `"epoch"`):
            The x axis, `"epoch"` or `"step"`.
        heading, ylabel (`str`, *optional*):
            What the picture shows, and the label of the y axis with its unit; by default the key in words.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged the key or none a finite value of it, or `along` is neither of the two.
    """
    if along not in ALONG:
        raise ValueError(f"along must be one of {list(ALONG)}, got '{along}'")
    figure, (axis,) = panels(1)
    lines: dict[str, Any] = {}
    notes: list[str] = []
    draw(axis, histories, key, along, styles_of(histories, styles), lines, notes)
    axis.set(xlabel=ALONG[along], ylabel=words(key) if ylabel is None else ylabel)
    return finish(figure, heading or words(key), histories, lines, notes, legend, path)


def plot_alphas(
    histories: Histories,
    path: str | PathLike | None = None,
    terms: Sequence[str] | None = None,
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws alpha over the epochs, the arms' mean over seeds as a line and every seed as a thin one; a panel a term.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_losses`]; arms that log no alpha are left out.
        path (`str` or `PathLike`, *optional*), styles, legend:
            As of [`plot_losses`].
        terms (`Sequence[str]`, *optional*):
            Keys of the log entries, as `"alpha"` or `"alpha_contrastive"`; all by default.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged an alpha.
    """
    logged = [key for key in logged_keys(histories) if key == "alpha" or key.startswith("alpha_")]
    terms = logged if terms is None else terms
    if not logged:
        raise ValueError(f"no arm logged an alpha: the log histories hold {logged_keys(histories)}")
    looks = styles_of(histories, styles)
    drawn = {arm: runs for arm, runs in histories.items() if set(terms) & set(logged_keys({arm: runs}))}
    figure, axes = panels(len(terms))
    lines: dict[str, Any] = {}
    notes: list[str] = []
    for axis, term in zip(axes, terms, strict=True):
        # Wider below narrower: arms with the same alpha are all seen.
        widths = dict(zip(drawn, np.linspace(3.4, 1.2, len(drawn)), strict=True))
        draw(axis, drawn, term, "epoch", looks, lines, notes, widths)
        name = term.removeprefix("alpha").removeprefix("_")
        axis.set_title(name if len(terms) > 1 else "", fontsize=10)
        axis.set(xlabel="epoch", ylabel="alpha (share of the loss)", ylim=(-0.03, 1.03))
    heading = "Alpha" if len(terms) > 1 or terms[0] == "alpha" else f"Alpha of the {terms[0][6:]} loss"
    return finish(figure, heading, drawn, lines, notes, legend, path, "mean over {}, and every seed")


def plot_modalities(
    histories: Histories,
    path: str | PathLike | None = None,
    columns: int = 3,
    *,
    arms: Sequence[str] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws the evaluation's accuracy over the epochs, fused and of every modality's own head; a panel an arm.

    Lines are means over seeds, and bands go from the lowest to the highest. Without a legend the lines are named at
    their ends.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_losses`], with `eval_accuracy` and `eval_accuracy_{modality}` as
            [`~hf_colearn.evaluation.metrics.classification_metrics`] gives them. Arms without a modality's are left out.
        path (`str` or `PathLike`, *optional*), legend:
            As of [`plot_losses`].
        columns (`int`, *optional*, defaults to 3):
            Panels side by side, at most.
        arms (`Sequence[str]`, *optional*):
            Those to draw; all by default. The axes always have the limits that all arms of `histories` need, so that
            pictures of one arm each can be compared.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged a modality's accuracy, or one of `arms` did not.
    """
    found = [key.removeprefix(ACCURACY) for key in logged_keys(histories) if key.startswith(ACCURACY)]
    curves = {"fused": "eval_accuracy"}
    curves |= {f"{name} head": f"{ACCURACY}{name}" for name in found if not name.startswith("given_")}
    having = [arm for arm, runs in histories.items() if set(list(curves.values())[1:]) & set(logged_keys({arm: runs}))]
    if not having:
        raise ValueError(
            f"no arm logged '{ACCURACY}' with a modality's name: the log histories hold {logged_keys(histories)}"
        )
    chosen = having if arms is None else list(arms)
    if strangers := [arm for arm in chosen if arm not in having]:
        raise ValueError(f"no modality's accuracy was logged by {strangers}: choose from {having}")
    rows = -(-len(chosen) // columns)
    columns = -(-len(chosen) // rows)
    one = len(chosen) == 1
    figure = new_figure(*PANEL) if one else new_figure(3.3 * columns, 0.7 + 2.5 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    looks = {name: ArmStyle(**look) for name, look in zip(curves, _of_curves(len(curves)), strict=True)}
    reach = [series(histories[arm], key, "epoch") for arm in having for key in curves.values()]
    epochs, values = (np.concatenate([pair[i].ravel() for pair in reach]) for i in (0, 1))
    for limit, of_all in ((axes[0, 0].set_xlim, epochs), (axes[0, 0].set_ylim, values[np.isfinite(values)])):
        margin = 0.04 * np.ptp(of_all) or 0.02
        limit(of_all.min() - margin, of_all.max() + margin)
    lines: dict[str, Any] = {}
    notes: list[str] = []
    for axis, arm in zip(axes.flat, chosen, strict=False):
        logged = {name: _renamed(histories[arm], key) for name, key in curves.items()}
        of_panel: dict[str, Any] = {}
        draw(axis, logged, "value", "epoch", looks, of_panel, notes)
        lines |= of_panel
        if not legend:
            _name_ends(axis, of_panel)
        count = len(histories[arm])
        axis.set_title("" if one else f"{arm} ({seeds([count])})", fontsize=10)
        axis.tick_params(labelbottom=True)  # also above a place that stays empty
    for axis in list(axes.flat)[len(chosen) :]:
        axis.set_visible(False)
    labels = {"xlabel": "epoch", "ylabel": "accuracy (evaluation set)"}
    if one:
        axes[0, 0].set(**labels)
    else:
        figure.supxlabel(labels["xlabel"], fontsize=9)
        figure.supylabel(labels["ylabel"], fontsize=9)
    heading = f"Accuracy of each head: {chosen[0]}" if one else "Accuracy, fused and of each modality's own head"
    return finish(
        figure, heading, {arm: histories[arm] for arm in chosen}, lines, notes, legend, path, what="prediction"
    )


def plot_head_gaps(
    histories: Histories,
    modalities: Sequence[str],
    path: str | PathLike | None = None,
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws how far one modality's head is ahead of another's over the epochs: mean over seeds, and range; a panel a pair.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_modalities`].
        modalities (`Sequence[str]`):
            At least two.
        path (`str` or `PathLike`, *optional*), styles, legend:
            As of [`plot_losses`].

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged the accuracies of a pair.
    """
    pairs = list(combinations(modalities, 2))
    looks = styles_of(histories, styles)
    figure, axes = panels(len(pairs))
    lines: dict[str, Any] = {}
    notes: list[str] = []
    for axis, (one, other) in zip(axes, pairs, strict=True):
        keys = (f"{ACCURACY}{one}", f"{ACCURACY}{other}")
        gaps = {
            arm: [
                [
                    {"epoch": entry["epoch"], "gap": entry[keys[0]] - entry[keys[1]]}
                    for entry in run
                    if keys[0] in entry and keys[1] in entry
                ]
                for run in runs
            ]
            for arm, runs in histories.items()
        }
        if not any(run for runs in gaps.values() for run in runs):
            raise ValueError(
                f"no arm logged '{keys[0]}' and '{keys[1]}': the log histories hold {logged_keys(histories)}"
            )
        draw(axis, gaps, "gap", "epoch", looks, lines, notes)
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=1)
        axis.set(xlabel="epoch", ylabel=f"accuracy of {one} minus {other}")
    heading = "How far one head is ahead of the other" if len(pairs) == 1 else "How far one head is ahead of another"
    return finish(figure, heading, {arm: histories[arm] for arm in lines}, lines, notes, legend, path)


def _of_curves(n: int) -> list[dict[str, Any]]:
    """Looks of one arm's curves: the first, the fused one, as the baselines'."""
    styles = arm_styles({str(i): "colearned" if i else "baseline" for i in range(n)})
    dashes: list[tuple[float, ...]] = [(), (6, 1.5), (1.5, 1.2), (6, 1.5, 1, 1.5)]
    return [vars(style) | {"dashes": dashes[i % 4]} for i, style in enumerate(styles.values())]


def _name_ends(axis: "Axes", lines: Mapping[str, Any]) -> None:
    """Names every line at its end, in its colour."""
    ends = [line.get_xydata()[-1] for line in lines.values()]
    low, high = axis.get_ylim()
    heights = spread([y for _, y in ends], 0.07 * (high - low))
    for (name, line), end, height in zip(lines.items(), ends, heights, strict=True):
        look: dict[str, Any] = {
            "textcoords": ("axes fraction", "data"),
            "va": "center",
            "fontsize": 8.5,
            "annotation_clip": False,
        }
        axis.annotate(name, end, (1.02, height), color=line.get_color(), **look)


def _renamed(runs: list[list[dict[str, Any]]], key: str) -> list[list[dict[str, Any]]]:
    return [[{"epoch": entry["epoch"], "value": entry[key]} for entry in run if key in entry] for run in runs]
