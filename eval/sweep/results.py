"""What the records of a sweep say: figures of every cell, and what scaling one side does with the other side fixed.

Every interval is a 95% bootstrap over documents. Contrasts are paired: both sides on the same question, seed and other
model. Nothing here says what other models would do: those of the grid are taken as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.analysis.correlation import correlations
from eval.analysis.rate_distortion import fit
from eval.analysis.regression import FACTORS, MATCHING, regress
from eval.analysis.sentences import obedience
from eval.analysis.significance import BOOTSTRAP, Bootstrap
from eval.record import SweepRecord, cluster
from eval.sweep.contrasts import compare_all, contrasts, control_contrasts, without_model
from eval.sweep.measures import BY_ANSWER, BY_MESSAGE, _tasks, figures, members, messages_of

Results = Mapping[str, Any]
"""What ``sweep.json`` holds."""


def summarise(
    records: Sequence[SweepRecord], bootstrap: Bootstrap = BOOTSTRAP, control: str | None = None
) -> dict[str, Any]:
    """Everything ``sweep.json`` says of the records.

    Args:
        records: as in ``samples.jsonl``: one an answer; scores in nats, None where missing.
        bootstrap: how documents are resampled.
        control: a model that the largest is known to beat; it has cells, and is left out of what scaling does. None
            has no such control.

    Raises:
        ValueError: there are no records, or none without the control.
    """
    if not records:
        raise ValueError("no records to summarise: the sweep answered nothing")
    kept = records if control is None else without_model(records, control)
    if not kept:
        raise ValueError(f"control = {control!r}: is in every answer of the sweep, and nothing is left to compare")
    return {
        "counts": counts_of(records),
        "compressors": [vars(entry) for entry in members(records, "compressor")],
        "predictors": [vars(entry) for entry in members(records, "predictor")],
        "messages": message_cells(records, bootstrap),
        "cells": cells(records, bootstrap),
        "controls": [] if control is None else [c.as_dict() for c in control_contrasts(records, control, bootstrap)],
        "contrasts": [entry.as_dict() for entry in contrasts(kept, bootstrap)],
        "comparisons": [comparison.as_dict() for comparison in compare_all(kept, bootstrap)],
        "regression": regress(kept, FACTORS).as_dict(),
        "regression_with_matching": regress(kept, (*FACTORS, MATCHING)).as_dict(),
        "correlations": [
            entry.as_dict()
            for by in (("compressor", "task"), ())
            for entry in correlations(kept, by, bootstrap=bootstrap)
        ],
        "sentences": sentence_counts(records, bootstrap),
        "information_cells": information_cells(kept, bootstrap),
        "rate_distortion": rate_distortion(kept, bootstrap),
    }


def counts_of(records: Sequence[SweepRecord]) -> dict[str, Any]:
    """How much the results rest on, and what is missing from it."""
    messages = messages_of(records)
    return {
        "answers": len(records),
        "messages": len(messages),
        "questions": len({record["id"] for record in records}),
        "documents": len({cluster(record) for record in records}),
        "tasks": list(dict.fromkeys(record["task"] for record in records)),
        "seeds": sorted({record["seed"] for record in records}),
        "without_accuracy": sum(record["accuracy"] is None for record in records),
        "without_information": sum(record["information_nats"] is None for record in messages),
        "without_perplexity": sum(record["answer_nll_nats"] is None for record in records),
        "cut_contexts": sum(record["truncated_tokens"] > 0 for record in messages),
    }


def message_cells(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The messages of every compressor, over all tasks (None) and by task."""
    messages = messages_of(records)
    return [
        {"compressor": compressor.name, "task": task} | figures(cell_records, BY_MESSAGE, bootstrap)
        for compressor in members(records, "compressor")
        for task in _tasks(records)
        if (cell_records := [r for r in messages if r["compressor"] == compressor.name and task in (None, r["task"])])
    ]


def cells(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The answers of every predictor to every compressor, over all tasks (None) and by task.

    ``seed_spread`` is the standard deviation of the accuracy between seeds; None where there is one seed.
    """
    return [
        {"compressor": compressor.name, "predictor": predictor.name, "task": task}
        | figures(cell_records, BY_ANSWER, bootstrap)
        | {"seed_spread": seed_spread(cell_records)}
        for compressor in members(records, "compressor")
        for predictor in members(records, "predictor")
        for task in _tasks(records)
        if (
            cell_records := [
                r
                for r in records
                if (r["compressor"], r["predictor"]) == (compressor.name, predictor.name) and task in (None, r["task"])
            ]
        )
    ]


def sentence_counts(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """How far every compressor that is asked for an exact number of sentences writes so many."""
    messages = messages_of(records)
    numbers = {record["compressor"]: record["sentences"] for record in messages if record["sentences"] is not None}
    return [
        {"name": name} | obedience([r for r in messages if r["compressor"] == name], count, bootstrap)
        for name, count in numbers.items()
    ]


def seed_spread(records: Sequence[SweepRecord]) -> float | None:
    """The standard deviation of the mean accuracy between seeds."""
    by_seed: dict[int, list[float]] = {}
    for record in records:
        if record["accuracy"] is not None:
            by_seed.setdefault(record["seed"], []).append(record["accuracy"])
    means = [float(np.mean(values)) for values in by_seed.values()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def information_cells(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The points of the correlations over cells: (compressor, task), all predictors together."""
    measures = ("information_bits", "perplexity", "accuracy")
    return [
        {"compressor": compressor.name, "task": task} | figures(cell_records, measures, bootstrap)
        for compressor in members(records, "compressor")
        for task in _tasks(records)
        if task is not None
        and (cell_records := [r for r in records if (r["compressor"], r["task"]) == (compressor.name, task)])
    ]


def rate_distortion(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """For every predictor its points, one for each compressor and task, and the curve through them."""
    entries = []
    for predictor in members(records, "predictor"):
        points = []
        for compressor in members(records, "compressor"):
            for task in _tasks(records):
                pair = (compressor.name, predictor.name, task)
                cell_records = [r for r in records if (r["compressor"], r["predictor"], r["task"]) == pair]
                if cell_records:
                    points.append(
                        {"compressor": compressor.name, "task": task}
                        | figures(cell_records, ("bits_per_token", "distortion"), bootstrap)
                    )
        placed = [
            (p["bits_per_token"]["value"], p["distortion"]["value"])
            for p in points
            if None not in (p["bits_per_token"]["value"], p["distortion"]["value"])
        ]
        fitted = fit([rate for rate, _ in placed], [loss for _, loss in placed])
        curve = None if fitted.curve is None else vars(fitted.curve)
        entries.append({"predictor": predictor.name, "points": points, "curve": curve, "statement": fitted.statement})
    return entries
