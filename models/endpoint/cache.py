"""Replies of servers on the disk, so that what was answered once is not asked again."""

import json
import os
import threading
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.endpoint.errors import EndpointError

Reply = TypeVar("Reply", bound=BaseModel)


class ReplyCache:
    """Replies by the hash of what was asked, one JSON line each, appended as they come.

    Several processes may append to one file. Whoever does not know a reply looks at what the others have added since,
    so that none is asked for that another process has. A line is written by one call, so that a process that is killed
    leaves whole lines.

    Attributes:
        path: the file.
        damaged: lines that are no cached reply, such as the half-written last one of a full disk.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the replies in a file, which is made where it is missing.

        Raises:
            EndpointError: the file cannot be read or written, or holds whole lines and none is a cached reply.
        """
        self.path = Path(path).expanduser()
        self.damaged = 0
        self._lock = threading.Lock()
        self._replies: dict[str, Any] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+", buffering=0)
            self._file.seek(0)
            content = self._file.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise EndpointError(f"cache {self.path}: cannot be opened ({reason})") from error
        self._seen = len(content)
        for line in content.splitlines():
            self._read(line)
        if self.damaged and not self._replies and b"\n" in content.strip(b"\0"):
            raise EndpointError(f"cache {self.path}: holds no cached replies; name another file, or move it away")
        # A half-written last line is closed, so that the next reply does not become part of it.
        self._opening = b"" if content.endswith(b"\n") or not content else b"\n"

    def __len__(self) -> int:
        """How many replies there are."""
        return len(self._replies)

    def get(self, key: str, kind: type[Reply]) -> Reply | None:
        """The reply cached under ``key``; None where there is none, or what is there is no reply, which is counted.

        Raises:
            EndpointError: the file cannot be read any more.
        """
        if key not in self._replies:
            self._catch_up()
        cached = self._replies.get(key)
        if cached is None:
            return None
        try:
            return kind.model_validate(cached)
        except ValidationError:
            with self._lock:
                self.damaged += self._replies.pop(key, None) is not None
            return None

    def add(self, key: str, model: str, reply: BaseModel) -> None:
        """Keep a reply; ``model`` is written for whoever reads the file.

        Raises:
            EndpointError: the file cannot be written to.
        """
        content = reply.model_dump()
        line = json.dumps({"key": key, "model": model, "reply": content}).encode() + b"\n"
        with self._lock:
            try:
                whole = self._file.write(self._opening + line) == len(self._opening + line)
            except OSError as error:
                raise EndpointError(f"cache {self.path}: cannot be written to ({error.strerror})") from error
            if not whole:
                self._opening = b"\n"
                raise EndpointError(f"cache {self.path}: cannot be written to (the disk is full)")
            self._opening = b""
            self._replies[key] = content

    def _catch_up(self) -> None:
        """Read what was added since the last look, by this process or another, as far as its lines are whole."""
        with self._lock:
            try:
                size = os.fstat(self._file.fileno()).st_size
                added = os.pread(self._file.fileno(), max(size - self._seen, 0), self._seen)
            except OSError as error:
                raise EndpointError(f"cache {self.path}: cannot be read ({error.strerror})") from error
            whole = added[: added.rfind(b"\n") + 1]
            self._seen += len(whole)
            for line in whole.splitlines():
                self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self._replies[str(record["key"])] = record["reply"]
        except (ValueError, TypeError, KeyError, RecursionError):
            # Two processes may both close one half-written line, which leaves an empty one.
            self.damaged += bool(line.strip())
