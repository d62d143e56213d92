"""Curves of what a balance method did, from its logs to the report."""

import json

import numpy as np
import pytest

from hf_colearn.analysis.plots.balance import balance_curve, plot_balance
from hf_colearn.analysis.report import report
from hf_colearn.analysis.run import Run, Samples


N = 20
IMAGE, AUDIO = "balance_coefficient_image", "balance_coefficient_audio"


def logged(**curves):
    """A log history of a training, an evaluation and a summary; a value a step, None where it was not logged."""
    entries = [{"step": 10 * (i + 1), "loss": 1.0} for i in range(len(next(iter(curves.values()))))]
    for name, values in curves.items():
        for entry, value in zip(entries, values, strict=True):
            entry.update({} if value is None else {f"balance_{name}": value})
    return [*entries, {"step": 20, "eval_loss": 9.0}, {"step": 20, "train_loss": 9.0}]


def run(arm, kind, seed, history):
    labels = np.arange(N) % 2
    predictions = np.where(np.arange(N) < 12 + seed, labels, 1 - labels)
    modalities = {"image": np.eye(N, 3, dtype=np.float32), "fast_audio": np.eye(N, 3, dtype=np.float32)}
    latents = Samples(labels, None, None, modalities)
    return Run(
        arm, kind, seed, {"accuracy": (12 + seed) / N}, history, 1.0, labels, predictions, np.full(N, 0.8), latents
    )


def words(figure):
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


# ---- the numbers of a curve ----
def test_a_curve_is_mean_lowest_and_highest_over_seeds_at_common_steps():
    seeds = [logged(coefficient_image=[0.2, 0.4, 1.0]), logged(coefficient_image=[0.6, 0.4, None])]
    curve = balance_curve(seeds, IMAGE)
    # step 10: (0.2 + 0.6) / 2; the second seed has no third value
    assert curve["steps"] == [10, 20] and curve["mean"] == pytest.approx([0.4, 0.4])
    assert (curve["lowest"], curve["highest"]) == ([0.2, 0.4], [0.6, 0.4])
    with pytest.raises(ValueError, match="its seeds logged 'balance_coefficient_image' at no common step"):
        balance_curve([seeds[0], logged(coefficient_audio=[1.0])], IMAGE)


# ---- the picture ----
def test_a_figure_has_a_line_a_modality_that_is_named_at_its_end():
    seeds = [logged(coefficient_image=[0.2, 0.4], coefficient_audio=[1.0, 1.0])]
    seeds.append(logged(coefficient_image=[0.6, 0.8], coefficient_audio=[1.0, 1.0]))
    figure = plot_balance(seeds, {"image": IMAGE, "audio": AUDIO}, "coefficient", heading="ogm", last=100)
    (axis,) = figure.axes
    lines = {tuple(line.get_ydata()): line.get_color() for line in axis.lines if len(line.get_xdata()) == 2}
    assert sorted(lines) == [pytest.approx((0.4, 0.6)), (1.0, 1.0)] and len(set(lines.values())) == 2
    corners = {tuple(point) for point in axis.collections[0].get_paths()[0].vertices}
    assert corners == {(10, 0.2), (10, 0.6), (20, 0.4), (20, 0.8)}
    assert {text.get_text() for text in axis.texts} == {"image", "audio"}
    assert words(figure) == "ogm mean and range over 2 seeds" and axis.get_xlim()[1] == pytest.approx(102)


@pytest.mark.parametrize(
    ("values", "scale", "span"),
    [([0.01, 1.0], "log", None), ([0.0, 1.0], "linear", None), ([0.5, 0.5 + 1e-9], "linear", (0, 1))],
    ids=["wide", "with a zero", "constant"],
)
def test_axes_are_logarithmic_only_for_a_wide_positive_range_and_rounding_is_no_curve(values, scale, span):
    figure = plot_balance([logged(coefficient_image=values)], {"image": IMAGE}, "coefficient", heading="arl")
    assert figure.axes[0].get_yscale() == scale
    assert span is None or figure.axes[0].get_ylim() == pytest.approx(span, abs=1e-6)


