"""The evaluation with a predictor or a judge behind a server: a real one, and scripted ones that fail."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.run import main
from tests.eval.small_evaluation import EVIDENCE_BATCH, evaluated, logged, records, small
from tests.llama_server import serving_miniature
from tests.local_server import Answer, Asked, LocalServer, Script, chat, serving
from tests.record_files import write_records

pytestmark = pytest.mark.command


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_miniature(tmp_path_factory.mktemp("llama")) as url:
        yield url


IMPATIENT = "retries: 0, timeout_seconds: 1"
"""The keys of a server that is asked once and waited for a second."""


def remote(server: LocalServer | str) -> str:
    url = server if isinstance(server, str) else server.url
    return f"predictor={{endpoint: '{url}', model: m, max_answer_tokens: 6, {IMPATIENT}}}"


def test_a_real_server_answers_and_what_it_cannot_tell_is_not_measured(tmp_path: Path, llama: str) -> None:
    here = evaluated(tmp_path / "here")
    there = evaluated(tmp_path / "there", remote(llama), "predictor.tokenizer=miniature/llama-medium")
    figures = there["overall"]["after"]
    assert figures["perplexity"]["value"] is None and figures["task_information_bits"]["value"] is None
    assert figures["missing"] == 0 and figures["accuracy"]["value"] is not None
    for figure in ("information_bits", "message_tokens", "bits_per_token", "saturated_share"):
        assert figures[figure] == here["overall"]["after"][figure]
    assert all(record["prediction"] for record in records(tmp_path / "there"))


FAILURES = {
    "500": Answer({"error": {"message": "out of memory"}}, 500),
    "429": Answer({"error": {"message": "slow down"}}, 429),
    "garbage": Answer("<html>busy</html>"),
    "another form": Answer({"choices": []}),
    "silence": Answer(chat("late"), delay=2.0),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_server_that_fails_ends_the_run_with_one_line_and_the_next_start_goes_on(
    failure: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def fails_at_the_second_batch(asked: Asked, number: int) -> Answer:
        return Answer(chat("Answer: 5")) if number < 2 else failure

    with serving(fails_at_the_second_batch) as server:
        given = small(folder, remote(server), "predictor.tokenizer=null")
        assert main(given) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: {server.url}, model 'm': ")
        assert len(logged(folder)) == 1 and not (folder / "results.json").exists()
        server.script, asked = lambda asked, number: Answer(chat("Answer: 5")), len(server.asked)
        assert main(given) == 0
        assert len(server.asked) == asked + 2 and len(logged(folder)) == 2
    assert {record["prediction"] for record in records(folder)} == {"5"}


@pytest.mark.parametrize("key", ["predictor", "judge"])
def test_a_server_that_is_not_there_is_one_line_before_anything_is_loaded(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_late(*arguments: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr("eval.job.build_compressor", too_late)
    monkeypatch.setattr("eval.job.load_samples", too_late)
    given = small(tmp_path / "run", f"{key}={{endpoint: 'http://127.0.0.1:9/v1', model: m}}")
    assert main(given) == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: http://127.0.0.1:9/v1, model 'm': cannot be reached after 3 tries: ")


def test_no_answer_is_asked_for_twice_even_where_the_batch_it_was_for_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with serving([Answer(chat("5"))]) as server:
        first = evaluated(folder, remote(server))
        asked = len(server.asked)
        for log in (folder / "records").glob("*.jsonl"):
            log.unlink()
        again = evaluated(folder, remote(server))
        assert len(server.asked) == asked
    assert again["overall"] == first["overall"]


def test_other_limits_and_another_variable_of_the_key_ask_for_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOTHER_KEY", "k")
    with serving([Answer(chat("5"))]) as server:
        evaluated(tmp_path / "run", remote(server))
        keys = logged(tmp_path / "run")
        patient = ["predictor.retries=3", "predictor.answer_seconds=9", "predictor.api_key_variable=ANOTHER_KEY"]
        evaluated(tmp_path / "run", remote(server), *patient)
    assert logged(tmp_path / "run") == keys


def test_empty_answers_are_told_with_the_key_that_helps_and_counted_in_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thinking = chat("", finish_reason="length")
    thinking["choices"][0]["message"]["reasoning_content"] = "The notes give a zinc of"
    with serving([Answer(thinking)]) as server:
        found = evaluated(tmp_path / "run", remote(server))
        asked = len(server.asked)
    assert found["meta"]["empty_answers"] == {"after": 4}
    printed = capsys.readouterr().out
    assert "answers without any text: 4 after" in printed
    assert f"{asked} of {asked} answers empty: the server's token limit ended them before any text" in printed
    assert "raise predictor.max_answer_tokens" in printed


def test_a_recipe_can_name_further_fields_of_a_request(tmp_path: Path) -> None:
    fields = "{max_tokens: null, max_completion_tokens: 64, temperature: null, reasoning_effort: low}"
    with serving([Answer(chat("5"))]) as server:
        evaluated(tmp_path / "run", remote(server), f"predictor.request={fields}")
        bodies = [asked.body for asked in server.asked]
    assert all({*body} == {"model", "messages", "max_completion_tokens", "reasoning_effort"} for body in bodies)


def test_what_a_server_is_asked_has_the_message_the_question_and_the_options(tmp_path: Path) -> None:
    with serving([Answer(chat("5"))]) as server:
        evaluated(tmp_path / "run", remote(server))
        asked = {request.body["messages"][0]["content"] for request in server.asked}
    shown = {
        f"{r['message']}\n\nQuestion: {r['question']}" + (f"\nOptions: {'; '.join(r['options'])}" * bool(r["options"]))
        for r in records(tmp_path / "run")
    }
    assert asked == shown


FILING = "ACME_2020_10K"


def filing_questions(folder: Path) -> str:
    """FinanceBench's file with an open question and one of a number, for each of three filings."""
    rows = [
        {
            "financebench_id": f"id_{number}_{kind}",
            "company": f"ACME {number}",
            "doc_name": f"{FILING}_{number}",
            "question": question,
            "answer": answer,
            "evidence": [
                {
                    "doc_name": f"{FILING}_{number}",
                    "evidence_page_num": 3,
                    "evidence_text": f"Revenue was {number}5 million.",
                    "evidence_text_full_page": f"Page three. Revenue was {number}5 million. It grew because of demand.",
                }
            ],
        }
        for number in range(3)
        for kind, question, answer in (
            ("open", f"Why did the revenue of ACME {number} grow?", "Customers asked for more of what it makes."),
            ("number", "What was revenue?", f"${number}5.00"),
        )
    ]
    write_records(folder / "financebench_open_source.jsonl", rows)
    return f"tasks=[{{name: financebench, source: '{folder}', variant: evidence}}]"


