"""What reading every context once saves: ``make bench``, or ``python -m train.benchmark --out runs/bench``.

Times scoring, the policy update, rollouts and the whole step beside the straightforward way (stock TRL GRPO,
transformers' ``generate``, scoring of full sequences with only the needed logits kept): one process, warm, alternating,
medians. Where there is a CUDA GPU it is measured as well, with a larger model. ``bench.json`` is written after every
case and an interrupted run goes on from it; beside it lie ``growth.json`` and a plot of how the cost grows.
"""

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
import trl
from tqdm import tqdm

from train.benchmark.cases import FLOORS, Case, Results, cases
from train.benchmark.figures import draw, growth, growth_table, table
from train.benchmark.measure import SKIPPED_S, matmul_flops, measure
from train.benchmark.ways import VOCABULARY, Subject, shape


def conditions(device: str, repeats: int) -> str:
    """What a row depends on besides its case: the model, the machine, the packages and the code that is timed."""
    width, layers = shape(device)
    cpu = f"{torch.get_num_threads()} threads of {_processor()}"
    machine = torch.cuda.get_device_name() if device == "cuda" else cpu
    root = Path(__file__).parents[2]
    sources = [
        *sorted(Path(__file__).parent.glob("*.py")),
        root / "train/shared_prefix_trainer.py",
        *sorted((root / "models").rglob("*.py")),
    ]
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    model = f"{layers} layers of {width}, vocabulary {VOCABULARY}"
    packages = f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}"
    return f"{model}; {machine}; {packages}; code {code}; {repeats} repeats"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_all(
    device: str, chosen: Sequence[Case], results: Results, repeats: int, settings: str, most_stock_s: float
) -> None:
    """Measure the cases that ``results`` lack on this device; each is added as soon as it is measured."""
    done = {row.case for row in results.of(device)}
    left = [case for case in chosen if case not in done]
    if not left:
        print(f"{device}: {results.path} holds all {len(chosen)} cases (--fresh measures again)")
        return
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(device, folder)
    rate = matmul_flops(device)
    print(f"{device}: {rate / 1e9:.0f} GFLOP/s in a square product; {settings}")
    with tqdm(total=len(chosen), initial=len(chosen) - len(left), unit="case") as progress:
        for case in left:
            progress.set_description(f"{device} {case}")
            results.add(measure(subject, case, repeats, rate, settings, most_stock_s))
            progress.update()


def show(results: Results, devices: Sequence[str]) -> None:
    """Print the growth; write ``growth.json`` and a plot of each device, ``bench.png`` that of the CPU."""
    grown = growth(results.rows)
    print("\nCost ~ size ** exponent, of seconds and of the tokens counted:", growth_table(grown), sep="\n")
    results.path.with_name("growth.json").write_text(json.dumps([asdict(one) for one in grown], indent=1) + "\n")
    for device in devices:
        draw(results.of(device), results.path.with_name("bench.png" if device == "cpu" else f"bench-{device}.png"))


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


def main() -> None:
    """Parse the command line, measure, print, write ``bench.json``, ``growth.json`` and ``bench.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of what is written")
    parser.add_argument("--repeats", type=int, default=5, help="most timed calls of each way; slow ones get fewer")
    parser.add_argument("--quick", action="store_true", help="the headline cases alone, no growth")
    parser.add_argument("--fresh", action="store_true", help="measure again what bench.json holds already")
    parser.add_argument(
        "--most-stock",
        type=float,
        default=SKIPPED_S,
        metavar="SECONDS",
        help="leave straightforward calls out that would take longer, but for the headline's (0: growth of ours alone)",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a headline figure is under its floor")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {device: conditions(device, arguments.repeats) for device in present_devices()}
    results = Results(arguments.out / "bench.json", list(settings.values()), arguments.fresh)
    for device, setting in settings.items():
        measure_all(device, cases(arguments.quick), results, arguments.repeats, setting, arguments.most_stock)
    print(table(results.rows))
    if not arguments.quick:
        show(results, list(settings))
    held = floors_hold(results, list(settings))
    sys.exit(1 if arguments.check and not held else 0)


def present_devices() -> list[str]:
    """The CPU, and a CUDA GPU where there is one."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


if __name__ == "__main__":
    main()
