"""The work of eval.judge: how far the offline matcher, and a judge where one is named, agree with people."""

from collections.abc import Sequence
from pathlib import Path

from configs.servers import ServerConfig, open_server
from eval.judge.agreement import Agreement, agreement
from eval.judge.judge import Complete, endpoint_judge, judge
from eval.judge.labels import HumanLabel, find_questions, load_human_labels
from objectives.accuracy import financebench_verdict


def run(labels_file: Path, questions: Path | None, server: ServerConfig | None, model: str, cache: str | None) -> int:
    """Print the agreement with the human labels of a file, of the offline matcher and of a judge.

    Args:
        labels_file: FinanceBench's answers with their labels.
        questions: FinanceBench's questions; None looks for them near the labels.
        server: where the judge is; None is no judge.
        model: the judge's name there.
        cache: a file of the judge's replies, to go on from.

    Raises:
        DataError: labels or questions cannot be read.
        EndpointError: the judge's server fails.
    """
    questions = questions or find_questions(labels_file)
    labels = load_human_labels(labels_file, questions)
    endpoint = None if server is None else open_server(server, model, cache, print)
    complete = None
    if server is not None and endpoint is not None:
        endpoint.probe()
        complete = endpoint_judge(endpoint, server.request)
    print(_clusters_line(labels, questions))
    lines = report(labels, complete)
    print("\n".join(lines if endpoint is None else [*lines, *endpoint.notes("--extra's max_tokens")]))
    return 0


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
    units = f"filings, by {questions}" if questions else "questions, each taken for a document: no file of questions"
    return f"{len(labels)} answers with human labels; 95% intervals are over {clusters} {units}"


def _agreement_line(judge_name: str, result: Agreement) -> str:
    kappa = "undefined" if result.kappa is None else f"{result.kappa:.3f}"
    low, high = ("no bound" if end is None else f"{end:.3f}" for end in (result.interval.low, result.interval.high))
    return f"{judge_name}: kappa {kappa} [{low}, {high}] on {result.n} answers, {result.undecided} undecided"
