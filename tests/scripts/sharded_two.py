"""Students that FSDP2 shards over the processes of a torchrun, case after case: `sharded_two.py FOLDER`.

Checkpoints of one plain process are expected in FOLDER/alone, as `train(name, FOLDER / "alone")` writes them. With another
folder as the second argument one process resumes from a checkpoint there.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import os
import sys
from pathlib import Path

import torch
from datasets import Dataset

import mechanism_cases
import processes
import tiny
import tiny_modalities
from hf_colearn import Combined, ContrastiveAlignment, LatentMatching, LearnedAlpha, with_sample_ids
from hf_colearn.models.lora import with_lora
from hf_colearn.utils.distributed import destroy_process_group, world_size
from hf_colearn.utils.sharded import sharded_modules
from mechanism_cases import CASES, LATENT, SAMPLES, Case, Fit, bank, labels, modalities, numbered_modalities


TWO_LAYERS = tiny.vit()
TWO_LAYERS.num_hidden_layers = 2
EVALUATED = [1, 2, 3, 8]  # labelled and paired
TEACHERS = {"own": lambda: bank(), "text": lambda: bank(6)}
CLIPPED = {"max_grad_norm": 0.5}
ADAM = {"optim": "adamw_torch", "adam_epsilon": 1e-3, "learning_rate": 1e-2, "weight_decay": 0.1}


def images(unlabelled, unpaired, **kwargs):
    """Eight by eight pixels."""
    columns = {"pixel_values": mechanism_cases.normal(SAMPLES, 1, 8, 8), "labels": labels(unlabelled)}
    dataset = with_sample_ids(Dataset.from_dict(columns)).with_format("torch")
    return {"train_dataset": dataset, "eval_dataset": dataset.select(EVALUATED), **kwargs}


def student(config, **kwargs):
    return tiny.student(config, latent_dim=LATENT, num_labels=mechanism_cases.CLASSES, **kwargs)


def of_images(model, **kwargs):
    """With two teachers, of which one has a training head."""
    return Case(
        model,
        lambda: LatentMatching(teachers=("own", "text")),
        data=lambda unlabelled, unpaired: images(unlabelled, unpaired, **kwargs),
        teachers=lambda: {name: make() for name, make in TEACHERS.items()},
    )


def weighted(outputs, labels, num_items_in_batch=None):
    """A loss function of the user's."""
    weights = torch.tensor([1.0, 2.0, 0.5])
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    total = torch.nn.functional.cross_entropy(logits, labels, weights, ignore_index=-100, reduction="sum")
    return total / num_items_in_batch


def learned_alpha():
    """Updated at every step, by samples that are not trained on."""
    outer = modalities((), ())["train_dataset"].select(range(8)).add_column("sample_id", list(range(100, 108)))
    alphas = {"latent": 0.2, "contrastive": 0.2}
    return LearnedAlpha(alphas, interval=1, outer_split=outer, batch_size=8, relative_step=0.05)


HEADS = {"training_heads": {"latent_text": 6}}
VISION = of_images(lambda: student(TWO_LAYERS, **HEADS))
ALIGNED = Case(
    lambda: tiny_modalities.model(learned_temperature=True, training_heads={"latent": 6}),
    lambda: Combined(LatentMatching(), ContrastiveAlignment("learned")),
    data=lambda *rows: {
        **(data := numbered_modalities(*rows)),
        "eval_dataset": data["train_dataset"].select(EVALUATED),
    },
    teachers=lambda: {"teacher": bank(6)},
    compares=True,
)
OTHERS = {
    "a loss function, channels last": (
        of_images(lambda: student(tiny.convnext(), **HEADS), compute_loss_func=weighted),
        {"channels_last": True},
    ),
}
SAVED = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
AVERAGED = {**SAVED, "ema_decay": 0.6, "eval_strategy": "steps", "eval_steps": 1}
LAYERS = {"layer_decay": 0.7, "lr_step_epochs": 1, "lr_scheduler_type": "linear", "gradient_accumulation_steps": 2}
RESUMED = {
    "everything": (VISION, {**ADAM, **AVERAGED, **LAYERS, "label_smoothing_factor": 0.1}),
    "aligned": (ALIGNED, {**ADAM, **AVERAGED}),
    "a momentum encoder": (CASES["masked latents"], SAVED),
    "adapters": (of_images(lambda: with_lora(student(TWO_LAYERS, **HEADS), 2)), SAVED),
}
# One case of each kind: tied embeddings, a queue and a momentum encoder, k-means at every epoch.
MECHANISMS = ("vokens", "mining by each other", "imputation", "learned class vectors")
REFUSED = {
    "version 1": (VISION, {"fsdp_config": {"version": 1}}),
    "probes": (
        Case(
            tiny_modalities.model,
            ContrastiveAlignment,
            data=lambda *rows: {**modalities(*rows), "compute_loss_func": weighted},
        ),
        {},
    ),
}


