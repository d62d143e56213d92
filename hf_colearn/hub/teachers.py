"""What a record says of a training's teachers."""

from collections.abc import Mapping
from typing import Any

from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.teachers.teacher import Teacher


_KEPT = ("teacher", "revision", "pooling", "dtype", "modality", "fingerprint", "scaling")
_NULL_CONTROLS = ("ConstantTarget", "Permuted", "RandomPrototypes")


def teachers_in_record(teachers: Mapping[str, Teacher]) -> dict[str, Any]:
    """The fields `teacher` and `pairing` of a [`TrainingRecord`]: what the banks say of themselves, and the pairings."""
    if not teachers:
        return {"teacher": None, "pairing": None}
    pairings = {name: _pairing(teacher.pairing) for name, teacher in teachers.items()}
    if len(teachers) == 1:
        (teacher,) = teachers.values()
        described = {name: teacher.bank.description[name] for name in _KEPT if name in teacher.bank.description}
        return {"teacher": described, "pairing": next(iter(pairings.values()))}
    named = {
        name: without_folders(str(each.bank.description.get("teacher", "not named")))
        for name, each in teachers.items()
    }
    words = "; ".join(f"{name}: {teacher}" for name, teacher in named.items())
    return {
        "teacher": {"words": words, "teachers": list(teachers)},
        "pairing": "; ".join(f"{name}: {pairing}" for name, pairing in pairings.items()),
    }


def _pairing(pairing: Any) -> str:
    name = type(pairing).__name__
    is_null = name in _NULL_CONTROLS
    return f"`{name}`" + (", a null control: its targets carry none of the teacher's content" if is_null else "")
