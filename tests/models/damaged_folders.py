"""A small whole model folder, and many ways to damage one."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.loading import load_tokenizer
from tests.models.tiny import tiny_model

Damage = Callable[[Path], None]

WEIGHTS = "model.safetensors"


def whole_folder(folder: Path) -> Path:
    """A model of two random layers with the tokenizer of an embedded one, as transformers saves them."""
    tokenizer = load_tokenizer("miniature/qwen2-small")
    model = tiny_model(
        "qwen2", vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, tie_word_embeddings=True
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "code ran")


def config(**changes: Any) -> Damage:
    """Other values in config.json; a value of ``...`` leaves the key out."""
    return _fields("config.json", changes)


def tokenizer_config(**changes: Any) -> Damage:
    return _fields("tokenizer_config.json", changes)


def _fields(name: str, changes: dict[str, Any]) -> Damage:
    def damage(folder: Path) -> None:
        fields = json.loads((folder / name).read_text()) | changes
        kept = {key: value for key, value in fields.items() if value is not ...}
        (folder / name).write_text(json.dumps(kept))

    return damage


def content(name: str, data: bytes) -> Damage:
    return lambda folder: void((folder / name).write_bytes(data))


def cut(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


def gone(*names: str) -> Damage:
    return lambda folder: void([(folder / name).unlink(missing_ok=True) for name in names])


def utf16(name: str) -> Damage:
    return lambda folder: void((folder / name).write_bytes((folder / name).read_text().encode("utf-16")))


def a_folder_instead(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Other tensors in the weights."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def pickled(folder: Path) -> None:
    """Weights as a pickle that runs code."""
    (folder / WEIGHTS).unlink()
    torch.save({"planted": Planted(folder / "ran")}, folder / "pytorch_model.bin")


def bare_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(folder / "ran")))


def gguf(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(100))


def header(length: int, text: bytes) -> Damage:
    """A safetensors file whose header is of another length than it says, or no JSON."""
    return content(WEIGHTS, length.to_bytes(8, "little") + text + bytes(64))


def index(entries: Any) -> Damage:
    """An index of weights in several files."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(entries))

    return damage


