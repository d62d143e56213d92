"""Loading a checkpoint without a page about weights that nobody needs, and knowing which of the needed ones it lacks.

This file travels with every checkpoint.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel
from transformers.utils.logging import get_logger


logger = get_logger(__name__)
_LOGGER = logging.getLogger("transformers.modeling_utils")


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keeps transformers' table of missing and left-over weights off the log, unless the loading fails."""
    reports: list[logging.LogRecord] = []

    def is_other(record: logging.LogRecord) -> bool:
        is_report = "LOAD REPORT" in record.getMessage()
        if is_report:
            reports.append(record)
        return not is_report

    _LOGGER.addFilter(is_other)
    try:
        yield
    except Exception:
        _LOGGER.removeFilter(is_other)
        for report in reports:
            _LOGGER.handle(report)
        raise
    finally:
        _LOGGER.removeFilter(is_other)


def load_model(auto_class: Any, name_or_path: Any, **kwargs: Any) -> tuple[PreTrainedModel, dict[int, str]]:
    """The model of a checkpoint, and what the checkpoint lacks of it: names of weights by the `id` of the tensor.

    What is missing is random, and so is, with `ignore_mismatched_sizes`, what has another shape; whoever loads says which of
    them matter ([`lacking`]).
    """
    with _without_load_report():
        model, loading = auto_class.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    names = set(loading["missing_keys"]) | {key for key, *_ in loading["mismatched_keys"]}
    return model, {id(weight): name for name, weight in model.state_dict(keep_vars=True).items() if name in names}


def lacking(part: dict[str, Any], random: dict[int, str]) -> list[str]:
    """The names of those weights of a model's part (its `state_dict(keep_vars=True)`) that [`load_model`] has found random."""
    return sorted({random[id(weight)] for weight in part.values() if id(weight) in random})


def warn_of_random(checkpoint: str | os.PathLike, part: PreTrainedModel, random: dict[int, str]) -> None:
    """Says in one line which weights of a model's part a checkpoint lacks, where training may still learn them."""
    if names := lacking(part.state_dict(keep_vars=True), random):
        logger.warning(
            f"'{checkpoint}' lacks {len(names)} weights of {type(part).__name__} ('{names[0]}', ...), or has them in another "
            "shape: they are random until they are trained."
        )
