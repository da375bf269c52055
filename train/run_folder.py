"""Where a training run stands, by its run folder."""

from pathlib import Path

from train.checkpoint import CHECKPOINTS, checkpoints_in, find_checkpoint
from train.tracking import METRICS_FILE


def holds_work(folder: Path) -> bool:
    """Whether anything was computed in a run folder: until then it is free for another configuration."""
    results = ("results.json", METRICS_FILE)
    return (
        any((folder / name).exists() for name in results)
        or any(path.stat().st_size for path in folder.glob("records/*.jsonl"))
        or any(checkpoints_in(folder / CHECKPOINTS))
    )


def stand(folder: Path) -> str:
    """What the same command goes on from, in words."""
    newest = find_checkpoint(folder).newest
    return str(newest.path) if newest else "the start"
