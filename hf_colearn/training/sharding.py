"""Whether this process holds whole weights: the one place that asks for FSDP and DeepSpeed."""

from typing import Any


def sharded_by(trainer: Any) -> str | None:
    """What spreads the weights over processes, `"FSDP"` or `"DeepSpeed"`; None where every process holds all of them.

    Args:
        trainer ([`~transformers.Trainer`]): After its accelerator was made.
    """
    if trainer.is_deepspeed_enabled:
        return "DeepSpeed"
    return "FSDP" if trainer.is_fsdp_enabled else None
