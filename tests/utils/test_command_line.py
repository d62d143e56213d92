"""Bad input ends a command with one line and exit status 2; errors that are no input's keep their traceback."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_colearn import RandomPrompt, Teacher, TeacherBank
from hf_colearn.hub.publish import PublishError
from hf_colearn.utils.command_line import DEBUG, CommandParser, run_script
from hf_colearn.utils.extras import extra


def raises(error):
    raise error


def missing_package():
    with extra("demo", "MiniLM comes with a package"):
        import no_such_package  # noqa: F401


OF_INPUT = {
    "a check of ours": (lambda: RandomPrompt("no place", 3), "has no single place for the class"),
    "a TypeError of ours": (lambda: Teacher(TeacherBank), "bank=TeacherBank is a class"),
    "a missing file": (Path("nowhere.csv").read_text, "nowhere.csv"),
    "a missing package": (missing_package, "pip install 'hf-colearn[demo]'"),
    "what the Hub refused": (lambda: raises(PublishError("the Hub is down")), "the Hub is down"),
    "a message of\nseveral lines": (lambda: raises(OSError("not here\n\nand not there")), "not here and not there"),
}
OF_THE_PROGRAM = {
    "numpy": lambda: np.zeros(3) + np.zeros(4),
    "torch": lambda: torch.zeros(3) @ torch.zeros(4),
    "a conversion": lambda: int("x"),
    "a wrong call": lambda: RandomPrompt(),
    "an assertion": lambda: raises(AssertionError()),
}


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    monkeypatch.setattr("sys.argv", ["recipes/mine.py"])


@pytest.mark.parametrize("main, text", OF_INPUT.values(), ids=[name.split("\n")[0] for name in OF_INPUT])
def test_an_error_of_the_input_is_one_line(main, text, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and not out
    assert err.startswith("mine: ") and text in err and err.count("\n") == 1


@pytest.mark.parametrize("main", OF_THE_PROGRAM.values(), ids=[*OF_THE_PROGRAM])
def test_an_error_of_the_program_keeps_its_traceback(main):
    with pytest.raises((AssertionError, RuntimeError, TypeError, ValueError)):
        run_script(main)


def test_everything_keeps_its_traceback_where_that_is_asked_for(monkeypatch):
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(OSError, match="not here"):
        run_script(lambda: raises(OSError("not here")))


@pytest.fixture
def parser():
    parser = CommandParser(prog="mine.py", allow_abbrev=False)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--seeds", type=int)
    return parser


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--imge_size", "3"], "mine: '--imge_size' is no option: did you mean --image_size?"),
        (["--image-sise=3"], "mine: '--image-sise' is no option: did you mean --image_size?"),
        (["--zzz"], "mine: '--zzz' is no option: `--help` lists the options."),
        (["more"], "mine: 'more' belongs to no option: `--help` lists the options."),
        (["--seeds", "many"], "mine: argument --seeds: invalid int value: 'many'"),
    ],
)
def test_a_mistyped_option_gets_a_suggestion(parser, argv, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(argv)
    assert ended.value.code == 2 and capsys.readouterr().err == message + "\n"
    assert parser.parse_args(["--seeds", "2"]) == argparse.Namespace(image_size=None, seeds=2)
