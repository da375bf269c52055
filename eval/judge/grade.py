"""Records graded by a judge where no metric can tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from configs.command import is_main, say
from configs.servers import open_server
from eval.config import EvaluationConfig, JudgeConfig
from eval.judge.judge import Answered, Verdict, endpoint_judge, judge
from eval.record import BaseRecord
from models.endpoint import Endpoint

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
    endpoint = judge_server(config.judge, config.folder)
    complete = endpoint_judge(endpoint, config.judge.request)
    answers = [Answered(record["question"], record["answers"][0], record["prediction"]) for record in ungraded]
    judged = judge(answers, complete)
    for line in endpoint.notes("judge.request.max_tokens"):
        say(line)
    if judged.unreadable:
        say(f"{judged.unreadable} of {len(ungraded)} replies of the judge cannot be read: their accuracy is missing")
    verdicts = iter(judged.verdicts)
    return [_graded(record, next(verdicts)) if record["metric"] == "judge" else record for record in records]


def judge_server(judge: JudgeConfig, folder: Path) -> Endpoint:
    """A judge's server, its replies kept in the run folder; nothing is asked of it yet.

    Raises:
        EndpointError: its key is missing, or the file of its replies is not one.
    """
    return open_server(judge, judge.model, folder / "judge.jsonl", say)


def probe_judge(config: EvaluationConfig) -> None:
    """Find out before anything expensive whether the judge's server is there, where there is a judge.

    Raises:
        EndpointError: it is not, and it has not judged anything in this run folder.
    """
    if config.judge is not None and is_main():
        judge_server(config.judge, config.folder).probe()


def _graded(record: Graded, verdict: Verdict | None) -> Graded:
    graded = record.copy()
    graded["verdict"] = verdict
    graded["accuracy"] = None if verdict is None else float(verdict == "correct")
    return graded
