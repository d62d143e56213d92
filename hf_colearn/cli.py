"""The command `hf-colearn`: what is done with finished runs."""

import argparse
import sys
from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hf-colearn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("report", help="one page on whether co-learning worked, of finished runs")
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 0, or 2 with one line on stderr where the input is at fault."""
    options = make_parser().parse_args(argv)
    try:
        from hf_colearn.analysis.reporting import report

        facts = {"title": options.title} if options.title else None
        made = report(options.runs, options.output_dir, facts, options.metric, options.projections)
    except (FileNotFoundError, ValueError, ImportError) as error:
        print(f"hf-colearn: {error}", file=sys.stderr)
        return 2
    print(made.headline, *made.verdict, "Written:", *(f"  {path}" for path in made.files), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
