"""Contrastive and distribution alignment on the processes of a torchrun; leaves `result_<rank>.pt` in the folder.

Every process has 64 of the 128 samples of `batch()`. The test does the same on one process with all of them.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

import mechanism_cases
import tiny
import tiny_modalities
from hf_colearn import CoLearningTrainer, ModalityRetrieval
from hf_colearn.objectives import info_nce
from hf_colearn.objectives.contrastive_alignment import ContrastiveAlignment
from hf_colearn.objectives.distribution_alignment import DistributionAlignment
from hf_colearn.objectives.objective import CoLearningBatch


KEYS = 90  # at a time, 45 of a process: a part of its 64, and the rest
SAMPLES, CASES = 128, ("plain", "same class", "unequal masks", "a mask on one process", "direct", "distribution")


# Of gradient caching: the samples of an optimizer step, its micro-batches, and how many samples a chunk has.
CACHED = {"contrastive": (8, 1, 3), "contrastive, accumulated": (16, 2, 3), "captions": (8, 1, 2)}


class TwoTowers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.image, self.audio = torch.nn.Linear(12, 16), torch.nn.Linear(7, 16)
        self.log_scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, image, audio):
        latents = {"image": self.image(image), "audio": self.audio(audio)}
        return {"modality_latents": latents, "modality_logits": latents, "logit_scale": self.log_scale.exp()}


def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(SAMPLES, 12, generator=generator),
        "audio": torch.randn(SAMPLES, 7, generator=generator),
        "labels": torch.randint(5, (SAMPLES,), generator=generator),
    }


def presence(case, own):
    """Of the samples `own`; None where all of them have both modalities and the batch therefore says nothing."""
    present = torch.ones(SAMPLES, 2, dtype=torch.bool)
    if case in ("unequal masks", "direct", "distribution"):
        present[:50:3, 0] = present[5:60:4, 1] = present[100:103, 0] = False
    elif case == "a mask on one process":
        present[:40, 1] = False
    return None if present[own].all() else present[own]


def objective_of(case):
    if case == "distribution":
        return DistributionAlignment()
    return ContrastiveAlignment("learned", mask_same_class=case in ("same class", "direct"), direct=case == "direct")


def gradients(case, model, own):
    """The loss and the gradients, by name."""
    samples = batch()
    model.zero_grad()
    outputs = model(samples["image"][own], samples["audio"][own])
    outputs |= {"modality_mask": presence(case, own), "labels": samples["labels"][own]}
    (loss,) = objective_of(case)(outputs, CoLearningBatch(outputs.get("labels"))).values()
    loss.backward()
    # The distribution's heads have no temperature
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **{name.removeprefix("module."): grad for name, grad in found.items()}}


def of_pairs(own, dtype):
    """Loss and gradients of `info_nce`, with a mask, labels and a learned scale."""
    x, y, scale = (torch.randn(n, 16, generator=torch.Generator().manual_seed(n)).to(dtype) for n in (128, 129, 1))
    inputs = [x[own].requires_grad_(), y[:SAMPLES][own].requires_grad_(), scale.abs().sum().requires_grad_()]
    labels, mask = batch()["labels"][own], (torch.arange(SAMPLES) % 7 > 0)[own]
    loss = info_nce.info_nce(*inputs, mask, labels, chunk=24)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def hessian_products(model, own):
    """The Hessian of the direct form times ones, before any average over processes."""
    samples = batch()
    outputs = model(samples["image"][own], samples["audio"][own])
    loss = ContrastiveAlignment("learned", direct=True)(outputs, CoLearningBatch(outputs.get("labels")))["contrastive"]
    weights = [model.image.weight, model.audio.weight, model.log_scale]
    slope = sum(grad.sum() for grad in torch.autograd.grad(loss, weights, create_graph=True))
    return list(torch.autograd.grad(slope, weights))


def refused(case, model, own):
    try:
        gradients(case, model, own)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def retrieval(batch_size):
    """How the seven samples of an evaluation find each other, of which the last batch lacks one on two processes."""
    args = tiny.arguments("out", per_device_eval_batch_size=batch_size)
    callbacks = [ModalityRetrieval(), ModalityRetrieval(by="class", at=(1,))]
    run = CoLearningTrainer(tiny_modalities.model(), args, eval_dataset=tiny_modalities.data(7), callbacks=callbacks)
    return {name: value for name, value in run.evaluate().items() if "_to_" in name}


class Reductions(TrainerCallback):
    """Counts how often the gradients are reduced over the processes."""

    def __init__(self):
        self.count = 0

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 and isinstance(self.trainer.model_wrapped, DistributedDataParallel):
            self.trainer.model_wrapped.register_comm_hook(None, self._reduced)

    def _reduced(self, _, bucket):
        self.count += 1
        return allreduce_hook(None, bucket)


def cached(name, folder, processes=1, chunk=None):
    """Two steps, by default without caching: the weights, the losses, and how often gradients were reduced."""
    samples, accumulation, _ = CACHED[name]
    case = mechanism_cases.Case(
        lambda: tiny_modalities.model(learned_temperature=True),
        lambda: ContrastiveAlignment("learned"),
        data=mechanism_cases.modalities,
    )
    if name == "captions":
        case = mechanism_cases.CASES["captions, concepts and dense matching"]
    sizes = {"per_device_train_batch_size": samples // processes // accumulation, "gradient_cache_chunk_size": chunk}
    sizes |= {"gradient_accumulation_steps": accumulation, "ddp_find_unused_parameters": False}
    fit, reductions = mechanism_cases.Fit(case, folder, **sizes), Reductions()
    reductions.trainer = fit.trainer
    fit.trainer.add_callback(reductions)
    fit.train()
    return {"weights": fit.weights, "losses": fit.losses, "reductions": reductions.count}


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    rank = dist.get_rank()
    own = slice(64 * rank, 64 * rank + 64)
    result = {"world_size": dist.get_world_size(), "unequal": refused("plain", TwoTowers(), slice(0, 64 - rank))}
    for case in CASES:
        info_nce._KEYS = 4096 if case == "plain" else KEYS
        model = DistributedDataParallel(TwoTowers(), find_unused_parameters=True)
        result[case] = gradients(case, model, own)
    result["pairs"] = {dtype: of_pairs(own, dtype) for dtype in (torch.float32, torch.float64)}
    result["hessian"] = hessian_products(TwoTowers(), own)
    result["retrieval"] = retrieval(2)
    result["cached"] = {name: cached(name, "out", 2, chunk) for name, (_, _, chunk) in CACHED.items()}
    torch.save(result, f"result_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
