"""What a whole evaluation says of its costs, also one that goes on from a log and one with a server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval import metering
from eval.record_log import SEAL, sealed
from eval.run import main
from tests.eval.small_evaluation import evaluated, logged, records, small, write_adapter
from tests.local_server import Answer, chat, serving

pytestmark = pytest.mark.command

BASELINES = (
    "baselines=[{name: full-context, information: false}, {name: bm25, budgets: [8, 12], information: false}, "
    "{name: untrained, budgets: [8, compressor], information: false}]"
)
PRICED = "costs={compressor: {read: 0.5, written: 1}, predictor: {read: 2, written: 8}}"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose one package has used a joule more at every look."""
    place = tmp_path / "powercap" / "intel-rapl:0"
    place.mkdir(parents=True)
    (place / "name").write_text("package-0")
    (place / "max_energy_range_uj").write_text("262143328850")
    (place / "energy_uj").write_text("0")
    looks = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr(metering, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(metering.Domain, "read", lambda domain: next(looks))
    metering.energy_counters.cache_clear()
    yield
    metering.energy_counters.cache_clear()


def costs(folder: Path) -> dict[str, Any]:
    """The rows of costs by name and budget."""
    rows = json.loads((folder / "results.json").read_text())["costs"]
    return {f"{row['name']} {row['budget_tokens'] or ''}".strip(): row for row in rows}


def test_every_row_has_its_costs(
    tmp_path: Path, adapter: Path, counters: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    found = evaluated(folder, f"compressor.adapter={adapter}", BASELINES, PRICED)
    assert "energy" not in capsys.readouterr().out
    rows = costs(folder)
    assert list(rows)[:4] == ["compressor, before", "compressor, after", "full-context", "bm25 8"]
    for row in rows.values():
        predictor = row["per_question"]["predictor"]
        assert row["n"] == 4 and all(predictor[figure] > 0 for figure in predictor)
        assert predictor["dollars"] == pytest.approx(
            (2 * predictor["tokens_read"] + 8 * predictor["tokens_written"]) / 1e6
        )
        assert predictor["joules"] == pytest.approx(1 / 2)
    for entry, stage in zip(found["flops"], ("before", "after"), strict=True):
        compressor = rows[f"compressor, {stage}"]["per_question"]["compressor"]
        assert compressor["tokens_read"] == entry["prompt_tokens"]
        assert compressor["tokens_written"] == entry["generated_tokens"]
        assert compressor["flops"] == entry["prefill_flops"] + entry["generation_flops"]
    for name in ("full-context", "bm25 8", "bm25 12"):
        compressor = rows[name]["per_question"]["compressor"]
        assert compressor["tokens_read"] == compressor["tokens_written"] == compressor["flops"] == 0
        assert compressor["dollars"] == 0 and compressor["seconds"] > 0
    full, short = (rows[name]["per_question"]["predictor"] for name in ("full-context", "bm25 8"))
    assert full["tokens_read"] > short["tokens_read"] and full["flops"] > short["flops"]
    # What the model wrote whole and a budget cut was not timed under that budget.
    assert rows["untrained, greedy 8"]["missing"]["compressor"]["seconds"] == 4
    assert rows["untrained, greedy 12"]["missing"]["compressor"]["seconds"] == 0
    assert rows["untrained, greedy 8"]["per_question"]["compressor"]["tokens_written"] <= 8
    assert "Costs of a question" in (folder / "report.html").read_text()


def test_what_goes_on_from_a_log_keeps_what_was_measured_and_counts_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, log = tmp_path / "run", tmp_path / "run" / "records" / "0.jsonl"
    evaluated(folder)
    assert capsys.readouterr().out.count("energy is not measured") <= 1
    first, keys = costs(folder)["compressor, after"], logged(folder)
    kept = {record["id"]: record["compressor_spent"] for record in records(folder)}
    whole, second = log.read_text().splitlines(keepends=True)
    # A kill in the second batch: the first is as it was, the second is measured anew.
    log.write_text(whole + second[:100])
    evaluated(folder)
    again = {record["id"]: record["compressor_spent"] for record in records(folder)}
    of_first = [record["id"] for record in json.loads(whole)["records"]]
    assert logged(folder) == keys and [again[name] for name in of_first] == [kept[name] for name in of_first]
    row = costs(folder)["compressor, after"]
    assert row["missing"]["compressor"]["seconds"] == 0
    mean = sum(spent["seconds"] for spent in again.values()) / 4
    assert row["per_question"]["compressor"]["seconds"] == pytest.approx(mean)
    assert row["per_question"]["compressor"]["tokens_read"] == first["per_question"]["compressor"]["tokens_read"]
    # A log of a run that did not measure.
    entry = json.loads(whole)
    del entry[SEAL]
    for record in entry["records"]:
        del record["compressor_spent"], record["predictor_spent"]
    log.write_text(sealed(entry) + log.read_text().splitlines(keepends=True)[1])
    evaluated(folder)
    row = costs(folder)["compressor, after"]
    assert row["missing"]["compressor"]["seconds"] == row["missing"]["predictor"]["tokens_read"] == 2
    measured = [spent["seconds"] for name, spent in again.items() if name not in of_first]
    assert row["per_question"]["compressor"]["seconds"] == pytest.approx(sum(measured) / 2)
    assert "compressor, after: 2 of 4 (compressor, seconds)" in (folder / "report.html").read_text()


def test_answers_of_a_server_have_its_own_counts_and_those_it_gave_before_no_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    reply = chat("5") | {"usage": {"prompt_tokens": 50, "completion_tokens": 3}}
    with serving(lambda asked, number: Answer(reply)) as server:
        price = "dollars_per_million_tokens: {read: 2, written: 8}"
        given = small(folder, f"predictor={{endpoint: '{server.url}', model: m, {price}}}")
        assert main(given) == 0
        row = costs(folder)["compressor, after"]
        predictor = row["per_question"]["predictor"]
        assert (predictor["tokens_read"], predictor["tokens_written"], predictor["flops"]) == (50, 3, None)
        assert predictor["dollars"] == pytest.approx((2 * 50 + 8 * 3) / 1e6) == row["per_question"]["total"]["dollars"]
        assert predictor["seconds"] > 0 and row["per_question"]["compressor"]["dollars"] is None
        (folder / "records" / "0.jsonl").unlink()
        assert main(given) == 0
    again = costs(folder)["compressor, after"]
    assert again["per_question"]["predictor"] == predictor | {"seconds": None}
    assert again["missing"]["predictor"]["seconds"] == 4 and again["missing"]["predictor"]["tokens_read"] == 0
