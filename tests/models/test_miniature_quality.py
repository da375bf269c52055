"""The measurement of the embedded members: what a message is judged by, intervals, and what released members can do."""

import random

import numpy as np
import pytest

from data.miniature.documents import NOT_STATED, SHAPES, make_layout
from data.miniature.papers import PAPERS
from models.compressor import Compressor, Message
from models.loading import load_model
from models.miniature import quality
from models.miniature.corpus import restate
from models.miniature.members import MEMBERS
from models.miniature.quality import (
    ALL,
    Claim,
    HeldOutCase,
    Observation,
    draw_cases,
    lookup_observations,
    mean_with_interval,
    message_observations,
    predictor_observations,
    read_claims,
    summarise,
)
from models.naming import miniature_members
from models.predictor import LocalPredictor, Query

pytestmark = pytest.mark.command

needs_weights = pytest.mark.skipif(not miniature_members(), reason="no member of the family has been released")
SHALLOW = "qwen2-shallow"
PAIRS = [member for member in miniature_members() if MEMBERS[member].role == "pair" and member != SHALLOW]
each_member = pytest.mark.parametrize("member", PAIRS or ["none"])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_sentence_of_a_message_is_read_back(shape: str) -> None:
    generator = random.Random(3)
    for seed in range(30):
        layout, _ = make_layout(SHAPES[shape], seed, "test", 20, 0.0)
        facts = generator.sample(layout.facts, 6)
        absent = next(k for r in SHAPES[shape].relations for k in r.keys if k not in {f.key for f in layout.facts})
        message = restate([NOT_STATED.format(k=absent), *(fact.statement for fact in facts)], generator)
        claims, rest = read_claims(shape, message)
        assert set(claims) == {Claim(absent, None), *(Claim(fact.key, fact.value) for fact in facts)}
        assert len(claims) == 7
        assert rest == ""


def test_what_is_no_sentence_of_the_shape_is_left_over() -> None:
    claims, rest = read_claims("miniature/notes", "Summary. The zinc was 12. The moon was 13. The zinc was")
    assert claims == [Claim("zinc", "12")]
    assert rest == "The moon was 13. The zinc was"


def message_measures(case: HeldOutCase, text: str, ended: bool = True) -> dict[str, list[float]]:
    message = Message(text, [0] * 9, ended, [])
    measures: dict[str, list[float]] = {}
    for observation in message_observations("m", case, message):
        measures.setdefault(observation.measure.removeprefix("m/"), []).append(observation.value)
    return measures


def test_a_message_is_judged_against_its_document() -> None:
    case = next(c for c in draw_cases(1, 9, shapes=["miniature/notes"]) if c.fact and c.fact.relation.value == "number")
    assert case.fact is not None
    right, wrong = case.needed, f"The {case.key} was {(int(case.fact.value) - 9) % 90 + 10}."
    unasked = next(fact.statement for fact in case.layout.facts if fact.key != case.key)
    good = message_measures(case, f"Summary. {unasked} {right}")
    assert good == {
        "kept": [1.0],
        "contradicted": [0.0],
        "message_tokens": [10.0],
        "facts": [2.0],
        "malformed": [0.0],
        "honest": [1.0, 1.0],
    }
    assert message_measures(case, unasked)["kept"] == [0.0]
    assert message_measures(case, unasked)["contradicted"] == [0.0]
    both = message_measures(case, f"{right} {wrong}")
    assert (both["kept"], both["contradicted"], sorted(both["honest"])) == ([0.0], [1.0], [0.0, 1.0])
    cut = message_measures(case, right, ended=False)
    assert (cut["malformed"], cut["message_tokens"]) == ([1.0], [9.0])
    assert message_measures(case, "")["facts"] == [0.0]
    assert "honest" not in message_measures(case, "")


def test_saying_that_a_fact_is_not_stated_is_true_only_where_it_is_not() -> None:
    cases = draw_cases(30, 6, shapes=[PAPERS.name])
    absent = next(case for case in cases if case.fact is None)
    assert message_measures(absent, NOT_STATED.format(k=absent.key))["kept"] == [1.0]
    present = next(case for case in cases if case.fact is not None)
    assert message_measures(present, NOT_STATED.format(k=present.key))["contradicted"] == [1.0]


def test_cases_are_reproducible_held_out_and_never_those_of_evaluation() -> None:
    cases = draw_cases(documents=2, questions=3)
    assert cases == draw_cases(documents=2, questions=3)
    assert {case.layout.split for case in cases} == {"test"}
    assert {case.document for case in cases}.isdisjoint(case.document for case in draw_cases(2, 3, seed=1))
    assert all(int(case.document.rpartition("/")[2]) >= quality.FIRST_SEED for case in cases)
    answered = [case for case in cases if case.fact and case.question.kind != "open"]
    assert all(case.question.answers == (case.fact.value,) for case in answered if case.fact)


class Echo:
    """Answers with whatever value the message gives for the asked key, and gives nothing away otherwise."""

    def __init__(self, cases: list[HeldOutCase]) -> None:
        self.cases = cases

    def answer(self, queries: list[Query]) -> list[str]:
        answers = []
        for case, query in zip(self.cases, queries, strict=True):
            stated = case.needed in query.message
            answers.append(case.question.answers[0] if stated else "nothing")
        return answers


