"""Maps of latents in two dimensions: PCA, t-SNE and UMAP. Need `pip install hf-colearn[report]`.

A map shows what its method keeps, and hides the rest: read the numbers beside it first (Wattenberg et al., "How to Use t-SNE
Effectively", Distill 2016). Sources: van der Maaten & Hinton, "Visualizing Data using t-SNE" (JMLR 2008); McInnes
et al., "UMAP" (2018).

Shape legend: N samples, D dimensions of a latent, n <= N of the samples that are drawn.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hf_colearn.analysis.plots.style import (
    BLACK,
    CLASS_COLOURS,
    GREY,
    MARKERS,
    ArmStyle,
    finish,
    legend_right,
    new_figure,
    plain_axes,
    shortened,
    spread,
)
from hf_colearn.analysis.plots.text import drawable
from hf_colearn.analysis.run import kept_rows
from hf_colearn.utils.extras import extra


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Method = Literal["pca", "tsne", "umap"]
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
MAX_CLASSES = len(CLASS_COLOURS)  # that have a colour of their own
OTHERS = ArmStyle("#C4C4C4", "o", layer=1)  # of all other classes
NO_LABEL = "no label"
_TSNE_STEPS = 750  # as of openTSNE; 1000 lower the divergence by 0.1 to 3 %, and take a third longer
UNLABELLED = ArmStyle("#DEDEDE", "o", layer=0.8)  # of samples without a label, -100


def project(
    cloud_ND: np.ndarray, method: Method = "tsne", *, perplexity: float = 30.0, neighbours: int = 15, seed: int = 0
) -> np.ndarray:
    """Projects latents to two dimensions `(N, 2)`; on one thread and from a fixed seed, so always to the same points.

    Args:
        cloud_ND (`np.ndarray` of shape `(N, D)`): At least 4 different latents of at least 2 dimensions, such as some
            hundred; for a joint map of several clouds, their rows together.
        method (`str`, *optional*, defaults to `"tsne"`): `"pca"` (distances are those of the two widest directions, in
            latent units), `"tsne"` or `"umap"` (neighbourhoods, no distances).
        perplexity (`float`, *optional*, defaults to 30): t-SNE's: about how many neighbours a point has; at most N / 3.
        neighbours (`int`, *optional*, defaults to 15): UMAP's: how many neighbours a point has, from 2 to N - 1.
        seed (`int`, *optional*, defaults to 0): Of t-SNE and UMAP.

    Raises:
        `ImportError`: If scikit-learn, or for `"umap"` umap-learn, is missing.
        `ValueError`: If the latents cannot be projected, or an option does not fit them.
    """
    cloud_ND = np.asarray(cloud_ND)
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {list(get_args(Method))}, got '{method}'")
    if cloud_ND.ndim != 2 or cloud_ND.shape[1] < 2:
        raise ValueError(f"a projection to two dimensions needs latents of shape (N, D >= 2), got {cloud_ND.shape}")
    _check_finite(cloud_ND)
    if len(cloud_ND) < 4:
        raise ValueError(f"{len(cloud_ND)} samples are too few to project: there is nothing to see below 4")
    _check_varied(cloud_ND)
    if method == "tsne" and not 0 < perplexity <= len(cloud_ND) / 3:
        raise ValueError(
            f"perplexity must be above 0 and at most a third of the {len(cloud_ND)} points to draw, got {perplexity:g}"
        )
    if method == "umap" and not 2 <= neighbours < len(cloud_ND):
        raise ValueError(f"neighbours must be from 2 to {len(cloud_ND) - 1}, all other points, got {neighbours}")
    cloud_ND = cloud_ND.astype(np.float32)
    if method == "pca":
        with extra("report", "PCA needs scikit-learn"):
            from sklearn.decomposition import PCA
        return PCA(2, svd_solver="full").fit_transform(cloud_ND)
    if method == "tsne":
        with extra("report", "t-SNE needs scikit-learn"):
            from sklearn.manifold import TSNE
            from threadpoolctl import threadpool_limits
        # For some hundred points threads gain nothing, and on a busy machine they wait for each other for a minute.
        with threadpool_limits(limits=1):
            return TSNE(perplexity=perplexity, random_state=seed, max_iter=_TSNE_STEPS).fit_transform(cloud_ND)
    with extra("umap", "UMAP needs umap-learn"):
        from umap import UMAP
    return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(cloud_ND)


def perplexities(n: int, wanted: Sequence[float] = (5, 30, 50)) -> tuple[float, ...]:
    """Those of the `wanted` perplexities that `n` points allow (at most a third of them), or else that third."""
    return tuple(p for p in wanted if p <= n / 3) or (n / 3,)


def class_styles(
    labels_N: np.ndarray, class_names: Sequence[str] | None = None
) -> tuple[dict[str, ArmStyle], np.ndarray]:
    """One style a class, by its name in the legend; and the name of each sample's class `(N,)`, or `"no label"` for -100.

    Of more than 10 classes, the 9 with most samples have colours, and the others share a name and are small and grey. A class
    without a name of its own is called by its label; two of one name raise a `ValueError`.
    """
    has_label_N = labels_N != -100
    classes, counts = np.unique(labels_N[has_label_N], return_counts=True)
    coloured = classes
    if len(classes) > MAX_CLASSES:
        coloured = np.sort(classes[np.argsort(-counts, kind="stable")[: MAX_CLASSES - 1]])
    names = {label: str(label) if class_names is None else str(class_names[int(label)]) for label in coloured}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two classes have the same name among {[*names.values()]}: give each its own")
    given = zip(names.values(), CLASS_COLOURS, cycle(MARKERS), strict=False)
    styles = {name: ArmStyle(colour, marker) for name, colour, marker in given}
    others = f"{len(classes) - len(names)} other classes"
    if len(classes) > len(names):
        styles[others] = OTHERS
    if not has_label_N.all():
        styles[NO_LABEL] = UNLABELLED
    return styles, np.where(has_label_N, [names.get(label, others) for label in labels_N], NO_LABEL)


def plot_map(
    clouds: Mapping[str, np.ndarray],
    labels: np.ndarray,
    method: Method = "tsne",
    path: str | PathLike | None = None,
    *,
    perplexity: float = 30.0,
    neighbours: int = 15,
    seed: int = 0,
    max_points: int = 500,
    class_names: Sequence[str] | None = None,
) -> "Figure":
    """Draws one map: of one cloud by class, or of several clouds of the same width together, a marker a cloud.

    Args:
        clouds (`Mapping[str, np.ndarray]` of shape `(N, D)` each):
            One, or several of the same width for the same N samples, such as targets, baseline and co-learned: projected
            together, so that in PCA distances between the clouds mean something.
        labels (`np.ndarray` of shape `(N,)`): Class of each sample, or -100.
        method, perplexity, neighbours, seed: As of [`project`]; `seed` chooses the points, too.
        path (`str` or `PathLike`, *optional*): Where to write the figure; the ending gives the format.
        max_points (`int`, *optional*, defaults to 500): Of more samples, this many are drawn, the same ones in every map.
        class_names (`Sequence[str]`, *optional*): By class, for the legend; by default the label itself.

    Raises:
        `ImportError`: If matplotlib, scikit-learn, or for `"umap"` umap-learn, is missing.
        `ValueError`: If a cloud cannot be projected, with its name, or an option does not fit.
    """
    labels = np.asarray(labels)
    _check(clouds, len(labels))
    rows = kept_rows(len(labels), max_points, seed)
    styles, names_N = class_styles(labels, class_names)
    for name, cloud in clouds.items() if len(clouds) > 1 else ():
        _check_varied(cloud[rows], f" of '{name}'")
    together = np.concatenate([cloud[rows] for cloud in clouds.values()])
    points = project(together, method, perplexity=perplexity, neighbours=neighbours, seed=seed)
    points_of = dict(zip(clouds, np.split(points, len(clouds)), strict=True))
    figure, (axis,) = new_figure()
    handles: dict[str, Any] = {}
    for cloud_marker, points_n2 in zip(MARKERS, points_of.values(), strict=False):
        for name, style in styles.items():
            x_n, y_n = points_n2[names_N[rows] == name].T
            marker, scale = (style.marker, 1.0) if len(clouds) == 1 else (cloud_marker, 0.6)
            dots: dict[str, Any] = {"color": style.colour, "marker": marker, "zorder": style.layer, "linewidths": 0}
            if len(x_n):
                handles[name] = axis.scatter(
                    x_n, y_n, scale * (7 if style in (OTHERS, UNLABELLED) else 16), alpha=0.75, **dots
                )
    if len(clouds) > 1:
        _name_clouds(axis, points_of)
    if method == "pca":
        shares = points.var(axis=0) / together.var(axis=0).sum()
        axis.set(xlabel=f"component 1 ({shares[0]:.0%} of the variance)", ylabel=f"component 2 ({shares[1]:.0%})")
        axis.set_aspect("equal", adjustable="datalim")
        plain_axes(axis)
    else:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
    legend_right(figure, handles, "class", longest=20)
    option = {"pca": "", "tsne": f", perplexity {perplexity:g}", "umap": f", {neighbours} neighbours"}[method]
    heading = f"{' and '.join(filter(None, [', '.join([*clouds][:-1]), [*clouds][-1]]))}: {NAMES[method]}{option}"
    below = f"{len(clouds)} clouds, " if len(clouds) > 1 else ""
    below += f"{'' if len(rows) == len(labels) else f'{len(rows)} of '}{len(labels)} samples, D = {together.shape[1]}"
    return finish(figure, heading, below, path)


def _check_finite(cloud_ND: np.ndarray, of: str = "") -> None:
    if bad := int((~np.isfinite(cloud_ND).all(axis=1)).sum()):
        raise ValueError(f"{bad} of {len(cloud_ND)} latents{of} are not finite: the run diverged, leave it out")


def _check_varied(cloud_ND: np.ndarray, of: str = "") -> None:
    if np.ptp(cloud_ND, axis=0).max() <= 1e-6 * np.abs(cloud_ND).max():  # the rounding of float32
        raise ValueError(f"all {len(cloud_ND)} latents{of} are equal: the cloud has collapsed to a point")


def _check(clouds: Mapping[str, np.ndarray], samples: int) -> None:
    """Refuses clouds that make no common map, by name."""
    if not clouds:
        raise ValueError("there is no cloud to project")
    for name, cloud in clouds.items():
        if cloud.ndim != 2 or len(cloud) != samples:
            raise ValueError(
                f"cloud '{name}' must hold one latent for each of the {samples} labels, got shape {cloud.shape}"
            )
        _check_finite(cloud, f" of cloud '{name}'")
    widths = {name: cloud.shape[1] for name, cloud in clouds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"clouds of one map must have one width, and they have {widths}: draw a map each")


def _name_clouds(axis: "Axes", points: Mapping[str, np.ndarray]) -> None:
    """Puts each cloud's marker at its median and its name beside it."""
    centres = np.array([np.median(points_n2, axis=0) for points_n2 in points.values()])
    heights = spread(centres[:, 1], 0.09 * np.ptp(axis.get_ylim()))
    right = centres[:, 0] + 0.04 * np.ptp(axis.get_xlim())
    box: dict[str, Any] = {"boxstyle": "round,pad=0.2", "edgecolor": GREY, "linewidth": 0.5, "alpha": 0.9}
    for name, centre, x, y, marker in zip(points, centres, right, heights, MARKERS, strict=False):
        axis.plot(*centre, marker, markersize=9, color="white", markeredgecolor=BLACK, zorder=5)
        axis.annotate(
            drawable(shortened(name, 24)),
            centre,
            (x, y),
            va="center",
            fontsize=8.5,
            zorder=6,
            bbox=box | {"facecolor": "white"},
        )
