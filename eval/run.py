"""Measure a compressor: ``python -m eval.run --config evaluation.yaml`` (or under ``deepspeed``, ``torchrun``).

Writes messages for held-out questions, answers from them, measures the information they carry, does the same for what
the compressor is held against and for baselines, and leaves results, samples, tables and a report in the run folder.
A run that was stopped, however hard, goes on from the last batch it finished.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Run as a file. Python would look for packages beside it, then wherever Shorthand is installed, which may be
    # another checkout; what has to run is the checkout that this file belongs to.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.command import config_parser, print_plan, say_aside, status
from eval.config import EvaluationConfig, load_config

EXAMPLES = (
    "python -m eval.run --config evaluation.yaml",
    "python -m eval.run --config evaluation.yaml compressor.adapter=runs/mi_rl/compressor eval.documents=5",
    "deepspeed eval/run.py --config longhealth.yaml",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    return status(lambda: load_config(options.config, options.overrides), plan if options.dry_run else work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key."""
    parser = config_parser("python -m eval.run", __doc__ or "", EXAMPLES, EvaluationConfig, first=("compressor",))
    return parser.parse_intermixed_args(arguments)


def plan(config: EvaluationConfig) -> int:
    """Check what takes no weights, documents and questions among it, and print the configuration."""
    from eval.plan import check

    check(config, say_aside)
    return print_plan(config, config.folder)


def work(config: EvaluationConfig) -> int:
    """Evaluate, once the configuration has been read: the libraries that takes are imported here."""
    from eval.job import run

    return run(config)


if __name__ == "__main__":
    sys.exit(main())
