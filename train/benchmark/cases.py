"""What the benchmark measures, what it writes down, and what it promises.

Cases with the tokens they take, rows and the file that keeps them (an interrupted run goes on from it), and the floors
of the headline. ``train.benchmark.measure`` does the measuring, ``train.benchmark.figures`` shows what came out.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

PHASES = ("scoring", "update", "rollout", "step")


@dataclass(frozen=True)
class Case:
    """One measurement.

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
        """Tokens that go through the model: each context read once, or once for every message."""
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
"""The straightforward way is measured here however long it takes."""


def cases(quick: bool) -> list[Case]:
    """The headline, then one size varied at a time; what several sweeps have in common is measured once.

    Scoring is varied around 4 contexts rather than the headline's 16, the step around 2: a straightforward call then
    takes seconds. The longest and the widest step come last.
    """
    if quick:
        return list(HEADLINE)
    sweep = [
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
    return list(dict.fromkeys([*HEADLINE, *sweep, LONG_STEP, WIDE_STEP]))


@dataclass(frozen=True)
class Row:
    """What one case showed: seconds (medians), megabytes above what was held before, how close to the floor we are.

    ``floor_share`` is the measured ratio over the ratio of the tokens. ``ours_processed`` are the tokens seen to pass
    through the model in our way, ``ours_tokens`` the floor's. ``matmul_share`` is the rate of the floor's
    multiplications with parameters in our time, over the machine's own rate. ``settings`` is all else that the numbers
    depend on. What was not measured is None: the straightforward way where a call would take too long, memory where
    the system does not say.
    """

    phase: str
    context: int
    message: int
    group: int
    contexts: int
    device: str
    ours_s: float
    stock_s: float | None
    ratio: float | None
    floor_share: float | None
    ours_calls: int
    stock_calls: int
    ours_processed: int
    ours_tokens: int
    stock_tokens: int
    ours_peak_mb: float | None
    stock_peak_mb: float | None
    matmul_share: float
    settings: str

    @property
    def case(self) -> Case:
        """What was measured."""
        return Case(self.phase, self.context, self.message, self.group, self.contexts)

    @property
    def memory_share(self) -> float | None:
        """Our peak over that of the straightforward way."""
        if self.ours_peak_mb is None or not self.stock_peak_mb:
            return None
        return self.ours_peak_mb / self.stock_peak_mb


class Results:
    """The rows of ``bench.json``, written after every case, so that an interrupted run can go on.

    Attributes:
        rows: what is measured so far, in that order.
    """

    def __init__(self, path: Path, settings: Sequence[str], fresh: bool = False) -> None:
        """Take up the rows of an earlier run that were measured under one of ``settings``; none where ``fresh``.

        A file with anything else in it is kept beside the one that is written, under the time it was written at.
        """
        self.path = path
        self.rows: list[Row] = []
        if not path.exists():
            return
        found = json.loads(path.read_text())
        names = {field.name for field in fields(Row)}
        if not fresh:
            self.rows = [Row(**row) for row in found if set(row) == names and row["settings"] in settings]
        if left := len(found) - len(self.rows):
            written = datetime.fromtimestamp(path.stat().st_mtime)
            aside = path.rename(path.with_name(f"{path.stem}.{written:%Y%m%d-%H%M%S}{path.suffix}"))
            why = "set aside by --fresh" if fresh else "of other settings or other code"
            print(f"{path}: {left} of {len(found)} rows {why}; all of them are kept in {aside.name}")
            self._write()

    def add(self, row: Row) -> None:
        """Keep a row, on the disk as well."""
        self.rows.append(row)
        self._write()

    def of(self, device: str) -> list[Row]:
        """The rows of one device."""
        return [row for row in self.rows if row.device == device]

    def _write(self) -> None:
        # Replaced in one go: an interruption leaves the file of before.
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps([asdict(row) for row in self.rows], indent=1) + "\n")
        partial.replace(self.path)


@dataclass(frozen=True)
class Floor:
    """What the benchmark promises of one case: a measure of its row is at least, or at most, ``bound``."""

    case: Case
    measure: str
    bound: float
    at_most: bool = False

    def verdict(self, rows: Sequence[Row]) -> tuple[bool | None, str]:
        """Whether it holds and a line that says so; None where the system does not tell, a case without row fails."""
        name = f"{self.case} {self.measure}, {'at most' if self.at_most else 'at least'} {self.bound:g}"
        row = next((row for row in rows if row.case == self.case), None)
        if row is None:
            return False, f"FAIL     {name}: not measured"
        value: float | None = getattr(row, self.measure)
        if value is None:
            return None, f"UNKNOWN  {name}: this system does not say"
        holds = value <= self.bound if self.at_most else value >= self.bound
        return holds, f"{'PASS' if holds else 'FAIL'}     {name}: {value:.2f}"


FLOORS = (
    Floor(SCORING, "ratio", 12.0),
    Floor(SCORING, "floor_share", 0.7),
    Floor(UPDATE, "ratio", 5.0),
    Floor(UPDATE, "memory_share", 0.4, at_most=True),
    Floor(STEP, "ratio", 6.0),
)
