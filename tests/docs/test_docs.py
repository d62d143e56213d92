"""The API reference builds without a warning, holds every public name, and speaks to users."""

import importlib
import inspect
import pkgutil
import re
import sys

import pytest

import hf_colearn
from tests.docs.__main__ import build


def documented():
    """What has a docstring in the package, by its full name: modules, their functions and classes, and methods."""
    for found in pkgutil.walk_packages(hf_colearn.__path__, "hf_colearn."):
        module = sys.modules.get(found.name) or importlib.import_module(found.name)
        yield found.name, module
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) == found.name and not name.startswith("_"):
                yield f"{found.name}.{name}", thing
                members = vars(thing).items() if inspect.isclass(thing) else ()
                yield from ((f"{found.name}.{name}.{method}", member) for method, member in members)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    output = tmp_path_factory.mktemp("docs")
    assert build(output) == []
    return output


def test_every_public_name_has_its_place_and_its_constructor(pages):
    page = (pages / "hf_colearn.html").read_text()
    anchors = set(re.findall(r'<section id="([^"]+)"', page))
    assert set(hf_colearn.__all__) <= anchors
    assert 'id="CoLearningTrainer.__init__"' in page and 'id="TeacherBank.encode"' in page
    for room in (
        "alpha",
        "analysis",
        "balance",
        "co_training",
        "corpora",
        "data",
        "evaluation",
        "hub",
        "models",
        "objectives",
        "teachers",
    ):
        assert f'href="hf_colearn/{room}.html"' in page
    assert "url=./hf_colearn.html" in (pages / "index.html").read_text()


def test_references_are_links_sections_are_lists_and_formulas_are_mathml(pages):
    text = "".join(path.read_text() for path in pages.rglob("*.html"))
    assert not re.findall(r"\[<code>.{,80}?</code>\](?!\()", text)  # a reference that stayed as it was written
    assert "\\\\(" not in text and "<msup>" in text
    bank = (pages / "hf_colearn" / "teachers" / "bank.html").read_text()
    assert "Arguments:" in bank and "Returns:" in bank and "Raises:" in bank
    assert 'src="http' not in text  # opens offline
    balance = (pages / "hf_colearn" / "balance.html").read_text()  # with the table that lies beside the module
    assert "<th>gradient accumulation</th>" in balance and ".. include::" not in text


def test_no_docstring_refers_to_a_design_that_a_user_has_not():
    found = [
        name
        for name, thing in documented()
        if re.search(r"\b[Tt]he design\b|\bDESIGN\b|\b[Cc]ontract \d", inspect.getdoc(thing) or "")
    ]
    assert found == []