def custom_code(folder: Path) -> None:
    """A model whose class is code in its folder."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').write('code ran')\n")
    config(auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}, model_type="own")(folder)


def fewer_tokens(folder: Path) -> None:
    """A vocabulary that ends before that of the tokenizer."""
    tensors(lambda weights: weights.update({EMBEDDING: weights[EMBEDDING][:1000].clone()}))(folder)
    config(vocab_size=1000)(folder)


def number_as_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    tokenizer_config(chat_template=3)(folder)


def void(_: object) -> None:
    return None


def _first(weights: dict[str, torch.Tensor], name: str, value: float) -> None:
    weights[name].view(-1)[0] = value


EMBEDDING, LATE = "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"

HARMLESS = (
    "dtype unknown",
    "quantised by nothing known",
    "weights of whole numbers",
    "generation settings torn",
    "tokenizer of no class",
)
"""What is damaged there is not read."""

DAMAGES: dict[str, Damage] = {
    "config gone": gone("config.json"),
    "config empty": content("config.json", b""),
    "config torn": cut("config.json", 0.5),
    "config a list": content("config.json", b"[1]"),
    "config null": content("config.json", b"null"),
    "config bytes": content("config.json", bytes(range(256))),
    "config utf-16": utf16("config.json"),
    "config nested deeply": content("config.json", b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}"),
    "config a folder": a_folder_instead("config.json"),
    "config without a type": config(model_type=...),
    "config of an unknown type": config(model_type="nope"),
    "config of a number as type": config(model_type=3),
    "config of an encoder": config(model_type="bert"),
    "config of another decoder": config(model_type="gpt_neox"),
    "hidden size 0": config(hidden_size=0),
    "hidden size negative": config(hidden_size=-32),
    "hidden size a text": config(hidden_size="32"),
    "hidden size a list": config(hidden_size=[32]),
    "hidden size null": config(hidden_size=None),
    "hidden size larger": config(hidden_size=64),
    "hidden size without end": config(hidden_size=10**15),
    "hidden size odd": config(hidden_size=33),
    "heads 0": config(num_attention_heads=0),
    "heads that do not divide": config(num_attention_heads=5),
    "key heads that do not divide": config(num_key_value_heads=3),
    "heads negative": config(num_attention_heads=-4),
    "layers 0": config(num_hidden_layers=0, layer_types=[]),
    "layers missing": config(num_hidden_layers=4, layer_types=["full_attention"] * 4),
    "layers without end": config(num_hidden_layers=10**12, layer_types=...),
    "layer types too few": config(layer_types=["full_attention"]),
    "layer types unknown": config(layer_types=["nope", "nope"]),
    "vocabulary 0": config(vocab_size=0),
    "vocabulary smaller": config(vocab_size=50),
    "vocabulary larger": config(vocab_size=10**12),
    "vocabulary of fewer tokens": fewer_tokens,
    "window negative": config(max_position_embeddings=-1),
    "window a text": config(max_position_embeddings="long"),
    "window of 8": config(max_position_embeddings=8),
    "activation unknown": config(hidden_act="nope"),
    "activation a number": config(hidden_act=3),
    "frequencies of no kind": config(rope_parameters={"rope_type": "nope", "rope_theta": 10000.0}),
    "frequencies a text": config(rope_parameters="nope"),
    "norm epsilon a text": config(rms_norm_eps="small"),
    "dtype unknown": config(dtype="float33"),
    "quantised": config(quantization_config={"quant_method": "gptq", "bits": 4}),
    "quantised by nothing known": config(quantization_config={"quant_method": "nope"}),
    "weights gone": gone(WEIGHTS),
    "weights empty": content(WEIGHTS, b""),
    "weights cut at once": cut(WEIGHTS, 0.001),
    "weights cut": cut(WEIGHTS, 0.7),
    "weights a text": content(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "weights with a header without end": header(2**60, b"{}"),
    "weights with a header of no JSON": header(4, b"{{{{"),
    "weights a folder": a_folder_instead(WEIGHTS),
    "weights pickled": pickled,
    "weights a bare pickle": bare_pickle,
    "weights gguf": gguf,
    "weights without a tensor": tensors(lambda weights: weights.pop(LATE)),
    "weights without any": tensors(lambda weights: weights.clear()),
    "weights of another shape": tensors(lambda weights: weights.update({LATE: torch.zeros(7, 32)})),
    "weights of another rank": tensors(lambda weights: weights.update({LATE: torch.zeros(48)})),
    "weights of whole numbers": tensors(lambda weights: weights.update({LATE: torch.zeros(48, 32, dtype=torch.int64)})),
    "a weight NaN": tensors(lambda weights: _first(weights, LATE, float("nan"))),
    "a weight infinite": tensors(lambda weights: _first(weights, EMBEDDING, float("inf"))),
    "an index of files that are gone": index({"weight_map": {LATE: "model-00002-of-00002.safetensors"}}),
    "an index without a map": index({"metadata": {}}),
    "an index outside": index({"metadata": {}, "weight_map": {LATE: "../../elsewhere.safetensors"}}),
    "tokenizer gone": gone("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    "tokenizer.json gone": gone("tokenizer.json"),
    "tokenizer torn": cut("tokenizer.json", 0.5),
    "tokenizer empty": content("tokenizer.json", b""),
    "tokenizer a list": content("tokenizer.json", b"[]"),
    "tokenizer utf-16": utf16("tokenizer.json"),
    "tokenizer settings torn": cut("tokenizer_config.json", 0.5),
    "tokenizer settings a list": content("tokenizer_config.json", b"[1]"),
    "tokenizer settings utf-16": utf16("tokenizer_config.json"),
    "tokenizer of no class": tokenizer_config(tokenizer_class="Nope"),
    "tokenizer class a number": tokenizer_config(tokenizer_class=3),
    "tokenizer without an end": tokenizer_config(eos_token=3),
    "template gone": gone("chat_template.jinja"),
    "template a number": number_as_template,
    "template empty": content("chat_template.jinja", b""),
    "template broken": content("chat_template.jinja", b"{% for %}"),
    "template that raises": content("chat_template.jinja", b"{{ raise_exception('no') }}"),
    "template that divides": content("chat_template.jinja", b"{{ 1 / 0 }}"),
    "template that adds": content("chat_template.jinja", b"{{ 1 + 'a' }}"),
    "template without end": content("chat_template.jinja", b"{% for i in range(10**12) %}a{% endfor %}"),
    "template that calls itself": content("chat_template.jinja", b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "template without the text": content("chat_template.jinja", b"Hello."),
    "template that reaches out": content("chat_template.jinja", b"{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "template utf-16": content("chat_template.jinja", "ü{{ messages }}".encode("utf-16")),
    "generation settings torn": content("generation_config.json", b"{"),
    "custom code": custom_code,
}
"""Every damage by what it is."""
