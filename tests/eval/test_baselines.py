"""Messages that nobody trained: planted sentences, budgets over random text, and the packages' own answers."""

import random
import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import bm25s
import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from data.miniature.documents import make_document
from data.sample import samples_of
from data.sentences import sentences
from eval.baselines.retrieval import Embedder, Retrieval, bm25_relevance, words
from eval.baselines.writers import GAP, Baseline, Budget, FullContext, LLMLingua2, NoContext, Truncation
from models.channel import BoundScorer, Channel
from models.loading import load_model
from models.naming import ModelError
from models.predictor import LocalPredictor
from models.scorer import Scorer

MODEL = "miniature/qwen2-small"
ALPHABET = "aB c, d.e! f?\n\n0 9- •·。！」 中文字 éß ŋ مرحبا हिन्दी 👩‍🚀🇩🇪\t|\u2028\u00a0…Dr. <|end|><|user|>"


def tokenizer() -> PreTrainedTokenizerBase:
    return load_model(MODEL)[1]


def random_text(generator: random.Random, length: int) -> str:
    return "".join(generator.choice(ALPHABET) for _ in range(length))


def bm25(reader: PreTrainedTokenizerBase) -> Retrieval:
    return Retrieval(reader, "bm25", bm25_relevance)


def embedding() -> Retrieval:
    model, reader = load_model(MODEL)
    return Retrieval(reader, "embedding", Embedder(model, reader).relevance)


def baselines() -> list[Baseline]:
    reader = tokenizer()
    cuts = [Truncation(reader, "head"), Truncation(reader, "middle")]
    return [NoContext(reader), FullContext(reader), *cuts, bm25(reader), embedding()]


def test_no_baseline_exceeds_a_budget_on_random_text() -> None:
    generator = random.Random(0)
    texts = [random_text(generator, generator.randrange(0, 400)) for _ in range(12)]
    questions = [random_text(generator, 20) for _ in texts]
    measure = Budget(tokenizer())
    for baseline in baselines():
        for budget in (1, 2, 3, 9, 40, 200):
            messages = baseline.write(texts, questions, budget)
            assert len(messages) == len(texts)
            for message in messages:
                assert message.tokens <= budget, (baseline.name, budget, message)
                assert message.ended and message.log_probs == []
                assert message.token_ids == measure.format.text_ids(message.text)


def test_a_budget_that_holds_the_whole_document_makes_every_baseline_the_document() -> None:
    document = make_document("miniature/filings", 3, "test", facts=12, questions=2, twins=0)
    for baseline in baselines()[1:]:
        (message,) = baseline.write([document.text], ["What was the rent?"], 1000)
        assert message.text == document.text.strip() and message.truncated_tokens == 0


def test_the_head_is_a_beginning_of_the_text_with_no_room_for_a_character_more() -> None:
    measure = Budget(tokenizer())
    text = make_document("miniature/papers", 1, "test", facts=12, questions=1).text
    for budget in (2, 5, 17, 64):
        head = measure.head(text, budget)
        assert text.startswith(head) and measure.holds(head, budget)
        rest = text[len(head) :].lstrip()
        gap = text[len(head) : len(text) - len(rest)]
        assert not measure.holds(head + gap + rest[0], budget)


def test_the_middle_cut_keeps_both_ends() -> None:
    text = "First words. " + "The zinc was 41 on that day. " * 40 + "Last words."
    (message,) = Truncation(tokenizer(), "middle").write([text], ["?"], 40)
    head, tail = message.text.split(GAP)
    assert text.startswith(head) and text.endswith(tail) and abs(len(head) - len(tail)) < 5
    assert message.tokens > 35


def test_full_context_beyond_its_budget_says_how_much_it_lost() -> None:
    text = "The zinc was 41 on that day. " * 40
    reader = tokenizer()
    whole, cut = (FullContext(reader).write([text], ["?"], budget)[0] for budget in (1000, 50))
    assert whole.truncated_tokens == 0 and cut.tokens <= 50
    assert cut.truncated_tokens == whole.tokens - cut.tokens


def test_a_budget_without_room_for_the_end_token_is_refused() -> None:
    for baseline in baselines():
        with pytest.raises(ValueError, match="budget_tokens must be at least 1, not 0"):
            baseline.write(["text"], ["question"], 0)


