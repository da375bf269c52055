"""A whole training whose predictor, llama.cpp, is reached through a proxy that fails in every way that passes."""

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faulty_proxy import RETRY_AFTER, Exchange, Fault, faulty
from tests.llama_server import serving_miniature
from tests.train.test_survival import arguments
from train.run import main

pytestmark = pytest.mark.command

FAULTS: dict[int, Fault] = {2: "error", 6: "busy", 10: "stall", 14: "cut off", 18: "half"}
IN_TURN: list[Fault | None] = [FAULTS.get(number) for number in range(20)]
"""Each of five faults befalls one of twenty requests."""

PATIENCE = 6
"""Seconds of one request: far more than an answer of the embedded model takes, which none may miss by chance."""


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def text(reply: Any) -> str:
    return reply["choices"][0]["message"]["content"]


def test_a_training_through_a_faulty_proxy_loses_nothing_and_asks_nothing_twice(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serving_miniature(tmp_path) as llama, faulty(llama, IN_TURN) as proxy:
        predictor = (
            f"predictor={{endpoint: '{proxy.url}', model: m, timeout_seconds: {PATIENCE}, retries: 8, concurrency: 2}}"
        )
        assert main(arguments(run, predictor, "train.group_size=4")) == 0
        exchanges = list(proxy.exchanges)
    befallen = Counter(exchange.fault for exchange in exchanges)
    assert all(befallen[fault] >= 2 for fault in FAULTS.values()), befallen
    by_question: defaultdict[bytes, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        by_question[exchange.body].append(exchange)
    for asked in by_question.values():
        # Asked until it is answered, and then never again.
        assert [exchange.delivered for exchange in asked] == [False] * (len(asked) - 1) + [True]
        assert all(exchange.fault is not None for exchange in asked[:-1])
        for before, after in pairwise(asked):
            if before.fault == "busy":
                assert after.seconds - before.ended >= RETRY_AFTER - 0.05
    # What was delivered is what was kept, and what the run has worked with.
    delivered = Counter(text(json.loads(exchange.reply)) for exchange in exchanges if exchange.delivered)
    assert Counter(text(line["reply"]) for line in lines(run / "predictor.jsonl")) == delivered
    steps = lines(run / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert all(step["missing/accuracy"] == step["server/missing"] == 0 for step in steps)
    records = lines(run / "samples.jsonl")
    assert len(records) == 4
    assert {record["prediction"] for record in records} <= {
        answer.strip().removeprefix("Answer:").strip() for answer in delivered
    }
