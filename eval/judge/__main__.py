"""Agreement of judges with human labels: ``python -m eval.judge --labels FILE``.

A language model judges answers to FinanceBench with three outcomes, as its own annotators gave them (Islam et al.
2023): correct, incorrect, refusal. Agreement is Cohen's kappa (Cohen 1960, "A coefficient of agreement for nominal
scales"), with a bootstrap over documents.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.command import status
from eval.server_options import add_server_options, server_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input or a failing server, 130 when interrupted."""
    options = parse(arguments)
    return status(lambda: options, work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge", description="Agreement of judges with human labels.")
    parser.add_argument("--labels", type=Path, required=True, help="a result file of FinanceBench with human labels")
    parser.add_argument("--questions", type=Path, help="FinanceBench's questions (looked for near the labels)")
    add_server_options(parser, "the judge", "the judge's name on that server", required=False)
    options = parser.parse_args(arguments)
    if (options.endpoint is None) != (options.model is None):
        parser.error("--endpoint and --model go together")
    return options


def work(options: argparse.Namespace) -> int:
    """Print how far the offline matcher, and a judge where one is named, agree with people."""
    from eval.judge.job import run

    server = None if options.endpoint is None else server_of(options)
    return run(options.labels, options.questions, server, options.model, options.cache)


if __name__ == "__main__":
    sys.exit(main())
