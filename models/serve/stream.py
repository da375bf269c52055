"""Replies in pieces, and work that ends when its client has gone."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from data.errors import InputError
from models.serve.backend import Abandoned, Watch, Written
from models.serve.chat_request import ChatRequest
from models.serve.refusal import Refusal, failure, mistaken
from models.serve.replies import DONE, ChatReply, event
from models.serve.service import Service

SEND_SECONDS = 30.0
"""How long a client may take to accept a piece of a stream before it counts as gone."""

Result = TypeVar("Result")


async def gone(receive: Receive) -> None:
    """Returns once the client has closed its connection; what else arrives is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, watch: Watch, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives; it is abandoned as soon as the client has gone.

    Raises:
        Abandoned: it has.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Abandoned
    finally:
        watch.abandon()
        for task in (working, leaving):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await leaving


class Stream(Response):
    """A reply in pieces, as server-sent events. What is refused before the first piece is an ordinary refusal."""

    def __init__(self, service: Service, asked: ChatRequest, reply: ChatReply) -> None:
        """Nothing is asked of the service yet."""
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._service, self._asked, self._reply = service, asked, reply
        self._events: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def said(number: int, piece: str) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, (number, piece))

        self._watch = Watch(said)

    async def begun(self, request: Request) -> "Response":
        """The stream, once its first piece is there or nothing more will come."""
        self._work = asyncio.ensure_future(self._service.write(self._asked.task, self._watch))
        self._work.add_done_callback(lambda _: self._events.put_nowait(None))
        self._first = await _first_of(request, self._watch, self._events.get(), self._work)
        if self._first is None:
            self._work.result()
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces as they come; the work is abandoned where the client goes away or does not read."""
        leaving = asyncio.ensure_future(gone(receive))
        sending = asyncio.ensure_future(self._send(send))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                self._service.metrics.count("abandoned_total")
        except TimeoutError:
            self._service.metrics.count("abandoned_total")
        finally:
            self._watch.abandon()
            for task in (self._work, leaving, sending):
                task.cancel()

    async def _send(self, send: Send) -> None:
        async def out(content: bytes, more: bool = True) -> None:
            message = {"type": "http.response.body", "body": content, "more_body": more}
            await asyncio.wait_for(send(message), SEND_SECONDS)

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for number in range(self._asked.task.n):
            await out(event(self._reply.opening(number)))
        piece = self._first
        while piece is not None:
            await out(event(self._reply.piece(*piece)))
            piece = await self._events.get()
        try:
            written: Written = await self._work
        except Exception as error:
            await out(event(_refusal_of(error).body()), more=False)
            return
        for ending in self._reply.endings(written):
            await out(event(ending))
        await out(DONE, more=False)


def _refusal_of(error: Exception) -> Refusal:
    """What a client is told in the middle of a stream."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Abandoned):
        return Refusal("the server is shutting down", status=503, code="shutting_down")
    return failure(error) if isinstance(error, InputError) else mistaken()


async def _first_of(
    request: Request, watch: Watch, event: Coroutine[Any, Any, Result], work: asyncio.Future[Any]
) -> Result:
    """What comes first of a stream; its work is ended where the client has gone before.

    Raises:
        Abandoned: it has.
    """
    coming, leaving = asyncio.ensure_future(event), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        watch.abandon()
        work.cancel()
        raise Abandoned
    finally:
        for task in (coming, leaving):
            task.cancel()
