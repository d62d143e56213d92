"""Figures of losses, alphas and accuracies over training. Need `pip install hf-colearn[report]`.

Every function returns a matplotlib `Figure`, and writes it where `path` is given. With `legend=False` and one term it is a
single panel for a page, which makes one legend for all figures out of [`~hf_colearn.analysis.plots.style.arm_styles`].
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from hf_colearn.analysis.plots.curve_axes import CurveFigure, Histories, in_words, logged_keys
from hf_colearn.analysis.plots.style import ArmStyle


if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {  # title, label of the y axis
    "loss": ("Total loss", "weighted sum of the terms"),
    "loss_task": ("Task loss", "cross-entropy [nats]"),
    "loss_latent": ("Latent loss", "latent loss [squared latent units]"),
    "loss_contrastive": ("Contrastive loss", "InfoNCE [nats]"),
    "loss_distribution": ("Distribution loss", "Jensen-Shannon divergence [nats]"),
}
ALONG = {"step": "optimizer step", "epoch": "epoch"}


def plot_losses(
    histories: Histories,
    path: str | PathLike | None = None,
    terms: Sequence[str] = ("loss_task", "loss_latent"),
    *,
    styles: Mapping[str, ArmStyle] | None = None,
    target_variance: Mapping[str, float] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws each loss term over the optimizer steps: mean over seeds as a line, lowest to highest seed as a band.

    A term that spans more than a factor of 20 gets a logarithmic axis. An arm without a term, as the baseline without
    a latent loss, is missing from that panel. Steps that not every seed of an arm logged are left out. An arm of which a
    seed's loss is not finite ends there with a cross.

    Args:
        histories (`Mapping[str, list[list[dict]]]`): For each arm by name, one `trainer.state.log_history` a seed.
        path (`str` or `PathLike`, *optional*):
            Where to write the figure; the ending gives the format, as in `losses.png` or `losses.pdf`.
        terms (`Sequence[str]`, *optional*, defaults to `("loss_task", "loss_latent")`):
            Keys of the log entries, one panel each.
        styles (`Mapping[str, ArmStyle]`, *optional*):
            As of [`~hf_colearn.analysis.plots.style.arm_styles`]; by default the first arm is taken for the baseline.
        target_variance (`Mapping[str, float]`, *optional*):
            The variance of a sample's targets over the epochs, below which no student's latent loss can come, as lines
            across the panel of `loss_latent`: by arm, or by other words that stand beside the line.
        legend (`bool`, *optional*, defaults to `True`): Whether to name the arms at the right.

    Returns:
        `Figure`: A panel a term.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged a term, or none a finite value of it, or a target variance is given without
            `loss_latent`.
    """
    if target_variance and "loss_latent" not in terms:
        raise ValueError(f"a target variance is drawn in 'loss_latent', which is not among the terms {list(terms)}")
    curves = CurveFigure(histories, styles, len(terms))
    names = {term: LOSSES.get(term, (in_words(term), in_words(term))) for term in terms}
    for axis, (term, (heading, ylabel)) in zip(curves.axes, names.items(), strict=True):
        values = curves.draw(axis, term, "step")
        if values.min() > 0 and values.max() / values.min() > 20:
            axis.set_yscale("log")
        if target_variance and term == "loss_latent":
            curves.draw_target_variances(axis, target_variance)
        axis.set_title(heading if len(terms) > 1 else "", fontsize=10)
        axis.set(xlabel=ALONG["step"], ylabel=ylabel)
    return curves.finish("Training losses" if len(terms) > 1 else names[terms[0]][0], legend, path)


def plot_curves(
    histories: Histories,
    key: str,
    path: str | PathLike | None = None,
    *,
    along: str = "epoch",
    ylabel: str | None = None,
    styles: Mapping[str, ArmStyle] | None = None,
    legend: bool = True,
) -> "Figure":
    """Draws whatever is in the logs, such as `eval_accuracy_image` or `modality_gap_image_audio`, in one panel.

    Args:
        histories (`Mapping[str, list[list[dict]]]`), path, styles, legend: As of [`plot_losses`].
        key (`str`): Of the log entries.
        along (`str`, *optional*, defaults to `"epoch"`): The x axis, `"epoch"` or `"step"`.
        ylabel (`str`, *optional*): Of the y axis, with its unit; by default the key in words.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged the key or none a finite value of it, or `along` is neither of the two.
    """
    if along not in ALONG:
        raise ValueError(f"along must be one of {list(ALONG)}, got '{along}'")
    curves = CurveFigure(histories, styles)
    curves.draw(curves.axes[0], key, along)
    curves.axes[0].set(xlabel=ALONG[along], ylabel=in_words(key) if ylabel is None else ylabel)
    return curves.finish(in_words(key), legend, path)


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
        histories (`Mapping[str, list[list[dict]]]`): As of [`plot_losses`]; arms that log no alpha are left out.
        path (`str` or `PathLike`, *optional*), styles, legend: As of [`plot_losses`].
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
    drawn = [arm for arm, runs in histories.items() if set(terms) & set(logged_keys({arm: runs}))]
    widths = dict(zip(drawn, np.linspace(3.4, 1.2, len(drawn)), strict=True))
    curves = CurveFigure(histories, styles, len(terms))
    for axis, term in zip(curves.axes, terms, strict=True):
        curves.draw(axis, term, "epoch", widths)
        axis.set_title(term.removeprefix("alpha").removeprefix("_") if len(terms) > 1 else "", fontsize=10)
        axis.set(xlabel=ALONG["epoch"], ylabel="alpha (share of the loss)", ylim=(-0.03, 1.03))
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
    """Draws how far one modality's head is ahead of another's over the epochs: mean over seeds, and range; a panel a pair.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_losses`], with `eval_accuracy_{modality}` as
            [`~hf_colearn.evaluation.metrics.classification_metrics`] gives it. Arms without them are left out.
        modalities (`Sequence[str]`): At least two.
        path (`str` or `PathLike`, *optional*), styles, legend: As of [`plot_losses`].

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged the accuracies of a pair.
    """
    pairs = list(combinations(modalities, 2))
    curves = CurveFigure(histories, styles, len(pairs))
    for axis, (one, other) in zip(curves.axes, pairs, strict=True):
        ours, theirs = f"eval_accuracy_{one}", f"eval_accuracy_{other}"
        gaps = {
            arm: [
                [entry | {"gap": entry[ours] - entry[theirs]} for entry in run if ours in entry and theirs in entry]
                for run in runs
            ]
            for arm, runs in histories.items()
        }
        if not any(run for runs in gaps.values() for run in runs):
            raise ValueError(f"no arm logged '{ours}' and '{theirs}': the log histories hold {logged_keys(histories)}")
        curves.draw(axis, "gap", "epoch", histories=gaps)
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=1)
        axis.set(xlabel=ALONG["epoch"], ylabel=f"accuracy of {one} minus {other}")
    heading = f"How far one head is ahead of {'the other' if len(pairs) == 1 else 'another'}"
    return curves.finish(heading, legend, path)
