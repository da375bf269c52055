"""The page of messages: what they are made of, and some of them, before and after training."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from data.errors import DataError
from eval.messages.shape import holds_answer, is_answer, stands_in
from eval.record import Record
from eval.record_file import read_records
from eval.report.markdown import escaped
from eval.stages import MEASURED, REFERENCE
from objectives.accuracy import squad_tokens

Records = Mapping[str, Record]
"""The records of one compressor by question."""

SHARES: dict[str, Callable[[Record], bool]] = {
    "just a gold answer": lambda record: is_answer(record["message"], record["answers"]),
    "holds a gold answer": lambda record: holds_answer(record["message"], record["answers"]),
    "just what the predictor answers": lambda record: is_answer(record["message"], [record["prediction"]]),
    "copied from the document in one piece": lambda record: stands_in(record["message"], record["context"]),
    "empty": lambda record: not squad_tokens(record["message"]),
}
"""What a message may be, by the words that SQuAD's normalisation leaves of it."""


def sides(folders: Sequence[Path], sampled: bool) -> tuple[Records, Records]:
    """The records of the reference and of the compressor, of the questions that both have.

    Args:
        folders: one run folder with both stages, or that of the reference and that of the compressor.
        sampled: take sampled messages also where there are greedy ones.

    Raises:
        DataError: a folder has no records of a stage, or they have no question in common.
    """
    measured = _records(folders[-1], sampled, MEASURED)
    reference = _records(folders[0], sampled, REFERENCE if len(folders) == 1 else MEASURED)
    common = [name for name in measured if name in reference]
    if not common:
        raise DataError(f"{folders[0]} and {folders[-1]} have no question in common")
    return {name: reference[name] for name in common}, {name: measured[name] for name in common}


def page(before: Records, after: Records, count: int, seed: int) -> str:
    """The page as Markdown.

    Args:
        before: the records of the reference, by question.
        after: those of the compressor, of the same questions.
        count: how many questions are shown.
        seed: which ones.
    """
    names = sorted(after)
    shown = random.Random(seed).sample(names, min(count, len(names)))
    parts = [
        f"Of {len(names)} questions:",
        _shares(list(before.values()), list(after.values())),
        f"{len(shown)} of them, drawn at random (seed {seed}):",
        *(_question(before[name], after[name]) for name in shown),
    ]
    return "\n\n".join(parts) + "\n"


def _records(folder: Path, sampled: bool, stage: str) -> dict[str, Record]:
    files = [folder / name for name in ("samples.jsonl", "samples.greedy.jsonl")]
    present = [path for path in files if path.is_file()]
    if not present:
        raise DataError(f"{folder}: has no samples.jsonl; give the folder of a finished run or evaluation")
    path = present[0] if sampled else present[-1]
    found = {record["id"]: record for record in read_records(path, Record) if record["stage"] == stage}
    if not found:
        raise DataError(f"{path}: has no records of the stage {stage!r}")
    return found


def _shares(before: Sequence[Record], after: Sequence[Record]) -> str:
    rows = [
        ("accuracy", *(f"{fmean(_accuracies(records)):.1%}" for records in (before, after))),
        ("message tokens", *(f"{fmean(r['message_tokens'] for r in records):.1f}" for records in (before, after))),
    ]
    for title, holds in SHARES.items():
        rows.append((title, *(f"{fmean(map(holds, records)):.1%}" for records in (before, after))))
    lines = [f"| {title} | {first} | {second} |" for title, first, second in rows]
    return "\n".join(["| messages | before | after |", "|---|---:|---:|", *lines])


def _accuracies(records: Sequence[Record]) -> list[float]:
    return [record["accuracy"] for record in records if record["accuracy"] is not None] or [float("nan")]


def _question(before: Record, after: Record) -> str:
    gold = " / ".join(dict.fromkeys(after["answers"]))
    lines = [f"**{escaped(after['question'])}** ({escaped(after['id'])}; gold: {escaped(gold)})"]
    for title, record in (("before", before), ("after", after)):
        message = escaped(record["message"]) or "(empty)"
        accuracy = "" if record["accuracy"] is None else f" ({record['accuracy']:.2f})"
        answer = escaped(record["prediction"])
        lines.append(f"- {title}, {record['message_tokens']} tokens: {message} → {answer}{accuracy}")
    return lines[0] + "\n\n" + "\n".join(lines[1:])
