"""The adapter that was best on held-out questions so far: a copy in memory, which every checkpoint has a copy of.

A resumed run has the one of the checkpoint that it goes on from, and finds later ones again as it trains.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.adapter_switch import adapter_parameters, belongs_to
from models.adapters import DEFAULT
from models.fingerprint import parameter_hash
from train.models import Models

FILE = "kept_adapter.safetensors"
"""The file of the copy in a checkpoint; its step stands in its metadata."""


class KeptAdapter:
    """The parameters that training changes, and the copy that is kept of them; the same in every process.

    Attributes:
        step: the step after which the copy was made; None as long as there is none.
    """

    def __init__(self, models: Models, predictor_learns: bool) -> None:
        """Keep nothing so far.

        Args:
            models: hold the compressor's adapter.
            predictor_learns: whether the predictor's adapter is trained as well, and kept with it.
        """
        self.adapters: list[tuple[nn.Module, str]] = [(models.adapted, DEFAULT)]
        if predictor_learns and (predictor := models.adapted_predictor) is not None:
            self.adapters.append((predictor.model, predictor.adapter))
        self.step: int | None = None
        self._copy: dict[str, Tensor] = {}

    @property
    def hash(self) -> str:
        """A hash of the adapters as they are now."""
        return " ".join(
            parameter_hash(model, lambda path, _, name=name: belongs_to(path, name)) for model, name in self.adapters
        )

    def take(self, step: int) -> None:
        """Keep the adapters as they are now, after a step, in the place of what was kept."""
        self.step = step
        self._copy = {name: parameter.detach().to("cpu", copy=True) for name, parameter in self._parameters().items()}

    def put_back(self) -> None:
        """Let the adapters be those that are kept; nothing where none are."""
        parameters = self._parameters()
        with torch.no_grad():
            for name, tensor in self._copy.items():
                parameters[name].copy_(tensor)

    def save(self, checkpoint: Path) -> None:
        """Write the copy into the folder of a checkpoint; nothing where there is none.

        Raises:
            OSError: it cannot be written.
        """
        if self.step is not None:
            tensors = {name: tensor.contiguous() for name, tensor in self._copy.items()}
            save_file(tensors, checkpoint / FILE, metadata={"step": str(self.step)})

    def load(self, checkpoint: Path) -> None:
        """Have what a checkpoint holds that `save` has written.

        Raises:
            OSError: it cannot be read.
        """
        file = checkpoint / FILE
        if not file.exists():
            # Nothing had been measured that an adapter could be kept by: the checkpoint is known to be whole.
            self.step, self._copy = None, {}
            return
        with safe_open(file, framework="pt") as opened:
            self.step = int((opened.metadata() or {})["step"])
        self._copy = load_file(file)

    def _parameters(self) -> Mapping[str, nn.Parameter]:
        return {
            f"{adapter}.{number}": parameter
            for adapter, (model, name) in enumerate(self.adapters)
            for number, parameter in enumerate(adapter_parameters(model, name))
        }
