"""The run folder of a training run: prepared, and dropped where it is asked for."""

import os
import shutil
import sys
from pathlib import Path

from accelerate import PartialState

from configs.command import is_main, launched, start_processes
from configs.tree import ConfigError, to_yaml
from train.config import Config
from train.extension_cache import clear_stale_locks, prefer_own_ninja


def prepare(config: Config, folder: Path, fresh: bool) -> None:
    """The run folder and its config; a lock that a killed compilation left is removed, and said.

    Raises:
        ConfigError: the folder holds a run of another configuration, or is none of ours to drop.
    """
    prefer_own_ninja()
    if launched() and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        for lock in clear_stale_locks():
            print(f"removed {lock}, left by a compilation that was killed", file=sys.stderr)
    start_processes()
    if fresh and is_main():
        drop(folder)
    # Every process looks at the same folder: nobody before it is dropped, and nobody after it is written to.
    PartialState().wait_for_everyone()
    resolved = folder / "config.yaml"
    if resolved.exists() and resolved.read_text() != to_yaml(config):
        raise ConfigError(
            f"run_folder = {str(folder)!r}: holds a run of another configuration; "
            "choose another name=..., or --fresh to drop it"
        )
    PartialState().wait_for_everyone()
    folder.mkdir(parents=True, exist_ok=True)
    if is_main():
        resolved.write_text(to_yaml(config))


def drop(folder: Path) -> None:
    """Remove a run folder; what does not look like one is left alone.

    Raises:
        ConfigError: the folder holds files but no config of a run.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.yaml").is_file():
        raise ConfigError(f"run_folder = {str(folder)!r}: has no config.yaml of a run, so --fresh does not drop it")
    shutil.rmtree(folder, ignore_errors=not folder.exists())
