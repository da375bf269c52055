"""What stands at the top of the page: the question shown from end to end, and how the figures were made."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from configs.tree import PROJECT
from data.errors import DataError
from eval.provenance import provenance
from eval.record_file import write_records
from eval.report.example import EXCERPT_CHARACTERS, example, excerpt
from eval.report.facts import configuration, facts, others
from eval.report.page import write_report
from eval.report.training_messages import REQUIRED, training_messages

META: dict[str, Any] = {
    "date": "2026-03-04T05:06:07+00:00",
    "seconds": {"before": 60.0, "training": 3700.0, "after": 30.0},
    "seed": 7,
    "commit": "0123456789abcdef",
    "modified": True,
    "machine": {"cpu": "A processor", "cores": 2, "accelerators": ["A GPU"], "processes": 1},
    "versions": {"torch": "2.13.0", "peft": None},
    "config": {
        "seed": 3,
        "compressor": {"model": "small", "budget_tokens": 128},
        "predictor": {"model": "large", "endpoint": "http://user:secret@host"},
        "scorer": {"model": None},
        "train": {"steps": 40, "contexts_per_step": 8, "group_size": 4},
    },
}


def test_the_example_is_the_first_question_by_id_that_every_stage_has(tmp_path: Path, record: Any) -> None:
    stages = ("before", "after")
    made = [record(number, stage, prediction=f"{stage} {number}") for number in (3, 1, 2) for stage in stages]
    write_records(tmp_path / "samples.jsonl", [record(0, "before"), *made])
    shown = example(tmp_path / "samples.jsonl")
    assert shown is not None and shown.id == "notes/d0/1"
    assert [(side.stage, side.answer) for side in shown.sides] == [("before", "before 1"), ("after", "after 1")]
    assert shown.sides[0].cost == "6 tokens, 1.44 bits"


def test_a_compressor_held_against_nothing_has_an_example_of_one_side(tmp_path: Path, record: Any) -> None:
    write_records(tmp_path / "samples.jsonl", [record(0, "after")])
    shown = example(tmp_path / "samples.jsonl")
    assert shown is not None and [side.stage for side in shown.sides] == ["after"]


def test_the_excerpt_is_around_the_first_place_where_the_answer_stands_as_a_word() -> None:
    text = "word " * 400 + "the 85 and 8 of it " + "more " * 400
    found = excerpt(text, ["8"])
    assert found.answer == "8" and found.start.endswith("the 85 and ") and found.end.startswith(" of it")
    assert found.start.startswith("… word") and found.end.endswith("more …")
    shown = len(found.start) + len(found.answer) + len(found.end)
    assert EXCERPT_CHARACTERS - 20 < shown <= EXCERPT_CHARACTERS + 4
    assert found.note.endswith(f"of {len(text):,} characters")


@pytest.mark.parametrize("answers", [[], [""], ["nowhere"]])
def test_without_the_answers_words_the_excerpt_is_the_beginning(answers: list[str]) -> None:
    found = excerpt("word " * 400, answers)
    assert found.start == "" and found.answer == "" and found.end.startswith("word word")
    assert excerpt("short", answers).end == "short" and excerpt("short", answers).note == "the whole document"


def test_greedy_messages_are_the_ones_shown_where_there_are_some(run_folder: Path, record: Any) -> None:
    greedy = [record(0, stage, message=f"greedily {stage}") for stage in ("before", "after")]
    write_records(run_folder / "samples.greedy.jsonl", greedy)
    head = write_report(run_folder).read_text().partition("</header>")[0]
    assert "greedily before" in head and "greedily after" in head and "in the order of ids" in head
    assert '<a href="samples.greedy.jsonl">' in head and '<a href="results.json">' in head
    assert "messages.jsonl" not in head


def test_every_link_within_the_page_has_a_target(run_folder: Path) -> None:
    source = write_report(run_folder).read_text()
    anchors = {part.partition('"')[0] for part in source.split('href="#')[1:]}
    ids = {part.partition('"')[0] for part in source.split(' id="')[1:]}
    assert {anchor for anchor in anchors if not anchor.startswith("message=")} <= ids


def test_the_facts_name_date_duration_models_seed_code_and_machine() -> None:
    assert dict(facts(META)) == {
        "Date": "2026-03-04 05:06 UTC",
        "Duration": "1 h 3 min (before 1 min 0 s, training 1 h 1 min, after 30 s)",
        "Compressor": "small, at most 128 tokens a message",
        "Predictor": "large, on a server",
        "Scorer": "the compressor's base",
        "Training": "40 steps of 8 contexts with 4 messages",
        "Seed": "3",
        "Commit": "0123456789 and changes that are in no commit",
        "Machine": "A GPU; A processor, 2 cores",
        "Versions": "torch 2.13.0",
    }


@pytest.mark.parametrize("meta", [{}, {"config": "x", "seconds": 3, "machine": [], "date": "never", "commit": 4}])
def test_facts_that_the_results_do_not_hold_are_left_out(meta: dict[str, Any]) -> None:
    assert facts(meta) == [] and configuration(meta) == ""


def test_the_configuration_is_shown_as_yaml_and_the_rest_by_dotted_names() -> None:
    assert "compressor:\n  model: small\n  budget_tokens: 128\n" in configuration(META)
    named = dict(others(META))
    assert named["seconds.before"] == "60.0" and named["machine.cores"] == "2"
    assert not [name for name in named if name.startswith("config")]


def test_what_runs_is_named_with_its_commit_and_machine() -> None:
    made = provenance()
    assert made["machine"]["cores"] >= 1 and made["machine"]["cpu"] and made["date"].endswith("+00:00")
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    assert made["commit"] == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert json.loads(json.dumps(made)) == made


def messages(steps: int, **fields: Any) -> list[dict[str, Any]]:
    line = {
        "question": "Which dose?",
        "answers": ["5 mg"],
        "message": "5 mg",
        "message_tokens": 3,
        "prediction": "5 mg",
    }
    return [{"step": step, **line, "accuracy": 1.0, "reward": 1.5, "information_bits": -0.25} | fields
            for step in range(1, steps + 1) for _ in range(2)]  # fmt: skip


def test_what_was_written_in_training_is_shown_of_even_steps_from_first_to_last() -> None:
    shown = training_messages(messages(40))
    assert [message.step for message in shown[::2]] == [1, 9, 17, 24, 32, 40]
    assert (shown[0].reward, shown[0].bits, shown[0].tokens) == ("1.50", "-0.250", "3")
    assert [message.step for message in training_messages(messages(2))] == [1, 1, 2, 2]
    assert training_messages([]) == []


def test_messages_of_training_stay_text_on_the_page(run_folder: Path, planted: str) -> None:
    made = messages(3, message=f"3x [1] {planted}", question=planted, prediction=planted, reward=None)
    (run_folder / "messages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))
    source = write_report(run_folder).read_text()
    section = source.partition('id="written"')[2].partition("</table>")[0]
    assert "<script>" not in section and "3x [1] &lt;script&gt;" in section and "not measured" in section
    assert '<a href="messages.jsonl">' in source and '<a href="#written">' in source


def test_a_line_of_messages_that_lacks_something_is_refused_by_its_number() -> None:
    with pytest.raises(DataError, match=r"messages.jsonl line 2 lacks message"):
        training_messages([messages(1)[0], {name: 0 for name in REQUIRED if name != "message"}])
