"""What memory a pair on one base needs beside one model alone, and beside a pair of two models: ``--pair RECIPE``.

Each of the three is loaded as a run loads it, in a process of its own. Parameters are counted by the storage that holds
them, so that a base which two adapters share counts once.
"""

import ctypes
import gc
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from configs.build import device, instructions
from data.errors import InputError
from data.writing import write_text
from models.compressor import Compressor
from models.loading import load_model, quiet_libraries, torch_type
from models.predictor import LocalPredictor, Predictor, Query
from train.benchmark.figures import aligned
from train.benchmark.measure import status_megabytes
from train.config import Config, load_config
from train.models import load_models

Kind = Literal["one model", "pair, one base", "pair, two models"]

KINDS: tuple[Kind, ...] = ("one model", "pair, one base", "pair, two models")
"""What is compared: the base alone, which reads and answers as it is; the pair on that base; the pair on two copies."""

CONTEXT = "The harbour office opens at seven. A berth for one night is 24 euros, water included. " * 8
QUESTION = "How much is a berth for one night?"
"""What one message is written about and one answer given to, so that what is needed in use is there."""


@dataclass(frozen=True)
class Held:
    """What one of the three holds, in megabytes of 10^6 bytes.

    Attributes:
        kind: which of the three.
        parameters: the storage of all parameters and buffers, each once.
        resident: what the process holds after a message and an answer, above what it held before the models were
            loaded; None where the system does not say.
    """

    kind: Kind
    parameters: float
    resident: float | None


def run(out: Path, recipe: str, overrides: Sequence[str]) -> None:
    """Measure, print, and write ``pair.json`` into ``out``.

    Args:
        out: the folder of what is written.
        recipe: a training's; its predictor is put on the compressor's model.
        overrides: keys of the recipe that are changed.

    Raises:
        InputError: the recipe is none of such a pair, or its models cannot be loaded.
    """
    if device() != "cpu":
        raise InputError("--pair: measures the memory of a process, and there is a GPU; hide it: CUDA_VISIBLE_DEVICES=")
    config = pair_config("pair, one base", recipe, overrides)
    # A process of its own for each: what another one has left would count, or would be used again.
    found: list[Held] = []
    for kind in KINDS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found.append(process.submit(held, kind, recipe, list(overrides)).result())
    dtype = str(torch_type(config.compressor.dtype, "cpu")).removeprefix("torch.")
    print(f"{config.compressor.model}, {dtype}", table(found), sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    written = {"model": config.compressor.model, "dtype": dtype, "torch": torch.__version__}
    figures = [asdict(one) for one in found]
    write_text(out / "pair.json", json.dumps(written | {"held": figures}, indent=1) + "\n")


def pair_config(kind: Kind, recipe: str, overrides: Sequence[str]) -> Config:
    """The recipe with its predictor on the compressor's base, shared or in a copy of its own."""
    config = load_config(recipe, overrides)
    same = {"model": config.compressor.model, "dtype": config.compressor.dtype}
    more = [f"predictor.{key}={value}" for key, value in same.items()]
    return load_config(recipe, [*overrides, *more, f"predictor.shared_base={str(kind == 'pair, one base').lower()}"])


def held(kind: Kind, recipe: str, overrides: Sequence[str]) -> Held:
    """What one of the three holds, measured in this process: for one that does nothing else.

    Raises:
        InputError: as `run`.
    """
    quiet_libraries()
    config = pair_config(kind, recipe, overrides)
    before = resident_megabytes()
    compressor, predictor, holders = load(kind, config)
    message = compressor.write([CONTEXT], [QUESTION])[0]
    predictor.answer([Query(message.text, QUESTION)])
    after = resident_megabytes()
    resident = None if before is None or after is None else after - before
    return Held(kind, storage_bytes(holders) / 1e6, resident)


def load(kind: Kind, config: Config) -> tuple[Compressor, Predictor, list[nn.Module]]:
    """Who writes, who answers, and the modules that hold all parameters of the two."""
    if kind != "one model":
        models = load_models(config)
        own = [models.predictor_model, models.adapted_predictor and models.adapted_predictor.model]
        return models.compressor, models.channel.predictor, [models.adapted, *(one for one in own if one is not None)]
    plain, tokenizer = load_model(config.compressor.model, config.compressor.dtype, device())
    instruction, _ = instructions(config)
    most = config.compressor.max_context_tokens
    compressor = Compressor(plain, tokenizer, config.compressor.budget_tokens, most, instruction)
    return compressor, LocalPredictor(plain, tokenizer, config.predictor.max_answer_tokens), [plain]


def storage_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the storage that parameters and buffers lie in, each counted once however many modules hold it."""
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def resident_megabytes() -> float | None:
    """What this process holds once freed memory has gone back; None where the system does not say."""
    gc.collect()
    if not Path("/proc/self/status").exists():
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return status_megabytes("VmRSS")


def table(found: Sequence[Held]) -> str:
    """The figures as text, each beside that of one model."""
    lines = [["", "parameters, MB", "of one model", "resident, MB", "of one model"]]
    alone = found[0]
    for one in found:
        resident = ["", ""]
        if one.resident is not None and alone.resident is not None:
            resident = [f"{one.resident:.1f}", f"{one.resident / alone.resident:.3f}"]
        lines.append([one.kind, f"{one.parameters:.1f}", f"{one.parameters / alone.parameters:.3f}", *resident])
    return aligned(lines)
