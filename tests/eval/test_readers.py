"""Other readers of the same messages: what they answer, and how much of the accuracy they keep."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from configs.tree import ConfigError
from eval.config import load_config
from eval.readers import READER_ANSWERS, Reading, portability
from eval.record import Record
from eval.report.readers import reader_table
from tests.eval.small_evaluation import evaluated, records, small, write_adapter

READERS = "readers=[{name: the same, model: miniature/llama-medium, max_answer_tokens: 6}, \
{name: another, model: miniature/qwen2-small, max_answer_tokens: 6}]"


def planted(own: list[float | None], other: list[float | None]) -> tuple[list[Record], list[Reading]]:
    """Records of two questions a document, and what a reader makes of them."""
    of_own = [
        {"id": str(place), "task": "t", "document_id": str(place // 2), "accuracy": value}
        for place, value in enumerate(own)
    ]
    of_other = [{"id": str(place), "accuracy": value} for place, value in enumerate(other)]
    return cast(list[Record], of_own), cast(list[Reading], of_other)


def test_portability_is_the_share_of_the_accuracy_that_is_left() -> None:
    found = portability(*planted([1.0, 0.5, 1.0, 0.5], [0.5, 0.25, 1.0, 0.5]))
    assert found["n"] == 4
    assert found["accuracy"]["value"] == pytest.approx(2.25 / 4)
    assert found["portability"]["value"] == pytest.approx(0.75)
    assert found["portability"]["low"] < 0.75 < found["portability"]["high"]


def test_a_question_without_a_score_is_left_out_of_both() -> None:
    found = portability(*planted([1.0, None, 1.0, 0.0], [1.0, 1.0, 0.0, None]))
    assert found["n"] == 2 and found["portability"]["value"] == pytest.approx(0.5)


@pytest.mark.command
def test_an_evaluation_asks_every_reader_about_every_message_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    folder, arguments = tmp_path / "run", (f"compressor.adapter={adapter}", READERS)
    found = evaluated(folder, *arguments)
    same, another = found["readers"]
    assert same["name"] == "the same" and another["model"] == "miniature/qwen2-small"
    for stage in ("before", "after"):
        assert same[stage]["accuracy"]["value"] == found["overall"][stage]["accuracy"]["value"]
        assert same[stage]["n"] == another[stage]["n"] == 4
    answers = [json.loads(line) for line in (folder / READER_ANSWERS).read_text().splitlines()]
    told = {(record["id"], record["stage"]): record["prediction"] for record in records(folder)}
    assert len(answers) == 16
    for answer in answers[:8]:
        assert answer["reader"] == "the same" and told[answer["id"], answer["stage"]] == answer["prediction"]
    assert "Read by others" in (folder / "report.html").read_text()
    assert "the same" in (folder / "tables.md").read_text()

    def refused(*_: Any) -> None:
        raise AssertionError("everything is answered already")

    monkeypatch.setattr("models.predictor.LocalPredictor.answer", refused)
    assert evaluated(folder, *arguments)["readers"] == found["readers"]


def test_a_table_has_a_line_for_every_reader_and_is_absent_without_any() -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    figures = {"accuracy": figure, "portability": {"value": 0.9, "low": 0.8, "high": 1.0}, "n": 4}
    table = reader_table([cast(Any, {"name": "base", "model": "m", "after": figures})])
    assert table is not None and table.columns == ("Reader", "Model", "Accuracy, after", "Portability, after")
    assert table.lines == (("base", "m", "50.0% [40.0%, 60.0%]", "0.900 [0.800, 1.00]"),)
    assert reader_table([]) is None


@pytest.mark.parametrize(
    ("readers", "refusal"),
    [
        ("[{name: a, model: miniature/none}]", "readers.0.model"),
        ("[{name: a, model: miniature/llama-medium, adapter: nowhere}]", "readers.0.adapter"),
        ("[{name: a, model: miniature/llama-medium}, {name: a, model: miniature/qwen2-small}]", "'a' is there twice"),
        ("[{model: miniature/llama-medium}]", "readers.0.name"),
    ],
)
def test_readers_that_cannot_be_asked_are_refused_before_anything_else(
    tmp_path: Path, readers: str, refusal: str
) -> None:
    with pytest.raises(ConfigError, match=refusal):
        load_config("evaluation.yaml", small(tmp_path, f"readers={readers}")[2:])
