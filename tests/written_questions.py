"""Replies of a writer model that pass every check, and the rows that come of them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from data.synthesis import Messages, synthesise
from data.written_questions import Material


def page_reply(page: str) -> dict[str, Any]:
    """Five questions on a page; the extractive answers are its first and its last line."""
    lines = [line.strip() for line in page.split("\n") if line.strip()]
    extractive = [
        {"question": f"What stands in line {n}?", "answer": line} for n, line in ((1, lines[0]), (-1, lines[-1]))
    ]
    kinds = {
        kind: {"question": f"Write a {kind}.", "answer": f"This is a {kind}."} for kind in ("email", "rap", "poem")
    }
    return {"extractive": extractive, **kinds}


def memory_reply(session: str) -> dict[str, str]:
    """A question on a session; its quote is the session's first line."""
    return {"question": "What did I ask?", "answer": "A question.", "quote": session.split("\n")[0]}


def fenced(messages: Messages) -> str:
    """The text between the fences of the first prompt."""
    prompt = messages[0]["content"]
    opening = next(line for line in prompt.split("\n") if line.startswith("BEGIN ") and len(line) == 22)
    return prompt.partition(f"\n{opening}\n")[2].partition(f"\nEND {opening[6:]}\n")[0]


def good_writer(messages: Messages, schema: Mapping[str, Any]) -> str:
    """A writer whose every reply can be used."""
    text = fenced(messages)
    return json.dumps(memory_reply(_first_session(text)) if "quote" in schema["properties"] else page_reply(text))


def rows_of(materials: Iterable[Material]) -> list[dict[str, Any]]:
    """The lines of a set that ``good_writer`` wrote."""
    return [json.loads(synthesise(material, "a-writer", good_writer).line()) for material in materials]


def _first_session(text: str) -> str:
    return text.partition("SESSION 1\n")[2] or text
