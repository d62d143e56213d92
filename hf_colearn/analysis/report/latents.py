"""Section of a report on latents: numbers, transport distances, and maps.

Shape legend: N samples, D dimensions of a latent.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.latents import geometry
from hf_colearn.analysis.latents.transport import Wasserstein, sampling_floor, transport_triple, triangle_warning
from hf_colearn.analysis.plots.projection import NAMES, Method, perplexities, plot_map
from hf_colearn.analysis.plots.triangle import plot_transport
from hf_colearn.analysis.report.class_names import readable
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import Run


MOST_TRANSPORTED = 500  # samples a cloud: more are drawn from in mini-batches
MOST_PROBED = 100  # classes
MOST_DRAWN = 300  # points of each of three clouds in one map
PROBE = "linear probe [%]"
SIDES = ("targets to baseline", "targets to this arm", "baseline to this arm", "halves of this arm")
THREE_CLOUDS = "Training samples: do targets and latents meet? A sample has its class's colour in all three clouds."
MAY_BE_READ_OFF = {
    "pca": "Clouds in one map, by the two widest directions, whose distances are true. With targets: training samples.",
    "tsne": "Test samples. Who is near whom may be read off; sizes of clusters, and distances between them, may not.",
    "umap": "Test samples. Who is near whom may be read off; distances between clusters say little.",
}


def section_latents(results: MergedResults) -> Section | None:
    """How did the latent space change?"""
    without = [arm for arm, runs in results.arms.items() if runs[0].test.latents is None]
    section = Section("latents", "How the latent space changed", has_arms_in_pictures=False)
    if len(without) == len(results.arms):
        section.lead = (
            "The models return no 'latents' [B, D]; a model whose output has them would have maps and distances here."
        )
        return section
    section.lead = "Test samples, unless stated otherwise; maps are of the first seed."
    if without:
        section.notes.append(f"Without {', '.join(map(repr, without))}, whose models return no 'latents'.")
    with section.error_notes("Latents by numbers"):
        section.tables.append(_geometry_table(section, results))
    if results.first("baseline") is not None:
        _add_transport(section, results)
    if results.runs[0].problem_type == "single_label_classification":
        _add_maps(section, results)
    else:
        section.notes.append("No maps, and no measures of how far classes lie apart: they are of one class a sample.")
    return section


def _latents(run: Run) -> np.ndarray:
    if run.test.latents is None:
        raise ValueError("its model returns no 'latents'")
    return run.test.latents


def _has_targets(run: Run) -> bool:
    return run.kind in ("colearned", "null") and run.train is not None and run.train.targets is not None


# ---- numbers ----
def _probe(run: Run) -> float:
    counts = np.unique(run.test.labels, return_counts=True)[1]
    if len(counts) > MOST_PROBED:
        raise ValueError(f"{len(counts):,} classes would take it minutes, and it is fitted for at most {MOST_PROBED}")
    smallest = int(counts.min())
    return 100 * geometry.cross_validated_probe(_latents(run), run.test.labels, max(2, min(5, smallest)))


MEASURES: dict[str, Callable[[Run], float]] = {
    PROBE: _probe,
    "silhouette": lambda run: geometry.silhouette(_latents(run), run.test.labels),
    "Fisher ratio": lambda run: geometry.fisher_ratio(_latents(run), run.test.labels),
    "class alignment": lambda run: geometry.class_alignment(_latents(run), run.test.labels),
    "uniformity": lambda run: geometry.uniformity(_latents(run)),
}
TO_BASELINE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "CKA to baseline": partial(geometry.linear_cka, debiased=True),
    "Procrustes to baseline": geometry.procrustes_distance,
}


def _geometry_table(section: Section, results: MergedResults) -> Table:
    baselines = {run.seed: run for run in results.runs if run.kind == "baseline" and run.test.latents is not None}
    of_classes = results.runs[0].problem_type == "single_label_classification"
    measures = [name for name in MEASURES if of_classes or name == "uniformity"]
    names = [*measures, *(TO_BASELINE if baselines else ())]

    def measure(name: str, run: Run) -> float:
        if name in MEASURES:
            return MEASURES[name](run)
        if run.seed not in baselines:
            raise ValueError(f"the baseline has no seed {run.seed}")
        its_ND, mine_ND = _latents(baselines[run.seed]), _latents(run)
        if len(its_ND) != len(mine_ND):
            raise ValueError("the baseline kept other samples")
        return TO_BASELINE[name](its_ND, mine_ND)

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
    arms = {arm: runs for arm, runs in results.arms.items() if runs[0].test.latents is not None}
    rows = [[arm, *(cell(name, arm, runs) for name in names)] for arm, runs in arms.items()]
    section.notes.extend(f"Of {', '.join(of)} undefined is the {why}" for why, of in undefined.items())
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
    if its is None or its.latents is None or mine.latents is None:
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
    shown = {run.arm: run for run in results.first_seed if run.arm in results.shown and run.test.latents is not None}
    if not shown:
        section.notes.append(f"No maps: {', '.join(map(repr, results.shown))} returned no 'latents'.")
        return
    labels = next(iter(shown.values())).test.labels
    names = readable(results.runs[0].facts.get("class_names"))
    three, of_train = dict[str, np.ndarray](), np.empty(0, dtype=int)
    if colearned is not None and _has_targets(colearned):
        with section.error_notes("No map of targets, baseline and co-learned latents together"):
            three, of_train = _three_clouds(baseline, colearned)
    # PCA keeps distances, so it has the arms in one map; the others keep who is near whom, so each arm has its own.
    apart = {ending: {run.arm: _latents(run)} for ending, run in zip(_endings(shown), shown.values(), strict=True)}
    together = {"": {arm: _latents(run) for arm, run in shown.items()}}
    if len({z_ND.shape[1] for z_ND in together[""].values()}) > 1:
        together = apart  # of other widths
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


def _endings(shown: Mapping[str, Run]) -> list[str]:
    """Of the arms' file names: their kinds, numbered from the second of a kind on."""
    kinds = [run.kind for run in shown.values()]
    counts = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
    return [f"_{kind}{f'_{count}' if count > 1 else ''}" for kind, count in zip(kinds, counts, strict=True)]


def _three_clouds(baseline: Run | None, colearned: Run) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Targets, baseline and co-learned latents of the training samples that have a target, and their classes."""
    train = colearned.train
    assert train is not None and train.targets is not None
    before = None if baseline is None else baseline.train
    if before is None or not np.array_equal(before.labels, train.labels) or before.latents is None:
        raise ValueError("the baseline kept no latents of the same training samples")
    assert baseline is not None and train.latents is not None
    clouds = {"teacher targets": train.targets, baseline.arm: before.latents, colearned.arm: train.latents}
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
