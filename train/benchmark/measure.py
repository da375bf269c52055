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

from train.benchmark.cases import BOTH_WAYS, HEADLINE, Case, Row
from train.benchmark.ways import WAYS, Subject

OURS_S, STOCK_S = 6.0, 12.0
"""Timed calls of one way in one case stop short of the asked for number where they would take longer, in seconds."""


LEAST_OURS = 3


SKIPPED_S = 60.0
"""The straightforward way is left out of a case where one call would take longer, those of ``BOTH_WAYS`` excepted."""


STOCK_MATMUL_SHARE = 1 / 3
"""Of the machine's matmul rate, what the straightforward way is expected to reach: measured 25% to 53% on one core."""


def measure(
    subject: Subject, case: Case, repeats: int, matmul_rate: float, settings: str, most_stock_s: float = SKIPPED_S
) -> Row:
    """Both ways in turn, after one call of each that counts for the memory it takes alone.

    Args:
        subject: what is measured.
        case: how.
        repeats: timed calls of each way, fewer where they take long (``OURS_S``, ``STOCK_S``).
        matmul_rate: of the machine, operations a second.
        settings: what goes into the row (see `conditions`).
        most_stock_s: see `stock_is_measured`.
    """
    ours, stock = WAYS[case.phase]
    with tokens_processed(subject) as processed:
        warm_s, ours_peak = warm(subject, lambda: ours(subject, case))
    calls = max(min(LEAST_OURS, repeats), min(repeats, int(OURS_S / warm_s)))
    stock_calls, stock_peak = 0, None
    if stock_is_measured(subject, case, matmul_rate, most_stock_s):
        warm_s, stock_peak = warm(subject, lambda: stock(subject, case))
        stock_calls = max(1, min(repeats, int(STOCK_S / warm_s)))
    ours_s, stock_s = alternating(subject, case, calls, stock_calls)
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


def alternating(subject: Subject, case: Case, *calls: int) -> tuple[float | None, ...]:
    """Median seconds of so many calls of each way, in turn; None of a way that is not called."""
    times: tuple[list[float], ...] = ([], [])
    for call in range(max(calls)):
        for way, wanted, taken in zip(WAYS[case.phase], calls, times, strict=True):
            if call < wanted:
                taken.append(timed(subject, partial(way, subject, case)))
    return tuple(statistics.median(taken) if taken else None for taken in times)


@contextmanager
def tokens_processed(subject: Subject) -> Iterator[list[int]]:
    """Collect the tokens of every pass through the model; with gradients they count three times, as in `Case`."""
    seen: list[int] = []

    def count(_: torch.nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        seen.append(inputs[0].numel() * (3 if torch.is_grad_enabled() else 1))

    handle = subject.base.get_input_embeddings().register_forward_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def stock_is_measured(subject: Subject, case: Case, matmul_rate: float, most_s: float) -> bool:
    """Whether a straightforward call is expected to end in ``most_s`` seconds; those of the headline always are made.

    Those of the longest and the widest step are made as well, unless less than the usual time is given.
    """
    operations = 2 * (subject.body + subject.projection) * case.tokens(once=False)
    always = BOTH_WAYS if most_s >= SKIPPED_S else HEADLINE
    return case in always or operations <= most_s * STOCK_MATMUL_SHARE * matmul_rate


def timed(subject: Subject, way: Callable[[], None]) -> float:
    """Seconds of a call, to the end of what it started on the device."""
    start = time.perf_counter()
    way()
    subject.synchronise()
    return time.perf_counter() - start


def warm(subject: Subject, way: Callable[[], None]) -> tuple[float, float | None]:
    """Seconds of a call and the most memory, in megabytes, it holds above what was held before it.

    The memory is None where the system does not say.
    """
    gc.collect()
    if subject.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = timed(subject, way)
        return seconds, (torch.cuda.max_memory_allocated() - before) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return timed(subject, way), None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # 5 sets the high-water mark back to what is resident now (man 5 proc).
    reset.write_text("5")
    before = _status_megabytes("VmRSS")
    seconds = timed(subject, way)
    return seconds, _status_megabytes("VmHWM") - before


def _status_megabytes(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def matmul_flops(device: str) -> float:
    """The machine's own rate of multiply-adds times two a second: the best of several square products."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
