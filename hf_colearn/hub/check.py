"""Checks the numbers of a student's card against freshly measured ones."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from hf_colearn.hub.card import pretty
from hf_colearn.hub.card_words import class_names, measured_on
from hf_colearn.hub.record import RECORD, TrainingRecord
from hf_colearn.utils.metric_names import is_error, written
from hf_colearn.utils.recipe_files import recipes_folder
from hf_colearn.utils.tables import text_table


README = "README.md"


@dataclass(frozen=True)
class Difference:
    """A number of a card, `stated` in the model-index, the table of results or `colearning.json`, that is not as measured.

    `metric` is our name; `stated` or `measured` is `None` where it was not.
    """

    metric: str
    where: str
    stated: float | None
    measured: float | None

    def __str__(self) -> str:
        stated = "does not tell it" if self.stated is None else f"says {self.stated:.6g}"
        found = "it was not measured" if self.measured is None else f"{self.measured:.6g} was measured"
        return f"{self.metric}: the {self.where} {stated}, and {found}."


def check_card(
    folder: str | os.PathLike, scores: Mapping[str, float], tolerance: float | None = None
) -> list[Difference]:
    """Compares the numbers of a student's card and of its `colearning.json` with freshly measured scores.

    Args:
        folder (`str`): Of the student, with `README.md` and `colearning.json`.
        scores (`Mapping[str, float]`): What was measured, by our names of the metrics, as fractions.
        tolerance (`float`, *optional*): How far apart is still the same; by default half of one test sample, 0.5 / N: as
            much as other builds of torch may round differently, and less than one more sample that is right. Of a
            regression, whose samples are not right or wrong, a thousandth: of an error, such as the mse, of its value. What
            the card has rounded for its table is allowed in addition.

    Returns:
        `list[Difference]`: Empty where the model-index, the table of results and `colearning.json` all have every score
        and no other.
    """
    record, card = TrainingRecord.load(folder), read_card(folder)
    if tolerance is None:
        tolerance = tolerance_of(record)
    named = {pretty(name): name for name in {**record.scores, **scores}}
    index = [(r.metric_name or r.metric_type, r.metric_value, 0.0) for r in card.data.eval_results or []]
    places = {"model-index": index, "table of results": _table(card.text)}
    places["colearning.json"] = [(pretty(name), value, 0.0) for name, value in record.scores.items()]
    differences = []
    for where, stated in places.items():
        stated = [(named.get(name, name), value, rounding) for name, value, rounding in stated]
        names = {name for name, _, _ in stated}
        differences += [Difference(name, where, None, value) for name, value in scores.items() if name not in names]
        for name, value, rounding in stated:
            measured = scores.get(name)
            scale = abs(measured or 0.0) if is_error(name) else 1.0
            if measured is None or not abs(value - measured) <= tolerance * scale + rounding:  # so NaN differs
                differences.append(Difference(name, where, value, measured))
    return differences


def check_data(folder: str | os.PathLike, found: Mapping[str, Any] | None = None) -> list[str]:
    """What a student's card says of the data of its scores, and what is wrong with that, in sentences.

    Args:
        folder (`str`): Of the student, with `README.md` and `colearning.json`.
        found (`Mapping`, *optional*): What is known of the data that were measured on, as far as it is: `name`, `type` and
            `samples`; `classes`, their names in order; `published`, the published numbers of these data or None.

    Returns:
        `list[str]`: Empty where metadata, sentence and record agree, with each other and with what was found.
    """
    record, card, found = TrainingRecord.load(folder), read_card(folder), found or {}
    data = record.dataset
    wrong = []
    if measured_on(record) not in card.text:
        wrong.append(f"the card does not say '{measured_on(record)}', as {RECORD} has it")
    for name, stated in {
        "name": {result.dataset_name for result in card.data.eval_results or []},
        "type": {result.dataset_type for result in card.data.eval_results or []},
        "split": {result.dataset_split for result in card.data.eval_results or []},
    }.items():
        wrong += [
            f"the model-index says that the data's {name} is {value!r}, and {RECORD} {data[name]!r}"
            for value in sorted(stated - {data[name]}, key=str)
        ]
    linked = [card.data.datasets] if isinstance(card.data.datasets, str) else card.data.datasets or []
    wrong += [f"the metadata link '{name}', which the scores are not of" for name in linked if name != data["type"]]
    if "name" in found and not _same_data(found["name"], data["name"]):
        wrong.append(f"the scores are said to be of {data['name']}, and {found['name']} was measured on")
    if "type" in found and found["type"] != data["type"] and "/" in f"{found['type']}{data['type']}":
        wrong.append(f"the data are said to be '{data['type']}', and '{found['type']}' was measured on")
    if "samples" in found and data["samples"] is not None and found["samples"] != data["samples"]:
        wrong.append(
            f"the scores are said to be of {data['samples']:,} samples, and {found['samples']:,} were measured"
        )
    names = class_names(Path(folder))
    if found.get("classes") and names is not None and names != list(found["classes"]):
        here, there = next(pair for pair in zip_longest(names, found["classes"]) if pair[0] != pair[1])
        wrong.append(f"the model's configuration has a class {here!r} where the data have {there!r}")
    header = re.search(r"^\| metric +\| value +\| published +\|$", card.text, re.MULTILINE)
    if "published" in found and header and (found["published"] or "\0") not in card.text.replace("\\|", "|"):
        wrong.append("published numbers stand beside the scores, and they are not of these data")
    return wrong


def _same_data(one: str, other: str) -> bool:
    """Whether two names are of the same data: by the counts in them, as in `pets (2 classes; 40 test pictures)`, whatever
    the folder is called; without counts by the whole name, or what is before the brackets where only one has them.
    """
    counts = [re.findall(r"\(.*\d (?:training|validation|test)\b.*\)", name) for name in (one, other)]
    if all(counts):
        return counts[0] == counts[1]
    return one == other if not any(counts) else one.partition(" (")[0] == other.partition(" (")[0]


def tolerance_of(record: TrainingRecord) -> float:
    """Half of one test sample; of a regression a thousandth."""
    if not record.scores:
        raise ValueError(f"{RECORD} has no scores, so there is nothing to check the card against.")
    samples = record.dataset["samples"]
    return 1e-3 if record.problem_type == "regression" or samples is None else 0.5 / samples


def read_card(folder: str | os.PathLike) -> ModelCard:
    """The card in a student's folder; refuses a missing one and damaged metadata."""
    path = Path(folder) / README
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' has no {README}: a recipe writes it beside the student.")
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
        for result in card.data.eval_results or []:
            if isinstance(result.metric_value, bool) or not isinstance(result.metric_value, (int, float)):
                raise ValueError(f"{result.metric_name} is {result.metric_value!r}")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the metadata of '{path}' cannot be read: {error}") from error
    return card


