"""How near each phase of a training step comes to the machine's own rate, on a real model: ``--model NAME``.

The yardstick is the model's own matrix products and nothing else: every linear layer's weight times as many rows as the
phase reads at once, in the same type, on the same threads. A phase's share is what those products alone would take over
what the phase takes; attention, the adapter, sampling and all else that is not a product with a weight lie in the rest.
Products and phases are timed in turn, so that both meet the same disturbances.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from configs.build import device as default_device
from data.errors import InputError
from data.writing import write_text
from models.fingerprint import is_base
from models.loading import load_model, torch_type
from models.shared_prefix import generate
from models.shared_prefix.decoding import Decoding
from train.benchmark.cases import Case
from train.benchmark.figures import aligned
from train.benchmark.ways import WAYS, Subject, random_tokens

CONTEXTS, CONTEXT, GROUP, MESSAGE = 2, 640, 8, 32
"""Two contexts of 640 tokens with eight messages of 32 each: a micro batch of a run on paragraphs."""

DECODED_CONTEXTS, NEW_TOKENS = 6, 20
"""What is decoded: 48 rows, eight of each of six contexts, 20 tokens each."""

PROCESSOR = ("cpu_name", "avx2", "avx512_f", "avx512_bf16", "amx_bf16")
"""What is told of the processor, by torch's names: what sets the rate of products."""


@dataclass(frozen=True)
class Figure:
    """What was measured of one phase.

    Attributes:
        phase: prefill, decode, scoring or update.
        tokens: tokens that go through the model.
        seconds: median seconds of a call.
        tokens_per_second: of those tokens.
        matmul_gflops: the machine's rate in the products that the phase is made of, 10^9 operations a second.
        matmul_share: what the products alone take over what the phase takes.
    """

    phase: str
    tokens: int
    seconds: float
    tokens_per_second: float
    matmul_gflops: float
    matmul_share: float


@dataclass(frozen=True)
class Phase:
    """A phase and the products it is made of.

    Attributes:
        name: as in `Figure`.
        call: does it once; returns nothing.
        rows: rows of the products with the weights of the layers.
        passes: how often those products are computed with different rows.
        projected: rows of each product with the vocabulary projection.
        backward: whether the gradient goes back through the same weights.
        less: a part of ``call`` that is timed as well and subtracted.
    """

    name: str
    call: Callable[[], None]
    rows: int
    passes: int
    projected: int
    backward: bool = False
    less: Callable[[], None] | None = None


def run(out: Path, model: str, dtype: str, threads: int, repeats: int, against_stock: bool) -> None:
    """Measure, print, and write ``model.json`` into ``out``.

    Args:
        out: the folder of what is written.
        model: as `load_model` takes it.
        dtype: a floating-point type of torch by name, or ``auto``.
        threads: threads of torch.
        repeats: timed calls of each phase.
        against_stock: whether a step is timed beside stock TRL's as well, which takes minutes.

    Raises:
        InputError: there is a GPU, on which this benchmark says nothing.
        ModelError: the model cannot be loaded.
    """
    if default_device() != "cpu":
        raise InputError("--model: measures a CPU, and there is a GPU; hide it with CUDA_VISIBLE_DEVICES=")
    torch.set_num_threads(threads)
    kind = torch_type(dtype, "cpu")
    base, _ = load_model(model, kind)
    assert base.generation_config is not None
    base.generation_config.eos_token_id = None
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject("cpu", folder, base)
    subject.model.eval()
    clock = time.process_time if threads == 1 else time.perf_counter
    name = str(kind).removeprefix("torch.")
    print(f"{model}, {name}, {threads} thread{'s' * (threads > 1)}, {clock.__name__}", flush=True)
    figures = [measure(subject, phase, repeats, clock) for phase in phases(subject)]
    print(table(figures))
    step = stock_step(subject, repeats, clock) if against_stock else None
    if step is not None:
        print(f"step of {_step_case()}: {step[0]:.1f} s, stock {step[1]:.1f} s, {step[1] / step[0]:.1f}x")
    found = {
        "model": model,
        "dtype": name,
        "threads": threads,
        "clock": clock.__name__,
        "torch": torch.__version__,
        "processor": {key: torch.cpu.get_capabilities().get(key) for key in PROCESSOR},
        "phases": [asdict(figure) for figure in figures],
        "step_s": None if step is None else {"ours": step[0], "stock": step[1]},
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "model.json", json.dumps(found, indent=1) + "\n")


