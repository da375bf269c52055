"""What a study found on a set: the lines of its table, from the figures of its evaluations.

Every statistic is the evaluation's own (`eval.analysis`). The seeds of a variant are pooled: each question counts once
a seed, and whole documents or articles are resampled, so an interval says how far other texts may differ, and the
spread between seeds, which it does not hold, stands beside it.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from data.errors import DataError
from eval.analysis.curves import lead
from eval.analysis.density import TERMS, summarise, summarise_one
from eval.analysis.significance import over_runs
from eval.record import StagedRecord
from eval.report.results import Figure
from eval.stages import MEASURED, REFERENCE
from train.study.config import StudyConfig
from train.study.figures import Figures, Messages
from train.study.members import Member
from train.study.stand import Stand

FIGURES = {
    "tokens": "message_tokens",
    "information_bits": "information_bits",
    "bits_per_token": "bits_per_token",
}
"""The figures of ``results.json`` beside the accuracy, by what the analysis calls them."""

F1, ACCURACY = "F1", "accuracy"
"""What the accuracy of a set goes by: F1 where every question of it is scored by token F1."""

COMPARED = ("accuracy", "message_tokens", "information_bits")
"""The figures that variants are compared in over seeds."""

SHARES = ("just_the_answer", "holds_an_answer")
"""Shares of messages in ``results.json``: those that are a gold answer and nothing else, and those that hold one."""

PART = re.compile(r"-\d\d$")
"""How the id of a part of an article ends."""

Unscored = dict.fromkeys(
    (
        "information_upper_nats",
        "information_ceiling_nats",
        "saturated",
        "task_information_nats",
        "answer_nll_nats",
        "answer_tokens",
    )
)
"""Scores that files of figures do not keep."""


@dataclass(frozen=True)
class Strongest:
    """The baseline that is best where it is as long as a variant's messages.

    Attributes:
        name: of the baseline.
        lead: the accuracy of the variant less the baseline's, a share.
    """

    name: str
    lead: Figure


@dataclass(frozen=True)
class Line:
    """A variant, a baseline or what training starts from, on one set.

    Attributes:
        name: what it is.
        is_baseline: whether it is a point of a baseline's curve.
        figures: pooled over its seeds, as `eval.analysis.density.summarise_one` gives them.
        by_seed: the mean accuracy of each seed, shares.
        against_start: changes from what training starts from, as `summarise` gives them; None for that itself.
        against_first: the same from the first variant, seed by seed; None for that itself and for what has no seeds.
        over_seeds: the differences from the first variant in accuracy (a share), ``message_tokens`` and
            ``information_bits``, with the interval over the seeds that both have; None as ``against_first``.
        strongest: the strongest baseline at equal tokens; None where no curve reaches that length.
        by_kind: the same as ``figures`` for each kind of question; empty where there is one kind.
        just_the_answer: the share of messages that are a gold answer and nothing else.
    """

    name: str
    is_baseline: bool
    figures: Mapping[str, Any]
    by_seed: list[float]
    against_start: Mapping[str, Figure] | None = None
    against_first: Mapping[str, Figure] | None = None
    over_seeds: Mapping[str, Figure] | None = None
    strongest: Strongest | None = None
    by_kind: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    just_the_answer: float = 0.0


@dataclass
class SetFigures:
    """The figures of a set, as far as there are any.

    Attributes:
        name: of the set.
        members: its evaluations that are done, with their figures.
        missing: names of those that are not.
        articles: whether intervals resample articles.
        lines: the messages of each line by seed, as records.
        shares: the shares of messages of each line by seed, by the names of `SHARES`.
        baselines: the points of each baseline's curve.
        points: the names of the lines that are such points.
        score: what the accuracy of its questions is called: `F1` or `ACCURACY`.
        readers: what other readers' answers from the messages of each line scored, by seed and reader.
    """

    name: str
    members: list[tuple[Member, Figures]]
    missing: list[str]
    articles: bool
    lines: dict[str, dict[int, list[StagedRecord]]] = field(init=False)
    shares: dict[str, dict[int, dict[str, float]]] = field(init=False)
    baselines: dict[str, list[list[StagedRecord]]] = field(init=False)
    points: set[str] = field(init=False)
    score: str = field(init=False)
    readers: dict[str, dict[int, Mapping[str, Sequence[float | None]]]] = field(init=False)

    def __post_init__(self) -> None:
        """Sort the messages into lines by seeds, and the baselines into curves.

        Raises:
            DataError: two members answered different questions.
        """
        self.lines, self.shares, self.baselines, self.points, self.readers = {}, {}, {}, set(), {}
        metrics = {metric for _, figures in self.members for metric in figures.metrics}
        self.score = F1 if metrics == {"qasper_f1"} else ACCURACY
        for member, figures in self.members:
            first_member, first = self.members[0]
            if set(figures.questions) != set(first.questions):
                raise DataError(
                    f"{self.name}: {member.name} and {first_member.name} have other questions, and nothing compares"
                )
            for messages in figures.messages:
                records = records_of(figures, messages, member.seed, self.articles)
                self.lines.setdefault(messages.name, {})[member.seed] = records
                self.readers.setdefault(messages.name, {})[member.seed] = messages.readers
                self.shares.setdefault(messages.name, {})[member.seed] = {
                    "just_the_answer": statistics.fmean(messages.is_answer),
                    "holds_an_answer": statistics.fmean(messages.holds_answer),
                }
                if messages.baseline is not None:
                    self.baselines.setdefault(messages.baseline, []).append(records)
                    self.points.add(messages.name)


def sets_of(config: StudyConfig, members: Sequence[Member], stand: Stand) -> list[SetFigures]:
    """The sets of a study with what there is of each.

    Raises:
        DataError: members of a set answered different questions.
    """
    found = []
    for name in config.sets:
        own = [member for member in members if member.set_name == name]
        done = [(member, stand.figures[member.name]) for member in own if stand.is_done(member)]
        missing = [member.name.removeprefix(f"{name} ") for member in own if not stand.is_done(member)]
        found.append(SetFigures(name, done, missing, name in config.articles))
    return found


def results_of(config: StudyConfig, sets: Sequence[SetFigures]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Set, variant, seed, figure: the means over questions; None for what is missing.

    The accuracy stands under ``f1`` where it is token F1, else under ``accuracy``. A set with several kinds of question
    has the same figures of each under ``kinds``; where other readers were asked, theirs stands under ``readers``.
    """
    results: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for one in sets:
        seeds = {config.start: [0], **dict.fromkeys(config.measured_on(one.name), config.seeds)}
        nothing: dict[str, Any] = dict.fromkeys((one.score.lower(), *FIGURES, *SHARES, "n", "information_n"))
        planned = {name: {str(seed): dict(nothing) for seed in own} for name, own in seeds.items()}
        for name, by_seed in one.lines.items():
            shares = one.shares[name]
            read = one.readers[name]
            own = {
                str(seed): _means(records, one.score) | shares[seed] | _kinds(records, one.score) | _readers(read[seed])
                for seed, records in by_seed.items()
            }
            planned.setdefault(name, {}).update(own)
        results[one.name] = planned
    return results


