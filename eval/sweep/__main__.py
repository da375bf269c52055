"""Compressors times predictors times tasks: ``python -m eval.sweep --config sweep.yaml``.

Every message is written and scored once and answered by every predictor, one model in memory at a time beside the
scorers. Leaves ``sweep.json``, ``samples.jsonl``, the scaling figures, and ``sweep.md``, which sets them beside what
He et al. (arXiv 2512.21720) found. A sweep that was stopped, however hard, goes on from the last batch it finished.
"""

import argparse
import sys
from collections.abc import Sequence

from configs.command import config_parser, print_plan, say_aside, status
from eval.sweep.config import SweepConfig, load_config

EXAMPLES = (
    "python -m eval.sweep --config sweep.yaml",
    "python -m eval.sweep --config sweep.yaml 'seeds=[0]' eval.documents=5 name=quick",
    "torchrun --nproc_per_node 2 -m eval.sweep --config sweep.yaml",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    return status(lambda: load_config(options.config, options.overrides), plan if options.dry_run else work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key."""
    return config_parser("python -m eval.sweep", __doc__ or "", EXAMPLES, SweepConfig).parse_intermixed_args(arguments)


def plan(config: SweepConfig) -> int:
    """Check what takes no weights, documents and questions among it, and print the configuration."""
    from eval.plan import check

    check(config.recipe(), say_aside)
    return print_plan(config, config.folder)


def work(config: SweepConfig) -> int:
    """Sweep, once the configuration has been read: the libraries that takes are imported here."""
    from eval.sweep.job import run

    return run(config)


if __name__ == "__main__":
    sys.exit(main())
