"""Training with a predictor on a server: what fails now and then is missing, what fails often ends the run."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.tree import ConfigError
from models.endpoint import Endpoint, EndpointError, Sampling
from tests.local_server import Answer, Asked, LocalServer, chat, serving
from tests.train.test_survival import arguments
from tests.train.test_warm_start import TINY
from train.config import load_config
from train.run import main

pytestmark = pytest.mark.command

ONE_ANSWER = Sampling(4)


def answering(every: int, fails: list[bool]) -> Any:
    """A script that fails every so many requests, while it is told to."""

    def script(asked: Asked, number: int) -> Answer:
        if fails[0] and number % every == every - 1:
            return Answer("overloaded", 503)
        return Answer(chat(f"Answer: {len(str(asked.body)) % 3}"))

    return script


def predictor(server: LocalServer, more: str) -> str:
    return f"predictor={{endpoint: '{server.url}', model: m, retries: 0, {more}}}"


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_answers_that_cannot_be_had_are_missing_counted_and_paid_for(tmp_path: Path) -> None:
    fails = [False]
    script = answering(4, fails)

    def flaky(asked: Asked, number: int) -> Answer:
        # The evaluation before the training takes no missing answer.
        fails[0] = (tmp_path / "records" / "0.jsonl").exists() and not (tmp_path / "metrics.jsonl").exists()
        return script(asked, number)

    with serving(flaky) as server:
        more = "max_missing: 0.6, concurrency: 3, dollars_per_million_tokens: {read: 2.0, written: 10.0}"
        assert main(arguments(tmp_path, predictor(server, more), "train.steps=2")) == 0
        assert server.most_at_once <= 3
    first, last = lines(tmp_path)
    assert first["server/missing"] == 1 and first["missing/accuracy"] == 1
    assert last["missing/accuracy"] == 0 and last["server/missing"] == 1
    assert last["server/tokens_read"] == 3 * last["server/requests"]
    dollars = (2.0 * last["server/tokens_read"] + 10.0 * last["server/tokens_written"]) / 1e6
    assert last["server/dollars"] == pytest.approx(dollars) and dollars > 0


def test_more_missing_answers_than_allowed_end_the_run_after_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, fails = tmp_path / "run", [False]
    script = answering(2, fails)

    def failing_from_the_second_step(asked: Asked, number: int) -> Answer:
        fails[0] = (run / "metrics.jsonl").exists()
        return script(asked, number)

    with serving(failing_from_the_second_step) as server:
        given = arguments(run, predictor(server, "max_missing: 0.1"), "train.save_every=100", "train.steps=3")
        assert main(given) == 2
        error = capsys.readouterr().err
        assert "answers of a step could not be had" in error and "predictor.max_missing = 0.1" in error
        assert f"goes on from {run}/checkpoints/checkpoint-1" in error and "Traceback" not in error
        server.script = lambda asked, number: Answer(chat("Answer: 1"))
        assert main(given) == 0
    assert [line["step"] for line in lines(run)] == [1, 2, 3]


def test_a_server_that_gives_nothing_or_refuses_is_no_missing_answer() -> None:
    batch = [[{"role": "user", "content": text}] for text in "abc"]
    with serving([Answer("overloaded", 503)]) as server:
        endpoint = Endpoint(server.url, "m", retries=0)
        with pytest.raises(EndpointError, match="503"):
            endpoint.complete_some(batch, ONE_ANSWER)
    with serving([Answer(chat("1")), Answer("no such key", 401), Answer(chat("1"))]) as server:
        endpoint = Endpoint(server.url, "m", retries=0, concurrency=1)
        with pytest.raises(EndpointError, match="401"):
            endpoint.complete_some(batch, ONE_ANSWER)
    with serving([Answer(chat("1")), Answer("overloaded", 503), Answer(chat("2"))]) as server:
        endpoint = Endpoint(server.url, "m", retries=0, concurrency=1)
        found = endpoint.complete_some([*batch, batch[1]], ONE_ANSWER)
        assert [None if one is None else one.text for one in found] == ["1", None, "2", None]
        assert endpoint.counts["missing"] == 2 and endpoint.counts["tokens read"] == 6


def test_missing_answers_of_a_local_predictor_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"predictor\.max_missing = 0\.1: only a server"):
        load_config("mi_rl.yaml", [*TINY, "predictor.max_missing=0.1"])
