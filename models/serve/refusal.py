"""What a client is refused with: a status and OpenAI's shape of an error."""

import traceback
from typing import Any

from data.errors import InputError, one_line
from models.endpoint import EndpointError


class Refusal(Exception):
    """A request that is not answered; the message is one line that names what is wrong and what would be right.

    Attributes:
        status: the HTTP status.
        param: the field of the request that is wrong; None where it is none.
        code: a word for programs.
        retry_seconds: when it is worth to come back; None where it is not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_seconds: int | None = None,
    ) -> None:
        """Say what is wrong."""
        super().__init__(message)
        self.status, self.param, self.code, self.retry_seconds = status, param, code, retry_seconds

    @property
    def kind(self) -> str:
        """The type of the error, in OpenAI's words."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """The body of the reply."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        headers = {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def mistaken() -> Refusal:
    """What a client is told of a mistake of this program; whoever runs it is shown where, and nothing of a request."""
    traceback.print_exc()
    return Refusal("the server made a mistake", status=500, code="internal_error")


def failure(error: InputError) -> Refusal:
    """What a backend's failure is to a client: its own fault only where a server upstream refused the request."""
    status = error.status if isinstance(error, EndpointError) else None
    if status in (400, 413, 422):
        return Refusal(one_line(error), status=400, code="upstream_refused")
    return Refusal(one_line(error), status=502 if isinstance(error, EndpointError) else 500, code="backend_failed")
