"""Models and tokenizers by name, and one clear line where one cannot be loaded or would have to read too much."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple, cast

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] (the HTTP client's own, which differs between hub versions)
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as transformers_logging

from data.errors import one_line
from models.model_folder import check_weights, read_config
from models.naming import ModelError, gguf_file, model_folder
from models.shared_prefix import require_agreement
from models.shared_prefix.length import length_switch

HUB_TIMEOUT_SECONDS = 10.0
"""How long the hub may take to say whether it has a model: far longer than it needs, far shorter than its own client
retries without a network."""


class _Source(NamedTuple):
    """Where transformers finds a model: a folder or a hub id, and whether the hub must not be asked for it."""

    location: str
    local_only: bool


def load_model(
    name: str,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in evaluation mode and its tokenizer.

    Args:
        name: ``miniature/<member>``, a folder, a GGUF file, which is unpacked at its first use, or a hub id.
        dtype: the name of a torch floating-point type, or ``auto`` for the one that `fastest_dtype` finds.
        device: where the parameters go.
        revision: branch, tag or commit on the hub; None takes the default branch.

    Raises:
        ModelError: no such member, folder or hub model, no way to reach the hub, broken or incomplete weights, or an
            architecture that the engine does not compute rightly.
    """
    source = _resolve(name, revision)
    torch_dtype = torch_type(dtype, device)
    if source.local_only and os.path.isdir(source.location):
        read_config(Path(source.location), f"model {name!r}")
        check_weights(Path(source.location), f"model {name!r}")
    tokenizer = _load_tokenizer(name, source, revision or "main")
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=torch_dtype,
            local_files_only=source.local_only,
            revision=revision or "main",
            use_safetensors=True,
            output_loading_info=True,
        )
    # The files are a stranger's, and libraries raise anything at what they do not expect in them.
    except Exception as error:
        raise ModelError(f"model {name!r} cannot be loaded: {_told(error)}") from error
    model, report = cast(tuple[PreTrainedModel, dict[str, set[str]]], loaded)
    if report["missing_keys"]:
        raise ModelError(f"model {name!r} lacks weights, among them {min(report['missing_keys'])!r}")
    placed = cast(PreTrainedModel, cast(nn.Module, model).to(device).eval())
    _check_loaded(f"model {name!r}", placed, tokenizer)
    require_agreement(placed)
    return placed, tokenizer


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, named as for `load_model`.

    Raises:
        ModelError: there is none, or no way to reach the hub.
    """
    return _load_tokenizer(name, _resolve(name, revision, weights=False), revision or "main")


def _check_loaded(subject: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model that cannot be used, though it was loaded.

    Raises:
        ModelError: a weight is not finite, the vocabulary has no room for a token, or the model cannot read one token.
    """
    for name, weights in cast(nn.Module, model).named_parameters():
        if weights.is_floating_point() and not bool(weights.isfinite().all()):
            raise ModelError(f"{subject}: holds weights that are not finite, in {name!r}")
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    # Some models have control tokens that they never read, such as those of images, beyond their vocabulary.
    beyond = {
        index for index in tokenizer.get_vocab().values() if index >= rows
    } - tokenizer.added_tokens_decoder.keys()
    if beyond:
        raise ModelError(f"{subject}: its tokenizer has a token {max(beyond)}, and its vocabulary ends at {rows - 1}")
    try:
        with torch.no_grad():
            cast(nn.Module, model)(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device))
    except Exception as error:  # see load_model
        raise ModelError(f"{subject}: cannot read a text of two tokens: {_told(error)}") from error


def _told(error: Exception) -> str:
    """A library's error on one line; a bare word such as a missing key's says little without the error's type."""
    if "ignore_mismatched_sizes" in str(error):
        return "its weights are of other shapes than its config.json gives"
    line = one_line(error)
    return line if isinstance(error, OSError | ValueError) else one_line(f"{type(error).__name__}: {line}")


