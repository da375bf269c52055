"""DeepSpeed's checkpoint files, read as data: it would unpickle them itself, and run what is planted in them."""

from typing import Any

import torch


def read_as_data() -> None:
    """Have DeepSpeed load its files with torch's safe loader, which builds tensors, numbers and three of its classes.

    DeepSpeed has no setting for it: `TorchCheckpointEngine.load` says ``weights_only=False``.
    """
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    TorchCheckpointEngine.load = _load  # type: ignore[method-assign]


def _load(engine: Any, path: str, map_location: Any = None) -> Any:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
        return torch.load(path, map_location=map_location, weights_only=True)
