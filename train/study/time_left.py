"""How long the rest of a study takes, by what its finished members took."""

import json
import statistics
from collections.abc import Sequence

from train.study.members import Member
from train.study.stand import Stand

Kind = tuple[str | None, bool]
"""Members that take about as long: of one set, or trainings; of what training starts from, or of what it leaves."""


class Times:
    """What members took, in seconds, by their kind."""

    def __init__(self, members: Sequence[Member], stand: Stand) -> None:
        """Read what the finished ones took."""
        self.seconds: dict[Kind, list[float]] = {}
        for member in members:
            if not stand.is_done(member):
                continue
            if member.set_name is not None:
                self.add(member, float(stand.figures[member.name].made["seconds"]))
            else:
                results = json.loads((member.folder / "results.json").read_text(encoding="utf-8"))
                self.add(member, sum(results["meta"]["seconds"].values()))

    def add(self, member: Member, seconds: float) -> None:
        """Note what a member took."""
        self.seconds.setdefault(_kind(member), []).append(seconds)

    def left(self, members: Sequence[Member], running: Sequence[tuple[Member, float]], jobs: int) -> str:
        """What is left, in words.

        Args:
            members: that have not been started.
            running: with the seconds that each has taken so far.
            jobs: how many run at once.
        """
        expected = [self._expected(member) for member in members]
        expected += [
            None if (whole := self._expected(member)) is None else max(0.0, whole - so_far)
            for member, so_far in running
        ]
        known = [seconds for seconds in expected if seconds is not None]
        if not known:
            return "time left not known yet" if expected else "nothing left"
        more = "" if len(known) == len(expected) else f", beside {len(expected) - len(known)} of unknown time"
        return f"about {duration(sum(known) / jobs)} left{more}"

    def _expected(self, member: Member) -> float | None:
        """The mean of its kind; of other evaluations where no such set was evaluated yet."""
        own = self.seconds.get(_kind(member))
        if own is None and member.set_name is not None:
            own = [value for kind, values in self.seconds.items() for value in values if _is_like(kind, member)]
        return statistics.fmean(own) if own else None


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _kind(member: Member) -> Kind:
    return member.set_name, member.starts


def _is_like(kind: Kind, member: Member) -> bool:
    return kind[0] is not None and kind[1] == member.starts
