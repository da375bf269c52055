"""A store of finished warm starts: what one run has made, the others that begin in the very same way take from it.

The variants of a study differ in what they are paid for, and begin alike: fine-tuning anew for each of them would cost
as much as training. A warm start is found by a hash of all that its weights depend on, so that none is taken for
another.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel

from configs.command import say
from configs.run_folder import LOCK
from models.fingerprint import parameter_hash
from train.config import Config


def stored_name(config: Config, model: PeftModel, key: str) -> str:
    """The name of a warm start in a store: thirty-two hexadecimal digits that go with all that it depends on.

    Args:
        config: the run's.
        model: as it is before, the base with the adapter.
        key: the examples and the settings of the fine-tuning.
    """
    device = next(model.parameters()).device.type
    # The scale and the dropout of the adapter are no parameters of the model.
    lora = config.compressor.lora.model_dump_json()
    parts = (parameter_hash(model), lora, key, str(config.seed), str(config.train.max_grad_norm), device)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@contextmanager
def held(store: Path, name: str) -> Iterator[Path]:
    """The folder of a store for a warm start, held until the end of the block: a run that makes the same one waits.

    Args:
        store: is made where it is absent.
        name: of the warm start.

    Raises:
        OSError: the store cannot be written.
    """
    folder = store / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for the run that makes the same warm start, in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
