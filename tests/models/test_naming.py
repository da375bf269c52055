"""A model's name is an embedded member, a folder or a hub id; whatever else it is gets one line, before any loading."""

import subprocess
import sys
from pathlib import Path

import pytest

from models import naming
from models.naming import ModelError, miniature_members, model_folder


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of embedded models with one member, ``small``, and a folder that holds no model."""
    weights = tmp_path / "weights"
    (weights / "small").mkdir(parents=True)
    (weights / "small" / "config.json").write_text("{}")
    (weights / "notes").mkdir()
    monkeypatch.setattr(naming, "MINIATURE_WEIGHTS", weights)
    return weights


def test_members_are_the_folders_with_a_config(family: Path) -> None:
    assert miniature_members() == ["small"]
    assert model_folder("miniature/small") == family / "small"


def test_an_unknown_member_is_answered_with_the_likeliest_and_all_members() -> None:
    with pytest.raises(ModelError) as caught:
        model_folder("miniature/smal")
    assert str(caught.value) == (
        "model 'miniature/smal': no such embedded model; did you mean 'miniature/small'?; there are miniature/small"
    )


def test_a_folder_is_taken_as_it_is_and_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_folder(str(tmp_path)) == tmp_path
    assert model_folder("~/weights") == tmp_path / "weights"


def test_a_hub_id_has_no_folder_unless_its_owner_is_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_folder("exports/mine-0.5B") is None
    (tmp_path / "exports").mkdir()
    with pytest.raises(ModelError, match=r"model 'exports/mine-0.5B': no such folder"):
        model_folder("exports/mine-0.5B")


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "./missing", "~/missing", "~nobody/missing", "a/b/c", "missing", "miniature", "x" * 5000],
)
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder, and not a model id on the hub") as caught:
        model_folder(name)
    assert str(caught.value).startswith(f"model {name!r}: ")


def test_a_refusal_begins_with_what_the_caller_calls_the_model() -> None:
    with pytest.raises(ModelError, match=r"^predictor\.model = 'missing': no such folder"):
        model_folder("missing", "predictor.model = 'missing'")


def test_naming_a_model_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "numpy", "huggingface_hub", "httpx2", "pydantic"}
    script = f"import sys, models.naming; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
