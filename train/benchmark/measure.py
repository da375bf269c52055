"""How a case is timed: alternating calls, medians, peak memory."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from train.benchmark.cases import BOTH_WAYS, HEADLINE, MOST_STOCK_S, Case
from train.benchmark.results import Row
from train.benchmark.ways import WAYS, Subject

OURS_S, STOCK_S = 6.0, 12.0
"""Seconds of timed calls of each way in one case: where the calls asked for would take longer, fewer are made."""

LEAST_OURS = 3
"""The fewest timed calls of our way, where that many are asked for: a median of three withstands one disturbed call."""

STOCK_MATMUL_SHARE = 1 / 3
"""The share of the machine's matmul rate at which the straightforward way is expected to run; on one core it was seen
to reach 25% to 53%."""

MATMUL_TRIES = 10
"""Square products that are timed; the best of them is what the machine can do undisturbed."""


def measure_case(
    subject: Subject, case: Case, repeats: int, matmul_rate: float, settings: str, most_stock_s: float = MOST_STOCK_S
) -> Row:
    """Time both ways in turn, after one call of each, of which the memory counts and the time does not.

    Args:
        subject: the model that is measured.
        case: what is done with it.
        repeats: timed calls of each way, fewer where they take long (``OURS_S``, ``STOCK_S``).
        matmul_rate: the machine's own, operations a second.
        settings: what goes into the row (see `conditions`).
        most_stock_s: see `stock_is_measured`.
    """
    ours, stock = WAYS[case.phase]
    with tokens_processed(subject) as processed:
        warm_s, ours_peak = warm_up(subject, lambda: ours(subject, case))
    calls = max(min(LEAST_OURS, repeats), min(repeats, int(OURS_S / warm_s)))
    stock_calls, stock_peak = 0, None
    if stock_is_measured(subject, case, matmul_rate, most_stock_s):
        warm_s, stock_peak = warm_up(subject, lambda: stock(subject, case))
        stock_calls = max(1, min(repeats, int(STOCK_S / warm_s)))
    ours_s, stock_s = median_seconds(subject, case, calls, stock_calls)
    assert ours_s is not None
    ours_tokens, stock_tokens = case.tokens(once=True), case.tokens(once=False)
    return Row(
        **asdict(case),
        device=subject.device,
        ours_s=ours_s,
        stock_s=stock_s,
        ratio=None if stock_s is None else stock_s / ours_s,
        floor_share=None if stock_s is None else (stock_s / ours_s) / (stock_tokens / ours_tokens),
        ours_calls=calls,
        stock_calls=stock_calls,
        ours_processed=sum(processed),
        ours_tokens=ours_tokens,
        stock_tokens=stock_tokens,
        ours_peak_mb=ours_peak,
        stock_peak_mb=stock_peak,
        matmul_share=2 * case.multiplications(subject.body, subject.projection) / ours_s / matmul_rate,
        settings=settings,
    )


def median_seconds(subject: Subject, case: Case, *calls: int) -> tuple[float | None, ...]:
    """Median seconds of each way, called in turn so that both meet the same disturbances; None without a call.

    Args:
        subject: the model that is measured.
        case: what is done with it.
        calls: the number of calls of our way, and of the straightforward one.
    """
    times: tuple[list[float], ...] = ([], [])
    for call in range(max(calls)):
        for way, limit, seconds in zip(WAYS[case.phase], calls, times, strict=True):
            if call < limit:
                seconds.append(seconds_of(subject, partial(way, subject, case)))
    return tuple(statistics.median(seconds) if seconds else None for seconds in times)


@contextmanager
def tokens_processed(subject: Subject) -> Iterator[list[int]]:
    """Collect the tokens of every pass through the model; with gradients they count three times, as in `Case`."""
    passes: list[int] = []

    def count(_: torch.nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        passes.append(inputs[0].numel() * (3 if torch.is_grad_enabled() else 1))

    handle = subject.base.get_input_embeddings().register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def stock_is_measured(subject: Subject, case: Case, matmul_rate: float, most_s: float) -> bool:
    """Whether a straightforward call is made: where it is expected to end in ``most_s`` seconds.

    Those of the headline are made however long they take, and so are those of the longest and the widest step unless
    less than the usual time is given.
    """
    operations = 2 * (subject.body + subject.projection) * case.tokens(once=False)
    always = BOTH_WAYS if most_s >= MOST_STOCK_S else HEADLINE
    return case in always or operations <= most_s * STOCK_MATMUL_SHARE * matmul_rate


def seconds_of(subject: Subject, way: Callable[[], None]) -> float:
    """Seconds of a call, to the end of what it started on the device."""
    start = time.perf_counter()
    way()
    subject.synchronise()
    return time.perf_counter() - start


def warm_up(subject: Subject, way: Callable[[], None]) -> tuple[float, float | None]:
    """Seconds of a first call, and the peak of the memory it holds above what was held before, in megabytes.

    The memory is None where the system does not say.
    """
    gc.collect()
    if subject.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = seconds_of(subject, way)
        return seconds, (torch.cuda.max_memory_allocated() - before) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return seconds_of(subject, way), None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # 5 sets the high-water mark back to what is resident now (man 5 proc).
    reset.write_text("5")
    before = status_megabytes("VmRSS")
    seconds = seconds_of(subject, way)
    return seconds, status_megabytes("VmHWM") - before


def status_megabytes(field: str) -> float:
    """A memory figure of this process, as Linux gives it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def matmul_flops(device: str) -> float:
    """The machine's own rate of multiply-adds times two a second: the best of several square products."""
    # Large enough to be bound by computation, small enough that ten products take no time to speak of.
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(MATMUL_TRIES):
        start = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
