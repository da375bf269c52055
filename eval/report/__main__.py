"""Rebuild the report of a run: ``python -m eval.report RUN_FOLDER``."""

import argparse
import sys
from pathlib import Path

from eval.report.page import write_report


def main() -> None:
    """Write ``report.html`` into the run folder and print where it is; one line and status 1 where it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description="Rebuild the report of a run.")
    parser.add_argument("run_folder", type=Path, help="a folder with results.json, samples.jsonl and metrics.jsonl")
    try:
        print(write_report(parser.parse_args().run_folder))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
