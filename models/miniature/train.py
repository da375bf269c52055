"""Trains a member of the embedded family from scratch: ``python -m models.miniature.train qwen2-small``.

Trains the family's tokenizer first, where there is none. A start continues from the member's last checkpoint. How it is
done: ``models/miniature/training.py``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.miniature.members import MEMBERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    options = parse(arguments)
    # Imported once the command line has been read: it takes seconds.
    import torch

    from models.miniature.training import ensure_tokenizer, train_member

    torch.set_num_threads(options.threads)
    ensure_tokenizer()
    train_member(options.member, options.folder / options.member, options.sequences, options.facts)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.miniature.train", description=__doc__)
    parser.add_argument("member", choices=sorted(MEMBERS))
    parser.add_argument("--folder", type=Path, default=Path("runs/miniature"), help="checkpoints and logs go here")
    parser.add_argument("--sequences", type=int, default=6, help="documents a batch")
    parser.add_argument("--facts", type=int, default=26, help="facts a document at the end of the curriculum")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
