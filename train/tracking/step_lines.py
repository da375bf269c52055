"""Files of JSON lines that belong to steps: appended to while a run trains, and cut back where it goes on from."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.command import say
from data.writing import append_text, json_text, write_text


class StepLines:
    """A file of JSON lines, each with the number of its step."""

    def __init__(self, path: Path) -> None:
        """Write to ``path``; one process alone does."""
        self.path = path

    def add(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append the lines of a step; they are on the disk when this returns."""
        append_text(self.path, "".join(json_text({"step": step, **line}) + "\n" for line in lines))

    def restore(self, step: int, lines: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Cut the file back to ``step``; where a line is then missing, write the file anew.

        Args:
            step: the one that the run goes on from.
            lines: what the file should hold by then, each with its step.
        """
        self.cut(step)
        held = [] if not self.path.exists() else [_step(line) for line in self.path.read_bytes().splitlines(True)]
        if held != [number for number, _ in lines]:
            write_text(self.path, "".join(json_text({"step": number, **line}) + "\n" for number, line in lines))

    def cut(self, step: int) -> None:
        """Drop the lines of steps after ``step``, which will be taken again; damaged lines too, which are counted."""
        if not self.path.exists():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        steps = [_step(line) for line in lines]
        kept = [line for line, number in zip(lines, steps, strict=True) if number is not None and number <= step]
        if damaged := sum(number is None for number in steps):
            say(f"{self.path}: damaged lines that are dropped: {damaged}", sys.stderr)
        if kept != lines:
            write_text(self.path, b"".join(kept).decode("utf-8"))


def _step(line: bytes) -> int | None:
    """The step of a line; None for one that is torn or foreign."""
    try:
        step = json.loads(line.decode("utf-8"))["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if type(step) is int and line.endswith(b"\n") else None
