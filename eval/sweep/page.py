"""What came out of a sweep, in words and tables: ``sweep.md`` beside the figures, and the table on the console."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.report.console import aligned
from eval.report.formats import figure_text, number, percent, points, printable
from eval.report.markdown import blocks, escaped
from eval.report.sentence_counts import sentence_table
from eval.report.tables import Table
from eval.sweep.drawing import Picture, coefficient_name, magnitude
from eval.sweep.findings import SEES_NOTHING, scorer_sees_nothing
from eval.sweep.results import Results

VERDICTS = ("agrees", "disagrees", "cannot be told", "not measured")
MESSAGE_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("message_tokens", "Tokens", number),
    ("information_bits", "Information, bits (lower bound)", number),
    ("information_upper_bits", "Upper bound, bits", number),
    ("saturated_share", "At the ceiling", percent),
    ("second_information_bits", "Second scorer, bits", number),
    ("bits_per_token", "Bits per token", number),
    ("second_bits_per_token", "Second scorer, bits per token", number),
    ("prefill_flops", "FLOPs to read the context", magnitude),
    ("generation_flops", "FLOPs per generation", magnitude),
)
ANSWER_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("accuracy", "Accuracy", percent),
    ("distortion", "Distortion", number),
    ("perplexity", "Perplexity", number),
    ("task_information_bits", "Task information, bits", number),
)


def write_page(results: Results, pictures: Sequence[Picture], path: Path) -> Path:
    """Write the page.

    Args:
        results: the contents of ``sweep.json``.
        pictures: the figures, in their order; linked relative to the page.
        path: where the page is written.
    """
    parts = [
        f"# {escaped(results['meta']['name'])}: compressors times predictors",
        escaped(summary(results)),
        *blocks(finding_sheet(results)),
        escaped(BASIS),
        *(
            f"![{escaped(picture.title)}]({Path(os.path.relpath(picture.svg, path.parent)).as_posix()})"
            for picture in pictures
        ),
        *(block for sheet in sheets(results) for block in blocks(sheet)),
        "## How it was measured",
        *(escaped(paragraph) for paragraph in method(results)),
    ]
    path.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")
    return path


BASIS = (
    "Brackets are 95% bootstrap intervals over documents, each comparison paired on the same question, seed and other "
    "model. The study is He et al., arXiv 2512.21720. Agrees: the interval shows the effect in the study's direction. "
    "Disagrees: it shows the opposite. Cannot be told: it holds no effect, with or without one of the study's size. "
    "Models and tasks are not the study's; intervals speak of other documents, not of other models."
)


def summary(results: Results) -> str:
    """The verdicts by kind, in a few sentences."""
    findings = results["findings"]
    counts = results["counts"]
    sentences = [
        f"{counts['questions']:,} questions on {counts['documents']:,} documents, {counts['messages']:,} messages, "
        f"{counts['answers']:,} answers."
    ]
    sentences += [control_statement(control) for control in results["controls"]]
    for verdict in VERDICTS:
        questions = [finding["question"] for finding in findings if finding["verdict"] == verdict]
        if questions:
            sentences.append(f"{verdict.capitalize()} ({len(questions)}): {' '.join(questions)}")
    return " ".join(sentences)


def control_statement(control: Mapping[str, Any]) -> str:
    """Whether the sweep shows the difference that is known to be there."""
    figure = control["accuracy_difference"]
    shown = f"{control['large']} against {control['small']}, {figure_text(figure, points)} points of accuracy"
    if figure["low"] is not None and figure["low"] > 0:
        return (
            f"Positive control, {control['axis']}: {shown}; what has to differ does. The smaller is left out of what "
            "follows."
        )
    return f"The positive control of the {control['axis']} failed: {shown}. What differs here cannot be told."


def finding_sheet(results: Results) -> Table:
    """Every question of the study's: its figure, the one found here, and the verdict."""
    lines = tuple((f["question"], f["study"], f["here"] or "-", f["verdict"], f["why"]) for f in results["findings"])
    return Table("findings", "What came out", ("Question", "The study", "Here", "Verdict", "Why"), lines, names=5)


def sheets(results: Results) -> list[Table]:
    """Every table below the figures."""
    tables = [
        model_sheet(results),
        accuracy_sheet(results),
        message_sheet(results, None),
        answer_sheet(results, by_task=False),
        contrast_sheet(results),
        factor_sheet(results),
        coefficient_sheet(results),
        correlation_sheet(results),
        rate_distortion_sheet(results),
        sentence_table(results.get("sentences", [])),
        answer_sheet(results, by_task=True),
    ]
    return [sheet for sheet in tables if sheet is not None and sheet.lines]


