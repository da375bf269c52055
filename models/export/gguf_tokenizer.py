"""A byte-level BPE tokenizer as llama.cpp's fields of a GGUF file.

llama.cpp knows ways to split text into words by names of its own (``tokenizer.ggml.pre``). A tokenizer whose way has no
name here is refused, for one that splits a little differently gives other tokens without a word. Which tokens are
control tokens is told as `models.prompts.ChatFormat` finds them, so that ``parse_special: false`` switches all of them
off in untrusted text.
"""

import json
from collections.abc import Mapping
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data.errors import one_line
from models.naming import ModelError
from models.prompts import ChatFormat

_DIGITS = {"type": "Digits", "individual_digits": True}

_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_LLAMA3_PATTERN = _QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

_BY_PATTERN = {_QWEN2_PATTERN: "qwen2", _LLAMA3_PATTERN: "llama-bpe"}
"""llama.cpp's names of ways to split that a tokenizer states as a regular expression."""


def write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int, end_token_id: int, template: str
) -> None:
    """Add a tokenizer's fields to a file.

    Args:
        writer: of the file.
        tokenizer: a fast byte-level BPE tokenizer.
        rows: tokens that the model has an embedding of; those that the tokenizer has no text for are unused.
        end_token_id: the token that ends a reply.
        template: the chat template that the file carries.

    Raises:
        ModelError: the tokenizer is of another kind, or splits text in a way that llama.cpp has no name for.
    """
    fields = _fields(tokenizer)
    split = split_name(fields)
    vocabulary: dict[str, int] = dict(fields["model"]["vocab"])
    added = {token["id"]: token for token in fields["added_tokens"]}
    texts = {index: text for text, index in vocabulary.items()} | {index: t["content"] for index, t in added.items()}
    control = ChatFormat(tokenizer).control_ids
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([texts.get(index, f"[unused{index}]") for index in range(rows)])
    writer.add_token_types([_kind(index, texts, added, control) for index in range(rows)])
    writer.add_token_merges([_merge(pair) for pair in fields["model"]["merges"]])
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(end_token_id)
    pad = tokenizer.pad_token_id
    writer.add_pad_token_id(pad if isinstance(pad, int) else end_token_id)
    writer.add_chat_template(template)


def split_name(fields: Mapping[str, Any]) -> str:
    """llama.cpp's name of how a tokenizer splits text into words.

    Args:
        fields: those of its ``tokenizer.json``.

    Raises:
        ModelError: it has none, or the tokenizer is no byte-level BPE.
    """
    model, steps = fields["model"], fields["pre_tokenizer"] or {}
    if model["type"] != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece's" if model.get("byte_fallback") else f"of kind {model['type']}"
        raise ModelError(
            f"the tokenizer is {kind}, and byte-level BPE alone is written; export --to merged, and use "
            "llama.cpp's own converter"
        )
    if fields["normalizer"] not in (None, {"type": "NFC"}):
        raise ModelError(f"the tokenizer changes text first ({one_line(json.dumps(fields['normalizer']), 60)})")
    listed = steps.get("pretokenizers", [steps])
    *before, last = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in listed]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if last.get("use_regex", True) and not before:
            return "gpt-2"
        if last.get("use_regex", True) and before == [_DIGITS]:
            return "smollm"
        if len(before) == 1 and before[0].get("type") == "Split" and before[0].get("behavior") == "Isolated":
            pattern = before[0].get("pattern", {}).get("Regex", "")
            if pattern in _BY_PATTERN:
                return _BY_PATTERN[pattern]
    raise ModelError(
        f"how the tokenizer splits text into words has no known name in llama.cpp: {one_line(json.dumps(steps), 120)}; "
        "export --to merged, and use llama.cpp's own converter"
    )


def _fields(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"a tokenizer of {type(tokenizer).__name__} has no tokenizer.json, which is what is written")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _kind(index: int, texts: Mapping[int, str], added: Mapping[int, Any], control: frozenset[int]) -> gguf.TokenType:
    if index not in texts:
        return gguf.TokenType.UNUSED
    if index in control:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if index in added else gguf.TokenType.NORMAL


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)
