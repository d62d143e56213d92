"""What our commands tell of bad input: one line on stderr and exit status 2, with a suggestion for a mistyped option."""

import argparse
import difflib
import dis
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn


DEBUG = "HF_COLEARN_DEBUG"  # the environment variable that shows every traceback
# Whose errors tell of input: the script, ours and Hugging Face's.
_CHECKING = {"__main__", "accelerate", "datasets", "hf_colearn", "huggingface_hub", "peft", "transformers"}
_PATIENCE_S = 5.0  # within which a launcher ends the other processes of a failed one


_names: list[str | None] = []  # and no ContextVar: `datasets` could not hash it, which an editable package takes along


@contextmanager
def called_as(name: str | None) -> Iterator[None]:
    """What a script is called in its `--help` and errors, where it is not the name of its file."""
    _names.append(name)
    try:
        yield
    finally:
        _names.pop()


def program() -> str:
    """What the running script is called."""
    return (_names[-1] if _names else None) or Path(sys.argv[0]).name


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, which suggests an option for one that it does not know."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._no_option(unknown[0]))
        return options

    def error(self, message: str) -> NoReturn:
        end_with(message, self.prog)

    def _no_option(self, word: str) -> str:
        if not word.startswith("-"):
            return f"'{word}' belongs to no option: `--help` lists the options."
        asked = word.partition("=")[0]
        near = difflib.get_close_matches(asked.replace("-", "_"), sorted(set(self._options())), n=1)
        meant = f"did you mean {near[0].replace('__', '--', 1)}?" if near else "`--help` lists the options."
        return f"'{asked}' is no option: {meant}"

    def _options(self) -> Iterator[str]:
        """The names of all options, those of subcommands too, every hyphen written as an underscore."""
        for action in self._actions:
            yield from (name.replace("-", "_") for name in action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                for subparser in action.choices.values():
                    yield from subparser._options()


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's `main()`. What is wrong with the input ends it with one line on stderr and exit status 2.

    Anything else, such as an error within torch, keeps its traceback; with `HF_COLEARN_DEBUG=1` in the environment
    everything does.
    """
    try:
        main()
    except Exception as error:
        if os.environ.get(DEBUG) or not is_of_input(error):
            raise
        end_with(str(error))


def is_of_input(error: Exception) -> bool:
    """Whether an error tells of bad input: a file or a package that is missing, an error of our own classes, or a ValueError
    or TypeError that a `raise` in our code or in Hugging Face's libraries has made, which is where input is checked.
    """
    if isinstance(error, (OSError, ImportError)) or type(error).__module__.startswith("hf_colearn."):
        return True
    place = error.__traceback__
    if not isinstance(error, (ValueError, TypeError)) or place is None:
        return False
    while place.tb_next is not None:
        place = place.tb_next
    module = place.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in _CHECKING and _is_raise(place)


def _is_raise(place: TracebackType) -> bool:
    return place.tb_frame.f_code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def end_with(message: str, prog: str | None = None) -> NoReturn:
    """Ends the process with a message in one line, after the name of the command, and exit status 2.

    Of the processes of a run the main one tells it. Another waits before it does: where all have met the same error, the
    launcher has ended it by then.
    """
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        time.sleep(_PATIENCE_S)
    where = f" (process {rank})" if rank > 0 else ""
    name = (prog or program()).removesuffix(".py")
    print(f"{name}{where}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        os._exit(2)  # at once: the others may wait for this process in a collective, and so would its own way out
    sys.exit(2)
