"""Every line that an agent sends is answered, also one that is no message."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import pytest

from tests.models.serving import Scripted, service_of

pytest.importorskip("mcp", reason="mcp is not installed")

import anyio
from mcp.server.stdio import stdio_server

from models.serve.mcp_tools import tools

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": "last", "method": "tools/list"}


def called(document: str) -> dict[str, Any]:
    arguments = {"document": document, "question": "What was the zinc?"}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "compress", "arguments": arguments}}


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[Any]:
    """What comes back to lines on standard input."""
    output = io.StringIO()

    async def arriving() -> AsyncIterator[str]:
        # One after the other: what is not answered when the input ends is not answered any more.
        expected = 0
        for line in lines:
            expected += bool(line) and line != json.dumps(READY)
            yield f"{line}\n"
            with anyio.fail_after(20):
                while output.getvalue().count("\n") < expected:
                    await anyio.sleep(0.01)

    streams = partial(stdio_server, cast(Any, arriving()), anyio.wrap_file(output))
    monkeypatch.setattr("models.serve.mcp_tools.stdio_server", streams)
    service = service_of(Scripted())
    asyncio.run(tools(service).run_stdio_async())
    service.line.stop(1.0)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_every_line_that_is_no_message_is_answered_under_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["no json", json.dumps(called("half \ud800")), "", '{"jsonrpc": "2.0", "id": "a", "method": 5}', "[]"]
    found = answers(monkeypatch, *lines)
    assert [(answer["id"], answer["error"]["code"]) for answer in found] == [
        (None, -32700),
        (7, -32700),
        ("a", -32600),
        (None, -32600),
    ]
    assert all("\n" not in answer["error"]["message"] for answer in found)


def test_messages_around_them_are_answered_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(INITIALIZE), "garbage", json.dumps(READY), "[" * 5000, json.dumps(LIST)]
    by_id = {answer["id"]: answer for answer in answers(monkeypatch, *lines)}
    assert by_id[1]["result"]["serverInfo"]["name"] == "shorthand" and by_id[None]["error"]["code"] == -32700
    assert {tool["name"] for tool in by_id["last"]["result"]["tools"]} == {"compress", "expand"}
