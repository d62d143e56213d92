import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hf_colearn.analysis.plots.style import arm_styles, finish, finite, new_figure, seeds, spread

KINDS = {"ce": "baseline"}
KINDS |= {f"teacher {i}": "colearned" for i in range(6)} | {f"null {i}": "null" for i in range(4)}
KINDS |= {f"alone {i}": "reference" for i in range(4)}


def greyness(colour):
    return max(to_rgb(colour)) - min(to_rgb(colour))


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], parts))


def test_no_two_arms_look_alike_with_or_without_colour():
    styles = arm_styles(KINDS)
    assert list(styles) == list(KINDS)
    looks = [(s.colour, s.dashes, s.marker, s.filled) for s in styles.values()]
    assert len(set(looks)) == len(KINDS)
    assert len({look[1:] for look in looks}) == len(KINDS)


def test_kinds_are_told_apart_at_a_glance():
    styles = arm_styles(KINDS)
    of_kind = {kind: [styles[arm] for arm in KINDS if KINDS[arm] == kind] for kind in KINDS.values()}
    assert of_kind["baseline"][0].colour == "#000000" and of_kind["baseline"][0].dashes == ()
    assert all(style.dashes == () and greyness(style.colour) > 0.3 for style in of_kind["colearned"])
    assert all(style.dashes and greyness(style.colour) == 0 and not style.filled for style in of_kind["null"])
    assert all(style.dashes[0] == 1 and not style.filled for style in of_kind["reference"])  # dots
    # at least 1.9 : 1 against white (thin lines of pure yellow would have 1.07)
    assert all(1.05 / (luminance(style.colour) + 0.05) > 1.9 for style in styles.values())


@pytest.mark.parametrize("blindness", ["protan", "deutan"])
def test_neighbouring_colours_stay_apart_for_colour_blind_readers(blindness):
    # Viénot, Brettel & Mollon 1999: linear RGB as dichromats see it.
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    seen = {
        "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    }[blindness]
    project = np.linalg.inv(to_lms) @ seen @ to_lms

    def closest(colours):
        views = [np.clip(project @ np.array(to_rgb(colour)) ** 2.2, 0, 1) ** (1 / 2.2) for colour in colours]
        return min(np.linalg.norm(a - b) for a, b in itertools.combinations(views, 2))

    styles = arm_styles(KINDS)
    assert closest([styles[arm].colour for arm in KINDS if KINDS[arm] in ("baseline", "colearned")]) > 0.14
    assert closest([f"C{i}" for i in range(7)]) < 0.1  # matplotlib's own colours do not


def test_a_style_depends_on_the_arms_of_its_kind_alone():
    assert arm_styles({"null 0": "null", "teacher 0": "colearned"})["null 0"] == arm_styles(KINDS)["null 0"]


@pytest.mark.parametrize("arm", list(KINDS))
def test_a_swatch_is_the_line_with_its_dashes_and_marker_as_svg(arm):
    style = arm_styles(KINDS)[arm]
    line, marker = ElementTree.fromstring(style.swatch())
    assert line.get("stroke") == marker.get("stroke") == style.colour
    dashes = [float(length) / style.width for length in line.get("stroke-dasharray", "").split()]
    assert dashes == pytest.approx(style.dashes, rel=1e-3)
    assert marker.get("fill") == (style.colour if style.filled else "#ffffff")


def test_labels_move_apart_as_little_as_possible():
    assert spread([5.0, 0.0, 1.0], 1).tolist() == [5, 0, 1]  # far enough
    assert spread([0.0, 0.0], [1, 3]).tolist() == [-1, 1]  # half of each one's room between them
    assert spread([0.0, 0.0], 1).tolist() == [-0.5, 0.5]
    # three at 0 and one at 1.2: the three spread around 0 reach to 1, and push the fourth:
    # minimise (a)^2 + (a+1)^2 + (a+2)^2 + (a+3-1.2)^2 over a, so a = -(0 + 1 + 2 + 1.8) / 4 = -1.2
    assert spread([0.0, 0.0, 0.0, 1.2], 1) == pytest.approx([-1.2, -0.2, 0.8, 1.8])


def test_long_titles_are_wrapped_within_the_figure():
    figure, (axis,) = new_figure()
    axis.set_ylabel("y")
    finish(figure, "A long heading of a picture with many words " * 2, "and a line below it that is longer still " * 3)
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(box.x0 > 0 and box.x1 < width and box.y1 < height for box in boxes)
    assert boxes[0].y0 > boxes[1].y1 > boxes[1].y0 > axis.get_window_extent().y1


def test_values_that_are_not_finite_are_counted_and_named():
    with pytest.raises(ValueError, match="2 of 3 scores of 'a' are not finite"):
        finite("scores of 'a'", [np.nan, 1, np.inf])


def test_seeds_are_counted_in_words():
    assert [seeds([1]), seeds([5, 5]), seeds([3, 5])] == ["1 seed", "5 seeds", "3 to 5 seeds"]
