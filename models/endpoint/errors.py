"""The errors of a server, its cache included."""

from data.errors import InputError


class EndpointError(InputError):
    """A server that cannot be used as asked; the message is one line that names it.

    Attributes:
        status: the HTTP status it answered with; None where there was no answer, or one that cannot be read.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreadableReply(Exception):
    """What a server sent with status 200 and is no answer; the message says what is wrong. It never reaches users."""
