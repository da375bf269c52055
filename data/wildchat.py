"""WildChat, chats of real users (Zhao et al. 2024): histories for a writer model, and those with the question it wrote.

The data set has no questions. ``histories`` reads it as published, ``python -m eval.synthesise`` has one question a
history written, and ``load`` reads the synthesised set, which holds the sessions as well. Each session is compressed by
itself.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from types import NoneType
from typing import Any

from data import reading
from data.errors import DataError
from data.sample import Document, Question
from data.task import Loaded, Request, draw, estimated_tokens
from data.written_questions import Material, Synthetic, evidence, read_rows, skipped_of

NAME = "wildchat"
VERSION = 1
"""Version of the task's documents and questions: results of different versions do not compare."""

VARIANTS = ("natural", "study")
"""What a history is, the default first: one user's sessions in time order, or ten consecutive conversations of any
users, as in the study."""

SPLITS: tuple[str, ...] = ()

INSTRUCTION = (
    "Write a short note on this chat session for an assistant that will meet the user again, has this question to "
    "answer and cannot see the session. Note what was said that answers it: what the user asked for, told, decided and "
    "was told, with names and numbers, and nothing else. If nothing was, say so."
)
ANSWER_INSTRUCTION = (
    "The text above is notes on a user's earlier chat sessions, in order. Answer the user's question from the notes "
    "alone, in one to three sentences."
)

HUB_DATASET = "allenai/WildChat-1M"
STUDY_SESSIONS = 10
"""Conversations of a history in the study."""

MIN_SESSIONS = 2
"""Fewest sessions of a user in the natural variant: fewer are no memory across sessions."""

MAX_SESSIONS = 10
"""Most sessions of a user in the natural variant: as many as the study's histories have."""

MAX_TOKENS = 28_000
"""Longest history, in estimated tokens: the longest of the study's contexts."""

SEPARATOR = "\n\n"
"""Stands between the sessions of a document, and between the turns of a session."""


@dataclass(frozen=True)
class Session:
    """One conversation: its text, its user (None without address or browser) and its time (None where unknown)."""

    text: str = field(repr=False)
    user: str | None
    time: datetime | None


def histories(
    source: str | None,
    skipped: Counter[str],
    variant: str = VARIANTS[0],
    max_tokens: int = MAX_TOKENS,
    conversations: int | None = None,
) -> Iterator[Material]:
    """Histories of several sessions each, for the writer of their question.

    In the variant ``natural`` a history is the conversations of one hashed IP and user agent in time order, from the
    first to as many as the limits allow, for every user that has two or more; all conversations are read before the
    first history. In the variant ``study`` it is ten consecutive conversations, as they are read.

    Args:
        source: a .json, .jsonl or .parquet file, or a folder of them, in the published format; None streams the Hub.
        skipped: counts what is left out, by reason.
        variant: natural or study.
        max_tokens: the longest history, in estimated tokens.
        conversations: the most conversations to read; None reads all.

    Raises:
        DataError: an unknown variant, a source that cannot be read, or a malformed record; one line that names the
            file and the record.
    """
    if variant not in VARIANTS:
        raise DataError(f"{NAME}: no variant {variant!r}; there are {', '.join(VARIANTS)}")
    records = islice(reading.published_records(NAME, source, HUB_DATASET), conversations)
    sessions = (session for where, record in records if (session := read_session(record, where, skipped)))
    grouped = _by_user(sessions, skipped, max_tokens) if variant == "natural" else _by_tens(sessions, skipped)
    for user, user_sessions in grouped:
        texts = tuple(session.text for session in user_sessions)
        if estimated_tokens(SEPARATOR.join(texts)) > max_tokens:
            skipped[f"histories above {max_tokens} tokens"] += 1
        else:
            identity = user or reading.content_id(*texts)
            yield Material(task=NAME, id=identity, texts=texts, variant=variant, group=identity)


def read_session(record: Any, where: str, skipped: Counter[str]) -> Session | None:
    """A published conversation; None where it is toxic or redacted, or the user says nothing in it.

    Toxicity and redaction are those of the conversation or of any turn; either column may be absent. Address, browser
    and time are the conversation's, or else its turns', as a user's turns have no time.

    Args:
        record: a row as published.
        where: file and record, for messages.
        skipped: counts what is left out, by reason.

    Raises:
        DataError: a field is missing or of the wrong type; one line that begins with ``where``.
    """
    turns = [
        (turn, f"{where}, turn {n}") for n, turn in enumerate(reading.rows(record, "conversation", where), start=1)
    ]
    # What is known of a conversation stands at its top, or at its turns, or at both.
    levels = [(record, where), *turns]
    utterances = [
        (reading.required_text(turn, "role", turn_where), reading.text(turn, "content", turn_where))
        for turn, turn_where in turns
    ]
    for flag in ("toxic", "redacted"):
        if any(reading.optional(level, flag, bool, level_where) for level, level_where in levels):
            skipped[f"{flag} conversations"] += 1
            return None
    if not any(role == "user" and content for role, content in utterances):
        skipped["conversations in which the user says nothing"] += 1
        return None
    skipped["turns without text"] += sum(not content for _, content in utterances)
    text = SEPARATOR.join(f"{role.capitalize()}: {content}" for role, content in utterances if content)
    return Session(text, _first(_user(*level) for level in levels), _first(_time(*level) for level in levels))


