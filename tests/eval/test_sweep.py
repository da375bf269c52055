"""A sweep: contrasts by hand, verdicts from intervals, a page that says what was planted, and a grid that goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from configs.build import evaluation_request, load_samples
from configs.tree import PROJECT, ConfigError
from data.sample import Sample
from eval.analysis.significance import Bootstrap
from eval.evaluation import by_compressor
from eval.record import SweepRecord
from eval.record_file import read_records
from eval.stages import build_compressor
from eval.sweep.__main__ import main
from eval.sweep.config import SweepConfig, load_config
from eval.sweep.contrasts import compared, contrast, pairs_of
from eval.sweep.drawing import draw_all, magnitude
from eval.sweep.findings import direction, findings, within
from eval.sweep.page import console, write_page
from eval.sweep.results import cells, message_cells, seed_spread, summarise
from tests.local_server import Answer, chat, serving
from tests.records import sweep_record as record

Figures = Any

SMALL, MEDIUM, LARGE = ("small", "qwen", 1_000_000), ("medium", "llama", 2_000_000), ("large", "qwen", 4_000_000)
PLAIN = [sys.executable, "-m", "eval.sweep"]
AS_FILE = [sys.executable, "eval/sweep.py"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "eval.sweep"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
QUICK = 200
TASKS = [f"miniature/{shape}" for shape in ("notes", "filings", "papers", "pages", "chats")]


def grid(
    accuracy: Callable[[int, int, np.random.Generator], float],
    tokens: Callable[[int], int] = lambda size: 40,
    names: Sequence[tuple[str, str, int]] = (SMALL, MEDIUM, LARGE),
    settings: Sequence[str] = ("",),
    documents: int = 30,
) -> list[SweepRecord]:
    """A grid of three compressors and three predictors, which find the same questions hard.

    ``accuracy`` and ``tokens`` take sizes from 0 to 2.
    """
    generator = np.random.default_rng(0)
    hardness = generator.random((documents, 2, 2))
    return [
        record(
            id=f"notes/d{document}/{question}",
            document_id=f"d{document}",
            seed=seed,
            compressor=f"{names[c][0]}{', ' if setting else ''}{setting}",
            compressor_family=names[c][1],
            compressor_parameters=names[c][2],
            setting=setting,
            sentences=int(setting.split()[0]) if setting else None,
            predictor=names[p][0],
            predictor_family=names[p][1],
            predictor_parameters=names[p][2],
            message_tokens=tokens(c),
            information_nats=1 + 0.1 * (document % 5),
            accuracy=(right := float(hardness[document, question, seed] < accuracy(c, p, generator))),
            answer_nll_nats=2 - right,
        )
        for setting in settings
        for c in (0, 1, 2)
        for p in (0, 1, 2)
        for seed in (0, 1)
        for document in range(documents)
        for question in range(2)
    ]


def results_of(records: list[SweepRecord], name: str = "planted", **meta: Any) -> dict[str, Any]:
    results = summarise(records, bootstrap=Bootstrap(QUICK))
    config = {"eval": {"temperature": 1.0}, "information": {"negatives": {"batch": 4}}}
    results["meta"] = {"name": name, "config": config, "fingerprints": {"scorers": {"a scorer": None}}} | meta
    results["findings"] = [one.as_dict() for one in findings(results)]
    return results


def verdict_of(results: dict[str, Any], words: str) -> str:
    return next(one["verdict"] for one in results["findings"] if words in one["question"])


def interval_of(low: float | None, high: float | None) -> Figures:
    return {"value": None if low is None or high is None else (low + high) / 2, "low": low, "high": high}


# Contrasts and cells


def test_a_contrast_is_the_paired_difference_over_what_both_sides_scored() -> None:
    side = {"small": [1.0, 0.0, 0.0, None], "large": [1.0, 1.0, 0.0, 1.0]}
    records = [
        record(
            id=f"notes/d{place}/0",
            document_id=f"d{place}",
            compressor=name,
            compressor_parameters=1000 * (1 + 3 * (name == "large")),
            accuracy=value,
            message_tokens={"small": 12, "large": 3}[name],
        )
        for name, values in side.items()
        for place, value in enumerate(values)
    ]
    [pair] = pairs_of(records, "compressor")
    found = contrast(records, pair, None, None, Bootstrap(QUICK))
    assert (pair.small.name, pair.large.name, pair.doublings) == ("small", "large", 2.0)
    # The document that one side did not score is left out of both: 2/3 - 1/3.
    assert found.figures["accuracy_difference"].value == pytest.approx(1 / 3)
    assert found.figures["accuracy_ratio"].value == pytest.approx(2.0)
    assert found.figures["message_tokens_ratio"].value == pytest.approx(4.0)
    assert found.figures["bits_per_token_ratio"].value == pytest.approx(4.0)
    assert found.documents == 4


def test_pairs_are_the_widest_then_those_within_a_family_each_once_and_by_setting() -> None:
    records = grid(lambda c, p, g: 0.5, settings=("3 sentences", "6 sentences"), documents=1)
    named = [(pair.small.name, pair.large.name) for pair in pairs_of(records, "compressor")]
    assert named == [("small, 3 sentences", "large, 3 sentences"), ("small, 6 sentences", "large, 6 sentences")]
    crossed = grid(lambda c, p, g: 0.5, names=(SMALL, MEDIUM, ("big", "llama", 9_000_000)), documents=1)
    named = [(pair.small.name, pair.large.name) for pair in pairs_of(crossed, "predictor")]
    assert named == [("small", "big"), ("medium", "big")]


def test_models_of_unknown_size_stand_in_no_pair() -> None:
    records = [record(predictor=name, predictor_parameters=None) for name in ("one", "other")]
    assert pairs_of(records, "predictor") == [] and compared(records, Bootstrap(QUICK)) == []


def test_a_comparison_takes_each_gain_by_its_own_doublings() -> None:
    records = [
        record(
            id=f"notes/d{document}/0",
            document_id=f"d{document}",
            compressor=c,
            predictor=p,
            compressor_parameters={"small": 1000, "large": 4000}[c],
            predictor_parameters={"low": 1000, "high": 2000}[p],
            accuracy=0.2 + 0.4 * (c == "large") + 0.1 * (p == "high"),
        )
        for document in range(4)
        for c in ("small", "large")
        for p in ("low", "high")
    ]
    [found] = compared(records, Bootstrap(QUICK))
    assert found.difference.value == pytest.approx(0.4 - 0.1)
    assert found.per_doubling.value == pytest.approx(0.4 / 2 - 0.1 / 1)
    # Every document says the same, so there is no spread.
    assert found.per_doubling.low == pytest.approx(0.1) and found.per_doubling.high == pytest.approx(0.1)


def test_messages_count_once_however_many_predictors_answer() -> None:
    records = grid(lambda c, p, g: 0.5, tokens=lambda size: 40 - 10 * size, documents=3)
    found = {cell["compressor"]: cell for cell in message_cells(records, Bootstrap(QUICK)) if cell["task"] is None}
    assert {name: cell["n"] for name, cell in found.items()} == dict.fromkeys(("small", "medium", "large"), 12)
    assert [cell["message_tokens"]["value"] for cell in found.values()] == [40, 30, 20]
    assert found["small"]["information_ceiling_bits"]["value"] == pytest.approx(3.0)
    answered = [cell for cell in cells(records, Bootstrap(QUICK)) if cell["task"] is None]
    assert len(answered) == 9 and all(cell["n"] == 12 for cell in answered)
    assert all(c["distortion"]["value"] == pytest.approx(1 - c["accuracy"]["value"]) for c in answered)


def test_the_spread_between_seeds_is_that_of_their_means() -> None:
    records = [record(seed=seed, accuracy=value) for seed, value in ((0, 1.0), (0, 0.0), (1, 1.0), (1, 1.0))]
    assert seed_spread(records) == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert seed_spread(records[:2]) is None


# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "study", "verdict", "why"),
    [
        (1.2, 1.4, 1.6, "agrees", "the study's figure lies above it"),
        (1.2, 1.8, 1.6, "agrees", "lies within it"),
        (1.7, 1.8, 1.6, "agrees", "lies below it"),
        (0.7, 0.9, 1.6, "disagrees", "below no effect"),
        (0.9, 1.1, 1.6, "disagrees", "leaves out one of the study's size"),
        (0.9, 1.7, 1.6, "cannot be told", "both no effect and the study's figure"),
        (0.9, 1.1, None, "cannot be told", "holds no effect"),
        (None, 1.7, 1.6, "cannot be told", "no interval"),
    ],
)
def test_a_direction_follows_from_the_interval(
    low: float | None, high: float | None, study: float | None, verdict: str, why: str
) -> None:
    found = direction(interval_of(low, high), study, 1)
    assert found[0] == verdict and why in found[1]
    mirrored = [None if end is None else 2 - end for end in (high, low, study)]
    assert direction(interval_of(*mirrored[:2]), mirrored[2], 1, sign=-1)[0] == verdict


def test_a_range_is_kept_to_left_or_neither() -> None:
    for low, high, verdict in (
        (0.95, 1.05, "agrees"),
        (1.2, 1.3, "disagrees"),
        (1.0, 1.3, "cannot be told"),
        (None, None, "cannot be told"),
    ):
        assert within(interval_of(low, high), 0.9, 1.1, "a tenth")[0] == verdict


def test_a_grid_like_the_studys_agrees_with_it() -> None:
    results = results_of(grid(lambda c, p, g: (0.3, 0.45, 0.8)[c], tokens=lambda size: (60, 40, 15)[size]))
    for words in ("raise accuracy", "pay more", "shorter messages", "information per token", "bring little"):
        assert verdict_of(results, words) == "agrees", words
    assert verdict_of(results, "exact number") == "not measured"


def test_a_grid_that_goes_the_other_way_disagrees_and_says_so() -> None:
    results = results_of(grid(lambda c, p, g: (0.1, 0.4, 0.8)[p] - 0.03 * c, tokens=lambda size: 20 + 20 * size))
    for words in ("raise accuracy", "pay more", "shorter messages", "information per token", "bring little"):
        assert verdict_of(results, words) == "disagrees", words
    page = console(results)
    assert "predictor size" in page and re.search(r"disagrees  Does scaling the compressor pay more", page)


def test_few_documents_cannot_tell() -> None:
    results = results_of(grid(lambda c, p, g: g.random(), documents=2))
    assert verdict_of(results, "pay more") == "cannot be told"
    assert verdict_of(results, "depend on most") in ("cannot be told", "not measured")


def test_the_ranking_agrees_where_what_is_established_stands_in_the_studys_order() -> None:
    results = results_of(grid(lambda c, p, g: 0.5, documents=2))
    for order, verdict in (
        ([("compressor_family", 0.0), ("compressor_size", 0.01), ("predictor_size", 0.5)], "agrees"),
        ([("compressor_family", 0.01), ("predictor_size", 0.02), ("compressor_size", 0.3)], "disagrees"),
        ([("compressor_size", 0.01), ("compressor_family", 0.2), ("predictor_size", 0.5)], "disagrees"),
        ([("compressor_size", 0.1), ("compressor_family", 0.2), ("predictor_size", 0.5)], "cannot be told"),
    ):
        results["regression"] = {"factors": [{"name": n, "p_value": p} for n, p in order], "constant": []}
        found = [one.as_dict() for one in findings(results)]
        assert verdict_of({"findings": found}, "depend on most") == verdict, order
    results["regression"] = {"factors": [], "statement": "No regression: because.", "constant": []}
    found = next(one for one in findings(results) if "depend on most" in one.question)
    assert (found.verdict, found.why) == ("not measured", "No regression: because.")


# A size that says exactly what the accuracy is leaves the regression no spread.
@pytest.mark.filterwarnings("ignore:Perfect separation")
@pytest.mark.parametrize(
    ("by_setting", "verdict"), [((1, 1), "agrees"), ((1, -1), "disagrees"), ((1, 0), "cannot be told")]
)
def test_sentence_counts_agree_where_scaling_goes_the_same_way_at_each(
    by_setting: tuple[int, int], verdict: str
) -> None:
    records = grid(lambda c, p, g: 0.5, settings=("3 sentences", "6 sentences"))
    way: dict[str, int] = dict(zip(("3 sentences", "6 sentences"), by_setting, strict=True))
    for one in records:
        size = {"small": -1, "medium": 0, "large": 1}[one["compressor"].split(",")[0]]
        one["accuracy"] = 0.5 + 0.4 * size * way[one["setting"]]
        # No effect, but a spread between documents, or its interval would be a point.
        if not way[one["setting"]]:
            one["accuracy"] = 0.5 + 0.1 * size * (-1) ** int(one["document_id"][1:])
    results = results_of(records)
    assert verdict_of(results, "exact number") == verdict
    assert [(one["name"], one["asked"]) for one in results["sentences"]][:2] == [
        ("small, 3 sentences", 3),
        ("medium, 3 sentences", 3),
    ]


# The page and the figures


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


# The configuration


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("compressors.1.name=qwen2-small", "compressors.1.name = 'qwen2-small': is there twice"),
        ("compressors.0.family=null", "compressors.0.family = null"),
        ("compressors.0.modell=x", "compressors.0.modell: unknown key; did you mean compressors.0.model?"),
        ("predictors.0.parameters=4", "predictors.0.parameters = 4"),
        ("seeds=[0, 0]", "seeds = [0, 0]"),
        ("eval.temperature=0", "seeds = [0, 1, 2]: at eval.temperature = 0"),
        ("eval.greedy=true", "eval.greedy = true"),
        ("scorer.model=null", "scorer.model = null"),
        ("scorer.model=miniature/none", "scorer.model = 'miniature/none': no such embedded model"),
        ("predictors.1.max_answer_tokens=2000", "predictors.1.max_answer_tokens = 2000: 2128 tokens leave no room"),
        ("compressors.2.adapter=nowhere", "compressors.2.adapter = 'nowhere'"),
        ("run_folder=x{y}", "run_folder = 'x{y}'"),
        ("information.negatives={counterfactual: 0, batch: 0}", "information.negatives = "),
        ("tasks.1.name=miniature/notes", "tasks.1.name = 'miniature/notes': is there twice"),
    ],
)
def test_a_grid_that_cannot_be_run_is_one_line_that_names_the_key(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("sweep.yaml", [override])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_sentences_are_an_axis_unless_a_compressor_has_its_own() -> None:
    config = load_config("sweep.yaml", ["sentences=[null, 3]"])
    assert [one.called for one in config.measured] == [
        "qwen2-small",
        "llama-medium",
        "qwen2-large",
        "qwen2-small, 3 sentences",
        "llama-medium, 3 sentences",
        "qwen2-large, 3 sentences",
    ]
    assert [one.sentences for one in config.measured] == [None] * 3 + [3] * 3
    with pytest.raises(ConfigError, match=r"compressors\.0\.sentences = 9"):
        load_config("sweep.yaml", ["sentences=[null, 3]", "compressors.0.sentences=9"])


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config("sweep.yaml")
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(str(file)) == config


# The grid itself


def small(folder: Path, *more: str) -> list[str]:
    """Two compressors, two predictors, a document of each of two tasks, two seeds."""
    return [
        "--config",
        "sweep.yaml",
        f"run_folder={folder}",
        "name=sweep",
        "compressors=[{family: qwen2, model: miniature/qwen2-small, budget_tokens: 24},"
        " {family: llama, model: miniature/llama-medium, budget_tokens: 24}]",
        "predictors=[{family: qwen2, model: miniature/qwen2-small}, {family: llama, model: miniature/llama-medium}]",
        "scorer.model=miniature/qwen2-small",
        "second_scorer=null",
        f"tasks=[{', '.join('{name: ' + task + ', facts: 4}' for task in TASKS[:2])}]",
        "seeds=[0, 1]",
        "information.negatives={counterfactual: 1, batch: 0}",
        "eval.documents=1",
        "eval.questions_per_document=2",
        "eval.batch_size=1",
        *more,
    ]


def samples_in(folder: Path) -> list[SweepRecord]:
    return list(read_records(folder / "samples.jsonl", SweepRecord))


def logs(folder: Path) -> dict[str, list[bytes]]:
    return {
        name: sorted(line for path in (folder / "records" / name).glob("*.jsonl") for line in path.open("rb"))
        for name in ("messages", "answers")
    }


def results_in(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "sweep.json").read_text())
    return {key: value for key, value in results.items() if key != "meta"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "run"
    assert main(small(folder)) == 0
    return folder


def drawn_samples(config: SweepConfig) -> list[Sample]:
    recipe = config.recipe()
    compressor = build_compressor(config.compressors[0], "")
    return load_samples(recipe, compressor, "evaluate", evaluation_request, print)


def test_a_sweep_leaves_every_answer_and_everything_drawn_from_them(swept: Path) -> None:
    found = samples_in(swept)
    assert len(found) == 2 * 2 * 2 * 4 and len({r["id"] for r in found}) == 4
    by_message: dict[tuple[str, int, str], set[str]] = {}
    for one in found:
        by_message.setdefault((one["compressor"], one["seed"], one["id"]), set()).add(one["message"])
    assert len(by_message) == 16 and all(len(texts) == 1 for texts in by_message.values())
    parameters = {one["compressor"]: one["compressor_parameters"] for one in found}
    assert parameters == {"qwen2-small": 525_696, "llama-medium": 1_182_144}
    assert all(0 < (one["generation_flops"] or 0) < (one["prefill_flops"] or 0) for one in found)
    assert all((swept / name).stat().st_size > 0 for name in ("sweep.md", "sweep.json", "config.yaml"))
    assert (swept / "figures" / "accuracy-by-compressor.svg").is_file()
    assert load_config(str(swept / "config.yaml")).compressors[1].family == "llama"


def test_messages_are_those_an_evaluation_with_the_same_seed_writes(swept: Path) -> None:
    config = load_config("sweep.yaml", small(swept)[2:])
    samples = drawn_samples(config)
    for one in config.compressors:
        for seed in config.seeds:
            written = by_compressor(build_compressor(one, ""), 1.0, seed)(samples)
            swept_messages = {
                r["id"]: r["message"]
                for r in samples_in(swept)
                if (r["compressor"], r["seed"], r["predictor"]) == (one.called, seed, "qwen2-small")
            }
            assert swept_messages == {s.id: message.text for s, message in zip(samples, written, strict=True)}


def test_a_second_start_repeats_nothing_and_another_predictor_writes_nothing_again(swept: Path, tmp_path: Path) -> None:
    before, results = logs(swept), results_in(swept)
    assert main(small(swept)) == 0
    assert logs(swept) == before and results_in(swept) == results
    more = (
        "predictors=[{family: qwen2, model: miniature/qwen2-small}, {family: llama, model: miniature/llama-medium},"
        " {name: brief, family: qwen2, model: miniature/qwen2-small, max_answer_tokens: 2}]"
    )
    assert main(small(swept, more)) == 0
    assert logs(swept)["messages"] == before["messages"] and len(logs(swept)["answers"]) == 24
    # A name, a family: nothing that an answer depends on.
    renamed = "compressors.0={name: other, family: x, model: miniature/qwen2-small, budget_tokens: 24}"
    assert main(small(swept, more, renamed)) == 0
    assert len(logs(swept)["messages"]) == 8 and len(logs(swept)["answers"]) == 24
    assert main(small(swept)) == 0


def test_a_predictor_behind_an_endpoint_answers_and_has_the_parameters_it_is_given(swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept / "records", tmp_path / "run" / "records")
    with serving(lambda asked, number: Answer(chat("Answer: blue"))) as server:
        remote = f"{{name: far, family: gpt, model: far-8b, endpoint: '{server.url}', parameters: 8000000000}}"
        assert main(small(tmp_path / "run", f"predictors=[{remote}]")) == 0
        assert server.asked and all(one.body["model"] == "far-8b" for one in server.asked)
    found = samples_in(tmp_path / "run")
    assert {(r["predictor"], r["predictor_parameters"], r["prediction"]) for r in found} == {("far", 8 * 10**9, "blue")}
    assert all(r["answer_nll_nats"] is None for r in found)
    assert verdict_of(json.loads((tmp_path / "run" / "sweep.json").read_text()), "perplexity") == "not measured"
    assert len(logs(tmp_path / "run")["messages"]) == len(logs(swept)["messages"])


def test_what_cannot_be_run_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small(tmp_path, "scorer.model=none/such")) == 2
    assert main(small(tmp_path, "tasks.0.facts=9999")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines), lines
    assert not (tmp_path / "records" / "messages" / "0.jsonl").exists()


def test_it_runs_as_a_file_too() -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*AS_FILE, "--config", "sweep.yaml", "seeds=[]"], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.strip() == "error: seeds = []: should have at least one item"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["messages", "answers"])
def test_after_a_kill_results_are_the_same_and_one_batch_at_most_is_repeated(
    stage: str, swept: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen([*PLAIN, *small(folder)], env=ENVIRONMENT, cwd=PROJECT)
    log = folder / "records" / stage / "0.jsonl"
    deadline = time.monotonic() + 300
    while (not log.exists() or log.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = log.read_bytes().count(b"\n")
    assert done >= 3 and not (folder / "sweep.json").exists()
    kept = log.read_bytes().splitlines()[:done]
    again = subprocess.run([*PLAIN, *small(folder)], env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert log.read_bytes().splitlines()[:done] == kept
    assert results_in(folder) == results_in(swept) and samples_in(folder) == samples_in(swept)
    assert len(logs(folder)["messages"]) == 8 and len(logs(folder)["answers"]) == 16


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(swept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run([*TORCHRUN, *small(folder)], env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert results_in(folder) == results_in(swept) and samples_in(folder) == samples_in(swept)
    assert all((folder / "records" / "messages" / f"{rank}.jsonl").stat().st_size > 0 for rank in (0, 1))