def fit_of(name, folder, processes=1, is_sharded=True, **fields):
    """The run of a case, with steps of eight samples; sharded where it is of several processes, or asked for on one."""
    os.environ.pop("ACCELERATE_USE_FSDP", None)  # accelerate leaves it behind, and would shard every later run
    case, own = {**{name: (case, {}) for name, case in CASES.items()}, **OTHERS, **RESUMED, **REFUSED}[name]
    own = {**({} if name in CASES else CLIPPED), **own, **fields}
    micro_batches = processes * own.get("gradient_accumulation_steps", 1)
    if name == "aligned":  # with an object of its own for every run
        own["alpha"] = learned_alpha()
    sizes = {"per_device_train_batch_size": 8 // micro_batches, "per_device_eval_batch_size": 4 // processes}
    fit = Fit(case, folder, fsdp=is_sharded or None, **sizes, **own)
    assert world_size() == processes
    return fit


def again(folder, processes):
    """Evaluated before it was trained, trained twice, and predicted with."""
    fit = fit_of("everything", folder / "again", processes, processes > 1)
    first = fit.trainer.evaluate()["eval_loss"]
    found = outcome(fit), outcome(fit)
    logits = torch.from_numpy(fit.trainer.predict(fit.trainer.eval_dataset).predictions)
    return {**found[1], "losses": found[0]["losses"] + found[1]["losses"], "first": first, "logits": logits}


def outcome(fit, resume=None):
    fit.train(resume)
    if fit.trainer.args.save_strategy != "no" and resume is None:
        fit.trainer.save_model(_internal_call=True)  # as a push to the Hub calls it, into the output folder
        fit.trainer.create_model_card()
    logs = fit.trainer.state.log_history
    return {
        "weights": whole(fit.trainer.model),
        "losses": fit.losses,
        "evaluations": [{"eval_loss": entry["eval_loss"]} for entry in logs if "eval_loss" in entry],
        "is_sharded": bool(sharded_modules(fit.trainer.model)),
    }


def train(name, folder, processes=1, is_sharded=None, resume=None, **fields):
    """What a case came to."""
    if name == "again":
        return again(folder, processes)
    is_sharded = processes > 1 if is_sharded is None else is_sharded
    fit = fit_of(name, Path(folder, name), processes, is_sharded, **fields)
    return outcome(fit, resume)


def whole(model):
    return {
        name: (weight.full_tensor() if hasattr(weight, "full_tensor") else weight.clone())
        for name, weight in model.state_dict().items()
    }


def of_two(name, folder, processes):
    """A case by two processes; `name` may tell what it is resumed from."""
    case, _, source = name.partition(" from ")
    if not source:
        return train(case, folder, processes)
    checkpoint = {"two shards": folder / case, "one process": folder / "alone" / case}[source]
    return train(case, folder / source, processes, resume=str(checkpoint / "checkpoint-2"))


SOURCES = [
    "aligned from two shards",
    "a momentum encoder from two shards",
    "aligned from one process",  # whose files are those of plain data parallelism
    "adapters from one process",
]

if __name__ == "__main__":
    if len(sys.argv) == 2:
        processes.write_cases([*MECHANISMS, *OTHERS, *RESUMED, *REFUSED, *SOURCES, "again"], of_two)
    else:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        own, of_others = map(Path, sys.argv[1:])
        checkpoint = of_others / "aligned" / "checkpoint-2"
        torch.save(train("aligned", own, is_sharded=True, resume=str(checkpoint)), own / "result.pt")
        destroy_process_group()
