"""The page and the figures of a sweep."""

import re
from pathlib import Path

import pytest

from eval.sweep.drawing import draw_all, magnitude
from eval.sweep.page import console, write_page
from tests.eval.planted_sweep import (
    grid,
    results_of,
    verdict_of,
)

pytestmark = pytest.mark.command


def test_the_page_and_the_figures_show_names_as_text(tmp_path: Path, planted: str) -> None:
    hostile = f"{planted} [x](http://evil) | `code` $x_1$ <img src=x>"
    records = grid(
        lambda c, p, g: (0.3, 0.45, 0.8)[c],
        names=((f"a {hostile}", f"f {hostile}", 1000), (f"b {hostile}", "llama", 2000), ("c", "qwen", 4000)),
        documents=12,
    )
    for one in records:
        one["task"] = f"task {hostile}"
    results = results_of(records, name=hostile)
    pictures = draw_all(results, tmp_path / "figures")
    page = write_page(results, pictures, tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert "<" not in page and not re.search(r"\]\((?!figures/)|(?<!\\)`", page)
    lines = page.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("| ---"):
            columns = line.count("|")
            table = [lines[number - 1]]
            for row in lines[number:]:
                if not row.startswith("|"):
                    break
                table.append(row)
            assert all(row.replace("\\|", "").count("|") == columns for row in table)
    for picture in pictures:
        svg = picture.svg.read_text(encoding="utf-8")
        assert "<script" not in svg and "<img" not in svg
        assert f"](figures/{picture.svg.name})" in page and picture.svg.with_suffix(".png").stat().st_size > 0
    assert all(line.isprintable() for line in console(results).split("\n"))


def test_every_figure_is_drawn_and_the_study_stands_beside_the_sweep(tmp_path: Path) -> None:
    results = results_of(grid(lambda c, p, g: 0.2 + 0.2 * c + 0.1 * p))
    pictures = draw_all(results, tmp_path)
    assert [picture.name for picture in pictures] == [
        "accuracy-by-compressor",
        "accuracy-by-predictor",
        "perplexity-by-compressor",
        "message-tokens",
        "information",
        "bits-per-token",
        "information-perplexity",
        "rate-distortion",
        "flops-accuracy",
        "regression",
    ]
    page = write_page(results, pictures, tmp_path / "sweep.md").read_text(encoding="utf-8")
    for words in ("1.6x", "4.6x", "5.4x", "r = -0.84", "+1.3%", "within 12%", "3, 6 and 9", "No score is missing"):
        assert words in page, words


def test_what_nobody_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    records = grid(lambda c, p, g: 0.5, documents=4)
    for one in records:
        one |= {"answer_nll_nats": None, "answer_tokens": None, "task_information_nats": None}
        one |= {"prefill_flops": None, "generation_flops": None, "second_information_nats": None}
    results = results_of(records)
    names = {picture.name for picture in draw_all(results, tmp_path)}
    assert not names & {"perplexity-by-compressor", "information-perplexity", "flops-accuracy"}
    assert verdict_of(results, "perplexity") == verdict_of(results, "FLOPs") == "not measured"
    page = write_page(results, [], tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert f"{len(records)} answers without perplexity" in page


def test_sizes_are_written_short() -> None:
    assert [magnitude(value) for value in (12, 525_696, 2_149_120, 7e9, 4.05e11, 3e12)] == [
        "12",
        "526k",
        "2.15M",
        "7B",
        "405B",
        "3T",
    ]


def test_a_scorer_that_sees_nothing_speaks_for_nobody(tmp_path: Path) -> None:
    records = grid(lambda c, p, g: (0.3, 0.45, 0.8)[c], tokens=lambda size: (60, 40, 15)[size], spread=2)
    seeing = results_of(records)
    assert verdict_of(seeing, "information per token") == "agrees"
    assert "Of information nothing is said" not in write_page(seeing, [], tmp_path / "one.md").read_text()
    for one in records:
        one["information_nats"] = -0.1 - 0.01 * len(one["message"])
    blind = results_of(records)
    assert verdict_of(blind, "information per token") == verdict_of(blind, "more information go") == "cannot be told"
    assert verdict_of(blind, "raise accuracy") == "agrees"
    assert "Of information nothing is said, for the scorer" in write_page(blind, [], tmp_path / "two.md").read_text()
    # A scorer that was not asked has seen nothing either, and that is another matter.
    for one in records:
        one["information_nats"] = None
    assert (
        "Of information nothing is said" not in write_page(results_of(records), [], tmp_path / "three.md").read_text()
    )
