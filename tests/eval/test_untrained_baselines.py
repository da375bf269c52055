"""Rivals that cost no training: the untrained model's own messages, and rules over them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.miniature.documents import make_document
from data.sample import Sample, samples_of
from data.sentences import count_sentences
from eval.baselines.untrained import BestOfN, KeptSentences, Untrained, distinct, first
from eval.config import BaselineConfig
from eval.evaluation import Evaluation, documents_by_task
from models.channel import BoundScorer, Channel
from models.compressor import Compressor, Message
from models.loading import load_model
from models.predictor import LocalPredictor
from models.scorer import Scorer
from objectives.negatives import NegativeCounts
from tests.eval.small_evaluation import evaluated, logged, write_adapter

MODEL = "miniature/qwen2-small"
RIVALS = (
    "baselines=[{name: untrained, budgets: [trained, compressor]}, {name: untrained, decoding: sampled}, "
    "{name: untrained-brief}, {name: first-sentence}, {name: repeat-free}, "
    "{name: best-of-n, samples: 3}, {name: bm25, budgets: [trained]}]"
)


def samples() -> list[Sample]:
    return samples_of([make_document("miniature/filings", seed, "test", facts=6, questions=2) for seed in (1, 2)])


def untrained(temperature: float = 0.0, group_size: int = 1, budget: int = 20) -> Untrained:
    return Untrained(Compressor(*load_model(MODEL), budget), temperature, 0, group_size)


def best_of(writer: Untrained, length_weight: float, negatives: NegativeCounts) -> BestOfN:
    model, tokenizer = load_model(MODEL)
    channel = Channel(LocalPredictor(model, tokenizer, 4), [BoundScorer(Scorer(model, tokenizer, 1500), True)])
    return BestOfN(writer, Evaluation(negatives, 4, 0), documents_by_task(samples()), channel, length_weight)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_cut_message_is_what_the_model_writes_under_that_budget(temperature: float) -> None:
    long = untrained(temperature)
    for budget in (1, 4, 9, 20):
        short = untrained(temperature, budget=budget).write(samples(), budget)
        for cut, written in zip(long.write(samples(), budget), short, strict=True):
            assert (cut.text, cut.token_ids, cut.ended) == (written.text, written.token_ids, written.ended)


def test_messages_are_written_once_for_all_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, calls = untrained(), []
    original = Compressor.write
    monkeypatch.setattr(Compressor, "write", lambda *given, **keys: calls.append(1) or original(*given, **keys))
    written = writer.write(samples(), 20)
    assert KeptSentences(writer, first).write(samples(), 6) and KeptSentences(writer, distinct).write(samples(), 6)
    assert writer.write(samples(), 20) == written and len(calls) == 1


def test_the_first_sentence_is_what_is_left_of_a_message() -> None:
    writer = untrained(budget=64)
    rule = KeptSentences(writer, first)
    for whole, kept in zip(writer.write(samples(), 64), rule.write(samples(), 64), strict=True):
        assert whole.text.startswith(kept.text) and count_sentences(kept.text) <= 1
        assert kept.tokens <= whole.tokens and (kept.ended or kept == whole)
    message = Message("Zinc was 41. Iron was 7.", [1] * 9, False, [])
    assert rule._kept(message).text == "Zinc was 41."


def test_a_loop_is_said_once() -> None:
    writer = untrained(budget=64)
    rule = KeptSentences(writer, distinct)
    loop = Message("Zinc was 41. Iron was 7. Zinc was 41. Iron was 7. Zinc", [1] * 20, False, [])
    kept = rule._kept(loop)
    assert kept.text == "Zinc was 41. Iron was 7. Zinc" and kept.ended
    once = Message("Zinc was 41. Iron was 7.", [1] * 9, True, [])
    assert rule._kept(once) == once


def test_best_of_n_takes_the_shortest_where_only_length_counts_and_the_most_informative_where_it_does_not() -> None:
    writer = untrained(1.0, 4)
    negatives = NegativeCounts(counterfactual=2, batch=1)
    groups = writer.groups(samples(), 20)
    shortest = best_of(writer, 1e6, negatives).write(samples(), 20)
    assert [m.tokens for m in shortest] == [min(m.tokens for m in group) for group in groups]
    informative = best_of(writer, 0.0, negatives).write(samples(), 20)
    assert all(message in group for message, group in zip(informative, groups, strict=True))
    assert any(a != b for a, b in zip(informative, shortest, strict=True))


def test_best_of_n_chooses_the_same_whatever_answers_evidence_and_counterfactual_versions_say() -> None:
    rival = best_of(untrained(1.0, 4), 0.5, NegativeCounts(counterfactual=2, same_document=1, batch=1, twins=1))
    blank = [
        replace(s, question=replace(s.question, answers=("",), evidence=(), negatives=("Nothing at all.",)))
        for s in samples()
    ]
    assert rival.write(samples(), 20) == rival.write(blank, 20)


def test_a_message_without_a_score_is_worth_less_than_any_other() -> None:
    rival = best_of(untrained(1.0, 2), 1.0, NegativeCounts(batch=1))
    message = Message("a", [1] * 9, True, [])
    assert rival.worth(message, math.nan, math.nan) == -math.inf
    assert rival.worth(message, 0.3, 0.6) == pytest.approx(0.5 - 10 / 20)


def test_every_rival_has_accuracy_tokens_information_and_density_with_intervals_and_is_resumed(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    given = (f"compressor.adapter={adapter}", RIVALS)
    found = evaluated(tmp_path / "run", *given)
    trained = max(1, round(found["overall"]["after"]["message_tokens"]["value"]))
    named = [(entry["name"], entry["budget_tokens"]) for entry in found["baselines"]]
    budgets = list(dict.fromkeys([trained, 12]))
    expected: list[Any] = [("untrained, greedy", budget) for budget in budgets]
    expected += [("untrained, sampled", 12), ("untrained-brief, greedy", 12), ("first-sentence, greedy", 12)]
    expected += [("repeat-free, greedy", 12)]
    assert named == [*expected, ("best of 3", 12), ("bm25", trained)]
    for entry in found["baselines"]:
        for figure in ("accuracy", "message_tokens", "information_bits", "bits_per_token"):
            assert entry[figure]["value"] is not None, (entry["name"], figure)
    assert {entry["name"] for entry in found["leads"]} <= {entry["name"] for entry in found["baselines"]}
    lines = logged(tmp_path / "run")
    assert evaluated(tmp_path / "run", *given) == found and logged(tmp_path / "run") == lines
    assert "untrained, sampled" in (tmp_path / "run" / "report.html").read_text()
    before, again = found["overall"]["before"], found["baselines"][len(budgets)]
    assert again["accuracy"] == before["accuracy"] and again["message_tokens"] == before["message_tokens"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "bm25", "decoding": "sampled"}, "decoding means nothing to bm25, only to untrained and"),
        ({"name": "untrained", "samples": 4}, "samples means nothing to untrained, only to best-of-n; leave it out"),
        ({"name": "untrained", "instruction": "x"}, "instruction means nothing to untrained, only to untrained-brief"),
    ],
)
def test_a_key_that_means_nothing_to_a_baseline_is_refused(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BaselineConfig.model_validate(given)


def test_the_compressors_own_messages_cut_make_the_curve_that_others_are_compared_with(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    curves = "baselines=[{{name: compressor-cut, decoding: sampled, budgets: {0}}}, {{name: head, budgets: {0}}}]"
    found = evaluated(tmp_path / "run", f"compressor.adapter={adapter}", curves.format("[3, 6, 12]"))
    whole = found["baselines"][2]
    assert whole["name"] == "compressor-cut, sampled" and whole["budget_tokens"] == 12
    assert whole["accuracy"] == found["overall"]["after"]["accuracy"]
    assert [entry["name"] for entry in found["leads"]] == ["head"]
    assert found["leads"][0]["from_tokens"] < found["leads"][0]["to_tokens"]
