"""What an evaluation leaves in the run folder: results, samples, tables and report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.sections import Recipe
from configs.tree import to_yaml
from eval.analysis.correlation import correlations
from eval.analysis.density import summarise
from eval.record import Record
from eval.report.page import write_report
from eval.report.table import console_table
from eval.stages import MEASURED


def finish(
    recipe: Recipe, records: Mapping[str, list[Record]], meta: dict[str, Any], extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Results, samples, tables, the report, and the table on the console."""
    folder = recipe.folder
    for name, lines in records.items():
        write_lines(folder / f"{name}.jsonl", lines)
    results = summarise(records["samples"]) | {"meta": meta} | dict(extra or {})
    results["correlations"] = [
        one.as_dict() for one in correlations([r for r in records["samples"] if r["stage"] == MEASURED])
    ]
    if "samples.greedy" in records:
        results["greedy"] = summarise(records["samples.greedy"])
    (folder / "config.yaml").write_text(to_yaml(recipe))
    (folder / "results.json.tmp").write_text(json.dumps(results, indent=1))
    (folder / "results.json.tmp").replace(folder / "results.json")
    report = write_report(folder)
    print(console_table(results))
    print(f"\nreport: {report}")
    return results


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """JSON lines, in one move."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    temporary.replace(path)
