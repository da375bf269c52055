"""A compressor behind its waiting line: what both the web server and the MCP server offer."""

import time
from dataclasses import dataclass
from typing import Any

from models.predictor import Predictor, Query
from models.serve.backend import Backend, Overdue, Task, Watch, Written
from models.serve.chat_request import Limits
from models.serve.line import Line
from models.serve.metrics import Metrics
from models.serve.refusal import Refusal


@dataclass(frozen=True)
class Answers:
    """What the predictor answers with the message and without."""

    with_message: str
    without_message: str


class Service:
    """One backend, its line and its counts.

    Attributes:
        limits: what requests may ask for.
        line: who waits.
        metrics: what was done.
    """

    def __init__(self, backend: Backend, limits: Limits, line: Line, predictor: Predictor | None = None) -> None:
        """Fix what is served.

        Args:
            backend: used by the line's thread alone.
            limits: what requests may ask for.
            line: where they wait.
            predictor: answers questions from messages; None for none.
        """
        self.backend, self.limits, self.line, self.predictor = backend, limits, line, predictor
        self.metrics = Metrics()

    async def write(self, task: Task, watch: Watch) -> Written:
        """Messages, once it is the task's turn.

        Raises:
            Refusal: the line is full, the task cannot be done, or it takes too long.
            Abandoned: the client has gone.
        """
        return (await self._work(task, watch, None))[0]

    async def write_and_answer(self, task: Task, question: str | None, watch: Watch) -> tuple[Written, Answers | None]:
        """Messages, and what the predictor makes of the first; None without a predictor or a question.

        Raises:
            Refusal, Abandoned: as `write`.
        """
        return await self._work(task, watch, question)

    def describe(self) -> dict[str, Any]:
        """What is served, for a client."""
        return {
            **self.backend.describe(),
            "budget_tokens": self.limits.budget_tokens,
            "most_budget_tokens": self.limits.most_budget_tokens,
            "question": "hidden" if self.limits.hidden else "shown",
            "predictor": self.predictor is not None,
        }

    async def _work(self, task: Task, watch: Watch, question: str | None) -> tuple[Written, Answers | None]:
        def work(watch: Watch) -> tuple[Written, Answers | None]:
            began = time.monotonic()
            written = self.backend.write(task, watch)
            self.metrics.wrote(written, time.monotonic() - began)
            return written, None if question is None else self._answers(written, question, watch)

        try:
            return await self.line.work(work, watch)
        except Overdue:
            self.metrics.count("overdue_total")
            raise Refusal(
                f"the message was not written within {self.line.seconds:g} seconds",
                status=504,
                code="generation_timeout",
            ) from None

    def _answers(self, written: Written, question: str, watch: Watch) -> Answers | None:
        if self.predictor is None:
            return None
        watch.check()
        queries = [Query(written.choices[0].text, question), Query("", question)]
        return Answers(*self.predictor.answer(queries))
