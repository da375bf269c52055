"""The web server: OpenAI's paths, the page and its own path, counts and health."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from data.errors import InputError, one_line
from models.serve.backend import Abandoned, Watch
from models.serve.chat_request import check_model, read_chat
from models.serve.fields import Fields, parse
from models.serve.gate import Gate
from models.serve.page_request import page_reply, read_page
from models.serve.refusal import Refusal, failure, mistaken
from models.serve.replies import ChatReply, encoded
from models.serve.service import Service
from models.serve.stream import Stream, unless_gone

PAGE_POLICY = (
    "default-src 'none'; script-src 'sha256-{}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: run its own script, known by its hash, and ask this server."""

Handler = Callable[[Request], Awaitable[Response]]


class Json(Response):
    """A JSON reply in UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return encoded(content)


def application(service: Service, gate: Gate) -> Starlette:
    """The server of a service; the caller runs it, and closes the service's line at its end."""
    web = _Web(service, gate)
    routes = [
        Route("/", web.guarded(web.page), methods=["GET"]),
        Route("/health", web.guarded(web.health), methods=["GET"]),
        Route("/metrics", web.guarded(web.metrics), methods=["GET"]),
        Route("/v1/models", web.guarded(web.models), methods=["GET"]),
        Route("/v1/models/{name:path}", web.guarded(web.model), methods=["GET"]),
        Route("/v1/chat/completions", web.guarded(web.chat), methods=["POST"]),
        Route("/v1/compress", web.guarded(web.compress), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: web.no_route, Exception: web.failed})


class _Web:
    """The handlers."""

    def __init__(self, service: Service, gate: Gate) -> None:
        self.service, self.gate = service, gate
        self._page = files("models.serve").joinpath("page.html").read_text(encoding="utf-8")
        script = self._page.partition("<script>")[2].partition("</script>")[0]
        self._script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind the gate, whose refusals are replies and whose replies are counted."""

        async def guard(request: Request) -> Response:
            try:
                self.gate.check(request)
                reply = await handler(request)
            except Refusal as refusal:
                reply = refused(refusal)
            except RecursionError:
                reply = refused(Refusal("the body is nested too deeply", code="invalid_json"))
            except (ClientDisconnect, Abandoned):
                self.service.metrics.count("abandoned_total")
                # Nobody reads it; 499 is what such requests are counted as elsewhere.
                reply = Response(status_code=499)
            except InputError as error:
                reply = refused(failure(error))
            except Exception:  # not raised further, for the connection would be closed after the reply
                reply = refused(mistaken())
            route = request.scope["route"]
            self.service.metrics.count("requests_total", path=route.path, status=str(reply.status_code))
            return reply

        return guard

    async def page(self, request: Request) -> Response:
        """The page to try it."""
        headers = {
            "Content-Security-Policy": PAGE_POLICY.format(self._script_hash),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(self._page, headers=headers)

    async def health(self, request: Request) -> Response:
        """Whether the server is there."""
        return Json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Counts for Prometheus."""
        line = self.service.line
        page = self.service.metrics.page({"waiting": line.waiting, "working": line.working})
        return PlainTextResponse(page, media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """The one model."""
        return Json({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The model by its name."""
        check_model({"model": request.path_params["name"]}, self.service.limits)
        return Json(self._model())

    async def chat(self, request: Request) -> Response:
        """OpenAI's chat completions."""
        asked = read_chat(await self._fields(request), self.service.limits)
        reply = ChatReply(asked, self.service.limits.model)
        if asked.stream:
            return await Stream(self.service, asked, reply).begun(request)
        watch = Watch()
        written = await unless_gone(request, watch, self.service.write(asked.task, watch))
        return Json(reply.whole(written))

    async def compress(self, request: Request) -> Response:
        """A message with its tokens, and a predictor's answers, as the page shows them."""
        asked = read_page(await self._fields(request), self.service.limits)
        watch = Watch()
        work = self.service.write_and_answer(asked.task, asked.question if asked.answer else None, watch)
        return Json(page_reply(asked, *await unless_gone(request, watch, work)))

    async def no_route(self, request: Request, error: Exception) -> Response:
        """No such path, or not this way."""
        assert isinstance(error, HTTPException)
        self.service.metrics.count("requests_total", path="other", status=str(error.status_code))
        path = one_line(repr(request.url.path), 80)
        told = {404: f"no such path {path}", 405: f"{path} does not take {request.method}"}
        reply = refused(Refusal(told.get(error.status_code, error.detail), status=error.status_code, code="no_route"))
        reply.headers.update(error.headers or {})
        return reply

    async def failed(self, request: Request, error: Exception) -> Response:
        """A mistake of this program outside of any path."""
        self.service.metrics.count("requests_total", path="other", status="500")
        return refused(mistaken())

    async def _fields(self, request: Request) -> Fields:
        return parse(await self.gate.body(request))

    def _model(self) -> dict[str, Any]:
        name = self.service.limits.model
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "shorthand",
            "shorthand": self.service.describe(),
        }


def refused(refusal: Refusal) -> Response:
    """A refusal as a reply."""
    return Json(refusal.body(), status_code=refusal.status, headers=refusal.headers())
