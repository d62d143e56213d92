"""Wrote the files in this folder, with the code of commit ee1ead1: what that commit wrote must load for ever.

`python write.py FOLDER`, with that commit's checkout as the PYTHONPATH; today's tests use the trainers in this file with
today's code. Code of models, which checkpoints carry, and pickled arguments are left out.

- `student/`: a checkpoint in the middle of a run of a ViT with a teacher, heuristic alpha and averaged weights
- `multimodal/`: the same of two modalities of features with a contrastive term, learned alpha and curves
- `adapter/`: a multimodal model that was trained with LoRA: merged, `base` and `adapter`
- `runs/`: two arms of two seeds, kept by `save_run`
- `recorded.json`: what the runs logged and the models gave, and what the report said
"""

import json
import shutil
import sys
from pathlib import Path

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import numpy as np
import torch
from datasets import Dataset
from sklearn.datasets import load_digits
from transformers import PrinterCallback, ViTConfig

from hf_colearn import (
    CoLearningArguments,
    CoLearningForImageClassification,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    ContrastiveAlignment,
    FeatureBackboneConfig,
    HeuristicAlpha,
    LearnedAlpha,
    ModalityAccuracy,
    ModalityGap,
    MultimodalCollator,
    TeacherBank,
    classification_metrics,
    save_run,
    with_sample_ids,
)


LOGGED = ("loss", "alpha", "modality_gap", "accuracy")  # beginnings of names


def arguments(folder, seed=3, **kwargs):
    brief = {"max_steps": 11, "save_steps": 5, "save_strategy": "steps", "learning_rate": 0.01}
    kwargs = {"logging_steps": 1, **brief, **kwargs}
    return CoLearningArguments(
        str(folder),
        per_device_train_batch_size=8,
        lr_scheduler_type="linear",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
        **kwargs,
    )


def digits(first=0, last=64):
    data = load_digits()
    pixels = (data.images[first:last, None] / 16).astype(np.float32)
    columns = {"pixel_values": pixels, "labels": data.target[first:last].astype(np.int64)}
    return with_sample_ids(Dataset.from_dict(columns)).with_format("torch")


def halves(first=0, last=64):
    """The upper half of a digit as the features of one modality, its lower half as those of another."""
    pixels = digits(first, last)["pixel_values"][:]
    columns = {"upper_features": pixels[:, 0, :4].flatten(1), "lower_features": pixels[:, 0, 4:].flatten(1)}
    columns = {name: np.asarray(values) for name, values in columns.items()}
    columns["labels"] = load_digits().target[first:last].astype(np.int64)
    return with_sample_ids(Dataset.from_dict(columns)).with_format("torch")


def student(seed=3):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    backbone = ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, hidden_dropout_prob=0.1)
    return CoLearningForImageClassification.from_backbone(backbone, latent_dim=6, num_labels=10)


def student_trainer(folder, seed=3, taught=True, **kwargs):
    latents = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)  # a row for every digit
    teacher = {"bank": TeacherBank.from_latents(latents), "alpha": HeuristicAlpha("latent")} if taught else {}
    return quiet(
        CoLearningTrainer(
            student(seed),
            arguments(folder, seed, **kwargs),
            train_dataset=digits(),
            compute_metrics=classification_metrics(),
            **teacher,
        )
    )


def multimodal(backbones=None, **kwargs):
    torch.manual_seed(3)
    features = FeatureBackboneConfig(feature_dim=32, hidden_dims=[8])
    return CoLearningForMultimodalClassification.from_backbones(
        {"upper": features, "lower": features}, latent_dim=6, num_labels=10, **kwargs
    )


def multimodal_trainer(folder, **kwargs):
    alpha = LearnedAlpha(
        "contrastive", interval=3, learning_rate=1.0, solver="neumann", hessian="exact", outer_split=16
    )
    return quiet(
        CoLearningTrainer(
            multimodal(fusion="film", modality_loss_weight=0.5),
            arguments(folder, **kwargs),
            train_dataset=halves(),
            data_collator=MultimodalCollator({"upper": None, "lower": None}),
            objective=ContrastiveAlignment(0.2, direct=True),
            alpha=alpha,
            callbacks=[ModalityGap(), ModalityAccuracy()],
        )
    )


def quiet(trainer):
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer):
    """What counts of a run, a dict a step."""
    return [
        {name: value for name, value in entry.items() if name.startswith(LOGGED)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


@torch.no_grad()
def logits(model, samples):
    """Of the first 4 of the samples, as lists."""
    inputs = {name: torch.as_tensor(samples[name][:4]) for name in samples.column_names if name.endswith(KINDS)}
    return model.eval()(**inputs).logits.tolist()


KINDS = ("pixel_values", "features")


def write_run(folder, make, samples):
    """A checkpoint of a run, and what the run logged."""
    trainer = make(folder / "run", **({"ema_decay": 0.8} if make is student_trainer else {}))
    trainer.train()
    checkpoint = folder / "run" / "checkpoint-5"
    given = logits(type(trainer.model).from_pretrained(checkpoint), samples)
    for left_out in ("training_args.bin", "colearning.json"):
        (checkpoint / left_out).unlink()
    shutil.move(checkpoint, folder / "checkpoint-5")
    shutil.rmtree(folder / "run")
    return {"logged": logged(trainer), "logits": given}


def write_adapter(folder):
    from hf_colearn.models.lora import save_student, with_lora

    adapted = with_lora(multimodal(), 2)
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
    save_student(adapted.eval(), None, folder)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "base"
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config, indent=1))
    return {"logits": logits(adapted, halves())}


def write_runs(folder):
    """Two arms of two seeds, and what the report says of them."""
    from hf_colearn.analysis.reporting import report

    from hf_colearn.analysis.runs import write_experiment

    runs = []
    for arm, kind in (("baseline", "baseline"), ("teacher", "colearned")):
        for seed in (0, 1):
            brief = {"save_strategy": "no", "max_steps": 120, "logging_steps": 20, "learning_rate": 0.005}
            trainer = student_trainer(folder / "out", seed, kind == "colearned", **brief)
            trainer.train()
            runs.append(folder / arm / f"seed-{seed}")
            save_run(trainer, digits(64, 164), runs[-1], arm, kind)
    shutil.rmtree(folder / "out", ignore_errors=True)
    told = {"title": "Digits", "dataset": "scikit-learn's digits", "metric": "accuracy", "source": "teacher"}
    write_experiment(folder, told, runs)
    report(folder, folder / "page", methods=("pca",))
    found = json.loads((folder / "page" / "report.json").read_text())
    shutil.rmtree(folder / "page")
    return {"comparison": found["comparison"], "metrics": [run["metrics"] for run in found["runs"]]}


def main(folder):
    recorded = {
        "student": write_run(folder / "student", student_trainer, digits()),
        "multimodal": write_run(folder / "multimodal", multimodal_trainer, halves()),
        "adapter": write_adapter(folder / "adapter"),
        "runs": write_runs(folder / "runs"),
    }
    (folder / "recorded.json").write_text(json.dumps(recorded, indent=1))
    for extra in [*(path for path in folder.glob("*/**/*.py")), *folder.rglob("README.md")]:
        extra.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