def _table(text: str) -> list[tuple[str, float, float]]:
    """The rows of the table of results: name, value, and half a unit of its last digit."""
    results = text.partition("\n## Results\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) +\| (-?\d+(?:\.(\d+))?) +\|", results, flags=re.MULTILINE)
    return [(name, float(value), 0.5 * 10 ** -len(decimals)) for name, value, decimals in rows]


def report_check(
    folder: str | os.PathLike, scores: Mapping[str, float], found: Mapping[str, Any] | None = None
) -> int:
    """Prints what the card says beside what was measured; 0 where it has every score and no other, and names the data as they
    are (see [`check_data`]), else 1.
    """
    record, differences = TrainingRecord.load(folder), check_card(folder, scores)
    wrong = [str(difference) for difference in differences] + [f"{text}." for text in check_data(folder, found)]
    index = {result.metric_name: result.metric_value for result in read_card(folder).data.eval_results or []}
    rows = [("metric", "card", "measured", "difference")]
    for name, measured in scores.items():
        stated = index.get(pretty(name))
        shown, difference = "-", "-"
        if stated is not None:
            shown, difference = (
                written(name, stated),
                f"{'+' if stated >= measured else ''}{written(name, stated - measured)}",
            )
        rows.append((name, shown, written(name, measured), difference))
    print(text_table(rows))
    within = f"within {tolerance_of(record):.2g}, half of one of {record.dataset['samples'] or 0:,} test samples"
    if record.problem_type == "regression" or record.dataset["samples"] is None:
        within = f"within {tolerance_of(record):.2g}, of an error within that share of it"
    if not wrong:
        print(f"The card says what was measured ({within}).")
        return 0
    print(f"The card does not say what was measured ({within}):", *(f"  {text}" for text in wrong), sep="\n")
    return 1


def student_folder(student: str) -> Path:
    """The folder of a student, or its copy from the Hub: what lies in the root of its repository."""
    if Path(student).is_dir():
        return Path(student)
    try:
        return Path(snapshot_download(student, ignore_patterns=["adapter/*", "base/*", "report/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, ConnectionError) as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"'{student}' is neither a folder nor a student that the Hub gives ({type(error).__name__}: {reason}): pass "
            "the folder of a student, such as runs/digits_l2v/student, or its repository id."
        ) from error


def card_command(
    student: str, check: bool, recipes_dir: str | os.PathLike | None = None, extra: Sequence[str] = ()
) -> int:
    """`hf-colearn card`: prints a student's card, or measures the student again and checks the card against that.

    For the check the recipe that the student's `colearning.json` names is run with the command line that is recorded there,
    the options `extra` over it, and `--check`. Only a recipe of `recipes_dir` is run (by default of those that come with
    hf_colearn), never code of the Hub; but its options may come from there, so look at them where you do not know who wrote
    them. What it writes goes to a folder that is removed. The exit code is 0; 1 where the card differs or the recipe has
    failed, 2 where it does not take its options.
    """
    folder = student_folder(student)
    card = read_card(folder)
    if not check:
        print(card.content)
        return 0
    record = TrainingRecord.load(folder)
    if record.recipe is None or not re.fullmatch(r"[a-z][a-z0-9_]*", record.recipe):
        raise ValueError(
            f"{RECORD} of '{student}' names {record.recipe!r} as its recipe, which is none: only a student that a recipe "
            "has trained can be measured again by its recipe."
        )
    script = Path(recipes_dir or recipes_folder()) / f"{record.recipe}.py"
    if not script.is_file():
        raise FileNotFoundError(
            f"there is no recipe '{script}', which '{student}' was trained with: pass the folder that has it, --recipes FOLDER."
        )
    with TemporaryDirectory() as scratch:
        argv = [*record.argv, "--output_dir", scratch, *extra, "--check", str(folder)]
        status = subprocess.run([sys.executable, str(script), *argv]).returncode
    return status if status in (0, 1, 2) else 1
