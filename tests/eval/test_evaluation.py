"""The evaluation of messages: parts, blind questions, questions without a metric, and batches."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data.arrangement import arranged
from data.errors import DataError
from data.sample import Document, Question, samples_of
from eval.analysis.density import summarise
from eval.config import load_config
from eval.evaluation import Evaluation, by_compressor
from eval.information import fits_window, measure
from eval.parts import Pieces, joined, parts_of
from eval.record import Origin, Record
from eval.record_log import open_log
from eval.stages import evaluation_of, identify
from models.channel import BoundScorer, Channel
from models.compressor import Compressor, Message
from models.loading import load_model
from models.naming import ModelError
from models.predictor import LocalPredictor
from models.scorer import Scorer
from objectives.negatives import NegativeCounts

MODEL = "miniature/qwen2-small"
EVALUATION = Evaluation(NegativeCounts(batch=2), batch_size=3, seed=0)
ORIGIN: Origin = {"stage": "after", "temperature": 0.0, "budget_tokens": 12}


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    return Compressor(*load_model(MODEL), budget_tokens=12)


@pytest.fixture(scope="module")
def channel(compressor: Compressor) -> Channel:
    model, tokenizer = load_model(MODEL)
    scorer = BoundScorer(Scorer(compressor.model, tokenizer, 500), shares_vocabulary=True)
    return Channel(LocalPredictor(model, tokenizer, 4), [scorer])


def question(number: int, metric: str = "numeric", blind: bool = False) -> Question:
    return Question(f"q{number}", f"What is value {number}?", (str(number),), metric, blind=blind)


def histories(count: int) -> list[Document]:
    parts = [tuple(f"user: note {n} of {m} says {n + m}." for n in range(2 + m % 2)) for m in range(count)]
    return [
        Document(f"d{m}", "chats", "\n\n".join(part), (question(m),), group=f"u{m}", parts=part)
        for m, part in enumerate(parts)
    ]


def batch_records(documents: Sequence[Document], compressor: Compressor, channel: Channel) -> list[Record]:
    return EVALUATION.batch(
        samples_of(list(documents)), by_compressor(compressor, 0.0, 0), channel, ORIGIN, list(documents)
    )


def test_each_part_is_compressed_by_itself_and_its_information_added(compressor: Compressor, channel: Channel) -> None:
    documents = histories(3)
    pieces = Pieces.of(samples_of(documents))
    samples = pieces.samples
    assert [piece.document.text for piece in samples] == [text for document in documents for text in document.parts]
    messages = by_compressor(compressor, 0.0, 0)(samples)
    columns = EVALUATION.columns(samples, parts_of(documents))
    alone = measure(channel.scorers, Pieces.of(samples), messages, columns)
    nats = [fields["information_nats"] or 0.0 for fields in alone.information]
    for number, record in enumerate(batch_records(documents, compressor, channel)):
        own = [row for row, owner in enumerate(pieces.owners) if owner == number]
        assert record["message_tokens"] == sum(messages[row].tokens for row in own)
        assert record["message"] == "\n\n".join(messages[row].text for row in own)
        assert record["information_nats"] == pytest.approx(sum(nats[row] for row in own), abs=1e-4)
        assert record["tokens"] == [token for row in own for token in alone.tokens[row]["tokens"]]


@pytest.mark.parametrize("ended", [(True, True), (True, False), (False, False)])
def test_joined_messages_cost_what_they_cost_apart(ended: tuple[bool, bool]) -> None:
    messages = [Message(f"m{i}", [1, 2, 3], end, []) for i, end in enumerate(ended)]
    assert joined(messages).tokens == sum(message.tokens for message in messages)
    assert joined(messages).text == "m0\n\nm1"


def test_the_predictor_reads_the_joined_messages(
    compressor: Compressor, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(channel.predictor, "answer", lambda queries: [asked.append(query) or "" for query in queries])
    made = batch_records(histories(3), compressor, channel)
    assert [query.message for query in asked] == [record["message"] for record in made]
    assert all("\n\n" in query.message for query in asked)


def test_a_blind_question_is_told_to_the_predictor_alone(
    compressor: Compressor, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, scored, written = [], [], []
    scorer = channel.scorers[0].scorer
    fill, write = scorer.fill, compressor.write
    monkeypatch.setattr(channel.predictor, "answer", lambda queries: [asked.append(query) or "" for query in queries])
    monkeypatch.setattr(scorer, "fill", lambda messages, q, *rest: scored.extend(q) or fill(messages, q, *rest))
    monkeypatch.setattr(compressor, "write", lambda c, q, **rest: written.extend(q) or write(c, q, **rest))
    documents = [Document(f"d{n}", "pages", f"Value {n} is {n}.", (question(n, blind=True),)) for n in range(3)]
    blind = batch_records(documents, compressor, channel)
    assert written == scored == ["", "", ""]
    assert [query.question for query in asked] == [f"What is value {n}?" for n in range(3)]
    monkeypatch.undo()
    questionless = [
        replace(document, questions=(replace(document.questions[0], text="", blind=False),)) for document in documents
    ]
    for record, other in zip(blind, batch_records(questionless, compressor, channel), strict=True):
        assert record["message"] == other["message"] and record["information_nats"] == other["information_nats"]


def test_without_a_metric_accuracy_is_missing(compressor: Compressor, channel: Channel) -> None:
    documents = [
        Document(f"d{n}", "pages", f"Value {n} is {n}.", (question(n, metric),))
        for n, metric in enumerate(("judge", "perplexity", "numeric"))
    ]
    records = batch_records(documents, compressor, channel)
    assert [record["accuracy"] is None for record in records] == [True, True, False]
    assert all(isinstance(record["answer_nll_nats"], float) for record in records)
    figures = summarise(records)["overall"]["after"]
    assert figures["missing"] == 2 and figures["perplexity"]["value"] is not None
    unscored = summarise(records[:2])["overall"]["after"]
    # Nobody measured an accuracy, so that nothing is missing.
    assert unscored["accuracy"]["value"] is None and unscored["missing"] == 0


def long_messages(compressor: Compressor, sizes: Sequence[int]) -> list[Message]:
    word = compressor.prompts.format.text_ids(" zinc")
    return [Message(" zinc" * size, word * size, True, []) for size in sizes]


def test_a_message_too_long_for_the_window_has_no_information_where_that_is_allowed(
    compressor: Compressor, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(f"d{n}", "pages", f"Value {n} is {n}.", (question(n),)) for n in range(3)]
    samples = samples_of(documents)
    origin: Origin = {"stage": "head", "temperature": None, "budget_tokens": 12}
    monkeypatch.setattr(channel.predictor, "answer", lambda queries: [""] * len(queries))

    def records(sizes: Sequence[int], allowed: bool) -> list[Record]:
        evaluation = replace(EVALUATION, skip_long_messages=allowed)
        written = long_messages(compressor, sizes)
        return evaluation.batch(samples, lambda _: written, channel, origin, documents)

    length = len(compressor.prompts.format.text_ids(" zinc"))
    with pytest.raises(ModelError, match="lower the context limit"):
        records([2, 2048 // length, 2], False)
    found = records([2, 2048 // length, 2], True)
    for number, record in enumerate(found):
        missing = number == 1
        assert (record["information_nats"] is None) == (record["saturated"] is None) == missing
        assert (record["token_bits"] is None) == (record["information_ceiling_nats"] is None) == missing
        assert record["message_tokens"] == len(record["tokens"])
    short = records([2, 3, 2], False)
    assert found[0]["information_nats"] == pytest.approx(short[0]["information_nats"], abs=1e-5)


def test_what_fits_the_window_to_the_token_is_scored(compressor: Compressor, channel: Channel) -> None:
    documents = [Document(f"d{n}", "pages", f"Value {n} is {n}.", (question(n),)) for n in range(2)]
    samples = samples_of(documents)
    columns = EVALUATION.columns(samples, documents)
    longest = max(len(compressor.prompts.prefix(document.text)[0]) for document in documents)
    room = 2048 - longest - max(len(compressor.prompts.suffix(sample.compressor_question)) for sample in samples) - 1
    for tokens, fits in ((room, True), (room + 1, False)):
        messages = [Message("", [5] * tokens, True, [])] * 2
        assert fits_window(channel.scorers[0], samples, messages, columns).all().item() == fits


def test_a_sample_without_any_other_context_is_refused_by_name() -> None:
    one = Document("d", "pages", "Value 1 is 1.", (question(1),))
    with pytest.raises(DataError, match=r"^pages, questions from 'pages/d/q1' on: .* no negative context"):
        EVALUATION.columns(samples_of([one]), [one])


def test_a_part_too_short_to_lose_a_part_is_told_from_others_alone(compressor: Compressor, channel: Channel) -> None:
    parts = ("Hi.", "user: the zinc is 5. user: the iron is 6.")
    documents = [
        Document(f"d{n}", "chats", "\n\n".join(parts), (question(n),), group=f"u{n}", parts=(f"Hi{n}.", parts[1] * n))
        for n in (1, 2)
    ]
    evaluation = Evaluation(NegativeCounts(same_document=1, batch=2), 4, 0)
    write = by_compressor(compressor, 0.0, 0)
    records = evaluation.batch(samples_of(documents), write, channel, ORIGIN, documents)
    # The short part has two negatives, the long one three.
    assert [r["information_ceiling_nats"] for r in records] == pytest.approx([math.log(3) + math.log(4)] * 2)


def test_batches_hold_one_task_and_documents_of_similar_length_whole() -> None:
    documents = [
        Document(f"d{n}", task, "word " * (1 + 7 * n % 5), tuple(question(q) for q in range(2)))
        for n in range(6)
        for task in ("a", "b")
    ]
    batches = Evaluation(NegativeCounts(batch=1), 4, 0).batches(samples_of(documents))
    assert sum(map(len, batches)) == 24
    for batch in batches:
        assert len({sample.document.task for sample in batch}) == 1
        assert len({sample.document.id for sample in batch}) == 2
    for task in ("a", "b"):
        lengths = [len(s.document.text) for batch in batches for s in batch if s.document.task == task]
        assert lengths == sorted(lengths)


def test_twins_are_columns_of_their_question_whatever_else_is_evaluated_with_it() -> None:
    documents = [
        Document(
            name,
            "records",
            f"The mill of {name} is old. It was built there in {year}. The owners sold flour and oats to the towns.",
            (Question("built", "When was the mill built?", (str(year),), "exact"),),
        )
        for name, year in (("Alpha", 1810), ("Beta", 1820), ("Gamma", 1830))
    ]
    evaluation, samples = Evaluation(NegativeCounts(twins=8), 4, 0), samples_of(documents)
    together = evaluation.columns(samples, documents)
    for number, sample in enumerate(samples):
        alone = evaluation.columns([sample], list(reversed(documents)))
        row = {together.contexts[column] for column in together.valid[number].nonzero()[:, 0].tolist()}
        assert row == set(alone.contexts) and len(row) == 9
        assert not row & {document.text for document in documents if document.id != sample.document.id}


def test_records_depend_on_the_questions_that_lend_evidence_to_twins() -> None:
    documents = histories(2)
    other = [replace(documents[0], questions=(question(7),)), documents[1]]
    for twins, differ in ((0, False), (4, True)):
        given = f"information.negatives={{counterfactual: 0, batch: 1, twins: {twins}}}"
        recipe = load_config("evaluation.yaml", ["compressor.adapter=null", given])
        identities = [identify(recipe, samples_of(lenders)) for lenders in (documents, other)]
        assert (identities[0] != identities[1]) == differ


def test_a_recipe_says_how_the_scorer_reads_documents_and_records_depend_on_it() -> None:
    built = [
        f"The mill of {name} is old. It was built in {year}. It burned." for name, year in (("Aby", 1810), ("Bo", 1820))
    ]
    asked = Question("built", "When was the mill built?", ("1810", "1820"), "exact")
    documents = [Document(text[12:14], "records", text, (asked,)) for text in built]
    samples, identities = samples_of(documents), []
    for given in ("evidence: in_place", "evidence: last", "evidence: last, context_words: 3"):
        negatives = "negatives: {counterfactual: 0, batch: 1, twins: 0}"
        recipe = load_config("evaluation.yaml", ["compressor.adapter=null", f"information={{{given}, {negatives}}}"])
        evaluation = evaluation_of(recipe)
        columns = evaluation.columns(samples[:1], documents)
        read = arranged(samples[0].document, samples[0].question, evaluation.arrangement).text
        assert columns.contexts[int(columns.own[0])] == read
        identities.append((read, identify(recipe, samples)))
    assert all(one[0] != two[0] and one[1] != two[1] for one, two in itertools.combinations(identities, 2))


def test_information_is_measured_for_as_many_questions_as_asked(
    compressor: Compressor, channel: Channel, tmp_path: Path
) -> None:
    samples, write = samples_of(histories(5)), by_compressor(compressor, 0.0, 0)
    some = replace(EVALUATION, information_questions=2)
    records = some.run(samples, write, channel, ORIGIN, open_log(tmp_path / "some", {}))
    every = EVALUATION.run(samples, write, channel, ORIGIN, open_log(tmp_path / "all", {}))
    measured = {record["id"] for record in records if record["information_nats"] is not None}
    assert measured == some.measured(samples) and len(measured) == 2 < len(records)
    for record, whole in zip(records, every, strict=True):
        assert record["prediction"] == whole["prediction"] and record["accuracy"] == whole["accuracy"]
        if record["id"] in measured:
            assert record["information_nats"] == pytest.approx(whole["information_nats"], abs=1e-4)
    assert not replace(EVALUATION, information_questions=0).measured(samples)
    assert EVALUATION.measured(samples) == {sample.id for sample in samples}
    assert summarise(records)["overall"]["after"]["accuracy"]["value"] is not None
