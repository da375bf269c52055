"""Where a training run stands, by its run folder."""

import hashlib
import json
from pathlib import Path

from configs.servers import PATIENCE
from models.naming import WEIGHTS_FILE, adapter_folder
from train.checkpoints.checkpoint import CHECKPOINTS, checkpoints_in, find_checkpoint
from train.config import Config
from train.tracking.metrics import METRICS_FILE

WARM_START = "warm_start"
"""The folder of the adapter that the warm start has left, below the run folder."""

PREDICTOR = "predictor"
"""The folder of the predictor's adapter that its warm start has left, below the run folder."""

TRAINED_PREDICTOR = "trained_predictor"
"""The folder of the predictor's adapter that has learned beside the compressor, below the run folder."""

WARM_START_STATE, PREDICTOR_STATE = f"{WARM_START}.state", f"{PREDICTOR}.state"
"""The folders of warm starts that are not finished, below the run folder: see `train.warm_start.fine_tuning`."""

STARTED = (WARM_START, WARM_START_STATE, PREDICTOR, PREDICTOR_STATE)
"""What warm starts leave, the last of them first."""

FREE = {"tracking": True, "train": {"save_every", "keep_checkpoints", "warm_start_store"}, "predictor": set(PATIENCE)}
"""Keys that may change before a run goes on: none of its figures depends on them."""


def identity(config: Config) -> str:
    """All of a configuration that must not change until the run ends, and the weights of the adapters it starts from.

    Raises:
        OSError: these weights cannot be read.
    """
    keys = config.model_dump(mode="json", exclude=FREE)
    if config.watch is None:
        # A run that was begun before the key existed is the run that it was.
        del keys["watch"]
    # Under the same name another adapter may lie there by the next start.
    for name, adapter in (("starting", config.compressor.adapter), ("predictor", config.predictor.adapter)):
        if adapter is not None:
            weights = adapter_folder(adapter) / WEIGHTS_FILE
            keys[f"{name}_weights"] = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    return json.dumps(keys, sort_keys=True)


def holds_work(folder: Path) -> bool:
    """Whether anything was computed in a run folder: until then it is free for another configuration."""
    results = ("results.json", METRICS_FILE)
    return (
        any((folder / name).exists() for name in results)
        or any((folder / name).exists() for name in STARTED)
        or any(path.stat().st_size for path in folder.glob("records/*.jsonl"))
        or any(checkpoints_in(folder / CHECKPOINTS))
    )


def stand(folder: Path) -> str:
    """What the same command goes on from, in words."""
    newest = find_checkpoint(folder).newest
    found = [str(folder / name) for name in STARTED if (folder / name).is_dir()]
    return str(newest.path) if newest else next(iter(found), "the start")
