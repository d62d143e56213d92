"""The benchmarks run; what they measure is looked at in tests/benchmarks/RESULTS.md, never here."""

import json
import math
import sys
from pathlib import Path

import pytest
from transformers import ViTConfig

import processes
from tests.benchmarks.gpu_throughput import flops_per_image
from tests.benchmarks.trainers import resnet50


BENCHMARKS = Path(__file__).parent
ROOT = Path(__file__).parents[2]
EXPECTED = {
    "co-learning step / plain step",
    "what co-learning adds, alone",
    "targets of RandomPrompt in the collator",
    "targets of Noisy(RandomPrompt) in the collator",
    "host reads in compute_loss",
    "step with the teacher online / with the bank",
    "encoding all / `TeacherBank.encode`, empty cache",
    "memory added, one shard",
    "memory added, ten shards",
    "memory added, one shard of ten times the rows",
    "memory a further row of other shards",
    "memory a further distinct row of a shard",
    "resident memory added, peak",
    "resident memory added, private",
    "look-up / step, cold",
    "look-up / step, warm",
    "look-up of 256, 4 N rows / N rows, cold",
    "look-up of 256, 4 N rows / N rows, warm",
    "100M rows on disk",
    "step on a stream with latents / on the same without",
    "what latents in a stream add, alone",
    "contrastive loss, chunked / direct, time",
    "contrastive loss, chunked / direct, memory",
    "contrastive loss, chunked - direct, loss and gradient",
    "mined positives, chunked / direct, memory",
    "mined positives, chunked / direct, time",
    "contrastive loss, one of two processes / one process with its pairs alone, memory",
    "contrastive loss, one of two processes / one process with all pairs, memory",
    "contrastive loss, one of two processes / all keys gathered at once, memory",
    "contrastive loss, two processes - one, loss and gradient",
    "gradient caching / the batch at once, memory",
    "gradient caching / the batch at once, time",
    "step of a trunk on two tasks / of its students alone",
    "sliced W2",
    "Gaussian W2",
    "exact W2 on mini-batches",
    "linear CKA",
    "uniformity",
    "silhouette",
    "memory of a report's numbers",
    "run with learned alpha / with constant alpha",
    "one update of alpha, identity / a forward and backward pass",
    "one update of alpha, adam / a forward and backward pass",
    "one update of alpha, neumann, 5 products / a forward and backward pass",
    "one update of alpha, cg, 10 products / a forward and backward pass",
    "decoding alone",
    "training transform",
    "training transform / decoding alone",
    "evaluation transform",
    "cores that a GPU needs",
    "augmentation of an image",
}
EXPECTED_GPU = {
    "look-up / step, cold",
    "look-up / step, warm",
    "plain Trainer",
    "ours, with a bank",
    "ours / plain, images/s",
    "plain Trainer, share of the peak",
    "ours, share of the peak",
    "BERT-large's size at every step",
    "ours / BERT-large's size at every step, images/s",
    "graphs compiled in the turns",
    "compute_loss waits for the GPU",
    "contrastive loss, chunked / direct, time",
    "contrastive loss, chunked / direct, memory",
    "a step, plain Trainer",
    "a step, ours, with a bank",
    "a step, ours, teacher online",
}
NONE_EXPECTED = {"graphs compiled in the turns", "compute_loss waits for the GPU"}


def table_of(folder: Path, name: str, expected: set[str]) -> list[dict]:
    """The rows of a quick run, after a look at what every table must hold."""
    rows = json.loads((folder / f"{name.lower()}.json").read_text())["rows"]
    assert {row["what"] for row in rows} == expected
    assert all(math.isfinite(row[key]) for row in rows for key in ("value", "low", "high"))
    text = (folder / f"{name}.md").read_text()
    assert all(f"| {row['what']} [" in text for row in rows)
    assert "the numbers mean nothing" in text
    return rows


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_quick_run_writes_the_whole_table(tmp_path):
    asked = ["--quick", "--output", tmp_path, "--images_per_second", 1000]
    processes.forked(BENCHMARKS / "__main__.py", *asked, folder=tmp_path)

    rows = {row["what"]: row for row in table_of(tmp_path, "RESULTS", EXPECTED)}
    assert rows["host reads in compute_loss"]["value"] == 0
    # 1,000 images/s of one GPU over the median images/s of a core.
    cores = rows["cores that a GPU needs"]
    assert cores["value"] == pytest.approx(1000 / rows["training transform"]["value"])
    assert cores["sizes"] == "1,000 images/s a GPU"


@pytest.mark.skipif(sys.platform != "linux", reason="a bank is dropped from Linux's page cache")
def test_quick_run_of_the_gpu_benchmark_works_without_one(tmp_path):
    processes.forked(BENCHMARKS / "gpu_throughput.py", "--quick", "--output", tmp_path, folder=tmp_path)

    rows = {row["what"]: row for row in table_of(tmp_path, "RESULTS_GPU", EXPECTED_GPU)}
    assert all(rows[what]["value"] == 0 for what in NONE_EXPECTED)
    assert all(rows[what]["value"] > 0 for what in EXPECTED_GPU - NONE_EXPECTED if not what.endswith("memory"))


def test_what_a_gpu_has_no_time_left_for_is_named_in_the_table(tmp_path):
    asked = ["--quick", "--minutes", 0, "--output", tmp_path]
    done = processes.forked(BENCHMARKS / "gpu_step.py", *asked, folder=tmp_path, expect=1)

    assert "not all was measured" in done.stderr
    assert (
        "- left out, step: TimeoutError: no time was left of 0 minutes"
        in (tmp_path / "RESULTS_GPU_STEP.md").read_text()
    )


def test_gpu_benchmark_says_plainly_that_there_is_no_gpu(tmp_path):
    done = processes.forked(BENCHMARKS / "gpu_throughput.py", "--output", tmp_path, folder=tmp_path, expect=1)

    assert done.stderr.strip().endswith("torch sees none here: run `python -m tests.benchmarks` instead.")
    assert not list(tmp_path.iterdir())


def test_the_operations_of_a_student_are_counted():
    # Published multiply-adds of a forward pass: ResNet-50 4.1 G (He et al., 2016, with the stride in the 3 x 3), ViT-B/16
    # 17.6 G (Steiner et al., 2021). A backward pass has twice as many, a multiply-add is two operations.
    assert flops_per_image(resnet50()) == pytest.approx(6 * 4.1e9, rel=0.05)
    assert flops_per_image(ViTConfig()) == pytest.approx(6 * 17.6e9, rel=0.05)
