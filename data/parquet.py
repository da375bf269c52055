"""Rows of parquet files; a value that Python cannot hold is refused by its row and column."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import DataError, one_line

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_ROWS_AT_ONCE = 256
"""Rows of a file in memory: contexts are long, so a batch of them stays below some hundred megabytes."""

# Dates before year 1 and after 9999 are an OverflowError or a ValueError, by the type of the column.
_UNHELD = (OverflowError, ValueError)


def parquet_records(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a parquet file, each with the file and its number, read as they are used.

    Raises:
        DataError: the file cannot be read as parquet, or holds a value that Python cannot, such as a date of the year
            20000, in whatever column.
    """
    # Imported here: it takes seconds, which neither --help nor another kind of file should cost.
    import pyarrow
    from pyarrow import parquet

    read = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for number, row in enumerate(_rows(batch, path, read), start=read + 1):
                    yield f"{path}, row {number}", row
                read += batch.num_rows
    except DataError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({one_line(error)})") from error


def _rows(batch: "RecordBatch", path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of a batch that comes after so many others.

    Raises:
        DataError: a value that Python cannot hold.
    """
    try:
        return batch.to_pylist()
    except _UNHELD as error:
        raise DataError(f"{path}{_unheld(batch, before)}: cannot be read ({one_line(error)})") from error


def _unheld(batch: "RecordBatch", before: int) -> str:
    """The row and the column of the first value that Python cannot hold; empty where each by itself can be held."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for number, value in enumerate(column, start=before + 1):
            try:
                value.as_py()
            except _UNHELD:
                return f", row {number}, column {name!r}"
    return ""
