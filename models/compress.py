"""Compress one document for one question: ``python -m models.compress ADAPTER --document FILE --question TEXT``.

Prints the message on standard output; its length and what was cut go to standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.compressor import compress
from models.loading import quiet_libraries
from models.naming import ModelError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m models.compress", description=__doc__)
    parser.add_argument("adapter", help="a trained adapter's folder, or a model to use untrained")
    parser.add_argument("--document", required=True, help="a UTF-8 text file; - reads standard input")
    parser.add_argument("--question", required=True)
    parser.add_argument("--budget", type=int, default=64, help="the most tokens the message may have (default 64)")
    parser.add_argument("--model", help="the base model, where it is not the one the adapter names")
    options = parser.parse_args(arguments)
    quiet_libraries()
    try:
        context = sys.stdin.read() if options.document == "-" else Path(options.document).read_text(encoding="utf-8")
        message = compress(context, options.question, options.adapter, options.budget, options.model)
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: document {options.document!r}: {error}", file=sys.stderr)
        return 2
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(message.text)
    cut = f", {message.truncated_tokens} tokens cut out of the document's middle" if message.truncated_tokens else ""
    unfinished = "" if message.ended else ", cut off by the budget"
    print(f"{message.tokens} tokens{unfinished}{cut}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
