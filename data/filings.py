"""The text of a filing's PDF, page by page, extracted once and kept in a cache.

Pages count from zero, as in FinanceBench. PDFs that are encrypted with an empty password open like any other.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import DataError, one_line
from data.writing import write_text

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

CACHE_FORMAT = 1
"""Version of the cached files and of the cleaning of text; a new number has every PDF extracted again."""

# PDFium reads what is left of some truncated PDFs without a complaint, so the marks of both ends are checked here.
START_MARK, END_MARK = b"%PDF-", b"%%EOF"
MARK_BYTES = 1024
"""Bytes at either end of a file that must hold its mark: readers of PDF allow as many before and after it."""

# PDFium's line ends, and the two characters that it puts for a hyphen at the end of a line.
_CLEANED = {"\r\n": "\n", "\r": "\n", "\x02": "-", "\ufffe": "-", "\x00": ""}


def page_texts(pdf: Path, cache: Path | None = None) -> list[str]:
    """The text of every page; the text of a blank page is empty.

    Args:
        pdf: the file.
        cache: a folder for extracted texts, one file a PDF, named by the hash of its content; None takes
            ``default_cache()``.

    Raises:
        DataError: the file is missing, empty, no PDF, damaged, or needs a password, or the cache cannot be written; one
            line that names the path.
    """
    # Imported here, as pypdfium2 below: only this function needs them, and they would slow the start of every command.
    from importlib.metadata import version

    try:
        content = pdf.read_bytes()
    except OSError as error:
        raise DataError(f"{pdf}: cannot be read ({error.strerror})") from error
    if not content:
        raise DataError(f"{pdf}: is empty")
    if START_MARK not in content[:MARK_BYTES]:
        raise DataError(f"{pdf}: is not a PDF: it begins with {content[:20]!r}")
    if END_MARK not in content[-MARK_BYTES:]:
        raise DataError(f"{pdf}: is cut off: it lacks the mark of a PDF's end, {END_MARK.decode()}")
    folder = default_cache() if cache is None else cache
    key = hashlib.sha256(content).hexdigest()
    kept = folder / f"{key}-{CACHE_FORMAT}-pypdfium2-{version('pypdfium2')}.json"
    pages = _kept_pages(kept)
    if pages is None:
        pages = _extracted(content, pdf)
        _keep(pages, kept)
    return pages


def default_cache() -> Path:
    """``shorthand/financebench`` in the user's cache folder: ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "shorthand" / "financebench"


def _extracted(content: bytes, pdf: Path) -> list[str]:
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(content) as document:
            return [_page_text(page) for page in document]
    except pypdfium2.PdfiumError as error:
        raise DataError(f"{pdf}: cannot be read as a PDF ({one_line(error)})") from error


def _page_text(page: "PdfPage") -> str:
    textpage = page.get_textpage()
    text = textpage.get_text_bounded()
    textpage.close()
    page.close()
    for pattern, replacement in _CLEANED.items():
        text = text.replace(pattern, replacement)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _kept_pages(kept: Path) -> list[str] | None:
    """The cached text of every page; None where the cache has none or a broken file, which is then replaced."""
    try:
        pages = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        return None
    sound = isinstance(pages, list) and pages and all(isinstance(page, str) for page in pages)
    return pages if sound else None


def _keep(pages: list[str], kept: Path) -> None:
    """Put the text of every page into the cache.

    Raises:
        DataError: the cache folder cannot be written.
    """
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(pages))
    except OSError as error:
        raise DataError(
            f"{kept.parent}: extracted text cannot be kept there ({error.strerror}); set XDG_CACHE_HOME"
        ) from error
