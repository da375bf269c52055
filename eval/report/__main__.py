"""Rebuild the report of a run: ``python -m eval.report RUN_FOLDER``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.command import status


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``report.html`` into the run folder and print where it is; the exit status is 0, 2 where it cannot be."""
    options = parse(arguments)
    return status(lambda: options.run_folder, work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description="Rebuild the report of a run.")
    parser.add_argument("run_folder", type=Path, help="a folder with results.json, samples.jsonl and metrics.jsonl")
    return parser.parse_args(arguments)


def work(run_folder: Path) -> int:
    """Write the report, and print where it is.

    Raises:
        DataError: the folder lacks a file, or a file is damaged.
    """
    from eval.report.page import write_report

    print(write_report(run_folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
