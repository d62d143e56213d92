"""The plan past one machine in hf_colearn/README.md: its arithmetic, scripts that parse, and a training that runs when tiny."""

import doctest
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from torch.distributed.run import get_args_parser

import tiny
import tiny_teachers
from hf_colearn import cli
from tests.benchmarks import plan


TEXT = (
    (Path(cli.__file__).parent / "README.md").read_text().partition("## Past one machine\n")[2].partition("\n## ")[0]
)
SCRIPTS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
# Of `man sbatch`.
SBATCH = {
    *("account", "array", "chdir", "constraint", "cpus-per-gpu", "cpus-per-task", "dependency", "error", "exclusive"),
    *(
        "gpus",
        "gpus-per-node",
        "gpus-per-task",
        "gres",
        "job-name",
        "mail-type",
        "mem",
        "mem-per-cpu",
        "mem-per-gpu",
        "nodes",
    ),
    *("ntasks", "ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue", "signal", "time"),
}
VALUES = {"$SLURM_ARRAY_TASK_ID": "3", "$SLURM_ARRAY_TASK_COUNT": "64", "$SLURM_NNODES": "8", "$HEAD": "node0"}


def commands(script):
    """The words of every command, as a shell would give them."""
    lines = script.replace("\\\n", " ").splitlines()
    for name, value in VALUES.items():
        lines = [line.replace(name, value) for line in lines]
    return [shlex.split(line) for line in lines if line and not line.startswith(("#", "HEAD="))]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_valid_bash_and_asks_slurm_for_what_it_knows(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    asked = re.findall(r"^#SBATCH (.*)$", script, flags=re.MULTILINE)
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", line) for line in asked)
    assert {line[2:].partition("=")[0] for line in asked} <= SBATCH
    assert script.startswith("#!/bin/bash\n#SBATCH") or not asked


def test_every_command_is_parsed_by_what_it_starts():
    started = []
    for words in (words for script in SCRIPTS for words in commands(script)):
        if words[0] == "srun":
            words = words[1:]
        if words[0] == "torchrun":
            launch = get_args_parser().parse_args(words[1:])
            assert (launch.nnodes, launch.nproc_per_node) == ("8", "8")
            assert (launch.rdzv_backend, launch.rdzv_endpoint) == ("c10d", "node0:29500")
            words = ["hf-colearn" if launch.module else "python", *launch.training_script_args]
            assert launch.training_script == ("hf_colearn" if launch.module else "train.py")
        if words[0] == "hf-colearn":
            options = cli.make_parser().parse_args(words[1:])
            assert (options.column, options.dtype, options.output) == ("caption", "int8", "encoded")
            words = [words[0], options.engine, options.part]
        started.append(words)
    assert started == [
        ["hf-colearn", "accelerate", "3/64"],
        ["hf-colearn", "accelerate", None],
        ["python"],
        ["ray", "start", "--head", "--port", "6379"],
        ["ray", "start", "--address", "node0:6379"],
        ["hf-colearn", "ray", None],
    ]


def test_ray_knows_the_options_of_the_cluster():
    start = pytest.importorskip("ray.scripts.scripts").start
    known = {option for parameter in start.params for option in parameter.opts}
    assert {"--head", "--port", "--address"} <= known


def test_what_is_encoded_trains_as_the_script_says_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_teachers.bert_model().save_pretrained("teacher")
    tiny_teachers.tokenizer().save_pretrained("teacher")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    columns = {"image": list(pixels), "label": range(8), "caption": [f"number {i}" for i in range(8)]}
    kinds = Features({"image": Image(), "label": Value("int64"), "caption": Value("string")})
    Path("captions").mkdir()
    Dataset.from_dict(columns, features=kinds).to_parquet("captions/0.parquet")
    words = commands(SCRIPTS[-1])[-1][1:]
    words[words.index("--teacher") + 1] = "teacher"
    words[words.index("ray")] = "accelerate"
    assert cli.main([word for word in words if word not in ("--workers", "64")]) == 0

    (script,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    sizes = next(line for line in script.splitlines() if line.startswith("BACKBONE"))
    script = script.replace(sizes, "PIXELS, BATCH, STEPS, OPTIONS = 8, 2, 2, {'use_cpu': True}")
    names = {"BACKBONE": tiny.vit(num_channels=3)}
    exec(script, names)
    assert (names["trainer"].state.global_step, names["last"]) == (2, None)
    exec(script.replace("STEPS, OPTIONS = 8, 2, 2", "STEPS, OPTIONS = 8, 2, 3"), names)
    assert (names["trainer"].state.global_step, names["last"]) == (3, "runs/student/checkpoint-2")
    assert Path("runs/student/final/model.safetensors").is_file()


def test_the_arithmetic_of_the_plan():
    assert doctest.testmod(plan).attempted >= 4 and not doctest.testmod(plan).failed


def test_the_tables_are_those_of_the_rates_that_they_show():
    rates = [re.search(rf"^\| {part} \| ([\d,.]+) ", TEXT, re.MULTILINE)[1] for part in plan.PARTS]
    encoded, written, read, looked_up, trained = (float(rate.replace(",", "")) for rate in rates)
    shown = plan.tables(10**9, plan.Rates(encoded, written * 1e6, read * 1e6, looked_up, trained), 64)
    for line in shown.splitlines():
        assert line in TEXT
