"""The section of a report on latents: numbers, the paper's transport distances, and maps; see [`hf_colearn.analysis.report.sections`].

Shape legend: N samples, D dimensions of a latent.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hf_colearn.analysis.latents import geometry
from hf_colearn.analysis.latents.transport import Wasserstein, sampling_floor, transport_triple, triangle_warning
from hf_colearn.analysis.plots import projection
from hf_colearn.analysis.plots.triangle import plot_transport
from hf_colearn.analysis.report.page import Picture, Section, Table
from hf_colearn.analysis.report.sections import Findings, said
from hf_colearn.analysis.runs import Run


PERPLEXITIES = (5, 30, 50)
MOST_TRANSPORTED = 500  # samples a cloud: more are drawn from in mini-batches
MOST_DRAWN = 300  # points of each of three clouds in one map


def latents_section(found: Findings) -> Section:
    """How did the latent space change?"""
    section = Section(
        "latents",
        "How the latent space changed",
        "First numbers, which no picture can bend; then maps, of the first seed. Test samples, unless said otherwise.",
        has_arms_in_pictures=False,
    )
    with said(section, "Latents by numbers"):
        section.tables.append(_geometry_table(found, section))
    if found.first("baseline") is not None and any(_has_targets(run) for run in found.runs):
        _transport(found, section)
    _maps(found, section)
    return section


def _has_targets(run: Run) -> bool:
    return run.kind in ("colearned", "null") and run.train is not None and run.train.targets is not None


def _geometry_table(found: Findings, section: Section) -> Table:
    def probe(run: Run) -> float:
        smallest = int(np.unique(run.test.labels, return_counts=True)[1].min())
        folds = max(2, min(5, smallest))
        return 100 * geometry.cross_validated_probe(run.test.latents, run.test.labels, folds)

    measures: dict[str, Callable[[Run], float]] = {
        "linear probe [%]": probe,
        "silhouette": lambda run: geometry.silhouette(run.test.latents, run.test.labels),
        "Fisher ratio": lambda run: geometry.fisher_ratio(run.test.latents, run.test.labels),
        "class alignment": lambda run: geometry.class_alignment(run.test.latents, run.test.labels),
        "uniformity": lambda run: geometry.uniformity(run.test.latents),
    }
    baselines = {run.seed: run for run in found.runs if run.kind == "baseline"}

    def to_baseline(measure: Callable[[np.ndarray, np.ndarray], float], run: Run) -> float:
        other = baselines[run.seed]
        if other.test.latents.shape[0] != run.test.latents.shape[0]:
            raise ValueError("the baseline kept other samples")
        return measure(other.test.latents, run.test.latents)

    if baselines:
        measures["CKA to baseline"] = lambda run: to_baseline(
            functools.partial(geometry.linear_cka, debiased=True), run
        )
        measures["Procrustes to baseline"] = lambda run: to_baseline(geometry.procrustes_distance, run)
    rows = []
    undefined: dict[str, list[str]] = {}
    for arm, runs in found.arms.items():
        row = [arm]
        for name, measure in measures.items():
            if runs[0].kind == "baseline" and name.endswith("to baseline"):
                row.append("-")
                continue
            try:
                values = [measure(run) for run in (runs if name != "linear probe [%]" else runs[:1])]
            except (ValueError, KeyError) as error:
                row.append("undefined")
                undefined.setdefault(f"{name}: {error}", []).append(f"'{arm}'")
                continue
            row.append(f"{np.mean(values):.3g}")
            section.numbers.setdefault("geometry", {}).setdefault(arm, {})[name] = values
        rows.append(row)
    section.notes.extend(f"Of {', '.join(arms)} undefined is the {why}" for why, arms in undefined.items())
    caption = (
        "Means over seeds (the probe: first seed, cross-validated). Silhouette and Fisher ratio: how far classes lie apart; "
        "alignment (lower: closer) and uniformity (lower: more even) after Wang & Isola 2020; CKA 1 and Procrustes 0: the same "
        "up to rotation and scale"
    )
    return Table(["arm", *measures], rows, caption)


SIDES = ("targets to baseline", "targets to this arm", "baseline to this arm", "halves of this arm")


def _transport(found: Findings, section: Section) -> None:
    measured: dict[tuple[str, str], tuple[Wasserstein, ...]] = {}
    baseline = {run.seed: run for run in found.runs if run.kind == "baseline"}
    for arm, runs in found.arms.items():
        if not _has_targets(runs[0]):
            continue
        for split in ("train", "test"):
            with said(section, f"Transport distances of '{arm}', {split}"):
                measured[arm, split] = _sides(runs[0], baseline.get(runs[0].seed), split, section)
    if not measured:
        return
    seed = found.runs[0].seed
    w2, squared = ([[*key, *(f"{getattr(side, name):.3g}" for side in sides)] for key, sides in measured.items()]
                   for name in ("w2", "w2_squared"))  # fmt: skip
    header = ["arm", "split", *SIDES]
    section.tables.append(
        Table(header, w2, f"Wasserstein distance W2 [latent units], seed {seed}. Two random halves of one cloud "
              "are apart by the last column: what is not clearly above it is no difference")
    )  # fmt: skip
    section.tables.append(Table(header, squared, f"The same squared, W2² [squared latent units], seed {seed}"))
    section.numbers["transport"] = [
        {"arm": arm, "split": split, "seed": seed}
        | {name: {"w2": side.w2, "w2_squared": side.w2_squared} for name, side in zip(SIDES, sides, strict=True)}
        for (arm, split), sides in measured.items()
    ]
    section.notes.append(
        "Lee & Yoon (ICLR 2025) print three such distances as W2. Theirs violate the triangle inequality, which W2 obeys, "
        "and fit as W2 squared, which does not: compare theirs with the second table. The targets of both rows are those "
        "of training samples, since test samples have no teacher."
    )
    if any(side.batches > 1 for sides in measured.values() for side in sides[:3]):
        section.notes.append(
            f"Distances of clouds of more than {MOST_TRANSPORTED} samples are means over 4 random mini-batches of so many, and "
            "biased upwards: even two mini-batches of one cloud are apart, as the last column shows."
        )
    drawn, other = found.first("colearned"), found.first("baseline")
    for (arm, split), sides in measured.items():
        if drawn is not None and other is not None and arm == drawn.arm:
            with said(section, "No picture of the distances"):
                _draw_transport(section, sides, other.arm, arm, split, seed)


def _sides(run: Run, baseline: Run | None, split: str, section: Section) -> tuple[Wasserstein, ...]:
    """The distances of [`SIDES`]; a triple that cannot be three W2 is warned of in the section's notes."""
    mine, its = getattr(run, split), getattr(baseline, split, None)
    if its is None:
        raise ValueError("the baseline kept no latents of this split")
    assert run.train is not None and run.train.targets is not None
    targets, its_ND, mine_ND = map(_few, (run.train.targets[_seen(run.train.targets)], its.latents, mine.latents))
    triple = transport_triple(targets, its_ND, mine_ND, max_exact=MOST_TRANSPORTED, num_batches=4)
    if warning := triangle_warning(triple):
        section.notes.append(f"'{run.arm}', {split}: {warning}")
    halves = sampling_floor(mine_ND, max_exact=MOST_TRANSPORTED, num_batches=4)
    return triple.targets_to_baseline, triple.targets_to_colearned, triple.baseline_to_colearned, halves


