"""Text of PDFs: what comes out of self-made and published filings, what is cached, and how bad files are refused."""

import json
import re
from pathlib import Path

import pypdfium2
import pytest

from data import filings
from data.filings import default_cache, page_texts
from tests.record_files import refusal_of

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "financebench"

needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published filings in {PUBLISHED}")


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        page = "/Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects += [
            f"<< {page} /Contents {5 + 2 * number} 0 R >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    whole, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(whole))
        whole += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(whole)}\n%%EOF\n"
    return f"{whole}xref\n0 {size}\n0000000000 65535 f \n{table}{end}".encode()


def words(text: str) -> set[str]:
    return set(text.split())


@pytest.fixture
def filing(tmp_path: Path) -> Path:
    path = tmp_path / "filing.pdf"
    path.write_bytes(pdf("Net sales were 42", "", "End-of year"))
    return path


def refusal(path: Path, cache: Path) -> str:
    """What the refusal of a PDF says; it begins with the file's name."""
    message = refusal_of(lambda: page_texts(path, cache))
    assert message.startswith(f"{path}: ")
    return message


def test_every_page_has_a_text_and_a_blank_ones_is_empty(filing: Path, tmp_path: Path) -> None:
    assert page_texts(filing, tmp_path / "cache") == ["Net sales were 42", "", "End-of year"]


def test_the_cache_lies_in_the_users_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, filing: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "shorthand" / "financebench"
    page_texts(filing)
    assert len(list(default_cache().iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "shorthand" / "financebench"


def test_text_is_taken_out_of_a_pdf_once_whatever_its_name(
    filing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    expected = page_texts(filing, cache)
    monkeypatch.setattr(filings, "_extracted", lambda content, pdf: pytest.fail("taken out again"))
    assert page_texts(filing.rename(tmp_path / "renamed.pdf"), cache) == expected


def test_a_changed_pdf_or_another_extractor_is_read_again(
    filing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    page_texts(filing, cache)
    filing.write_bytes(pdf("Restated"))
    assert page_texts(filing, cache) == ["Restated"]
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.0.0")
    page_texts(filing, cache)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("content", ["", '["Net sa', "{}", "[]", "[1]", "\x00"])
def test_a_broken_cache_file_is_made_again(filing: Path, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache"
    expected = page_texts(filing, cache)
    (kept,) = cache.iterdir()
    kept.write_text(content)
    assert page_texts(filing, cache) == expected
    assert json.loads(kept.read_text()) == expected
    assert list(cache.iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_is_one_line(filing: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match="extracted text cannot be kept there .* set XDG_CACHE_HOME"):
        page_texts(filing, tmp_path / "cache" / "inside")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<html>Access denied</html>", "is not a PDF: it begins with b'<html>Access denied<'"),
        (pdf("Net sales")[: len(pdf("Net sales")) // 2], "is cut off"),
        (b"%PDF-1.4\nnothing\n%%EOF\n", "cannot be read as a PDF"),
        (pdf(), "cannot be read as a PDF"),
    ],
)
def test_what_is_no_whole_pdf_is_one_line_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "filing.pdf"
    path.write_bytes(content)
    assert said in refusal(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_missing_pdf_is_one_line_that_names_it(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in refusal(tmp_path / "filing.pdf", tmp_path / "cache")


@needs_published
@pytest.mark.parametrize("name", ["AMAZON_2019_10K", "BESTBUY_2024Q2_10Q"])
def test_filings_encrypted_with_an_empty_password_open(name: str, tmp_path: Path) -> None:
    path = PUBLISHED / "pdfs" / f"{name}.pdf"
    assert b"/Encrypt" in path.read_bytes()
    texts = page_texts(path, tmp_path)
    assert sum(len(text) > 100 for text in texts) > 0.9 * len(texts)


@needs_published
def test_a_filing_that_is_cut_off_near_its_end_is_refused_although_pdfium_reads_it(tmp_path: Path) -> None:
    whole = (PUBLISHED / "pdfs" / "AMCOR_2023Q4_EARNINGS.pdf").read_bytes()
    path = tmp_path / "cut.pdf"
    path.write_bytes(whole[: len(whole) * 95 // 100])
    assert len(pypdfium2.PdfDocument(path)) == 14
    assert "is cut off" in refusal(path, tmp_path / "cache")


@needs_published
def test_every_published_filing_cut_in_half_is_refused(tmp_path: Path) -> None:
    for whole in (PUBLISHED / "pdfs").glob("*.pdf"):
        path = tmp_path / whole.name
        content = whole.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert whole.name in refusal(path, tmp_path / "cache")


@needs_published
def test_pages_hold_the_published_evidence_where_its_number_counted_from_zero_says(tmp_path: Path) -> None:
    questions = [json.loads(line) for line in (PUBLISHED / "financebench_open_source.jsonl").read_text().splitlines()]
    with_filings = [
        question for question in questions if (PUBLISHED / "pdfs" / f"{question['doc_name']}.pdf").is_file()
    ]
    assert len(with_filings) == 14
    for question in with_filings:
        texts = page_texts(PUBLISHED / "pdfs" / f"{question['doc_name']}.pdf", tmp_path)
        for evidence in question["evidence"]:
            sought = words(evidence["evidence_text"])
            shares = [len(sought & words(text)) / len(sought) for text in texts]
            assert shares[evidence["evidence_page_num"]] == max(shares) > 0.95


@needs_published
def test_no_control_character_is_left_in_the_published_filings(tmp_path: Path) -> None:
    for path in (PUBLISHED / "pdfs").glob("*.pdf"):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\ufffe]", "".join(page_texts(path, tmp_path)))
