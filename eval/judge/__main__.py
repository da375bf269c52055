"""A language model as judge of answers to FinanceBench, and the agreement of any judge with people.

Three outcomes, as FinanceBench's own annotators gave them (Islam et al. 2023): correct, incorrect, refusal. Agreement
is Cohen's kappa (Cohen 1960, "A coefficient of agreement for nominal scales"), with a bootstrap over documents.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.judge.agreement import Agreement, agreement
from eval.judge.judge import Complete, endpoint_judge, judge
from eval.judge.labels import HumanLabel, find_questions, load_human_labels
from objectives.accuracy import financebench_verdict


def report(labels: Sequence[HumanLabel], complete: Complete | None) -> list[str]:
    """Lines of text: the agreement of the offline matcher with people and, where there is one, of the judge."""
    matched = [financebench_verdict(label.answered.answer, label.answered.gold) for label in labels]
    lines = [_agreement_line("offline matcher, correct or not", agreement(matched, labels))]
    if complete is not None:
        judged = judge([label.answered for label in labels], complete)
        binary = [None if verdict is None else verdict == "correct" for verdict in judged.verdicts]
        lines += [
            _agreement_line("judge, correct or not", agreement(binary, labels)),
            _agreement_line("judge, three outcomes", agreement(judged.verdicts, labels)),
            f"judge: prompt version {judged.prompt_version}, {judged.unreadable} unreadable replies",
        ]
    return lines


def _clusters_line(labels: Sequence[HumanLabel], questions: Path | None) -> str:
    clusters = len({label.document for label in labels})
    what = f"filings, by {questions}" if questions else "questions, each taken for a document: no file of questions"
    return f"{len(labels)} answers with human labels; 95% intervals are over {clusters} {what}"


def _agreement_line(what: str, found: Agreement) -> str:
    kappa = "undefined" if found.kappa is None else f"{found.kappa:.3f}"
    low, high = ("no bound" if end is None else f"{end:.3f}" for end in (found.interval.low, found.interval.high))
    return f"{what}: kappa {kappa} [{low}, {high}] on {found.n} answers, {found.undecided} undecided"


def main() -> None:
    """Print how far the offline matcher, and a judge where one is named, agree with people."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge", description="Agreement of judges with human labels.")
    parser.add_argument("--labels", type=Path, required=True, help="a result file of FinanceBench with human labels")
    parser.add_argument("--questions", type=Path, help="FinanceBench's questions (looked for near the labels)")
    parser.add_argument("--endpoint", help="an OpenAI-compatible server, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="the judge's name on that server")
    parser.add_argument("--cache", type=Path, help="a file of the judge's replies, to go on from")
    options = parser.parse_args()
    if (options.endpoint is None) != (options.model is None):
        parser.error("--endpoint and --model go together")
    try:
        questions = options.questions or find_questions(options.labels)
        labels = load_human_labels(options.labels, questions)
        judging = endpoint_judge(options.endpoint, options.model, options.cache) if options.endpoint else None
        print(_clusters_line(labels, questions))
        print("\n".join(report(labels, judging)))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
