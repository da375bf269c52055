"""Have a model write the questions of FineWeb or WildChat: ``python -m eval.synthesise --task fineweb --help``.

Rows are appended to the set as they come, so the same command resumes one that was interrupted. What was skipped,
rejected or refused is counted and said at the end.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from configs.command import status
from configs.servers import open_server
from data import fineweb, wildchat
from data.written_questions import Material
from eval.server_options import add_server_options, server_of
from models.endpoint import CONCURRENCY, Sampling

TEST_SHARE = 0.2
"""The share of rows held out for testing unless told otherwise: most are left for training."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input or a failing server, 130 when interrupted."""
    options = parse(arguments)
    return status(lambda: options, work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.synthesise",
        description="Have a model write questions with gold answers: five for each long web page of FineWeb (two "
        "extractive, an email, a rap, a poem), one for each chat history of WildChat.",
        epilog="The set holds pages and sessions as well; name it as the source of the task. The same command resumes.",
    )
    parser.add_argument("--task", required=True, choices=list(SOURCES))
    parser.add_argument("--out", required=True, help="a .jsonl file, or a folder for train.jsonl and test.jsonl")
    parser.add_argument("--source", help="a .jsonl, .json or .parquet file, or a folder; default: the Hub's stream")
    parser.add_argument("--number", type=_positive, help="number of pages or histories; default: all there are")
    parser.add_argument("--test-share", type=_fraction, help=f"share of rows in test.jsonl (default {TEST_SHARE})")
    _add_writer_options(parser)
    pages = parser.add_argument_group("fineweb")
    pages.add_argument("--min-tokens", type=int, help=f"least tokens of a page (default {fineweb.MIN_TOKENS})")
    both = parser.add_argument_group("fineweb and wildchat")
    both.add_argument(
        "--max-tokens", type=_positive, help=f"most tokens of a page or a history (default {fineweb.MAX_TOKENS})"
    )
    chats = parser.add_argument_group("wildchat")
    chats.add_argument("--variant", choices=wildchat.VARIANTS, help="a user's sessions, or any ten (default natural)")
    chats.add_argument("--conversations", type=_positive, help="most conversations to read; default: all there are")
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _add_writer_options(parser: argparse.ArgumentParser) -> None:
    """The options of the model that writes, and of the server that runs it."""
    server = add_server_options(
        parser, "the model that writes", "name of the model on that server; every row records it", required=True
    )
    server.add_argument(
        "--concurrency", type=_positive, default=CONCURRENCY, help="requests at the same time (default %(default)s)"
    )
    server.add_argument("--temperature", type=float, default=0.7, help="sampling temperature (default %(default)s)")
    server.add_argument(
        "--reply-tokens", type=_positive, default=4096, help="most tokens of a reply (default %(default)s)"
    )
    server.add_argument("--no-schema", action="store_true", help="for servers that know no response_format json_schema")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that do not go together, and fill in the share of test rows."""
    foreign = ("variant", "conversations") if options.task == fineweb.NAME else ("min_tokens",)
    for name in foreign:
        if getattr(options, name) is not None:
            parser.error(f"argument --{name.replace('_', '-')}: is not an option of {options.task}")
    if options.out.lower().endswith(".jsonl") and options.test_share is not None:
        parser.error(f"argument --test-share: {options.out} is one file; name a folder as --out")
    if options.test_share is None:
        options.test_share = 0.0 if options.out.lower().endswith(".jsonl") else TEST_SHARE


def work(options: argparse.Namespace) -> int:
    """Write the questions, and say at the end what was written, skipped and refused."""
    from eval.question_set import QuestionSet, run, writer_of

    skipped: Counter[str] = Counter()
    questions = QuestionSet(options.out, options.task, options.model, options.test_share)
    server = server_of(options)
    endpoint = open_server(server, options.model, options.cache, partial(print, file=sys.stderr), options.concurrency)
    endpoint.probe()
    sampling = Sampling(options.reply_tokens, options.temperature, extra=server.request)
    write = writer_of(endpoint, sampling, not options.no_schema)
    try:
        materials = islice(SOURCES[options.task](options, skipped), options.number)
        counts = run(materials, questions, options.model, write, options.concurrency, options.number)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the rows that {options.out} keeps") from None
    damaged = Counter({"half-written rows cut off": questions.damaged})
    parts = {"this run": counts + damaged, "skipped": +skipped, "server": Counter(endpoint.totals())}
    lines = [*summary(options.out, len(questions.done), parts), *endpoint.notes("--reply-tokens")]
    print("\n".join(lines), file=sys.stderr)
    return 0


def summary(out: str, rows: int, parts: dict[str, Counter[str]]) -> Iterator[str]:
    """One line for the set, and one for each part that counted something."""
    yield f"{out}: {rows} rows"
    for name, part in parts.items():
        if part:
            yield f"{name}: {', '.join(f'{key} {count}' for key, count in part.items())}"


def _pages(options: argparse.Namespace, skipped: Counter[str]) -> Iterator[Material]:
    shortest = fineweb.MIN_TOKENS if options.min_tokens is None else options.min_tokens
    return fineweb.pages(options.source, skipped, shortest, options.max_tokens or fineweb.MAX_TOKENS)


def _histories(options: argparse.Namespace, skipped: Counter[str]) -> Iterator[Material]:
    variant = options.variant or wildchat.VARIANTS[0]
    longest = options.max_tokens or wildchat.MAX_TOKENS
    return wildchat.histories(options.source, skipped, variant, longest, options.conversations)


SOURCES: dict[str, Callable[[argparse.Namespace, Counter[str]], Iterator[Material]]] = {
    fineweb.NAME: _pages,
    wildchat.NAME: _histories,
}
"""What each task has questions written for."""


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} should be at least 1")
    return number


def _fraction(value: str) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{value} should be between 0 and 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
