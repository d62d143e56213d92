"""The sections of a report: each answers one question about finished runs, and says what it cannot tell.

What is undefined (a run that kept no latents, a cloud that collapsed, one class) raises `ValueError` where it is
computed; here its sentence takes the figure's place.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_colearn.analysis import figures, geometry, plots, projection
from hf_colearn.analysis.compare import Comparison
from hf_colearn.analysis.looks import ArmStyle
from hf_colearn.analysis.page import Picture, Section, Table
from hf_colearn.analysis.runs import Run, compare_runs, histories
from hf_colearn.analysis.transport import transport_triple, triangle_warning
from hf_colearn.analysis.triangle import plot_transport


PERPLEXITIES = (5, 30, 50)
MOST_TRANSPORTED = 500  # samples a cloud: more are drawn from in mini-batches


@dataclass(frozen=True)
class Findings:
    """What the sections read.

    Args:
        runs (`list[Run]`): Those that are compared: every arm with the same seeds.
        comparison (`Comparison`, *optional*): None where the arms cannot be compared.
        styles (`Mapping[str, ArmStyle]`): One look an arm.
        metric (`str`): What the arms are compared on.
        source (`str`): `"teacher"` or `"pairing"`.
        methods (`Sequence[str]`): Of projections: `"pca"`, `"tsne"`, `"umap"`.
    """

    runs: Sequence[Run]
    comparison: Comparison | None
    styles: Mapping[str, ArmStyle]
    metric: str
    source: str
    methods: Sequence[projection.Method]

    @property
    def arms(self) -> dict[str, list[Run]]:
        """The runs of every arm, by seed."""
        return {
            arm: [run for run in self.runs if run.arm == arm] for arm in dict.fromkeys(run.arm for run in self.runs)
        }

    def first(self, kind: str) -> Run | None:
        """The first run of the first arm of a kind: picked by order, not by score."""
        return next((run for run in self.runs if run.kind == kind), None)


@contextmanager
def said(section: Section, what: str) -> Iterator[None]:
    """What cannot be told is said in the section's notes."""
    try:
        yield
    except (ValueError, ImportError) as error:
        section.notes.append(f"{what}: {error}")


def arms_section(found: Findings) -> Section:
    """Did the arms differ?"""
    section = Section("arms", "The arms")
    if found.comparison is None:
        header = ["arm", "kind", "seeds", f"{found.metric} [%], mean"]
        rows = []
        for arm, runs in found.arms.items():
            scores = [run.metrics.get(found.metric, float("nan")) for run in runs]
            rows.append([arm, runs[0].kind, str(len(runs)), f"{100 * np.mean(scores):.2f}"])
        section.tables.append(Table(header, rows, "Every arm by itself: they are not compared."))
        section.lead = "Each arm's own score; no difference between them is stated, for the reason above."
        return section
    section.lead = (
        f"{found.comparison.n_seeds} seed{'s' if found.comparison.n_seeds > 1 else ''} an arm, scored once on the test set. "
        "Null controls have everything but the content: what they gain needs none."
    )
    header, *rows = found.comparison.rows()
    section.tables.append(Table(header, rows))
    section.notes.extend(found.comparison.notes())
    with said(section, "No picture of the differences"):
        figure = figures.plot_differences(found.comparison, found.styles)
        alt = f"Differences of every arm to the baseline in percentage points. {found.comparison.headline}"
        caption = "Dots are seeds, bars intervals; the grey band is the strongest null control's interval."
        section.pictures.append(Picture("differences", figure, alt, caption))
    others = _other_metrics(found)
    if others is not None:
        section.tables.append(others)
    return section


def _other_metrics(found: Findings) -> Table | None:
    keys = dict.fromkeys(
        key
        for run in found.runs
        for key in run.metrics
        if key != found.metric and "excluded" not in key and "_on_" not in key
    )
    if not keys:
        return None
    rows = []
    for arm, runs in found.arms.items():
        means = [[run.metrics[key] for run in runs if key in run.metrics] for key in keys]
        rows.append([arm, *(f"{100 * np.mean(values):.2f}" if values else "-" for values in means)])
    return Table(
        ["arm", *(key.replace("_", " ") for key in keys)],
        rows,
        "Everything else that was measured, in %, means over seeds",
    )


