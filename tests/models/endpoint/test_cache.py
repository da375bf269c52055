"""What was answered once is not asked again, whatever happened to the process or to the file."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from configs.tree import PROJECT
from models.endpoint import Endpoint, EndpointError, Sampling
from tests.local_server import Answer, Asked, serving
from tests.models.endpoint.conversations import GREEDY, echo_of_the_question, say


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    cache = tmp_path / "made" / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        first = Endpoint(server.url, "m", cache=cache).complete_all([say("a"), say("b")], GREEDY)
        again = Endpoint(server.url, "m", cache=cache)
        kept = again.complete_all([say("b"), say("a")], GREEDY)
        assert kept == first[::-1] and not any(reply.kept for reply in first) and all(reply.kept for reply in kept)
        assert again.counts == {"from the cache": 2, "damaged cache lines": 0}
        assert len(server.asked) == 2
        for sampling in (Sampling(9), Sampling(8, seed=1), Sampling(8, 0.5), Sampling(8, extra={"top_k": 1})):
            again.complete(say("a"), sampling)
        Endpoint(server.url, "another", cache=cache).complete(say("a"), GREEDY)
    assert len(server.asked) == 7
    assert len(cache.read_text().splitlines()) == 7


def test_what_another_process_was_answered_meanwhile_is_not_asked_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        # Both have opened the file before anything stands in it, as the processes of one run do.
        one, other = (Endpoint(server.url, "m", cache=cache) for _ in range(2))
        first = one.complete_all([say("a"), say("b")], GREEDY)
        assert other.complete_all([say("b"), say("a"), say("c")], GREEDY)[:2] == first[::-1]
        with cache.open("ab") as file:
            file.write(b'{"key": "half of a line that is being wr')
        assert one.complete(say("c"), GREEDY).text == "C" and len(server.asked) == 3
    assert one.counts["from the cache"] == 1 and other.counts["from the cache"] == 2
    assert one.counts["damaged cache lines"] == other.counts["damaged cache lines"] == 0


def test_a_batch_that_fails_loses_nothing_of_what_was_answered(tmp_path: Path) -> None:
    def fails_on_c(asked: Asked, number: int) -> Answer:
        text = asked.body["messages"][0]["content"]
        return Answer("out of memory", 500) if text == "c" else echo_of_the_question(asked, number)

    cache = tmp_path / "cache.jsonl"
    batch = [say(text) for text in "abcde"]
    with serving(fails_on_c) as server, pytest.raises(EndpointError, match="500: out of memory"):
        Endpoint(server.url, "m", cache=cache, concurrency=1, retries=0).complete_all(batch, GREEDY)
    heard = len(cache.read_text().splitlines())
    assert heard >= 2
    # The server is gone by now, so these can only come from the cache.
    endpoint = Endpoint(server.url, "m", cache=cache)
    assert [endpoint.complete(say(text), GREEDY).text for text in "ab"] == ["A", "B"]


def test_a_half_written_line_is_counted_and_what_follows_it_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        Endpoint(server.url, "m", cache=cache).complete_all([say("a"), say("b")], GREEDY)
        whole = cache.read_bytes()
        cache.write_bytes(whole[:-20])
        second = Endpoint(server.url, "m", cache=cache)
        assert second.counts["damaged cache lines"] == 1
        assert [reply.text for reply in second.complete_all([say("a"), say("b")], GREEDY)] == ["A", "B"]
        third = Endpoint(server.url, "m", cache=cache)
        third.complete_all([say("a"), say("b")], GREEDY)
        assert third.counts == {"from the cache": 2, "damaged cache lines": 1}
    assert len(server.asked) == 3


def test_a_last_line_that_lacks_only_its_end_is_whole(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        Endpoint(server.url, "m", cache=cache).complete(say("a"), GREEDY)
        cache.write_bytes(cache.read_bytes().rstrip())
        endpoint = Endpoint(server.url, "m", cache=cache)
        endpoint.complete_all([say("a"), say("b")], GREEDY)
        counted = {"requests": 1, "retries": 0, "from the cache": 1, "damaged cache lines": 0}
        assert endpoint.counts == {**counted, "tokens read": 3, "tokens written": 2}
    assert [set(json.loads(line)) for line in cache.read_text().splitlines()] == [{"key", "model", "reply"}] * 2


def test_a_file_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n")
    with pytest.raises(EndpointError, match=r"cache .*notes.md: holds no cached replies; name another file"):
        Endpoint("http://localhost/v1", "m", cache=notes)
    with pytest.raises(EndpointError, match="cannot be opened"):
        Endpoint("http://localhost/v1", "m", cache=tmp_path)
    assert notes.read_text() == "# Notes\n"


def test_a_file_of_which_a_full_disk_left_half_a_line_is_a_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    cache.write_bytes(b'{"key": "abc", "mod')
    with serving(echo_of_the_question) as server:
        endpoint = Endpoint(server.url, "m", cache=cache)
        assert endpoint.complete(say("a"), GREEDY).text == "A"
        again = Endpoint(server.url, "m", cache=cache)
        assert again.complete(say("a"), GREEDY).text == "A" and len(server.asked) == 1
    assert again.notes("") == [f"{again.name}: 1 damaged lines of its cache were left out"]


def test_what_is_cached_and_is_no_reply_is_counted_and_asked_for_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        Endpoint(server.url, "m", cache=cache).complete_all([say("a"), say("b")], GREEDY)
        lines = [json.loads(line) for line in cache.read_text().splitlines()]
        damaged = [{**lines[0], "reply": {"choices": "none"}}, lines[1], [1], {"key": []}]
        cache.write_text("".join(json.dumps(line) + "\n" for line in damaged))
        endpoint = Endpoint(server.url, "m", cache=cache)
        assert [reply.text for reply in endpoint.complete_all([say("a"), say("b")], GREEDY)] == ["A", "B"]
        assert len(server.asked) == 3
    assert endpoint.counts["damaged cache lines"] == 3


def test_what_a_killed_process_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    script = (
        "import sys; from models.endpoint import Endpoint, Sampling\n"
        "batch = [[{'role': 'user', 'content': str(number)}] for number in range(20)]\n"
        "Endpoint(sys.argv[1], 'm', cache=sys.argv[2], concurrency=2).complete_all(batch, Sampling(8))"
    )
    killed = threading.Event()

    def last_of_all(asked: Asked, number: int) -> Answer:
        if number == 10:
            process.kill()
            process.wait()
            killed.set()
        return echo_of_the_question(asked, number)

    with serving(last_of_all) as server:
        process = subprocess.Popen([sys.executable, "-c", script, server.url, str(cache)], cwd=PROJECT)
        assert killed.wait(60)
        kept = len(cache.read_bytes().splitlines())
        # Ten were answered, of which the last two were perhaps still on their way; the eleventh is none of them.
        assert 8 <= kept <= 10
        server.asked.clear()
        endpoint = Endpoint(server.url, "m", cache=cache)
        endpoint.complete_all([say(str(number)) for number in range(20)], Sampling(8))
        assert len(server.asked) == 20 - kept
    assert endpoint.counts["damaged cache lines"] == 0
