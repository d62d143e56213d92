"""What a co-training has done, on disk after every fit: so that it goes on after a break.

`co_training.json` names the fits, the rounds and the labels gained; beside it `round-{r}/{view}/` holds a fit's student and its
predictions. Rank 0 writes and reads, all processes know the same.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_colearn.utils import distributed


STATE, OUTPUTS, STUDENT = "co_training.json", "outputs.npz", "student"


@dataclass
class State:
    """The rounds so far.

    Args:
        identity (`dict`): What the run depends on, and may not change when it is taken up again.
        fits (`dict`): By view, what each fit came to: its `round`, its labels, the log of its training.
        rounds (`list[dict]`): What every finished round came to.
        gained (`dict`): By view, `[row, class, round]` of every label that was gained.
        stopped (`str`, *optional*): Why no further round was trained; None as long as one may be.
        kept (`int`): The round whose students are the best ones.
    """

    identity: dict[str, Any]
    fits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    gained: dict[str, list[list[int]]] = field(default_factory=dict)
    stopped: str | None = None
    kept: int = 0

    def fit_of(self, view: str, round_: int) -> int | None:
        """The round of a view's last fit up to a round; None before its first one."""
        return max((fit["round"] for fit in self.fits.get(view, []) if fit["round"] <= round_), default=None)

    def write(self, folder: Path) -> None:
        """Replaces the file whole, or not at all."""
        if distributed.rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f"{STATE}.part"
            unfinished.write_text(json.dumps(vars(self)))
            unfinished.replace(folder / STATE)
        distributed.barrier()


def begun(folder: Path, identity: Mapping[str, Any], resume: bool) -> State:
    """The state to go on with, or a new one; without `resume`, what an earlier co-training left in the folder is removed.

    Raises:
        ValueError: If the folder holds a co-training of other settings, or its file is damaged.
    """
    new = State(json.loads(json.dumps(identity)))
    with distributed.raise_on_all_ranks():
        found = _read(folder / STATE) if resume and distributed.rank() == 0 else None
        if found is not None:
            _check_same(found.identity, new.identity, folder)
    found = distributed.from_main_process(found)
    if found is None and distributed.rank() == 0:
        (folder / STATE).unlink(missing_ok=True)
        for left in folder.glob("round-*"):
            shutil.rmtree(left)
    distributed.barrier()
    return found or new


def _check_same(begun_with: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    for name, value in asked.items():
        if begun_with.get(name) != value:
            raise ValueError(
                f"the co-training in '{folder}' has {name}={begun_with.get(name)!r}, and {value!r} is asked for now: resume "
                "with what it was begun with, or choose another output_dir."
            )


def _read(file: Path) -> State | None:
    if not file.is_file():
        return None
    try:
        return State(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"'{file}' is damaged ({error}): begin anew, without resume=True.") from error


def fit_folder(folder: Path, view: str, round_: int) -> Path:
    """Where a fit keeps its checkpoints, its student and its predictions."""
    return folder / f"round-{round_}" / view


def write_outputs(folder: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Writes the probabilities `(N, C)` of every part of the data."""
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.npz"
        np.savez(unfinished, **outputs)  # type: ignore[arg-type]
        unfinished.replace(folder / OUTPUTS)
    distributed.barrier()


def read_outputs(folder: Path) -> dict[str, np.ndarray]:
    """What [`write_outputs`] wrote, on every process."""
    found = None
    if distributed.rank() == 0:
        with np.load(folder / OUTPUTS) as stored:
            found = {name: stored[name] for name in stored.files}
    return distributed.from_main_process(found)


def remove_fits(folder: Path, state: State) -> None:
    """Removes the students of rounds that no later one goes back to."""
    if distributed.rank() == 0:
        for view, fits in state.fits.items():
            last = state.fit_of(view, state.kept)
            for fit in fits:
                old = fit_folder(folder, view, fit["round"])
                if last is not None and fit["round"] < last and old.is_dir():
                    shutil.rmtree(old)
                    if not any(old.parent.iterdir()):
                        old.parent.rmdir()
    distributed.barrier()
