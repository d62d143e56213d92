"""Where the latents lie, in two dimensions: PCA, t-SNE and UMAP. Needs `pip install hf-colearn[report]`.

A picture of two dimensions shows what its method keeps, and hides the rest: read the numbers beside it first.
Sources: van der Maaten & Hinton, "Visualizing Data using t-SNE" (JMLR 2008); McInnes et al., "UMAP" (2018); what can be
read off t-SNE: Wattenberg et al., "How to Use t-SNE Effectively" (Distill 2016).

Shape legend: N samples, D dimensions of a latent, n <= N of the samples that are drawn.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hf_colearn.analysis.plots.style import (
    BLACK,
    CLASS_COLOURS,
    GREY,
    MARKERS,
    PANEL,
    ArmStyle,
    bare,
    name_lines,
    new_figure,
    save,
    spread,
    title,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Method = Literal["pca", "tsne", "umap"]
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
OTHERS = "other classes"
MAX_CLASSES = len(CLASS_COLOURS)  # that have a colour of their own


def project(
    cloud_ND: np.ndarray,
    method: Method = "tsne",
    *,
    perplexity: float = 30.0,
    neighbours: int = 15,
    seed: int = 0,
) -> np.ndarray:
    """Projects latents to two dimensions; on one thread and from a fixed seed, so always to the same points.

    For a joint map of several clouds of one width, project their rows together.

    Args:
        cloud_ND (`np.ndarray` of shape `(N, D)`):
            At least 4 different latents of at least 2 dimensions; some hundred, see [`sample_rows`].
        method (`str`, *optional*, defaults to `"tsne"`):
            `"pca"` (distances are those of the two widest directions, in latent units), `"tsne"` or `"umap"` (who is
            whose neighbour, no distances).
        perplexity (`float`, *optional*, defaults to 30):
            t-SNE's: about how many neighbours a point has; at most N / 3, see [`perplexities`].
        neighbours (`int`, *optional*, defaults to 15):
            UMAP's: how many neighbours a point has, from 2 to N - 1.
        seed (`int`, *optional*, defaults to 0):
            Of t-SNE and UMAP.

    Returns:
        `np.ndarray` of shape `(N, 2)`: The points.

    Raises:
        `ImportError`: If scikit-learn, or for `"umap"` umap-learn, is missing.
        `ValueError`: If the latents cannot be projected, or an option does not fit them.
    """
    cloud_ND = np.asarray(cloud_ND)
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {list(get_args(Method))}, got '{method}'")
    if cloud_ND.ndim != 2 or cloud_ND.shape[1] < 2:
        raise ValueError(f"a projection to two dimensions needs latents of shape (N, D >= 2), got {cloud_ND.shape}")
    bad = int((~np.isfinite(cloud_ND).all(axis=1)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(cloud_ND)} latents are not finite: the run diverged, leave it out")
    if len(cloud_ND) < 4:
        raise ValueError(f"{len(cloud_ND)} samples are too few to project: there is nothing to see below 4")
    if collapsed(cloud_ND):
        raise ValueError(f"all {len(cloud_ND)} latents are equal: the cloud has collapsed to a point")
    if method == "tsne" and not 0 < perplexity <= len(cloud_ND) / 3:
        raise ValueError(
            f"perplexity must be above 0 and at most a third of the {len(cloud_ND)} points to draw, got {perplexity:g}"
        )
    if method == "umap" and not 2 <= neighbours < len(cloud_ND):
        raise ValueError(f"neighbours must be from 2 to {len(cloud_ND) - 1}, all other points, got {neighbours}")
    return _COMPUTE[method](cloud_ND.astype(np.float32), perplexity, neighbours, seed)


def sample_rows(n: int, max_points: int = 500, seed: int = 0) -> np.ndarray:
    """Which of `n` samples are drawn: at most `max_points`, in ascending order, the same ones for the same `n`."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:max_points])


