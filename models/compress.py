"""Compress one document for one question: ``python -m models.compress ADAPTER --document FILE --question TEXT``.

Prints the message on standard output; its length and what was cut go to standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.errors import DataError, InputError, os_error
from models.naming import adapter_folder, model_folder, names_adapter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    try:
        check_names(options.adapter, options.model)
        context = read(options.document)
        print_message(context, options.question, options.adapter, options.budget, options.model)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m models.compress", description=__doc__)
    parser.add_argument("adapter", help="a trained adapter's folder, or a model to use untrained")
    parser.add_argument("--document", required=True, help="a UTF-8 text file; - reads standard input")
    parser.add_argument("--question", required=True, help="what the message has to answer")
    parser.add_argument("--budget", type=int, help="maximum tokens of the message; as trained unless given, else 64")
    parser.add_argument("--model", help="the base model, where it is not the one the adapter names")
    return parser.parse_args(arguments)


def check_names(adapter: str, model: str | None) -> None:
    """Refuse an adapter or a model that is not there; a model on the hub is not looked at.

    Raises:
        ModelError: naming it.
    """
    if names_adapter(adapter):
        adapter_folder(adapter)
    else:
        model_folder(adapter)
    if model is not None:
        model_folder(model)


def read(document: str) -> str:
    """The text of a file, or of standard input.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        return sys.stdin.read() if document == "-" else Path(document).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"document {document!r}: {error}") from error


def print_message(context: str, question: str, adapter: str, budget_tokens: int | None, model: str | None) -> None:
    """Write a message on standard output, and on standard error what it cost and what it lost.

    Raises:
        ModelError: the adapter or the model cannot be loaded, or the budget leaves no room for a context.
    """
    # Imported once there is something to compress, for these take seconds.
    from models.compressor import compress
    from models.loading import quiet_libraries

    quiet_libraries()
    message = compress(context, question, adapter, budget_tokens, model)
    print(message.text)
    cut = f", {message.truncated_tokens} tokens cut out of the document's middle" if message.truncated_tokens else ""
    unfinished = "" if message.ended else ", cut off by the budget"
    print(f"{message.tokens} tokens{unfinished}{cut}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
