"""Turns a trained checkpoint into a released member: ``python -m models.miniature.release qwen2-small``.

Beside the bf16 weights stand a card with the loss curve and the measured quality of exactly these weights, and the
figures themselves in ``quality.json``. ``--table`` prints the whole family from those files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.miniature.members import MEMBERS
from models.naming import MINIATURE_WEIGHTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Release one member, or print the family's table, from the command line."""
    options = parse(arguments)
    # Imported once the command line has been read: it takes seconds.
    import torch

    from models.miniature.card import family_table
    from models.miniature.releasing import release_member

    if options.table:
        print(family_table(options.weights))
        return 0
    torch.set_num_threads(options.threads)
    print(release_member(options.member, options.folder / options.member, options.weights, options.documents))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.miniature.release", description=__doc__)
    parser.add_argument("member", nargs="?", choices=sorted(MEMBERS))
    parser.add_argument("--folder", type=Path, default=Path("runs/miniature"), help="where training left the member")
    parser.add_argument("--weights", type=Path, default=MINIATURE_WEIGHTS, help="the folder of the released family")
    parser.add_argument("--documents", type=int, default=30, help="documents of each shape to measure on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of all released members instead")
    options = parser.parse_args(arguments)
    if options.member is None and not options.table:
        parser.error("name a member to release, or pass --table")
    return options


if __name__ == "__main__":
    sys.exit(main())