def _draw_transport(
    section: Section, sides: Sequence[Wasserstein], baseline: str, arm: str, split: str, seed: int
) -> None:
    figure = plot_transport(
        sides[0].w2, sides[1].w2, sides[2].w2, names=("teacher targets", baseline, arm),
        below=f"W2 between latents, {split} samples, seed {seed}",
    )  # fmt: skip
    section.pictures.append(
        Picture(f"transport_{split}", figure, f"Wasserstein distances of '{arm}', {split} split",
                row="How far apart? To scale; targets are those of training samples, for both splits.")
    )  # fmt: skip


def _seen(targets_ND: np.ndarray) -> np.ndarray:
    """Which samples `(N,)` had a target of the teacher; a budget of pairs leaves some without."""
    return ~np.isnan(targets_ND).any(axis=1)


def _few(cloud_ND: np.ndarray) -> np.ndarray:
    """At most four mini-batches of a cloud, the same rows every time."""
    most = 4 * MOST_TRANSPORTED
    return cloud_ND if len(cloud_ND) <= most else cloud_ND[np.random.default_rng(0).permutation(len(cloud_ND))[:most]]


def _maps(found: Findings, section: Section) -> None:
    baseline, colearned = found.first("baseline"), found.first("colearned")
    shown = [run for run in (baseline, colearned) if run is not None]
    if not shown:
        return
    names = shown[0].facts.get("class_names")
    three: dict[str, np.ndarray] = {}
    of_train = np.empty(0, dtype=int)
    if colearned is not None and _has_targets(colearned):
        with said(section, "No map of targets, baseline and co-learned latents together"):
            three, of_train = _three_clouds(baseline, colearned)
    of_test = {run.arm: run.test.latents for run in shown}
    for method in found.methods:
        name = projection.NAMES[method]
        if three:
            row = MAY_BE_READ_OFF["pca"] if method == "pca" else THREE_CLOUDS
            for label, options in _settings(method, len(three) * min(MOST_DRAWN, len(of_train))):
                with said(section, f"No {name} of the three clouds"):
                    figure = projection.plot_map(
                        three, of_train, method, class_names=names, max_points=MOST_DRAWN, **options
                    )
                    alt = f"{name} of {', '.join(three)}, training samples"
                    section.pictures.append(Picture(f"map_{method}{label}_clouds", figure, alt, row=row))
        # PCA keeps distances, so it has the arms in one map; the others keep who is near whom, so each arm has its own.
        maps = {"": of_test} if method == "pca" else {f"_{run.kind}": {run.arm: run.test.latents} for run in shown}
        for ending, clouds in maps.items():
            for label, options in _settings(method, min(500, len(shown[0].test.labels))):
                with said(section, f"No {name} of {', '.join(clouds)}"):
                    if any(len(cloud) != len(shown[0].test.labels) for cloud in clouds.values()):
                        raise ValueError("the arms kept other samples, which make no common map")
                    figure = projection.plot_map(clouds, shown[0].test.labels, method, class_names=names, **options)
                    alt, row = f"{name} of {', '.join(clouds)}, test samples", MAY_BE_READ_OFF[method]
                    section.pictures.append(Picture(f"map_{method}{label}{ending}", figure, alt, row=row))


