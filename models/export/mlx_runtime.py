"""mlx-lm with an exported model in it, which runs on Apple's chips and, to be compared, on the CPUs of Linux."""

import importlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import one_line
from models.export.mlx import MLX_ADAPTER
from models.model_folder import CONFIG
from models.naming import ADAPTER_CONFIG, ModelError


class Mlx:
    """A model, and an adapter on it, as mlx-lm loads them from their folders; nothing is asked of the network.

    Args:
        model: the folder of a model, such as `models.export.mlx.write_mlx_model` writes.
        adapter: the folder of an adapter in mlx-lm's format, see `models.export.mlx.write_mlx_adapter`.

    Attributes:
        name: MLX, with the versions of its packages.
        tokenizer: the model's, as mlx-lm loads it.

    Raises:
        ModelError: MLX is not installed, there is no such folder, or MLX cannot load what is in it.
    """

    def __init__(self, model: Path, adapter: Path | None = None) -> None:
        # mlx-lm takes the name of a folder that is not there for one on the hub.
        for folder, files in ((model, (CONFIG,)), (adapter, (ADAPTER_CONFIG, MLX_ADAPTER))):
            if missing := [file for file in files if folder is not None and not (folder / file).is_file()]:
                raise ModelError(f"MLX: {str(folder)!r} is no folder with {missing[0]}")
        mlx_lm, self._mlx, self._generate, self._cache = require_mlx()
        self.name = f"MLX (mlx {metadata.version('mlx')}, mlx-lm {metadata.version('mlx-lm')})"
        path, local = None if adapter is None else str(adapter), {"local_files_only": True}
        try:
            loaded = mlx_lm.load(str(model), tokenizer_config=local, adapter_path=path)
        except Exception as error:  # the files are a stranger's, and MLX raises anything at what it does not expect
            what = f"{str(model)!r}" + (f" with adapter {str(adapter)!r}" if adapter else "")
            raise ModelError(f"MLX cannot load {what}: {one_line(error)}") from error
        self._model: Any = loaded[0]
        self.tokenizer: Any = loaded[1]

    def greedy(self, prompt_ids: Sequence[int], count: int, end_token_id: int | None = None) -> list[int]:
        """See `models.export.runtime.Runtime`."""
        written: list[int] = []
        for token, _ in self._generate.generate_step(self._mlx.array(list(prompt_ids)), self._model, max_tokens=count):
            written.append(int(token))
            if written[-1] == end_token_id:
                break
        return written

    def next_log_probs(self, prompt_ids: Sequence[int]) -> Float[Tensor, " vocabulary"]:
        """log p of every token after a prompt, nats, float32."""
        mlx, cache = self._mlx, self._cache.make_prompt_cache(self._model)
        *before, last = prompt_ids
        if before:
            # What nobody asks for is not computed: the logits of all but the last token.
            self._model(mlx.array([before]), cache=cache)
            mlx.eval([layer.state for layer in cache])
        logits = self._model(mlx.array([[last]]), cache=cache)[0, -1].astype(mlx.float32)
        return torch.from_numpy(np.array(logits - mlx.logsumexp(logits)))

    def close(self) -> None:
        """Give back its memory."""
        self._model = None
        self._mlx.clear_cache()


def require_mlx() -> tuple[Any, Any, Any, Any]:
    """The modules of MLX that run a model: mlx-lm, MLX itself, and mlx-lm's of writing and of what is kept for it.

    Raises:
        ModelError: MLX is not installed.
    """
    return (
        _imported("mlx_lm"),
        _imported("mlx.core"),
        _imported("mlx_lm.generate"),
        _imported("mlx_lm.models.cache"),
    )


def _imported(module: str) -> Any:
    """A module of MLX, which is imported once it is needed: few machines have it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"MLX is not installed ({one_line(error)}): pip install 'mlx[cpu]' mlx-lm on Linux, mlx-lm on a Mac"
        ) from error