def training_section(found: Findings) -> Section:
    """How did the losses and alpha go?"""
    section = Section("training", "How training went", "Every term of the loss as it is, before alpha weighs it.")
    curves = histories(found.runs)
    logged = {key for arm in curves.values() for run in arm for entry in run for key in entry}
    logs = {arm: [run.history for run in runs] for arm, runs in found.arms.items()}
    floors = {
        arm: float(np.mean([run.facts["latent_floor"] for run in runs]))
        for arm, runs in found.arms.items()
        if all("latent_floor" in run.facts for run in runs)
    }
    section.numbers["latent_floor"] = floors
    for term in sorted((key for key in logged if key.startswith("loss_")), key=lambda key: (key != "loss_task", key)):
        with said(section, f"No picture of {term}"):
            floor = floors if term == "loss_latent" else None
            floor = {arm: value for arm, value in (floor or {}).items() if value > 0} or None
            figure = plots.plot_losses(curves, terms=(term,), styles=found.styles, floor=floor, legend=False)
            caption = ""
            if floor:
                caption = (
                    "The dotted lines are floors: the variance of a sample's targets over the epochs, below which no student "
                    "can come, whatever it learns (Lee & Yoon pair at random)."
                )
            section.pictures.append(Picture(term, figure, f"{term} of every arm over the optimizer steps", caption))
    if any(key == "alpha" or key.startswith("alpha_") for key in logged):
        with said(section, "No picture of alpha"):
            figure = plots.plot_alphas(logs, styles=found.styles, legend=False)
            section.pictures.append(
                Picture("alpha", figure, "Alpha of every arm over the epochs", "Its share of the loss.")
            )
    if not section.pictures:
        section.notes.append("No losses were logged: train with a smaller `logging_steps`.")
    return section


def latents_section(found: Findings) -> Section:
    """How did the latent space change?"""
    section = Section(
        "latents",
        "How the latent space changed",
        "First numbers, which no picture can bend; then maps, of the first seed. Test samples, unless said otherwise.",
    )
    with said(section, "Latents by numbers"):
        section.tables.append(_geometry_table(found, section))
    baseline = found.first("baseline")
    told = [run for run in found.runs if run.kind in ("colearned", "null") and run.train is not None]
    told = [run for run in told if run.train is not None and run.train.targets is not None]
    if told and baseline is not None:
        _transport(found, section)
    _maps(found, section)
    return section


