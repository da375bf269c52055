"""vLLM through TRL: TRL's own classes run its whole colocate path around a stand-in for vLLM's engine.

The stand-in keeps a second copy of the model, takes weights as vLLM's loader does, and samples from what it was sent.
vLLM itself, a GPU, and the server mode are not run here.
"""

import inspect
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3MoeConfig
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from models.adapters import add_adapter
from models.fingerprint import is_base, parameter_hash
from models.loading import load_model
from models.shared_prefix import Reply, generate
from tests.train.small_trainer import disturb, inputs, make_trainer, policy
from train.config import load_config
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer
from train.grpo.trainer import grpo_config
from train.sampling.vllm import sampler_weights, vllm_messages

pytestmark = pytest.mark.command

VLLM = "train.sampler=vllm"


class Engine:
    """What TRL 1.16 uses of vLLM's `LLM`, on transformers."""

    deaf = False
    """Whether weights that are sent are dropped."""

    def __init__(self, model: str, seed: int, **_: Any) -> None:
        self.model, _tokenizer = load_model(model)
        self.seeds = count(seed)
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self.load_weights))
        executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(model_executor=executor)
        self.sampled_with: list[dict[str, Any]] = []
        self.prompts: list[list[int]] = []

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, weight in weights:
            assert parameters[name].shape == weight.shape
            if not self.deaf:
                parameters[name].copy_(weight)

    def reset_prefix_cache(self) -> None:
        pass

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: dict[str, Any], use_tqdm: bool
    ) -> list[SimpleNamespace]:
        self.sampled_with.append(sampling_params)
        self.prompts = [prompt["prompt_token_ids"] for prompt in prompts]
        (end,) = sampling_params["stop_token_ids"]
        replies = generate(
            self.model,
            self.prompts,
            sampling_params["max_tokens"],
            end,
            temperature=sampling_params["temperature"],
            seeds=[next(self.seeds) for _ in prompts],
        )
        return [engine_output(prompt, reply, end) for prompt, reply in zip(self.prompts, replies, strict=True)]


class DeafEngine(Engine):
    """Never takes the weights it is sent."""

    deaf = True


