"""A wrong environment is one line that names the variable, and nothing in it that may be secret."""

from pathlib import Path

import pytest

from models.endpoint import Endpoint, EndpointError

SET = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates but a test's own."""
    for variable in SET:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


def mistake() -> str:
    """What an endpoint says of its environment."""
    with pytest.raises(EndpointError) as caught:
        Endpoint("http://127.0.0.1:9/v1", "m")
    said = str(caught.value)
    assert said.startswith("http://127.0.0.1:9/v1, model 'm': the environment variable ") and "\n" not in said
    return said.partition(" variable ")[2]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", ["foo:bar", "ftp://host", "http://[::1", "http://user:pass@host:bar", "://"])
def test_a_proxy_that_is_no_url_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    said = mistake()
    assert said.startswith(f"{variable}, '") and said.endswith(
        "should be the URL of a proxy such as http://127.0.0.1:3128"
    )
    assert value.rpartition("@")[2] in said and "pass" not in said


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1", "SOCKS5h://user:pass@127.0.0.1:1"])
def test_a_socks_proxy_without_its_package_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", value)
    said = mistake()
    assert said.startswith("ALL_PROXY names a SOCKS proxy, '") and "needs the package socksio" in said
    assert "127.0.0.1:1" in said and "pass" not in said


def test_certificates_that_are_not_there_or_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", "/nope.pem")
    assert mistake() == "SSL_CERT_FILE='/nope.pem' cannot be used (No such file or directory)"
    (tmp_path / "empty.pem").write_text("no certificate\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    assert mistake().startswith(f"SSL_CERT_FILE='{tmp_path}/empty.pem' cannot be used (")


def test_a_proxy_that_is_not_to_be_used_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "foo:bar")
    monkeypatch.setenv("NO_PROXY", "*")
    assert Endpoint("http://127.0.0.1:9/v1", "m").name.endswith("model 'm'")
