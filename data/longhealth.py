"""LongHealth, multiple choice on long patient records (Adams et al. 2024), from its published ``benchmark_v5.json``.

There are three protocols. 1: a context holds the patient's notes. 2: it also holds up to ten notes of other patients,
and a sixth option says that the notes hold no answer. 3: it holds only notes of other patients, and the sixth option is
right. As published, a context takes the notes with the answer, then others up to a token budget, in random order.

Here notes and their order are drawn once a patient, not once a question: questions with the same notes share one
context, which is then read once, and no context becomes the negative of its own reordering.
"""

import bisect
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import reading
from data.errors import DataError, one_line
from data.sample import Document, Question
from data.task import Loaded, Request, draw

NAME = "longhealth"
VERSION = 1
"""Version of the task's documents and questions: results of different versions do not compare."""

VARIANTS = ("1", "2", "3")
"""The protocols, the default first."""

SPLITS = ("test",)
FILE = "benchmark_v5.json"
FILE_URL = f"https://github.com/kbressem/LongHealth/blob/main/data/{FILE}"

CONTEXT_TOKENS = 16_000
"""The published token budget, in which any patient's notes fit whole (5,090 to 6,754 words)."""

OTHER_NOTES = 10
"""Most notes of other patients in a context, as published."""

NOT_ANSWERED = "cannot be answered with the provided documents"
"""The sixth option of protocols 2 and 3, in the published words."""

SEPARATOR = "\n\n--------------\n\n"
"""Separates the notes of a context."""

INSTRUCTION = (
    "Write a short note for a reader who has this question and cannot see the patient's records. Note what the records "
    "say that answers the question, with their own words, names, dates and numbers, and nothing else. If they are "
    "another patient's or do not answer the question, say so."
)
ANSWER_INSTRUCTION = (
    "The text above is a note on a patient's records. Answer the question from the note alone: write the text of the "
    "right option, word for word, and nothing else."
)

_PATIENT = re.compile(r"patient_\w+")
_OPTION_KEYS = tuple(f"answer_{letter}" for letter in "abcde")


@dataclass(frozen=True)
class _Patient:
    """A patient: notes by name, and published questions, each with its file and record for messages."""

    id: str
    notes: dict[str, str]
    questions: list[tuple[str, Any]]


@dataclass(frozen=True)
class _NoteQuestion:
    """A question, and the names of the notes that may hold its answer."""

    question: Question
    notes: tuple[str, ...]


def load(request: Request) -> Loaded:
    """The patients' records with their questions by one of the protocols.

    A document is one context; its group and its cluster are the patient. A patient has several contexts where the notes
    do not all fit into the budget. Notes that may hold an answer are never shortened or left out; contexts in which
    they alone exceed the budget are counted.

    Raises:
        DataError: no source, a protocol that needs another patient, a budget that holds no word, or a file that cannot
            be read or is malformed; one line that names the file and the record.
    """
    variant = VARIANTS[0] if request.variant is None else request.variant
    budget = CONTEXT_TOKENS if request.context_tokens is None else request.context_tokens
    patients = read_patients(_file(request.source))
    skipped: Counter[str] = Counter()
    contexts = _Contexts(patients, variant, budget, request, skipped)
    return draw([document for patient in patients for document in contexts.documents(patient)], skipped, request)


