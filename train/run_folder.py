"""The run folder of a training run: opened by its configuration, and dropped where that is asked for."""

import shutil
from pathlib import Path

from accelerate import PartialState

from configs.command import is_main, make_run_folder
from configs.tree import ConfigError, to_yaml
from data.writing import write_text
from train.config import Config

CONFIG_FILE = "config.yaml"
"""The resolved configuration: what a resumed run has to agree with, and the mark of a run folder."""


def open_run_folder(config: Config, fresh: bool) -> Path:
    """The folder of the run, with its configuration in it; every process of the run calls this.

    Args:
        config: names the folder, and is what it must hold.
        fresh: drop what the folder holds.

    Raises:
        ConfigError: the folder holds a run of another configuration, or with ``fresh`` something that is no run.
    """
    folder, everyone = config.folder, PartialState()
    make_run_folder(folder)
    if fresh:
        check_droppable(folder)
        everyone.wait_for_everyone()
        if is_main() and folder.exists():
            shutil.rmtree(folder)
    # Every process checks the same folder: none before it is dropped, and none after its configuration is written.
    everyone.wait_for_everyone()
    check_configuration(config, folder)
    everyone.wait_for_everyone()
    make_run_folder(folder)
    if is_main():
        write_text(folder / CONFIG_FILE, to_yaml(config))
    return folder


def check_configuration(config: Config, folder: Path) -> None:
    """Refuse a folder that holds a run of another configuration.

    Raises:
        ConfigError: it does.
    """
    resolved = folder / CONFIG_FILE
    if resolved.exists() and resolved.read_text(encoding="utf-8") != to_yaml(config):
        raise ConfigError(
            f"run_folder = {str(folder)!r}: holds a run of another configuration; "
            "choose another name=..., or --fresh to drop it"
        )


def check_droppable(folder: Path) -> None:
    """Refuse to drop a folder that does not look like a run's.

    Raises:
        ConfigError: the folder holds files but no configuration of a run.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"run_folder = {str(folder)!r}: has no config.yaml of a run, so --fresh does not drop it")