def test_bm25_finds_the_planted_sentence_anywhere_in_the_document() -> None:
    filler = make_document("miniature/pages", 1, "test", facts=20, questions=1, twins=0).text
    planted = "The quartermaster keeps 417 lanterns."
    pieces = sentences(filler)
    for place in (0, len(pieces) // 2, len(pieces)):
        text = " ".join([*pieces[:place], planted, *pieces[place:]])
        (message,) = bm25(tokenizer()).write([text], ["How many lanterns does the quartermaster keep?"], 40)
        assert planted in message.text


def test_bm25_answers_most_questions_of_the_embedded_suite_within_a_fifth_of_the_document() -> None:
    documents = [make_document("miniature/filings", seed, "test", facts=24, questions=4, twins=0) for seed in range(5)]
    samples = [sample for sample in samples_of(documents) if sample.question.evidence]
    contexts = [sample.document.text for sample in samples]
    messages = bm25(tokenizer()).write(contexts, [sample.question.text for sample in samples], 100)
    found = [all(e in m.text for e in s.question.evidence) for s, m in zip(samples, messages, strict=True)]
    assert np.mean(found) > 0.9


def test_bm25_ranks_as_bm25s_itself_retrieves() -> None:
    document = make_document("miniature/chats", 2, "test", facts=20, questions=6, twins=0)
    pieces, questions = sentences(document.text), [question.text for question in document.questions]
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index([words(piece) for piece in pieces], show_progress=False)
    queries = [words(question) for question in questions]
    order, scores = index.retrieve(queries, k=len(pieces), show_progress=False)
    ours = bm25_relevance(pieces, questions)
    for row, ranking, expected in zip(ours, order, scores, strict=True):
        assert np.array_equal(row[ranking].astype(np.float32), expected)
        assert sorted(row, reverse=True) == pytest.approx(list(expected))


def test_a_document_is_indexed_once_for_all_its_questions_and_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = bm25s.BM25.index
    monkeypatch.setattr(bm25s.BM25, "index", lambda *args, **kwargs: built.append(1) or original(*args, **kwargs))
    one = bm25(tokenizer())
    texts = ["Zinc was 41. Iron was 7.", "Copper was 3. Tin was 9."]
    for budget in (4, 12, 30):
        one.write([texts[0], texts[1], texts[0]], ["Zinc?", "Tin?", "Iron?"], budget)
    assert len(built) == 2


def test_sentences_come_whole_and_in_the_order_of_the_document() -> None:
    text = "Iron was 7.\nThe zinc was 41 on Monday. Nothing else. The zinc again was 52.\n"
    reader = tokenizer()
    best = "The zinc was 41 on Monday. The zinc again was 52."
    budget = len(Budget(reader).format.text_ids(best)) + 1
    (message,) = bm25(reader).write([text], ["What was the zinc on which day again?"], budget)
    assert message.text == best


def test_where_no_sentence_fits_the_head_of_the_best_is_taken() -> None:
    text = "Iron was 7 mg on a Sunday. The zinc was 41 mg on a Monday. Tin was 9 mg on a Tuesday."
    (message,) = bm25(tokenizer()).write([text], ["What was the zinc?"], 6)
    assert message.text and "The zinc was 41 mg on a Monday.".startswith(message.text)


def test_a_question_that_shares_no_word_takes_sentences_from_the_start() -> None:
    text = "Iron was 7. Zinc was 41. Tin was 9."
    assert bm25_relevance(sentences(text), ["Quoi?", "", "..."]).tolist() == [[0.0] * 3] * 3
    reader = tokenizer()
    budget = len(Budget(reader).format.text_ids("Iron was 7. Zinc was 41.")) + 1
    assert bm25(reader).write([text], ["Quoi?"], budget)[0].text == "Iron was 7. Zinc was 41."


def test_a_text_without_words_has_no_index_and_no_relevance() -> None:
    assert bm25_relevance(["...", "!"], ["What?"]).tolist() == [[0.0, 0.0]]
    assert bm25(tokenizer()).write(["", "..."], ["What?"] * 2, 9)[0].text == ""


def test_words_keep_single_digits_and_split_scripts_without_spaces() -> None:
    assert words("The pH was 7, B12 5.") == ["the", "ph", "was", "7", "b12", "5"]
    assert words("锌是41。") == ["锌", "是", "41"]


def test_embeddings_are_mean_states_whatever_else_is_in_the_batch() -> None:
    model, reader = load_model(MODEL)
    texts = ["The zinc was 41.", "Tin.", "", "A rather longer sentence about the harbour and its castle on the hill."]
    together = Embedder(model, reader).embed(texts)
    for text, row in zip(texts, together, strict=True):
        if text:
            alone = model.base_model(torch.tensor([reader.encode(text)])).last_hidden_state[0].mean(0)
            assert torch.allclose(row, alone, atol=1e-4)
    assert together[2].abs().sum() == 0


def test_a_text_beyond_the_window_is_embedded_in_pieces() -> None:
    model, reader = load_model(MODEL)
    ids = reader.encode("The zinc was 41 on that day. " * 8)
    whole = Embedder(model, reader, max_tokens_per_pass=16).embed([str(reader.decode(ids))])
    states = [model.base_model(torch.tensor([ids[i : i + 16]])).last_hidden_state[0] for i in range(0, len(ids), 16)]
    assert torch.allclose(whole[0], torch.cat(states).mean(0), atol=1e-4)


def test_a_sentence_is_closest_to_itself_by_embedding() -> None:
    model, reader = load_model(MODEL)
    pieces = [
        piece.strip() for piece in sentences(make_document("miniature/notes", 1, "test", facts=10, questions=1).text)
    ]
    cosines = Embedder(model, reader).relevance(pieces, pieces)
    assert np.allclose(cosines.diagonal(), 1.0, atol=1e-6)
    assert (cosines.max(axis=1) <= 1 + 1e-9).all() and (cosines.min() < 0)


def test_a_baselines_messages_are_answered_from_and_scored_like_a_compressors() -> None:
    document = make_document("miniature/filings", 1, "test", facts=10, questions=2, twins=0)
    samples = samples_of([document])
    model, reader = load_model(MODEL)
    channel = Channel(LocalPredictor(model, reader, 8), [BoundScorer(Scorer(model, reader, 1500), True)])
    for baseline in baselines():
        messages = baseline.write([document.text] * 2, [sample.question.text for sample in samples], 24)
        scores = channel.score(samples, messages, [document.text, ""], torch.ones(2, 2, dtype=torch.bool))
        assert scores.log_probs.isfinite().all() and len(channel.answer(samples, messages).answers) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zinc was 4.1 today. Iron was 7! Was it? Yes.", ["Zinc was 4.1 today.", "Iron was 7!", "Was it?", "Yes."]),
        ("Dr. J. Smith gave 5 mg, e.g. twice. He left.", ["Dr. J. Smith gave 5 mg, e.g. twice.", "He left."]),
        ('He said "stop." Then (so to say.) he went.', ['He said "stop."', "Then (so to say.) he went."]),
        ("Zinc rose. \nit fell.\n\niron", ["Zinc rose.", "it fell.", "iron"]),
        ("Title\n\nA line\n- one\n- two", ["Title", "A line", "- one", "- two"]),
        ("| a | 1 |\n|---|---|\n| b | 2 |", ["| a | 1 |", "|---|---|", "| b | 2 |"]),
        ("Goals: • eat • sleep", ["Goals:", "• eat", "• sleep"]),
        ("1. First thing. Done.\n2. Second", ["1. First thing.", "Done.", "2. Second"]),
        ("锌是41。铁是7！好", ["锌是41。", "铁是7！", "好"]),
        ("  \n leading", ["leading"]),
        ("", []),
        ("   ", [""]),
    ],
)
def test_text_is_cut_at_sentences_lines_bullets_and_rows(text: str, expected: list[str]) -> None:
    assert [piece.strip() for piece in sentences(text)] == expected


