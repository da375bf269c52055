"""The command that has questions written: over real HTTP, interrupted, resumed, and with servers that fail."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data import fineweb, wildchat
from data.task import Request
from eval.synthesise import main
from tests.llama_server import serving_miniature
from tests.local_server import Answer, Asked, LocalServer, chat, serving
from tests.record_files import write_records
from tests.written_questions import good_writer

ROOT = Path(__file__).resolve().parents[2]


def pages(tmp_path: Path, number: int = 6) -> str:
    records = [
        {"text": f"Page {n} begins.\nPage {n} ends.", "id": f"p{n}", "token_count": 20_000} for n in range(number)
    ]
    return write_records(tmp_path / "pages.jsonl", records)


def chats(tmp_path: Path) -> str:
    def one(number: int) -> dict[str, Any]:
        user = {"hashed_ip": f"ip{number % 2}", "header": {"user-agent": "Firefox"}}
        said = [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": "Yes."}]
        return {"timestamp": f"2023-04-09T00:{number:02}:00", "conversation": said} | user

    return write_records(tmp_path / "chats.jsonl", [one(number) for number in range(4)])


def write(asked: Asked, number: int) -> Answer:
    """A writer without fault that tells by the schema what it is asked for."""
    schema = asked.body["response_format"]["json_schema"]["schema"]
    return Answer(chat(good_writer(asked.body["messages"], schema)))


@pytest.fixture
def writer() -> Iterator[LocalServer]:
    with serving(write) as server:
        yield server


def synthesise(server: LocalServer | str, source: str, out: Path, *more: str, task: str = "fineweb") -> int:
    url = server if isinstance(server, str) else server.url
    where = ["--task", task, "--source", source, "--out", str(out), "--endpoint", url, "--model", "a-writer"]
    return main([*where, "--retries", "0", "--concurrency", "2", *more])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error is."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_pages_become_a_set_that_the_loader_reads(
    tmp_path: Path, writer: LocalServer, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "made" / "questions.jsonl"
    assert synthesise(writer, pages(tmp_path), out) == 0
    loaded = fineweb.load(Request("train", str(out)))
    assert sorted(document.id for document in loaded.documents) == [f"p{n}" for n in range(6)]
    assert sum(len(document.questions) for document in loaded.documents) == 30
    assert {json.loads(line)["writer"] for line in out.read_text().splitlines()} == {"a-writer"}
    said = capsys.readouterr().err
    assert f"{out}: 6 rows" in said
    assert "written 6" in said and "extractive questions 12" in said and "requests 6" in said


def test_llama_cpp_takes_the_schema_and_its_unusable_replies_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "questions.jsonl"
    with serving_miniature(tmp_path) as url:
        assert synthesise(url, pages(tmp_path, 1), out, "--reply-tokens", "40", "--temperature", "0") == 0
    row = json.loads(out.read_text())
    assert (row["questions"], row["attempts"]) == ([], 3)
    assert "Invalid JSON: EOF" in row["rejected"][0]
    assert "without any usable question 1" in capsys.readouterr().err


def test_histories_become_a_set_that_the_loader_reads(tmp_path: Path, writer: LocalServer) -> None:
    out = tmp_path / "questions.jsonl"
    assert synthesise(writer, chats(tmp_path), out, task="wildchat") == 0
    assert [len(one.parts) for one in wildchat.load(Request("train", str(out))).documents] == [2, 2]


def test_a_folder_gets_disjoint_train_and_test_files(tmp_path: Path, writer: LocalServer) -> None:
    assert synthesise(writer, pages(tmp_path, 12), tmp_path / "set", "--test-share", "0.5") == 0
    parts = [fineweb.load(Request(split, str(tmp_path / "set"))).documents for split in ("train", "test")]
    train, test = ({document.id for document in part} for part in parts)
    assert train and test and not train & test
    assert len(train | test) == 12


def test_the_same_command_asks_only_for_what_is_missing(
    tmp_path: Path, writer: LocalServer, capsys: pytest.CaptureFixture
) -> None:
    source, out = pages(tmp_path), tmp_path / "questions.jsonl"
    assert synthesise(writer, source, out, "--number", "4") == 0
    first = out.read_bytes()
    out.write_bytes(first[:-10])
    assert synthesise(writer, source, out) == 0
    assert len(writer.asked) == 7
    assert len(fineweb.load(Request("train", str(out))).documents) == 6
    said = capsys.readouterr().err
    assert "written before 3" in said and "half-written rows cut off 1" in said


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def fails_later(asked: Asked, number: int) -> Answer:
        return (
            Answer("out of memory", 500) if "Page 3" in asked.body["messages"][0]["content"] else write(asked, number)
        )

    source, out = pages(tmp_path), tmp_path / "questions.jsonl"
    with serving(fails_later) as server:
        assert synthesise(server, source, out) == 2
        assert error_of(capsys) == f"error: {server.url}, model 'a-writer': 500: out of memory"
        answered = {asked.body["messages"][0]["content"] for asked in server.asked}
    kept = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert len(kept) == len(answered) - 1 and {"p0", "p1", "p2"} <= set(kept)
    with serving(write) as server:
        assert synthesise(server, source, out) == 0
        assert len(server.asked) == 6 - len(kept)


def test_a_bad_reply_is_asked_for_again_and_one_that_stays_bad_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def bad(asked: Asked, number: int) -> Answer:
        messages = asked.body["messages"]
        stubborn = "Page 0" in messages[0]["content"]
        return Answer(chat("Sorry?")) if stubborn or len(messages) == 1 else write(asked, number)

    out = tmp_path / "questions.jsonl"
    with serving(bad) as server:
        assert synthesise(server, pages(tmp_path, 2), out) == 0
        assert len(server.asked) == 5
    loaded = fineweb.load(Request("train", str(out)))
    assert [document.id for document in loaded.documents] == ["p1"]
    assert loaded.skipped == {"pages without questions": 1, "questions that failed a check": 1}
    assert "without any usable question 1" in capsys.readouterr().err


def test_a_page_the_server_refuses_is_counted_once_another_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def too_long(asked: Asked, number: int) -> Answer:
        refused = "Page 5" in asked.body["messages"][0]["content"]
        return Answer({"error": {"message": "context too long"}}, 400) if refused else write(asked, number)

    out = tmp_path / "questions.jsonl"
    with serving(too_long) as server:
        assert synthesise(server, pages(tmp_path), out) == 0
    assert len(out.read_text().splitlines()) == 5
    said = capsys.readouterr().err
    assert "refused by the server 1" in said and "400: context too long" in said


def test_a_server_that_refuses_from_the_start_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with serving([Answer({"error": {"message": "no response_format"}}, 400)]) as server:
        assert synthesise(server, pages(tmp_path), tmp_path / "questions.jsonl") == 2
        assert error_of(capsys).endswith("400: no response_format")
        assert len(server.asked) <= 4


def test_further_fields_of_a_request_are_sent(tmp_path: Path, writer: LocalServer) -> None:
    more = ["--extra", '{"max_tokens": null, "max_completion_tokens": 99}']
    assert synthesise(writer, pages(tmp_path, 1), tmp_path / "questions.jsonl", *more) == 0
    assert "max_tokens" not in writer.asked[0].body
    assert writer.asked[0].body["max_completion_tokens"] == 99


def test_a_server_may_be_asked_without_a_schema(tmp_path: Path) -> None:
    def plain(asked: Asked, number: int) -> Answer:
        assert "response_format" not in asked.body
        return Answer(chat(good_writer(asked.body["messages"], {"properties": {}})))

    with serving(plain) as server:
        assert synthesise(server, pages(tmp_path), tmp_path / "questions.jsonl", "--no-schema") == 0


def test_a_set_of_another_writer_or_task_is_not_added_to(tmp_path: Path, writer: LocalServer, capsys: Any) -> None:
    source, out = pages(tmp_path), tmp_path / "questions.jsonl"
    assert synthesise(writer, source, out) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert synthesise(writer, source, out, "--model", "another") == 2
    assert "line 1: was written by 'a-writer' with prompts 1, not by 'another'" in error_of(capsys)
    assert synthesise(writer, chats(tmp_path), out, task="wildchat") == 2
    assert "line 1: is a row of \"fineweb\", not of 'wildchat'" in error_of(capsys)
    assert synthesise(writer, source, Path(source)) == 2
    assert "has no field 'task'" in error_of(capsys)
    assert out.read_bytes() == before


def test_bad_input_is_one_line(tmp_path: Path, writer: LocalServer, capsys: pytest.CaptureFixture) -> None:
    broken = write_records(tmp_path / "broken.jsonl", '{"text": "a", "id"\n')
    assert synthesise(writer, broken, tmp_path / "a.jsonl") == 2
    assert error_of(capsys).startswith(f"error: {broken}, line 1: broken JSON")
    assert synthesise("nowhere", pages(tmp_path), tmp_path / "a.jsonl") == 2
    assert error_of(capsys).startswith("error: endpoint 'nowhere': should be a URL")
    (tmp_path / "file").write_text("")
    assert synthesise(writer, pages(tmp_path), tmp_path / "file" / "a.jsonl") == 2
    assert "cannot be written" in error_of(capsys)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--variant", "study"], "--variant: is not an option of fineweb"),
        (["--test-share", "0.5"], "is one file; name a folder as --out"),
        (["--extra", "[1]"], "[1] should be a JSON object"),
        (["--extra", "{"], "{ is not JSON"),
        (["--number", "0"], "0 should be at least 1"),
        (["--test-share", "2"], "2 should be between 0 and 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(more: list[str], problem: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        synthesise("http://localhost/v1", "pages.jsonl", Path("a.jsonl"), *more)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


def test_the_command_explains_itself() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "eval.synthesise", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "two extractive, an email" in " ".join(shown.split())
    assert "--endpoint" in shown and "OPENAI_API_KEY" in shown
