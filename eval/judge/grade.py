"""Records graded by a judge where no metric can tell."""

from collections.abc import Sequence
from typing import TypeVar

from configs.command import say
from eval.config import EvaluationConfig
from eval.judge.judge import Answered, Verdict, endpoint_judge, judge
from eval.record import BaseRecord

Graded = TypeVar("Graded", bound=BaseRecord)


def grade(config: EvaluationConfig, records: Sequence[Graded]) -> list[Graded]:
    """The records with a judge's verdict, where no metric can tell and there is a judge.

    Raises:
        EndpointError: the judge's server fails.
    """
    ungraded = [record for record in records if record["metric"] == "judge"]
    if not ungraded:
        return list(records)
    if config.judge is None:
        say(f"{len(ungraded)} answers can be graded by a judge alone, and there is none: their accuracy is missing")
        return list(records)
    complete = endpoint_judge(config.judge.endpoint, config.judge.model, config.folder / "judge.jsonl")
    answers = [Answered(record["question"], record["answers"][0], record["prediction"]) for record in ungraded]
    judged = judge(answers, complete)
    if judged.unreadable:
        say(f"{judged.unreadable} of {len(ungraded)} replies of the judge cannot be read: their accuracy is missing")
    verdicts = iter(judged.verdicts)
    return [_graded(record, next(verdicts)) if record["metric"] == "judge" else record for record in records]


def _graded(record: Graded, verdict: Verdict | None) -> Graded:
    graded = record.copy()
    graded["verdict"] = verdict
    graded["accuracy"] = None if verdict is None else float(verdict == "correct")
    return graded
