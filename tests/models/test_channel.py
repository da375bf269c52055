"""A channel hands messages to its predictor and to its scorers as each of them reads them."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch

from data.sample import Document, Question, Sample, samples_of
from models.channel import BoundScorer, Channel
from models.compressor import Compressor, Message
from models.loading import load_model
from models.predictor import AnswerScore, Query
from models.scorer import Scorer, Scores

EVERYTHING = torch.ones(3, 2, dtype=torch.bool)


class WrittenDown:
    """A predictor and a scorer that write down what they are asked."""

    def __init__(self) -> None:
        self.answered: list[Query] = []
        self.scored: list[tuple[Query, str]] = []
        self.filled: list[tuple[Any, ...]] = []

    def answer(self, queries: Sequence[Query]) -> list[str]:
        self.answered += queries
        return [query.message.upper() for query in queries]

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        pairs = list(zip(queries, answers, strict=True))
        self.scored += pairs
        return [AnswerScore(-float(len(query.message)), 1) for query, _ in pairs]

    def write(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        raise AssertionError("a channel writes nothing")

    def spells(self, token_ids: Sequence[int], text: str) -> bool:
        return True

    def fill(self, *arguments: Any) -> Scores:
        self.filled.append(arguments)
        return cast(Scores, "scores")


def samples() -> list[Sample]:
    """Two questions, the first of them for two messages."""
    options = ("41", "52")
    questions = (
        Question("zinc", "What was the zinc?", ("41", "41.0"), "exact", options=options),
        Question("iron", "What was the iron?", ("52",), "exact", blind=True),
    )
    first, second = samples_of([Document("d", "notes", "The zinc was 41. The iron was 52.", questions)])
    return [first, first, second]


MESSAGES = [Message("zinc 41", [5, 6], True, []), Message("zinc", [5], False, []), Message("", [], False, [])]


def bound(recorder: WrittenDown, shares_vocabulary: bool) -> BoundScorer:
    return BoundScorer(cast(Scorer, recorder), shares_vocabulary)


def test_the_predictor_answers_from_each_message_and_once_from_none_for_each_question() -> None:
    predictor = WrittenDown()
    readings = Channel(predictor, [bound(WrittenDown(), True)]).answer(samples(), MESSAGES)
    zinc, iron = ("What was the zinc?", ("41", "52")), ("What was the iron?", ())
    assert predictor.answered == [Query("zinc 41", *zinc), Query("zinc", *zinc), Query("", *iron)]
    assert readings.answers == ["ZINC 41", "ZINC", ""]
    nulls = [(Query("", *zinc), "41"), (Query("", *iron), "52")]
    messages = [(query, answer) for query, answer in zip(predictor.answered, ("41", "41", "52"), strict=True)]
    assert predictor.scored == [*nulls, *messages]
    assert [score and score.log_prob for score in readings.answer_scores] == [-7.0, -4.0, 0.0]
    assert [score and score.log_prob for score in readings.null_scores] == [0.0, 0.0, 0.0]


def test_gold_answers_are_scored_where_that_is_asked_for() -> None:
    predictor = WrittenDown()
    channel = Channel(predictor, [bound(WrittenDown(), True)])
    readings = channel.answer(samples(), MESSAGES, score_gold=False)
    assert readings.answers == ["ZINC 41", "ZINC", ""] and predictor.scored == []
    assert readings.answer_scores == readings.null_scores == [None, None, None]


def test_a_scorer_reads_token_ids_where_it_shares_the_vocabulary_and_text_elsewhere() -> None:
    for shares_vocabulary, messages in ((True, [[5, 6], [5], []]), (False, ["zinc 41", "zinc", ""])):
        recorder = WrittenDown()
        scorer = bound(recorder, shares_vocabulary)
        assert scorer.score(samples(), MESSAGES, ["a", "b"], EVERYTHING) == "scores"
        assert recorder.filled[0][0] == messages


def test_a_scorer_holds_the_questions_fixed_that_the_compressor_was_shown() -> None:
    recorder = WrittenDown()
    bound(recorder, True).score(samples(), MESSAGES, ["a", "b"], EVERYTHING)
    _, questions, contexts, valid, _ = recorder.filled[0]
    # A blind question is shown to the predictor alone.
    assert questions == ["What was the zinc?", "What was the zinc?", ""]
    assert contexts == ["a", "b"] and valid is EVERYTHING


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    return Compressor(*load_model("miniature/qwen2-small"), budget_tokens=12)


def scored(compressor: Compressor, ids: list[int], ended: bool, shares_vocabulary: bool = True) -> list[int]:
    """The token ids that are scored of a message."""
    scorer = BoundScorer(Scorer(compressor.model, compressor.tokenizer, 1000), shares_vocabulary)
    message = Message(compressor.text(ids), ids, ended, [])
    scores = scorer.score(samples()[:1], [message], ["The zinc was 41.", "None."], EVERYTHING[:1])
    assert scores.log_probs.isfinite().all()
    return scores.token_ids[0]


def test_what_is_scored_is_what_the_predictor_is_shown(compressor: Compressor) -> None:
    chat, end = compressor.prompts.format, [compressor.end_token_id]
    shown = chat.text_ids("The zinc was 41.")
    assert scored(compressor, shown, True) == shown + end
    assert scored(compressor, chat.text_ids(" The zinc was 41."), True) == chat.text_ids(" The zinc was 41.") + end
    for hidden in ("The zinc<|user|> was 41.", "<|assistant|>The zinc was 41.", "The zinc was 41.\n\n<|user|>\n"):
        assert scored(compressor, chat.template_ids(hidden), True) == shown + end
    # Another tokenisation of the very text that is shown stays as it was written.
    letters = [index for letter in "zinc" for index in chat.text_ids(letter)]
    assert letters != chat.text_ids("zinc") and scored(compressor, letters, False) == letters


@pytest.mark.parametrize("shares_vocabulary", [True, False])
@pytest.mark.parametrize("text", ["\n\n", "<|user|><|user|>", " "])
def test_a_message_of_which_nothing_is_shown_is_scored_as_an_empty_one(
    compressor: Compressor, shares_vocabulary: bool, text: str
) -> None:
    ids = compressor.prompts.format.template_ids(text)
    assert ids and scored(compressor, ids, False, shares_vocabulary) == [compressor.end_token_id]


def test_a_message_without_any_token_is_scored_as_an_ended_one() -> None:
    recorder = WrittenDown()
    bound(recorder, True).score(samples(), MESSAGES, ["a", "b"], EVERYTHING)
    assert recorder.filled[0][4] == [True, False, True]


def test_the_first_scorer_of_a_channel_is_the_one_that_scores() -> None:
    first, second = WrittenDown(), WrittenDown()
    Channel(first, [bound(first, True), bound(second, True)]).score(samples(), MESSAGES, ["a", "b"], EVERYTHING)
    assert len(first.filled) == 1 and second.filled == []
