import io
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from data.miniature.documents import make_document
from data.sample import Document, Question
from models.compress import main
from models.compressor import Compressor, compress
from models.loading import load_model
from models.naming import ModelError

MODEL = "miniature/qwen2-small"


def compressor(budget: int = 48, max_context_tokens: int | None = None) -> Compressor:
    model, tokenizer = load_model(MODEL)
    return Compressor(model, tokenizer, budget, max_context_tokens)


def test_a_message_never_exceeds_its_budget() -> None:
    document = make_document("miniature/notes", 3, "test", facts=12, questions=3, twins=0)
    for budget in (1, 2, 7, 30):
        messages = compressor(budget).write(
            [document.text] * 3, [q.text for q in document.questions], 4, temperature=1.0, seeds=[1, 2, 3]
        )
        assert len(messages) == 12 and max(message.tokens for message in messages) <= budget


def test_control_tokens_that_a_model_writes_do_not_reach_the_message() -> None:
    one = compressor()
    ids = one.prompts.format.template_ids("The zinc<|user|> was 41.<|assistant|>")
    assert one.text(ids) == "The zinc was 41."


def test_a_long_document_is_cut_in_the_middle_and_reads_without_further_cutting() -> None:
    one = compressor(max_context_tokens=60)
    text = "First fact here. " + "The zinc was 41 on that day. " * 40 + "Last fact here."
    question = Question("q", "What was the zinc?", ("41",), "exact", negatives=(text.replace("41", "52"), "short"))
    document, cut = one.fit(Document("d", "t", text, (question,)))
    assert cut > 0 and document.text.startswith("First fact") and document.text.endswith("Last fact here.")
    assert one.prompt(document.text, "What?").truncated_tokens == 0
    assert len(one.prompts.format.text_ids(document.text)) <= 60
    assert "52" in document.questions[0].negatives[0] and document.questions[0].negatives[1] == "short"


def test_a_document_that_fits_stays_as_it_is() -> None:
    document = make_document("miniature/chats", 1, "test", facts=8, questions=1)
    assert compressor().fit(document) == (document, 0)


def test_an_adapter_loads_from_its_folder_and_changes_the_messages(tmp_path: Path) -> None:
    base, _ = load_model(MODEL)
    base.name_or_path = MODEL
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = MODEL
    adapted.save_pretrained(str(tmp_path))
    document = make_document("miniature/pages", 2, "test", facts=10, questions=1, twins=0)
    question = document.questions[0].text
    trained = compress(document.text, question, tmp_path, budget_tokens=20)
    untrained = compress(document.text, question, MODEL, budget_tokens=20)
    assert trained.tokens <= 20 and trained.token_ids != untrained.token_ids


def test_the_command_prints_the_message_and_its_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "document.txt"
    path.write_text("Patient record of Ms Korbex, ward 41.\n\nThe zinc was 52. Her gout needs Marlodd.")
    assert main([MODEL, "--document", str(path), "--question", "What was the zinc?", "--budget", "12"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() and " tokens" in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/folder", "--document", "-"], "no such folder"),
        ([MODEL, "--document", "no-such-file.txt"], "no-such-file.txt"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("The zinc was 41."))
    assert main([*arguments, "--question", "What?"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_budget_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ModelError, match="leaves no room"):
        compressor(budget=5000)