def perplexities(n: int, wanted: Sequence[float] = (5, 30, 50)) -> tuple[float, ...]:
    """Those of the `wanted` perplexities that `n` points allow (at most a third of them), or else that third."""
    return tuple(p for p in wanted if p <= n / 3) or (n / 3,)


def collapsed(cloud_ND: np.ndarray) -> bool:
    """Whether all latents are equal, up to the rounding of float32."""
    return bool(np.ptp(cloud_ND, axis=0).max() <= 1e-6 * np.abs(cloud_ND).max())


def class_styles(labels: np.ndarray, class_names: Sequence[str] | None = None) -> dict[str, ArmStyle]:
    """One look a class, for all projections of a page; the names are those of its legend.

    Of more than 10 classes, the 9 with most samples have colours and the others are small and grey.

    Args:
        labels (`np.ndarray` of shape `(N,)`): Classes of all samples.
        class_names (`Sequence[str]`, *optional*): By class; by default the label itself.

    Raises:
        `ValueError`: If two classes share a name.
    """
    names = [_class_name(label, class_names) for label in _coloured(labels)]
    if len(set(names)) < len(names):
        raise ValueError(f"two classes have the same name among {names}: give each its own")
    styles = {
        name: ArmStyle(CLASS_COLOURS[i % MAX_CLASSES], MARKERS[i % len(MARKERS)], dashes=None)
        for i, name in enumerate(names)
    }
    rest = len(np.unique(labels)) - len(names)
    return styles | ({f"{rest} {OTHERS}": ArmStyle("#C4C4C4", "o", dashes=None, layer=1)} if rest else {})


