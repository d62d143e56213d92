"""One trunk that is trained on two tasks in turn beside their students, each trained alone for as many steps."""

import torch
from datasets import Dataset

from hf_colearn import CoLearningForManyTasks, CoLearningTrainer, UnpairedBatches
from tests.benchmarks.timing import Row, paired, ratio_row
from tests.benchmarks.trainers import Turn, make_arguments


CLASSES, SAMPLES = 10, 64
NOTE = (
    "Mean seconds of a step of `CoLearningTrainer`: of a `CoLearningForManyTasks` on `UnpairedBatches` of both tasks in turn, "
    "against the mean over its two students, each on its task's data alone. The samples lie in memory."
)


def samples(column: str, *shape: int) -> Dataset:
    """Random ones, read from a tensor by their row."""
    values = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))

    def read(batch):
        found = {name: torch.tensor(value) for name, value in batch.items() if name != "row"}
        return {column: values[batch["row"]], **found} if "row" in batch else found

    columns = {"row": list(range(SAMPLES)), "labels": [row % CLASSES for row in range(SAMPLES)]}
    return Dataset.from_dict(columns).with_transform(read)


def trunk_row(
    width: int, layers: int, image: int, frames: int, batch: int, timed_steps: int, pairs: int, **arguments
) -> Row:
    """The students' step first, the trunk's second."""
    shapes = {"image": (3, image, image), "speech": (1, 40, frames)}
    torch.manual_seed(0)
    model = CoLearningForManyTasks.from_stems(
        {
            "image": {"kind": "patches", "image_size": image, "patch_size": image // 4},
            "speech": {"kind": "frames", "num_bands": 40, "max_length": frames},
        },
        {f"{name}_task": {"modalities": [name], "num_labels": CLASSES} for name in shapes},
        {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 16,
            "intermediate_size": 4 * width,
        },
        latent_dim=64,
    )
    alone = [
        CoLearningTrainer(
            model.student(f"{name}_task").train(),
            make_arguments(batch, timed_steps, remove_unused_columns=False, **arguments),
            train_dataset=samples("pixel_values", *shape),
        )
        for name, shape in shapes.items()
    ]
    data = {f"{name}_task": samples(f"{name}_pixel_values", *shape) for name, shape in shapes.items()}
    together = CoLearningTrainer(
        model.train(),
        make_arguments(batch, timed_steps, **arguments),
        train_dataset=UnpairedBatches(data, dict.fromkeys(data, 1.0)),
    )
    turns, of_trunk = [Turn(trainer) for trainer in alone], Turn(together)
    seconds = paired(lambda: sum(turn() for turn in turns) / len(turns), of_trunk, pairs)
    sizes = f"{layers} layers of width {width}, {image} px and {frames} frames, batch {batch}"
    what = "step of a trunk on two tasks / of its students alone"
    return ratio_row("trunk", what, sizes, seconds, target="<= 1.05", note=NOTE)


def rows(quick: bool) -> list[Row]:
    return [trunk_row(32, 1, 16, 16, 2, 2, 2) if quick else trunk_row(192, 4, 64, 64, 16, 8, 15)]
