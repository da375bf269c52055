"""From the command line of ``models.serve`` to a running server: the backend, its limits, and what is said first."""

import argparse
import os
import sys
from pathlib import Path

import torch

from models.adapter_settings import AdapterSettings, read_settings
from models.compress_job import Work
from models.compressor import DEFAULT_BUDGET
from models.loading import load_tokenizer, quiet_libraries
from models.naming import ModelError, gguf_file, names_adapter
from models.predictor import Predictor
from models.serve.backend import Backend
from models.serve.chat_request import DEFAULT_QUESTION, Limits
from models.serve.line import Line
from models.serve.service import Service

UPSTREAM_WINDOW = 4096
"""Tokens that a model on another server is taken to read where the user does not say."""

MIB = 1 << 20


def start(options: argparse.Namespace) -> None:
    """Serve until told to end.

    Args:
        options: the command line, see ``models.serve.__main__``.

    Raises:
        InputError: a model, an adapter or an address cannot be used.
        KeyboardInterrupt: the user ended it.
    """
    quiet_libraries()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.mcp:
        from models.serve.mcp_tools import serve_stdio

        service = load(options)
        print(f"serving {service.limits.model} on standard input and output", file=sys.stderr, flush=True)
        try:
            serve_stdio(service)
        finally:
            service.line.stop(10.0)
        return
    _serve_web(options)


def load(options: argparse.Namespace) -> Service:
    """The backend with its line and its predictor.

    Raises:
        InputError: a model, an adapter or a server cannot be used.
    """
    settings = None
    if options.adapter is not None and names_adapter(options.adapter):
        settings = read_settings(options.adapter)
    backend, predictor = _backend(options, settings)
    if backend.budget_tokens > backend.most_budget_tokens:
        raise ModelError(
            f"a budget of {backend.budget_tokens} tokens leaves no room to read; at most {backend.most_budget_tokens}"
        )
    # Memory for a whole budget is taken before the first token is written.
    most = min(backend.most_budget_tokens, options.most_budget)
    if backend.budget_tokens > most:
        raise ModelError(f"a budget of {backend.budget_tokens} tokens is more than --most-budget {most}")
    limits = Limits(
        options.name or _name(options),
        backend.budget_tokens,
        most,
        backend.hidden,
        not options.no_bits,
        options.question or DEFAULT_QUESTION,
    )
    return Service(backend, limits, Line(options.queue, options.seconds), predictor)


def _backend(options: argparse.Namespace, settings: AdapterSettings | None) -> tuple[Backend, Predictor | None]:
    hidden = settings is not None and settings.question == "hidden"
    instruction = "" if settings is None else settings.answer_instruction
    work = Work(
        options.adapter or "", options.model, options.budget, predictor=options.predictor, endpoint=options.endpoint
    )
    if options.backend == "torch":
        from models.serve.torch_backend import TorchBackend

        compressor, predictor = work.load()
        return TorchBackend(compressor, hidden), predictor
    predictor = work.load_predictor(instruction)
    if options.backend == "llama.cpp":
        from models.serve.llama_backend import LlamaBackend

        file = gguf_file(options.gguf)
        assert file is not None, "the command line was checked"
        tokenizer = load_tokenizer(options.adapter)
        threads = options.threads or os.cpu_count() or 1
        return LlamaBackend(file, tokenizer, settings, options.window, options.budget, threads), predictor
    from models.endpoint import Endpoint
    from models.serve.upstream_backend import UpstreamBackend

    endpoint = Endpoint(
        options.upstream,
        options.model,
        timeout_seconds=options.seconds,
        retries=1,
        answer_seconds=options.seconds,
        say=lambda line: print(line, file=sys.stderr),
    )
    budget = options.budget or (DEFAULT_BUDGET if settings is None else settings.budget_tokens)
    told = "" if settings is None else settings.instruction
    return UpstreamBackend(endpoint, budget, options.window or UPSTREAM_WINDOW, told, hidden), predictor


def _name(options: argparse.Namespace) -> str:
    return options.model if options.backend == "upstream" else Path(options.adapter).resolve().name


def _serve_web(options: argparse.Namespace) -> None:
    from models.serve.gate import LOOPBACK, Gate
    from models.serve.run import address, bound, listen, serve
    from models.serve.web import application

    taken = bound(options.host, options.port)
    service = load(options)
    try:
        listen(taken, options.host, options.port)
    except ModelError:
        service.line.stop(0.0)
        raise
    loopback = options.host in LOOPBACK
    gate = Gate(
        options.keys,
        LOOPBACK if loopback else (),
        int(options.body_mib * MIB),
        options.body_seconds,
    )
    url = address(taken)
    if not loopback and not options.keys:
        print(f"warning: whoever reaches {url} can use it; --key or --key-file asks for a key", file=sys.stderr)
    limits = service.limits
    print(
        f"serving {limits.model} at {url}/v1, budget {limits.budget_tokens} tokens; the page is {url}/",
        file=sys.stderr,
        flush=True,
    )
    serve(application(service, gate), service.line, taken)
