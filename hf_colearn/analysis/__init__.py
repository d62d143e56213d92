"""What a trained comparison says, one question a file. Never imported by the trainer."""

from typing import Any


__all__ = ["report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hf_colearn.analysis' has no attribute '{name}'")
    from hf_colearn.analysis.reporting import report  # noqa: PLC0415  (drawing needs the extra `report`)

    return report
