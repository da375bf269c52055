"""What the benchmark writes down and promises: rows, the file that keeps them, and the floors of the headline."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from data.writing import write_text
from train.benchmark.cases import SCORING, STEP, UPDATE, Case


@dataclass(frozen=True)
class Row:
    """What was measured of one case, as ``bench.json`` keeps it; None is what was not measured.

    Ours is the way that reads every context once, stock the straightforward one, which is left out where a call would
    take too long. The floor is the number of tokens that reading every context once comes to.

    Attributes:
        phase: see `Case`, like the four sizes that follow.
        context: tokens of each context.
        message: tokens of each message.
        group: messages of each context.
        contexts: contexts of a batch.
        device: ``cpu`` or ``cuda``.
        ours_s: median seconds of our call.
        stock_s: median seconds of a straightforward call.
        ratio: ``stock_s / ours_s``.
        floor_share: ``ratio`` over the ratio of the tokens: how much of what the floor allows is gained.
        ours_calls: timed calls of our way.
        stock_calls: timed calls of the straightforward way.
        ours_processed: tokens that were seen to pass through the model in our way.
        ours_tokens: the floor's tokens.
        stock_tokens: the straightforward way's tokens.
        ours_peak_mb: megabytes that our call holds above what was held before; None where the system does not say.
        stock_peak_mb: the same of a straightforward call.
        matmul_share: the rate of the floor's multiplications with parameters in our time, over the machine's own rate.
        settings: all else that the numbers depend on, see `conditions`.
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
        """The case that was measured."""
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
        path: the file.
        rows: what has been measured so far, in the order of measuring.
    """

    def __init__(self, path: Path, settings: Sequence[str], fresh: bool = False) -> None:
        """Take over the rows of an earlier run that were measured under one of ``settings``; none where ``fresh``.

        A file that holds any other row is kept under a name with the time it was written at.
        """
        self.path = path
        self.rows: list[Row] = []
        if not path.exists():
            return
        earlier = json.loads(path.read_text())
        names = {field.name for field in fields(Row)}
        if not fresh:
            self.rows = [Row(**row) for row in earlier if set(row) == names and row["settings"] in settings]
        if dropped := len(earlier) - len(self.rows):
            written = datetime.fromtimestamp(path.stat().st_mtime)
            aside = path.rename(path.with_name(f"{path.stem}.{written:%Y%m%d-%H%M%S}{path.suffix}"))
            why = "set aside by --fresh" if fresh else "of other settings or other code"
            print(f"{path}: {dropped} of {len(earlier)} rows {why}; all of them are kept in {aside.name}")
            self._write()

    def add(self, row: Row) -> None:
        """Add a row, and write the file."""
        self.rows.append(row)
        self._write()

    def of(self, device: str) -> list[Row]:
        """The rows of one device."""
        return [row for row in self.rows if row.device == device]

    def _write(self) -> None:
        write_text(self.path, json.dumps([asdict(row) for row in self.rows], indent=1) + "\n")


@dataclass(frozen=True)
class Floor:
    """What the benchmark promises of one case: a figure of its row is at least, or at most, ``bound``.

    Attributes:
        case: the case.
        measure: an attribute of its `Row`.
        bound: the floor, or the ceiling where ``at_most``.
        at_most: whether the figure has to stay below the bound.
    """

    case: Case
    measure: str
    bound: float
    at_most: bool = False

    def verdict(self, rows: Sequence[Row]) -> tuple[bool | None, str]:
        """Whether the promise holds, and a line that says so.

        A case without a row fails; None where the system does not tell the figure.
        """
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
"""What has to hold on two idle cores; 13.0, 0.78, 7.8, 0.16 and 7.7 were measured there (`docs/benchmark.md`)."""
