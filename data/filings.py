"""The text of a filing's PDF, page by page, taken out once and kept in a cache.

Pages count from zero, as in FinanceBench. PDFs that are encrypted with an empty password open like any other.
"""

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import DataError

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

CACHE_FORMAT = 1
"""Version of the cache and of the cleaning: with another number the text is extracted from the PDFs again."""

# Of some PDFs that are cut off PDFium reads what is left, without a word; so their two ends are looked for.
START_MARK, END_MARK = b"%PDF-", b"%%EOF"
MARK_BYTES = 1024

# Hyphens at the end of a line, as PDFium marks them, and its line ends.
_CLEANED = {"\r\n": "\n", "\r": "\n", "\x02": "-", "\ufffe": "-", "\x00": ""}


def page_texts(pdf: Path, cache: Path | None = None) -> list[str]:
    """The text of every page, a blank one's empty.

    Args:
        pdf: the file.
        cache: a folder for what is taken out, by the hash of the file; None takes ``default_cache()``.

    Raises:
        DataError: the file is missing, empty, no PDF, damaged, or needs a password; one line that names it.
    """
    try:
        content = pdf.read_bytes()
    except OSError as error:
        raise DataError(f"{pdf}: cannot be read ({error.strerror})") from error
    if not content:
        raise DataError(f"{pdf}: is empty")
    if START_MARK not in content[:MARK_BYTES]:
        raise DataError(f"{pdf}: is not a PDF: it begins with {content[:20]!r}")
    if END_MARK not in content[-MARK_BYTES:]:
        raise DataError(f"{pdf}: is cut off: the mark of a PDF's end is not there")
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
        reason = " ".join(str(error).split())
        raise DataError(f"{pdf}: cannot be read as a PDF ({reason})") from error


def _page_text(page: "PdfPage") -> str:
    textpage = page.get_textpage()
    text = textpage.get_text_bounded()
    textpage.close()
    page.close()
    for pattern, replacement in _CLEANED.items():
        text = text.replace(pattern, replacement)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _kept_pages(kept: Path) -> list[str] | None:
    """What the cache holds, None where that is nothing or broken: it is made again then."""
    try:
        pages = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        return None
    sound = isinstance(pages, list) and pages and all(isinstance(page, str) for page in pages)
    return pages if sound else None


def _keep(pages: list[str], kept: Path) -> None:
    """Write in one step: whoever reads meanwhile, or after a crash, finds all of it or nothing.

    Raises:
        DataError: the cache folder cannot be written.
    """
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part = Path(folder) / kept.name
            part.write_text(json.dumps(pages), encoding="utf-8")
            os.replace(part, kept)
    except OSError as error:
        raise DataError(
            f"{kept.parent}: extracted text cannot be kept there ({error.strerror}); set XDG_CACHE_HOME"
        ) from error