# ---- the section ----
@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    runs = []
    for seed in (0, 1):
        runs.append(run("ce", "baseline", seed, [{"step": 10, "loss": 1.0}]))
        low = 0.25 + 0.5 * seed
        curves = {"coefficient_image": [low, low], "coefficient_fast_audio": [1.0, 1.0], "score_image": [3.0, 5.0]}
        runs.append(run("ogm", "colearned", seed, logged(**curves, conflicts=[0.0, 1.0])))
        curves = {"coefficient_fused": [0.5, None, 0.7], "gain_fused": [2.0, None, None]}  # measured once
        runs.append(run("g-blend", "colearned", seed, logged(**curves)))
        runs.append(run("late", "reference", seed, [{"step": 900, "loss": 1.0}]))
    found = report(runs, folder, methods=())
    return found, json.loads((folder / "report.json").read_text()), folder


def test_the_report_tells_the_numbers_of_every_arm_that_logged_some(made):
    found, content, folder = made
    balance = content["findings"]["balance"]
    assert balance["tables"][0]["header"] == ["arm", "quantity", "image", "fast_audio", "fused", "of no modality"]
    assert balance["tables"][0]["rows"] == [
        # the mean of the seeds' 0.25 and 0.75; (0.5 + 0.7) / 2; (3 + 5) / 2; (0 + 1) / 2
        ["ogm", "coefficient", "0.5 [0.25, 0.75]", "1", "-", "-"],
        ["g-blend", "coefficient", "-", "-", "0.6 [0.5, 0.7]", "-"],
        ["ogm", "score", "4 [3, 5]", "-", "-", "-"],
        ["ogm", "conflicts", "-", "-", "-", "0.5 [0, 1]"],
        ["g-blend", "gain", "-", "-", "2", "-"],
    ]
    assert balance["curves"]["ogm"]["score_image"]["mean"] == [3.0, 5.0] and "ce" not in balance["curves"]
    assert balance["curves"]["g-blend"]["coefficient_fused"]["steps"] == [10, 30]
    assert "| ogm | coefficient | 0.5 [0.25, 0.75] | 1 |" in (folder / "report.md").read_text()
    assert 'id="balance"' in (folder / "report.html").read_text()


def test_coefficients_come_first_and_every_arm_has_a_panel(made):
    found, _, folder = made
    section = next(section for section in found.sections if section.name == "balance")
    rows = [(row, [picture.alt.split(" over")[0] for picture in pictures]) for row, pictures in section.rows()]
    assert rows == [
        ("Coefficients", ["coefficient of 'ogm'", "coefficient of 'g-blend'"]),
        ("What else was measured", ["score of 'ogm'", "conflicts of 'ogm'"]),
    ]
    assert (folder / "figures" / "balance_coefficient_ogm.png").is_file() and not section.notes
    # They have one axis, to the last step of an arm that is drawn, 30, and a margin of 2 %.
    assert {picture.figure.axes[0].get_xlim()[1] for picture in section.pictures} == {1.02 * 30}


def test_a_report_without_a_balance_method_has_no_such_section(tmp_path):
    found = report([run("ce", "baseline", 0, [{"step": 10, "loss": 1.0}])], tmp_path, methods=())
    assert "balance" not in [section.name for section in found.sections]


def test_a_curve_without_a_common_step_is_noted_and_the_others_are_drawn(tmp_path):
    histories = [
        logged(coefficient_image=[0.5, 0.4], lost=[1.0, None]),
        logged(coefficient_image=[0.5, 0.4], lost=[None, 1.0]),
    ]
    runs = [run("ogm", "baseline", seed, history) for seed, history in enumerate(histories)]
    section = next(section for section in report(runs, tmp_path, methods=()).sections if section.name == "balance")
    assert [picture.name for picture in section.pictures] == ["balance_coefficient_ogm"]
    assert section.notes[-1] == "'ogm': its seeds logged 'balance_lost' at no common step, so that no curve has a mean"
