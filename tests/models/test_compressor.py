"""A compressor keeps to its budget, cuts what it cannot read, and loads from the folder of an adapter."""

from pathlib import Path

import pytest
import torch

from data.miniature.documents import make_document
from data.sample import Document, Question
from models.adapters import add_adapter, save_adapter
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
    writer = compressor()
    ids = writer.prompts.format.template_ids("The zinc<|user|> was 41.<|assistant|>")
    assert writer.text(ids) == "The zinc was 41."


def test_a_long_document_is_cut_in_the_middle_and_reads_without_further_cutting() -> None:
    reader = compressor(max_context_tokens=60)
    text = "First fact here. " + "The zinc was 41 on that day. " * 40 + "Last fact here."
    question = Question("q", "What was the zinc?", ("41",), "exact", negatives=(text.replace("41", "52"), "short"))
    document, cut = reader.fit(Document("d", "t", text, (question,)))
    assert cut > 0 and document.text.startswith("First fact") and document.text.endswith("Last fact here.")
    assert reader.prompt(document.text, "What?").truncated_tokens == 0
    assert len(reader.prompts.format.text_ids(document.text)) <= 60
    assert "52" in document.questions[0].negatives[0] and document.questions[0].negatives[1] == "short"


def test_a_document_that_fits_stays_as_it_is() -> None:
    document = make_document("miniature/chats", 1, "test", facts=8, questions=1)
    assert compressor().fit(document) == (document, 0)


def test_an_adapter_loads_from_its_folder_and_changes_the_messages(tmp_path: Path) -> None:
    plain, tokenizer = load_model(MODEL)
    adapted = add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(adapted, tokenizer, tmp_path, MODEL)
    document = make_document("miniature/pages", 2, "test", facts=10, questions=1, twins=0)
    question = document.questions[0].text
    trained = compress(document.text, question, tmp_path, budget_tokens=20)
    untrained = compress(document.text, question, MODEL, budget_tokens=20)
    assert trained.tokens <= 20 and trained.token_ids != untrained.token_ids


def test_an_adapter_that_names_no_base_needs_one(tmp_path: Path) -> None:
    plain, tokenizer = load_model(MODEL)
    save_adapter(add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0), tokenizer, tmp_path, "")
    with pytest.raises(ModelError, match=f"adapter '{tmp_path}' does not name its base model: pass one"):
        Compressor.load(tmp_path, 8)
    assert Compressor.load(tmp_path, 8, MODEL).budget_tokens == 8


def test_a_budget_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ModelError, match="leaves no room"):
        compressor(budget=5000)


def refused(document: str, question: str, budget: int = 64) -> str:
    """What the refusal of a prompt says, on one line."""
    with pytest.raises(ModelError) as caught:
        compressor(budget).write([document], [question])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_question_beyond_the_window_is_refused() -> None:
    asked = refused("The zinc was 85 mg.", "What was it " + "after the day " * 1500 + "?")
    assert "question 'What was it after the day " in asked and "the model reads 2048; shorten it" in asked


def test_a_question_that_leaves_no_room_for_its_document_is_refused() -> None:
    asked = refused("The zinc was 85 mg. " * 3000, "What was it " + "after the day " * 300 + "?")
    assert ", 1728 of the document" in asked and "max_context_tokens, now 1728" in asked
    assert compressor(4).write(["The zinc was 85 mg."], ["What was it " + "after the day " * 300 + "?"])[0].tokens <= 4


def test_the_last_question_that_fits_is_read() -> None:
    writer = compressor(4)
    frame = len(writer.prompt("zinc", "").ids)
    question = " zinc" * (writer.window - 4 - frame)
    assert len(writer.prompt("zinc", question).ids) + 4 == writer.window
    with pytest.raises(ModelError):
        writer.prompt("zinc", question + " zinc")
    assert writer.fits(["zinc"], question) and not writer.fits(["zinc zinc"], question)


def test_of_a_question_without_end_the_beginning_alone_is_read() -> None:
    writer = compressor()
    read: list[int] = []
    encode = writer.tokenizer.encode
    writer.tokenizer.encode = lambda text, **options: read.append(len(text)) or encode(text, **options)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="has more than "):
        writer.prompt("The zinc was 85 mg.", "after the day " * 1_000_000)
    assert max(read) < 40_000


@pytest.mark.parametrize("document", ["", " \n\t "])
def test_a_document_without_text_is_refused(document: str) -> None:
    with pytest.raises(ModelError, match="document 2 of 2 has no text"):
        compressor().write(["The zinc was 85 mg.", document], ["What?", "What?"])
