"""What a report and a card say of an experiment, as its `experiment.json` holds it."""

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from datasets import ClassLabel

from hf_colearn.hub.record import public_argv
from hf_colearn.utils.distributed import world_size
from hf_colearn.utils.recipe_files import recipe_command


# Entries of `experiment.json` that have another name than the field.
_ENTRIES = {"dataset_name": "dataset", "teacher": "teacher_in_words"}


@dataclass(frozen=True)
class ExperimentInfo:
    """What a recipe's report and card say of it in words.

    Args:
        recipe (`str`, *optional*): Its name, `"avmnist_v2a"`; none of a script of one's own, which no command of ours runs.
        title (`str`): Of the card.
        pipeline_tag (`str`): Of the student.
        dataset_name (`str`): Pretty name of the data, such as `"MNIST"`.
        dataset_type (`str`): Its id on the Hub, such as `"ylecun/mnist"`, or a word, which is not linked.
        pairing (`str`): What the teacher, or another modality, shows a sample.
        teacher (`str`, *optional*): What the teacher is, where there is one.
        published (`str`, *optional*): The published numbers of these very data, with their source.
        language (`str`, *optional*): ISO 639 code, of text and speech.
        license (`str`, *optional*): Of the student, where somebody chose one.
    """

    recipe: str | None
    title: str
    pipeline_tag: str
    dataset_name: str
    dataset_type: str
    pairing: str
    teacher: str | None = None
    published: str | None = None
    language: str | None = None
    license: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Entries of `experiment.json`, with the command that repeats the run, free of tokens and folders of the machine."""
        argv = public_argv(sys.argv[1:])
        if self.recipe is None:
            command = shlex.join(["python", Path(sys.argv[0]).name, *argv])
        else:
            command = recipe_command(self.recipe, argv, world_size())
        entries = {_ENTRIES.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return {**entries, "argv": argv, "command": command}

    @classmethod
    def of(cls, experiment: Mapping[str, Any]) -> "ExperimentInfo":
        """Read back from the entries of `experiment.json`."""
        return cls(**{f.name: experiment[_ENTRIES.get(f.name, f.name)] for f in fields(cls)})


def named_data(
    name: str, splits: Mapping[str, Any], unit: str = "samples", *more: str, hub_id: str | None = None
) -> dict[str, str]:
    """The fields of [`ExperimentInfo`] that name data by what they are: where they come from, classes, samples.

    Args:
        name (`str`): Of the data, or of the folder that they were read from; see [`folder_name`].
        splits (`Mapping[str, Dataset]`): `train` with its `label`, and others.
        unit (`str`, *optional*, defaults to `"samples"`): What a sample is, in the plural.
        more (`str`): Facts that the data do not tell, such as how they were split.
        hub_id (`str`, *optional*): The dataset of the Hub that they are, which is then their name; or a folder of its files.

    Example:

    ```python
    >>> from datasets import ClassLabel, Dataset
    >>> from hf_colearn.experiments.info import named_data

    >>> def pictures(*labels):
    ...     return Dataset.from_dict({"label": labels}).cast_column("label", ClassLabel(names=["cat", "dog"]))

    >>> named_data("my pets", {"train": pictures(0, 1, 1), "test": pictures(0)}, "pictures")
    {'dataset_name': 'my pets (2 classes; 3 training and 1 test pictures)', 'dataset_type': 'my-pets'}

    ```
    """
    if hub_id is not None and Path(hub_id).is_dir():
        name, hub_id = folder_name(hub_id), None
    kind = re.sub(r"[^\w.]+", "-", name.lower()).strip("-") or "data"
    return {
        "dataset_name": f"{hub_id or name} ({'; '.join([counted(splits, unit), *more])})",
        "dataset_type": hub_id or kind,
    }


def counted(splits: Mapping[str, Any], unit: str = "samples") -> str:
    """Classes and samples a split, in words; of streams, which have no length, the classes alone."""
    words = {"train": "training", "validation": "validation", "test": "test"}
    sizes = [
        f"{len(splits[split]):,} {word}"
        for split, word in words.items()
        if split in splits and hasattr(splits[split], "__len__")
    ]
    label = splits["train"].features["label"]
    facts = [f"{label.num_classes:,} classes"] if isinstance(label, ClassLabel) else []
    if sizes:
        listed = " and ".join(part for part in (", ".join(sizes[:-1]), sizes[-1]) if part)
        facts.append(f"{listed} {unit}")
    return "; ".join(facts)


def folder_name(folder: str | Path) -> str:
    """The last part of a folder's path, which may be published; the rest is of the machine."""
    return Path(folder).resolve().name
