"""One run of the benchmark: measures the cases that ``bench.json`` lacks, prints them, and checks the floors."""

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import transformers
import trl
from tqdm import tqdm

from data.writing import write_text
from train.benchmark.cases import Case, benchmark_cases
from train.benchmark.figures import draw_growth, growth_of, growth_table, results_table
from train.benchmark.measure import matmul_flops, measure_case
from train.benchmark.results import FLOORS, Results, Row
from train.benchmark.ways import VOCABULARY, Subject, model_size

PROJECT = Path(__file__).parents[2]


def run(out: Path, repeats: int, most_stock_s: float, quick: bool, fresh: bool) -> bool:
    """Measure, print, and write ``bench.json``; unless ``quick``, ``growth.json`` and ``bench.png`` as well.

    Args:
        out: the folder of what is written.
        repeats: maximum timed calls of each way in a case.
        most_stock_s: seconds beyond which a straightforward call is left out (see `stock_is_measured`).
        quick: only the headline cases.
        fresh: measure again what the folder holds already.

    Returns:
        Whether no floor is missed.

    Raises:
        KeyboardInterrupt: with words that say what the next run goes on from.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = {device: conditions(device, repeats) for device in devices()}
    results = Results(out / "bench.json", list(settings.values()), fresh)
    try:
        for device, device_settings in settings.items():
            prepare = partial(prepare_device, device, repeats, device_settings, most_stock_s)
            measure_missing(device, benchmark_cases(quick), results, prepare)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the last case in {results.path}") from None
    print(results_table(results.rows))
    if not quick:
        show_growth(results, list(settings))
    return floors_hold(results, list(settings))


def devices() -> list[str]:
    """The CPU, and a CUDA GPU where there is one."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def conditions(device: str, repeats: int) -> str:
    """What a row depends on besides its case: the model, the machine, the packages and the code that is timed."""
    width, layers = model_size(device)
    cpu = f"{torch.get_num_threads()} threads of {_processor()}"
    machine = torch.cuda.get_device_name() if device == "cuda" else cpu
    model = f"{layers} layers of {width}, vocabulary {VOCABULARY}"
    packages = f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}"
    return f"{model}; {machine}; {packages}; code {code_hash(PROJECT)}; {repeats} repeats"


def code_hash(project: Path) -> str:
    """Twelve hexadecimal digits that change with any file of the code that is timed, however deep its folder."""
    sources = [
        *sorted((project / "train/benchmark").rglob("*.py")),
        project / "train/grpo/shared_prefix_trainer.py",
        *sorted((project / "models").rglob("*.py")),
    ]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def prepare_device(device: str, repeats: int, settings: str, most_stock_s: float) -> Callable[[Case], Row]:
    """Build the model on a device and rate the machine; what is returned measures a case there."""
    # TRL's trainer wants a folder; nothing is written into it.
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(device, folder)
    rate = matmul_flops(device)
    print(f"{device}: {rate / 1e9:.0f} GFLOP/s in a square product; {settings}")
    return lambda case: measure_case(subject, case, repeats, rate, settings, most_stock_s)


def measure_missing(
    device: str, cases: Sequence[Case], results: Results, prepare: Callable[[], Callable[[Case], Row]]
) -> None:
    """Measure the cases that ``results`` lack on this device; each is added as soon as it is measured.

    Args:
        device: ``cpu`` or ``cuda``.
        cases: what the results are to hold.
        results: what is measured already, and what the rows are added to.
        prepare: called once, where a case is missing; gives the function that measures a case.
    """
    measured = {row.case for row in results.of(device)}
    missing = [case for case in cases if case not in measured]
    if not missing:
        print(f"{device}: {results.path} holds all {len(cases)} cases (--fresh measures again)")
        return
    measure = prepare()
    with tqdm(total=len(cases), initial=len(cases) - len(missing), unit="case") as progress:
        for case in missing:
            progress.set_description(f"{device} {case}")
            results.add(measure(case))
            progress.update()


def show_growth(results: Results, devices: Sequence[str]) -> None:
    """Print the growth; write ``growth.json`` and a plot of each device, ``bench.png`` being that of the CPU."""
    growths = growth_of(results.rows)
    print("\nCost ~ size ** exponent, of seconds and of the tokens counted:", growth_table(growths), sep="\n")
    listing = json.dumps([asdict(growth) for growth in growths], indent=1)
    write_text(results.path.with_name("growth.json"), listing + "\n")
    for device in devices:
        picture = "bench.png" if device == "cpu" else f"bench-{device}.png"
        draw_growth(results.of(device), results.path.with_name(picture))


def floors_hold(results: Results, devices: Sequence[str]) -> bool:
    """Print a line for every floor on every device; False where one is missed."""
    print()
    held = True
    for device in devices:
        for floor in FLOORS:
            holds, line = floor.verdict(results.of(device))
            print(f"{line} ({device})")
            held = held and holds is not False
    return held
