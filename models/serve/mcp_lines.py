"""Lines on standard input that are no message of MCP: each is answered with the error that JSON-RPC 2.0 has for it.

MCP's own server drops them without a word, and the agent that sent one, a tool call with half of a character in it for
instance, waits for its answer for ever.
"""

import json
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

NO_JSON, NO_REQUEST = -32700, -32600
"""JSON-RPC's codes of a line that is no JSON, and of JSON that is no message."""


class AnsweredLines:
    """The messages of a stream; what is none is answered on the other stream, and not passed on."""

    def __init__(self, read: Any, write: Any) -> None:
        """Nothing is read yet.

        Args:
            read: MCP's stream of messages and of exceptions in their place.
            write: its stream of answers.
        """
        self._read, self._write = read, write

    @property
    def last_context(self) -> Any:
        """The context variables that the last message was sent under."""
        return getattr(self._read, "last_context", None)

    async def receive(self) -> SessionMessage:
        """The next message.

        Raises:
            anyio.EndOfStream: there is none.
        """
        while isinstance(item := await self._read.receive(), Exception):
            if (answer := answer_to(item)) is not None:
                await self._write.send(SessionMessage(answer))
        return item

    async def aclose(self) -> None:
        """Close the stream that is read."""
        await self._read.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def answer_to(error: Exception) -> types.JSONRPCError | None:
    """The answer to a line that is no message, under its id where it has one; None to a blank line.

    Args:
        error: what MCP's stream has in the place of the message.
    """
    found = error.errors() if isinstance(error, ValidationError) else []
    broken = next((one for one in found if one["type"] == "json_invalid"), None)
    if broken is None:
        whole = next((one["input"] for one in found if isinstance(one["input"], dict) and "id" in one["input"]), None)
        return _error(_id(whole), NO_REQUEST, "the line is no message of JSON-RPC 2.0")
    line = str(broken["input"])
    if not line.strip():
        return None
    try:
        # Python reads half of a character, so that the call which holds one can be answered.
        whole = json.loads(line)
    except (ValueError, RecursionError):
        whole = None
    return _error(_id(whole), NO_JSON, f"the line cannot be read: {broken['msg']}")


def _id(message: Any) -> int | str | None:
    found = message.get("id") if isinstance(message, dict) else None
    if isinstance(found, str):
        return found if found.isprintable() else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _error(id_: int | str | None, code: int, words: str) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=id_, error=types.ErrorData(code=code, message=words))
