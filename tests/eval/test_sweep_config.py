"""The configuration of a sweep: a grid that cannot be run is one line that names the key."""

from pathlib import Path

import pytest
import yaml

from configs.tree import ConfigError
from eval.sweep.config import load_config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("compressors.3.name=qwen2-small", "compressors.3.name = 'qwen2-small': is there twice"),
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
        ("predictors.0.adapter=nowhere", "predictors.0.adapter = 'nowhere'"),
        ("eval.information_questions=8", "eval.information_questions = 8: a sweep measures the information of every"),
        ("run_folder=x{y}", "run_folder = 'x{y}'"),
        ("information.negatives={counterfactual: 0, batch: 0}", "information.negatives = "),
        (
            "predictors=[{family: qwen2, model: miniature/qwen2-shallow}]",
            "control = 'qwen2-shallow': is all there is of predictors",
        ),
        ("control=qwen2-giant", "control = 'qwen2-giant': is no compressor; there are qwen2-"),
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
        "qwen2-shallow",
        "qwen2-tiny",
        "qwen2-small",
        "llama-medium",
        "qwen2-large",
        "qwen2-shallow, 3 sentences",
        "qwen2-tiny, 3 sentences",
        "qwen2-small, 3 sentences",
        "llama-medium, 3 sentences",
        "qwen2-large, 3 sentences",
    ]
    assert [one.sentences for one in config.measured] == [None] * 5 + [3] * 5
    with pytest.raises(ConfigError, match=r"compressors\.0\.sentences = 9"):
        load_config("sweep.yaml", ["sentences=[null, 3]", "compressors.0.sentences=9"])


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config("sweep.yaml")
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(str(file)) == config
