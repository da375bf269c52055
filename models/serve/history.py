"""A chat history as one text: agents send one to be compacted."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data.reading import shown
from models.serve.fields import check_characters, wrong
from models.serve.refusal import Refusal

SPEAKERS = {
    "system": "System",
    "developer": "System",
    "user": "User",
    "assistant": "Assistant",
    "tool": "Tool",
    "function": "Tool",
}
"""The roles of OpenAI's API, and what a line of each begins with."""

TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts of a message that are text."""


@dataclass(frozen=True)
class Turn:
    """One message of a history.

    Attributes:
        role: one of `SPEAKERS`.
        text: what it says; tool calls of an assistant are written out.
    """

    role: str
    text: str

    def line(self) -> str:
        """The message as a part of a document."""
        return f"{SPEAKERS[self.role]}: {self.text}"


def turns(messages: Any) -> list[Turn]:
    """The messages of a request, checked.

    Raises:
        Refusal: they are no list of messages of text, naming the first that is wrong.
    """
    if messages is None:
        return []
    if not isinstance(messages, list):
        raise wrong("messages", "a list", messages)
    return [_turn(message, f"messages[{number}]") for number, message in enumerate(messages)]


def split(history: Sequence[Turn], question: str | None, default_question: str) -> tuple[str, str]:
    """The document and the question of a history.

    The last user message is the question, all others are the document, a line "Role: text" for each. A history of one
    message is the document itself. So is one of system messages and a user message that is longer than they are: there
    the user message is the text, such as the prompt of a framework's summary.

    Args:
        history: the messages.
        question: what is asked about all of them; None takes it from the history.
        default_question: what is asked where the history does not say.

    Raises:
        Refusal: there is nothing to compress.
    """
    said = [turn for turn in history if turn.text.strip()]
    if not any(turn.role == "user" for turn in said) and question is None:
        raise Refusal(
            "'messages' should have a user message, or the request a 'document'",
            param="messages",
            code="missing_parameter",
        )
    if not said:
        raise Refusal("there is nothing to compress: no message has text", param="messages", code="missing_parameter")
    if question is not None:
        return _document(said), question
    last = max(number for number, turn in enumerate(said) if turn.role == "user")
    others = [turn for number, turn in enumerate(said) if number != last]
    bare = all(SPEAKERS[turn.role] == "System" for turn in others)
    if bare and len(said[last].text) > sum(len(turn.text) for turn in others):
        return _document(said), default_question
    return _document(others), said[last].text


def _document(said: Sequence[Turn]) -> str:
    return said[0].text if len(said) == 1 else "\n\n".join(turn.line() for turn in said)


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict):
        raise wrong(where, "an object", message)
    role = message.get("role")
    if not isinstance(role, str) or role not in SPEAKERS:
        raise Refusal(
            f"'{where}.role' should be one of {', '.join(SPEAKERS)}, it is {shown(role)}",
            param=f"{where}.role",
            code="invalid_value",
        )
    said = [_content(message.get("content"), f"{where}.content"), *_calls(message.get("tool_calls"), where)]
    return Turn(role, "\n".join(part for part in said if part))


def _content(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        check_characters(where, content)
        return content
    if not isinstance(content, list):
        raise wrong(where, "text or a list of parts", content)
    parts = []
    for number, part in enumerate(content):
        named = f"{where}[{number}]"
        if not isinstance(part, dict):
            raise wrong(named, "an object", part)
        kind = part.get("type")
        if kind not in TEXT_PARTS:
            raise Refusal(
                f"'{named}' is of type {shown(kind)}: a compressor reads text alone",
                param=named,
                code="unsupported_value",
            )
        if not isinstance(part.get("text"), str):
            raise wrong(f"{named}.text", "text", part.get("text"))
        check_characters(f"{named}.text", part["text"])
        parts.append(part["text"])
    return "\n".join(parts)


def _calls(calls: Any, where: str) -> list[str]:
    """Tool calls as lines; they are part of what happened."""
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise wrong(f"{where}.tool_calls", "a list", calls)
    lines = []
    for number, call in enumerate(calls):
        named = f"{where}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise wrong(named, "a call of a function with a name", call)
        arguments = function.get("arguments", "")
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        line = f"[calls {function['name']}({written})]"
        check_characters(named, line)
        lines.append(line)
    return lines
