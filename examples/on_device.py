"""Compress a document on a device, without torch and without Shorthand.

    python on_device.py MODEL.gguf document.txt "the question"             (pip install xllamacpp)
    python on_device.py BASE.gguf:LORA.gguf document.txt "the question"
    python on_device.py merged document.txt "the question"                 (pip install mlx-lm)

The files and the ``prompt.json`` beside them are what ``python -m models.export`` writes.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

Ids = Callable[[str], list[int]]


def prompt_ids(prompt: dict[str, Any], document: str, question: str, trusted: Ids, untrusted: Ids) -> list[int]:
    """The pieces of the trained prompt, and between them two texts that cannot forge a control token."""
    ids, limit = untrusted(document), prompt["max_document_tokens"]
    if limit and len(ids) > limit:
        ids = ids[: limit - limit // 2] + ids[len(ids) - limit // 2 :]
    asked = untrusted(f" {question}")
    return trusted(prompt["head"]) + ids + trusted(prompt["middle"]) + asked + trusted(prompt["tail"])


def with_llama_cpp(model: str, lora: str, prompt: dict[str, Any], document: str, question: str) -> str:
    """The message, by a GGUF file with or without a LoRA."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.port, settings.n_parallel, settings.verbosity = model, 0, 1, -1
    settings.n_ctx = prompt["window"]
    settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0)] if lora else []
    server = xllamacpp.Server(settings)

    def ids(text: str, special: bool) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": special}).encode()
        url, headers = f"{server.listening_address}/tokenize", {"Content-Type": "application/json"}
        return json.load(urlopen(Request(url, body, headers)))["tokens"]

    asked = prompt_ids(prompt, document, question, lambda text: ids(text, True), lambda text: ids(text, False))
    reply = server.handle_completions({"prompt": asked, "n_predict": prompt["budget_tokens"], "temperature": 0})
    return reply["choices"][0]["text"].strip()


def with_mlx(model: str, prompt: dict[str, Any], document: str, question: str) -> str:
    """The message, by the folder ``merged`` of an export for MLX."""
    import mlx_lm

    network, tokenizer = mlx_lm.load(model)
    tokenizer.eos_token_ids = {prompt["end_token_id"]}

    def ids(text: str, special: bool) -> list[int]:
        return tokenizer._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)

    asked = prompt_ids(prompt, document, question, lambda text: ids(text, True), lambda text: ids(text, False))
    return mlx_lm.generate(network, tokenizer, prompt=asked, max_tokens=prompt["budget_tokens"]).strip()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    file, _, adapter = sys.argv[1].partition(":")
    pieces = json.loads((Path(file).resolve().parent / "prompt.json").read_text(encoding="utf-8"))
    text = Path(sys.argv[2]).read_text(encoding="utf-8").strip()
    if file.endswith(".gguf"):
        print(with_llama_cpp(file, adapter, pieces, text, sys.argv[3]))
    else:
        print(with_mlx(file, pieces, text, sys.argv[3]))