def test_a_perfect_reader_scores_one_with_the_fact_and_nothing_without() -> None:
    cases = draw_cases(documents=4, questions=5)
    means = summarise(predictor_observations(Echo(cases), cases, seed=0))  # type: ignore[arg-type]
    assert means["accuracy_with_fact"][ALL].value == means["exact_with_fact"][ALL].value == 1.0
    assert means["accuracy_without_fact"][ALL].value == 0.0
    assert set(means["chance"]) >= {ALL, *SHAPES, "number", "name", "yes_no"}
    assert means["chance"]["miniature/notes"].value == pytest.approx(1 / 5)
    assert means["chance"]["yes_no"].value == pytest.approx(1 / 2)


def test_an_interval_resamples_documents_and_not_questions() -> None:
    values = np.array([1.0, 0.0] * 20)
    alone = mean_with_interval(values, [str(index) for index in range(40)], share=True)
    doubled = mean_with_interval(values.repeat(50), [str(index) for index in np.arange(40).repeat(50)], share=True)
    assert (doubled.low, doubled.high) == pytest.approx((alone.low, alone.high))
    assert (doubled.n, doubled.documents) == (2000, 40)
    # Closed form: a mean of 40 independent draws of standard deviation 1/2.
    assert alone.value == 0.5
    assert alone.low == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(40), abs=0.03)
    assert alone.high == pytest.approx(0.5 + 1.96 * 0.5 / np.sqrt(40), abs=0.03)


def test_an_interval_of_a_share_that_never_failed_is_the_exact_binomial_one() -> None:
    sure = mean_with_interval(np.ones(60), [str(index // 2) for index in range(60)], share=True)
    assert (sure.value, sure.low, sure.high) == (1.0, pytest.approx(0.025 ** (1 / 30)), 1.0)
    never = mean_with_interval(np.zeros(60), [str(index // 2) for index in range(60)], share=True)
    assert (never.value, never.low, never.high) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 30)))
    counted = mean_with_interval(np.ones(4), list("abcd"), share=False)
    assert (counted.low, counted.high) == (1.0, 1.0)


def test_a_mean_goes_to_every_group_of_its_observation() -> None:
    observations = [Observation("x", float(i), str(i), (ALL, "odd" if i % 2 else "even")) for i in range(5)]
    means = {group: mean.value for group, mean in summarise(observations)["x"].items()}
    assert means == {ALL: 2.0, "even": 2.0, "odd": 2.0}
    assert summarise(observations)["x"]["odd"].n == 2


@needs_weights
@each_member
def test_a_member_answers_what_its_message_holds_and_guesses_what_it_lacks(member: str) -> None:
    model, tokenizer = load_model(f"miniature/{member}")
    cases = draw_cases(documents=4, questions=4, seed=1)
    predictor = LocalPredictor(model, tokenizer, quality.MAX_ANSWER_TOKENS)
    means = summarise(predictor_observations(predictor, cases, seed=1))
    assert means["accuracy_with_fact"][ALL].value >= 0.9
    open_ended = ("miniature/filings", "miniature/pages", "miniature/chats")
    assert np.mean([means["accuracy_without_fact"][group].value for group in open_ended]) <= 0.1
    # One of five options: 16 questions at chance have a standard error of a tenth.
    assert means["accuracy_without_fact"]["miniature/notes"].value <= 1 / 5 + 3 / 10


@needs_weights
@each_member
def test_a_member_finds_a_value_by_its_key_and_writes_honest_messages(member: str) -> None:
    model, tokenizer = load_model(f"miniature/{member}")
    compressor = Compressor(model, tokenizer, quality.MAX_MESSAGE_TOKENS)
    cases = draw_cases(documents=3, questions=4, facts=16, seed=1)
    lookup = summarise(lookup_observations(compressor, cases, "lookup"))["lookup"][ALL]
    assert lookup.value >= 0.85
    contexts = [case.layout.render() for case in cases]
    messages = compressor.write(contexts, [case.question.text for case in cases], 1, 1.0, list(range(len(cases))))
    means = summarise(
        observation
        for case, message in zip(cases, messages, strict=True)
        for observation in message_observations("sampled", case, message)
    )
    # A tenth of a million parameters misread one fact in seven of those they sample, and so do members that have read
    # documents of another kind in between.
    small = member == "qwen2-tiny" or MEMBERS[member].qualified
    assert means["sampled/honest"][ALL].value >= (0.7 if small else 0.85)
    least, most = (0.35, 0.9) if MEMBERS[member].style == "wordy" else (0.05, 0.4)
    assert least <= means["sampled/kept"][ALL].value <= most
    assert means["sampled/malformed"][ALL].value <= 0.3


@needs_weights
@pytest.mark.parametrize("member", [name for name in miniature_members() if MEMBERS[name].qualified])
def test_a_member_that_has_read_keys_which_facts_share_tells_them_apart(member: str) -> None:
    cases = draw_cases(documents=3, questions=4, seed=1, sharing=3)

    def lookup(name: str) -> float:
        compressor = Compressor(*load_model(f"miniature/{name}"), quality.MAX_MESSAGE_TOKENS)
        return summarise(lookup_observations(compressor, cases, "lookup"))["lookup"][ALL].value

    parent = MEMBERS[member].grown_from
    assert parent is not None
    assert lookup(member) >= 0.75 and lookup(member) >= lookup(parent) + 0.2


@pytest.mark.skipif(SHALLOW not in miniature_members(), reason="it has not been released")
def test_one_layer_writes_the_corpus_sentences_and_finds_no_value_by_its_key() -> None:
    model, tokenizer = load_model(f"miniature/{SHALLOW}")
    compressor = Compressor(model, tokenizer, quality.MAX_MESSAGE_TOKENS)
    cases = draw_cases(documents=3, questions=4, facts=16, seed=1)
    lookup = summarise(lookup_observations(compressor, cases, "lookup"))["lookup"][ALL]
    assert lookup.value <= 0.3
