"""llama.cpp as a runtime: a GGUF file, with or without a LoRA beside it, through the bindings ``xllamacpp``."""

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import one_line
from models.naming import ModelError


def llama_cpp_bindings() -> Any:
    """The bindings, which are compiled and have no types.

    Raises:
        ModelError: they are not installed, or cannot be imported.
    """
    try:
        import xllamacpp
    except ImportError as error:
        raise ModelError(f"llama.cpp's bindings are not here ({one_line(error)}): pip install xllamacpp") from error
    return xllamacpp


class LlamaCpp:
    """A model in llama.cpp's own server, in this process, asked in token ids; nothing listens beyond loopback.

    Attributes:
        name: what it is, with its version.
    """

    def __init__(self, model: Path, lora: Path | None = None, window: int = 4096, scale: float = 1.0) -> None:
        """Load the files.

        Args:
            model: a GGUF file.
            lora: a GGUF file of an adapter; None for none.
            window: the most tokens of a prompt and its reply.
            scale: what the adapter is multiplied by; 1 is as it was trained.

        Raises:
            ModelError: the bindings are not installed, or llama.cpp refuses a file.
        """
        xllamacpp = llama_cpp_bindings()
        self.name = f"llama.cpp (xllamacpp {metadata.version('xllamacpp')})"
        settings = xllamacpp.CommonParams()
        settings.model.path = str(model)
        if lora is not None:
            settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), scale)]
        settings.port, settings.n_parallel, settings.n_ctx = 0, 1, window
        settings.warmup, settings.verbosity, settings.fit_params = False, -1, False
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
        # Its defaults, half precision for attention and what it keeps, move log-probabilities by a hundredth.
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        try:
            self._server: Any = xllamacpp.Server(settings)
        except Exception as error:  # the bindings raise what llama.cpp throws
            given = [model, *([] if lora is None else [lora])]
            names = " with ".join(repr(path.name) for path in given)
            raise ModelError(f"llama.cpp does not load {names}: {one_line(error)}") from error

    def greedy(self, prompt_ids: Sequence[int], count: int, end_token_id: int | None = None) -> list[int]:
        """See `models.export.runtime.Runtime`."""
        ids, last = list(prompt_ids), len(prompt_ids) + count
        while len(ids) < last:
            written = [entry["id"] for entry in self._completed(ids, last - len(ids), 1)]
            ids += written
            if len(ids) < last and (not written or written[-1] != end_token_id):
                # An end token stopped it: the most likely one, which is not among those it tells.
                ids.append(int(self.next_log_probs(ids).argmax()))
            if ids[-1] == end_token_id and len(ids) > len(prompt_ids):
                break
        return ids[len(prompt_ids) :]

    def next_log_probs(self, prompt_ids: Sequence[int]) -> Float[Tensor, " vocabulary"]:
        """See `models.export.runtime.Runtime`."""
        most = 1 << 20
        [first, *_] = self._completed(prompt_ids, 1, most)
        told = {entry["id"]: entry["logprob"] for entry in first["top_logprobs"]}
        log_probs = torch.full((max(told) + 1,), -torch.inf)
        log_probs[list(told)] = torch.tensor(list(told.values()), dtype=torch.float32)
        return log_probs

    def tokens(self, text: str, special: bool) -> list[int]:
        """A text as llama.cpp splits it; ``special`` tells whether control tokens in it are recognised."""
        return self._posted("tokenize", content=text, add_special=False, parse_special=special)["tokens"]

    def templated(self, turns: Sequence[dict[str, str]]) -> str:
        """What the file's chat template writes of some turns."""
        return self._posted("apply-template", messages=list(turns))["prompt"]

    def close(self) -> None:
        """Stop the server, which ends with its last reference."""
        self._server = None

    def _posted(self, path: str, **fields: Any) -> dict[str, Any]:
        """A reply of the server, which listens on loopback, to what the bindings have no call for."""
        url = f"{self._server.listening_address}/{path}"
        with urlopen(Request(url, json.dumps(fields).encode(), {"Content-Type": "application/json"})) as reply:
            return json.load(reply)

    def _completed(self, ids: Sequence[int], count: int, n_probs: int) -> list[dict[str, Any]]:
        reply = self._server.handle_completions(
            {
                "prompt": list(ids),
                "n_predict": count,
                "temperature": 0.0,
                "n_probs": n_probs,
                "cache_prompt": False,
                "return_tokens": True,
            }
        )
        if "error" in reply:
            raise ModelError(f"llama.cpp: {one_line(reply['error'])}")
        return reply["choices"][0]["logprobs"]["content"]
