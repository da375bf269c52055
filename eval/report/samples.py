"""The messages the report shows: which, how much of each, and as JSON no HTML parser can end early."""

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from data.errors import DataError
from eval.analysis.density import STAGES
from eval.record import Record
from eval.report.run_files import json_lines

MOST_PAIRS = 120
"""Questions on the page: more than anybody reads, few enough to scroll."""

MOST_CONTEXT_CHARACTERS = 20_000
"""Characters of a context on the page, about ten pages of print."""

MOST_BYTES = 3_000_000
"""Bytes of all embedded messages and contexts, few enough for a browser to open the page at once. The first question is
shown whatever its size."""

Pair = dict[str, Record]


@dataclass(frozen=True)
class Chosen:
    """The questions that the page shows.

    Attributes:
        pairs: the records of each question, by stage.
        greedy: the same with greedy messages, by the id of the question; empty where the run has none.
        total: how many questions there are in all.
    """

    pairs: list[Pair]
    greedy: dict[str, Pair]
    total: int


def chosen_pairs(path: Path, seed: int, greedy_path: Path | None = None, first: str | None = None) -> Chosen:
    """The questions that the page shows, tasks by turns.

    The file is read twice, so that memory holds the contexts of the chosen questions only.

    Args:
        path: the records.
        seed: draws the questions where there are more than the page shows.
        greedy_path: the records of greedy messages.
        first: the id of a question that is among those shown.
    """
    tasks: dict[str, dict[str, None]] = {}
    for record in json_lines(path):
        tasks.setdefault(record["task"], {})[record["id"]] = None
    chosen = _evenly({task: list(ids) for task, ids in tasks.items()}, MOST_PAIRS, seed)
    own = next((ids for ids in tasks.values() if first in ids), None)
    if first is not None and own is not None:
        # In the place of the last one of its task, so that tasks keep their shares.
        given_way = first if first in chosen else next(id_ for id_ in reversed(chosen) if id_ in own)
        chosen = [first, *(id_ for id_ in chosen if id_ != given_way)]
    pairs = _by_stage(path, chosen)
    greedy = {} if greedy_path is None else _by_stage(greedy_path, chosen)
    return Chosen(list(pairs.values()), greedy, sum(map(len, tasks.values())))


def _by_stage(path: Path, ids: Sequence[str]) -> dict[str, Pair]:
    """The records of these questions, by question and stage."""
    pairs: dict[str, Pair] = {id_: {} for id_ in ids}
    for record in json_lines(path):
        if record["id"] in pairs:
            pairs[record["id"]][record["stage"]] = cast(Record, record)
    return pairs


def _evenly(ids: Mapping[str, Sequence[str]], most: int, seed: int) -> list[str]:
    """At most that many ids, one of each task by turns, each task's in random order; a short task leaves room."""
    generator = random.Random(seed)
    queues = [generator.sample(ids[task], len(ids[task])) for task in sorted(ids)]
    turns = (queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue))
    return [id_ for _, id_ in zip(range(most), turns, strict=False)]


def browser_data(chosen: Chosen) -> dict[str, Any]:
    """What the page's script shows: questions from the first on as far as the limit allows; a context is kept once.

    Raises:
        DataError: a message without a figure for every token.
    """
    shown, contexts = _within(MOST_BYTES, chosen)
    return {
        "tasks": sorted({pair["task"] for pair in shown}),
        "scale": _full_shade(shown),
        "contexts": [{"text": text[:MOST_CONTEXT_CHARACTERS], "characters": len(text)} for text in contexts],
        "pairs": shown,
    }


def _within(most_bytes: int, chosen: Chosen) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The pairs that fit, and the places of their contexts."""
    shown: list[dict[str, Any]] = []
    contexts: dict[str, int] = {}
    size = 0
    for pair in chosen.pairs:
        record = next(iter(pair.values()))
        text = record["context"]
        data = _pair_data(pair, chosen.greedy.get(record["id"]), contexts.get(text, len(contexts)))
        size += len(script_json(data)) + (0 if text in contexts else len(script_json(text[:MOST_CONTEXT_CHARACTERS])))
        if shown and size > most_bytes:
            break
        contexts.setdefault(text, len(contexts))
        shown.append(data)
    return shown, contexts


def _pair_data(pair: Pair, greedy: Pair | None, context: int) -> dict[str, Any]:
    record = next(iter(pair.values()))
    return {
        "id": record["id"],
        "task": record["task"],
        "document": record["document_id"],
        "kind": record.get("kind", ""),
        "question": record["question"],
        "options": list(record["options"]),
        "answers": list(record["answers"]),
        "context": context,
        **_sides(pair),
        **({"greedy": _sides(greedy)} if greedy else {}),
    }


def _sides(pair: Pair) -> dict[str, Any]:
    sides = {stage: _side_data(pair[stage]) if stage in pair else None for stage in STAGES}
    return {"change": _change(sides), **sides}


def _side_data(record: Record) -> dict[str, Any]:
    tokens, bits = record["tokens"], record["token_bits"] or []
    if bits and len(tokens) != len(bits):
        raise DataError(
            f"record {record['id']!r} ({record['stage']}): {len(tokens)} tokens, {len(bits)} of them with bits"
        )
    nats = _finite(record["information_nats"])
    return {
        "message": record["message"],
        "message_tokens": record["message_tokens"],
        "tokens": list(tokens) if bits else [],
        "token_bits": [round(value, 3) for value in bits],
        "bits": None if nats is None else round(nats / math.log(2), 3),
        "prediction": record["prediction"],
        "accuracy": _finite(record["accuracy"]),
        "verdict": record.get("verdict"),
        "perplexity": _perplexity(record),
    }


def _perplexity(record: Record) -> float | None:
    """Perplexity of the gold answer; None where the predictor gave no log-probability."""
    nats, tokens = _finite(record.get("answer_nll_nats")), record.get("answer_tokens")
    # Beyond this exponent it means nothing and would be infinite.
    return round(math.exp(min(nats / tokens, 300.0)), 3) if nats is not None and tokens else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _change(sides: Mapping[str, dict[str, Any] | None]) -> str:
    """What became of the answer: better, worse, same, or unscored where one side has no score."""
    before, after = (side["accuracy"] if side else None for side in (sides["before"], sides["after"]))
    if before is None or after is None:
        return "unscored"
    return "same" if after == before else "better" if after > before else "worse"


def _full_shade(pairs: Iterable[dict[str, Any]]) -> float:
    """The bits at which a token has the full shade: nearly the most any has, outliers aside."""
    views = (view for pair in pairs for view in (pair, pair.get("greedy")) if view)
    sides = (side for view in views for side in (view["before"], view["after"]) if side)
    bits = [value for side in sides for value in side["token_bits"] if value > 0]
    return round(max(0.1, float(np.quantile(bits, 0.98))), 1) if bits else 1.0


def script_json(data: Any) -> str:
    """JSON that no HTML parser can end early: markup characters and all beyond ASCII as escapes."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
