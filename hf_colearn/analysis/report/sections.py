"""The sections of a report: each answers one question about finished runs, and says what it cannot tell.

What is undefined (a run that kept no latents, a cloud that collapsed, one class) raises `ValueError` where it is
computed; here its sentence takes the figure's place.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hf_colearn.analysis.plots import comparisons, projection
from hf_colearn.analysis.plots import training_curves as plots
from hf_colearn.analysis.plots.style import ArmStyle
from hf_colearn.analysis.report.page import Picture, Section, Table
from hf_colearn.analysis.runs import Run, compare_runs, histories
from hf_colearn.analysis.statistics.compare import Comparison


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
        shares (`Sequence[str]`): Of other test sets on which to be right is no merit, such as following a false cue.
    """

    runs: Sequence[Run]
    comparison: Comparison | None
    styles: Mapping[str, ArmStyle]
    metric: str
    source: str
    methods: Sequence[projection.Method]
    shares: Sequence[str] = ()

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
        figure = comparisons.plot_differences(found.comparison, found.styles)
        alt = f"Differences of every arm to the baseline in percentage points. {found.comparison.headline}"
        caption = "Where a bar does not touch the line at 0, the arm differs from the baseline."
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
            figure = plots.plot_losses(curves, terms=(term,), styles=found.styles, target_variance=floor, legend=False)
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
        key.removeprefix(marker): compare_runs(found.runs, key, found.source)
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
            header = ["arm", *(name.replace("_", " ") for name in everything)]
            section.tables.append(Table(header, rows))
        for name, comparison in comparisons.items():
            told = name.replace("_", " ")
            if name in found.shares:
                section.notes.append(f"'{told}' is no score: it is how often an arm does so, and less is better.")
            else:
                section.notes.append(f"On '{told}': {comparison.headline}")
    return section
