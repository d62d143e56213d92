"""Bad situations as test cases: each must be refused in time, with the way out, and with nothing written or lost."""

from pathlib import Path

import pytest


class Refusals:
    """The bad situations of a test module, registered by `@refusals.case(error, at_fault, *way_out)`.

    A situation is a generator that takes a folder: it builds the bad situation of real parts, yields, and then does what
    must fail. The module checks all of them in one parametrised test:

        @pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
        def test_it_is_refused(situation, error, texts, tmp_path):
            assert_refused(situation, error, texts, tmp_path)
    """

    NAMES = ("situation", "error", "texts")

    def __init__(self):
        self.cases = []

    def case(self, error, at_fault, *way_out):
        """Registers a bad situation, the error it must raise, and what the message must say."""

        def register(situation):
            self.cases.append(pytest.param(situation, error, (at_fault, *way_out), id=situation.__name__))
            return situation

        return register


def assert_refused(situation, error, texts, folder: Path) -> None:
    """From the situation's `yield` on it raises the error, and no file or folder appears, vanishes or changes."""
    for name in ("out", "banks"):
        (folder / name).mkdir()
    steps = situation(folder)
    next(steps)
    before = everything_in(folder)
    with pytest.raises(error) as caught:
        next(steps, None)
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)
    after = everything_in(folder)
    assert sorted(after) == sorted(before)
    assert after == before


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
