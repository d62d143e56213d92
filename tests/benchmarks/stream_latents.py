"""Training on a stream with latents in a column beside the same stream without them."""

import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, IterableDataset, List, Value, load_dataset
from transformers import PreTrainedConfig

from hf_colearn import CoLearningTrainer, LatentColumn
from hf_colearn.data.sample_ids import TARGETS
from tests.benchmarks.timing import Row, median_with_interval, paired, ratio_row
from tests.benchmarks.trainers import CLASSES, LATENT_DIM, Turn, make_arguments, make_student, vit_small, vit_tiny


SHARDS = 4
NOTE = (
    "From one optimizer step to the next in two real `train()` loops of ours that take turns: reading Parquet, batch, targets, "
    "forward, backward, AdamW, in one process without workers. The student, its images and labels are the same; without "
    "latents the student has no teacher, and the column is not in the files. With workers reading is hidden behind the step."
)
NOTE_ALONE = (
    "The same difference with a student so small that it stands out of the noise, as a share of the large one's median step "
    "without latents: reading, restoring and scaling them, and the latent loss."
)


def write_shards(folder: Path, samples: int, with_latents: bool) -> None:
    """Labels, ids and, if asked for, latents in half precision, as `hf-colearn encode` writes them."""
    rng = np.random.default_rng(0)
    for shard, ids in enumerate(np.array_split(np.arange(samples), SHARDS)):
        columns = {"labels": ids % CLASSES, "sample_id": ids}
        features = {"labels": Value("int64"), "sample_id": Value("int64")}
        if with_latents:
            columns[TARGETS] = list(rng.normal(size=(len(ids), LATENT_DIM)).astype(np.float16))
            features[TARGETS] = List(Value("float16"), length=LATENT_DIM)
        part = Dataset.from_dict(columns, features=Features(features))
        part.to_parquet(folder / f"data-{shard:05d}-of-{SHARDS:05d}.parquet")


def stream(folder: Path) -> IterableDataset:
    return load_dataset("parquet", data_dir=str(folder), split="train", streaming=True).with_format("torch")


def step_seconds(folders: list[Path], backbone: PreTrainedConfig, batch: int, steps: int, pairs: int) -> np.ndarray:
    """Seconds of a step without and with latents, `(pairs, 2)`, each the mean of a turn of `steps`."""
    turns = []
    for folder, bank in zip(folders, (None, LatentColumn(TARGETS, LATENT_DIM, "float16")), strict=True):
        student = make_student(backbone, LATENT_DIM, batch)
        args = make_arguments(batch, steps, latent_scaling="l2")
        turns.append(Turn(CoLearningTrainer(student, args, train_dataset=stream(folder), bank=bank)))
    return paired(*turns, pairs)


def rows(quick: bool) -> list[Row]:
    batch, steps, pairs = (2, 2, 2) if quick else (8, 4, 20)
    with tempfile.TemporaryDirectory() as parent:
        folders = [Path(parent, name) for name in ("without", "with")]
        for folder in folders:
            folder.mkdir()
            write_shards(folder, 100 if quick else 2000, folder.name == "with")
        name, backbone = ("tiny ViT", vit_tiny()) if quick else ("ViT-S/16, 224 px", vit_small())
        seconds = step_seconds(folders, backbone, batch, steps, pairs)
        alone = seconds if quick else step_seconds(folders, vit_tiny(), batch, 10 * steps, 2 * pairs)
    sizes = f"{name}, batch {batch}, D {LATENT_DIM}, float16"
    what = "step on a stream with latents / on the same without"
    shares = 100 * (alone[:, 1] - alone[:, 0]) / np.median(seconds[:, 0])
    interval = median_with_interval(shares)
    count = f"{len(shares)} pairs"
    return [
        ratio_row("stream_latents", what, sizes, seconds, target="<= 1.02", note=NOTE),
        Row(
            "stream_latents",
            "what latents in a stream add, alone",
            f"of a step of {sizes}",
            *interval,
            "%",
            count,
            "<= 2",
            NOTE_ALONE,
        ),
    ]
