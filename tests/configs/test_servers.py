"""What a recipe says of a server: refused where it is wrong, or where a secret would be written into files."""

from pathlib import Path

import pytest

from configs.servers import ServerConfig, open_server
from configs.tree import ConfigError
from eval.config import load_config

PASSWORD = "hunter2"


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config("evaluation.yaml", ["compressor.adapter=null", *overrides])
    return str(caught.value)


@pytest.mark.parametrize("key", ["predictor", "judge"])
@pytest.mark.parametrize(
    "url",
    [f"http://me:{PASSWORD}@host/v1", f"http://host/v1?api_key={PASSWORD}", f"https://host/v1?version=1#{PASSWORD}"],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(key: str, url: str) -> None:
    error = refused(f"{key}={{endpoint: '{url}', model: m}}")
    assert "host/v1': had " in error and "api_key_variable" in error
    assert PASSWORD not in error and "\n" not in error


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated() -> None:
    error = refused("predictor={endpoint: 'http://host/v1', model: m, api_key_variable: sk-hunter2}")
    assert "api_key_variable: should name an environment variable" in error and PASSWORD not in error
    error = refused(f"predictor={{endpoint: 'http://host/v1', model: m, request: {{api_key: {PASSWORD}}}}}")
    assert "request.api_key: would be written into files" in error and PASSWORD not in error


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("predictor.request.messages=[]", "request.messages: is not for a recipe to set"),
        ("predictor.request.stream=true", "request.stream: is not for a recipe to set"),
        ("predictor.request.seed=.nan", "predictor.request = "),
        ("predictor.timeout_seconds=0", "predictor.timeout_seconds = 0"),
        ("predictor.answer_seconds=.inf", "predictor.answer_seconds = inf"),
        ("predictor.retries=-1", "predictor.retries = -1"),
        ("predictor.endpoint=nowhere", "endpoint 'nowhere': should be a URL"),
    ],
)
def test_what_no_server_takes_is_refused_by_its_key(override: str, problem: str) -> None:
    assert problem in refused(override)


def test_a_server_is_opened_with_the_limits_of_its_configuration(tmp_path: Path) -> None:
    config = ServerConfig(endpoint="http://localhost/v1/", timeout_seconds=1, retries=0, request={"top_k": 1})
    endpoint = open_server(config, "m", tmp_path / "answers.jsonl", print)
    assert endpoint.name == "http://localhost/v1, model 'm'" and (tmp_path / "answers.jsonl").exists()