def model_sheet(results: Results) -> Table:
    """The grid."""
    lines = tuple(
        (
            side,
            member["name"],
            member["family"],
            "unknown" if member["parameters"] is None else f"{member['parameters']:,}",
        )
        for side in ("compressor", "predictor")
        for member in results[f"{side}s"]
    )
    return Table("models", "The grid", ("Side", "Model", "Family", "Parameters"), lines, names=3)


def accuracy_sheet(results: Results) -> Table:
    """Accuracy over all tasks: a line for every compressor, a column for every predictor."""
    by_pair = {(c["compressor"], c["predictor"]): c["accuracy"] for c in results["cells"] if c["task"] is None}
    predictors = [compressor["name"] for compressor in results["predictors"]]
    lines = tuple(
        (
            compressor["name"],
            *(figure_text(by_pair[compressor["name"], predictor], percent) for predictor in predictors),
        )
        for compressor in results["compressors"]
    )
    heading = ("Compressor", *(f"answered by {name}" for name in predictors))
    return Table("accuracy", "Accuracy, all tasks", heading, lines)


def message_sheet(results: Results, task: str | None) -> Table:
    """The messages of every compressor over one task, or all of them."""
    task_cells = [cell for cell in results["messages"] if cell["task"] == task]
    columns = [column for column in MESSAGE_COLUMNS if any(cell[column[0]]["value"] is not None for cell in task_cells)]
    lines = tuple(
        (cell["compressor"], *(figure_text(cell[name], form) for name, _, form in columns), f"{cell['n']:,}")
        for cell in task_cells
    )
    heading = ("Compressor", *(label for _, label, _ in columns), "Messages")
    return Table("messages", f"Messages, {task or 'all tasks'}", heading, lines)


def answer_sheet(results: Results, by_task: bool) -> Table:
    """Every cell of the grid, over all tasks or by task."""
    columns = [
        column for column in ANSWER_COLUMNS if any(cell[column[0]]["value"] is not None for cell in results["cells"])
    ]
    lines = tuple(
        (
            cell["compressor"],
            cell["predictor"],
            cell["task"] or "all",
            *(figure_text(cell[name], form) for name, _, form in columns),
            "-" if cell["seed_spread"] is None else percent(cell["seed_spread"]),
        )
        for cell in results["cells"]
        if (cell["task"] is not None) == by_task
    )
    heading = ("Compressor", "Predictor", "Task", *(label for _, label, _ in columns), "Accuracy, between seeds")
    note = "Between seeds: the standard deviation of the accuracy over the seeds that messages were sampled with."
    return Table("answers", "Answers by task" if by_task else "Answers", heading, lines, note, names=3)


def contrast_sheet(results: Results) -> Table:
    """Smallest against largest on either side, the other side fixed, over all tasks."""
    chosen = [c for c in results["contrasts"] if c["task"] is None and "accuracy_ratio" in c]
    lines = tuple(
        (
            c["axis"],
            f"{c['large']} against {c['small']}",
            "all together" if c["held"] is None else c["held"],
            figure_text(c["accuracy_difference"], points),
            "-" if c["accuracy_detectable"] is None else f"{100 * c['accuracy_detectable']:.1f}",
            figure_text(c["accuracy_ratio"], number),
            figure_text(c["message_tokens_ratio"], number) if "message_tokens_ratio" in c else "-",
            figure_text(c["generation_flops_ratio"], number) if "generation_flops_ratio" in c else "-",
        )
        for c in chosen
    )
    heading = (
        "Scaled",
        "Models",
        "Other side",
        "Accuracy, points",
        "Would be seen from, points",
        "Accuracy, ratio",
        "Times fewer tokens",
        "FLOPs, ratio",
    )
    note = (
        "Ratios are larger over smaller; times fewer tokens is smaller over larger: above 1 the larger writes less. A "
        "true difference would be seen from so many points on: four intervals in five would leave out none."
    )
    return Table("contrasts", "Scaling one side with the other fixed", heading, lines, note, names=3)


