"""Models from GGUF files, unpacked once into ordinary folders of safetensors, with tokenizer and chat template.

A GGUF file is llama.cpp's: its weights are packed into blocks of few bits, in llama.cpp's order. Whatever reads a
model's folder reads the unpacked one. It lies in ``$SHORTHAND_CACHE``, else in ``$XDG_CACHE_HOME/shorthand`` or
``~/.cache/shorthand``, under the SHA-256 of the file, so that a changed file is another model, and a moved one is not.

Weights are stored in bfloat16 where the file packs them, in half the space of float32. Rounding moves a weight by 0.13%
(root mean square), where packing into 4 bits moved it by several per cent. On 1,024 tokens of English, SmolLM2-135M in
Q4_1 is then 6e-5 nats (Kullback-Leibler) from the unrounded weights, its mean log-probability 0.0004 nats; computing in
bfloat16 costs twenty times as much. Files of plain float32 or float16 are stored as they are.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import cast

import gguf
import torch
from tokenizers import pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from data.errors import one_line, os_error
from data.writing import flush_folder, write_json
from models.gguf_header import GgufHeader, read_header
from models.model_folder import read_config
from models.naming import ModelError

CACHE_VARIABLE = "SHORTHAND_CACHE"
"""The environment variable that names the cache folder."""

MANIFEST = "shorthand-gguf.json"
"""The file that makes an unpacked folder whole: the names and sizes of all others, written last."""

LAYOUT = 1
"""Version of what is unpacked: raised when another is to be made of the same file."""

_SPLIT_AS_GPT2 = ("gpt-2", "phi-2")
"""llama.cpp's names of the ways to split text into words that transformers takes for granted."""

_SPLIT_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Those that split as GPT-2 does once every digit stands by itself, which transformers does not know."""

_F32, _F16 = 0, 1
"""Numbers of the plain types in ggml."""


def unpacked(name: str, file: Path, weights: bool = True) -> Path:
    """The folder of a GGUF file's model, unpacked where it is not yet.

    Processes that start at once wait for the first. What a kill, a full disk or a deletion leaves behind is made anew.

    Args:
        name: what the model is called, for messages.
        file: the GGUF file.
        weights: without them the tokenizer alone, of a model that is nowhere loaded.

    Raises:
        ModelError: the file is damaged or holds no model that can be used, or the cache cannot be written.
    """
    subject = f"model {name!r}"
    header = read_header(file, subject)
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{subject}: cannot be read: {os_error(error)}") from error
    whole, tokenizer = (cache_folder() / "gguf" / key for key in (digest, f"{digest}-tokenizer"))
    folder = whole if weights or _is_whole(whole) else tokenizer
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _held_alone(folder, name):
            if not _is_whole(folder):
                _make(folder, name, file, header, weights)
    except OSError as error:
        raise ModelError(
            f"{subject}: cannot be unpacked into {str(folder)!r}: {error.strerror or one_line(error)}; "
            f"{CACHE_VARIABLE} names another folder"
        ) from error
    return folder


def cache_folder() -> Path:
    """Where Shorthand keeps what it can make anew."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(os.path.expanduser(chosen)).absolute()
    # The specification of the variable has relative paths ignored.
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return Path(shared if os.path.isabs(shared) else os.path.expanduser("~/.cache")) / "shorthand"


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds all that was unpacked, in its full size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest["layout"] == LAYOUT and all(
            (folder / name).stat().st_size == size for name, size in manifest["files"].items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


@contextmanager
def _held_alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a folder of the cache alone; the system lets go of it when the process ends, however it ends."""
    with open(f"{folder}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that unpacks {name!r}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, name: str, file: Path, header: GgufHeader, weights: bool) -> None:
    """Unpack beside the folder, and rename: it is whole or absent."""
    for left in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    what = "the weights" if weights else "the tokenizer"
    print(f"unpacking {what} of {name!r}, once, into {str(folder)!r} ...", file=sys.stderr, flush=True)
    begin = time.monotonic()
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        _write(partial, name, file, header, weights)
        sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        for path in partial.iterdir():
            _flush(path)
        write_json(partial / MANIFEST, {"layout": LAYOUT, "source": file.name, "files": sizes})
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        flush_folder(folder.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(partial)
    print(f"unpacked {what} of {name!r} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write(folder: Path, name: str, file: Path, header: GgufHeader, weights: bool) -> None:
    """Read a file's model by transformers, and write it as an ordinary one.

    Raises:
        ModelError: transformers cannot read it, or not all of it.
        OSError: the folder cannot be written.
    """
    subject = f"model {name!r}"
    with _reading(subject):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    _complete(config, header)
    _split_rightly(tokenizer, header, subject)
    with _writing():
        config.save_pretrained(folder)
        tokenizer.save_pretrained(str(folder))
    _drop_added_tokens(folder / "tokenizer.json", header)
    # Looked at before weights of the sizes in it are made.
    read_config(folder, subject)
    if not weights:
        return
    with _reading(subject):
        state = _read_weights(subject, file, header, config)
        config.dtype = _stored_dtype(header)
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(config)
    with _writing():
        plain.save_pretrained(folder, state_dict=state)


def _read_weights(subject: str, file: Path, header: GgufHeader, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The weights by their names in transformers, unpacked.

    The model that is loaded for it counts as quantised, and is refused to be saved.

    Raises:
        ModelError: the model has weights that the file lacks, or the file has some that the model does not take.
    """
    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype=_stored_dtype(header),
        local_files_only=True,
        output_loading_info=True,
    )
    model, report = cast(tuple[nn.Module, dict[str, set[str]]], loaded)
    state = model.state_dict()
    if report["missing_keys"]:
        raise ModelError(f"{subject}: lacks weights, among them {min(report['missing_keys'])!r}")
    left_out = {str(key) for key in report["unexpected_keys"]}
    if header.architecture not in GGUF_CONFIG_ARCHS:
        # Of these architectures transformers leaves out what has no place, and says nothing of it.
        architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == header.architecture)
        names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
        taken = {names.get_name(name, try_suffixes=(".weight", ".bias")) for name in state}
        left_out |= {name for name in header.tensors.keys() - taken if "_exps" not in name}
    if left_out:
        raise ModelError(
            f"{subject}: {len(left_out)} of its tensors have no place in the model as transformers builds it, among "
            f"them {one_line(repr(min(left_out)), 60)}; use the model's safetensors"
        )
    return state


