"""Replies in the shape of OpenAI's API, whole and in pieces."""

import json
import secrets
import time
from typing import Any

from models.serve.backend import Choice, Written
from models.serve.chat_request import ChatRequest


class ChatReply:
    """The reply to one request: its id, its time and the name of the model are the same in all pieces."""

    def __init__(self, request: ChatRequest, model: str) -> None:
        """Nothing is written yet."""
        self.request = request
        self.head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, written: Written) -> dict[str, Any]:
        """The body of a reply that comes at once."""
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason(choice),
                "shorthand": _of_choice(choice),
            }
            for number, choice in enumerate(written.choices)
        ]
        further = {"usage": usage(written), "shorthand": self._shorthand(written)}
        return {**self.head, "object": "chat.completion", "choices": choices, **further}

    def opening(self, number: int) -> dict[str, Any]:
        """The first piece of a choice, which names the role."""
        return self._chunk(number, {"role": "assistant", "content": ""})

    def piece(self, number: int, text: str) -> dict[str, Any]:
        """A piece of a choice's text."""
        return self._chunk(number, {"content": text})

    def endings(self, written: Written) -> list[dict[str, Any]]:
        """The last pieces: why each choice ended, and the usage where it was asked for."""
        last = [
            self._chunk(number, {}, finish_reason(choice), _of_choice(choice))
            | {"shorthand": self._shorthand(written, number)}
            for number, choice in enumerate(written.choices)
        ]
        if self.request.stream_usage:
            last.append({**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(written)})
        return last

    def _chunk(
        self,
        number: int,
        delta: dict[str, Any],
        reason: str | None = None,
        shorthand: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}
        choice |= {} if shorthand is None else {"shorthand": shorthand}
        piece = {**self.head, "object": "chat.completion.chunk", "choices": [choice]}
        return piece | ({"usage": None} if self.request.stream_usage else {})

    def _shorthand(self, written: Written, number: int = 0) -> dict[str, Any]:
        """What OpenAI's format has no place for, with the figures of one choice."""
        return {
            **_of_choice(written.choices[number]),
            "truncated_tokens": written.truncated_tokens,
            "budget_tokens": self.request.task.budget_tokens,
            "unread_messages": self.request.unread_messages,
            "neutralised": written.neutralised,
            "seed": self.request.task.seed if self.request.sampled else None,
        }


def finish_reason(choice: Choice) -> str:
    """Why a message ended, in OpenAI's words."""
    return "stop" if choice.ended else "length"


def usage(written: Written) -> dict[str, int]:
    """Tokens that were read and written, end tokens included."""
    wrote = sum(choice.tokens for choice in written.choices)
    return {
        "prompt_tokens": written.read_tokens,
        "completion_tokens": wrote,
        "total_tokens": written.read_tokens + wrote,
    }


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + encoded(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


def encoded(body: dict[str, Any]) -> bytes:
    """JSON as it is sent."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _of_choice(choice: Choice) -> dict[str, Any]:
    return {"bits": choice.bits, "ended": choice.ended, "tokens": choice.tokens}