def phases(subject: Subject) -> list[Phase]:
    """The phases of a training step, at the sizes above."""
    scoring, update = (Case(name, CONTEXT, MESSAGE, GROUP, CONTEXTS) for name in ("scoring", "update"))
    contexts, _ = random_tokens(scoring, subject.vocabulary)
    many, _ = random_tokens(Case("rollout", CONTEXT, MESSAGE, GROUP, DECODED_CONTEXTS), subject.vocabulary)
    read = CONTEXTS * CONTEXT
    written = CONTEXTS * GROUP * MESSAGE

    @torch.no_grad()
    def prefill() -> None:
        Decoding(subject.base, contexts.tolist(), 1)

    def decode(tokens: int) -> None:
        seeds = list(range(DECODED_CONTEXTS))
        generate(subject.model, many.tolist(), tokens, -1, GROUP, 1.0, seeds)

    rows = DECODED_CONTEXTS * GROUP
    first = partial(decode, 1)
    return [
        Phase("prefill", prefill, read, 1, 0),
        Phase("decode", partial(decode, NEW_TOKENS + 1), rows, NEW_TOKENS, rows, less=first),
        # Every message is read under both contexts.
        Phase("scoring", partial(WAYS["scoring"][0], subject, scoring), read + 2 * written, 1, 2 * written),
        Phase("update", partial(WAYS["update"][0], subject, update), read // 2 + written // 2, 2, written // 2, True),
    ]


def measure(subject: Subject, phase: Phase, repeats: int, clock: Callable[[], float]) -> Figure:
    """Time a phase and its products in turn, after one call of each that does not count."""
    products = partial(multiply, subject, phase.rows, phase.projected, phase.backward)
    times: dict[str, list[float]] = {"phase": [], "products": []}
    for _ in range(repeats + 1):
        seconds = seconds_of(phase.call, clock)
        if phase.less is not None:
            seconds -= seconds_of(phase.less, clock)
        times["phase"].append(seconds)
        times["products"].append(phase.passes * seconds_of(products, clock))
    seconds, alone = (statistics.median(times[key][1:]) for key in ("phase", "products"))
    operations = 2 * (1 + phase.backward) * (phase.rows * subject.body + phase.projected * subject.projection)
    tokens = phase.rows * phase.passes
    rate = operations * phase.passes / alone / 1e9
    return Figure(phase.name, tokens, seconds, tokens / seconds, rate, alone / seconds)


@torch.no_grad()
def multiply(subject: Subject, rows: int, projected: int, backward: bool) -> None:
    """Every product of a pass with the weights of linear layers, and where gradients go back, those of that way."""
    head = subject.base.get_output_embeddings()
    for name, module in subject.base.named_modules():
        if not isinstance(module, nn.Linear) or not is_base(f"{name}.weight", cast(nn.Parameter, module.weight)):
            continue
        weight = cast(Tensor, module.weight)
        count = projected if module is head else rows
        if count:
            columns = torch.ones(count, weight.shape[1], dtype=weight.dtype)
            above = columns @ weight.t()
            if backward:
                _ = above @ weight


def seconds_of(call: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of a call.

    With one thread those of the process on the processor, so that other work on the machine does not count.
    """
    start = clock()
    call()
    return clock() - start


def _step_case() -> Case:
    return Case("step", CONTEXT, MESSAGE, GROUP, CONTEXTS)


def stock_step(subject: Subject, repeats: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Median seconds of a whole step in our way and in stock TRL's, in turn, in the same type."""
    ours, stock = WAYS["step"]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, seconds in zip((ours, stock), times, strict=True):
            seconds.append(seconds_of(partial(way, subject, _step_case()), clock))
    return statistics.median(times[0]), statistics.median(times[1])


def table(figures: list[Figure]) -> str:
    """The figures as text."""
    lines = [["phase", "tokens", "seconds", "tokens/s", "products, GFLOP/s", "share"]]
    for figure in figures:
        rates = [f"{figure.tokens_per_second:.0f}", f"{figure.matmul_gflops:.0f}", f"{figure.matmul_share:.0%}"]
        lines.append([figure.phase, f"{figure.tokens:,}", f"{figure.seconds:.2f}", *rates])
    return aligned(lines)
