"""How losses, alphas and modalities went, and where the latents lie: pictures. Needs `pip install hf-colearn[report]`.

Shape legend: N samples, D dimensions of a latent (each cloud has its own).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Both palettes are safe for colour-blind readers. Okabe and Ito for lines (the yellow last: it is faint on white),
# Paul Tol's "muted" for classes. Line styles and markers repeat the distinction without colour.
LINE_COLOURS = ["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"]
LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3))]
CLASS_COLOURS = [
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#777777"),
]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
Y_LABELS = {
    "loss": "total loss",
    "loss_task": "task loss (cross-entropy) [nats]",
    "loss_latent": "latent loss [squared latent units]",
}


def plot_losses(
    histories: Mapping[str, list[list[dict[str, Any]]]],
    path: str | PathLike,
    terms: tuple[str, ...] = ("loss_task", "loss_latent"),
) -> None:
    """Draws each loss term over the optimizer steps: mean over seeds as a line, lowest to highest seed as a band.

    A term that spans more than a factor of 20 gets a logarithmic axis. An arm without a term, as the baseline without
    a latent loss, is missing from that panel. Steps that not every seed of an arm logged are left out.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            For each arm by name, one `trainer.state.log_history` a seed.
        path (`str` or `PathLike`):
            Where to write the picture; the ending gives the format, as in `losses.png` or `losses.pdf`.
        terms (`tuple[str, ...]`, *optional*, defaults to `("loss_task", "loss_latent")`):
            Keys of the log entries, one panel each.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged a term.
    """
    names = _with_seeds(histories)
    figure = _figure(4.4 * len(terms), 3.8, legend=["arm", *names.values()])
    axes = figure.subplots(1, len(terms), squeeze=False)[0]
    lines: dict[str, Any] = {}
    for axis, term in zip(axes, terms, strict=True):
        drawn = []
        for i, (arm, runs) in enumerate(histories.items()):
            steps, values = _series(runs, term)
            if len(steps) == 0:
                continue
            lines[names[arm]] = _mean_and_range(axis, steps, values, _style(i))
            drawn.append(values.ravel())
        if not drawn:
            raise ValueError(f"no arm logged '{term}': the log histories hold {_logged(histories)}")
        values = np.concatenate(drawn)
        if values.min() > 0 and values.max() / values.min() > 20:
            axis.set_yscale("log")
        axis.set(title=term, xlabel="optimizer step", ylabel=Y_LABELS.get(term, term))
        _bare(axis)
    figure.suptitle("Training losses: mean and range over seeds")
    figure.legend(lines.values(), lines.keys(), loc="outside right center", title="arm", frameon=False, handlelength=3)
    figure.savefig(path, dpi=150)


def plot_alphas(histories: Mapping[str, list[list[dict[str, Any]]]], path: str | PathLike) -> None:
    """Draws alpha over the epochs, the arms' mean over seeds as a line and every seed as a thin one; a panel a term.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_losses`]; arms that log no alpha are left out.
        path (`str` or `PathLike`):
            Where to write the picture.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged an alpha.
    """
    terms = [key for key in _logged(histories) if key == "alpha" or key.startswith("alpha_")]
    if not terms:
        raise ValueError(f"no arm logged an alpha: the log histories hold {_logged(histories)}")
    names = _with_seeds({arm: runs for arm, runs in histories.items() if set(terms) & set(_logged({arm: runs}))})
    figure = _figure(4.8 * len(terms), 3.8, legend=["arm", *names.values()])
    lines: dict[str, Any] = {}
    for axis, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        for i, (arm, runs) in enumerate(histories.items()):
            epochs, values = _series(runs, term, "epoch")
            if len(epochs):
                style = _style(i)
                for of_seed in values if len(runs) > 1 else ():
                    axis.plot(epochs, of_seed, linewidth=0.6, alpha=0.5, **style)
                width = max(1.2, 3.2 - 0.4 * i)  # thinner above wider: arms with the same alpha are all seen
                lines[names[arm]] = axis.plot(epochs, values.mean(axis=0), linewidth=width, **style)[0]
        name = term.removeprefix("alpha").removeprefix("_")
        axis.set(title=name, xlabel="epoch", ylabel="alpha (share of the loss)", ylim=(-0.03, 1.03))
        _bare(axis)
    figure.suptitle("Alpha: mean over seeds, and every seed")
    figure.legend(lines.values(), lines.keys(), loc="outside right center", title="arm", frameon=False, handlelength=3)
    figure.savefig(path, dpi=150)


def plot_modalities(
    histories: Mapping[str, list[list[dict[str, Any]]]], path: str | PathLike, columns: int = 3
) -> None:
    """Draws the evaluation's accuracy over the epochs, fused and of every modality's own head; a panel an arm.

    Lines are means over seeds, and bands go from the lowest to the highest.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_losses`], with `eval_accuracy` and `eval_accuracy_{modality}` as
            [`~hf_colearn.metrics.classification_metrics`] gives them. Arms without a modality's are left out.
        path (`str` or `PathLike`):
            Where to write the picture.
        columns (`int`, *optional*, defaults to 3):
            Panels side by side, at most.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged a modality's accuracy.
    """
    prefix = "eval_accuracy_"
    found = [key for key in _logged(histories) if key.startswith(prefix)]
    modalities = [key.removeprefix(prefix) for key in found if not key.startswith(f"{prefix}given_")]
    arms = {
        arm: runs
        for arm, runs in histories.items()
        if any(f"{prefix}{modality}" in _logged({arm: runs}) for modality in modalities)
    }
    if not arms:
        raise ValueError(
            f"no arm logged '{prefix}' with a modality's name: the log histories hold {_logged(histories)}"
        )
    curves = {"fused": "eval_accuracy", **{f"{name} head": f"{prefix}{name}" for name in modalities}}
    rows = -(-len(arms) // columns)
    columns = -(-len(arms) // rows)
    figure = _figure(3.4 * columns, 0.5 + 2.7 * rows, legend=["prediction", *curves])
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    lines: dict[str, Any] = {}
    for axis, (arm, name) in zip(axes.flat, _with_seeds(arms).items(), strict=False):
        for i, (curve, key) in enumerate(curves.items()):
            epochs, values = _series(arms[arm], key, "epoch")
            if len(epochs):
                lines[curve] = _mean_and_range(axis, epochs, values, _style(i))
        axis.set_title(name, fontsize=11)
        axis.tick_params(labelbottom=True)  # also above a place that stays empty
        _bare(axis)
    for axis in list(axes.flat)[len(arms) :]:
        axis.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("accuracy [share of the evaluation set]", fontsize=10)
    figure.suptitle("Accuracy, fused and of each modality's own head: mean and range over seeds")
    style = {"title": "prediction", "frameon": False, "handlelength": 3}
    figure.legend(lines.values(), lines.keys(), loc="outside right center", **style)
    figure.savefig(path, dpi=150)


def plot_head_gaps(
    histories: Mapping[str, list[list[dict[str, Any]]]], modalities: Sequence[str], path: str | PathLike
) -> None:
    """Draws how far one modality's head is ahead of another's over the epochs: mean over seeds, and range; a panel a pair.

    Args:
        histories (`Mapping[str, list[list[dict]]]`):
            As of [`plot_modalities`].
        modalities (`Sequence[str]`):
            At least two.
        path (`str` or `PathLike`):
            Where to write the picture.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If no arm logged the accuracies of a pair.
    """
    pairs = list(combinations(modalities, 2))
    names = _with_seeds(histories)
    figure = _figure(4.8 * len(pairs), 3.8, legend=["arm", *names.values()])
    lines: dict[str, Any] = {}
    for axis, (one, other) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        for i, (arm, runs) in enumerate(histories.items()):
            both = [
                [
                    {"epoch": entry["epoch"], "gap": entry[f"eval_accuracy_{one}"] - entry[f"eval_accuracy_{other}"]}
                    for entry in run
                    if f"eval_accuracy_{one}" in entry and f"eval_accuracy_{other}" in entry
                ]
                for run in runs
            ]
            epochs, gaps = _series(both, "gap", "epoch")
            if len(epochs):
                lines[names[arm]] = _mean_and_range(axis, epochs, gaps, _style(i))
        if not axis.lines:
            raise ValueError(
                f"no arm logged 'eval_accuracy_{one}' and 'eval_accuracy_{other}': the log histories hold "
                f"{_logged(histories)}"
            )
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.set(xlabel="epoch", ylabel=f"accuracy of {one} minus {other}")
        _bare(axis)
    figure.suptitle("How far one head is ahead: mean and range over seeds")
    figure.legend(lines.values(), lines.keys(), loc="outside right center", title="arm", frameon=False, handlelength=3)
    figure.savefig(path, dpi=150)


def plot_projection(
    clouds: Mapping[str, np.ndarray],
    labels: np.ndarray,
    path: str | PathLike,
    perplexity: float = 30,
    seed: int = 0,
    max_points: int = 500,
) -> None:
    """Draws clouds of latents side by side, each projected to two dimensions by its own t-SNE, coloured by class.

    t-SNE keeps neighbourhoods: whether classes separate can be read off, distances and sizes of clusters cannot, and
    the axes of two panels have nothing to do with each other.

    Args:
        clouds (`Mapping[str, np.ndarray]` of shape `(N, D)` each):
            Latents by name, such as those of the students and of the teacher, for the same N samples. A cloud whose
            rows are all equal has collapsed: its panel says so instead.
        labels (`np.ndarray` of shape `(N,)`):
            Class of each sample.
        path (`str` or `PathLike`):
            Where to write the picture; the ending gives the format.
        perplexity (`float`, *optional*, defaults to 30):
            About how many neighbours each point has; below the number of points drawn.
        seed (`int`, *optional*, defaults to 0):
            For t-SNE, and for the choice of points.
        max_points (`int`, *optional*, defaults to 500):
            Of more samples, this many are drawn, the same ones in every panel. 500 take some seconds a cloud.

    Raises:
        `ImportError`: If matplotlib or scikit-learn is missing.
        `ValueError`: If a cloud is not `(N, D)` or not finite, or there are too few points for the perplexity.
    """
    labels = np.asarray(labels)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(labels))[:max_points])
    if not 0 < perplexity < len(drawn):
        raise ValueError(f"perplexity must be above 0 and below the {len(drawn)} points to draw, got {perplexity}")
    classes = np.unique(labels)
    columns = 1 + (len(classes) - 1) // 14
    figure = _figure(3.6 * len(clouds), 4.4, legend=["class", *map(str, classes)], legend_columns=columns)
    axes = figure.subplots(1, len(clouds), squeeze=False)[0]
    for axis, (name, cloud) in zip(axes, clouds.items(), strict=True):
        cloud = np.asarray(cloud)
        _check_cloud(name, cloud, len(labels))
        points = len(drawn) if len(drawn) == len(labels) else f"{len(drawn)} of {len(labels)}"
        axis.set_title(f"{name}\n{points} samples, D = {cloud.shape[1]}", fontsize=11)
        axis.set(xticks=[], yticks=[])
        if (cloud == cloud[0]).all():
            axis.text(0, 0, "collapsed:\nall latents are equal", ha="center", va="center")
            axis.set(xlim=(-1, 1), ylim=(-1, 1))
        else:
            _scatter(axis, _tsne(cloud[drawn], perplexity, seed), labels[drawn], classes)
    handles, names = max((axis.get_legend_handles_labels() for axis in axes), key=lambda legend: len(legend[0]))
    style = {"title": "class", "frameon": False, "markerscale": 1.4, "ncols": columns}
    figure.legend(handles, names, loc="outside right center", **style)
    figure.suptitle(f"Latents by class (t-SNE, perplexity {perplexity:g}, seed {seed})")
    figure.savefig(path, dpi=150)


def _figure(width: float, height: float, legend: list[str], legend_columns: int = 1) -> "Figure":
    """A figure of `width` x `height` inches and a legend's width beside it.

    Without pyplot: it draws with Agg and leaves the user's backend and open figures alone.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plots need matplotlib: pip install hf-colearn[report]") from error
    legend_width = legend_columns * (0.7 + 0.085 * max(len(text) for text in legend))
    return Figure(figsize=(width + legend_width, height), layout="constrained")


def _with_seeds(histories: Mapping[str, list[Any]]) -> dict[str, str]:
    return {arm: f"{arm} ({len(runs)} seed{'s' if len(runs) > 1 else ''})" for arm, runs in histories.items()}


def _logged(histories: Mapping[str, list[list[dict[str, Any]]]]) -> list[str]:
    """Keys of the entries, in the order of their first appearance."""
    return list(dict.fromkeys(key for runs in histories.values() for run in runs for entry in run for key in entry))


def _style(i: int) -> dict[str, Any]:
    return {"color": LINE_COLOURS[i % len(LINE_COLOURS)], "linestyle": LINE_STYLES[i % len(LINE_STYLES)]}


def _mean_and_range(axis: "Axes", x: np.ndarray, values: np.ndarray, style: dict[str, Any]) -> Any:
    """A line and a band of `values` (seeds, S); returns the line."""
    axis.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.18, lw=0)
    return axis.plot(x, values.mean(axis=0), linewidth=1.6, **style)[0]


def _bare(axis: "Axes") -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _series(runs: list[list[dict[str, Any]]], term: str, along: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """Steps or epochs (S,) that every seed logged, and the values (seeds, S) there, the first of several at one."""
    by_step = [{entry[along]: entry[term] for entry in reversed(run) if term in entry} for run in runs]
    steps = sorted(set.intersection(*(set(values) for values in by_step)))
    return np.array(steps), np.array([[values[step] for step in steps] for values in by_step])


def _tsne(cloud_ND: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("t-SNE needs scikit-learn: pip install hf-colearn[report]") from error
    # For some hundred points threads gain nothing, and on a busy machine they wait for each other for a minute.
    with threadpool_limits(limits=1):
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(cloud_ND)


def _scatter(axis: "Axes", points_N2: np.ndarray, labels_N: np.ndarray, classes: np.ndarray) -> None:
    for i, label in enumerate(classes):
        x, y = points_N2[labels_N == label].T
        colour, marker = CLASS_COLOURS[i % len(CLASS_COLOURS)], MARKERS[i % len(MARKERS)]
        axis.scatter(x, y, s=16, alpha=0.8, linewidths=0, label=str(label), color=colour, marker=marker)


def _check_cloud(name: str, cloud: np.ndarray, n: int) -> None:
    if cloud.ndim != 2 or len(cloud) != n:
        raise ValueError(f"cloud '{name}' must hold one latent for each of the {n} labels, got shape {cloud.shape}")
    bad = int((~np.isfinite(cloud).all(axis=1)).sum())
    if bad:
        raise ValueError(f"{bad} of {n} latents of cloud '{name}' are not finite: the run diverged, leave it out")
