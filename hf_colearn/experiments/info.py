"""What a report and a card say of an experiment, as its `experiment.json` holds it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hf_colearn.hub.record import public_argv
from hf_colearn.utils.distributed import world_size
from hf_colearn.utils.recipe_files import recipe_command


# Entries of `experiment.json` that have another name than the field.
_ENTRIES = {"dataset_name": "dataset", "teacher": "teacher_in_words"}


@dataclass(frozen=True)
class ExperimentInfo:
    """What a recipe's report and card say of it in words.

    Args:
        recipe (`str`): Its name, `"avmnist_v2a"`.
        title (`str`): Of the card.
        pipeline_tag (`str`): Of the student.
        dataset_name (`str`): Pretty name of the data, such as `"MNIST"`.
        dataset_type (`str`): Its id on the Hub, such as `"ylecun/mnist"`, or a word, which is not linked.
        pairing (`str`): What the teacher, or another modality, shows a sample.
        teacher (`str`, *optional*): What the teacher is, where there is one.
        published (`str`, *optional*): The published numbers, with their data and source.
        language (`str`, *optional*): ISO 639 code, of text and speech.
        license (`str`, *optional*, defaults to `"apache-2.0"`): Of the student.
    """

    recipe: str
    title: str
    pipeline_tag: str
    dataset_name: str
    dataset_type: str
    pairing: str
    teacher: str | None = None
    published: str | None = None
    language: str | None = None
    license: str = "apache-2.0"

    def to_dict(self) -> dict[str, Any]:
        """Entries of `experiment.json`, with the command that repeats the run, free of tokens and folders of the machine."""
        argv = public_argv(sys.argv[1:])
        command = recipe_command(self.recipe, argv, world_size())
        entries = {_ENTRIES.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return {**entries, "argv": argv, "command": command}

    @classmethod
    def of(cls, experiment: Mapping[str, Any]) -> "ExperimentInfo":
        """Read back from the entries of `experiment.json`."""
        return cls(**{f.name: experiment[_ENTRIES.get(f.name, f.name)] for f in fields(cls)})
