"""Records of published data sets: JSON, JSON lines and parquet files, rows of the Hub, and the fields of a record.

A record that is wrong raises a ``DataError`` of one line that names the file and the record.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from data.errors import DataError, one_line
from data.parquet import parquet_records

SUFFIXES = (".json", ".jsonl", ".parquet")

SPLIT_WORDS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Each split, and the words that name it in a request or in a file's name."""

_SHOWN_CHARACTERS = 60
"""Characters of a wrong value in a message: enough to find it, few enough for one line with the file's name."""

_TYPE_NAMES = {
    str: "text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "null",
}

Records = Iterator[tuple[str, Any]]
"""Records, each with its file and its line, row or number there, for messages."""


def local_path(source: str) -> Path:
    """The path that a source names, ``~`` being the user's home; an unknown user's home stays as it is written."""
    return Path(os.path.expanduser(source))


def split_name(task: str, split: str) -> str:
    """The split that a request means: ``dev``, ``val`` and ``valid`` are validation.

    Raises:
        DataError: there is no such split.
    """
    name = next((name for name, words in SPLIT_WORDS.items() if split in words), None)
    if name is None:
        raise DataError(f"{task}: no split {split!r}; there are {', '.join(SPLIT_WORDS)}")
    return name


def local_records(source: Path, split: str, parse_json: Callable[[Any, Path], Records] | None = None) -> Records:
    """The records of a file, whatever the split, or of the split's files in a folder and its sub-folders.

    Args:
        source: a file or a folder.
        split: a key of ``SPLIT_WORDS``; see ``split_files``.
        parse_json: see ``file_records``.

    Raises:
        DataError: there is no such file, none of the split, or one that cannot be read.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    for path in split_files(source, split) if source.is_dir() else [source]:
        yield from file_records(path, parse_json)


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder: those whose name has a word of the split, or else whose folder's name has.

    Raises:
        DataError: there is no such file, or there are several that are not parts of one.
    """
    inside = [path.relative_to(folder) for path in record_files(folder)]
    files = [path for path in inside if split in _splits_named(path)]
    if not files:
        present = ", ".join(map(str, inside[:5])) or "none"
        raise DataError(
            f"{folder}: no .json, .jsonl or .parquet file is named after the split {split!r}; found {present}"
        )
    suffixes = {path.suffix.lower() for path in files}
    if len(files) > 1 and (len(suffixes) > 1 or suffixes == {".json"}):
        raise DataError(f"{folder}: several files of split {split!r}: {', '.join(map(str, files))}; name one of them")
    return [folder / path for path in files]


def record_files(folder: Path) -> list[Path]:
    """Every .json, .jsonl and .parquet file in a folder and its sub-folders, sorted by path, without hidden ones."""
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [folder / path for path in inside if not any(part.startswith(".") for part in path.parts)]


def file_records(path: Path, parse_json: Callable[[Any, Path], Records] | None = None) -> Records:
    """The records of a .json, .jsonl or .parquet file; the last two are read as they are used.

    Args:
        path: the file. A .json file may hold JSON lines as well.
        parse_json: gives the records in the one value of a .json file; None takes a list of records.

    Raises:
        DataError: the file's name ends otherwise, or it is empty, broken, or no UTF-8 text.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: should be a file that ends in {', '.join(SUFFIXES)}, or a folder of them")
    if suffix == ".parquet":
        return parquet_records(path)
    return _line_records(path) if suffix == ".jsonl" else _json_records(path, parse_json or listed_records)


def listed_records(content: Any, path: Path) -> Records:
    """The records of a JSON list.

    Raises:
        DataError: the value is no list.
    """
    if not isinstance(content, list):
        raise DataError(f"{path}: should hold a list of records, it is {shown(content)}")
    yield from ((f"{path}, record {number}", record) for number, record in enumerate(content, start=1))


def json_file(path: Path) -> Any:
    """The one value of a JSON file.

    Raises:
        DataError: the file is empty, broken, no UTF-8 text or cannot be read.
    """
    try:
        return json_value(_file_text(path), str(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: {_broken(error)}") from error


def hub_records(
    task: str,
    dataset: str,
    split: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Records:
    """The rows of a data set on the Hub.

    Args:
        task: the task that is loaded, for messages.
        dataset: owner and name.
        split: the Hub's name of the split.
        name: the Hub's name of the subset; None takes the default.
        revision: the branch; None takes the default.
        streaming: whether rows are read as they are used, instead of downloaded first.

    Raises:
        DataError: the data set cannot be reached or read.
    """
    # Imported here: it takes seconds, which neither --help nor another kind of file should cost.
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    options: dict[str, Any] = {"name": name, "revision": revision, "streaming": streaming}
    try:
        dataset_rows = load_dataset(dataset, split=split, **{key: value for key, value in options.items() if value})
        for number, row in enumerate(dataset_rows, start=1):
            yield f"{dataset} on the Hub, split {split}, row {number}", row
    except (OSError, ValueError, DatasetsError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        branch = f" ({revision})" if revision else ""
        raise DataError(
            f"{task}: cannot get {dataset}{branch} from the Hub ({reason}); name a local file or folder as its source"
        ) from error


def published_records(task: str, source: str | None, dataset: str, subset: str | None = None) -> Records:
    """The records of a data set without splits of its own.

    Args:
        task: the task that is read, for messages.
        source: a .json, .jsonl or .parquet file, or a folder of them; None streams the Hub.
        dataset: owner and name on the Hub.
        subset: the part of the data set; None takes the default.

    Raises:
        DataError: the data set cannot be reached or read, or a folder has no such file.
    """
    if source is None:
        yield from hub_records(task, dataset, "train", name=subset, streaming=True)
        return
    path = local_path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = record_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: has no file that ends in {', '.join(SUFFIXES)}")
    for file in files:
        yield from file_records(file)


def field(record: Any, key: str, types: tuple[type, ...], where: str) -> Any:
    """A field of a record.

    Args:
        record: a record as it was read, an object if it is sound.
        key: the field's name.
        types: the types of JSON that the field may have; true and false are no numbers.
        where: the file and the record, for messages.

    Raises:
        DataError: the record is no object, lacks the field, or has another type there.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: should be an object with the field {key!r}, it is {shown(record)}")
    if key not in record:
        raise DataError(f"{where}: has no field {key!r}; it has {one_line(', '.join(map(str, record))) or 'none'}")
    value = record[key]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join(_TYPE_NAMES[kind] for kind in types)
        raise DataError(f"{where}: {key!r} should be {expected}, it is {shown(value)}")
    return value


