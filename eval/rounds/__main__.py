"""Several rounds of refined questions: ``python -m eval.rounds --config evaluation.yaml --rounds 3``.

Round 1 is the ordinary message. In each further round the predictor asks, in one sentence, for what the messages so far
lack, the compressor writes another message for that, and the predictor answers from all of them (the study, He et al.,
arXiv 2512.21720, finds that information saturates after two rounds). Options are never shown to who asks: what it asks
for is told to the compressor. Leaves ``rounds.json`` and ``rounds.svg`` in the run folder.

What the messages carry together is measured on the sum of their log-prob matrices. The refined question is a function
of the question and the messages before (it is decoded greedily), so that log s(z_1 ... z_k given x, q) is the sum of
log s(z_i given x, q_i), each message under the question q_i that it was written for, and the bounds apply to that sum;
a column of it has the ceiling log N, however many rounds there are. Beside it stands the sum of each message's own
information under its own question: an upper count of the same, as rounds may repeat each other. Both presume messages
sampled at temperature 1.

Embedded models were trained on one prompt and follow no request for a question: what they ask means little, and so do
their further rounds.
"""

import argparse
import sys
from collections.abc import Sequence

from configs.command import config_parser, print_plan, say_aside, status
from configs.errors import ConfigError
from eval.config import EvaluationConfig, load_config

EXAMPLES = (
    "python -m eval.rounds --config evaluation.yaml --rounds 3",
    "python -m eval.rounds --config evaluation.yaml --rounds 2 eval.documents=5 name=rounds",
    "torchrun --nproc_per_node 2 -m eval.rounds --config longhealth.yaml",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    return status(
        lambda: checked(load_config(options.config, options.overrides)),
        lambda config: plan(config) if options.dry_run else work(config, options.rounds),
    )


def checked(config: EvaluationConfig) -> EvaluationConfig:
    """The configuration, where its compressor is told the question: what is asked in further rounds follows from it.

    Raises:
        ConfigError: it is told none, or several.
    """
    if config.compressor.question != "shown":
        raise ConfigError(
            f"compressor.question = {config.compressor.question}: further rounds refine the question that the "
            "compressor was told; measure this one with eval.run"
        )
    return config


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key, which are those of ``eval.run``."""
    parser = config_parser("python -m eval.rounds", __doc__ or "", EXAMPLES, EvaluationConfig, first=("compressor",))
    parser.add_argument("--rounds", type=int, default=3, help="how many, the ordinary message included; 3 by default")
    options = parser.parse_intermixed_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: there is at least one, the ordinary message")
    return options


def plan(config: EvaluationConfig) -> int:
    """Check what takes no weights, documents and questions among it, and print the configuration."""
    from eval.plan import check

    check(config, say_aside)
    return print_plan(config, config.folder)


def work(config: EvaluationConfig, rounds: int) -> int:
    """Go through the rounds, once the configuration has been read: the libraries that takes are imported here."""
    from eval.rounds.job import run

    return run(config, rounds)


if __name__ == "__main__":
    sys.exit(main())
