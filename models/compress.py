"""Compress documents into messages: what answers a question, in a few tokens, by a trained adapter.

The message goes to standard output; its length, and warnings of what it could not know, go to standard error. Budget
and prompt are those that the adapter was trained with, which it remembers in its shorthand.json.

``--input`` reads JSON lines with ``context`` and ``question``, and may have ``options`` for the predictor. A line of
JSON is written for each: its fields but for ``context``, and ``message``, ``tokens`` (the end token included),
``ended`` (whether the message ended by itself within the budget), ``truncated_tokens`` (cut out of the middle of a
document that is longer than the model reads), ``bits`` (log2 of how much likelier the document makes the message, to
the base model without adapter, than no document does; null where that cannot be told) and, with ``--predictor``,
``answer`` (null where its server failed, which also ends the command with an error).
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from data.errors import DataError, InputError, os_error
from models.adapter_settings import read_settings
from models.compress_input import STANDARD_INPUT, Item, read_document, read_lines, told
from models.gguf_header import read_header
from models.help_page import command_parser
from models.naming import ModelError, adapter_folder, gguf_file, model_folder, names_adapter

EXAMPLES = (
    'python -m models.compress runs/mi_rl/compressor --document examples/note.txt --question "What was the zinc?"',
    "python -m models.compress runs/mi_rl/compressor --document examples/note.txt "
    '--question "What was the zinc?" --predictor miniature/llama-medium --json',
    "cat examples/questions.jsonl | python -m models.compress runs/mi_rl/compressor --input - > messages.jsonl",
)

WRITTEN = ("message", "tokens", "ended", "truncated_tokens", "bits")
"""Fields of a line of output, beside those of its line of input; ``answer`` is a further one with a predictor."""

BROKEN_PIPE = 141
"""Exit status where nobody reads on, as shells give it: 128 and the number of SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    try:
        check_streams(options)
        check_names(options)
        run(options, read(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Python would complain at its end, when it empties what is left for standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = command_parser("python -m models.compress", __doc__ or "", EXAMPLES)
    parser.add_argument("adapter", help="folder of a trained adapter, or a model to use untrained")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--document", metavar="FILE", help="a UTF-8 text file; - reads standard input")
    source.add_argument("--input", metavar="FILE", help="a file of JSON lines; - reads standard input")
    parser.add_argument("--question", metavar="TEXT", help="what the message of --document has to answer")
    parser.add_argument(
        "--blind",
        action="store_true",
        help="do not tell the compressor the question; an adapter may have learned that",
    )
    parser.add_argument(
        "--budget", type=int, metavar="N", help="maximum tokens of a message; the adapter's own by default, else 64"
    )
    parser.add_argument("--model", help="the base model, where it is not the one the adapter names")
    parser.add_argument(
        "--predictor", metavar="MODEL", help="a model or an adapter that answers from the message alone"
    )
    parser.add_argument(
        "--endpoint", metavar="URL", help="OpenAI-compatible server that runs the predictor, http://.../v1"
    )
    parser.add_argument(
        "--answer-tokens", type=int, default=64, metavar="N", help="maximum tokens of an answer (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for --document as well")
    options = parser.parse_args(arguments)
    options.blind |= learned_blind(options.adapter)
    if problem := mistake(options):
        parser.error(problem)
    return options


def learned_blind(adapter: str) -> bool:
    """Whether an adapter has learned to write without a question; what cannot be read is told of later."""
    try:
        settings = read_settings(adapter) if names_adapter(adapter) else None
    except ModelError:
        return False
    return settings is not None and settings.question == "hidden"


def mistake(options: argparse.Namespace) -> str | None:
    """What options do not go together; None where they do."""
    if options.input is not None and options.question is not None:
        return "--question: every line of --input has its own"
    if options.document is not None and options.question is None and (not options.blind or options.predictor):
        return "--question: is needed, but with --blind and no predictor"
    if options.endpoint is not None and options.predictor is None:
        return "--endpoint: needs --predictor, the name of the model on that server"
    if options.answer_tokens < 1:
        return f"--answer-tokens {options.answer_tokens}: should be at least 1"
    return None


def check_streams(options: argparse.Namespace) -> None:
    """Refuse standard streams that are closed, as the shell's ``<&-`` and ``>&-`` leave them.

    Raises:
        DataError: the input should come from one, or there is nowhere to print a message.
    """
    source = "--document" if options.document is not None else "--input"
    if sys.stdin is None and STANDARD_INPUT in (options.document, options.input):
        raise DataError(f"{source} {STANDARD_INPUT}: standard input is closed; give it a document, or name a file")
    if sys.stdout is None:
        raise DataError("standard output is closed, so that a message would be lost; send it to a file or a terminal")


def check_names(options: argparse.Namespace) -> None:
    """Refuse an adapter or a model that is not there; a model on the hub is not looked at.

    Raises:
        ModelError: naming it.
    """
    models = {f"model {options.model!r}": options.model}
    if names_adapter(options.adapter):
        adapter_folder(options.adapter)
    else:
        models[f"model {options.adapter!r}"] = options.adapter
    if options.endpoint is None and options.predictor is not None:
        if names_adapter(options.predictor):
            adapter_folder(options.predictor)
        else:
            models[f"predictor {options.predictor!r}"] = options.predictor
    for subject, model in models.items():
        if model is None or model_folder(model, subject) is not None:
            continue
        if (file := gguf_file(model, subject)) is not None:
            read_header(file, subject)


def read(options: argparse.Namespace) -> list[Item]:
    """What is to be compressed; one document is a list of one.

    Raises:
        DataError: it cannot be read, or some of it cannot be used.
    """
    if options.document is not None:
        return [read_document(options.document, options.question)]
    items = read_lines(options.input, question_needed=not options.blind or options.predictor is not None)
    written = (*WRITTEN, "answer") if options.predictor is not None else WRITTEN
    if problems := [f"{item.where}: {problem}" for item in items if (problem := lost(item, written))]:
        raise DataError(told(options.input, problems, len(items)))
    return items


def lost(item: Item, written: Sequence[str]) -> str | None:
    """What of a line's own fields its output could not hold, which has fields of its own; None where all is kept."""
    if names := [name for name in written if name in item.further]:
        return f"field {', '.join(map(repr, names))} is what the output has of its own; rename it"
    for name, value in item.further.items():
        try:
            json.dumps(value, allow_nan=False)
        except (ValueError, RecursionError):
            return f"{name!r} holds a number that is too large for JSON, or is nested too deeply"
    return None


def run(options: argparse.Namespace, items: list[Item]) -> None:
    """Write the messages.

    Raises:
        InputError: a model, an adapter or a server cannot be used, or the window does not take a question.
    """
    # Imported once there is something to compress, for these take seconds.
    from models.compress_job import Work, print_json, print_text

    work = Work(
        options.adapter,
        options.model,
        options.budget,
        options.blind,
        options.predictor,
        options.endpoint,
        options.answer_tokens,
    )
    if options.input is None and not options.json:
        print_text(work, items[0])
    else:
        print_json(work, items, options.input or f"document {options.document!r}")


if __name__ == "__main__":
    sys.exit(main())
