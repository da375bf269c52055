"""Counts of a server in the text format of Prometheus."""

import threading
from collections import defaultdict

from models.serve.backend import Written

SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper ends of the buckets of durations: thirds of decades, from a small model's message to the longest wait."""

HELP = {
    "requests_total": "Requests answered, by path and status.",
    "messages_total": "Messages written.",
    "read_tokens_total": "Tokens of prompts read.",
    "written_tokens_total": "Tokens of messages written, end tokens included.",
    "truncated_documents_total": "Documents that lost their middle.",
    "truncated_tokens_total": "Tokens that documents lost.",
    "budget_ends_total": "Messages that the budget cut off.",
    "abandoned_total": "Requests whose client went away.",
    "overdue_total": "Requests that took longer than they may.",
}
"""Counters, and what they count."""


class Metrics:
    """Counters and one histogram; any thread may add to them."""

    def __init__(self) -> None:
        """All is zero."""
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._buckets = [0] * (len(SECONDS) + 1)
        self._seconds = 0.0

    def count(self, name: str, number: float = 1, **labels: str) -> None:
        """Add to a counter of `HELP`; labels come from short lists, never from a request's text."""
        written = ",".join(f'{key}="{value}"' for key, value in labels.items())
        with self._lock:
            self._counts[name, f"{{{written}}}" if written else ""] += number

    def wrote(self, written: Written, seconds: float) -> None:
        """Count what one request wrote, and how long that took without the wait before."""
        self.count("messages_total", len(written.choices))
        self.count("read_tokens_total", written.read_tokens)
        self.count("written_tokens_total", sum(choice.tokens for choice in written.choices))
        self.count("budget_ends_total", sum(not choice.ended for choice in written.choices))
        self.count("truncated_documents_total", bool(written.truncated_tokens))
        self.count("truncated_tokens_total", written.truncated_tokens or 0)
        with self._lock:
            self._buckets[sum(seconds > end for end in SECONDS)] += 1
            self._seconds += seconds

    def page(self, gauges: dict[str, float]) -> str:
        """All of it, and gauges of this moment, in the text format."""
        with self._lock:
            counts, buckets, seconds = dict(self._counts), list(self._buckets), self._seconds
        lines = []
        for name, meaning in HELP.items():
            lines += [f"# HELP shorthand_{name} {meaning}", f"# TYPE shorthand_{name} counter"]
            found = [(labels, value) for (counted, labels), value in counts.items() if counted == name]
            # A counter with labels has no series before its first count.
            zero = [] if name == "requests_total" else [("", 0.0)]
            lines += [f"shorthand_{name}{labels} {value:.15g}" for labels, value in found or zero]
        lines += ["# HELP shorthand_seconds Seconds of work for one request.", "# TYPE shorthand_seconds histogram"]
        total = 0
        for end, number in zip([*map(str, SECONDS), "+Inf"], buckets, strict=True):
            total += number
            lines.append(f'shorthand_seconds_bucket{{le="{end}"}} {total}')
        lines += [f"shorthand_seconds_sum {seconds:.6f}", f"shorthand_seconds_count {total}"]
        for name, value in gauges.items():
            lines += [f"# TYPE shorthand_{name} gauge", f"shorthand_{name} {value:.15g}"]
        return "\n".join(lines) + "\n"
