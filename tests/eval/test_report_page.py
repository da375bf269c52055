"""The report's page: complete, self-contained, the same for the same files, and safe with hostile text."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eval.analysis.density import summarise
from eval.report.__main__ import main
from eval.report.page import FILES, write_report
from eval.report.samples import MOST_BYTES, MOST_CONTEXT_CHARACTERS, MOST_PAIRS

pytestmark = pytest.mark.command

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """The elements of a page with their attributes, its script contents and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))


def report(run_folder: Path) -> str:
    return write_report(run_folder).read_text(encoding="utf-8")


def embedded(run_folder: Path) -> Any:
    return json.loads(Page(report(run_folder)).scripts[0])


def rewrite_samples(run_folder: Path, records: Any) -> None:
    """Other samples, and as many of them in the figures."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run_folder / "samples.jsonl").write_text(lines, encoding="utf-8")
    path = run_folder / "results.json"
    results = json.loads(path.read_text())
    for stage, figures in results["overall"].items():
        figures["n"] = sum(record["stage"] == stage for record in records)
    path.write_text(json.dumps(results))


def test_markup_in_contexts_messages_names_and_settings_stays_text(run_folder: Path, planted: str) -> None:
    source = report(run_folder)
    page = Page(source)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "alert(1)" not in page.scripts[1]
    assert "<script>alert" not in source
    assert planted in page.text
    pair = next(pair for pair in json.loads(page.scripts[0])["pairs"] if pair["question"] == planted)
    assert pair["before"]["message"] == pair["before"]["tokens"][0] == pair["answers"][0] == planted


def test_the_embedded_data_holds_no_character_that_could_end_it(run_folder: Path) -> None:
    data = Page(report(run_folder)).scripts[0]
    assert not set(data) & set("<>&\u2028\u2029")
    assert data.isascii()


def test_the_pages_script_writes_text_only() -> None:
    script = (ROOT / "eval" / "report" / "templates" / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", script)


def test_the_page_loads_nothing_and_its_policy_allows_its_own_script_alone(run_folder: Path) -> None:
    page = Page(report(run_folder))
    attributes = [(name, value) for _, attrs in page.elements for name, value in attrs.items()]
    assert not [name for name, _ in attrs_named(attributes, "src", "srcset", "data", "action")]
    links = {value or "" for _, value in attrs_named(attributes, "href", "xlink:href")}
    assert {link for link in links if not link.startswith("#")} <= set(FILES)
    assert not [name for name, _ in attributes if name.startswith("on")]
    policy = next(attrs["content"] for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs) or ""
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy


def attrs_named(attributes: list[tuple[str, str | None]], *names: str) -> list[tuple[str, str | None]]:
    return [(name, value) for name, value in attributes if name in names]


def test_the_first_heading_is_the_answer(run_folder: Path) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", report(run_folder))
    assert heading and "3.00 tokens instead of 6.00 (2.0× fewer <small>[no interval]</small>)" in heading[1]


def test_the_table_has_a_row_for_everything_and_for_each_task(run_folder: Path) -> None:
    source = report(run_folder)
    first = source[source.index("<table>") : source.index("</table>")]
    assert first.count("<tr") == 1 + 1 + 2
    assert "overall" in first and "24 questions, 12 documents" in first


def test_kinds_of_question_are_behind_a_click(run_folder: Path, records: Any, planted: str) -> None:
    assert "By kind of question" not in report(run_folder)
    mixed = [record | {"kind": planted if record["id"].endswith("0") else "open"} for record in records]
    (run_folder / "results.json").write_text(json.dumps(summarise(mixed)), encoding="utf-8")
    source = report(run_folder)
    details = source.partition("<summary>By kind of question</summary>")[2].partition("</details>")[0]
    assert details.count("<tr") == 1 + 4 and 'class="overall"' not in details
    assert "notes, open" in details and "<script>" not in details


def test_greedy_messages_have_a_table_of_their_own(run_folder: Path, records: Any) -> None:
    assert "Greedy messages" not in report(run_folder)
    path = run_folder / "results.json"
    shorter = [record | {"message_tokens": record["message_tokens"] * 2} for record in records]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"greedy": summarise(shorter)}), encoding="utf-8")
    source = report(run_folder)
    greedy, sampled = source.index('id="tasks-greedy"'), source.index('id="tasks-sampled"')
    assert greedy < sampled
    for text in ("Accuracy", ">12.0</b>", ">6.00</b>", "1.23 of 3.00"):
        assert text in source[greedy:sampled]
    head = source.partition("</header>")[0]
    assert head.index(">Greedy messages</h2>") < head.index(">Sampled messages</h2>")
    assert head.count("Information, bits, at most 3.00") == 2


def test_the_same_files_give_the_same_bytes(run_folder: Path) -> None:
    first = write_report(run_folder).read_bytes()
    assert write_report(run_folder).read_bytes() == first


def test_without_metrics_the_report_says_that_it_has_no_curves(run_folder: Path) -> None:
    assert 'aria-label="Reward"' in report(run_folder)
    (run_folder / "metrics.jsonl").unlink()
    source = report(run_folder)
    assert "has no metrics.jsonl with training steps, so there are no curves" in source
    assert 'aria-label="Reward"' not in source


def test_at_most_so_many_pairs_are_shown_evenly_over_tasks_and_it_says_so(run_folder: Path, record: Any) -> None:
    sizes = {"large": 300, "middle": 100, "small": 10}
    records = [
        record(number, stage, task, f"d{number}")
        for task, size in sizes.items()
        for number in range(size)
        for stage in ("before", "after")
    ]
    rewrite_samples(run_folder, records)
    shown = [pair["task"] for pair in embedded(run_folder)["pairs"]]
    assert {task: shown.count(task) for task in sizes} == {"large": 55, "middle": 55, "small": 10}
    assert f"{MOST_PAIRS} of 410 questions" in report(run_folder)


def test_a_context_shared_by_questions_is_embedded_once_and_cut_at_the_limit(run_folder: Path, record: Any) -> None:
    text = "word " * MOST_CONTEXT_CHARACTERS
    rewrite_samples(run_folder, [record(number, context=text) for number in range(3)])
    contexts = embedded(run_folder)["contexts"]
    assert [(len(entry["text"]), entry["characters"]) for entry in contexts] == [(MOST_CONTEXT_CHARACTERS, len(text))]


def test_contexts_that_would_make_a_large_page_leave_out_pairs_and_it_says_so(run_folder: Path, record: Any) -> None:
    # Beyond ASCII a character takes six bytes in the page.
    texts = [f"{number} " + "診" * MOST_CONTEXT_CHARACTERS for number in range(40)]
    rewrite_samples(run_folder, [record(number, context=text) for number, text in enumerate(texts)])
    source = report(run_folder)
    assert MOST_BYTES / 2 < len(source.encode()) < MOST_BYTES * 1.1
    assert re.search(r"2\d of 40 questions, drawn evenly over the tasks; samples.jsonl holds them all", source)


def test_where_a_task_has_no_accuracy_perplexity_comes_into_view(run_folder: Path, record: Any) -> None:
    records = [
        record(number, stage, document=f"d{number}", accuracy=None, answer_nll_nats=nats, answer_tokens=2)
        for number in range(3)
        for stage, nats in (("before", 2.0), ("after", 1.0))
    ]
    rewrite_samples(run_folder, records)
    (run_folder / "results.json").write_text(json.dumps(summarise(records)), encoding="utf-8")
    source = report(run_folder)
    table = source[source.index("<table>") : source.index("</table>")]
    assert "Perplexity" in table and "Accuracy" not in table
    assert "lower the perplexity of the answers from 2.72" in source
    assert embedded(run_folder)["pairs"][0]["before"]["perplexity"] == 2.718


def test_the_tables_lie_beside_the_page_in_markdown_and_latex(run_folder: Path) -> None:
    report(run_folder)
    for name, start in (("tables.md", "Training changed nothing "), ("tables.tex", "% Needs ")):
        assert (run_folder / name).read_text(encoding="utf-8").startswith(start)


def test_each_pair_says_what_became_of_its_answer(run_folder: Path, record: Any) -> None:
    scores = {"better": (0.0, 0.5), "worse": (1.0, 0.0), "same": (1.0, 1.0), "unscored": (1.0, None)}
    rewrite_samples(
        run_folder,
        [
            record(0, stage, document=name, accuracy=accuracy)
            for name, pair in scores.items()
            for stage, accuracy in zip(("before", "after"), pair, strict=True)
        ],
    )
    pairs = embedded(run_folder)["pairs"]
    assert {pair["document"]: pair["change"] for pair in pairs} == {name: name for name in scores}


def test_a_message_without_scored_tokens_is_shown_unshaded(run_folder: Path, record: Any) -> None:
    rewrite_samples(run_folder, [record(0, token_bits=[], information_nats=None)])
    side = embedded(run_folder)["pairs"][0]["before"]
    assert (side["tokens"], side["bits"], side["message"]) == ([], None, "the dose is 5 mg")


def test_tokens_and_bits_of_different_lengths_are_refused_by_name(run_folder: Path, record: Any) -> None:
    rewrite_samples(run_folder, [record(0, token_bits=[0.1])])
    with pytest.raises(ValueError, match="'notes/d0/0'.*6 tokens, 1 of them with bits"):
        write_report(run_folder)


def test_half_a_surrogate_pair_in_a_message_does_not_stop_the_report(run_folder: Path, record: Any) -> None:
    rewrite_samples(run_folder, [record(0, message="cut \ud83d", task="t \ud83d")])
    assert embedded(run_folder)["pairs"][0]["before"]["message"] == "cut \ufffd"


def test_half_a_surrogate_pair_in_any_name_of_the_results_does_not_stop_the_report(run_folder: Path) -> None:
    path = run_folder / "results.json"
    results = json.loads(path.read_text())
    tasks = {f"{task} \ud83d": stages for task, stages in results["tasks"].items()}
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    parts = {
        "tasks": tasks,
        "kinds": {task: {"\udc00": stages} for task, stages in tasks.items()},
        "baselines": [{"name": "head \ud83d", "accuracy": figure, "message_tokens": figure}],
        "meta": {"note \ud83d": "cut \ud83d"},
    }
    path.write_text(json.dumps(results | parts))
    page = Page(report(run_folder))
    for text in ("notes \ufffd", "head \ufffd", "note \ufffd", "cut \ufffd"):
        assert text in page.text


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes names in UTF-8 only")
def test_a_run_folder_whose_name_is_no_utf_8_has_a_report(run_folder: Path) -> None:
    folder = run_folder.rename(Path(os.fsdecode(os.fsencode(run_folder) + b"\xff")))
    assert f"<title>Shorthand: {run_folder.name}\ufffd</title>" in report(folder)


def test_a_broken_line_is_named_with_its_number(run_folder: Path) -> None:
    with (run_folder / "samples.jsonl").open("a", encoding="utf-8") as samples:
        samples.write("{broken\n")
    with pytest.raises(ValueError, match="samples.jsonl line 49 is not JSON"):
        write_report(run_folder)


@pytest.mark.parametrize(("times", "found"), [(0, 0), (2, 96)])
def test_samples_that_are_not_those_of_the_figures_are_refused(run_folder: Path, times: int, found: int) -> None:
    samples = run_folder / "samples.jsonl"
    samples.write_text(samples.read_text(encoding="utf-8") * times, encoding="utf-8")
    with pytest.raises(ValueError, match=f"samples.jsonl: has {found} lines, and results.json figures of 48 questions"):
        write_report(run_folder)


def test_a_line_that_is_no_utf_8_is_named_with_its_number(run_folder: Path) -> None:
    samples = run_folder / "samples.jsonl"
    first, _, others = samples.read_bytes().partition(b"\n")
    samples.write_bytes(first + b"\n\xff" + others)
    with pytest.raises(ValueError, match="samples.jsonl line 2 is not JSON"):
        write_report(run_folder)


def test_a_line_that_is_no_object_is_named_with_its_number(run_folder: Path) -> None:
    (run_folder / "samples.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match=r"samples.jsonl line 1 is no object: \[1\]"):
        write_report(run_folder)


def test_results_of_one_stage_still_make_a_page(run_folder: Path, record: Any) -> None:
    only = [record(0, "after", document=name) for name in "ab"]
    (run_folder / "results.json").write_text(json.dumps(summarise(only)), encoding="utf-8")
    rewrite_samples(run_folder, only)
    source = report(run_folder)
    assert (
        "<h1>Messages, held against nothing: 100.0% <small>[34.2%, 100.0%]</small> of the answers are right" in source
    )
    shown = Page(source).text.partition("What the figures mean")[0]
    assert "not measured" not in source and " before " not in shown and "untrained" not in shown


def test_the_command_rebuilds_the_report_and_names_it(run_folder: Path) -> None:
    command = [sys.executable, "-m", "eval.report", str(run_folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(run_folder / "report.html"))


def test_the_command_refuses_a_folder_without_results_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    refusal = f"error: {tmp_path / 'results.json'} is missing: the report is made from it\n"
    assert capsys.readouterr().err == refusal
