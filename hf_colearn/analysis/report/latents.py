"""Section of a report on latents: numbers, transport distances, and maps.

Shape legend: N samples, D dimensions of a latent.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.latents import geometry
from hf_colearn.analysis.latents.transport import Wasserstein, sampling_floor, transport_triple, triangle_warning
from hf_colearn.analysis.plots.projection import NAMES, Method, perplexities, plot_map
from hf_colearn.analysis.plots.triangle import plot_transport
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import Run


MOST_TRANSPORTED = 500  # samples a cloud: more are drawn from in mini-batches
MOST_DRAWN = 300  # points of each of three clouds in one map
PROBE = "linear probe [%]"
SIDES = ("targets to baseline", "targets to this arm", "baseline to this arm", "halves of this arm")
THREE_CLOUDS = "Training samples: do targets and latents meet? A sample has its class's colour in all three clouds."
MAY_BE_READ_OFF = {
    "pca": "Clouds in one map, by the two widest directions, whose distances are true. With targets: training samples.",
    "tsne": "Test samples. Who is near whom may be read off; sizes of clusters, and distances between them, may not.",
    "umap": "Test samples. Who is near whom may be read off; distances between clusters say little.",
}


def section_latents(results: MergedResults) -> Section:
    """How did the latent space change?"""
    section = Section("latents", "How the latent space changed", has_arms_in_pictures=False)
    section.lead = "Test samples, unless stated otherwise; maps are of the first seed."
    with section.error_notes("Latents by numbers"):
        section.tables.append(_geometry_table(section, results))
    if results.first("baseline") is not None:
        _add_transport(section, results)
    if results.runs[0].problem_type == "single_label_classification":
        _add_maps(section, results)
    else:
        section.notes.append("No maps, and no measures of how far classes lie apart: they are of one class a sample.")
    return section


def _has_targets(run: Run) -> bool:
    return run.kind in ("colearned", "null") and run.train is not None and run.train.targets is not None


# ---- numbers ----
def _probe(run: Run) -> float:
    smallest = int(np.unique(run.test.labels, return_counts=True)[1].min())
    return 100 * geometry.cross_validated_probe(run.test.latents, run.test.labels, max(2, min(5, smallest)))


MEASURES: dict[str, Callable[[Run], float]] = {
    PROBE: _probe,
    "silhouette": lambda run: geometry.silhouette(run.test.latents, run.test.labels),
    "Fisher ratio": lambda run: geometry.fisher_ratio(run.test.latents, run.test.labels),
    "class alignment": lambda run: geometry.class_alignment(run.test.latents, run.test.labels),
    "uniformity": lambda run: geometry.uniformity(run.test.latents),
}
TO_BASELINE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "CKA to baseline": partial(geometry.linear_cka, debiased=True),
    "Procrustes to baseline": geometry.procrustes_distance,
}


def _geometry_table(section: Section, results: MergedResults) -> Table:
    baselines = {run.seed: run for run in results.runs if run.kind == "baseline"}
    of_classes = results.runs[0].problem_type == "single_label_classification"
    measures = [name for name in MEASURES if of_classes or name == "uniformity"]
    names = [*measures, *(TO_BASELINE if baselines else ())]

    def measure(name: str, run: Run) -> float:
        if name in MEASURES:
            return MEASURES[name](run)
        if run.seed not in baselines:
            raise ValueError(f"the baseline has no seed {run.seed}")
        z_ND = baselines[run.seed].test.latents
        if len(z_ND) != len(run.test.latents):
            raise ValueError("the baseline kept other samples")
        return TO_BASELINE[name](z_ND, run.test.latents)

    def cell(name: str, arm: str, runs: list[Run]) -> str:
        if runs[0].kind == "baseline" and name in TO_BASELINE:
            return "-"
        try:
            values = [measure(name, run) for run in (runs[:1] if name == PROBE else runs)]
        except ValueError as error:
            undefined.setdefault(f"{name}: {error}", []).append(f"'{arm}'")
            return "undefined"
        section.numbers.setdefault("geometry", {}).setdefault(arm, {})[name] = values
        return f"{np.mean(values):.3g}"

    undefined: dict[str, list[str]] = {}
    rows = [[arm, *(cell(name, arm, runs) for name in names)] for arm, runs in results.arms.items()]
    section.notes.extend(f"Of {', '.join(arms)} undefined is the {why}" for why, arms in undefined.items())
    of_labels = (
        " (the probe: first seed, cross-validated). Silhouette and Fisher ratio: how far classes lie apart; alignment (lower: "
        "closer) and"
    )
    caption = (
        f"Means over seeds{of_labels if of_classes else ';'} uniformity (lower: more even) after Wang & Isola 2020; CKA 1 and "
        "Procrustes 0: the same up to rotation and scale"
    )
    return Table(["arm", *names], rows, caption)


# ---- transport distances ----
def _add_transport(section: Section, results: MergedResults) -> None:
    measured: dict[tuple[str, str], tuple[Wasserstein, ...]] = {}
    baselines = {run.seed: run for run in results.runs if run.kind == "baseline"}
    for arm, (first, *_) in results.arms.items():
        for split in ("train", "test") if _has_targets(first) else ():
            with section.error_notes(f"Transport distances of '{arm}', {split}"):
                measured[arm, split] = _sides(section, first, baselines.get(first.seed), split)
    if not measured:
        return
    seed = results.runs[0].seed
    captions = {
        "w2": f"Wasserstein distance W2 [latent units], seed {seed}. Two random halves of one cloud are apart by the last "
        "column: what is not clearly above it is no difference",
        "w2_squared": f"The same squared, W2² [squared latent units], seed {seed}",
    }
    for name, caption in captions.items():
        rows = [[*key, *(f"{getattr(side, name):.3g}" for side in sides)] for key, sides in measured.items()]
        section.tables.append(Table(["arm", "split", *SIDES], rows, caption))
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
    drawn, baseline = results.first("colearned"), results.first("baseline")
    for (arm, split), sides in measured.items():
        if drawn is not None and baseline is not None and arm == drawn.arm:
            names, below = ("teacher targets", baseline.arm, arm), f"W2 between latents, {split} samples, seed {seed}"
            draw = partial(plot_transport, sides[0].w2, sides[1].w2, sides[2].w2, names=names, below=below)
            row = "How far apart? To scale; targets are those of training samples, for both splits."
            alt = f"Wasserstein distances of '{arm}', {split} split"
            section.add_picture(f"transport_{split}", draw, alt, row=row)


def _sides(section: Section, run: Run, baseline: Run | None, split: str) -> tuple[Wasserstein, ...]:
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


def _seen(targets_ND: np.ndarray) -> np.ndarray:
    """Which samples `(N,)` had a target of the teacher; a fraction of pairs leaves some without."""
    return ~np.isnan(targets_ND).any(axis=1)


def _few(cloud_ND: np.ndarray) -> np.ndarray:
    """At most four mini-batches of a cloud, the same rows every time."""
    most = 4 * MOST_TRANSPORTED
    return cloud_ND if len(cloud_ND) <= most else cloud_ND[np.random.default_rng(0).permutation(len(cloud_ND))[:most]]


# ---- maps ----
def _add_maps(section: Section, results: MergedResults) -> None:
    baseline, colearned = results.first("baseline"), results.first("colearned")
    shown = [run for run in (baseline, colearned) if run is not None]
    if not shown:
        return
    labels, names = shown[0].test.labels, shown[0].facts.get("class_names")
    three, of_train = dict[str, np.ndarray](), np.empty(0, dtype=int)
    if colearned is not None and _has_targets(colearned):
        with section.error_notes("No map of targets, baseline and co-learned latents together"):
            three, of_train = _three_clouds(baseline, colearned)
    # PCA keeps distances, so it has the arms in one map; the others keep who is near whom, so each arm has its own.
    together = {"": {run.arm: run.test.latents for run in shown}}
    apart = {f"_{run.kind}": {run.arm: run.test.latents} for run in shown}
    for method in results.methods:
        row = MAY_BE_READ_OFF[method]
        if three:
            alt = f"{NAMES[method]} of {', '.join(three)}, training samples"
            heading = row if method == "pca" else THREE_CLOUDS
            for label, options in _settings(method, len(three) * min(MOST_DRAWN, len(of_train))).items():
                draw = partial(plot_map, three, of_train, method, class_names=names, max_points=MOST_DRAWN, **options)
                section.add_picture(f"map_{method}{label}_clouds", draw, alt, row=heading)
        for ending, clouds in (together if method == "pca" else apart).items():
            alt = f"{NAMES[method]} of {', '.join(clouds)}, test samples"
            if any(len(cloud) != len(labels) for cloud in clouds.values()):
                section.notes.append(f"No picture '{alt}': the arms kept other samples, which make no common map")
                continue
            for label, options in _settings(method, min(500, len(labels))).items():
                draw = partial(plot_map, clouds, labels, method, class_names=names, **options)
                section.add_picture(f"map_{method}{label}{ending}", draw, alt, row=row)


def _three_clouds(baseline: Run | None, colearned: Run) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Targets, baseline and co-learned latents of the training samples that have a target, and their classes."""
    train = colearned.train
    assert train is not None and train.targets is not None
    if baseline is None or baseline.train is None or not np.array_equal(baseline.train.labels, train.labels):
        raise ValueError("the baseline kept no latents of the same training samples")
    clouds = {"teacher targets": train.targets, baseline.arm: baseline.train.latents, colearned.arm: train.latents}
    widths = {name: cloud.shape[1] for name, cloud in clouds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"their widths differ ({widths})")
    rows = _seen(train.targets)
    return {name: cloud[rows] for name, cloud in clouds.items()}, train.labels[rows]


def _settings(method: Method, points: int) -> dict[str, dict[str, Any]]:
    """Endings of file names, and options: several perplexities, since one alone is often misread."""
    if method != "tsne":
        return {"": {}}
    return {f"_{perplexity:g}": {"perplexity": perplexity} for perplexity in perplexities(points)}
