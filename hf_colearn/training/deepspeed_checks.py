"""What of DeepSpeed the trainer works with: ZeRO up to stage 2, on GPUs or on gloo processes of a CPU."""

from typing import Any


def check_deepspeed(trainer: Any) -> None:
    """Refuses what DeepSpeed would train otherwise than one process, when the trainer is built.

    ZeRO (Rajbhandari et al., SC 2020) spreads the optimizer's states in stage 1, gradients too in stage 2, weights too in 3.

    Raises:
        ValueError: With ZeRO-3, and where accelerate would not use DeepSpeed.
    """
    if not trainer.is_deepspeed_enabled:
        if trainer.args.deepspeed:
            raise ValueError(
                "accelerate leaves `deepspeed=` aside where ACCELERATE_USE_CPU is set: unset it, and pass `use_cpu=True`."
            )
        return
    stage = trainer.accelerator.state.deepspeed_plugin.zero_stage
    if stage == 3:
        raise ValueError(
            "DeepSpeed's stage=3 spreads weights, and objectives and training heads read them whole: shard weights by FSDP "
            "(`fsdp=True`), or leave them whole by `zero_optimization: {stage: 2}`."
        )
