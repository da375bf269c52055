"""The messages the report shows: which, how much of each, and as JSON no HTML parser can end early."""

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
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


def chosen_pairs(path: Path, seed: int) -> tuple[list[Pair], int]:
    """The pairs the page shows, tasks by turns, and how many there are in all.

    The file is read twice, so that memory holds the contexts of the chosen pairs only.
    """
    tasks: dict[str, dict[str, None]] = {}
    for record in json_lines(path):
        tasks.setdefault(record["task"], {})[record["id"]] = None
    chosen = _evenly({task: list(ids) for task, ids in tasks.items()}, MOST_PAIRS, seed)
    pairs: dict[str, Pair] = {id_: {} for id_ in chosen}
    for record in json_lines(path):
        if record["id"] in pairs:
            pairs[record["id"]][record["stage"]] = cast(Record, record)
    return list(pairs.values()), sum(map(len, tasks.values()))


def _evenly(ids: Mapping[str, Sequence[str]], most: int, seed: int) -> list[str]:
    """At most that many ids, one of each task by turns, each task's in random order; a short task leaves room."""
    generator = random.Random(seed)
    queues = [generator.sample(ids[task], len(ids[task])) for task in sorted(ids)]
    turns = (queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue))
    return [id_ for _, id_ in zip(range(most), turns, strict=False)]


def browser_data(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What the page's script shows: pairs from the first on as far as the limit allows; a context is kept once.

    Raises:
        DataError: a message without a figure for every token.
    """
    shown, contexts = _within(MOST_BYTES, pairs)
    return {
        "tasks": sorted({pair["task"] for pair in shown}),
        "scale": _full_shade(shown),
        "contexts": [{"text": text[:MOST_CONTEXT_CHARACTERS], "characters": len(text)} for text in contexts],
        "pairs": shown,
    }


def _within(most_bytes: int, pairs: Sequence[Pair]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The pairs that fit, and the places of their contexts."""
    shown: list[dict[str, Any]] = []
    contexts: dict[str, int] = {}
    size = 0
    for pair in pairs:
        text = next(iter(pair.values()))["context"]
        data = _pair_data(pair, contexts.get(text, len(contexts)))
        size += len(script_json(data)) + (0 if text in contexts else len(script_json(text[:MOST_CONTEXT_CHARACTERS])))
        if shown and size > most_bytes:
            break
        contexts.setdefault(text, len(contexts))
        shown.append(data)
    return shown, contexts


def _pair_data(pair: Pair, context: int) -> dict[str, Any]:
    record = next(iter(pair.values()))
    sides = {stage: _side_data(pair[stage]) if stage in pair else None for stage in STAGES}
    return {
        "task": record["task"],
        "document": record["document_id"],
        "kind": record.get("kind", ""),
        "question": record["question"],
        "options": list(record["options"]),
        "answers": list(record["answers"]),
        "context": context,
        "change": _change(sides),
        **sides,
    }


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
    sides = (side for pair in pairs for side in (pair["before"], pair["after"]) if side)
    bits = [value for side in sides for value in side["token_bits"] if value > 0]
    return round(max(0.1, float(np.quantile(bits, 0.98))), 1) if bits else 1.0


def script_json(data: Any) -> str:
    """JSON that no HTML parser can end early: markup characters and all beyond ASCII as escapes."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