def _stored_dtype(header: GgufHeader) -> torch.dtype:
    kinds = set(header.tensors.values())
    return torch.bfloat16 if not kinds <= {_F32, _F16} else torch.float16 if _F16 in kinds else torch.float32


def _complete(config: PreTrainedConfig, header: GgufHeader) -> None:
    """Put into a configuration what transformers leaves at the defaults of the model's class."""
    config.name_or_path = ""
    for token, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if f"tokenizer.ggml.{key}_token_id" not in header.metadata:
            setattr(config, f"{token}_token_id", None)
    for switch, tensor in (("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_up.bias")):
        if hasattr(config, switch):
            setattr(config, switch, tensor in header.tensors)


def _split_rightly(tokenizer: PreTrainedTokenizerFast, header: GgufHeader, subject: str) -> None:
    """Have a byte-level tokenizer split text into words as its merges were learned.

    transformers splits as GPT-2 does wherever it does not know the way, which gives other tokens.

    Raises:
        ModelError: neither it nor this function knows the way.
    """
    way = header.metadata.get("tokenizer.ggml.pre")
    if header.metadata.get("tokenizer.ggml.model") != "gpt2" or way in (*_SPLIT_AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        return
    if way not in _SPLIT_DIGITS:
        raise ModelError(
            f"{subject}: how its tokenizer splits text, tokenizer.ggml.pre = {one_line(repr(way), 40)}, is not known "
            "here; use the model's safetensors"
        )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _drop_added_tokens(path: Path, header: GgufHeader) -> None:
    """Drop tokens that transformers' classes add by themselves, and that the model has no embedding of."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    count = header.metadata["tokenizer.ggml.tokens"]
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["id"] < count]
    path.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _reading(subject: str) -> Iterator[None]:
    """Whatever goes wrong in it is the file's fault: it is a stranger's, and libraries raise anything at it."""
    try:
        # The reader shows a progress bar that nothing switches off.
        with redirect_stderr(io.StringIO()):
            yield
    except ModelError:
        raise
    except Exception as error:
        if "ignore_mismatched_sizes" in str(error):
            raise ModelError(f"{subject}: its weights are of other shapes than its header gives") from error
        told = one_line(error if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}")
        raise ModelError(f"{subject}: cannot be unpacked: {told}") from error


@contextmanager
def _writing() -> Iterator[None]:
    """Whatever goes wrong in it is the disk's fault, though libraries have errors of their own for it."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, one_line(error)) from error