def judging(*verdicts: str) -> Script:
    """A judge that says these in turn, and the last of them for ever."""

    def answer(asked: Asked, number: int) -> Answer:
        assert asked.body["messages"][0]["content"].startswith("You grade an answer")
        return Answer(chat(verdicts[min(number, len(verdicts) - 1)]))

    return answer


def with_judge(server: LocalServer) -> list[str]:
    return [f"judge={{endpoint: '{server.url}', model: j, {IMPATIENT}}}", EVIDENCE_BATCH, "eval.documents=3"]


def open_answers(folder: Path) -> list[dict[str, Any]]:
    return [record for record in records(folder) if record["metric"] == "judge"]


def test_without_a_judge_open_answers_have_no_accuracy_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tasks = tmp_path / "run", filing_questions(tmp_path / "data")
    found = evaluated(folder, EVIDENCE_BATCH, "eval.documents=3", tasks=tasks)
    assert [record["accuracy"] for record in open_answers(folder)] == [None] * 3
    assert found["overall"]["after"]["missing"] == 3 and found["overall"]["after"]["accuracy"]["value"] is not None
    printed = capsys.readouterr().out
    assert "3 answers can be graded by a judge alone" in printed and "for want of a score: 3." in printed


def test_a_judge_grades_the_compressor_and_the_baselines_and_is_asked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tasks = tmp_path / "run", filing_questions(tmp_path / "data")
    with serving(judging('{"verdict": "correct"}')) as server:
        given = [*with_judge(server), "baselines=[{name: full-context}]"]
        found = evaluated(folder, *given, tasks=tasks)
        asked = len(server.asked)
        again = evaluated(folder, *given, tasks=tasks)
        assert {**again, "meta": None} == {**found, "meta": None}
        assert len(server.asked) == asked
    assert [(record["verdict"], record["accuracy"]) for record in open_answers(folder)] == [("correct", 1.0)] * 3
    assert found["overall"]["after"]["missing"] == 0
    assert found["baselines"][0]["missing"] == 0 and found["baselines"][0]["accuracy"]["value"] >= 0.5


def test_refusals_are_wrong_and_unreadable_verdicts_are_missing_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tasks = tmp_path / "run", filing_questions(tmp_path / "data")
    with serving(judging('{"verdict": "refusal"}', "no idea", '{"verdict": "incorrect"}')) as server:
        found = evaluated(folder, *with_judge(server), tasks=tasks)
    verdicts = sorted((str(record["verdict"]), record["accuracy"]) for record in open_answers(folder))
    assert verdicts == [("None", None), ("incorrect", 0.0), ("refusal", 0.0)]
    assert "1 of 3 replies of the judge cannot be read" in capsys.readouterr().out
    assert found["overall"]["after"]["missing"] == 1
    assert "refusal" in json.dumps(re.findall(r'"verdict":"\w+"', (folder / "report.html").read_text()))


def test_a_judge_that_fails_is_one_line_and_the_next_start_asks_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tasks = tmp_path / "run", filing_questions(tmp_path / "data")
    with serving([Answer("busy", 500)]) as server:
        given = small(folder, *with_judge(server), tasks=tasks)
        assert main(given) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: {server.url}, model 'j': 500")
        keys = logged(folder)
        server.script = judging('{"verdict": "correct"}')
        assert main(given) == 0
    assert logged(folder) == keys and len(open_answers(folder)) == 3