def plot_projection(
    clouds: Mapping[str, np.ndarray],
    labels: np.ndarray,
    path: str | PathLike | None = None,
    perplexity: float = 30,
    seed: int = 0,
    max_points: int = 500,
    class_names: Sequence[str] | None = None,
) -> "Figure":
    """Draws clouds of latents side by side, each projected to two dimensions by its own t-SNE, coloured by class.

    t-SNE keeps neighbourhoods: whether classes separate can be read off, distances and sizes of clusters cannot, and
    the axes of two panels have nothing to do with each other.

    Args:
        clouds (`Mapping[str, np.ndarray]` of shape `(N, D)` each):
            Latents by name, such as those of the students and of the teacher, for the same N samples. A cloud whose
            rows are all equal has collapsed: its panel says so instead.
        labels (`np.ndarray` of shape `(N,)`):
            Class of each sample.
        path (`str` or `PathLike`, *optional*):
            Where to write the picture; the ending gives the format.
        perplexity (`float`, *optional*, defaults to 30):
            About how many neighbours each point has; at most a third of the points drawn.
        seed (`int`, *optional*, defaults to 0):
            For t-SNE, and for the choice of points.
        max_points (`int`, *optional*, defaults to 500):
            Of more samples, this many are drawn, the same ones in every panel. 500 take some seconds a cloud.
        class_names (`Sequence[str]`, *optional*):
            By class; by default the label itself.

    Raises:
        `ImportError`: If matplotlib or scikit-learn is missing.
        `ValueError`: If a cloud is not `(N, D)` or not finite, or there are too few points for the perplexity.
    """
    labels, rows, styles = _checked(clouds, labels, seed, max_points, class_names)
    figure = new_figure(3.4 * len(clouds), 4.2)
    handles: dict[str, Any] = {}
    for axis, (name, cloud) in zip(figure.subplots(1, len(clouds), squeeze=False)[0], clouds.items(), strict=True):
        axis.set_title(f"{name}\n{_count(rows, labels)}, D = {cloud.shape[1]}", fontsize=10)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
        if collapsed(cloud[rows]):
            axis.text(0, 0, "collapsed:\nall latents are equal", ha="center", va="center")
            axis.set(xlim=(-1, 1), ylim=(-1, 1))
        else:
            points_n2 = project(cloud[rows], perplexity=perplexity, seed=seed)
            handles |= _scatter(axis, points_n2, labels[rows], labels, styles)
    name_lines(figure, {name: handles[name] for name in styles if name in handles}, "class")
    title(figure, "Latents by class", f"t-SNE, perplexity {perplexity:g}, seed {seed}; {CAPTIONS['tsne']}")
    return save(figure, path)


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
    legend: bool = True,
) -> "Figure":
    """Draws one map: of one cloud by class, or of several clouds of the same width together, a marker a cloud.

    Args:
        clouds (`Mapping[str, np.ndarray]` of shape `(N, D)` each):
            One, or several of the same width for the same N samples, such as targets, baseline and co-learned. Rows of
            several are projected together, so that in PCA distances between the clouds mean something.
        labels (`np.ndarray` of shape `(N,)`):
            Class of each sample.
        method, perplexity, neighbours, seed:
            As of [`project`]; `seed` chooses the points, too.
        path (`str` or `PathLike`, *optional*), max_points, class_names:
            As of [`plot_projection`].
        legend (`bool`, *optional*, defaults to `True`):
            Whether to name the classes at the right; a page makes one legend of [`class_styles`].

    Returns:
        `Figure`: A single panel.

    Raises:
        `ImportError`: If matplotlib, scikit-learn, or for `"umap"` umap-learn, is missing.
        `ValueError`: If a cloud cannot be projected, with its name, or an option does not fit.
    """
    labels, rows, styles = _checked(clouds, labels, seed, max_points, class_names)
    widths = {name: cloud.shape[1] for name, cloud in clouds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"clouds of one map must have one width, and they have {widths}: draw a map each")
    for name, cloud in clouds.items():
        if len(clouds) > 1 and collapsed(cloud[rows]):
            raise ValueError(f"all {len(rows)} latents of '{name}' are equal: the cloud has collapsed to a point")
    together = np.concatenate([cloud[rows] for cloud in clouds.values()])
    points = project(together, method, perplexity=perplexity, neighbours=neighbours, seed=seed)
    figure = new_figure(*PANEL)
    axis = figure.subplots()
    handles: dict[str, Any] = {}
    for i, points_n2 in enumerate(np.split(points, len(clouds))):
        marker = MARKERS[i] if len(clouds) > 1 else None
        handles |= _scatter(axis, points_n2, labels[rows], labels, styles, marker)
    if len(clouds) > 1:
        _name_clouds(axis, dict(zip(clouds, np.split(points, len(clouds)), strict=True)))
    if method == "pca":
        shares = points.var(axis=0) / together.var(axis=0).sum()
        axis.set(xlabel=f"component 1 ({shares[0]:.0%} of the variance)", ylabel=f"component 2 ({shares[1]:.0%})")
        axis.set_aspect("equal", adjustable="datalim")
        bare(axis)
    else:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
    if legend:
        name_lines(figure, {name: handles[name] for name in styles if name in handles}, "class")
    option = {"pca": "", "tsne": f", perplexity {perplexity:g}", "umap": f", {neighbours} neighbours"}[method]
    joint = f"{len(clouds)} clouds, " if len(clouds) > 1 else ""
    heading = f"{' and '.join(filter(None, [', '.join([*clouds][:-1]), [*clouds][-1]]))}: {NAMES[method]}{option}"
    title(figure, heading, f"{joint}{_count(rows, labels)}, D = {together.shape[1]}")
    return save(figure, path)


CAPTIONS = {  # what may be read off a map, and what not
    "pca": "distances are true in the two widest directions and hidden in all others",
    "tsne": "neighbours are neighbours, but distances between clusters and their sizes mean nothing",
    "umap": "neighbours are neighbours, but distances between clusters and their sizes mean little",
}


def _pca(cloud_ND: np.ndarray, perplexity: float, neighbours: int, seed: int) -> np.ndarray:
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise ImportError("PCA needs scikit-learn: pip install 'hf-colearn[report]'") from error
    return PCA(2, svd_solver="full").fit_transform(cloud_ND)


