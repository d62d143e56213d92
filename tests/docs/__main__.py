"""Builds the API reference from the docstrings: `python -m tests.docs [--output build/docs]`, as `make docs` does.

pdoc renders them, because it reads Markdown, Google's sections and names that are loaded on first use, needs no
configuration file, and its pages open offline. Two forms of Hugging Face's docstrings are translated for it: references
such as [`Name`] and [`~module.Name`] become links, and LaTeX between \\( and \\) becomes MathML; a line
`.. include:: FILE` becomes the Markdown file beside the module. The exit status is 1 where anything warns, such as a
reference to a name that does not exist.
"""

import argparse
import importlib
import pkgutil
import pydoc
import re
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pdoc.doc
import pdoc.docstrings
import pdoc.render
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from pdoc.render_helpers import qualname_candidates, relative_link

import hf_colearn


EXTERNAL = ("transformers", "datasets", "peft", "torch", "huggingface_hub")  # a short name may be one of theirs
REFERENCE = re.compile(r"\[`(~?)([\w.]+)(\(\))?`\](?!\()")
INCLUDE = re.compile(r"^\.\. include:: (\S+)$", flags=re.MULTILINE)
MATHS = re.compile(r"\\\\\((.+?)\\\\\)", flags=re.DOTALL)


def build(output: Path) -> list[str]:
    """Writes the pages.

    Args:
        output (`Path`): Their folder; `index.html` leads to all of them.

    Returns:
        `list[str]`: Every warning.
    """
    rooms = [found.name for found in pkgutil.iter_modules(hf_colearn.__path__) if found.name != "__main__"]
    for found in pkgutil.walk_packages(hf_colearn.__path__, "hf_colearn."):
        if found.name != "hf_colearn.__main__":  # it would run the command
            importlib.import_module(found.name)  # here, before warnings count: other packages have some of their own
    public = {name: getattr(hf_colearn, name) for name in hf_colearn.__all__}
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        footer_text=f"hf_colearn {hf_colearn.__version__}",
        template_directory=Path(__file__).parent,
    )
    pdoc.render.env.filters["as_markdown"] = as_markdown
    # pdoc looks for a package's modules in `__all__`, too, and for its names in its dictionary alone.
    everything = patch.dict(vars(hf_colearn), public, __all__=[*public, *rooms])
    with everything, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc("hf_colearn", output_directory=output)
    return list(dict.fromkeys(str(warning.message) for warning in caught))


@pass_context
def as_markdown(context: Any, doc: pdoc.doc.Doc) -> str:
    """The docstring of what pdoc found, from the form of Hugging Face."""
    text = INCLUDE.sub(lambda found: _beside(doc, found[1]), doc.docstring)
    text = MATHS.sub(lambda found: mathml(" ".join(found[1].split())), text)
    text = REFERENCE.sub(lambda found: link(*found.groups(""), doc, context["module"], context["all_modules"]), text)
    return pdoc.docstrings.google(text)


def _beside(doc: pdoc.doc.Doc, name: str) -> str:
    """The Markdown file beside a module, whose headings go below the page's own."""
    assert isinstance(doc, pdoc.doc.Module) and doc.source_file is not None
    return re.sub(r"^#", "##", (doc.source_file.parent / name).read_text(encoding="utf-8"), flags=re.MULTILINE)


def link(
    short: str, name: str, call: str, doc: pdoc.doc.Doc, page: pdoc.doc.Module, pages: dict[str, pdoc.doc.Module]
) -> str:
    """A reference in the docstring of `doc` as a link, or as code where it names something of another package."""
    shown = f"`{name.rpartition('.')[2] if short else name}{call}`"
    if name in pages:
        return f"[{shown}]({relative_link(page.modulename, name)})"
    home = pages.get(doc.taken_from[0], page)
    for place in (page, home, pages["hf_colearn"], *pages.values()):
        for qualname in qualname_candidates(name.removeprefix(f"{place.modulename}."), doc.qualname):
            if place.get(qualname) is not None:
                return f"[{shown}]({relative_link(page.modulename, place.modulename)}#{qualname})"
    if not any(pydoc.locate(f"{package}.{name}") for package in EXTERNAL) and not ("." in name and pydoc.locate(name)):
        warnings.warn(
            f"{doc.taken_from[0]}.{doc.qualname} refers to [`{short}{name}`], which is not there", stacklevel=2
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/docs"), help="folder of the pages")
    output = parser.parse_args().output
    found = build(output)
    print(*(f"warning: {warning}" for warning in found), f"Written: {output / 'index.html'}", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
