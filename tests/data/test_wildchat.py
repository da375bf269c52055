"""WildChat: which sessions make a history, what is left out and counted, and the documents of a synthesised set."""

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pytest

from data.registry import load_documents
from data.sample import neighbours
from data.task import Request
from data.wildchat import SEPARATOR, histories, load, read_session
from data.written_questions import Material
from tests.record_files import assert_damage_is_refused, halve, refusal_of, write_records
from tests.written_questions import rows_of

PUBLISHED = (
    Path(__file__).resolve().parents[2].parent / "shared" / "data" / "wildchat" / "wildchat1m_row0_truncated.jsonl"
)

needs_published = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"no published WildChat record at {PUBLISHED}")


def turn(role: str, content: str | None, **fields: Any) -> dict[str, Any]:
    """A turn in the published format: a user's has no time, an assistant's no address."""
    user = role == "user"
    return {
        "content": content,
        "role": role,
        "country": "Norway" if user else None,
        "hashed_ip": "aa11" if user else None,
        "header": {"accept-language": "en", "user-agent": "Firefox"} if user else None,
        "language": "English",
        "timestamp": None if user else "2023-04-09T00:02:53",
        "toxic": False,
        "redacted": False,
        "turn_identifier": 101001,
    } | fields


def record(number: int, *turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A conversation in the published format; minutes go with its number."""
    conversation = list(turns) or [turn("user", f"Question {number}?"), turn("assistant", f"Answer {number}.")]
    return {
        "conversation_hash": f"hash{number}",
        "model": "gpt-4-0314",
        "timestamp": f"2023-04-09T00:{number:02}:00",
        "conversation": conversation,
        "turn": 1,
        "language": "English",
        "toxic": False,
        "redacted": False,
        "hashed_ip": "aa11",
        "header": {"accept-language": "en", "user-agent": "Firefox"},
    } | fields


def read_histories(source: str | None, **options: Any) -> tuple[list[Material], dict[str, int]]:
    skipped: Counter[str] = Counter()
    return list(histories(source, skipped, **options)), dict(+skipped)


def refusal(source: str | None, **options: Any) -> str:
    """What the refusal of a source of histories says; always one line."""
    return refusal_of(lambda: read_histories(source, **options))


def refused_set(source: str | None, **request: Any) -> str:
    """What the refusal of a synthesised set says; always one line."""
    return refusal_of(lambda: load_documents("wildchat", Request("train", source, **request)))


@needs_published
def test_the_published_row_is_a_session_of_a_known_user_and_time() -> None:
    [line] = PUBLISHED.read_text(encoding="utf-8").splitlines()
    skipped: Counter[str] = Counter()
    session = read_session(json.loads(line), "row 0", skipped)
    assert session is not None
    assert session.text.startswith("User: Hey there! Are you familiar with reality shifting?")
    assert f"[...]{SEPARATOR}Assistant: Hey there! I'm more than happy" in session.text
    assert session.time is not None and session.time.isoformat() == "2023-04-09T00:02:53+00:00"
    assert session.user is not None
    assert +skipped == {}
    # One session is no memory across sessions, in either variant.
    assert read_histories(str(PUBLISHED)) == ([], {"users with fewer than 2 sessions within the limits": 1})
    assert read_histories(str(PUBLISHED), variant="study") == ([], {"conversations left over from groups of 10": 1})


@needs_published
def test_the_published_row_makes_a_document_with_another_session_of_its_user(tmp_path: Path) -> None:
    row = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    later = row | {"timestamp": "2023-04-10T09:00:00", "conversation": [turn("user", "Where were we?")]}
    [history], _ = read_histories(write_records(tmp_path / "chats.jsonl", [later, row]))
    [document] = load(Request("train", write_records(tmp_path / "set.jsonl", rows_of([history])))).documents
    assert document.parts[1] == "User: Where were we?"
    assert document.parts[0].startswith("User: Hey there!")
    [question] = document.questions
    assert question.evidence[0] in document.text


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.json", "chats.parquet"])
def test_a_user_s_sessions_are_in_time_order_and_users_are_apart(tmp_path: Path, name: str) -> None:
    another_browser = {"header": {"accept-language": "en", "user-agent": "Safari"}}
    records = [
        record(3),
        record(1),
        record(5, **another_browser),
        record(4, **another_browser),
        record(6, hashed_ip="bb22"),
    ]
    kept, skipped = read_histories(write_records(tmp_path / name, records))
    assert [history.texts for history in kept] == [
        ("User: Question 1?\n\nAssistant: Answer 1.", "User: Question 3?\n\nAssistant: Answer 3."),
        ("User: Question 4?\n\nAssistant: Answer 4.", "User: Question 5?\n\nAssistant: Answer 5."),
    ]
    assert len({history.id for history in kept}) == 2
    assert all(history.group == history.id and history.variant == "natural" for history in kept)
    assert skipped == {"users with fewer than 2 sessions within the limits": 1}


def test_times_of_parquet_and_of_text_are_the_same() -> None:
    texts = ["2023-04-09T00:02:53", "2023-04-09T00:02:53Z", "2023-04-09 02:02:53+02:00"]
    stamps = [*texts, datetime(2023, 4, 9, 0, 2, 53)]
    sessions = [read_session(record(1, timestamp=stamp), "row", Counter()) for stamp in stamps]
    assert len({session.time for session in sessions if session}) == 1


def test_address_browser_and_time_may_stand_in_the_turns_alone() -> None:
    whole = record(1)
    bare = {key: value for key, value in whole.items() if key not in ("hashed_ip", "header", "timestamp")}
    session, expected = read_session(bare, "row", Counter()), read_session(whole, "row", Counter())
    assert session and expected
    assert session.user == expected.user
    assert session.time is not None and session.time.minute == 2


def test_a_hash_that_occurs_twice_names_two_conversations(tmp_path: Path) -> None:
    records = [record(1), record(2, conversation_hash="hash1"), record(2, conversation_hash="hash9")]
    [history], skipped = read_histories(write_records(tmp_path / "chats.jsonl", records))
    assert len(history.texts) == 2
    assert skipped == {"duplicate conversations": 1}


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    nobody = {"hashed_ip": None, "header": None}
    silent = turn("assistant", "Hi")
    records = [
        record(1),
        record(2, toxic=True),
        record(3, redacted=True),
        record(4, turn("user", "Bad", toxic=True)),
        record(5, turn("user", "Me", redacted=True)),
        record(6, turn("user", ""), silent),
        record(7, turn("user", None), turn("user", "So?"), turn("assistant", " ")),
        record(8, turn("user", "Who?", **nobody), **nobody),
        record(9, turn("user", "Who?", header=None), header={"accept-language": "en"}),
        record(10, turn("user", "When?"), timestamp=None),
        record(11, conversation=[]),
    ]
    [history], skipped = read_histories(write_records(tmp_path / "chats.jsonl", records))
    assert history.texts[1] == "User: So?"
    assert skipped == {
        "toxic conversations": 2,
        "redacted conversations": 2,
        "conversations in which the user says nothing": 2,
        "turns without text": 2,
        "conversations without a user": 2,
        "conversations without a time": 1,
    }
    kept = len(history.texts) + sum(skipped.values()) - skipped["turns without text"]
    assert kept == len(records)


def test_columns_of_moderation_may_be_absent(tmp_path: Path) -> None:
    def bare(row: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if key not in ("toxic", "redacted")}

    records = [bare(record(n)) | {"conversation": [bare(turn("user", f"Hi {n}"))]} for n in (1, 2)]
    [history], skipped = read_histories(write_records(tmp_path / "chats.jsonl", records))
    assert history.texts == ("User: Hi 1", "User: Hi 2")
    assert skipped == {}


def test_a_history_keeps_its_first_sessions_within_the_limits(tmp_path: Path) -> None:
    source = write_records(tmp_path / "chats.jsonl", [record(number) for number in range(12)])
    [history], skipped = read_histories(source)
    assert len(history.texts) == 10
    assert skipped == {"sessions beyond the limits": 2}
    [shorter], skipped = read_histories(source, max_tokens=31)
    assert len(shorter.texts) == 3
    assert skipped == {"sessions beyond the limits": 9}
    assert read_histories(source, max_tokens=12) == ([], {"users with fewer than 2 sessions within the limits": 1})


def test_the_study_takes_ten_consecutive_conversations_of_whomever(tmp_path: Path) -> None:
    records = [record(number, hashed_ip=f"ip{number}") for number in range(26)]
    records[4] |= {"toxic": True}
    source = write_records(tmp_path / "chats.jsonl", records)
    kept, skipped = read_histories(source, variant="study")
    assert [len(history.texts) for history in kept] == [10, 10]
    assert kept[0].texts[4].startswith("User: Question 5?")
    assert kept[1].texts[0].startswith("User: Question 11?")
    assert kept[0].variant == "study" and kept[0].id != kept[1].id
    assert skipped == {"toxic conversations": 1, "conversations left over from groups of 10": 5}
    assert read_histories(source, variant="study", max_tokens=50) == (
        [],
        {"toxic conversations": 1, "conversations left over from groups of 10": 5, "histories above 50 tokens": 2},
    )


def test_no_more_conversations_are_read_than_asked_for(tmp_path: Path) -> None:
    source = write_records(tmp_path / "chats.jsonl", [record(number) for number in range(6)])
    assert len(read_histories(source, conversations=3)[0][0].texts) == 3
    assert refusal(source, variant="weekly") == "wildchat: no variant 'weekly'; there are natural, study"


def test_without_a_source_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: dict[str, Any] = {}

    def load_dataset(path: str, **options: Any) -> list[dict[str, Any]]:
        requested.update(options, path=path)
        return [record(number) for number in range(2)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(read_histories(None)[0]) == 1
    assert requested == {"path": "allenai/WildChat-1M", "split": "train", "streaming": True}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"conversation": "Hi"}, "'conversation' should be a list or an object"),
        ({"conversation": ["Hi"]}, "turn 1: should be an object with the field 'role'"),
        ({"conversation": [{"content": "Hi"}]}, "turn 1: has no field 'role'"),
        ({"conversation": [{"role": "user"}]}, "turn 1: has no field 'content'"),
        ({"conversation": [turn("user", "Hi"), turn("", "Hi")]}, "turn 2: 'role' should not be empty"),
        ({"conversation": [turn("user", "Hi", toxic="no")]}, "turn 1: 'toxic' should be true or false or null"),
        ({"redacted": 1}, "'redacted' should be true or false or null, it is 1"),
        ({"hashed_ip": 7}, "'hashed_ip' should be text or null"),
        ({"header": "Firefox"}, "'header' should be an object or null"),
        ({"header": {"user-agent": 1}}, "header: 'user-agent' should be text or null"),
        ({"timestamp": "yesterday"}, "'timestamp' should be a time such as 2023-04-09T00:02:53, it is \"yesterday\""),
        ({"timestamp": 3}, "'timestamp' should be a time"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    source = write_records(tmp_path / "chats.jsonl", [record(1), record(2, **fields)])
    text = refusal(source)
    assert text.startswith(f"{source}, line 2")
    assert problem in text


def test_records_of_something_else_are_refused(tmp_path: Path) -> None:
    assert "line 1: has no field 'conversation'" in refusal(write_records(tmp_path / "a.jsonl", [{"text": "x"}]))
    assert "line 1: should be an object" in refusal(write_records(tmp_path / "b.jsonl", [1]))
    assert "no such file" in refusal(str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.json", "chats.parquet"])
def test_half_a_file_of_chats_and_an_empty_one_are_refused(tmp_path: Path, name: str) -> None:
    assert_damage_is_refused(write_records(tmp_path / name, [record(1)]), refusal)


def written(tmp_path: Path, variant: str = "natural") -> list[dict[str, Any]]:
    """The rows of two users with two sessions each, or of twenty conversations."""
    records = [record(n, hashed_ip=f"ip{n % 2}") for n in range(4 if variant == "natural" else 20)]
    return rows_of(read_histories(write_records(tmp_path / f"{variant}.jsonl", records), variant=variant)[0])


def test_a_document_is_a_user_s_sessions_compressed_one_by_one(tmp_path: Path) -> None:
    first, second = load(Request("train", write_records(tmp_path / "set.jsonl", written(tmp_path)))).documents
    assert first.task == "wildchat"
    assert first.parts == ("User: Question 0?\n\nAssistant: Answer 0.", "User: Question 2?\n\nAssistant: Answer 2.")
    assert first.text == SEPARATOR.join(first.parts)
    assert first.group == first.id != second.group
    [question] = first.questions
    assert (question.id, question.kind, question.metric) == ("1-memory", "memory", "perplexity")
    assert question.answers == ("A question.",)
    assert question.evidence == ("User: Question 0?",)
    assert not question.blind
    assert neighbours([first]) == {("wildchat", first.id): ()}


def test_the_variant_says_which_histories_of_a_set_are_read(tmp_path: Path) -> None:
    source = write_records(tmp_path / "set.jsonl", written(tmp_path) + written(tmp_path, "study"))
    natural, study = load(Request("train", source)), load(Request("train", source, variant="study"))
    assert [len(document.parts) for document in natural.documents] == [2, 2]
    assert [len(document.parts) for document in study.documents] == [10, 10]
    assert natural.skipped == study.skipped == {"histories of another variant": 2}
    alone = write_records(tmp_path / "alone.jsonl", written(tmp_path))
    assert refused_set(alone, variant="study").startswith(f"{alone}: has no history of variant 'study'")
    assert "no variant 'weekly'" in refused_set(alone, variant="weekly")


def test_histories_without_a_question_and_longer_than_asked_for_are_counted(tmp_path: Path) -> None:
    rows = written(tmp_path)
    rows[0] |= {"questions": [], "rejected": ["memory: the quote is empty"]}
    source = write_records(tmp_path / "set.jsonl", rows)
    loaded = load(Request("train", source))
    assert len(loaded.documents) == 1
    assert loaded.skipped == {"histories without questions": 1, "questions that failed a check": 1}
    assert "has no history of variant 'natural' that can be used" in refused_set(source, context_tokens=5)


def test_a_set_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    assert "python -m eval.synthesise --task wildchat" in refused_set(None)
    [row, _] = written(tmp_path)
    none = write_records(tmp_path / "none.jsonl", [row | {"texts": []}])
    assert refused_set(none) == f"{none}, line 1: 'texts' should hold sessions, it holds none"
    source = write_records(tmp_path / "set.jsonl", [row])
    halve(source)
    assert refused_set(source).startswith(f"{source}, line 1: broken JSON")
    Path(source).write_bytes(b"")
    assert refused_set(source) == f"{source}: is empty"
