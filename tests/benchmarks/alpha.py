"""What learning alpha costs: a run beside one of constant alpha, and one update by each solver."""

from functools import partial

import numpy as np
import torch
from datasets import Array3D, Dataset, Features, Value
from transformers import PrinterCallback, ViTConfig

from hf_colearn import (
    CoLearningBatch,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    ConstantAlpha,
    ContrastiveAlignment,
    LearnedAlpha,
    MultimodalCollator,
)
from hf_colearn.alpha.solvers import ConjugateGradient, Identity, Neumann
from tests.benchmarks.timing import Row, paired, ratio_row, timed
from tests.benchmarks.trainers import WARMUP, Turn, make_arguments


NOTE_RUN = (
    "Two real `train()` loops that take turns of 100 steps, in which one update falls: the default interval, and the "
    "default solver (Adam's diagonal). The model has two ViTs, contrastive loss, batches in memory; the update reads two "
    "batches more."
)
NOTE_UPDATE = (
    "One update against one forward and backward pass of a batch of the same size in evaluation mode, at the same "
    "weights. `counted` is the logged `hypergradient_cost` in the same unit, a backward pass being two forward ones."
)
LATENT_DIM = 64
SOLVERS = {
    "identity": partial(Identity, 1e-3),
    "adam": lambda: "adam",
    "neumann, 5 products": partial(Neumann, 1e-3, 5),
    "cg, 10 products": partial(ConjugateGradient, iterations=10),
}


def make_data(samples: int, side: int) -> Dataset:
    pixels = np.random.default_rng(0).normal(size=(samples, 3, side, side)).astype(np.float32)
    columns = {"image_pixel_values": pixels, "depth_pixel_values": pixels[::-1], "labels": np.arange(samples) % 10}
    shape = Array3D((3, side, side), "float32")
    features = Features({"image_pixel_values": shape, "depth_pixel_values": shape, "labels": Value("int64")})
    return Dataset.from_dict(columns, features=features).with_format("torch")


def make_model(width: int, side: int, **heads) -> CoLearningForMultimodalClassification:
    """Two ViTs of four layers, always of the same weights."""
    torch.manual_seed(0)
    backbone = ViTConfig(
        hidden_size=width, num_hidden_layers=4, num_attention_heads=4, intermediate_size=2 * width, image_size=side,
        patch_size=8,
    )  # fmt: skip
    return CoLearningForMultimodalClassification.from_backbones(
        {"image": backbone, "depth": backbone}, latent_dim=LATENT_DIM, num_labels=10, **heads
    )


def make_trainer(alpha, data: Dataset, width: int, batch_size: int, steps: int) -> CoLearningTrainer:
    trainer = CoLearningTrainer(
        make_model(width, data.features["image_pixel_values"].shape[1]),
        make_arguments(batch_size, steps, dataloader_pin_memory=False),
        train_dataset=data,
        data_collator=MultimodalCollator({"image": None, "depth": None}),
        objective=ContrastiveAlignment(),
        alpha=alpha,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def rows(quick: bool) -> list[Row]:
    """Both parts."""
    pairs, steps, width, batch_size, side = (1, 2, 32, 8, 16) if quick else (10, 100, 128, 32, 32)
    data = make_data(80 if quick else 640, side)
    sizes = f"2 ViTs of width {width}, batch {batch_size}"
    learned = LearnedAlpha("contrastive", **({"interval": 2} if quick else {}), outer_split=0.2)
    turns = [
        Turn(make_trainer(alpha, data, width, batch_size, steps))
        for alpha in (ConstantAlpha(0.5, "contrastive"), learned)
    ]
    found = [
        ratio_row(
            "alpha", "run with learned alpha / with constant alpha", sizes, paired(*turns, pairs), target="<= 1.05",
            note=NOTE_RUN,
        )
    ]  # fmt: skip
    trainer = turns[1].trainer
    trainer.max_steps = WARMUP
    batch = trainer._prepare_inputs(
        trainer.batches.collator(False)([trainer.train_dataset[i] for i in range(batch_size)])
    )

    def forward_and_backward() -> None:
        outputs = trainer.model.eval()(**batch)
        loss = outputs.loss + trainer.auxiliary_objective(outputs, CoLearningBatch())["contrastive"]
        torch.autograd.grad(loss, [w for w in trainer.model.parameters() if w.requires_grad], allow_unused=True)

    for name, make_solver in SOLVERS.items():
        learned.solver = make_solver()
        cost = learned.measure(trainer.optimizer).cost / 3
        seconds = paired(
            lambda: timed(forward_and_backward),
            lambda: timed(lambda: learned.measure(trainer.optimizer)),
            1 if quick else 20,
        )
        what = f"one update of alpha, {name} / a forward and backward pass"
        found.append(ratio_row("alpha", what, f"{sizes}, counted {cost:g}", seconds, note=NOTE_UPDATE))
    return found
