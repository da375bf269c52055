"""The keys of vLLM as the writer of the messages."""

from typing import Annotated, Literal

from pydantic import Field

from configs.errors import ConfigError, shown
from configs.limits import Tokens
from configs.sections import WriterConfig
from configs.tree import Section


class VllmConfig(Section):
    """Settings of vLLM as TRL drives it; read where ``train.sampler`` is vllm.

    In server mode the compressor's base is served by ``VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode
    processed_logprobs --weight-transfer-config '{"backend": "nccl"}'``. Neither mode has been run on a GPU yet.
    """

    mode: Literal["colocate", "server"] = "colocate"
    """Place of vLLM: colocate shares the GPUs of the training; server asks a ``vllm serve`` with GPUs of its own."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of each GPU's memory that vLLM takes in colocate mode; the rest is left to the training."""

    max_model_tokens: Tokens | None = None
    """Maximum tokens of a prompt with its message in colocate mode; null takes the model's window."""

    server_host: str = "127.0.0.1"
    """Host of the server in server mode."""

    server_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the server in server mode."""

    importance_sampling: bool = True
    """Whether TRL corrects for the gap between vLLM and the policy: a message counts by how much likelier the policy
    finds it than vLLM did, and not at all where that is more than three times. Costs a forward pass."""


def check_vllm(sampler: str, vllm: VllmConfig, compressor: WriterConfig) -> None:
    """Refuse settings of vLLM where it is not the sampler, and what it cannot do where it is.

    Args:
        sampler: ``train.sampler``.
        vllm: ``train.vllm``.
        compressor: whose messages it would write.

    Raises:
        ConfigError: naming the key.
    """
    if sampler != "vllm":
        if changed := sorted(name for name, value in vllm if value != getattr(VllmConfig(), name)):
            value = shown(getattr(vllm, changed[0]))
            raise ConfigError(
                f"train.vllm.{changed[0]} = {value}: is read with train.sampler = vllm alone; set that, or drop this"
            )
        return
    if compressor.revision is not None:
        raise ConfigError(
            f"compressor.revision = {compressor.revision!r}: TRL has vLLM load a model's default branch; "
            "leave it out, or choose train.sampler = transformers"
        )
    needed = (compressor.max_context_tokens or 0) + compressor.budget_tokens
    if vllm.max_model_tokens is not None and vllm.max_model_tokens <= needed:
        raise ConfigError(
            f"train.vllm.max_model_tokens = {vllm.max_model_tokens}: a context and its message take {needed} tokens "
            "beside the question; choose more"
        )
