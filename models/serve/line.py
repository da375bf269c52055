"""The waiting line: one task at a time is worked on, in a thread of its own, and few may wait."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from models.serve.backend import Watch
from models.serve.refusal import Refusal

LONGEST_RETRY_SECONDS = 60
"""The longest wait that a refused client is told: after a minute the line has moved."""

Result = TypeVar("Result")


class Line:
    """Who waits, and what is worked on.

    Attributes:
        most_waiting: how many may wait beside the one that is worked on.
        seconds: how long one piece of work may take.
        working: whether something is worked on.
    """

    def __init__(self, most_waiting: int, seconds: float) -> None:
        """Nobody waits yet."""
        self.most_waiting = most_waiting
        self.seconds = seconds
        self.working = False
        self._outstanding: dict[Future[Any], Watch] = {}
        self._changing = threading.Lock()
        self._closed = False
        self._mean_seconds = 1.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="work")

    @property
    def waiting(self) -> int:
        """How many wait for the one that is worked on."""
        return max(0, len(self._outstanding) - 1)

    async def work(self, task: Callable[[Watch], Result], watch: Watch) -> Result:
        """What a task gives, once it is its turn.

        A task that is abandoned before its turn leaves the line at once; one that is abandoned later ends itself, and
        the line goes on after it.

        Args:
            task: runs in the thread of the line, and checks the watch.
            watch: the clock is started when the turn comes.

        Raises:
            Refusal: the line is full or closed.
            Abandoned, Overdue: as the watch says.
        """
        with self._changing:
            if self._closed:
                raise _closed()
            if len(self._outstanding) > self.most_waiting:
                raise Refusal(
                    f"{self.most_waiting} requests are waiting already; come back later",
                    status=429,
                    code="queue_full",
                    retry_seconds=self._retry_seconds(),
                )
            future: Future[Result] = self._pool.submit(self._begin, task, watch)
            self._outstanding[future] = watch
        future.add_done_callback(self._leave)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            watch.abandon()
            future.cancel()
            waiter = asyncio.current_task()
            if self._closed and waiter is not None and not waiter.cancelling():
                raise _closed() from None
            raise

    def close(self) -> None:
        """Take nothing new; who waits is refused, and what is worked on goes on."""
        with self._changing:
            self._closed = True
            outstanding = list(self._outstanding)
        for future in outstanding:
            future.cancel()

    def stop(self, seconds: float) -> None:
        """Close, and end what is worked on; wait that long for it to notice."""
        self.close()
        for watch in list(self._outstanding.values()):
            watch.abandon()
        deadline = time.monotonic() + seconds
        while self._outstanding and time.monotonic() < deadline:
            time.sleep(0.02)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, task: Callable[[Watch], Result], watch: Watch) -> Result:
        watch.begin(self.seconds)
        watch.check()
        began, self.working = time.monotonic(), True
        try:
            return task(watch)
        finally:
            self.working = False
            self._mean_seconds += 0.2 * (time.monotonic() - began - self._mean_seconds)

    def _leave(self, future: Future[Result]) -> None:
        with self._changing:
            self._outstanding.pop(future, None)

    def _retry_seconds(self) -> int:
        """About when half of the line will be through."""
        return min(LONGEST_RETRY_SECONDS, max(1, math.ceil(self._mean_seconds * self.most_waiting / 2)))


def _closed() -> Refusal:
    return Refusal("the server is shutting down", status=503, code="shutting_down", retry_seconds=5)