def read_patients(path: Path) -> list[_Patient]:
    """The patients of a file; keys that are not in the format, such as a canary, are ignored.

    Raises:
        DataError: the file cannot be read, or a patient lacks notes or questions.
    """
    content = reading.json_file(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: should hold an object of patients by id, it is {reading.shown(content)}")
    patients = [_patient(key, record, path) for key, record in content.items() if _PATIENT.fullmatch(key)]
    if not patients:
        keys = one_line(", ".join(content)) or "none"
        raise DataError(f"{path}: has no patient; keys should read patient_01, patient_02, ..., they are {keys}")
    return patients


def _patient(patient_id: str, record: Any, path: Path) -> _Patient:
    where = f"{path}, {patient_id}"
    texts = reading.field(record, "texts", (dict,), where)
    notes = {name: reading.required_text(texts, name, f"{where}, texts") for name in texts}
    questions = reading.field(record, "questions", (list,), where)
    if not notes or not questions:
        raise DataError(f"{where}: {'questions' if notes else 'texts'!r} is empty; a patient needs some")
    return _Patient(
        patient_id, notes, [(f"{where}, question {n}", question) for n, question in enumerate(questions, start=1)]
    )


class _Contexts:
    """Puts the contexts of one protocol together."""

    def __init__(
        self, patients: Sequence[_Patient], variant: str, budget: int, request: Request, skipped: Counter[str]
    ) -> None:
        if variant != "1" and len(patients) < 2:
            raise DataError(f"{NAME}: variant {variant} takes notes of other patients, but there is only one")
        self.patients = patients
        self.variant = variant
        self.seed = request.seed
        self.count_tokens = request.count_tokens
        self.skipped = skipped
        self.separator_tokens = request.count_tokens(SEPARATOR)
        self.budget = budget + self.separator_tokens
        self.note_tokens = {
            note: request.count_tokens(note) + self.separator_tokens
            for patient in patients
            for note in patient.notes.values()
        }

    def documents(self, patient: _Patient) -> list[Document]:
        """One document for each distinct context of a patient's questions."""
        generator = random.Random(f"{self.seed}/{patient.id}")
        own_notes = {} if self.variant == "3" else patient.notes
        others = self._notes_of_others(patient, generator)
        order = [*own_notes.values(), *others]
        generator.shuffle(order)
        contexts: dict[str, list[Question]] = {}
        for number, (where, record) in enumerate(patient.questions, start=1):
            parsed = _question(record, patient, f"{patient.id}/{number}", self.variant, where, self.skipped)
            needed = [own_notes[name] for name in parsed.notes]
            rest = [note for name, note in own_notes.items() if name not in parsed.notes]
            context = self._context(needed, [*rest, *others], order)
            contexts.setdefault(context, []).append(parsed.question)
        return [
            Document(
                id=patient.id if len(contexts) == 1 else f"{patient.id}/context {number}",
                task=NAME,
                text=text,
                questions=tuple(questions),
                group=patient.id,
                cluster=patient.id,
            )
            for number, (text, questions) in enumerate(contexts.items(), start=1)
        ]

    def _notes_of_others(self, patient: _Patient, generator: random.Random) -> list[str]:
        if self.variant == "1":
            return []
        notes = [note for neighbour in self.patients if neighbour.id != patient.id for note in neighbour.notes.values()]
        return generator.sample(notes, min(OTHER_NOTES, len(notes)))

    def _context(self, needed: Sequence[str], rest: Sequence[str], order: Sequence[str]) -> str:
        """The needed notes, then as many of the rest as the budget holds, the last of these shortened; in ``order``."""
        chosen = {note: note for note in needed}
        tokens_left = self.budget - sum(self.note_tokens[note] for note in chosen)
        if tokens_left < 0:
            self.skipped["contexts beyond the token budget: notes that may hold the answer are never cut"] += 1
        for number, note in enumerate(rest):
            if self.note_tokens[note] <= tokens_left:
                chosen[note] = note
                tokens_left -= self.note_tokens[note]
                continue
            if shortened := beginning(note, tokens_left - self.separator_tokens, self.count_tokens):
                chosen[note] = shortened
                self.skipped["notes shortened to the token budget"] += 1
            self.skipped["notes beyond the token budget"] += len(rest) - number - bool(shortened)
            break
        if not chosen:
            raise DataError(f"{NAME}: context_tokens = {self.budget - self.separator_tokens} holds no word of a note")
        return SEPARATOR.join(chosen[note] for note in order if note in chosen)


def beginning(text: str, tokens: int, count_tokens: Callable[[str], int]) -> str:
    """The longest beginning of a text, in whole words, of at most ``tokens`` tokens; empty where no word fits."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    fitting = bisect.bisect_right(ends, tokens, key=lambda end: count_tokens(text[:end]))
    return text[: ends[fitting - 1]] if fitting else ""


def _question(
    record: Any, patient: _Patient, question_id: str, variant: str, where: str, skipped: Counter[str]
) -> _NoteQuestion:
    """A published question as its protocol asks it.

    Raises:
        DataError: a field is missing or of the wrong type, or no option is the right answer.
    """
    options = tuple(reading.required_text(record, key, where) for key in _OPTION_KEYS)
    text = reading.required_text(record, "question", where)
    right = _right_option(reading.required_text(record, "correct", where), options, where)
    answered = variant != "3"
    passages = _passages(record, patient.notes, where, skipped) if answered else {}
    question = Question(
        id=question_id,
        text=text,
        answers=(right if answered else NOT_ANSWERED,),
        metric="multiple_choice",
        options=options if variant == "1" else (*options, NOT_ANSWERED),
        kind="answerable" if answered else "unanswerable",
        evidence=tuple(dict.fromkeys(passage for note_passages in passages.values() for passage in note_passages)),
    )
    return _NoteQuestion(question, tuple(passages))


def _right_option(correct: str, options: Sequence[str], where: str) -> str:
    """The option with the right answer's text, up to white space and case.

    Raises:
        DataError: no option has it.
    """
    plain = " ".join(correct.casefold().split())
    for option in options:
        if " ".join(option.casefold().split()) == plain:
            return option
    raise DataError(
        f"{where}: 'correct' should be the text of one of {', '.join(_OPTION_KEYS)}, it is {reading.shown(correct)}"
    )


def _passages(record: Any, notes: Mapping[str, str], where: str, skipped: Counter[str]) -> dict[str, tuple[str, ...]]:
    """The passages an answer rests on by note; where none is known, every note of the patient and no passage.

    Raises:
        DataError: a field is of the wrong type.
    """
    located = record.get("answer_location") or {}
    if not isinstance(located, dict):
        raise DataError(f"{where}: 'answer_location' should be an object, it is {reading.shown(located)}")
    passages: dict[str, tuple[str, ...]] = {}
    for name in located:
        if name in notes:
            passages[name] = _note_passages(located, name, notes[name], where, skipped)
        else:
            skipped["answer locations in notes that are not there"] += 1
    if not passages:
        skipped["questions without an answer location, for which every note may hold the answer"] += 1
    return passages or dict.fromkeys(notes, ())


def _note_passages(located: dict[str, Any], name: str, note: str, where: str, skipped: Counter[str]) -> tuple[str, ...]:
    """The passages of one note, whole words; locations that are no part of the note are counted.

    Raises:
        DataError: start and end are not two lists of numbers of the same length.
    """
    spans = reading.field(located, name, (dict,), f"{where}, answer_location")
    location = f"{where}, answer_location, {name}"
    starts, ends = (_fractions(spans, key, location) for key in ("start", "end"))
    if len(starts) != len(ends):
        raise DataError(
            f"{location}: 'start' and 'end' should be of one length, they have {len(starts)} and {len(ends)}"
        )
    passages = []
    for start, end in zip(starts, ends, strict=True):
        passage = _passage(note, start, end) if 0 <= start < end <= 1 else ""
        if passage:
            passages.append(passage)
        else:
            skipped["answer locations that are no part of their note"] += 1
    return tuple(passages)


def _fractions(spans: Any, key: str, where: str) -> list[float]:
    """Where passages start or end, as fractions of their note's length; a number of any size, as it is published.

    Raises:
        DataError: they are not a list of numbers.
    """
    items = reading.field(spans, key, (list,), where)
    numbered = {str(number): item for number, item in enumerate(items, start=1)}
    # As they are: a whole number can be larger than a float, and is then no part of the note, like any above 1.
    return [reading.field(numbered, number, (int, float), f"{where}, {key}") for number in numbered]


def _passage(note: str, start: float, end: float) -> str:
    """The words of a note that begin or end between two fractions of its length."""
    first, last = math.floor(start * len(note)), math.ceil(end * len(note))
    while first > 0 and not note[first - 1].isspace():
        first -= 1
    while last < len(note) and not note[last].isspace():
        last += 1
    return note[first:last].strip()


def _file(source: str | None) -> Path:
    """The benchmark's file: the source itself, or in the folder that the source is.

    Raises:
        DataError: no source, or there is no such file.
    """
    if source is None:
        raise DataError(f"{NAME}: is not on the Hub; get {FILE_URL} and name the file as its source")
    path = reading.local_path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        return path
    file = next((candidate for candidate in (path / "data" / FILE, path / FILE) if candidate.is_file()), None)
    if file is None:
        raise DataError(f"{path}: has no {FILE}, nor data/{FILE}; get it from {FILE_URL}")
    return file
