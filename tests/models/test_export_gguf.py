"""GGUF files beside PyTorch, in llama.cpp itself: the same tokens and log-probabilities, and mistakes are seen."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import MistralConfig, PreTrainedModel

from data.miniature.documents import make_document
from models.adapters import merge_adapter
from models.compressor import Compressor
from models.export import gguf_file
from models.export.factors import Factors, lora_factors
from models.export.gguf_file import Packing, check_architecture, reordered, write_lora, write_model
from models.export.gguf_tokenizer import split_name
from models.export.llama_cpp import LlamaCpp
from models.export.trained import Trained, device_prompt, next_log_probs
from models.export.verify import Reference, arrived, verify
from models.loading import load_model
from models.naming import ModelError
from models.prompts import ChatFormat
from tests.models.exported import ADAPTERS, MEMBERS, PLAIN, TOLERANCE, check_parity, difference, prompts_of, trained

pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
pytestmark = pytest.mark.command


@pytest.fixture
def running() -> Iterator[Callable[..., LlamaCpp]]:
    """Starts llama.cpp on files, and stops it after the test."""
    started: list[LlamaCpp] = []

    def run(model: Path, lora: Path | None = None, scale: float = 1.0) -> LlamaCpp:
        started.append(LlamaCpp(model, lora, 1024, scale))
        return started[-1]

    yield run
    for runtime in started:
        runtime.close()


def write(path: Path, member: str, model: PreTrainedModel, packing: Packing = "f32") -> Path:
    _, tokenizer = load_model(f"miniature/{member}")
    chat = ChatFormat(tokenizer)
    write_model(path, model, tokenizer, packing, chat.end_token_id, str(tokenizer.chat_template), member)
    return path


def written(folder: Path, member: str, adapted: PeftModel) -> tuple[Path, Path]:
    """The base and the adapter."""
    base = write(folder / "base.gguf", member, load_model(f"miniature/{member}")[0])
    write_lora(folder / "lora.gguf", lora_factors(adapted), adapted.config, "an adapter")
    return base, folder / "lora.gguf"


@pytest.mark.parametrize("member", MEMBERS)
def test_a_base_is_the_same_in_llama_cpp(member: str, tmp_path: Path, running: Callable[..., LlamaCpp]) -> None:
    model, _ = load_model(f"miniature/{member}")
    check_parity(model, prompts_of(member), running(write(tmp_path / "base.gguf", member, model)))


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("member", MEMBERS)
def test_an_adapter_is_the_same_in_llama_cpp(
    member: str, kind: str, tmp_path: Path, running: Callable[..., LlamaCpp]
) -> None:
    adapted = trained(member, ADAPTERS[kind], tmp_path / "adapter")
    base, lora = written(tmp_path, member, adapted)
    prompts = prompts_of(member)
    check_parity(adapted, prompts, running(base, lora))
    merged = merge_adapter(adapted)
    check_parity(merged, prompts, running(write(tmp_path / "merged.gguf", member, merged)))


def transposed(factors: list[Factors]) -> list[Factors]:
    """The product of one square layer turned round, which fits it as well."""
    return [
        replace(part, a=part.b.T.contiguous(), b=part.a.T.contiguous())
        if part.module.endswith("0.self_attn.v_proj")
        else part
        for part in factors
    ]


def test_four_mistakes_are_found(
    tmp_path: Path, running: Callable[..., LlamaCpp], monkeypatch: pytest.MonkeyPatch
) -> None:
    member, prompts = "llama-medium", prompts_of("llama-medium")
    adapted = trained(member, PLAIN, tmp_path / "adapter")
    base, lora = written(tmp_path, member, adapted)
    ours, plain = (next_log_probs(adapted, prompts, with_adapter) for with_adapter in (True, False))

    def problem(runtime: LlamaCpp) -> str | None:
        return arrived([runtime.next_log_probs(ids) for ids in prompts], ours, plain).problem(exact=True)

    assert problem(running(base, lora)) is None
    assert "is not applied" in (problem(running(base)) or "")
    assert "another change" in (problem(running(base, lora, scale=2.0)) or "")
    turned = tmp_path / "turned.gguf"
    write_lora(turned, transposed(lora_factors(adapted)), adapted.config, "a factor transposed")
    assert "another change" in (problem(running(base, turned)) or "")
    monkeypatch.setattr(gguf_file, "reordered", lambda key, tensor, config: tensor)
    unpermuted = tmp_path / "unpermuted.gguf"
    write_lora(unpermuted, lora_factors(adapted), adapted.config, "rows of q and k in their order")
    assert "another change" in (problem(running(base, unpermuted)) or "")


def test_an_adapter_that_does_nothing_proves_nothing(tmp_path: Path, running: Callable[..., LlamaCpp]) -> None:
    member, prompts = "qwen2-small", prompts_of("qwen2-small")
    adapted = trained(member, PLAIN, tmp_path / "adapter", std=0.0)
    base, lora = written(tmp_path, member, adapted)
    runtime = running(base, lora)
    both = next_log_probs(adapted, prompts)
    assert "too little" in (arrived([runtime.next_log_probs(ids) for ids in prompts], both, both).problem(True) or "")


@pytest.mark.parametrize(("packing", "most"), [("f16", 0.05), ("q8_0", 0.5), ("q4_1", 5.0), ("q4_0", 8.0)])
def test_packed_weights_carry_the_adapter(
    packing: Packing, most: float, tmp_path: Path, running: Callable[..., LlamaCpp]
) -> None:
    member, prompts = "llama-medium", prompts_of("llama-medium")
    adapted = trained(member, PLAIN, tmp_path / "adapter")
    plain = next_log_probs(adapted, prompts, with_adapter=False)
    ours = next_log_probs(adapted, prompts)
    path = write(tmp_path / "merged.gguf", member, merge_adapter(adapted), packing)
    runtime = running(path)
    found = arrived([runtime.next_log_probs(ids) for ids in prompts], ours, plain)
    assert found.problem(exact=packing == "f16") is None
    # An adapter of this size changes more than even four bits do.
    assert 0.8 < found.slope < 1.2
    assert difference(merge_adapter(trained(member, PLAIN, tmp_path / "again")), runtime, prompts) < most


def test_llama_cpp_splits_text_as_the_tokenizer_does_and_a_document_forges_nothing(
    tmp_path: Path, running: Callable[..., LlamaCpp]
) -> None:
    member = "llama-medium"
    model, tokenizer = load_model(f"miniature/{member}")
    runtime, chat = running(write(tmp_path / "base.gguf", member, model)), ChatFormat(tokenizer)
    document = make_document("miniature/chats", 3, "test", facts=20, questions=1).text
    texts = [document, "12,345.6 (kg) \n\n\tUnd <|end|><|user|> äöü 😀 don't  we'll", " ", "<|system|>"]
    for text in texts:
        assert runtime.tokens(text, special=False) == chat.text_ids(text)
        assert chat.control_ids.isdisjoint(runtime.tokens(text, special=False))
    assert runtime.tokens("<|user|>Hi<|end|>", special=True) == chat.template_ids("<|user|>Hi<|end|>")


def test_the_template_of_the_file_writes_the_prompt_of_training(
    tmp_path: Path, running: Callable[..., LlamaCpp]
) -> None:
    member = "qwen2-small"
    model, tokenizer = load_model(f"miniature/{member}")
    compressor = Compressor(model, tokenizer, 16, instruction='Say "less".')
    settings = compressor.settings(f"miniature/{member}", None, "")
    prompt = device_prompt(model, tokenizer, settings)
    path = tmp_path / "model.gguf"
    write_model(path, model, tokenizer, "f32", prompt.end_token_id, prompt.template(), member)
    runtime = running(path)
    document, question = "The zinc was 41. It rained.", "What was the zinc?"
    ids = compressor.prompt(document, question).ids
    assert runtime.tokens(prompt.text(document, question), special=True) == ids
    system = {"role": "system", "content": "Be kind."}
    for texts in ((document, question), (f"{document}\n\nQuestion: {question}",)):
        turns = [{"role": "user", "content": text} for text in texts]
        assert runtime.templated(turns) == prompt.text(document, question)
        tokenizer.chat_template = prompt.template()
        for told in (turns, [system, *turns]):
            assert tokenizer.apply_chat_template(told, tokenize=False) == prompt.text(document, question)


def test_verify_tells_what_it_compared(tmp_path: Path, running: Callable[..., LlamaCpp]) -> None:
    trained("qwen2-small", PLAIN, tmp_path / "adapter")
    subject = Trained.load(str(tmp_path / "adapter"))
    base, lora = written(tmp_path, "qwen2-small", subject.adapted)
    reference = Reference.of(subject, prompts_of("qwen2-small")[:3], 8)
    found = verify(reference, running(base, lora), exact=True)
    assert (found.prompts, found.tokens, found.equal_prompts, found.problem) == (3, 8, 3, None)
    assert found.largest_difference < TOLERANCE and found.equal_tokens == 8
    left_out = verify(reference, running(base), exact=True)
    # Equal tokens prove nothing: these are, without the adapter.
    assert left_out.equal_prompts == 3 and "not applied" in (left_out.problem or "")


def test_rows_of_a_head_lie_in_pairs_on_llama_alone() -> None:
    llama, qwen = (load_model(f"miniature/{member}")[0].config for member in ("llama-medium", "qwen2-small"))
    rows = torch.arange(llama.hidden_size)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert reordered(key, rows, llama)[:4].tolist() == [0, 16, 1, 17]
    assert reordered(key.replace("q_proj", "v_proj"), rows, llama).tolist() == rows.tolist()
    rows = torch.arange(qwen.hidden_size)
    assert reordered(key, rows, qwen).tolist() == rows.tolist()


def test_what_is_not_written_is_refused_by_name(tmp_path: Path) -> None:
    config = load_model("miniature/llama-medium")[0].config
    config.rope_parameters = {"rope_theta": 1e4, "rope_type": "yarn", "factor": 2.0}
    with pytest.raises(ModelError, match="rope_type = 'yarn'"):
        check_architecture(config)
    with pytest.raises(ModelError, match="architecture 'mistral'"):
        check_architecture(MistralConfig())
    _, tokenizer = load_model("miniature/qwen2-small")
    fields = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    assert split_name(fields) == "gpt-2"
    fields["pre_tokenizer"] = {"type": "Whitespace"}
    with pytest.raises(ModelError, match="no known name in llama.cpp"):
        split_name(fields)
    fields["model"]["byte_fallback"] = True
    with pytest.raises(ModelError, match="SentencePiece"):
        split_name(fields)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ModelError, match="llama.cpp does not load 'broken.gguf'"):
        LlamaCpp(tmp_path / "broken.gguf")
