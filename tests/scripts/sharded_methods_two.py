"""Learned alphas and balance methods of students that FSDP2 shards over a torchrun: `sharded_methods_two.py FOLDER`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch
from transformers import TrainerCallback

import balance_cases
import processes
import tiny
import tiny_modalities
from hf_colearn import (
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    Combined,
    ContrastiveAlignment,
    LatentMatching,
    LearnedAlpha,
    with_sample_ids,
)
from hf_colearn.alpha.solvers import ConjugateGradient, Neumann
from hf_colearn.data.multimodal import MultimodalCollator
from hf_colearn.utils.distributed import world_size
from hf_colearn.utils.sharded import reshard, sharded_modules
from scripts.balance_two import ABSENT, SAMPLES, UNLABELLED
from scripts.learn_alpha import digits_in_halves


KEYS = ("alpha_latent", "alpha_contrastive", "hypergradient_latent", "hypergradient_contrastive")
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-2}


def fused_norm(outputs, batch):
    """An outer loss of the user's."""
    loss = torch.nn.functional.cross_entropy(outputs["logits"], batch.labels)
    return loss + 0.1 * outputs["logits"].square().mean()


# A hundred times the step of "adam": rounding of the losses counts for a hundredth of what it does there, and what the step
# leaves out is the same on one process and on two.
STEP = 0.05
# Weights of 5 rows, as those of 3 classes, are shared unequally by two processes.
OF_BOTH = {"latent_dim": 5, "training_heads": {"latent": 6}, "modality_loss_weight": 0.3}
# The alpha's keywords, the arguments, and whether the backbones are transformers, which are sharded layer by layer.
ALPHAS = {
    "adam": ({"solver": "adam"}, {**ADAM, "gradient_accumulation_steps": 2}, False),
    "identity, modalities": ({"solver": "identity", "outer": "modalities"}, {}, True),
    "neumann, a function": ({"solver": Neumann(1e-3, 2), "outer": fused_norm}, {}, True),
    "cg": ({"solver": ConjugateGradient(iterations=2)}, ADAM, False),
}
REFUSED = {
    "exact": ({"relative_step": None, "hessian": "exact"}, {}, False),
    "bfloat16": ({}, {}, False),
}


class _Touched(TrainerCallback):
    """Whether the update of an alpha leaves weights, gradients and modes as they were, to the last bit."""

    def __init__(self):
        self.differences = []

    def around(self, trainer):
        measure = trainer.alpha.measure

        def measured(optimizer):
            before, found, after = state_of(trainer.model), measure(optimizer), state_of(trainer.model)
            self.differences += [name for name, x in before.items() if not torch.equal(x, after[name])]
            return found

        trainer.alpha.measure = measured


def state_of(model):
    """This process's shards, their gradients, and the random numbers."""
    reshard(model)
    found = {"random numbers": torch.get_rng_state()}
    for name, weight in model.named_parameters():
        gradient = torch.zeros(0) if weight.grad is None else weight.grad
        found |= {name: local(weight), f"gradient of {name}": local(gradient)}
    return found


def local(tensor):
    tensor = tensor.detach()
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).clone()


def model_of(is_transformer):
    if not is_transformer:
        return tiny_modalities.model(**OF_BOTH)
    torch.manual_seed(0)
    half = tiny.vit(image_size=(4, 8), patch_size=2)
    return CoLearningForMultimodalClassification.from_backbones(
        {"upper": half, "lower": half}, num_labels=10, fusion="concat", **OF_BOTH
    )


def alpha_trainer(name, folder, processes):
    alpha, fields, is_transformer = {**ALPHAS, **REFUSED}[name]
    data = digits_in_halves(64) if is_transformer else with_sample_ids(tiny_modalities.data(64)).with_format("torch")
    names = ("upper", "lower") if is_transformer else tiny_modalities.NAMES
    model = model_of(is_transformer)
    if name == "bfloat16":
        model = model.bfloat16()
    micro_batches = processes * fields.get("gradient_accumulation_steps", 1)
    fields = {"optim": "sgd", "learning_rate": 0.02, "max_steps": 4, "seed": 3, **fields}
    arguments = tiny.arguments(
        folder, per_device_train_batch_size=8 // micro_batches, fsdp=processes > 1 or None, **fields
    )
    rows = 10 if is_transformer else 3
    return CoLearningTrainer(
        model,
        arguments,
        train_dataset=data,
        data_collator=MultimodalCollator(dict.fromkeys(names)),
        bank=tiny.bank(rows, 6),
        pairing=tiny.random_prompt(rows),
        objective=Combined(LatentMatching(), ContrastiveAlignment(0.5)),
        alpha=LearnedAlpha(
            {"latent": 0.3, "contrastive": 0.3},
            interval=2,
            outer_split=16,
            batch_size=16,
            **{"relative_step": STEP, **alpha},
        ),
    )


def learn_alpha(name, folder, processes=1):
    """What a learned alpha came to, and what its updates have left changed."""
    trainer = alpha_trainer(name, folder, processes)
    touched = _Touched()
    touched.around(trainer)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "hypergradient_residual" in entry]
    return {
        "alphas": trainer.alpha.weights(),
        "logs": [{key: value for key, value in entry.items() if "hypergradient" in key} for entry in logs],
        "updates": trainer.alpha.updates,
        "touched": touched.differences,
        "is_sharded": bool(sharded_modules(trainer.model)),
    }


def balance(name, folder, processes=1):
    """What a method came to, on the samples of the test of two plain processes."""
    sizes = {"per_device_train_batch_size": SAMPLES // processes, "train_sampling_strategy": "sequential"}
    data = balance_cases.incomplete(UNLABELLED, ABSENT)
    fit = balance_cases.Fit(balance_cases.CASES[name], folder, fsdp=processes > 1 or None, **data, **sizes).train()
    return {"weights": fit.weights, "logs": [fit.curves(step) for step in range(len(fit.logs))]}


def train(name, folder, processes=1):
    """A case, of whichever kind."""
    found = (balance if name in balance_cases.CASES else learn_alpha)(name, folder, processes)
    assert world_size() == processes
    return found


if __name__ == "__main__":
    processes.write_cases([*ALPHAS, *REFUSED, *balance_cases.CASES], train)
