"""The page that ``--help`` shows, for commands whose docstring is the explanation."""

import argparse
import shutil
import textwrap
from collections.abc import Sequence


def command_parser(program: str, explanation: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of a command line, without its options yet.

    Args:
        program: how the command is called.
        explanation: its module's docstring, in paragraphs; they are wrapped anew.
        examples: command lines, shown last.
    """
    width = shutil.get_terminal_size().columns - 2  # as argparse wraps the rest of the page
    paragraphs = explanation.replace("``", "'").split("\n\n")
    return argparse.ArgumentParser(
        prog=program,
        description="\n\n".join(textwrap.fill(" ".join(paragraph.split()), width) for paragraph in paragraphs),
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
