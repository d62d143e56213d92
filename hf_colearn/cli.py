"""The command `hf-colearn`: trains on data of your own and runs recipes, encodes data sets by a teacher, checks teachers before
a run, and reports on, publishes and checks what finished runs left."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_colearn import _prepare
from hf_colearn.teachers.encoded import command as encode_command
from hf_colearn.utils.command_line import CommandParser
from hf_colearn.utils.recipe_files import (
    TRAIN,
    recipe_files,
    recipe_line,
    recipe_names,
    recipe_script,
    recipes_folder,
    run_recipe_script,
)


def make_parser() -> CommandParser:
    parser = CommandParser(prog="hf-colearn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser(
        "train", help="a student of your own data: pairs of two modalities, labels or not (--help: how)"
    )

    one = commands.add_parser(
        "recipe",
        help="list, print, copy or run the recipes of published experiments",
        epilog="On several processes: accelerate launch -m hf_colearn recipe NAME --run ...",
    )
    one.add_argument("name", nargs="?", metavar="NAME", help="the recipe to print; without one, all are listed")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--path", action="store_true", help="print where its script lies")
    what.add_argument("--copy", metavar="FOLDER", help="copy its script and YAML files into FOLDER, to change them")
    what.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="run it; all that follows, here or after --, are its options",
    )
    one.set_defaults(action=_recipe)

    encode_command.add_to(commands)

    one = commands.add_parser("report", help="one page on whether co-learning worked, from finished runs")
    one.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of an experiment, an arm or a run, as runs/digits_l2v"
    )
    one.add_argument("--output_dir", help="where report.html goes; the first RUN by default")
    one.add_argument("--metric", help="what the arms are compared on; by default what the recipe compared")
    one.add_argument("--title", help="of the page")
    one.add_argument(
        "--projections", nargs="*", default=["pca", "tsne"], choices=["pca", "tsne", "umap"],
        help="maps of the latents to draw, pca and tsne by default; umap needs pip install 'hf-colearn[umap]'",
    )  # fmt: skip
    one.add_argument(
        "--arms", nargs="+", metavar="ARM",
        help="arms of maps and tables of classes; by default baseline, best co-learned arm and best null control",
    )  # fmt: skip
    one.set_defaults(action=_report)

    one = commands.add_parser(
        "check",
        help="will this teacher help? A minute of linear probes before hours of training",
        epilog="Samples without a label are empty or -100 in LABELS; samples without a pair are empty or -1 in --row_column.",
    )
    one.add_argument("--features", required=True, metavar="BANK", help="folder of the student's features, as a bank")
    one.add_argument("--teacher", required=True, metavar="BANK", help="folder of the teacher bank")
    one.add_argument(
        "--labels", required=True, metavar="FILE", help="one row a sample: .csv, .json, .jsonl or .parquet"
    )
    one.add_argument("--label_column", default="labels", help="of LABELS: classes as integers or names, or values")
    one.add_argument(
        "--row_column", help="of LABELS: every sample's row of the teacher; by default sample i sees row i"
    )
    one.add_argument("--confidence", type=float, default=0.9, help="level of the intervals, 0.9 by default")
    one.set_defaults(action=_check)

    one = commands.add_parser(
        "publish", help="upload a run's student with its card and report, or a saved model, to the Hub"
    )
    one.add_argument(
        "folder",
        metavar="RUN",
        help="folder of a finished run, as runs/digits_l2v, or of a model, checkpoint or adapter",
    )
    one.add_argument("--repo_id", required=True, help="owner/name; created if it does not exist")
    one.add_argument("--private", action="store_true", default=None, help="the repository must be private")
    one.add_argument("--revision", help="branch, created if it does not exist; main by default")
    one.add_argument("--adapter", action="store_true", help="the LoRA adapter alone, as a PEFT repository")
    one.add_argument("--base", help="of an adapter: the repository of its base model")
    one.add_argument(
        "--dry_run",
        action="store_true",
        help="list what would be sent and what refused; without a token or the network",
    )
    one.set_defaults(action=_publish)

    one = commands.add_parser(
        "card",
        help="print a student's card, or check its numbers",
        epilog="Arguments after -- go to the recipe that measures again, such as: -- --data_dir MINE",
    )
    one.add_argument("student", help="folder or repository of a student, as runs/digits_l2v/student")
    one.add_argument(
        "--check", action="store_true", help="measure again; exit status 1 if a number of the card differs"
    )
    one.add_argument(
        "--recipes",
        default=recipes_folder(),
        metavar="FOLDER",
        help="of the recipes, where they are not the installed ones",
    )
    one.set_defaults(action=_card)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 for a card that differs, or 2 with one line on stderr."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["train"]:  # all options are those of the recipe, --help too
        return _run(TRAIN, argv[1:], prog="hf-colearn train")
    end = argv.index("--") if "--" in argv else len(argv)
    parser = make_parser()
    options = parser.parse_args(argv[:end])
    options.extra = argv[end + 1 :]
    if options.extra and options.command not in ("card", "recipe"):
        parser.error(
            f"'{' '.join(options.extra)}' after -- is for a recipe, and `hf-colearn {options.command}` runs none"
        )
    if options.command == "recipe":
        is_run = options.run is not None or end < len(argv)
        if options.name is None and (is_run or options.path or options.copy is not None):
            parser.error("which recipe? Name it first, as in `hf-colearn recipe digits_l2v --run`")
        if is_run:
            return _run(options.name, [*(options.run or []), *options.extra])
        try:
            return options.action(options)
        except OSError as error:
            return _fail(error)
    try:
        _prepare()
        from hf_colearn.hub.publish import PublishError
    except ImportError as error:
        return _fail(error)
    try:
        return options.action(options)
    except (FileNotFoundError, ValueError, ImportError, PublishError) as error:
        return _fail(error)


def _fail(error: Exception) -> int:
    print(f"hf-colearn: {error}", file=sys.stderr)
    return 2


def _run(name: str, argv: Sequence[str], prog: str | None = None) -> int:
    try:
        recipe_script(name)
        _prepare()
    except (FileNotFoundError, ImportError) as error:
        return _fail(error)
    run_recipe_script(name, argv, prog)  # which tells of its errors itself
    return 0


def _recipe(options: argparse.Namespace) -> int:
    if options.name is None:
        width = max(map(len, recipe_names()), default=0)
        print(*(f"{name:<{width}}  {recipe_line(name)}" for name in recipe_names()), sep="\n")
    elif options.path:
        print(recipe_script(options.name))
    elif options.copy is not None:
        files = recipe_files(options.name)
        folder = Path(options.copy)
        if there := [folder / file.name for file in files if (folder / file.name).exists()]:
            raise FileExistsError(f"'{there[0]}' exists: remove it, or copy into another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        print("Written:", *(f"  {shutil.copyfile(file, folder / file.name)}" for file in files), sep="\n")
    else:
        print(recipe_script(options.name).read_text(encoding="utf-8"), end="")
    return 0


def _report(options: argparse.Namespace) -> int:
    from hf_colearn.analysis.report.reporting import report

    facts = {"title": options.title} if options.title else None
    made = report(options.runs, options.output_dir, facts, options.metric, options.projections, options.arms)
    print(made.headline, *([f"\n{made.summary}"] if made.summary else []), "Written:", sep="\n")
    print(*(f"  {path}" for path in made.files), sep="\n")
    return 0


def _check(options: argparse.Namespace) -> int:
    from hf_colearn.analysis.latents.transfer_inputs import read_banks
    from hf_colearn.analysis.teacher_check import teacher_check

    columns = {"label_column": options.label_column, "row_column": options.row_column}
    x_ND, t_NE, labels = read_banks(options.features, options.teacher, options.labels, **columns)
    print(teacher_check(x_ND, t_NE, labels, confidence=options.confidence))
    return 0


def _publish(options: argparse.Namespace) -> int:
    from hf_colearn.hub.publish import dry_run, planned, publish

    of_model = {"revision": options.revision, "adapter": options.adapter, "base": options.base}
    if options.dry_run:
        with planned(options.folder, options.repo_id, **of_model) as manifest:
            print(dry_run(manifest, options.repo_id, options.private, options.revision))
        return 0
    made = publish(options.folder, options.repo_id, private=options.private, **of_model)
    figures = [path for path in made.files if path.startswith("report/figures/")]
    others = [path for path in made.files if path not in figures]
    print(f"Published: {made.url}", *(f"  {path}" for path in others), sep="\n")
    if figures:
        print(f"  report/figures/ ({len(figures)} files)")
    for title, told in (("Left out, of the training:", made.left_out), ("Note:", made.notes)):
        if told:
            print(title, *(f"  {text}" for text in told), sep="\n")
    return 0


def _card(options: argparse.Namespace) -> int:
    from hf_colearn.hub.check import card_command

    return card_command(options.student, options.check, options.recipes, options.extra)


if __name__ == "__main__":
    sys.exit(main())
