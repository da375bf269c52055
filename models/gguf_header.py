"""The header of a GGUF file: what a configuration is checked with before its weights are read, which takes long.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The standard library is all that is imported, so
that a configuration can be refused before any heavy library is loaded.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import one_line, os_error
from models.naming import ModelError

_MAGIC = b"GGUF"

_VERSIONS = (2, 3)
"""Versions of the format that are read; the first was in use for two months of 2023."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of metadata by their numbers, as `struct` writes them."""

_STRING, _ARRAY = 8, 9

_NEEDED = ("context_length", "embedding_length", "block_count", "attention.head_count")
"""What every model's header gives; where it does not, transformers would take the sizes of another model."""

_MOST_DIMENSIONS = 8
"""More than any tensor of a GGUF file has, which is 4."""


@dataclass(frozen=True)
class GgufHeader:
    """What stands in front of the weights.

    Attributes:
        metadata: single values by key; of an array its length.
        tensors: numbers of the tensors' types in ggml, by the tensors' names.
    """

    metadata: dict[str, Any]
    tensors: dict[str, int]

    @property
    def architecture(self) -> str:
        """Name of the architecture in llama.cpp."""
        return str(self.metadata["general.architecture"])

    @property
    def window(self) -> int | None:
        """The most tokens that the model was built to read; None where the file does not say."""
        window = self.metadata.get(f"{self.architecture}.context_length")
        return window if isinstance(window, int) else None


def read_header(file: Path, subject: str) -> GgufHeader:
    """The header of a file, which is refused where it is no GGUF file, cut off, or holds no whole model.

    Args:
        file: the GGUF file.
        subject: how a refusal begins.

    Raises:
        ModelError: naming what is wrong.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise ModelError(f"{subject}: is no GGUF file, whatever its name says")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                header = _Reader(content, len(_MAGIC)).header()
    except OSError as error:
        raise ModelError(f"{subject}: cannot be read: {os_error(error)}") from error
    except _DamageError as error:
        raise ModelError(f"{subject}: a damaged GGUF file: {error}") from error
    _check_model(header, subject)
    return header


def _check_model(header: GgufHeader, subject: str) -> None:
    """Refuse a file that is whole, and of which no model that computes rightly can be made.

    Raises:
        ModelError: naming why.
    """
    if not isinstance(header.metadata.get("general.architecture"), str):
        raise ModelError(f"{subject}: does not name its general.architecture, so it is no language model")
    if lacking := [key for key in _NEEDED if f"{header.architecture}.{key}" not in header.metadata]:
        raise ModelError(f"{subject}: does not give {header.architecture}.{lacking[0]}, so it is no language model")
    parts = header.metadata.get("split.count", 1)
    if parts != 1:
        raise ModelError(f"{subject}: is one of {parts} parts of a model; join them with llama-gguf-split --merge")
    # transformers reads neither, and computes other frequencies than the model was trained with.
    scaling = header.metadata.get(f"{header.architecture}.rope.scaling.type", "none")
    if scaling != "none" or any(name.startswith("rope_") for name in header.tensors):
        raise ModelError(
            f"{subject}: scales its rotary frequencies, which is not read from GGUF files; use the model's safetensors"
        )


class _DamageError(Exception):
    """A header that does not keep to the format."""


class _Reader:
    """Reads values one after the other; whatever leads beyond the end of the file is damage."""

    def __init__(self, content: mmap.mmap, position: int) -> None:
        self.content = content
        self.position = position

    def header(self) -> GgufHeader:
        version, tensor_count, entry_count = self._numbers("IQQ")
        if version not in _VERSIONS:
            raise _DamageError(f"its version is {version}, and {' and '.join(map(str, _VERSIONS))} are read")
        metadata: dict[str, Any] = {}
        for _ in range(entry_count):
            key = self._text()
            metadata[key] = self._value(self._numbers("I")[0])
        tensors: dict[str, int] = {}
        last = 0
        for _ in range(tensor_count):
            name = self._text()
            (dimensions,) = self._numbers("I")
            if dimensions > _MOST_DIMENSIONS:
                raise _DamageError(f"tensor {one_line(repr(name), 60)} has {dimensions} dimensions")
            self._skip(8 * dimensions)
            tensors[name], offset = self._numbers("IQ")
            last = max(last, offset)
        if self.position + last >= len(self.content):
            raise _DamageError(f"it ends before its weights do, at {len(self.content):,} bytes")
        return GgufHeader(metadata, tensors)

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._numbers(_SCALARS[kind])[0]
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise _DamageError(f"it holds a value of type {kind}, which there is not")
        element, count = self._numbers("IQ")
        if element in _SCALARS:
            self._skip(count * struct.calcsize(f"<{_SCALARS[element]}"))
        elif element == _STRING:
            for _ in range(count):
                self._skip(self._numbers("Q")[0])
        else:
            raise _DamageError(f"it holds an array of type {element}, which is not read")
        return count

    def _text(self) -> str:
        (length,) = self._numbers("Q")
        begin = self.position
        self._skip(length)
        try:
            return self.content[begin : self.position].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _DamageError("a name in it is no UTF-8") from error

    def _numbers(self, types: str) -> tuple[Any, ...]:
        begin = self.position
        self._skip(struct.calcsize(f"<{types}"))
        return struct.unpack_from(f"<{types}", self.content, begin)

    def _skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self.content):
            raise _DamageError(f"it ends within its header, at {len(self.content):,} bytes")
