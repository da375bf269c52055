"""What the benchmark measures: a phase of a training step at one size, and the tokens it has to read.

Imports nothing heavy, so that the command line can be read first.
"""

from dataclasses import dataclass

PHASES = ("scoring", "update", "rollout", "step")

MOST_STOCK_S = 60.0
"""Seconds that a straightforward call may take; it is left out of a case where it would take longer, those of
``BOTH_WAYS`` excepted."""


@dataclass(frozen=True)
class Case:
    """A phase at one size.

    Attributes:
        phase: one of ``PHASES``.
        context: tokens of each context, the question included.
        message: tokens of each message.
        group: messages of each context.
        contexts: contexts of a batch; each message is scored under every one of them, its own and the negatives.
    """

    phase: str
    context: int
    message: int
    group: int
    contexts: int

    def __str__(self) -> str:
        return f"{self.phase} C={self.context} M={self.message} G={self.group} N={self.contexts}"

    @property
    def messages(self) -> int:
        """Messages of a batch."""
        return self.group * self.contexts

    def tokens(self, once: bool) -> int:
        """Tokens that go through the model: each context read once, or once for every message.

        Those of an update count three times, once forward and twice backward.
        """
        prefix, tail = self.contexts * self.context, self.messages * self.message
        sampling = prefix + tail if once else self.messages * (self.context + self.message)
        scoring = prefix + self.contexts * tail if once else self.contexts * sampling
        return {"rollout": sampling, "update": 3 * sampling, "scoring": scoring}.get(self.phase, 4 * sampling + scoring)

    def multiplications(self, body: int, projection: int) -> int:
        """Multiply-adds with parameters where contexts are read once, attention and the adapter left out.

        Only messages go through the vocabulary ``projection``. An update counts twice, not three times: frozen
        parameters take no gradient.
        """
        tail = self.messages * self.message
        sampling = (self.contexts * self.context + tail) * body + tail * projection
        scoring = self.contexts * (self.context * body + tail * (body + projection))
        return {"rollout": sampling, "update": 2 * sampling, "scoring": scoring}.get(self.phase, 3 * sampling + scoring)


SCORING = Case("scoring", 1024, 48, 4, 16)
UPDATE = Case("update", 1024, 48, 8, 1)
STEP = Case("step", 1024, 48, 8, 4)
HEADLINE = (SCORING, UPDATE, Case("rollout", 1024, 48, 8, 1), STEP)
LONG_STEP = Case("step", 4096, 48, 8, 2)
WIDE_STEP = Case("step", 1024, 48, 8, 8)
BOTH_WAYS = (*HEADLINE, LONG_STEP, WIDE_STEP)
"""The cases in which the straightforward way is measured however long it takes."""


def benchmark_cases(quick: bool) -> list[Case]:
    """The headline and, unless ``quick``, one size varied at a time; a case that is varied twice is measured once.

    Scoring is varied around 4 contexts rather than the headline's 16, the step around 2: a straightforward call then
    takes seconds. The longest and the widest step come last.
    """
    if quick:
        return list(HEADLINE)
    varied = [
        *(Case("scoring", context, 48, 4, 4) for context in (256, 512, 1024, 2048, 4096)),
        *(Case("scoring", 1024, message, 4, 4) for message in (16, 128)),
        *(Case("scoring", 1024, 48, group, 4) for group in (1, 2, 8, 16)),
        *(Case("scoring", 1024, 48, 4, contexts) for contexts in (2, 8)),
        *(Case("update", context, 48, 8, 1) for context in (256, 512, 1024, 2048, 4096)),
        *(Case("update", 1024, message, 8, 1) for message in (16, 128)),
        *(Case("update", 1024, 48, group, 1) for group in (2, 4, 16)),
        *(Case("rollout", context, 48, 8, 1) for context in (256, 512, 1024, 2048, 4096)),
        *(Case("rollout", 1024, message, 8, 1) for message in (16, 128)),
        *(Case("rollout", 1024, 48, group, 1) for group in (2, 4, 16)),
        *(Case("step", context, 48, 8, 2) for context in (256, 1024)),
    ]
    return list(dict.fromkeys([*HEADLINE, *varied, LONG_STEP, WIDE_STEP]))
