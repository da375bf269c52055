"""Rebuild the report of a run, or of several with the spread between them: ``python -m eval.report RUN [RUN ...]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.command import status


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``report.html`` into each run folder and print where it is; the exit status is 0, 2 where it cannot be."""
    options = parse(arguments)
    return status(lambda: options.run_folder, work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.report",
        description="Rebuild the report of a run. Of several, such as one recipe with several seeds, print the spread "
        "between them as well.",
    )
    help_ = "a folder with results.json, samples.jsonl and metrics.jsonl"
    parser.add_argument("run_folder", type=Path, nargs="+", metavar="RUN", help=help_)
    return parser.parse_args(arguments)


def work(run_folders: Sequence[Path]) -> int:
    """Write the reports, and print where they are; of several runs also the spread between them, as Markdown.

    Raises:
        DataError: a folder lacks a file, or a file is damaged.
    """
    from eval.report.markdown import blocks
    from eval.report.page import write_report
    from eval.report.run_files import read_results
    from eval.report.seeds import spread_table

    for folder in run_folders:
        print(write_report(folder))
    runs = {str(folder): read_results(folder / "results.json") for folder in run_folders}
    if len(runs) > 1:
        print("\n" + "\n\n".join(filter(None, blocks(spread_table(runs)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
