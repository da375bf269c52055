"""Replies of servers on the disk, so that what was answered once is not asked again."""

import json
import threading
from pathlib import Path
from typing import Any

from models.endpoint.errors import EndpointError


class ReplyCache:
    """Replies by the hash of what was asked, one JSON line each, appended as they come.

    Several processes may append to one file; each knows what stood there when it opened it, and what it added itself.

    Attributes:
        path: the file.
        damaged: lines that are no cached reply, such as the half-written last one of a killed process.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the replies in a file, which is made where it is missing.

        Raises:
            EndpointError: the file cannot be read or written, or holds lines and none is a cached reply.
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
        except OSError as error:
            raise EndpointError(f"cache {self.path}: cannot be opened ({error.strerror})") from error
        for line in content.splitlines():
            self._read(line)
        if self.damaged and not self._replies:
            raise EndpointError(f"cache {self.path}: holds no cached replies; name another file")
        # A half-written last line is closed, so that the next reply does not become part of it.
        self._opening = b"" if content.endswith(b"\n") or not content else b"\n"

    def get(self, key: str) -> Any | None:
        """The reply cached under ``key``, None where there is none."""
        return self._replies.get(key)

    def add(self, key: str, model: str, reply: Any) -> None:
        """Keep a reply; ``model`` is written for whoever reads the file.

        Raises:
            EndpointError: the file cannot be written to.
        """
        line = json.dumps({"key": key, "model": model, "reply": reply}).encode() + b"\n"
        with self._lock:
            try:
                self._file.write(self._opening + line)
            except OSError as error:
                raise EndpointError(f"cache {self.path}: cannot be written to ({error.strerror})") from error
            self._opening = b""
            self._replies[key] = reply

    def _read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self._replies[str(record["key"])] = record["reply"]
        except (ValueError, TypeError, KeyError, RecursionError):
            self.damaged += 1
