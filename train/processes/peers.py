"""The death of another process of a run, told in one line by those that are left."""

import re

from data.errors import InputError, one_line

SIGNS = re.compile(
    r"gloo|nccl|connection (closed|reset) by peer|connection refused|broken pipe|socket timeout|timed out waiting",
    re.IGNORECASE,
)
"""Words of errors that a collective operation ends with when a process at its other end is gone."""


class LostPeerError(InputError):
    """Another process of the run has ended; the message says what the same command goes on from."""


def lost_peer(error: RuntimeError) -> str | None:
    """What happened, where the error is that of a lost process; None for any other."""
    text = str(error)
    return f"another process of this run has ended ({one_line(text, 100)})" if SIGNS.search(text) else None
