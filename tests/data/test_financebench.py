"""FinanceBench: the published records and their quirks, the three kinds of contexts, and how bad input is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from data import financebench
from data.financebench import DOCUMENTS_FILE, QUESTIONS_FILE, load, page_ranges
from data.registry import load_documents
from data.sample import Question
from data.task import Loaded, Request
from objectives.accuracy import METRICS, score
from tests.record_files import refusal_of

BLANK = "pages without text (blank, scanned or damaged) in"
PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "financebench"

needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published FinanceBench records in {PUBLISHED}")


@pytest.fixture(scope="module")
def published_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is taken out of the published filings, once for all tests."""
    return tmp_path_factory.mktemp("filings")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, published_cache: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(published_cache))


def evidence(page: int, passage: str = "Sales were 42.", **fields: Any) -> dict[str, Any]:
    row = {"evidence_text": passage, "doc_name": "ACME_2022_10K", "evidence_page_num": page}
    return row | {"evidence_text_full_page": f"Page {page}.\n{passage}\nMore."} | fields


def entry(number: int, *rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A question as published, with the nulls that occur."""
    return {
        "financebench_id": f"financebench_id_{number:05}",
        "company": "Acme",
        "doc_name": "ACME_2022_10K",
        "question_type": "novel-generated",
        "question_reasoning": None,
        "domain_question_num": None,
        "question": "What were the sales (in USD millions)?",
        "answer": "$42.00",
        "justification": None,
        "dataset_subset_label": "OPEN_SOURCE",
        "evidence": list(rows) or [evidence(3)],
    } | fields


def document_row(name: str = "ACME_2022_10K") -> dict[str, Any]:
    row = {"doc_name": name, "company": "Acme", "gics_sector": "Industrials", "doc_type": "10k", "doc_period": 2022}
    return row | {"doc_link": f"https://example.com/{name}.pdf"}


def write(folder: Path, *questions: Any, documents: list[Any] | None = None) -> str:
    """A folder as published, with text pages in place of PDFs; a question that is text stands as it is."""
    for name, rows in ((QUESTIONS_FILE, questions), (DOCUMENTS_FILE, documents)):
        if rows is not None:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(folder)


@pytest.fixture
def filings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a filing of ten pages of four words and its question on page 3, whose PDF reads as these pages."""
    (tmp_path / "pdfs").mkdir()
    (tmp_path / "pdfs" / "ACME_2022_10K.pdf").touch()
    monkeypatch.setattr(financebench, "page_texts", lambda pdf: [f"Page {n} of {pdf.stem}" for n in range(10)])
    return write(tmp_path, entry(1))


def loaded(source: str | Path | None, variant: str | None = None, **fields: Any) -> Loaded:
    count = {"count_tokens": lambda text: len(text.split())} if "context_tokens" in fields else {}
    return load(Request("test", None if source is None else str(source), variant=variant, **count, **fields))


def questions_of(result: Loaded) -> list[Question]:
    return [question for document in result.documents for question in document.questions]


def refusal(source: str | Path | None, variant: str | None = "evidence", split: str = "test", **fields: Any) -> str:
    """What the refusal of a request says; always one line."""
    request = Request(split, None if source is None else str(source), variant=variant, **fields)
    return refusal_of(lambda: load_documents("financebench", request))


@pytest.mark.parametrize("variant", ["window", "filing"])
def test_pages_without_text_are_counted_by_file(filings: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loaded(filings, variant)
    pages = [f"Page {n} of ACME_2022_10K" for n in range(10)]
    monkeypatch.setattr(financebench, "page_texts", lambda pdf: [*pages, "", ""])
    write(Path(filings), entry(1), entry(2))
    damaged = loaded(filings, variant)
    assert not whole.skipped and damaged.documents[0].text == whole.documents[0].text
    assert damaged.skipped == {f"{BLANK} ACME_2022_10K.pdf": 2}


@needs_published
def test_the_150_published_questions_are_about_84_filings_of_32_companies() -> None:
    result = loaded(PUBLISHED, "evidence")
    assert len(questions_of(result)) == 150
    assert len({document.cluster for document in result.documents}) == 84
    assert len({document.group for document in result.documents}) == 32
    assert result.skipped == {"document rows with a name that is taken": 1}


@needs_published
def test_published_questions_have_one_evidence_or_two_or_three() -> None:
    records = financebench.reading.file_records(PUBLISHED / QUESTIONS_FILE)
    questions = financebench.read_questions(records, "")
    assert Counter(len(question.evidence) for question in questions) == {1: 115, 2: 31, 3: 4}
    assert len(financebench.read_document_links(PUBLISHED / DOCUMENTS_FILE, questions, Counter())) == 360


@needs_published
def test_of_the_published_answers_52_are_numbers_and_37_start_with_yes_or_no() -> None:
    questions = questions_of(loaded(PUBLISHED, "evidence"))
    assert Counter(question.kind for question in questions) == {"numeric": 52, "stance": 37, "open": 61}
    assert Counter(question.metric for question in questions) == {"financebench": 89, "judge": 61}
    assert "judge" not in METRICS
    decided = [question for question in questions if question.metric == "financebench"]
    assert all(score(question.metric, question.answers[0], question.answers) == 1 for question in decided)


@needs_published
def test_published_evidence_stands_in_the_context_of_its_question() -> None:
    for variant in financebench.VARIANTS:
        for document in loaded(PUBLISHED, variant).documents:
            for question in document.questions:
                assert question.evidence
                assert all(passage in document.text for passage in question.evidence)


@needs_published
def test_windows_and_filings_take_the_eight_published_pdfs_and_count_the_questions_of_the_others() -> None:
    expected = {"document rows with a name that is taken": 1, "questions whose PDF is missing": 136}
    expected[f"{BLANK} Pfizer_2023Q2_10Q.pdf"] = 1
    filings, windows = loaded(PUBLISHED, "filing"), loaded(PUBLISHED, "window")
    for result in (filings, windows):
        assert len(questions_of(result)) == 14
        assert result.skipped == expected
    names = {path.stem for path in (PUBLISHED / "pdfs").glob("*.pdf")}
    assert {document.id for document in filings.documents} == names
    assert {document.cluster for document in windows.documents} == names
    assert {"FOOTLOCKER_2022_8K_dated-2022-05-20", "FOOTLOCKER_2022_8K_dated_2022-08-19"} <= names


@needs_published
def test_windows_of_published_filings_keep_to_the_budget_and_lie_in_their_filing() -> None:
    whole = {document.cluster: document.text for document in loaded(PUBLISHED, "filing").documents}
    for window in loaded(PUBLISHED, "window").documents:
        assert window.text in whole[window.cluster]
        assert len(window.text) <= 4 * financebench.CONTEXT_TOKENS
        assert window.text == whole[window.cluster] or len(window.text) > 3 * financebench.CONTEXT_TOKENS


@needs_published
def test_the_published_questions_are_a_source_by_themselves(tmp_path: Path) -> None:
    file = tmp_path / QUESTIONS_FILE
    file.write_bytes((PUBLISHED / QUESTIONS_FILE).read_bytes())
    assert loaded(file, "evidence").documents == loaded(PUBLISHED, "evidence").documents


def test_nulls_do_no_harm_and_the_answer_decides_kind_and_metric(tmp_path: Path) -> None:
    answers = ["$42.00", "-3.7", "65.4%", "Yes, they rose.", "No", "None of them", "Sales rose by 3%."]
    source = write(tmp_path, *(entry(number, answer=answer) for number, answer in enumerate(answers)))
    questions = questions_of(loaded(source, "evidence"))
    assert [question.kind for question in questions] == ["numeric"] * 3 + ["stance"] * 2 + ["open"] * 2
    assert [question.metric for question in questions] == ["financebench"] * 5 + ["judge"] * 2
    assert [question.answers for question in questions] == [(answer,) for answer in answers]
    assert questions[0].text == "What were the sales (in USD millions)?"


def test_evidence_pages_stand_in_order_and_once(tmp_path: Path) -> None:
    rows = (
        evidence(9, "Nine."),
        evidence(2, "Two."),
        evidence(9, "Nine.\nMore.", evidence_text_full_page="Nine.\nMore."),
    )
    source = write(tmp_path, entry(1, evidence(2, "Two.")), entry(2, *rows), entry(3, evidence(2, "Page 2.\nTwo.")))
    first, second = loaded(source, "evidence").documents
    assert (first.id, first.text) == ("ACME_2022_10K/pages 2", "Page 2.\nTwo.\nMore.")
    assert [question.evidence for question in first.questions] == [("Two.",), ("Page 2.\nTwo.",)]
    assert (second.id, second.text) == ("ACME_2022_10K/pages 2,9", "Page 2.\nTwo.\nMore.\n\nNine.\nMore.")
    assert second.questions[0].evidence == ("Nine.", "Two.", "Nine.\nMore.")


def test_a_document_is_grouped_by_company_and_clustered_by_filing(filings: str) -> None:
    for variant in financebench.VARIANTS:
        (document,) = loaded(filings, variant).documents
        assert (document.task, document.group, document.cluster) == ("financebench", "Acme", "ACME_2022_10K")


def test_a_whole_filing_has_every_page(filings: str) -> None:
    (document,) = loaded(filings, "filing").documents
    assert document.id == "ACME_2022_10K"
    assert document.text == "\n\n".join(f"Page {number} of ACME_2022_10K" for number in range(10))
    assert document.questions[0].evidence == ("Page 3 of ACME_2022_10K",)


@pytest.mark.parametrize(
    ("evidence_pages", "tokens", "pages"),
    [
        ([3], 4, "3"),
        ([3], 8, "2-3"),
        ([3], 12, "2-4"),
        ([3], 15, "2-4"),
        ([3], 16, "1-4"),
        ([0], 12, "0-2"),
        ([9], 12, "7-9"),
        ([2, 7], 16, "1-3,7"),
        ([2, 7], 24, "1-3,6-8"),
        ([3], 400, "0-9"),
    ],
)
def test_a_window_grows_outward_from_the_evidence_by_whole_pages(
    filings: str, evidence_pages: list[int], tokens: int, pages: str
) -> None:
    source = write(Path(filings), entry(1, *map(evidence, evidence_pages)))
    result = loaded(source, context_tokens=tokens)
    (document,) = result.documents
    assert document.id == f"ACME_2022_10K/pages {pages}"
    assert document.text.count("Page") * 4 == len(document.text.split()) <= tokens
    assert document.questions[0].evidence == tuple(f"Page {page} of ACME_2022_10K" for page in evidence_pages)
    assert not result.skipped


def test_evidence_beyond_the_budget_stays_whole_and_is_counted(filings: str) -> None:
    source = write(Path(filings), entry(1, evidence(1), evidence(8)))
    result = loaded(source, "window", context_tokens=7)
    assert result.documents[0].id == "ACME_2022_10K/pages 1,8"
    assert result.skipped == {"windows beyond the token budget: evidence pages are never cut": 1}


def test_questions_with_the_same_window_share_a_document(filings: str) -> None:
    source = write(Path(filings), entry(1), entry(2, evidence(4)), entry(3, evidence(3)))
    tight = loaded(source, "window", context_tokens=4).documents
    assert [[question.id[-1] for question in document.questions] for document in tight] == [["1", "3"], ["2"]]
    (wide,) = loaded(source, "window", context_tokens=40).documents
    assert len(wide.questions) == 3


def test_questions_on_pages_without_text_are_counted(filings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(financebench, "page_texts", lambda pdf: ["Cover", "", "", "", "Page 4"])
    result = loaded(write(Path(filings), entry(1), entry(2, evidence(4))), "filing")
    assert [question.id[-1] for question in questions_of(result)] == ["2"]
    assert result.documents[0].text == "Cover\n\nPage 4"
    assert result.skipped == {"questions without text on their evidence pages": 1, f"{BLANK} ACME_2022_10K.pdf": 3}


def test_no_more_documents_are_taken_than_asked_for(filings: str) -> None:
    source = write(Path(filings), *(entry(number, evidence(number)) for number in range(8)))
    result = loaded(source, "window", context_tokens=4, documents=3)
    assert len(result.documents) == 3
    assert result.skipped == {"documents beyond the number asked for": 5}


def test_document_rows_with_a_taken_name_and_filings_without_a_row_are_counted(tmp_path: Path) -> None:
    rows = [document_row("OTHER_10K"), document_row("OTHER_10K"), document_row("OTHER_10K")]
    result = loaded(write(tmp_path, entry(1), documents=rows), "evidence")
    assert result.skipped == {"document rows with a name that is taken": 2, "filings without a document row": 1}


def test_page_ranges_name_runs_by_their_ends() -> None:
    assert [page_ranges(pages) for pages in ([5], [3, 1, 2], [0, 2, 3, 9])] == ["5", "1-3", "0,2-3,9"]


def test_a_pdf_is_named_to_the_letter(filings: str) -> None:
    name = "ACME_2022_8K_dated_2022-08-19"
    source = write(Path(filings), entry(1, evidence(1, doc_name=name), doc_name=name), documents=[document_row(name)])
    (Path(filings) / "pdfs" / "ACME_2022_8K_dated-2022-08-19.pdf").touch()
    text = refusal(source, "filing")
    assert f"holds no PDF of the filings asked about, such as {name}.pdf" in text
    assert f"published at https://example.com/{name}.pdf" in text


def test_a_broken_pdf_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "pdfs").mkdir()
    file = tmp_path / "pdfs" / "ACME_2022_10K.pdf"
    file.write_text("<html>")
    assert refusal(write(tmp_path, entry(1)), "window").startswith(f"{file}: is not a PDF")


def test_evidence_beyond_the_last_page_is_refused(filings: str) -> None:
    text = refusal(write(Path(filings), entry(1, evidence(10))), "window")
    assert "line 1, financebench_id_00001: evidence is on page 10, from zero, but" in text and "has 10 pages" in text


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in entry(2).items() if name != key}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{", ["line 2", "broken JSON"]),
        ("[1]", ["line 2", "'financebench_id'", "[1]"]),
        (without("financebench_id"), ["line 2", "no field 'financebench_id'", "company"]),
        (without("doc_name"), ["line 2, financebench_id_00002", "no field 'doc_name'"]),
        (without("evidence"), ["line 2, financebench_id_00002", "no field 'evidence'"]),
        (entry(1), ["line 2", "financebench_id_00001 is a duplicate of", "line 1"]),
        (entry(2, question=None), ["financebench_id_00002", "'question' should not be empty", "null"]),
        (entry(2, answer=" "), ["financebench_id_00002", "'answer' should not be empty"]),
        (entry(2, answer=42), ["financebench_id_00002", "'answer' should be text", "it is 42"]),
        (entry(2, company=""), ["financebench_id_00002", "'company' should not be empty"]),
        (entry(2, doc_name="../x"), ["financebench_id_00002", "'doc_name' should be the name of a PDF", '"../x"']),
        (entry(2, evidence=[]), ["financebench_id_00002", "'evidence' is empty"]),
        (entry(2, evidence="p. 3"), ["financebench_id_00002", "'evidence' should be a list or an object"]),
        (entry(2, evidence(3), evidence(-1)), ["00002, evidence 2", "count pages from zero", "it is -1"]),
        (entry(2, evidence(3, evidence_page_num="3")), ["evidence 1", "'evidence_page_num' should be a whole number"]),
        (entry(2, evidence(3, evidence_page_num=True)), ["evidence 1", "'evidence_page_num'", "it is true"]),
        (entry(2, evidence(3, doc_name="OTHER")), ["evidence 1", 'is of "OTHER"', '"ACME_2022_10K"']),
        (entry(2, evidence(3, evidence_text="Else.")), ["evidence 1", "does not stand in 'evidence_text_full_page'"]),
        (entry(2, evidence(3, evidence_text_full_page=None)), ["evidence 1", "'evidence_text_full_page'", "null"]),
        (entry(2, {"evidence_text": "Sales"}), ["evidence 1", "no field 'doc_name'"]),
    ],
)
def test_malformed_questions_are_one_line_that_names_file_and_record(
    tmp_path: Path, second: Any, said: list[str]
) -> None:
    text = refusal(write(tmp_path, entry(1), second))
    assert all(part in text for part in [QUESTIONS_FILE, *said]), text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", ["line 2", "broken JSON"]),
        ({"doc_link": ""}, ["line 2", "no field 'doc_name'"]),
        ({"doc_name": "A"}, ["line 2", "no field 'doc_link'"]),
        ({"doc_name": "A", "doc_link": 1}, ["line 2", "'doc_link' should be text or null"]),
    ],
)
def test_malformed_document_rows_are_one_line_that_names_file_and_record(
    tmp_path: Path, row: Any, said: list[str]
) -> None:
    text = refusal(write(tmp_path, entry(1), documents=[document_row(), row]))
    assert all(part in text for part in [DOCUMENTS_FILE, *said]), text


