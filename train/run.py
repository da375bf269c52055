"""Train a compressor and show what changed: ``deepspeed train/run.py --config mi_rl.yaml`` (or plain ``python``).

Evaluates the untrained compressor on held-out documents, trains its adapter by GRPO, evaluates again, and leaves a run
folder with the resolved config, the adapter, metrics, samples, results and a report. The same command resumes a run
that was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Run as a file. Python would look for packages beside it, then wherever Shorthand is installed, which may be
    # another checkout; what has to run is the checkout that this file belongs to.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.command import config_parser, print_plan, say_aside, status, world_size
from train.config import Config, load_config

EXAMPLES = (
    "deepspeed train/run.py --config mi_rl.yaml",
    "python train/run.py --config mi_rl.yaml train.steps=20 name=short",
    "deepspeed train/run.py --config qasper.yaml tasks.0.source=papers.json --fresh",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    return status(
        lambda: load(options), lambda config: plan(config) if options.dry_run else work(config, options.fresh)
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key."""
    parser = config_parser("train/run.py", __doc__ or "", EXAMPLES, Config, first=("train", "compressor"))
    parser.add_argument("--fresh", action="store_true", help="drop what the run folder holds and start over")
    return parser.parse_intermixed_args(arguments)


def load(options: argparse.Namespace) -> Config:
    """The configuration, checked for the number of processes as well.

    Raises:
        ConfigError: see `train.config.load_config` and `Config.check_world_size`.
    """
    config = load_config(options.config, options.overrides)
    config.check_world_size(world_size())
    return config


def plan(config: Config) -> int:
    """Check what takes no weights, documents and questions among it, and print the configuration."""
    from configs.build import instructions
    from models.loading import quiet_libraries
    from train.questions.source import read_questions

    quiet_libraries()
    instructions(config)
    read_questions(config, say_aside)
    return print_plan(config, config.folder)


def work(config: Config, fresh: bool) -> int:
    """Train, once the configuration has been read: the libraries that takes are imported here."""
    from train.job import run

    return run(config, fresh)


if __name__ == "__main__":
    sys.exit(main())
