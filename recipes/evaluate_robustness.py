"""Scores any image classifier of transformers on ImageNet val, V2, R, Sketch, A, Stylized and C.

R and A are scored over their own 200 classes, C as the mean corruption error, in percent of AlexNet's. A dataset is
one of the Hub or a local folder of class folders; for C, `--data c=FOLDER` is the unpacked archive
(`gaussian_noise/1/n01440764/...`, also below `noise/`, `blur/`, `weather/`, `digital/`), and without it the
corruptions are made on the fly from the validation set (`pip install 'hf-colearn[robustness]'`). The numbers made on
the fly are close to the archive's, not equal: hf_colearn/evaluation/corruptions.py says what differs.

    python recipes/evaluate_robustness.py --model microsoft/resnet-50 --datasets val r a
    python recipes/evaluate_robustness.py --model runs/imagenet_l2v/student --data val=/data/val sketch=/data/sketch
    accelerate launch recipes/evaluate_robustness.py --model PATH --streaming --max_samples 1000
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets.utils.logging import disable_progress_bar
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging

import hf_colearn  # registers the students with the Auto classes
from hf_colearn.evaluation.corruptions import check_can_corrupt, find_archive
from hf_colearn.evaluation.image_scoring import open_dataset
from hf_colearn.evaluation.imagenet_results import CorruptionResult, RobustnessResult, table
from hf_colearn.evaluation.imagenet_variants import (
    VARIANTS,
    EvaluationOptions,
    evaluate_archive,
    evaluate_classifier,
    evaluate_corruptions,
)
from hf_colearn.utils.command_line import CommandParser, run_script
from hf_colearn.utils.distributed import destroy_process_group
from hf_colearn.utils.recipe_files import described


def make_parser() -> CommandParser:
    parser = CommandParser(
        description=described(__file__, __doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a folder or an id of the Hub; with its image processor")
    parser.add_argument(
        "--datasets", nargs="+", choices=VARIANTS, help="by default those of --data, or else all that the Hub has"
    )
    parser.add_argument("--data", nargs="+", type=pair, default=[], metavar="NAME=PATH_OR_ID", help="other sources")
    parser.add_argument("--split", nargs="+", type=pair, default=[], metavar="NAME=SPLIT", help="of these sources")
    parser.add_argument("--label_column", help="by default the first of wnid, label, labels, cls")
    parser.add_argument("--streaming", action="store_true", help="read datasets of the Hub without downloading them")
    parser.add_argument("--batch_size", type=int, default=64, help="images a forward pass, on every process")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that decode, beside each that computes")
    parser.add_argument("--max_samples", type=int, help="score only so many images of every set")
    parser.add_argument("--skip_bad_samples", action="store_true", help="count images that cannot be read, go on")
    parser.add_argument("--background", default="white", help="a colour, behind transparent images")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of the model")
    parser.add_argument("--output_dir", default="runs/evaluate_robustness", help="where report.json goes")
    return parser


def pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name not in VARIANTS or not value:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE with one of the names {', '.join(VARIANTS)}")
    return name, value


def sources_of(options: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """The chosen sets' sources and splits; of C, where it is made on the fly, those of the validation set."""
    sources = {name: (variant.source, variant.split) for name, variant in VARIANTS.items()}
    sources |= {name: (source, dict(options.split).get(name)) for name, source in options.data}
    if sources["c"][0] is None:
        sources["c"] = sources["val"]
    chosen = options.datasets or [name for name, _ in options.data] or [n for n in VARIANTS if sources[n][0]]
    for name in chosen:
        if sources[name][0] is None:
            raise ValueError(f"{VARIANTS[name].title} is not on the Hub: pass its folder, `--data {name}=FOLDER`.")
    return {name: sources[name] for name in chosen}


def main() -> None:
    options = make_parser().parse_args()
    sources = sources_of(options)
    if "c" in sources and "c" not in dict(options.data):
        check_can_corrupt()
    # On a machine without a GPU, accelerate forms a process group only with `cpu=True`.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    logging.set_verbosity_error(), logging.disable_progress_bar(), disable_progress_bar()
    model = AutoModelForImageClassification.from_pretrained(options.model, dtype=options.dtype).to(state.device)
    processor = AutoImageProcessor.from_pretrained(options.model)
    how = EvaluationOptions(
        options.batch_size, options.num_workers, options.max_samples, options.skip_bad_samples,
        options.label_column, options.background,
    )  # fmt: skip

    def opened(source: Any, split: str | None = None) -> Any:
        with state.main_process_first():  # it downloads, the others find it
            return open_dataset(source, split, options.streaming)

    results: dict[str, RobustnessResult | CorruptionResult] = {}
    for name, (source, split) in sources.items():
        if state.is_main_process:
            print(f"{VARIANTS[name].title}: {source}", flush=True)
        if name != "c":
            results[name] = evaluate_classifier(model, processor, opened(source, split), how, VARIANTS[name])
        elif "c" in dict(options.data):
            archive = {condition: opened(folder) for condition, folder in find_archive(source).items()}
            results[name] = evaluate_archive(model, processor, archive, how)
        else:
            results[name] = evaluate_corruptions(model, processor, opened(source, split), how)
    if state.is_main_process:
        report(options, sources, results, state.num_processes)
    destroy_process_group()


def report(options: argparse.Namespace, sources: dict, results: dict, processes: int) -> None:
    """The table, and report.json with every count."""
    info = {
        "recipe": "evaluate_robustness",
        "options": vars(options),
        "sources": sources,
        "processes": processes,
        "installed": {"hf_colearn": hf_colearn.__version__}
        | {name: version(name) for name in ("torch", "transformers", "datasets")},
        "results": {name: result.to_dict() for name, result in results.items()},
    }
    path = Path(options.output_dir) / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(info, indent=1))
    print(f"\n{options.model}\n\n{table(results)}\nWritten:\n  {path}")


if __name__ == "__main__":
    run_script(main)
