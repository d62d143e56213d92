"""Runs the examples of docstrings."""

import doctest
import inspect


def run_example(documented):
    """Runs the `>>>` lines of an object's docstring and compares what they show."""
    text = "\n".join(line for line in inspect.getdoc(documented).splitlines() if not line.startswith("```"))
    test = doctest.DocTestParser().get_doctest(text, {}, documented.__name__, None, None)
    assert test.examples, f"{documented.__name__} has no example"
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.failed == 0
