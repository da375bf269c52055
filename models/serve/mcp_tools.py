"""The compressor as tools of an agent, over the Model Context Protocol on standard input and output."""

import asyncio
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from pydantic import BaseModel, Field

from data.errors import InputError, one_line
from models.serve.backend import Watch
from models.serve.chat_request import task_of
from models.serve.fields import check_characters
from models.serve.mcp_lines import AnsweredLines
from models.serve.passages import Session
from models.serve.refusal import Refusal
from models.serve.service import Service

INSTRUCTIONS = (
    "compress reads a long document once and writes a short message that answers a question about it. "
    "Work from the message; where it is not enough, expand(id) gives the sentences of the document it came from."
)
"""What an agent is told of the tools."""


class CompressedMessage(BaseModel):
    """What `compress` returns."""

    id: str = Field(description="for expand")
    message: str = Field(description="what the document says on the question")
    tokens: int = Field(description="length of the message, its end token included")
    ended: bool = Field(description="false where max_tokens cut the message off")
    truncated_tokens: int | None = Field(description="tokens cut out of the document's middle, unread")
    bits: float | None = Field(description="what the message tells of the document, in bits; null where unknown")


class SourcePassage(BaseModel):
    """A passage of a document."""

    start: int = Field(description="where it begins in the document, in characters")
    text: str = Field(description="the passage, word for word")


class Passages(BaseModel):
    """What `expand` returns."""

    passages: list[SourcePassage]


class _Server(MCPServer):
    """MCP's server, which on standard input answers also what is no message."""

    async def run_stdio_async(self) -> None:
        """Serve until standard input ends."""
        async with stdio_server() as (read, write):
            server = self._lowlevel_server
            await server.run(AnsweredLines(read, write), write, server.create_initialization_options())


def tools(service: Service) -> MCPServer:
    """An MCP server with the tools ``compress`` and ``expand``; what they keep ends with it."""
    server = _Server("shorthand", instructions=INSTRUCTIONS, log_level="ERROR")
    session = Session()
    limits = service.limits

    async def compress(
        document: Annotated[str, Field(description="the text to read, as long as it is")],
        question: Annotated[str, Field(description="what the message has to answer")] = "",
        max_tokens: Annotated[
            int | None,
            Field(description=f"most tokens of the message, up to {limits.most_budget_tokens}"),
        ] = None,
    ) -> CompressedMessage:
        """Read a long document and write a short message that answers a question about it."""
        try:
            for name, text in (("document", document), ("question", question)):
                check_characters(name, text)
            if not document.strip():
                raise Refusal("'document' has no text: a message of it would be made up")
            task = task_of({"max_tokens": max_tokens}, limits, document, question or limits.default_question)
            written = await service.write(task, Watch())
        except (Refusal, InputError) as error:
            raise ToolError(one_line(error)) from error
        choice = written.choices[0]
        key = session.keep(document, question, choice.text)
        return CompressedMessage(
            id=key,
            message=choice.text,
            tokens=choice.tokens,
            ended=choice.ended,
            truncated_tokens=written.truncated_tokens,
            bits=choice.bits,
        )

    async def expand(id: Annotated[str, Field(description="the id that compress gave")]) -> Passages:
        """The sentences of the document that a message came from, word for word."""
        try:
            found = session.expand(id)
        except KeyError:
            raise ToolError(f"no message {one_line(repr(id), 40)} is kept; compress the document again") from None
        return Passages(passages=[SourcePassage(start=passage.start, text=passage.text) for passage in found])

    server.tool()(compress)
    server.tool()(expand)
    return server


def serve_stdio(service: Service) -> None:
    """Serve until standard input ends."""
    asyncio.run(tools(service).run_stdio_async())