def test_sentences_joined_are_the_text_again() -> None:
    generator = random.Random(1)
    for _ in range(300):
        text = random_text(generator, generator.randrange(0, 200))
        assert "".join(sentences(text)) == text


def test_long_runs_of_marks_and_spaces_are_cut_in_linear_time() -> None:
    # Backtracking over each run anew would take hours here.
    for run in (".", " ", "。", "\n", ".)", "• "):
        assert "".join(sentences(run * 200_000)) == run * 200_000


def test_llmlingua_that_is_not_installed_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llmlingua", None)
    with pytest.raises(ModelError, match="LLMLingua-2 needs a package: pip install llmlingua"):
        LLMLingua2(tokenizer())


class HalfHearted:
    """A stand-in for ``llmlingua.PromptCompressor`` that keeps twice as many words as it is asked for."""

    rates: ClassVar[list[float]] = []

    def __init__(self, model_name: str, device_map: str, model_config: dict[str, Any], use_llmlingua2: bool) -> None:
        assert use_llmlingua2 and not model_config["trust_remote_code"]

    def compress_prompt(
        self, context: str, *, rate: float, force_tokens: list[str], drop_consecutive: bool
    ) -> dict[str, Any]:
        assert 0 < rate <= 1
        self.rates.append(rate)
        kept = context.split()
        return {"compressed_prompt": " ".join(kept[: max(1, round(2 * rate * len(kept)))])}


def test_llmlingua_is_asked_for_a_lower_rate_until_the_budget_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llmlingua", SimpleNamespace(PromptCompressor=HalfHearted))
    monkeypatch.setattr(HalfHearted, "rates", [])
    one = LLMLingua2(tokenizer())
    text = "The zinc was 41 on that day. " * 20
    for budget in (1, 2, 10, 60, 1000):
        message = one.write([text, text], ["a", "b"], budget)[0]
        assert message.tokens <= budget and (
            budget < 10 or message.tokens > budget // 3 or message.text == text.strip()
        )
    assert 0 < len(HalfHearted.rates) < 15
