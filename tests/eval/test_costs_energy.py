"""Energy and time of a batch: counters as Linux shows them, faked in a folder, and what each question gets of them."""

from pathlib import Path

import pytest

from eval.metering import AnswerWatch, EnergyCounters, Stopwatch, spent_on_messages
from models.compressor import Effort, Message
from models.endpoint import TOKENS_READ, TOKENS_WRITTEN
from models.loading import load_model
from models.predictor import KEPT, UNCOUNTED, LocalPredictor, Query

RANGE = 262_143_328_850


def domain(root: Path, folder: str, name: str, microjoules: int | str, most: int = RANGE) -> Path:
    place = root / folder
    place.mkdir()
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{most}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


def test_packages_are_summed_and_their_parts_and_second_drivers_are_not(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl").mkdir()
    first = domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    part = domain(tmp_path, "intel-rapl:0:0", "core", 0)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    platform = domain(tmp_path, "intel-rapl:2", "psys", 0)
    again = domain(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    energy = EnergyCounters(tmp_path)
    assert energy.problem is None
    with Stopwatch(energy) as watch:
        first.write_text("3500000\n")
        second.write_text("5250000\n")
        for other in (part, platform, again):
            other.write_text("900000000\n")
    assert watch.joules == pytest.approx(2.75)
    assert watch.seconds is not None and watch.seconds > 0
    assert watch.share(5) == (watch.seconds / 5, pytest.approx(0.55))


def test_a_counter_that_begins_again_goes_on_where_it_was(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    energy = EnergyCounters(tmp_path)
    with Stopwatch(energy) as watch:
        counter.write_text("2000000")
    assert watch.joules == pytest.approx(3.0)


def test_where_there_is_no_counter_nothing_is_measured_and_one_line_says_so(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "core", 7)
    for root in (tmp_path, tmp_path / "nowhere"):
        energy = EnergyCounters(root)
        assert energy.problem == f"energy is not measured: no counter of a processor below {root}"
        with Stopwatch(energy) as watch:
            pass
        assert watch.joules is None and watch.seconds is not None


@pytest.mark.parametrize("damage", ["unreadable", "no number"])
def test_where_one_of_two_counters_cannot_be_read_nothing_is_measured(tmp_path: Path, damage: str) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 7)
    counter = domain(tmp_path, "intel-rapl:1", "package-1", "soon")
    if damage == "unreadable":
        # A folder can be read by nobody, not even by root.
        counter.unlink()
        counter.mkdir()
    energy = EnergyCounters(tmp_path)
    assert energy.problem is not None and energy.problem.startswith("energy is not measured: ")
    assert "\n" not in energy.problem and energy.read() is None


def test_a_counter_that_goes_away_while_a_batch_is_done_leaves_it_unmeasured(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 7)
    energy = EnergyCounters(tmp_path)
    with Stopwatch(energy) as watch:
        counter.unlink()
    assert watch.joules is None and energy.problem is None


def test_only_the_first_process_measures_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 7)
    monkeypatch.setenv("RANK", "1")
    with Stopwatch(EnergyCounters(tmp_path)) as watch:
        pass
    assert watch.joules is None and watch.seconds is not None


def message(effort: Effort) -> Message:
    return Message("a", [1], True, [], 0, effort)


def test_a_batch_is_divided_by_its_questions_and_what_was_done_earlier_is_added() -> None:
    watch = Stopwatch()
    watch.seconds, watch.joules = 6.0, 30.0
    parts = [
        [message(Effort(100, 5))],
        [message(Effort(100, 5, 2.0, 1.0)), message(Effort(50, 7, 3.0, None))],
        [message(Effort(None, None, None, None))],
    ]
    assert spent_on_messages(parts, watch) == [
        {"seconds": 2.0, "joules": 10.0, "tokens_read": 100, "tokens_written": 5},
        {"seconds": 7.0, "joules": None, "tokens_read": 150, "tokens_written": 12},
        {"seconds": None, "joules": None, "tokens_read": None, "tokens_written": None},
    ]


def test_a_predictor_counts_every_query_as_if_it_were_asked_by_itself() -> None:
    model, tokenizer = load_model("miniature/qwen2-small")
    predictor = LocalPredictor(model, tokenizer, 4)
    query = Query("Zinc was 41.", "What was zinc?")
    with AnswerWatch(predictor) as one:
        predictor.answer([query])
    with AnswerWatch(predictor) as three:
        predictor.answer([query] * 3)
    alone, each = one.spent(1), three.spent(3)
    prompt = predictor.prompts(query.message, query.question, ())
    assert alone["tokens_read"] == len(prompt.ids) + len(predictor.opening) == each["tokens_read"]
    assert alone["tokens_written"] == each["tokens_written"] and 1 <= (each["tokens_written"] or 0) <= 4
    assert three.seconds is not None and each["seconds"] == pytest.approx(three.seconds / 3)


def test_an_answer_from_a_cache_took_no_time_that_could_be_told_but_has_its_tokens() -> None:
    model, tokenizer = load_model("miniature/qwen2-small")
    predictor = LocalPredictor(model, tokenizer, 4)
    with AnswerWatch(predictor) as watch:
        predictor.counts.update({TOKENS_READ: 60, TOKENS_WRITTEN: 4, KEPT: 1})
    assert watch.spent(2) == {"seconds": None, "joules": None, "tokens_read": 30.0, "tokens_written": 2.0}
    with AnswerWatch(predictor) as untold:
        predictor.counts.update({TOKENS_READ: 60, UNCOUNTED: 1})
    assert untold.spent(2)["tokens_read"] is None and untold.spent(2)["seconds"] is not None
