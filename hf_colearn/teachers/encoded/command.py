"""The command `hf-colearn encode`."""

import argparse
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_colearn.utils.command_line import called_as, run_script


if TYPE_CHECKING:
    from hf_colearn.teachers.encoded.outputs import Output


EPILOG = (
    "On several processes: accelerate launch -m hf_colearn encode ..., or torchrun --nproc_per_node N -m hf_colearn encode "
    "...; in an array of jobs: --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT. The same command goes on where it was "
    "stopped. To train on what it wrote: load_dataset(OUTPUT, split='train', streaming=True) and LatentColumn.of(OUTPUT)."
)


def add_to(commands: Any) -> None:
    """Adds the sub-command."""
    one = commands.add_parser(
        "encode",
        help="write a data set with a teacher's latents in a column, shard by shard, on any number of machines",
        epilog=EPILOG,
    )
    one.add_argument(
        "source", metavar="SOURCE",
        help="a dataset of the Hub, a folder (tables, images, sounds, save_to_disk), or files as 'data/*.parquet'",
    )  # fmt: skip
    one.add_argument("--teacher", required=True, metavar="NAME", help="the frozen model, of the Hub or a folder")
    one.add_argument("--column", required=True, help="of the source: texts, images or sounds for the teacher")
    one.add_argument(
        "--output", required=True, metavar="FOLDER_OR_REPO",
        help="a folder, or owner/name (hf://datasets/owner/name where owner is a folder, too) of a dataset repository",
    )  # fmt: skip

    of_source = one.add_argument_group("source")
    of_source.add_argument("--split", default="train", help="train by default")
    of_source.add_argument("--name", metavar="CONFIG", help="configuration of the source")
    of_source.add_argument("--revision", help="of a source on the Hub")
    of_source.add_argument(
        "--num_shards", type=int, metavar="N",
        help="by default one a file; more cut the rows into ranges, after loading them into the cache of datasets",
    )  # fmt: skip

    of_output = one.add_argument_group("output")
    of_output.add_argument(
        "--keep", default="all", choices=["all", "ids"], help="columns of the source; all by default"
    )
    of_output.add_argument(
        "--id_column",
        default="sample_id",
        metavar="COLUMN",
        help="kept, or made where there is none; default sample_id",
    )
    of_output.add_argument(
        "--dtype", default="float32", choices=["float32", "float16", "int8"],
        help="latents are stored as; int8 adds a scale a row; float32 by default",
    )  # fmt: skip
    of_output.add_argument(
        "--latent_column", default="teacher_latents", metavar="COLUMN", help="teacher_latents by default"
    )
    of_output.add_argument("--private", action="store_true", default=None, help="the repository must be private")

    of_teacher = one.add_argument_group("teacher")
    of_teacher.add_argument("--pooling", default="mean", help="mean (default), cls, masked_mean or pooler")
    of_teacher.add_argument(
        "--modality", choices=["text", "vision", "audio"], help="of a teacher of two, such as CLIP"
    )
    of_teacher.add_argument("--max_length_s", type=float, metavar="S", help="of sounds: longer ones lose their end")
    of_teacher.add_argument("--teacher_revision", metavar="REVISION", help="of a teacher on the Hub")
    of_teacher.add_argument(
        "--teacher_dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of its weights"
    )
    of_teacher.add_argument("--batch_size", type=int, default=64, help="inputs a forward pass, 64 by default")

    of_run = one.add_argument_group("run")
    of_run.add_argument(
        "--engine", default="accelerate", choices=["accelerate", "ray"],
        help="the processes of the run (default), or a Ray cluster: pip install 'hf-colearn[ray]'",
    )  # fmt: skip
    of_run.add_argument(
        "--workers", type=int, metavar="N", help="of --engine ray; by default one a GPU of the cluster, or one a core"
    )
    of_run.add_argument(
        "--part",
        metavar="I/N",
        help="of N runs that share the shards, the one numbered I from 0; all shards by default",
    )
    one.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """The command's action: what is wrong with the input ends it with one line and exit status 2."""
    with called_as("hf-colearn encode"):
        run_script(lambda: _encode(options))
    return 0


def _encode(options: argparse.Namespace) -> None:
    from hf_colearn.models.pooling import POOLINGS
    from hf_colearn.teachers.encoded.job import Part, encode_source, summary
    from hf_colearn.teachers.encoded.plan import EncodingOptions
    from hf_colearn.teachers.encoded.source import Source
    from hf_colearn.teachers.encoder import FrozenEncoder
    from hf_colearn.utils import distributed
    from hf_colearn.utils.checks import check_choice

    # What is wrong is told before the model is loaded.
    check_choice("pooling", options.pooling, POOLINGS)
    part = Part() if options.part is None else Part.parse(options.part)
    if options.engine == "ray":
        from hf_colearn.teachers.encoded import ray_engine  # noqa: F401  (says where ray is missing)
    asked = {name: getattr(options, name) for name in ("keep", "id_column", "dtype", "latent_column", "batch_size")}
    wanted = EncodingOptions(options.column, **asked)
    source = Source.open(options.source, options.split, options.name, options.revision, options.num_shards)
    wanted.check(source)
    output = _output(options.output, options.private)
    _join_processes()
    encoder = FrozenEncoder.from_pretrained(
        options.teacher,
        options.pooling,
        options.teacher_revision,
        options.teacher_dtype,
        max_length_s=options.max_length_s,
        modality=options.modality,
    )
    found = encode_source(source, encoder, wanted, output, part, options.engine, options.workers)
    if distributed.rank() == 0:
        facts = {"output": options.output, **summary(found, source.num_shards)}
        print(*(f"{name + ':':<10} {fact}" for name, fact in facts.items()), sep="\n")
    distributed.destroy_process_group()


def _join_processes() -> None:
    """The process group, if there are several. They meet before and after encoding alone, so one waits as long as it takes."""
    import torch
    from accelerate import PartialState

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))


def _output(name: str, private: bool | None) -> "Output":
    """A folder, or a repository where the name is `owner/name` and neither it nor the owner is a folder here."""
    from hf_colearn.teachers.encoded.hub_output import HubOutput
    from hf_colearn.teachers.encoded.outputs import FolderOutput

    repo_id = name.removeprefix("hf://datasets/")
    is_repo = repo_id != name or (
        name.count("/") == 1
        and not name.startswith((".", "~", "/"))
        and not name.endswith("/")
        and not Path(name).exists()
        and not Path(name).parent.exists()
    )
    if not is_repo:
        if private:
            raise ValueError(f"--private is for a repository of the Hub, and '{name}' is a folder: leave it out.")
        return FolderOutput(name)
    return HubOutput(repo_id, private=private)