def engine_output(prompt: list[int], reply: Reply, end: int) -> SimpleNamespace:
    ids = reply.token_ids + [end] * reply.ended
    log_probs = [
        {token: SimpleNamespace(rank=1, logprob=value)} for token, value in zip(ids, reply.log_probs, strict=True)
    ]
    return SimpleNamespace(prompt_token_ids=prompt, outputs=[SimpleNamespace(token_ids=ids, logprobs=log_probs)])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """TRL finds an engine where it looks for vLLM; what it sets in the environment is put back."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.setattr("train.config._check_machine", lambda config: None)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "SamplingParams", dict, raising=False)
    monkeypatch.setattr(vllm_generation, "LLM", Engine, raising=False)
    return monkeypatch


def engine_of(trainer: GRPOTrainer) -> Engine:
    engine: Any = trainer.vllm_generation.llm
    assert isinstance(engine, Engine)
    return engine


def adapted_model(std: float = 0.05) -> PeftModel:
    model, _ = load_model("miniature/qwen2-small")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    assert isinstance(adapted, PeftModel)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter.data, std=std)
    return adapted


def test_a_step_samples_from_the_adapted_model_with_budget_and_end_token(
    tmp_path: Path, stand_in: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, VLLM, "train.steps=1", "compressor.budget_tokens=24")
    disturb(trainer)
    before = parameter_hash(policy(trainer), is_base)
    batch = inputs(trainer)
    engine, rollout = engine_of(trainer), trainer.rollout_func
    assert rollout is not None
    compressor = rollout.compressor  # pyright: ignore[reportFunctionMemberAccess]
    (sampled_with,) = engine.sampled_with
    assert sampled_with["max_tokens"] == 24 and sampled_with["n"] == 1 and sampled_with["logprobs"] == 0
    assert sampled_with["stop_token_ids"] == [compressor.end_token_id] and sampled_with["ignore_eos"]
    assert (sampled_with["temperature"], sampled_with["top_p"], sampled_with["top_k"]) == (1.0, 1.0, 0)
    prompts = {tuple(compressor.prompt(s.document.text, s.question.text).ids) for s in rollout.samples.values()}  # pyright: ignore[reportFunctionMemberAccess]
    assert {tuple(ids) for ids in engine.prompts} <= prompts and len(engine.prompts) == 8
    metrics = trainer._metrics["train"]
    assert metrics["sampler_gap/adapter_reached"] == [1.0]
    assert metrics["sampling/sampling_logp_difference/mean"][0] < 1e-4
    assert batch["importance_sampling_ratio"].sub(1).abs().max() < 1e-2
    assert parameter_hash(policy(trainer), is_base) == before


def test_training_through_trls_vllm_moves_the_adapter_alone_and_logs_the_gap(
    tmp_path: Path, stand_in: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(
        tmp_path,
        SharedPrefixGRPOTrainer,
        VLLM,
        "train.steps=3",
        "train.learning_rate=0.02",
        "train.vllm.importance_sampling=false",
    )
    before = parameter_hash(policy(trainer), is_base)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "sampler_gap/mean_nats" in line]
    assert len(lines) == 3 and all(line["sampler_gap/mean_nats"] < 1e-4 for line in lines)
    # The first two generations are checked; an untrained adapter changes nothing that could be seen.
    assert [line.get("sampler_gap/adapter_reached") for line in lines] == [0.0, 1.0, None]
    assert parameter_hash(policy(trainer), is_base) == before
    assert not any(name.startswith("sampling/") for line in lines for name in line)


def test_an_engine_that_drops_the_weights_ends_the_run(tmp_path: Path, stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setattr(vllm_generation, "LLM", DeafEngine)
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, VLLM, "train.steps=1")
    disturb(trainer)
    with pytest.raises(RuntimeError, match="the adapter did not reach the sampler"):
        inputs(trainer)


def test_the_weights_sent_are_those_of_trls_merge_and_the_base_stays_as_it_is() -> None:
    model = adapted_model()
    before = parameter_hash(model)
    ours = {name: weight.clone() for name, weight in sampler_weights(model)}
    assert parameter_hash(model) == before
    generation = object.__new__(VLLMGeneration)
    generation.model = model
    generation._dist = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        is_fsdp=False, gather_params=lambda _: torch.no_grad()
    )
    theirs = {name: weight.clone() for name, weight in VLLMGeneration._iter_named_params(generation)}
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-6, rtol=0)
    assert parameter_hash(model) != before, "TRL leaves the base as it is now: sampler_weights is no longer needed"
    plain, _ = load_model("miniature/qwen2-small")
    assert list(ours) == [name for name, _ in plain.named_parameters()]
    assert any(not torch.equal(ours[name], weight) for name, weight in plain.named_parameters())


def test_experts_that_lie_in_one_parameter_are_sent_with_their_adapter() -> None:
    config = Qwen3MoeConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,  # pyright: ignore[reportCallIssue]
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    fresh = AutoModelForCausalLM.from_config(config).eval()
    fresh.load_state_dict(model.state_dict())
    adapted = add_adapter(model, 4, 8, 0.0, "all-linear", 0).eval()
    ids = torch.tensor([[5, 60, 70, 8, 9, 10]])
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        before = fresh(ids).logits
        assert not fresh.load_state_dict(dict(sampler_weights(adapted)), strict=False).unexpected_keys
        torch.testing.assert_close(fresh(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
        assert (before - adapted(ids).logits).abs().max() > 0.1


def test_merged_weights_keep_the_type_of_the_base() -> None:
    model = adapted_model().to(torch.bfloat16)
    assert isinstance(model, PeftModel)
    assert {weight.dtype for _, weight in sampler_weights(model)} == {torch.bfloat16}


def test_an_update_below_half_a_step_of_bfloat16_is_lost_in_the_weights_sent() -> None:
    changed = []
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted_model(std=1e-5).to(dtype)
        assert isinstance(model, PeftModel)
        sent = dict(sampler_weights(model))
        matrix = "model.layers.0.mlp.up_proj.weight"
        plain = load_model("miniature/qwen2-small", dtype)[0].get_parameter(matrix)
        changed.append((sent[matrix] != plain).float().mean().item())
    assert changed[0] > 0.9 and changed[1] < 0.05


def test_what_vllm_gives_becomes_lists_with_missing_log_probs_kept() -> None:
    answer = ([[1, 2]], [(5, 6), (7,)], [[[-0.5], [None]], [[-1.0]]], None)
    generation: Any = SimpleNamespace(generate=lambda prompts, images, num_generations: answer)
    messages = vllm_messages(generation, [[1, 2], [1, 2]], 2)
    assert messages == {"completion_ids": [[5, 6], [7]], "logprobs": [[-0.5, None], [-1.0]]}


def test_trl_takes_what_the_configuration_says_of_vllm(tmp_path: Path, stand_in: pytest.MonkeyPatch) -> None:
    overrides = ["mode=server", "server_host=gpu7", "server_port=9000", "gpu_memory_utilization=0.5"]
    more = ["max_model_tokens=4096", "importance_sampling=false"]
    config = load_config("mi_rl.yaml", [VLLM, *(f"train.vllm.{item}" for item in overrides + more)])
    args = grpo_config(config, tmp_path, [], 7)
    assert args.use_vllm and args.vllm_mode == "server"
    assert (args.vllm_server_host, args.vllm_server_port) == ("gpu7", 9000)
    assert (args.vllm_gpu_memory_utilization, args.vllm_max_model_length) == (0.5, 4096)
    assert not args.vllm_importance_sampling_correction
    assert args.max_completion_length == config.compressor.budget_tokens
    plain = grpo_config(load_config("mi_rl.yaml"), tmp_path, [], 7)
    assert not plain.use_vllm and plain.generation_kwargs is None


def test_trl_has_what_is_used_of_it() -> None:
    assert {"use_vllm", "vllm_mode", "generation_kwargs"} <= set(GRPOConfig.__dataclass_fields__)
    generate_arguments = list(inspect.signature(VLLMGeneration.generate).parameters)
    assert generate_arguments[:4] == ["self", "prompts", "images", "num_generations"]
    sync, rollout = inspect.getsource(VLLMGeneration.sync_weights), inspect.getsource(GRPOTrainer._generate)
    assert "self._iter_named_params()" in sync and "merge_adapter" not in sync
    assert rollout.index("vllm_generation.sync_weights()") < rollout.index("self.rollout_func(prompts, self)")
