"""An evaluation takes what an adapter was trained with where its own keys are left out, and says where it does not."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from configs.build import instructions
from configs.tree import ConfigError, to_yaml
from eval.config import EvaluatedConfig, load_config
from eval.rounds.__main__ import main as rounds
from eval.stages import build_compressor, difference_from_training
from eval.sweep.config import load_config as load_sweep
from models.adapter_settings import SETTINGS_FILE
from models.adapters import add_adapter, save_adapter
from models.compressor import Compressor
from models.loading import load_model

MODEL = "miniature/qwen2-small"
INSTRUCTION = "Write a note."


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "compressor"
    plain, tokenizer = load_model(MODEL, "bfloat16")
    adapted = add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0)
    compressor = Compressor(adapted, tokenizer, 24, 300, INSTRUCTION)
    save_adapter(adapted, tokenizer, folder, MODEL, settings=compressor.settings(MODEL, None, "Answer."))
    return folder


def recipe(folder: Path, adapter: Path, **compressor: object) -> str:
    path = folder / "recipe.yaml"
    tree = {
        "compressor": {"model": MODEL, "adapter": str(adapter), **compressor},
        "predictor": {"model": "miniature/llama-medium"},
        "tasks": ["miniature/notes"],
    }
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_keys_that_are_left_out_are_as_the_adapter_was_trained(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(recipe(tmp_path, adapter))
    assert (config.compressor.budget_tokens, config.compressor.max_context_tokens) == (24, 300)
    assert config.compressor.dtype == "bfloat16"
    assert instructions(config) == (INSTRUCTION, "")
    compressor = build_compressor(config.compressor, INSTRUCTION)
    assert compressor.budget_tokens == 24 and capsys.readouterr().out == ""
    assert config.held_against is not None and config.held_against.budget_tokens == 24
    (tmp_path / "resolved.yaml").write_text(to_yaml(config))
    assert load_config(str(tmp_path / "resolved.yaml"), ["name=recipe"]) == config


def test_a_key_that_is_given_wins_and_is_said(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe(tmp_path, adapter, budget_tokens=16, max_context_tokens=None, dtype="float32")
    config = load_config(file, ["tasks.0={name: miniature/notes, instruction: Be brief.}"])
    build_compressor(config.compressor, instructions(config)[0])
    assert capsys.readouterr().out == (
        f"adapter '{adapter}': not as it was trained: budget_tokens = 16 instead of 24, max_context_tokens = null "
        "instead of 300, dtype = 'float32' instead of 'bfloat16', instruction = 'Be brief.' instead of "
        "'Write a note.'\n"
    )


def test_an_adapter_that_remembers_nothing_is_said() -> None:
    config = EvaluatedConfig(model=MODEL, adapter="a")
    assert f"has no {SETTINGS_FILE}" in str(difference_from_training(config, None, ""))


def test_a_damaged_memory_is_refused_with_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"^compressor.adapter: adapter .*: shorthand.json: Invalid JSON"):
        load_config(recipe(tmp_path, tmp_path))


def test_a_sweep_takes_it_as_well(adapter: Path) -> None:
    one = f"{{model: {MODEL}, family: qwen, adapter: {adapter}}}"
    (compressor,) = load_sweep("sweep.yaml", [f"compressors=[{one}]", "control=null"]).compressors
    assert (compressor.budget_tokens, compressor.dtype) == (24, "bfloat16")


def with_settings(folder: Path, adapter: Path, **changed: object) -> Path:
    """A copy of an adapter that remembers something else."""
    copy = Path(shutil.copytree(adapter, folder / "copy"))
    settings = json.loads((copy / SETTINGS_FILE).read_text())
    (copy / SETTINGS_FILE).write_text(json.dumps(settings | changed))
    return copy


def test_a_sweep_tells_its_compressors_what_their_adapters_were_trained_with(tmp_path: Path, adapter: Path) -> None:
    def swept(*adapters: Path | None) -> list[str]:
        found = [
            {"family": "qwen2", "name": f"c{n}", "model": MODEL, "adapter": one and str(one)}
            for n, one in enumerate(adapters)
        ]
        return [f"compressors={json.dumps(found)}", "control=null"]

    config = load_sweep("sweep.yaml", swept(None, adapter))
    assert {task.instruction for task in config.tasks} == {INSTRUCTION}
    other = with_settings(tmp_path, adapter, instruction="Be brief.")
    with pytest.raises(ConfigError, match=r"^compressors\.1\.adapter: was trained with another instruction"):
        load_sweep("sweep.yaml", swept(adapter, other))
    given = [f"tasks.{number}.instruction=Say it." for number in range(5)]
    assert {task.instruction for task in load_sweep("sweep.yaml", [*swept(adapter, other), *given]).tasks} == {
        "Say it."
    }


def test_a_compressor_that_is_told_no_question_has_no_sweep_and_no_rounds(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = with_settings(tmp_path, adapter, question="hidden")
    swept = json.dumps([{"family": "qwen2", "model": MODEL, "adapter": str(hidden)}])
    with pytest.raises(ConfigError, match=r"compressors\.0\.question = hidden: a sweep tells every compressor"):
        load_sweep("sweep.yaml", [f"compressors={swept}", "control=null"])
    assert rounds(["--config", recipe(tmp_path, hidden), "--dry-run"]) == 2
    assert "compressor.question = hidden: further rounds refine the question" in capsys.readouterr().err
