"""The files of a run folder, as the report reads them."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from data.errors import DataError, one_line
from eval.report.results import Results

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_results(path: Path) -> Results:
    """The contents of ``results.json``.

    Raises:
        DataError: the file is not JSON, or holds no results.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {one_line(error)}") from error
    for key in ("overall", "tasks", "change"):
        if not isinstance(results, dict) or key not in results:
            raise DataError(f"{path} has no {key!r}: an evaluation writes it")
    return cast(Results, with_whole_characters(results))


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, one at a time.

    Raises:
        DataError: a line that is not a JSON object, by its number.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path} line {number} is not JSON: {one_line(error)}") from error
            if not isinstance(value, dict):
                raise DataError(f"{path} line {number} is no object: {value!r:.60}")
            yield with_whole_characters(value)


def check_count(path: Path, figures: Mapping[str, Any]) -> None:
    """Refuse samples of which some are missing or twice there: figures and messages would not be of the same questions.

    Args:
        path: ``samples.jsonl``.
        figures: by stage, with the number of questions ``n`` of each.

    Raises:
        DataError: there are more or fewer lines than questions.
    """
    with path.open("rb") as lines:
        found = sum(1 for _ in lines)
    told = sum(stage["n"] for stage in figures.values())
    if found != told:
        raise DataError(f"{path}: has {found:,} lines, and results.json figures of {told:,} questions; evaluate again")


def with_whole_characters(value: Any) -> Any:
    """A JSON value with U+FFFD for every half of a surrogate pair, in names and texts alike.

    A message cut within a character ends with such a half. It has no UTF-8 form, so no file or picture can hold it.
    """
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [with_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {with_whole_characters(name): with_whole_characters(item) for name, item in value.items()}
    return value