def _tsne(cloud_ND: np.ndarray, perplexity: float, neighbours: int, seed: int) -> np.ndarray:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("t-SNE needs scikit-learn: pip install 'hf-colearn[report]'") from error
    # For some hundred points threads gain nothing, and on a busy machine they wait for each other for a minute.
    with threadpool_limits(limits=1):
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(cloud_ND)


def _umap(cloud_ND: np.ndarray, perplexity: float, neighbours: int, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError("UMAP needs umap-learn: pip install 'hf-colearn[umap]'") from error
    return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(cloud_ND)


_COMPUTE = {"pca": _pca, "tsne": _tsne, "umap": _umap}


def _checked(
    clouds: Mapping[str, np.ndarray], labels: np.ndarray, seed: int, max_points: int, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, dict[str, ArmStyle]]:
    """Labels, rows to draw and looks of the classes; a cloud that does not fit is refused by its name."""
    labels = np.asarray(labels)
    if not clouds:
        raise ValueError("there is no cloud to project")
    for name, cloud in clouds.items():
        if cloud.ndim != 2 or len(cloud) != len(labels):
            raise ValueError(
                f"cloud '{name}' must hold one latent for each of the {len(labels)} labels, got shape {cloud.shape}"
            )
        bad = int((~np.isfinite(cloud).all(axis=1)).sum())
        if bad:
            raise ValueError(
                f"{bad} of {len(labels)} latents of cloud '{name}' are not finite: the run diverged, leave it out"
            )
    return labels, sample_rows(len(labels), max_points, seed), class_styles(labels, names)


def _coloured(labels: np.ndarray) -> list[Any]:
    """The classes with a colour of their own, in order."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) <= MAX_CLASSES:
        return list(classes)
    return list(classes[np.sort(np.argsort(-counts, kind="stable")[: MAX_CLASSES - 1])])


def _count(rows_n: np.ndarray, labels_N: np.ndarray) -> str:
    return f"{len(rows_n) if len(rows_n) == len(labels_N) else f'{len(rows_n)} of {len(labels_N)}'} samples"


def _class_name(label: Any, names: Sequence[str] | None) -> str:
    return str(label) if names is None else str(names[int(label)])


def _scatter(
    axis: "Axes",
    points_n2: np.ndarray,
    labels_n: np.ndarray,
    labels_N: np.ndarray,
    styles: Mapping[str, ArmStyle],
    marker: str | None = None,
) -> dict[str, Any]:
    """Points of each class in its look, or with the marker of their cloud; returns what a legend shows."""
    coloured = _coloured(labels_N)
    handles = {}
    for i, (name, style) in enumerate(styles.items()):
        chosen_n = labels_n == coloured[i] if i < len(coloured) else ~np.isin(labels_n, coloured)
        if chosen_n.any():
            size = (16 if i < len(coloured) else 7) * (1 if marker is None else 0.6)
            look: dict[str, Any] = {
                "color": style.colour,
                "marker": marker or style.marker,
                "zorder": style.layer,
                "linewidths": 0,
                "s": size,
            }
            x_n, y_n = points_n2[chosen_n].T
            handles[name] = axis.scatter(x_n, y_n, alpha=0.75, label=name, **look)
    return handles


def _name_clouds(axis: "Axes", points: Mapping[str, np.ndarray]) -> None:
    """Puts each cloud's marker at its median and its name beside it."""
    centres = np.array([np.median(points_n2, axis=0) for points_n2 in points.values()])
    heights = spread(centres[:, 1], 0.09 * np.ptp(axis.get_ylim()))
    right = centres[:, 0] + 0.04 * np.ptp(axis.get_xlim())
    box: dict[str, Any] = {
        "boxstyle": "round,pad=0.2",
        "facecolor": "white",
        "edgecolor": GREY,
        "linewidth": 0.5,
        "alpha": 0.9,
    }
    for name, centre, x, y, marker in zip(points, centres, right, heights, MARKERS, strict=False):
        axis.plot(*centre, marker, markersize=9, color="white", markeredgecolor=BLACK, zorder=5)
        axis.annotate(name, centre, (x, y), va="center", fontsize=8.5, zorder=6, bbox=box)