THREE_CLOUDS = "Training samples: do targets and latents meet? A sample has its class's colour in all three clouds."
MAY_BE_READ_OFF = {
    "pca": "Clouds in one map, by the two widest directions, whose distances are true. With targets: training samples.",
    "tsne": "Test samples. Who is near whom may be read off; sizes of clusters, and distances between them, may not.",
    "umap": "Test samples. Who is near whom may be read off; distances between clusters say little.",
}


def _three_clouds(baseline: Run | None, colearned: Run) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Targets, baseline and co-learned latents of the training samples that have a target, and their classes."""
    train = colearned.train
    assert train is not None and train.targets is not None
    if baseline is None or baseline.train is None or not np.array_equal(baseline.train.labels, train.labels):
        raise ValueError("the baseline kept no latents of the same training samples")
    clouds = {
        "teacher targets": train.targets, baseline.arm: baseline.train.latents, colearned.arm: train.latents
    }  # fmt: skip
    widths = {name: cloud.shape[1] for name, cloud in clouds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"their widths differ ({widths})")
    rows = _seen(train.targets)
    return {name: cloud[rows] for name, cloud in clouds.items()}, train.labels[rows]


def _settings(method: projection.Method, points: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Endings of file names, and options: several perplexities, since one alone is often misread."""
    if method != "tsne":
        yield "", {}
        return
    chosen: Sequence[float] = projection.perplexities(points, PERPLEXITIES)
    for perplexity in chosen:
        yield f"_{perplexity:g}", {"perplexity": perplexity}
