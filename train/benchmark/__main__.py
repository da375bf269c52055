"""What reading every context once saves: ``make bench``, or ``python -m train.benchmark --out runs/bench``.

Times scoring, the policy update, rollouts and the whole step beside the straightforward way (stock TRL GRPO,
transformers' ``generate``, scoring of full sequences with only the needed logits kept): one process, warm, alternating,
medians. Where there is a CUDA GPU it is measured as well, with a larger model. ``bench.json`` is written after every
case and an interrupted run goes on from it; beside it lie ``growth.json`` and a plot of how the cost grows.

With ``--model`` a real model is measured on the CPU: prefill, decoding, scoring and update in tokens a second, and as a
share of the rate of the model's own matrix products; ``model.json`` is written.

With ``--pair`` the memory is measured that a recipe's compressor and predictor need on one base, beside one model alone
and two models; ``pair.json`` is written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.command import status
from train.benchmark.cases import MOST_STOCK_S


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line.

    The exit status is 0, 1 where ``--check`` finds a missed floor, 2 for a wrong command line, 130 when interrupted.
    """
    return status(lambda: parse(arguments), work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of what is written")
    parser.add_argument(
        "--repeats", type=int, default=5, help="maximum timed calls of each way in a case; slow ones get fewer"
    )
    parser.add_argument("--quick", action="store_true", help="the headline cases alone, no growth")
    parser.add_argument("--fresh", action="store_true", help="measure again what bench.json holds already")
    parser.add_argument(
        "--most-stock",
        type=float,
        default=MOST_STOCK_S,
        metavar="SECONDS",
        help="leave straightforward calls out that would take longer, but for the headline's (0: growth of ours alone)",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a headline figure misses its floor")
    real = parser.add_argument_group("a real model, on a CPU", "what of the machine's matmul rate each phase reaches")
    real.add_argument("--model", help="measure this model, named as in a recipe, instead of the random one")
    real.add_argument("--dtype", default="auto", help="its floating-point type: float32, bfloat16, or auto")
    real.add_argument(
        "--threads", type=int, default=1, help="threads of torch; with one, seconds are those on the processor"
    )
    real.add_argument("--stock", action="store_true", help="a whole step beside stock TRL's as well, in minutes")
    pair = parser.add_argument_group("a pair on one base, on a CPU", "its memory beside that of one model")
    pair.add_argument(
        "--pair", nargs="+", metavar=("RECIPE", "KEY=VALUE"), help="a training's recipe, and keys that are changed"
    )
    options = parser.parse_args(arguments)
    if options.pair and options.model:
        parser.error("--pair takes its model from the recipe: compressor.model=NAME")
    for name in ("repeats", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    return options


def work(options: argparse.Namespace) -> int:
    """Measure, once the command line has been read: the libraries that takes are imported here."""
    if options.pair is not None:
        from train.benchmark import pair_memory

        pair_memory.run(options.out, options.pair[0], options.pair[1:])
        return 0
    if options.model is not None:
        from train.benchmark import real_model

        real_model.run(options.out, options.model, options.dtype, options.threads, options.repeats, options.stock)
        return 0
    from train.benchmark.job import run

    held = run(options.out, options.repeats, options.most_stock, quick=options.quick, fresh=options.fresh)
    return 1 if options.check and not held else 0


if __name__ == "__main__":
    sys.exit(main())