@needs_published
@pytest.mark.parametrize("name", [QUESTIONS_FILE, DOCUMENTS_FILE])
@pytest.mark.parametrize("share", [0, 1 / 2])
def test_a_published_file_that_is_cut_off_or_empty_is_one_line_that_names_it(
    tmp_path: Path, name: str, share: float
) -> None:
    for copied in (QUESTIONS_FILE, DOCUMENTS_FILE):
        (tmp_path / copied).write_bytes((PUBLISHED / copied).read_bytes())
    content = (PUBLISHED / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    text = refusal(tmp_path)
    assert text.startswith(str(tmp_path / name)) and ("is empty" if share == 0 else "broken JSON") in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"variant": "oracle"}, ["no variant 'oracle'", "window, filing, evidence"]),
        ({"split": "train"}, ["no split 'train'", "test"]),
        ({"facts": 3}, ["facts = 3", "generated"]),
        ({"context_tokens": 0}, ["context_tokens = 0", "at least 1"]),
        ({"source": None, "variant": None}, ["variant window needs", "not on the Hub", QUESTIONS_FILE, "evidence"]),
        ({"source": None, "variant": "filing"}, ["variant filing needs"]),
    ],
)
def test_a_request_that_does_not_fit_is_refused(tmp_path: Path, arguments: dict[str, Any], said: list[str]) -> None:
    text = refusal(**{"source": write(tmp_path, entry(1))} | arguments)
    assert text.startswith("financebench: ") and all(part in text for part in said), text


def test_a_source_without_the_questions_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: has no {QUESTIONS_FILE}"
    assert refusal(tmp_path / "missing") == f"{tmp_path / 'missing'}: no such file or folder"


def test_the_hubs_rows_give_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [entry(1), entry(2, evidence(4), evidence(5), answer="Yes")]
    reached = {}

    def load_dataset(path: str, **arguments: str) -> datasets.Dataset:
        reached.update(arguments, path=path)
        return datasets.Dataset.from_list([row | {"doc_type": "10k"} for row in rows])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert loaded(None, "evidence") == loaded(write(tmp_path, *rows), "evidence")
    assert reached == {"path": "PatronusAI/financebench", "split": "train"}


def test_instructions_are_for_models_that_see_one_side_each() -> None:
    assert "cannot see the filing" in financebench.INSTRUCTION
    assert "note alone" in financebench.ANSWER_INSTRUCTION