def _readers(read: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """The mean accuracy of other readers; nothing where there are none."""
    known = {name: [score for score in scores if score is not None] for name, scores in read.items()}
    means = {name: statistics.fmean(scores) if scores else None for name, scores in known.items()}
    return {"readers": means} if means else {}


def lines_of(config: StudyConfig, one: SetFigures) -> list[Line]:
    """The lines of a set's table: what training starts from, the variants, the baselines."""
    first = next(iter(config.variants))
    known = [name for name in (config.start, *config.variants) if name in one.lines]
    names = [*known, *(name for name in one.lines if name not in known)]
    return [_line(config, one, name, first) for name in names]


def records_of(figures: Figures, messages: Messages, seed: int, articles: bool) -> list[StagedRecord]:
    """Messages as the records that the analysis takes; a question goes by its id and the seed."""
    columns = zip(
        figures.questions,
        figures.tasks,
        figures.kinds,
        figures.documents,
        messages.accuracy,
        messages.tokens,
        messages.bits,
        strict=True,
    )
    return [
        cast(
            StagedRecord,
            {
                "id": f"{question} {seed}",
                "task": task,
                "document_id": PART.sub("", document) if articles else document,
                "kind": kind,
                "stage": MEASURED,
                "accuracy": accuracy,
                "message_tokens": tokens,
                "information_nats": None if bits is None else bits * math.log(2),
                **Unscored,
            },
        )
        for question, task, kind, document, accuracy, tokens, bits in columns
    ]


def _line(config: StudyConfig, one: SetFigures, name: str, first: str) -> Line:
    by_seed = one.lines[name]
    pooled = [record for records in by_seed.values() for record in records]
    start = one.lines.get(config.start, {}).get(0)
    against_first = over_seeds = None
    if name in config.variants and name != first:
        shared = [seed for seed in by_seed if seed in one.lines.get(first, {})]
        before = [record for seed in shared for record in one.lines[first][seed]]
        against_first = _change(before, [record for seed in shared for record in by_seed[seed]])
        over_seeds = _over_seeds([(one.lines[first][seed], by_seed[seed]) for seed in shared])
    against_start = None
    if start is not None and name != config.start:
        against_start = _change([_of_seed(record, seed) for seed in by_seed for record in start], pooled)
    return Line(
        name,
        name in one.points,
        summarise_one(pooled),
        [mean for records in by_seed.values() if (mean := summarise_one(records)["accuracy"]["value"]) is not None],
        against_start,
        against_first,
        over_seeds,
        None if name in one.points else _strongest(one, pooled),
        {kind: summarise_one(records) for kind, records in kinds_of(pooled).items()},
        statistics.fmean(shares["just_the_answer"] for shares in one.shares[name].values()),
    )


def kinds_of(records: Sequence[StagedRecord]) -> dict[str, list[StagedRecord]]:
    """Records by the kind of their question; empty where all are of one kind."""
    kinds = sorted({record["kind"] for record in records})
    if len(kinds) < 2:
        return {}
    return {kind: [record for record in records if record["kind"] == kind] for kind in kinds}


def _strongest(one: SetFigures, pooled: Sequence[StagedRecord]) -> Strongest | None:
    leads = {name: lead([pooled], points) for name, points in one.baselines.items()}
    found = [Strongest(name, figures["accuracy"]) for name, figures in leads.items() if figures is not None]
    return min(found, key=lambda strongest: strongest.lead["value"] or 0.0, default=None)


def _change(before: Sequence[StagedRecord], after: Sequence[StagedRecord]) -> Mapping[str, Figure] | None:
    """The paired changes; None where nothing is there to compare."""
    if not before or not after:
        return None
    reference = [cast(StagedRecord, {**record, "stage": REFERENCE}) for record in before]
    return summarise([*reference, *after])["change"]


def _over_seeds(pairs: Sequence[tuple[Sequence[StagedRecord], Sequence[StagedRecord]]]) -> dict[str, Figure] | None:
    """The differences between two variants with the interval over seeds, from the records of each seed of both."""
    if not pairs:
        return None
    found = {}
    for figure in COMPARED:
        values = [(_plain_mean(before, figure), _plain_mean(after, figure)) for before, after in pairs]
        known = [after - before for before, after in values if before is not None and after is not None]
        found[figure] = cast(Figure, over_runs(known).as_dict())
    return found


def _plain_mean(records: Sequence[StagedRecord], figure: str) -> float | None:
    """The mean of a figure over the records that have it, not stopped at 0, or a difference would be too small."""
    known = [value for value, _ in map(TERMS[figure], records) if value is not None]
    return statistics.fmean(known) if known else None


def _of_seed(record: StagedRecord, seed: int) -> StagedRecord:
    """The record of what there is one of, beside a seed of a variant."""
    return cast(StagedRecord, {**record, "id": f"{record['id'].rpartition(' ')[0]} {seed}"})


def _kinds(records: Sequence[StagedRecord], score: str) -> dict[str, Any]:
    by_kind = {kind: _means(of_kind, score) for kind, of_kind in kinds_of(records).items()}
    return {"kinds": by_kind} if by_kind else {}


def _means(records: Sequence[StagedRecord], score: str) -> dict[str, Any]:
    figures = summarise_one(records)
    names = {score.lower(): "accuracy", **FIGURES}
    informed = sum(TERMS["information_bits"](record)[0] is not None for record in records)
    counts = {"n": figures["n"], "information_n": informed}
    return {name: figures[own]["value"] for name, own in names.items()} | counts


def spread(by_seed: Sequence[float]) -> tuple[float, float, float] | None:
    """Standard deviation, least and most over seeds; None of fewer than two."""
    return (statistics.stdev(by_seed), min(by_seed), max(by_seed)) if len(by_seed) > 1 else None
