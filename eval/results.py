"""What an evaluation leaves in the run folder: results, samples, tables and report."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from configs.sections import Recipe
from configs.tree import to_yaml
from data.writing import write_json, write_text
from eval.analysis.correlation import correlations
from eval.analysis.density import summarise
from eval.record import SCHEMA_VERSION, Record
from eval.record_file import write_records
from eval.report.console import console_table
from eval.report.page import write_report
from eval.report.results import Results
from eval.stages import MEASURED


def finish(
    recipe: Recipe,
    records: Mapping[str, Sequence[Record]],
    meta: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> Results:
    """Write results, samples, tables and the report, and print the table; the contents of ``results.json``.

    Args:
        recipe: what was run; it goes into ``config.yaml``.
        records: by the name of the file they go to; ``samples`` at least.
        meta: what made the results.
        extra: further parts of ``results.json``, by their keys.
    """
    folder, sampled = recipe.folder, records["samples"]
    empty = empty_answers(sampled)
    for name, lines in records.items():
        write_records(folder / f"{name}.jsonl", lines)
    results = {
        "schema_version": SCHEMA_VERSION,
        "temperature": sampled[0]["temperature"],
        **summarise(sampled),
        "meta": {**meta, "empty_answers": empty},
        **(extra or {}),
    }
    measured = [record for record in sampled if record["stage"] == MEASURED]
    results["correlations"] = [correlation.as_dict() for correlation in correlations(measured)]
    if "samples.greedy" in records:
        results["greedy"] = summarise(records["samples.greedy"])
    write_text(folder / "config.yaml", to_yaml(recipe))
    write_json(folder / "results.json", results)
    report = write_report(folder)
    print(console_table(cast(Results, results)))
    if any(empty.values()):
        print(f"answers without any text: {', '.join(f'{count} {stage}' for stage, count in empty.items())}")
    print(f"\nreport: {report}")
    return cast(Results, results)


def empty_answers(records: Sequence[Record]) -> dict[str, int]:
    """How many answers of each stage have no text; they count as the wrong answers that they are."""
    counts = dict.fromkeys((record["stage"] for record in records), 0)
    for record in records:
        counts[record["stage"]] += not record["prediction"].strip()
    return counts