def factor_sheet(results: Results) -> Table:
    """The factors of the regression in the order of their evidence."""
    regression = results["regression"]
    lines = tuple(
        (
            str(factor["rank"]),
            factor["name"].replace("_", " "),
            number(factor["wald"]),
            str(factor["degrees_of_freedom"]),
            probability(factor["p_value"]),
            number(factor["effect"]),
        )
        for factor in regression["factors"]
    )
    heading = ("Rank", "Factor", "Wald", "Degrees of freedom", "p", "Effect, log-odds")
    return Table("factors", "What a right answer depends on", heading, lines, regression["statement"], names=2)


def coefficient_sheet(results: Results) -> Table:
    """The coefficients, with whether families match as one more factor where that can be fitted."""
    regression = results["regression_with_matching"]
    if not regression["coefficients"]:
        regression = results["regression"]
    lines = tuple(
        (
            coefficient_name(coefficient),
            figure_text(coefficient["log_odds"], lambda value: f"{value:+.3f}"),
            figure_text(coefficient["odds_ratio"], number),
            probability(coefficient["p_value"]),
        )
        for coefficient in regression["coefficients"]
    )
    heading = ("Coefficient", "Log-odds", "Odds ratio", "p")
    return Table(
        "coefficients",
        "Coefficients of the regression",
        heading,
        lines,
        results["regression_with_matching"]["statement"],
    )


def correlation_sheet(results: Results) -> Table:
    """Information with perplexity and accuracy."""
    lines = tuple(
        (
            f"{entry['x']} and {entry['y']}, {entry['method']}".replace("_", " "),
            entry["over"],
            figure_text(entry["coefficient"], lambda value: f"{value:+.2f}"),
            f"{entry['n']:,}",
            f"{entry['missing']:,}",
        )
        for entry in results["correlations"]
    )
    heading = ("Figures", "Points are", "Coefficient", "Points", "Records without a score")
    note = "Points of several tasks differ in their task as well as in their messages."
    return Table("correlations", "Information with perplexity and accuracy", heading, lines, note, names=2)


def rate_distortion_sheet(results: Results) -> Table:
    """The curve of every predictor."""
    lines = tuple((entry["predictor"], entry["statement"]) for entry in results["rate_distortion"])
    return Table("rate", "Rate against distortion", ("Predictor", "Curve"), lines, names=2)


def method(results: Results) -> list[str]:
    """What was done, what is missing, and what a sweep does not measure."""
    counts, meta = results["counts"], results["meta"]
    config = meta["config"]
    negatives = ", ".join(
        f"{count} {kind.replace('_', ' ')}" for kind, count in config["information"]["negatives"].items()
    )
    scorers = " and ".join(meta["fingerprints"]["scorers"])
    paragraphs = [
        f"Tasks: {', '.join(counts['tasks'])}. Messages at temperature {config['eval']['temperature']}, seeds "
        f"{', '.join(map(str, counts['seeds']))}; every predictor answers from the same messages. Information is "
        f"measured by {scorers}, frozen, the same for all compressors, against negatives: {negatives}.",
        "FLOPs are the compressor's, writing apart from reading. What the study measured and a sweep does not: the "
        "predictor reading the full context and baselines (eval/run.py), rounds of refined questions, Deep Research.",
    ]
    missing = [
        f"{counts[key]:,} {what}"
        for key, what in (
            ("without_accuracy", "answers without accuracy"),
            ("without_information", "messages without information"),
            ("without_perplexity", "answers without perplexity"),
            ("cut_contexts", "messages on contexts that were cut"),
        )
        if counts[key]
    ]
    paragraphs.append(f"Missing: {'; '.join(missing)}." if missing else "No score is missing.")
    if scorer_sees_nothing(results):
        paragraphs.append(f"Of information nothing is said, for {SEES_NOTHING}.")
    return paragraphs


def probability(value: float) -> str:
    """A probability to three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def console(results: Results) -> str:
    """Accuracy, messages and verdicts as aligned plain text."""
    accuracy, messages, findings = accuracy_sheet(results), message_sheet(results, None), results["findings"]
    tables = [aligned([sheet.columns, *sheet.lines]) for sheet in (accuracy, _turned(messages))]
    verdicts = "\n".join(
        printable(f"{finding['verdict']:>14}  {finding['question']} {finding['here']}").rstrip() for finding in findings
    )
    return "\n\n".join([*tables, verdicts])


def _turned(sheet: Table) -> Table:
    """A table with lines for columns, where there are many columns and few lines."""
    columns, *lines = zip(sheet.columns, *sheet.lines, strict=True)
    return Table(sheet.name, sheet.title, columns, tuple(lines), sheet.note)
