"""Records graded by a judge where no metric can tell."""

from configs.command import say
from eval.config import EvaluationConfig
from eval.judge.judge import Answered, Verdict, endpoint_judge, judge
from eval.record import Record


def grade(config: EvaluationConfig, records: list[Record]) -> list[Record]:
    """The records with a judge's verdict, where no metric can tell and there is a judge."""
    asked = [record for record in records if record["metric"] == "judge"]
    if config.judge is None or not asked:
        if asked:
            say(f"{len(asked)} answers can be graded by a judge alone, and there is none: their accuracy is missing")
        return records
    complete = endpoint_judge(config.judge.endpoint, config.judge.model, config.folder / "judge.jsonl")
    judged = judge([Answered(r["question"], r["answers"][0], r["prediction"]) for r in asked], complete)
    if judged.unreadable:
        say(f"{judged.unreadable} of {len(asked)} replies of the judge cannot be read: the accuracy is missing there")
    verdicts = iter(judged.verdicts)
    return [record | _graded(next(verdicts)) if record["metric"] == "judge" else record for record in records]


def _graded(verdict: Verdict | None) -> Record:
    return {"verdict": verdict, "accuracy": None if verdict is None else float(verdict == "correct")}
