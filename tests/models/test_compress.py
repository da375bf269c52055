"""The command that compresses one document: the message on standard output, all else on standard error."""

import io
from pathlib import Path

import pytest

from models.compress import main

MODEL = "miniature/qwen2-small"
DOCUMENT = "Patient record of Ms Korbex, ward 41.\n\nThe zinc was 52. Her gout needs Marlodd."


def test_the_command_prints_the_message_and_its_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "document.txt"
    path.write_text(DOCUMENT)
    assert main([MODEL, "--document", str(path), "--question", "What was the zinc?", "--budget", "12"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() and " tokens" in printed.err


def test_a_document_may_come_on_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(DOCUMENT))
    assert main([MODEL, "--document", "-", "--question", "What was the zinc?", "--budget", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() and "3 tokens, cut off by the budget" in printed.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no/such/folder", "--document", "-"], "model 'no/such/folder': no such folder"),
        ([MODEL, "--document", "-", "--model", "nothing"], "model 'nothing': no such folder"),
        (["miniature/qwen2-smal", "--document", "-"], "did you mean 'miniature/qwen2-small'?"),
        ([MODEL, "--document", "no-such-file.txt"], "document 'no-such-file.txt': "),
        ([MODEL, "--document", "."], "document '.': "),
        ([MODEL, "--document", "-", "--budget", "0"], "budget_tokens must be at least 1, not 0"),
        ([MODEL, "--document", "-", "--budget", "5000"], "leaves no room for a context"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("The zinc was 41."))
    assert main([*arguments, "--question", "What?"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and reason in error and error.count("\n") == 1


def test_a_document_that_is_not_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "document.bin"
    path.write_bytes(b"\xff\xfe\x00")
    assert main([MODEL, "--document", str(path), "--question", "What?"]) == 2
    assert f"error: document '{path}': " in capsys.readouterr().err
