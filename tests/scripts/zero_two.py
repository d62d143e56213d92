"""Students whose gradients and optimizer DeepSpeed spreads over the processes of a torchrun by ZeRO-2: `zero_two.py FOLDER`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import os
from dataclasses import replace
from pathlib import Path

import deepspeed

import processes
import tiny_modalities
from hf_colearn import ContrastiveAlignment, LearnedAlpha
from hf_colearn.balance import OGM
from mechanism_cases import CASES, Case, Fit, numbered_modalities


# The one operation that DeepSpeed would compile here: a sum in shared memory, in place of gloo's.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
AUTO = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
ZERO_2 = {
    "zero_optimization": {"stage": 2},
    "zero_force_ds_cpu_optimizer": False,
    "zero_allow_untested_optimizer": True,
    **dict.fromkeys(AUTO, "auto"),
}
ALIGNED = Case(tiny_modalities.model, ContrastiveAlignment, data=numbered_modalities, compares=True)
BALANCED = replace(ALIGNED, callbacks=lambda: [OGM()])
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-2, "weight_decay": 0.1, "max_grad_norm": 0.5}
LATENT, HALVES = CASES["class vectors"], {"gradient_accumulation_steps": 2}
RUNS = {
    "latent": (LATENT, {}),
    "accumulation": (LATENT, {**ADAM, **HALVES, "max_steps": 4, "save_steps": 2, "save_strategy": "steps"}),
    "several terms": (CASES["captions, concepts and dense matching"], {}),
    "contrastive": (ALIGNED, {**ADAM, "max_steps": 4}),
}
REFUSED = {
    "averaged weights": (LATENT, {"ema_decay": 0.9}),
    "rates by layer": (LATENT, {"layer_decay": 0.7}),
    "learned alpha": (ALIGNED, {"alpha": LearnedAlpha(("contrastive",))}),
    "a balance method": (BALANCED, {}),
    "a momentum encoder": (CASES["mining by each other"], {}),
    "weights in parts": (LATENT, {"deepspeed": {**ZERO_2, "zero_optimization": {"stage": 3}}}),
    "processes that are not counted": (LATENT, {"use_cpu": False}),
    "a CPU by the environment": (LATENT, {}),
}


def train(name, folder, processes=1, resume=None):
    """What a run came to, in steps of eight samples; by DeepSpeed where it is of several processes."""
    case, fields = {**RUNS, **REFUSED}[name]
    size = 8 // processes // fields.get("gradient_accumulation_steps", 1)
    config = {"deepspeed": ZERO_2} if processes > 1 else {}
    fit = Fit(case, Path(folder, name), **{"per_device_train_batch_size": size, **config, **fields})
    fit.train(resume)
    norms = [entry["grad_norm"] for entry in fit.logs]
    return {
        "weights": fit.weights,
        "losses": fit.losses,
        "norms": norms,
        "kind": type(fit.trainer.model_wrapped).__name__,
    }


def of_two(name, folder, processes):
    """A run, or the second half of one from its checkpoint."""
    os.environ["ACCELERATE_USE_CPU"] = str(name == "a CPU by the environment")
    if name == "resumed":
        return train("accumulation", folder / name, processes, str(folder / "accumulation" / "checkpoint-2"))
    return train(name, folder, processes)


if __name__ == "__main__":
    processes.write_cases([*RUNS, "resumed", *REFUSED], of_two)