def load(request: Request) -> Loaded:
    """Histories with the question that was written for each; histories longer than ``context_tokens`` are left out.

    Raises:
        DataError: no source, or a source that is no synthesised set of histories; one line that names the file and the
            record.
    """
    variant = request.variant or VARIANTS[0]
    documents, skipped = [], Counter[str]()
    for where, row in read_rows(NAME, request):
        material = row.material
        if not material.texts:
            raise DataError(f"{where}: 'texts' should hold sessions, it holds none")
        if material.variant != variant:
            skipped["histories of another variant"] += 1
            continue
        skipped += skipped_of(row, "histories")
        text = SEPARATOR.join(material.texts)
        if request.context_tokens is not None and request.count_tokens(text) > request.context_tokens:
            skipped["histories longer than the context asked for"] += 1
        elif row.questions:
            documents.append(_document(material, text, tuple(_questions(row.questions, material.texts))))
    if not documents:
        raise DataError(f"{request.source}: has no history of variant {variant!r} that can be used and has a question")
    return draw(documents, skipped, request)


def _document(material: Material, text: str, questions: tuple[Question, ...]) -> Document:
    return Document(
        id=material.id,
        task=NAME,
        text=text,
        questions=questions,
        group=material.group or material.id,
        parts=material.texts,
    )


def _questions(written: Iterable[Synthetic], sessions: tuple[str, ...]) -> Iterator[Question]:
    for number, synthetic in enumerate(written, start=1):
        yield Question(
            id=f"{number}-{synthetic.kind}",
            text=synthetic.question,
            answers=(synthetic.answer,),
            metric="perplexity",
            kind="memory",
            evidence=evidence(synthetic.quote, sessions),
        )


def _by_user(
    sessions: Iterable[Session], skipped: Counter[str], max_tokens: int
) -> Iterator[tuple[str | None, list[Session]]]:
    """The sessions of each user in time order, each once, as many as the limits allow."""
    users: dict[str, dict[Session, None]] = {}
    for session in sessions:
        if session.user is None:
            skipped["conversations without a user"] += 1
        elif session.time is None:
            skipped["conversations without a time"] += 1
        elif session in users.setdefault(session.user, {}):
            skipped["duplicate conversations"] += 1
        else:
            users[session.user][session] = None
    for user, user_sessions in users.items():
        kept = _first_sessions(sorted(user_sessions, key=_session_time), max_tokens)
        if len(kept) < MIN_SESSIONS:
            skipped[f"users with fewer than {MIN_SESSIONS} sessions within the limits"] += 1
        else:
            skipped["sessions beyond the limits"] += len(user_sessions) - len(kept)
            yield user, kept


def _first_sessions(sessions: list[Session], max_tokens: int) -> list[Session]:
    """As many of the first sessions as are allowed, in number and in tokens together."""
    kept: list[Session] = []
    for session in sessions[:MAX_SESSIONS]:
        if estimated_tokens(SEPARATOR.join(chosen.text for chosen in [*kept, session])) > max_tokens:
            break
        kept.append(session)
    return kept


def _by_tens(sessions: Iterable[Session], skipped: Counter[str]) -> Iterator[tuple[str | None, list[Session]]]:
    """Ten consecutive conversations at a time; what is left over at the end is counted."""
    stream = iter(sessions)
    while group := list(islice(stream, STUDY_SESSIONS)):
        if len(group) == STUDY_SESSIONS:
            yield None, group
        else:
            skipped[f"conversations left over from groups of {STUDY_SESSIONS}"] += len(group)


def _session_time(session: Session) -> datetime:
    assert session.time is not None
    return session.time


def _user(record: Any, where: str) -> str | None:
    """The user as a hash of address and browser; None where either is not known."""
    address = reading.optional(record, "hashed_ip", str, where)
    header = reading.optional(record, "header", dict, where)
    agent = reading.optional(header, "user-agent", str, f"{where}, header") if header else None
    return reading.content_id(address, agent) if address and agent else None


def _time(record: Any, where: str) -> datetime | None:
    """The time of a record; without a zone it is UTC, as all of the data set is."""
    # Parquet has times, JSON has texts.
    stamp = record.get("timestamp")
    if stamp is None or isinstance(stamp, datetime):
        time = stamp
    else:
        try:
            time = datetime.fromisoformat(reading.field(record, "timestamp", (str, NoneType), where))
        except ValueError as error:
            shown = reading.shown(stamp)
            raise DataError(
                f"{where}: 'timestamp' should be a time such as 2023-04-09T00:02:53, it is {shown}"
            ) from error
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)
