"""A page of messages before and after training, chosen at random: ``python -m eval.messages RUN [RUN]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.command import status


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; the exit status is 0, or 2 where records are missing or damaged."""
    options = parse(arguments)
    return status(lambda: options, work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.messages",
        description="Print, as Markdown, messages of random questions before and after training, and of all questions "
        "how many messages are just the answer, hold an answer, or are copied from the document.",
    )
    parser.add_argument(
        "run_folder",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run folder with both stages, or two: that of the reference and that of the compressor",
    )
    parser.add_argument("--count", type=int, default=40, help="how many questions are shown (40)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument("--sampled", action="store_true", help="sampled messages where there are greedy ones as well")
    options = parser.parse_args(arguments)
    if len(options.run_folder) > 2:
        parser.error("give one run folder, or two")
    if options.count < 1:
        parser.error("--count should be at least 1")
    return options


def work(options: argparse.Namespace) -> int:
    """Print the page.

    Raises:
        DataError: a folder has no records, or the two have no question in common.
    """
    from eval.messages.page import page, sides

    print(page(*sides(options.run_folder, options.sampled), options.count, options.seed), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