def quiet_libraries() -> None:
    """Switch off what libraries say at every start, whatever is run; their errors are still shown."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|torch|trl")
    warnings.filterwarnings("ignore", message="OMP_NUM_THREADS", category=UserWarning)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _resolve(name: str, revision: str | None = None, weights: bool = True) -> _Source:
    if (file := gguf_file(name)) is not None:
        from models.gguf_cache import unpacked  # imports the reader, which other models do without

        return _Source(str(unpacked(name, file, weights)), True)
    folder = model_folder(name)
    return _resolve_on_hub(name, revision) if folder is None else _Source(str(folder), True)


def _load_tokenizer(name: str, source: _Source, revision: str) -> PreTrainedTokenizerBase:
    """The tokenizer as its files describe it.

    AutoTokenizer goes by the model's type first: it gives any Qwen2 model the pre-tokenizer of Qwen, which splits every
    digit off. A tokenizer saved as a plain fast one says that its ``tokenizer.json`` is all of it.
    """
    options = {"local_files_only": source.local_only, "revision": revision}
    try:
        declared = get_tokenizer_config(source.location, **options).get("tokenizer_class")
        plain = declared in ("TokenizersBackend", "PreTrainedTokenizerFast")
        loader = PreTrainedTokenizerFast if plain else AutoTokenizer
        return loader.from_pretrained(source.location, **options)
    except Exception as error:  # see load_model
        raise ModelError(f"tokenizer of {name!r} cannot be loaded: {_told(error)}") from error


def _resolve_on_hub(name: str, revision: str | None) -> _Source:
    """Ask the hub once, with a time limit: loading without a network would retry every file for half a minute."""
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
        return _Source(name, False)
    except HFValidationError as error:
        raise ModelError(f"model {name!r}: no such folder, and not a well-formed hub id") from error
    except (HTTPError, OSError) as error:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return _Source(name, True)
        raise ModelError(f"model {name!r}: no such folder, not in the local hub cache, and {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why the hub did not name the model."""
    if isinstance(error, GatedRepoError):
        return "on the hub only for accounts that were granted access"
    if isinstance(error, RepositoryNotFoundError):
        return "not on the hub"
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is switched off (HF_HUB_OFFLINE)"
    return f"the hub cannot be reached ({one_line(error)})"


def torch_type(dtype: str | torch.dtype, device: str | torch.device) -> torch.dtype:
    """The floating-point type that a name stands for; ``auto`` is the one the device is fastest in.

    Raises:
        ModelError: no floating-point type has that name.
    """
    if dtype == "auto":
        return fastest_dtype(device)
    value = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype, None)
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return value
    raise ModelError(f"dtype {dtype!r} is not a floating-point type of torch, such as float32 or bfloat16, nor auto")


def fastest_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where a device multiplies matrices of it in hardware, else float32.

    On CPUs those are the instructions AMX and AVX-512 BF16: torch computes bfloat16 without them too, and more slowly
    than float32.
    """
    if torch.device(device).type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        instructions = torch.cpu.get_capabilities()
        fast = bool(instructions.get("amx_bf16") or instructions.get("avx512_bf16"))
        supported = fast and torch.backends.mkldnn.is_available()
    return torch.bfloat16 if supported else torch.float32


def context_window(config: PreTrainedConfig) -> int | None:
    """The most tokens a model reads rightly; None where its config sets no limit.

    That is what it was built for (``max_position_embeddings``), or less where its frequencies change before: see
    `models.shared_prefix.length`.
    """
    limits = (getattr(config.get_text_config(), "max_position_embeddings", None), length_switch(config))
    return min((limit for limit in limits if limit is not None), default=None)


def check_window(config: PreTrainedConfig, tokens: int) -> None:
    """Refuse sequences longer than the model takes.

    Raises:
        ModelError: ``tokens`` (prompt and message together) exceed the window.
    """
    window = context_window(config)
    if window is not None and tokens > window:
        name = config.name_or_path or config.model_type
        raise ModelError(f"model {name!r} takes {window} tokens and was to read {tokens}: lower the context limit")
