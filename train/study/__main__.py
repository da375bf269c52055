"""Seeds times variants of one recipe as one result: ``python -m train.study --config study.yaml``.

Makes the warm start once, trains every variant with every seed from there, and evaluates each on every set, the warm
start and the baselines once; each by the command of its own, in a run folder below the study's. What is there is not
done again, what failed is named and tried at the next start, and a study that was stopped, however hard, goes on by the
same command. Leaves ``results.json``, a page of tables, and the figures of every evaluation as small files, from which
both can be made again where the run folders are gone.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.command import config_parser, print_plan, status
from train.study.config import StudyConfig, check_files, load_config

if TYPE_CHECKING:
    from train.study.members import Member

EXAMPLES = (
    "python -m train.study --config study.yaml",
    "python -m train.study --config study.yaml --only full/0 --only starting-adapter",
    "python -m train.study --config study.yaml --jobs 2 'seeds=[0, 1, 2, 3, 4]'",
    "python -m train.study --config study.yaml --table",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 1 where a part failed, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    return status(lambda: load_config(options.config, options.overrides), lambda config: start(config, options))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key."""
    parser = config_parser("python -m train.study", __doc__ or "", EXAMPLES, StudyConfig)
    parser.add_argument(
        "--only", action="append", default=[], metavar="VARIANT[/SEED]", help="do this part alone, and what it needs"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="run N at once, each with its share of cores")
    parser.add_argument("--table", action="store_true", help="write the results from what is there, and stop")
    options = parser.parse_intermixed_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: should be at least 1")
    return options


def start(config: StudyConfig, options: argparse.Namespace) -> int:
    """Do what the options ask for.

    Raises:
        InputError: a part that is asked for does not exist, or a file cannot be used.
    """
    from train.study.job import run, write_results
    from train.study.members import planned

    members = planned(config, options.only)
    if options.dry_run:
        return show(config, members)
    return write_results(config) if options.table else run(config, members, options.jobs)


def show(config: StudyConfig, members: "Sequence[Member]") -> int:
    """Print the resolved configuration, and as comments below it every member with whether it is done.

    Raises:
        InputError: a source is not there, or the folder cannot be written to.
    """
    from train.study.stand import plan_lines, stand_of

    check_files(config)
    print_plan(config, config.folder)
    for line in plan_lines(members, stand_of(config.pages_folder, config.folder, members)):
        print(f"# {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
