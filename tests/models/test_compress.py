"""The command that compresses documents: messages on standard output, all else on standard error."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from models.adapters import add_adapter, save_adapter
from models.compress import EXAMPLES, main, parse
from models.compress_job import bits
from models.compressor import Compressor, compress
from models.loading import load_model
from models.predictor import LocalPredictor, Query
from models.scorer import Scorer
from tests.local_server import Answer, chat, serving

MODEL = "miniature/qwen2-small"
PREDICTOR = "miniature/llama-medium"
DOCUMENT = "Patient record of Ms Korbex, ward 41.\n\nThe zinc was 52. Her gout needs Marlodd."
QUESTION = "What was the zinc?"


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "document.txt"
    path.write_text(DOCUMENT + "\n")
    return str(path)


def give(monkeypatch: pytest.MonkeyPatch, content: str | bytes) -> None:
    """Put something on standard input."""
    content = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def lines(path: Path, *records: Any) -> str:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))
    return str(path)


def answered(message: str) -> str:
    predictor = LocalPredictor(*load_model(PREDICTOR), max_answer_tokens=64)
    return predictor.answer([Query(message, QUESTION)])[0]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refusal says: one line, and nothing on standard output."""
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err.removeprefix("error: ").strip()


def test_the_command_prints_the_message_and_its_length(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([MODEL, "--document", document, "--question", QUESTION, "--budget", "12"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() and " tokens" in printed.err


def test_a_predictor_answers_from_the_message(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([MODEL, "--document", document, "--question", QUESTION, "--predictor", PREDICTOR]) == 0
    message, answer = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert answer == f"Answer: {answered(message)}"


def test_a_document_may_come_on_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, DOCUMENT)
    assert main([MODEL, "--document", "-", "--question", QUESTION, "--budget", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() and "note: the message has all 3 tokens of the budget and no end token" in printed.err


def test_a_message_that_ended_is_not_called_cut(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([MODEL, "--document", document, "--question", QUESTION, "--budget", "400", "--json"]) == 0
    printed = capsys.readouterr()
    (line,) = map(json.loads, printed.out.splitlines())
    assert line["ended"] and line["tokens"] < 400 and line["truncated_tokens"] == 0
    assert set(line) == {"question", "message", "tokens", "ended", "truncated_tokens", "bits"}
    assert "budget" not in printed.err and "warning" not in printed.err


def test_what_a_long_document_loses_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.txt"
    path.write_text("The zinc was 85 mg. " * 3000)
    assert main([MODEL, "--document", str(path), "--question", QUESTION, "--budget", "8"]) == 0
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith("warning: ") and "(91.5%) were cut out of the middle of the document" in warning


def test_json_lines_keep_their_order_and_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"context": f"The zinc was {40 + n}. The iron was 7.", "question": QUESTION, "id": n, "answers": [f"{40 + n}"]}
        for n in range(11)
    ]
    source = lines(tmp_path / "many.jsonl", *records[:5], "", *records[5:])
    assert main([MODEL, "--input", source, "--budget", "16", "--predictor", PREDICTOR]) == 0
    printed = capsys.readouterr()
    written = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["id"] for line in written] == list(range(11)) and "context" not in written[0]
    assert all(line["answers"] == [f"{40 + line['id']}"] for line in written)
    assert written[0]["answer"] == answered(written[0]["message"])
    assert all(math.isfinite(line["bits"]) and line["tokens"] <= 16 for line in written)
    assert "11 messages, " in printed.err
    alone = lines(tmp_path / "one.jsonl", records[7])
    assert main([MODEL, "--input", alone, "--budget", "16"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["message"] == written[7]["message"] and line["bits"] == pytest.approx(written[7]["bits"], abs=1e-3)


def test_bits_are_those_of_the_base_under_the_document_and_under_none() -> None:
    compressor = Compressor(*load_model(MODEL), budget_tokens=16)
    contexts, questions = [DOCUMENT, "The zinc was 7.", DOCUMENT], [QUESTION, QUESTION, "What is needed?"]
    messages = compressor.write(contexts, questions)
    scorer = Scorer(compressor.model, compressor.tokenizer, 1000)
    for index, found in enumerate(bits(compressor, contexts, questions, messages)):
        message = messages[index]
        row = scorer.fill(
            [message.token_ids], [questions[index]], [contexts[index], ""], torch.ones(1, 2) > 0, [message.ended]
        ).log_probs[0]
        assert found == pytest.approx((row[0] - row[1]).item() / math.log(2), abs=1e-3)


def test_every_wrong_line_is_named_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.compress.run", lambda *_: pytest.fail("a model would be loaded"))
    good = {"context": "The zinc was 41.", "question": QUESTION}
    wrong: list[Any] = [
        "{",
        "[]",
        {"question": QUESTION},
        good | {"context": " \n"},
        good | {"question": 7},
        good | {"options": "41"},
        {"context": "The zinc was 41."},
        '{"context": "a", "question": "b", "score": NaN}',
    ]
    source = lines(tmp_path / "wrong.jsonl", good, *wrong)
    said = refusal(capsys, MODEL, "--input", source)
    assert said.startswith(f"{source}: 8 of 9 lines cannot be used: line 2: broken JSON: ")
    assert all(f"line {number}: " in said for number in range(2, 10))
    assert "line 4: has no field 'context'; it has question" in said
    assert refusal(capsys, MODEL, "--input", lines(tmp_path / "one.jsonl", "{")).startswith(
        f"{tmp_path}/one.jsonl, line 1"
    )
    give(monkeypatch, b"\xff\xfe\n")
    assert refusal(capsys, MODEL, "--input", "-") == "-, line 1: is not UTF-8 text (byte 0)"
    assert "is empty" in refusal(capsys, MODEL, "--input", lines(tmp_path / "empty.jsonl"))
    assert "input 'none.jsonl': " in refusal(capsys, MODEL, "--input", "none.jsonl")


def test_questions_beyond_the_window_are_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"context": "The zinc was 41.", "question": QUESTION}
    source = lines(
        tmp_path / "long.jsonl", good, good | {"question": "then " * 9000}, good | {"question": "now " * 9000}
    )
    said = refusal(capsys, MODEL, "--input", source)
    assert said.startswith(f"{source}: 2 of 3 lines cannot be used: line 2: question 'then then") and "line 3: " in said


def test_a_blind_compressor_is_not_told_the_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = {"context": "The zinc was 41. The iron was 7."}
    source = lines(tmp_path / "blind.jsonl", context | {"question": QUESTION}, context | {"question": "And the iron?"})
    assert main([MODEL, "--input", source, "--blind", "--budget", "16"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["message"] == second["message"] and first["question"] != second["question"]
    assert main([MODEL, "--input", lines(tmp_path / "bare.jsonl", context), "--blind", "--budget", "16"]) == 0
    assert json.loads(capsys.readouterr().out)["message"] == first["message"]


def test_an_adapter_that_remembers_nothing_is_said(
    tmp_path: Path, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, tokenizer = load_model(MODEL)
    adapted = add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0)
    save_adapter(adapted, tokenizer, tmp_path / "old", MODEL)
    assert main([str(tmp_path / "old"), "--document", document, "--question", QUESTION]) == 0
    assert "has no shorthand.json" in capsys.readouterr().err
    settings = Compressor(adapted, tokenizer, 24).settings(MODEL, None, "")
    save_adapter(adapted, tokenizer, tmp_path / "new", MODEL, settings=settings)
    assert main([str(tmp_path / "new"), "--document", document, "--question", QUESTION, "--budget", "12"]) == 0
    assert "note: a budget of 12 tokens instead of the 24 that the adapter was trained with" in capsys.readouterr().err


def adapted_as(folder: Path, **settings: Any) -> str:
    """An adapter that changes nothing, and what it remembers of itself."""
    plain, tokenizer = load_model(MODEL)
    adapted = add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0)
    remembered = Compressor(adapted, tokenizer, 12).settings(MODEL, None, "In a word.")
    save_adapter(adapted, tokenizer, folder, MODEL, settings=remembered.model_copy(update=settings))
    return str(folder)


def test_an_adapter_answers_as_a_predictor_under_its_own_instruction(
    tmp_path: Path, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = adapted_as(tmp_path / "predictor", role="predictor")
    assert main([MODEL, "--document", document, "--question", QUESTION, "--predictor", predictor]) == 0
    message, answer = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    expected = LocalPredictor(*load_model(MODEL), max_answer_tokens=64, instruction="In a word.")
    assert answer == f"Answer: {expected.answer([Query(message, QUESTION)])[0]}"
    # Neither stands in the other's place.
    said = refusal(capsys, predictor, "--document", document, "--question", QUESTION)
    assert said == f"adapter {predictor!r}: makes a predictor of its model, not a compressor"
    compressor = adapted_as(tmp_path / "compressor")
    said = refusal(capsys, MODEL, "--document", document, "--question", QUESTION, "--predictor", compressor)
    assert said == f"predictor {compressor!r}: the adapter makes a compressor of its model"


def test_a_function_tells_no_question_to_an_adapter_that_was_told_none(tmp_path: Path) -> None:
    hidden = adapted_as(tmp_path / "hidden", question="hidden")
    first, second = (compress(DOCUMENT, question, hidden) for question in (QUESTION, "What does her gout need?"))
    assert first.text == second.text
    shown = adapted_as(tmp_path / "shown")
    assert compress(DOCUMENT, QUESTION, shown).text != first.text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no/such/folder", "--document", "-"], "model 'no/such/folder': no such folder"),
        ([MODEL, "--document", "-", "--model", "nothing"], "model 'nothing': no such folder"),
        ([MODEL, "--document", "-", "--predictor", "nothing"], "predictor 'nothing': no such folder"),
        (["miniature/qwen2-smal", "--document", "-"], "did you mean 'miniature/qwen2-small'?"),
        ([MODEL, "--document", "no-such-file.txt"], "document 'no-such-file.txt': "),
        ([MODEL, "--document", "."], "document '.': "),
        ([MODEL, "--document", "a\0b"], "document 'a\\x00b': "),
        ([MODEL, "--document", "-", "--budget", "0"], "budget_tokens must be at least 1, not 0"),
        ([MODEL, "--document", "-", "--budget", "5000"], "leaves no room for a context"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, "The zinc was 41.")
    assert reason in refusal(capsys, *arguments, "--question", "What?")


def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a predictor's server that is not there, which the first look tells without a wait."""
    monkeypatch.setattr("models.endpoint.transport.PROBE_WAITS", ())
    return "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("source", ["--document", "--input"])
def test_the_predictors_server_is_looked_at_before_a_model_is_loaded(
    source: str, document: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.compress_job.Work.load", lambda self: pytest.fail("a model would be loaded"))
    record = lines(tmp_path / "one.jsonl", {"context": DOCUMENT, "question": QUESTION})
    given = ["--document", document, "--question", QUESTION] if source == "--document" else ["--input", record]
    endpoint = closed(monkeypatch)
    said = refusal(capsys, MODEL, *given, "--predictor", "p", "--endpoint", endpoint)
    assert said.startswith(f"{endpoint}, model 'p': cannot be reached")
    said = refusal(capsys, MODEL, *given, "--predictor", "p", "--endpoint", "127.0.0.1:9")
    assert said.startswith("endpoint '127.0.0.1:9': should be a URL")


def test_what_is_written_is_printed_though_the_predictors_server_fails(
    document: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"context": f"The zinc was {40 + n}.", "question": f"{QUESTION} {n}"} for n in range(10)]
    source = lines(tmp_path / "many.jsonl", *records)
    with serving([*[Answer(chat("52 \ud800"))] * 8, Answer("no such model", 404)]) as server:
        to_server = ["--budget", "8", "--predictor", "p", "--endpoint", server.url]
        assert main([MODEL, "--input", source, *to_server]) == 2
        printed = capsys.readouterr()
        assert main([MODEL, "--document", document, "--question", QUESTION, *to_server]) == 2
    written = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["answer"] for line in written] == ["52 \ufffd"] * 8 + [None] * 2
    assert all(line["message"] and line["tokens"] <= 8 for line in written)
    assert printed.err.splitlines()[-1] == f"error: {server.url}, model 'p': 404: no such model"
    alone = capsys.readouterr()
    assert alone.out.strip() and alone.out.count("\n") == 1
    assert alone.err.splitlines()[-1] == f"error: {server.url}, model 'p': 404: no such model"


def test_an_answer_with_half_of_a_character_is_printed(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving([Answer(chat("52 \ud800!"))]) as server:
        arguments = [MODEL, "--document", document, "--question", QUESTION, "--budget", "3"]
        assert main([*arguments, "--predictor", "p", "--endpoint", server.url]) == 0
    assert capsys.readouterr().out.encode().decode().rstrip("\n").endswith("\nAnswer: 52 \ufffd!")


def test_fields_that_the_output_could_not_keep_are_named_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.compress.run", lambda *_: pytest.fail("a model would be loaded"))
    good = {"context": "The zinc was 41.", "question": QUESTION}
    infinite = '{"context": "a", "question": "b", "n": [1e400]}'
    source = lines(tmp_path / "lost.jsonl", good, good | {"tokens": 1, "message": ""}, infinite, good | {"bits": 2})
    said = refusal(capsys, MODEL, "--input", source)
    assert said.startswith(
        f"{source}: 3 of 4 lines cannot be used: line 2: field 'message', 'tokens' is what the output"
    )
    assert "line 3: 'n' holds a number that is too large for JSON" in said and "line 4: field 'bits' is" in said
    source = lines(tmp_path / "answer.jsonl", good | {"answer": "41"})
    assert "line 1: field 'answer' is" in refusal(capsys, MODEL, "--input", source, "--predictor", PREDICTOR)
    monkeypatch.setattr("models.compress.run", lambda *_: None)
    assert main([MODEL, "--input", source]) == 0


def test_closed_standard_streams_are_told(
    document: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.compress.run", lambda *_: pytest.fail("a model would be loaded"))
    monkeypatch.setattr("sys.stdin", None)
    assert refusal(capsys, MODEL, "--input", "-").startswith("--input -: standard input is closed")
    said = refusal(capsys, MODEL, "--document", "-", "--question", QUESTION)
    assert said.startswith("--document -: standard input is closed")
    monkeypatch.setattr("sys.stdout", None)
    said = refusal(capsys, MODEL, "--document", document, "--question", QUESTION)
    assert said.startswith("standard output is closed, so that a message would be lost")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no text"),
        (b" \n\t\n", "has no text"),
        (b"\xef\xbb\xbf", "has no text"),
        (b"\xff\xfe\x00", "'utf-8' codec"),
        ("Größe".encode("latin-1"), "'utf-8' codec"),
    ],
)
def test_a_document_without_text_is_refused(
    content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "document.bin"
    path.write_bytes(content)
    said = refusal(capsys, MODEL, "--document", str(path), "--question", "What?")
    assert said.startswith(f"document '{path}': ") and reason in said


def test_a_blank_question_is_refused(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, MODEL, "--document", document, "--question", " ")
    assert said.startswith("--question: 'question' should not be empty")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--document", "a"], "--question: is needed"),
        (["--document", "a", "--blind", "--predictor", PREDICTOR], "--question: is needed"),
        (["--input", "a", "--question", "What?"], "every line of --input has its own"),
        (["--input", "a", "--document", "b"], "not allowed with"),
        ([], "one of the arguments --document --input is required"),
        (["--input", "a", "--endpoint", "http://x/v1"], "--endpoint: needs --predictor"),
        (["--input", "a", "--answer-tokens", "0"], "should be at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([MODEL, *arguments])
    assert ended.value.code == 2 and reason in capsys.readouterr().err


def test_the_examples_of_the_help_are_command_lines() -> None:
    assert len(EXAMPLES) == 3
    for example in EXAMPLES:
        words = example.replace(f'"{QUESTION}"', "QUESTION").partition("models.compress ")[2].partition(" >")[0].split()
        parse(words)