def _geometry_table(found: Findings, section: Section) -> Table:
    measures: dict[str, Callable[[Run], float]] = {
        "linear probe [%]": lambda run: 100 * geometry.cross_validated_probe(run.test.latents, run.test.labels),
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
                section.notes.append(f"{name} of '{arm}': {error}")
                continue
            row.append(f"{np.mean(values):.3g}")
            section.numbers.setdefault("geometry", {}).setdefault(arm, {})[name] = values
        rows.append(row)
    caption = (
        "Means over seeds (the probe: first seed, cross-validated). Silhouette and Fisher ratio: how far classes lie apart; "
        "alignment (lower: closer) and uniformity (lower: more even) after Wang & Isola 2020; CKA 1 and Procrustes 0: the same "
        "up to rotation and scale"
    )
    return Table(["arm", *measures], rows, caption)


def _transport(found: Findings, section: Section) -> None:
    header = ["arm", "split", "targets to baseline", "targets to this arm", "baseline to this arm"]
    rows: list[list[str]] = []
    squared: list[list[str]] = []
    baseline = {run.seed: run for run in found.runs if run.kind == "baseline"}
    drawn = found.first("colearned")
    for arm, runs in found.arms.items():
        run = runs[0]
        if run.kind not in ("colearned", "null") or run.train is None or run.train.targets is None:
            continue
        other = baseline.get(run.seed)
        for split in ("train", "test"):
            with said(section, f"Transport distances of '{arm}', {split}"):
                mine, its = getattr(run, split), getattr(other, split, None)
                if its is None:
                    raise ValueError("the baseline kept no latents of this split")
                targets = run.train.targets[np.isfinite(run.train.targets).all(axis=1)]
                triple = transport_triple(
                    _few(targets), _few(its.latents), _few(mine.latents), max_exact=MOST_TRANSPORTED, num_batches=4
                )
                sides = (triple.targets_to_baseline, triple.targets_to_colearned, triple.baseline_to_colearned)
                rows.append([arm, split, *(f"{side.w2:.3g}" for side in sides)])
                squared.append([arm, split, *(f"{side.w2_squared:.3g}" for side in sides)])
                section.numbers.setdefault("transport", []).append(
                    {"arm": arm, "split": split, "seed": run.seed}
                    | {
                        name: {"w2": side.w2, "w2_squared": side.w2_squared}
                        for name, side in zip(header[2:], sides, strict=True)
                    }
                )
                if warning := triangle_warning(triple):
                    section.notes.append(f"'{arm}', {split}: {warning}")
                section.notes.extend(
                    note
                    for note in dict.fromkeys(side.note for side in sides if side.note)
                    if note not in section.notes
                )
                if run is drawn and other is not None:
                    with said(section, "No picture of the distances"):
                        figure = plot_transport(
                            sides[0].w2, sides[1].w2, sides[2].w2, names=("teacher targets", other.arm, arm),
                            below=f"W2 between latents, {split} samples, seed {run.seed}",
                        )  # fmt: skip
                        section.pictures.append(
                            Picture(f"transport_{split}", figure, f"Wasserstein distances of '{arm}', {split} split",
                                    "To scale. Targets are those of training samples, for both splits.")
                        )  # fmt: skip
    if rows:
        seed = found.runs[0].seed
        section.tables.append(Table(header, rows, f"Wasserstein distance W2 [latent units], seed {seed}"))
        section.tables.append(Table(header, squared, f"The same squared, W2² [squared latent units], seed {seed}"))
        section.notes.append(
            "Lee & Yoon (ICLR 2025) print three such distances as W2. Theirs violate the triangle inequality, which W2 obeys, "
            "and fit as W2 squared, which does not: compare theirs with the second table. The targets of both rows are those "
            "of training samples, since test samples have no teacher."
        )


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
    targets = None if colearned is None or colearned.train is None else colearned.train.targets
    for method in found.methods:
        if method == "pca":
            with said(section, "No PCA map"):
                clouds = {run.arm: run.test.latents for run in shown}
                labels = shown[0].test.labels
                if any(len(run.test.labels) != len(labels) for run in shown):
                    raise ValueError("the arms kept other samples, which make no common map")
                if targets is not None and all(run.test.latents.shape[1] == targets.shape[1] for run in shown):
                    rows = np.random.default_rng(0).permutation(len(labels))[: len(targets)]
                    clouds = {
                        "teacher targets": targets[: len(rows)],
                        **{arm: z_ND[rows] for arm, z_ND in clouds.items()},
                    }
                    labels = labels[rows]
                    section.notes.append(
                        "In the joint PCA map the teacher's targets are of training samples; their classes are not drawn."
                    )
                figure = projection.plot_map(clouds, labels, "pca", class_names=names)
                caption = "One map for all clouds: distances between them are those of the two widest directions."
                section.pictures.append(Picture("map_pca", figure, f"PCA of {', '.join(clouds)}", caption))
            continue
        settings: Sequence[Any] = (
            projection.perplexities(len(shown[0].test.labels), PERPLEXITIES) if method == "tsne" else [None]
        )
        for perplexity in settings:
            for run in shown:
                with said(section, f"No {projection.NAMES[method]} map of '{run.arm}'"):
                    extra = {} if perplexity is None else {"perplexity": perplexity}
                    figure = projection.plot_map(
                        {run.arm: run.test.latents}, run.test.labels, method, class_names=names, **extra
                    )
                    told = "" if perplexity is None else f", perplexity {perplexity:g}"
                    name = f"map_{method}{'' if perplexity is None else f'_{perplexity:g}'}_{run.kind}"
                    caption = (
                        "Who is near whom may be read off; sizes of clusters, and distances between them, may not."
                    )
                    section.pictures.append(
                        Picture(name, figure, f"{projection.NAMES[method]} of '{run.arm}'{told}", caption)
                    )


def cost_section(found: Findings) -> Section:
    """What did it cost?"""
    section = Section("cost", "What it cost", "Means over seeds; time is of training alone, on this machine.")
    baselines = [run.seconds for run in found.runs if run.kind == "baseline"]
    base = float(np.mean(baselines)) if baselines else float("nan")
    rows = []
    for arm, runs in found.arms.items():
        seconds = float(np.mean([run.seconds for run in runs]))
        memory = [run.facts["peak_memory"] for run in runs if run.facts.get("peak_memory")]
        rows.append([
            arm, _or_dash(seconds, "{:.1f}"), _or_dash(seconds / base, "{:.2f}"),
            f"{np.mean(memory) / 2**20:,.0f}" if memory else "-", f"{runs[0].facts.get('parameters', 0):,}",
            f"{100 * float(np.mean([run.metrics.get(found.metric, float('nan')) for run in runs])):.2f}",
        ])  # fmt: skip
    header = ["arm", "time [s]", "time / baseline", "peak memory [MiB]", "parameters", f"{found.metric} [%]"]
    section.tables.append(Table(header, rows))
    on_device = any(run.facts.get("peak_memory_of_device") for run in found.runs)
    section.notes.append(
        "Peak memory is the device's, as torch allocated it." if on_device
        else "Peak memory is all that the process held, the libraries and data included: compare arms, not machines."
    )  # fmt: skip
    return section


def _or_dash(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "-"


def other_tests(found: Findings) -> dict[str, Comparison]:
    """Comparisons on the other test sets that every run was scored on, by their names."""
    marker = f"{found.metric}_on_"
    keys = [key for key in found.runs[0].metrics if key.startswith(marker)]
    return {
        key.removeprefix(marker).replace("_", " "): compare_runs(found.runs, key, found.source)
        for key in keys
        if all(key in run.metrics for run in found.runs)
    }


def tests_section(found: Findings) -> Section:
    """Do the arms hold on other test sets?"""
    section = Section("tests", "Other test sets")
    if found.comparison is None:
        return section
    with said(section, "Other test sets"):
        comparisons = other_tests(found)
        if comparisons:
            section.lead = "The same runs on other test samples: means over seeds, in %."
            everything = {"test": found.comparison, **comparisons}
            rows = [
                [arm.name, *(f"{100 * comparison.arms[i].mean.mean:.2f}" for comparison in everything.values())]
                for i, arm in enumerate(found.comparison.arms)
            ]
            section.tables.append(Table(["arm", *everything], rows))
            section.notes.extend(f"On '{name}': {comparison.headline}" for name, comparison in comparisons.items())
    return section
