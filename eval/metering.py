"""What happens while a batch is done: seconds on the clock, joules of the processor, tokens of the predictor.

Energy is what Intel's and AMD's processors count themselves (RAPL), as Linux shows it below ``/sys/class/powercap``:
all that the packages use meanwhile, whatever for. Graphics cards count elsewhere. Where it cannot be read it is
missing, and never estimated.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from configs.command import is_main
from data.errors import one_line
from eval.record import Spent
from models.compressor import Message
from models.endpoint import TOKENS_READ, TOKENS_WRITTEN
from models.predictor import KEPT, UNCOUNTED, LocalPredictor, Predictor, RemotePredictor

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the counters of energy."""

MICRO = 1_000_000
"""Microjoules in a joule."""


@dataclass(frozen=True)
class Domain:
    """The counter of one processor package.

    Attributes:
        folder: holds its files.
        range_microjoules: where the counter begins again at 0.
    """

    folder: Path
    range_microjoules: int

    def read(self) -> int:
        """The counter, microjoules.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no number.
        """
        return int((self.folder / "energy_uj").read_text())


class EnergyCounters:
    """The energy counters of all packages of this machine.

    Attributes:
        problem: why energy cannot be measured, on one line; None where it can.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        """Look for the counters.

        A package is counted once, also where two drivers show it. Its parts (cores, memory) are not added to it.

        Args:
            root: the folder whose ``intel-rapl*:*`` are the domains.
        """
        self.problem: str | None = None
        self._domains: list[Domain] = []
        found: dict[str, Domain] = {}
        try:
            # The driver by memory (intel-rapl-mmio) shows the same packages; the first of a name is taken.
            for folder in sorted(root.glob("intel-rapl*:*"), key=lambda folder: ("mmio" in folder.name, folder.name)):
                name = (folder / "name").read_text().strip()
                if name.startswith("package") and name not in found:
                    found[name] = Domain(folder, int((folder / "max_energy_range_uj").read_text()))
                    found[name].read()
        except (OSError, ValueError) as error:
            self.problem = f"energy is not measured: {one_line(error, 200)}"
            return
        if not found:
            self.problem = f"energy is not measured: no counter of a processor below {root}"
        self._domains = list(found.values())

    def read(self) -> list[int] | None:
        """The counters, microjoules; None where one of them cannot be read."""
        if not self._domains:
            return None
        try:
            return [domain.read() for domain in self._domains]
        except (OSError, ValueError):
            return None

    def joules(self, before: Sequence[int] | None, after: Sequence[int] | None) -> float | None:
        """The energy between two readings, joules, over all packages; a counter may have begun again once between them.

        Args:
            before: what `read` gave first.
            after: what it gave then.
        """
        if before is None or after is None:
            return None
        steps = zip(self._domains, before, after, strict=True)
        return sum(end - start + domain.range_microjoules * (end < start) for domain, start, end in steps) / MICRO


@cache
def energy_counters() -> EnergyCounters:
    """The counters of this machine, looked for once."""
    return EnergyCounters(POWERCAP)


class Stopwatch:
    """What passes inside ``with``; energy in the first process alone.

    Attributes:
        seconds: wall time; None before the end.
        joules: energy; None where it is not measured.
    """

    def __init__(self, energy: EnergyCounters | None = None) -> None:
        """Measure by the counters of this machine, unless others are given."""
        self.seconds: float | None = None
        self.joules: float | None = None
        self._energy = energy or energy_counters()

    def __enter__(self) -> Self:
        """Start."""
        self._counters = self._energy.read() if is_main() else None
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._start
        if self._counters is not None:
            self.joules = self._energy.joules(self._counters, self._energy.read())

    def share(self, count: int) -> tuple[float | None, float | None]:
        """Seconds and joules, an equal part for each of ``count`` questions."""
        return _share(self.seconds, count), _share(self.joules, count)


class AnswerWatch(Stopwatch):
    """A stopwatch that also counts the tokens of a predictor that answers meanwhile.

    Attributes:
        counts: what the predictor counted in that time.
    """

    def __init__(self, predictor: Predictor, energy: EnergyCounters | None = None) -> None:
        """Watch a predictor; one that does not count has no tokens."""
        super().__init__(energy)
        known = isinstance(predictor, LocalPredictor | RemotePredictor)
        self._counted: Counter[str] = predictor.counts if known else Counter()
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Start."""
        self._before = Counter(self._counted)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        super().__exit__(kind, error, trace)
        self.counts = {event: count - self._before[event] for event, count in self._counted.items()}

    def spent(self, questions: int) -> Spent:
        """What each of the questions took, an equal part of all.

        Time and energy are None where an answer was kept from an earlier run, and tokens where a server does not tell
        them.
        """
        counts = self.counts
        seconds, joules = (None, None) if counts.get(KEPT) else self.share(questions)
        # An answer without a prompt is one of a predictor that does not count.
        counted = counts.get(TOKENS_READ, 0) > 0 and not counts.get(UNCOUNTED)
        return {
            "seconds": seconds,
            "joules": joules,
            "tokens_read": counts[TOKENS_READ] / questions if counted else None,
            "tokens_written": counts[TOKENS_WRITTEN] / questions if counted else None,
        }


def spent_on_messages(parts: Sequence[Sequence[Message]], watch: Stopwatch) -> list[Spent]:
    """What the message of each question took.

    Args:
        parts: by question the messages of the parts of its document, all of them made while ``watch`` ran.
        watch: has stopped; its time and energy are divided equally among the questions.
    """
    seconds, joules = watch.share(len(parts))
    return [
        {
            "seconds": _sum([seconds, *(message.effort.earlier_seconds for message in own)]),
            "joules": _sum([joules, *(message.effort.earlier_joules for message in own)]),
            "tokens_read": _sum([message.effort.read_tokens for message in own]),
            "tokens_written": _sum([message.effort.written_tokens for message in own]),
        }
        for own in parts
    ]


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum; None where one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _share(value: float | None, count: int) -> float | None:
    return None if value is None else value / count
