"""Rounds of refined questions: who is told what, what the messages carry together, and what is written down."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from data.sample import Document, Question, samples_of
from eval.evaluation import Evaluation, by_compressor
from eval.parts import Pieces
from eval.record import Origin, RoundRecord
from eval.record_log import RecordLog
from eval.rounds.__main__ import main
from eval.rounds.figures import draw_rounds, round_lines, summarise_rounds
from eval.rounds.job import finish
from eval.rounds.rounds import MAX_QUESTION_TOKENS, REQUEST, Rounds, information, refined_question, request
from models.channel import BoundScorer, Channel
from models.compressor import Compressor
from models.loading import load_model
from models.predictor import AnswerScore, Query
from models.scorer import Scorer
from objectives.negatives import Columns, NegativeCounts
from tests.records import changed, round_record

pytestmark = pytest.mark.command

MODEL = "miniature/qwen2-small"
LN2 = math.log(2)
EVALUATION = Evaluation(NegativeCounts(batch=2), batch_size=4, seed=0)


@dataclass
class Scripted:
    """A predictor that asks what a test has written down, and remembers what it was shown."""

    replies: list[str]
    shown: list[list[str]] = field(default_factory=list)
    queries: list[list[Query]] = field(default_factory=list)

    def answer(self, queries: Sequence[Query]) -> list[str]:
        self.queries.append(list(queries))
        return [query.message for query in queries]

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        return [AnswerScore(-1.0 - len(query.message) / 100, 2) for query in queries]

    def write(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        assert max_tokens == MAX_QUESTION_TOKENS
        self.shown.append(list(prompts))
        return [self.replies[len(self.shown) - 1]] * len(prompts)


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    return Compressor(*load_model(MODEL), budget_tokens=10)


def channel(compressor: Compressor, predictor: Scripted) -> Channel:
    return Channel(predictor, [BoundScorer(Scorer(compressor.model, compressor.tokenizer, 500), True)])


def documents(blind: bool = False, parts: bool = False) -> list[Document]:
    made = []
    for number in range(3):
        texts = [f"The zinc was {n + 10 * number}. The iron was {n + 50}." for n in range(1 + parts * 2)]
        options = ("41", "52") if number == 0 else ()
        question = Question(f"q{number}", f"What is iron {number}?", ("52",), "contains", options, blind=blind)
        made.append(
            Document(f"d{number}", "notes", "\n\n".join(texts), (question,), parts=tuple(texts) if parts else ())
        )
    return made


def go(
    compressor: Compressor, predictor: Scripted, pool: list[Document], rounds: int, temperature: float = 0.0
) -> list[RoundRecord]:
    plan = Rounds(EVALUATION, rounds, temperature, seed=3)
    return plan.batch(samples_of(pool), compressor, channel(compressor, predictor), pool)


def test_a_round_asks_for_what_the_messages_lack_and_joins_its_message_to_them(compressor: Compressor) -> None:
    predictor = Scripted(["What was the zinc?\nAnd more.", "  When\twas it? "])
    records = go(compressor, predictor, documents(), rounds=3)
    by_round = [[record for record in records if record["round"] == number] for number in (1, 2, 3)]
    assert [own[0]["asked"] for own in by_round] == ["What is iron 0?", "What was the zinc?", "When was it?"]
    assert predictor.shown[1] == [request(record["question"], record["message"]) for record in by_round[1]]
    texts = [document.text for document in documents()]
    alone = [compressor.write(texts, [record["asked"] for record in own]) for own in by_round]
    for number, last in enumerate(by_round[2]):
        messages = [written[number] for written in alone]
        assert last["message"] == "\n\n".join(message.text for message in messages if message.text)
        assert last["message_tokens"] == sum(message.tokens for message in messages)
        assert last["prediction"] == last["message"]


def test_round_one_is_the_ordinary_message_and_further_ones_are_drawn_anew(compressor: Compressor) -> None:
    predictor = Scripted(["What is iron 0?"])
    records = go(compressor, predictor, documents(), rounds=2, temperature=3.0)
    ordinary = by_compressor(compressor, 3.0, 3)(samples_of(documents()))
    first = [record["message"] for record in records if record["round"] == 1]
    assert first == [message.text for message in ordinary]
    both = [record["message"] for record in records if record["round"] == 2]
    assert all(now.startswith(before) for now, before in zip(both, first, strict=True))
    assert any(now != f"{before}\n\n{before}" for now, before in zip(both, first, strict=True))


def test_the_answer_is_asked_for_with_the_first_question_and_options_are_not_told(compressor: Compressor) -> None:
    predictor = Scripted(["What was the zinc?"])
    go(compressor, predictor, documents(), rounds=2)
    assert [query.question for query in predictor.queries[1]] == [f"What is iron {number}?" for number in range(3)]
    assert predictor.queries[1][0].options == ("41", "52")
    assert REQUEST in predictor.shown[0][0] and "41" not in predictor.shown[0][0].partition("Question:")[2]


def test_a_blind_question_is_told_once_it_is_refined(compressor: Compressor) -> None:
    records = go(compressor, Scripted(["What was the zinc?"]), documents(blind=True), rounds=2)
    assert [record["asked"] for record in records[:1] + records[-1:]] == ["", "What was the zinc?"]


def test_where_no_question_comes_the_last_one_is_asked_again_and_counted(compressor: Compressor) -> None:
    records = go(compressor, Scripted(["", " \n"]), documents(), rounds=3)
    assert {record["asked"] for record in records if record["id"].endswith("q0")} == {"What is iron 0?"}
    assert [record["unanswered"] for record in records] == [False] * 3 + [True] * 6


def test_each_part_of_a_document_gets_every_question(compressor: Compressor) -> None:
    records = go(compressor, Scripted(["What was the zinc?"]), documents(parts=True), rounds=2)
    parts = documents(parts=True)[0].parts
    both = [compressor.write(parts, [asked] * 3) for asked in ("What is iron 0?", "What was the zinc?")]
    last = next(record for record in records if record["round"] == 2)
    assert last["message_tokens"] == sum(message.tokens for round_ in both for message in round_)
    assert last["message"] == "\n\n".join(message.text for round_ in both for message in round_ if message.text)


def test_the_information_of_the_first_round_is_that_of_an_ordinary_evaluation(compressor: Compressor) -> None:
    first = go(compressor, Scripted([]), documents(), rounds=1)
    origin: Origin = {"stage": "after", "temperature": 0.0, "budget_tokens": 10}
    write, reading = by_compressor(compressor, 0.0, 3), channel(compressor, Scripted([]))
    ordinary = EVALUATION.batch(samples_of(documents()), write, reading, origin, documents())
    for key in ("information_nats", "information_upper_nats", "task_information_nats", "answer_nll_nats", "saturated"):
        assert [record[key] for record in first] == pytest.approx([record[key] for record in ordinary])
    assert all(record["summed_information_nats"] == pytest.approx(record["information_nats"]) for record in first)


def test_what_two_rounds_carry_together_is_exact_and_no_more_than_what_each_carries_by_itself() -> None:
    channels = [
        torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]).double(),
        torch.eye(3).double() * 0.7 + 0.1,
    ]
    pairs = list(itertools.product(range(3), repeat=3))
    own = torch.tensor([context for context, _, _ in pairs])
    columns = Columns(("a", "b", "c"), own, torch.ones(len(pairs), 3, dtype=torch.bool))
    chosen = [torch.tensor([pair[1 + number] for pair in pairs]) for number in (0, 1)]
    matrices = [one.log()[:, picks].T for one, picks in zip(channels, chosen, strict=True)]
    weights = (matrices[0] + matrices[1]).gather(1, own[:, None])[:, 0].exp() / 3
    rows = information(matrices, columns, Pieces([], list(range(len(pairs))), len(pairs)))
    joint = sum(float(weight) * (row["information_nats"] or 0.0) for weight, row in zip(weights, rows, strict=True))
    added = sum(
        float(weight) * (row["summed_information_nats"] or 0.0) for weight, row in zip(weights, rows, strict=True)
    )
    together = torch.einsum("xy,xz->xyz", *channels).flatten(1)
    assert joint == pytest.approx(exact_information(together))
    assert added == pytest.approx(sum(map(exact_information, channels)))
    assert joint < added


def exact_information(conditional: torch.Tensor) -> float:
    """I(X; Z) of uniform X, nats."""
    return (conditional * (conditional / conditional.mean(0)).log()).sum().item() / len(conditional)


def test_a_missing_score_in_one_round_is_missing_in_what_they_carry_together() -> None:
    first, second = torch.tensor([[-1.0, -5.0], [-1.0, -5.0]]), torch.tensor([[math.nan, -5.0], [-1.0, -5.0]])
    columns = Columns(("a", "b"), torch.tensor([0, 0]), torch.ones(2, 2, dtype=torch.bool))
    lost, there = information([first, second], columns, Pieces([], [0, 1], 2))
    assert (lost["information_nats"], lost["summed_information_nats"], lost["saturated"]) == (None, None, None)
    assert there["information_nats"] is not None and there["saturated"] is True


@pytest.mark.parametrize(("reply", "question"), [("\n\n  Which  dose?\nNone.", "Which dose?"), ("", ""), (" \n\t", "")])
def test_a_refined_question_is_one_line(reply: str, question: str) -> None:
    assert refined_question(reply) == question


def test_batches_that_are_done_are_not_done_again(compressor: Compressor, tmp_path: Path) -> None:
    samples = samples_of(documents())
    results = []
    for predictor in (Scripted(["What was the zinc?"]), Scripted([])):
        log: RecordLog[RoundRecord] = RecordLog(tmp_path, {"request": REQUEST})
        plan = Rounds(EVALUATION, 2, 0.0, seed=0)
        results.append(plan.run(samples, compressor, channel(compressor, predictor), {"rounds": 2}, log))
        if not predictor.replies:
            assert not predictor.queries
    assert results[0] == results[1]
    assert [record["round"] for record in results[0]] == [1, 2] * 3


@pytest.fixture
def rounds() -> list[RoundRecord]:
    """Three rounds over eight documents: the second adds two bits, the third nothing."""
    bits = {1: 1.0, 2: 3.0, 3: 3.0}
    return [
        round_record(
            number=number,
            document=f"d{document}",
            information_nats=(bits[number] + 0.1 * document) * LN2,
            summed_information_nats=2.0 * number * LN2,
            message_tokens=10 * number,
            accuracy=float(number > 1),
        )
        for document in range(8)
        for number in bits
    ]


def test_the_gain_of_a_round_is_paired_with_the_round_before(rounds: list[RoundRecord]) -> None:
    first, second, third = summarise_rounds(rounds)
    assert first["gain"] == {} and [one["round"] for one in (first, second, third)] == [1, 2, 3]
    assert second["gain"]["information_bits"] == {
        "value": pytest.approx(2.0),
        "low": None,
        "high": None,
        "method": "constant",
    }
    assert third["gain"]["information_bits"]["value"] == pytest.approx(0.0)
    assert second["gain"]["accuracy"]["value"] == 1.0 and third["gain"]["message_tokens"]["value"] == 10.0
    assert third["summed_information_bits"]["value"] == pytest.approx(6.0)
    assert third["information_bits"]["low"] < third["information_bits"]["value"] == pytest.approx(3.35)


def test_a_question_that_lost_its_score_leaves_the_gain_of_the_others(rounds: list[RoundRecord]) -> None:
    lost = [
        changed(record, information_nats=None) if record["id"].endswith("d0/0") and record["round"] == 2 else record
        for record in rounds
    ]
    assert summarise_rounds(lost)[1]["gain"]["information_bits"]["value"] == pytest.approx(2.0)
    assert summarise_rounds(lost)[1]["missing"] == 1


def test_the_picture_has_every_round_and_is_the_same_for_the_same_figures(
    rounds: list[RoundRecord], tmp_path: Path
) -> None:
    found = summarise_rounds(rounds)
    for name in ("a.svg", "b.svg"):
        draw_rounds(found, tmp_path / name)
    svg = (tmp_path / "a.svg").read_text()
    assert svg == (tmp_path / "b.svg").read_text()
    assert all(
        text in svg for text in ("30.0 tokens", "each by itself, added", "together", "upper bound, bits", "accuracy")
    )


def test_without_accuracy_perplexity_takes_its_place(rounds: list[RoundRecord], tmp_path: Path) -> None:
    found = summarise_rounds([changed(record, accuracy=None) for record in rounds])
    draw_rounds(found, tmp_path / "rounds.svg")
    assert "perplexity of the gold answer" in (tmp_path / "rounds.svg").read_text()
    assert round_lines(found)[1][1].startswith("1.65 [")


def test_what_a_reader_must_know_is_said_and_written_down(
    rounds: list[RoundRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [changed(record, unanswered=record["round"] == 3) for record in rounds]
    meta = {"config": {"predictor": {"model": "miniature/llama-small"}, "eval": {"temperature": 0.0}}}
    finish(tmp_path, again, meta)
    written = json.loads((tmp_path / "rounds.json").read_text())
    assert (len(written["rounds"]), len(written["records"]), len(written["notes"])) == (3, 24, 3)
    said = capsys.readouterr().out
    for text in (
        "8 times the predictor wrote no question",
        "at temperature 0",
        "miniature/llama-small was trained on one",
    ):
        assert text in said and any(text in note for note in written["notes"])


def test_the_command_goes_through_the_rounds_of_the_embedded_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        "compressor.adapter=null",
        f"run_folder={tmp_path}",
        "tasks=[miniature/notes]",
        "eval.documents=3",
        "eval.questions_per_document=1",
        "information.negatives.counterfactual=1",
        "compressor.budget_tokens=12",
    ]
    assert main(["--config", "evaluation.yaml", "--rounds", "2", *overrides]) == 0
    written = json.loads((tmp_path / "rounds.json").read_text())
    assert [one["round"] for one in written["rounds"]] == [1, 2] and (tmp_path / "rounds.svg").is_file()
    assert all(one["n"] == 3 for one in written["rounds"])
    assert "further rounds mean little" in capsys.readouterr().out


def test_no_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "evaluation.yaml", "--rounds", "0"])
    assert "--rounds 0: there is at least one" in capsys.readouterr().err
