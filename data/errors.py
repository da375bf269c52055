"""Bad input, told in one line: every command catches it, prints it after ``error:`` and ends with status 2.

This module imports the standard library alone, so that a command can report a mistake before any heavy library is
loaded.
"""

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """A mistake that the user of a command can mend; the message is one line that names it and what would be right."""


class DataError(InputError):
    """Documents that cannot be read, or not as requested; the message names their source."""


def one_line(text: object, limit: int = 200) -> str:
    """A text or an exception on one line; an exception without a message is shown by the name of its type.

    Args:
        text: the text, or often an exception of a library.
        limit: the most characters; a longer text is cut and ends with ``...``.
    """
    line = " ".join(str(text).split()) or (type(text).__name__ if isinstance(text, BaseException) else "")
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def os_error(error: OSError) -> str:
    """What the operating system refused, and of which file where it says so: ``'runs/a': Permission denied``."""
    # One that no system call raised has no number, and its own words or none.
    reason = error.strerror or (type(error).__name__ if error.args == (None, None) else one_line(error))
    return reason if error.filename is None else f"{one_line(repr(error.filename))}: {reason}"


def did_you_mean(value: str, names: Sequence[str]) -> str:
    """A hint for the end of a message, ``; did you mean 'name'?``; empty where no name is close to the value."""
    # Half of the letters: a dropped or doubled one in a short name still counts as close.
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