def optional(record: Any, key: str, kind: type, where: str) -> Any:
    """An optional field; None where it is null or absent.

    Raises:
        DataError: the record is no object, or has another type there.
    """
    absent = isinstance(record, dict) and key not in record
    return None if absent else field(record, key, (kind, NoneType), where)


def text(record: Any, key: str, where: str) -> str:
    """A text without the white space around it; null, as some records have it, is the empty text.

    Raises:
        DataError: see ``field``; or a lone surrogate, which no tokenizer takes.
    """
    value = field(record, key, (str, NoneType), where) or ""
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{where}: {key!r} holds half of a character (a lone surrogate): {shown(value)}")
    return value.strip()


def required_text(record: Any, key: str, where: str) -> str:
    """A text that is present and not blank, without the white space around it.

    Raises:
        DataError: see ``text``; or the text is blank or null.
    """
    value = text(record, key, where)
    if not value:
        raise DataError(f"{where}: {key!r} should not be empty, it is {shown(record[key])}")
    return value


def texts(record: Any, key: str, where: str) -> list[str]:
    """A list of texts without the blank ones.

    Raises:
        DataError: see ``field`` and ``text``.
    """
    items = {str(number): item for number, item in enumerate(field(record, key, (list,), where), start=1)}
    return [item for number in items if (item := text(items, number, f"{where}, {key}"))]


def rows(record: Any, key: str, where: str) -> list[Any]:
    """A list of objects; the Hub's object of equally long lists is turned into one.

    Raises:
        DataError: the field is neither.
    """
    value = field(record, key, (list, dict), where)
    if isinstance(value, list):
        return value
    lengths = {name: len(column) if isinstance(column, list) else None for name, column in value.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise DataError(f"{where}: the columns of {key!r} should be lists of one length, they have {lengths}")
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def content_id(*parts: str) -> str:
    """An id for what was published without a usable one: 64 bits of the hash of its texts, in hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shown(value: Any) -> str:
    """A wrong value for a message: as JSON on one line, its beginning where it is long."""
    line = json.dumps(value, default=repr)
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."


def _splits_named(path: Path) -> set[str]:
    """The splits that a file's name has a word of, or else those of its folder's name."""
    for name in (path.stem, path.parent.name):
        words = set(re.split(r"[^a-z]+", name.lower()))
        if splits := {split for split, names in SPLIT_WORDS.items() if words.intersection(names)}:
            return splits
    return set()


def _json_records(path: Path, parse_json: Callable[[Any, Path], Records]) -> Records:
    """The records in the one value of a file, or its lines where it holds several values."""
    try:
        content = json_value(_file_text(path), str(path))
    except json.JSONDecodeError as error:
        # Many tools write JSON lines under this name as well; then something follows the first value.
        if error.msg != "Extra data":
            raise DataError(f"{path}, line {error.lineno}: {_broken(error)}") from error
        yield from _line_records(path)
    else:
        yield from parse_json(content, path)


def _file_text(path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise DataError(f"{path}: is empty")
    return content


def _line_records(path: Path) -> Records:
    """The value of every line that is not blank."""
    empty = True
    # Bytes are split at line feeds alone; as text they would also split at characters that JSON allows inside a text.
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        try:
            value_text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if value_text:
                empty = False
                yield where, json_value(value_text, where)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: is not UTF-8 text (byte {error.start})") from error
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: {_broken(error)}") from error
    if empty:
        raise DataError(f"{path}: is empty")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _broken(error: json.JSONDecodeError) -> str:
    return f"broken JSON: {error.msg} (column {error.colno})"


def json_value(content: str, where: str) -> Any:
    """The value in a JSON text; ``where`` names its file and record for messages.

    Raises:
        JSONDecodeError: the text is broken.
        DataError: Python cannot hold the value, numbers of thousands of digits, or too many brackets in one another; or
            an object has a key twice.
    """
    try:
        return json.loads(content, object_pairs_hook=_of_distinct_keys)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({one_line(error)})") from error


def _of_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of which Python would keep the last of two values of one key and lose the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = ", ".join(shown(key) for key, count in counts.items() if count > 1)
        raise ValueError(f"duplicate in one object: {twice}")
    return found
