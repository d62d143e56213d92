"""Runs of tiny models under a balance method, and what must hold for all methods that change gradients."""

import copy

import torch
from transformers import TrainerCallback

from hf_colearn import MultimodalCollator
from hf_colearn.data.multimodal import without_modality
from hf_colearn.data.splits import hide_labels
from tiny_modalities import NAMES, data, trainer


class _Gradients(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        found = {name: parameter.grad for name, parameter in model.named_parameters()}
        self.steps.append({name: grad.clone() for name, grad in found.items() if grad is not None})


def gradients(balance, net=None, dataset=None, steps=1, **fields):
    """What the optimizer is given in every step, by the parameters' names; not clipped."""
    seen = _Gradients()
    fields = {"max_steps": steps, "max_grad_norm": 0.0, **fields}
    trainer(balance, net, dataset, callbacks=[seen], **fields).train()
    return seen.steps


def of_encoder(gradient, name):
    """Those of a modality's encoder, without its classifier."""
    return {key: value for key, value in gradient.items() if f"encoders.{name}." in key and ".classifier." not in key}


def incomplete(samples=16, names=NAMES, labels_per_class=2, share=0.5):
    """Samples of which a share lacks the last modality, and some a label; with their collator, as keywords of a run."""
    dataset = without_modality(data(samples, names), names[-1], share, seed=1)
    dataset = dataset if labels_per_class is None else hide_labels(dataset, labels_per_class, 0)
    return {"dataset": dataset, "data_collator": MultimodalCollator(dict.fromkeys(names))}


def assert_cut_makes_no_difference(make, steps=1, **fields):
    """Micro-batches of 8 samples give in every step the gradients that 8 micro-batches of one sample give."""
    whole, cut = (
        gradients(make(), steps=steps, optim="sgd", learning_rate=0.1, per_device_train_batch_size=size,
                  gradient_accumulation_steps=8 // size, **fields)
        for size in (8, 1)
    )  # fmt: skip
    for of_whole, of_cut in zip(whole, cut, strict=True):
        assert of_whole.keys() == of_cut.keys()
        for name, gradient in of_whole.items():
            torch.testing.assert_close(
                of_cut[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda text, at=name: f"{at}: {text}"
            )


def assert_resumes(make, folder, steps=6, save=3, net=None, **fields):
    """From a checkpoint in the middle the weights come to be those of the uninterrupted run, to the last bit; both methods."""
    fields = {"max_steps": steps, "save_strategy": "steps", "save_steps": save, "learning_rate": 0.01, **fields}
    whole, resumed = (trainer(make(), copy.deepcopy(net), folder=folder, **fields) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-{save}")
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    return whole.balance, resumed.balance
