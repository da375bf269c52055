"""Serve a compressor: an OpenAI-compatible server, a page to try it, and tools for agents.

The server answers POST /v1/chat/completions as OpenAI's API has it, whole or as a stream. What is compressed stands in
the fields ``document`` and ``question`` of the request, or is a plain chat history: then the last user message is the
question and all others are the document, as agents ask for a compaction. ``max_tokens`` is the budget of the message.
GET /v1/models, /metrics (for Prometheus), /health and / (the page) are there too; docs/serving.md has all fields.

One message is written at a time; others wait in a line of limited length, and beyond it are told to come back.
Nothing of a request is written to the disk. The server listens on this machine alone unless --host says otherwise.

Three backends run the compressor. torch runs an adapter in this process, and alone knows what a message carries in
bits. llama.cpp runs a GGUF file, with the tokenizer and the prompt of the adapter's folder. upstream asks another
OpenAI-compatible server, whose chat template is not ours: text like a control token is spelled apart before it is sent.

With --mcp the tools ``compress`` and ``expand`` are served on standard input and output instead.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data.errors import InputError, one_line, os_error
from models.gguf_header import read_header
from models.help_page import command_parser
from models.naming import ModelError, adapter_folder, gguf_file, model_folder, names_adapter

EXAMPLES = (
    "python -m models.serve --adapter runs/mi_rl/compressor",
    "python -m models.serve --adapter runs/mi_rl/compressor --predictor miniature/llama-medium --port 8080",
    "python -m models.serve --adapter runs/mi_rl/compressor --backend llama.cpp --gguf compressor.gguf",
    "python -m models.serve --backend upstream --upstream http://127.0.0.1:8000/v1 --model my-compressor",
    "python -m models.serve --adapter runs/mi_rl/compressor --mcp",
)

BACKENDS = ("torch", "llama.cpp", "upstream")
"""What runs the compressor."""

LEAST_KEY = 8
"""Characters that a key has at least: fewer are guessed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    try:
        check_installed(options)
        check_streams(options)
        check_names(options)
        options.keys = keys(options)
        # Imported once the command line is right, for these take seconds.
        from models.serve.start import start

        start(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = command_parser("python -m models.serve", __doc__ or "", EXAMPLES)
    _add_compressor(parser.add_argument_group("the compressor"))
    _add_server(parser.add_argument_group("the server"))
    options = parser.parse_args(arguments)
    if problem := mistake(options):
        parser.error(problem)
    return options


def _add_compressor(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--adapter", metavar="FOLDER", help="folder of a trained adapter, or a model to use untrained")
    group.add_argument("--backend", choices=BACKENDS, default="torch", help="what runs it (default %(default)s)")
    group.add_argument("--model", help="the base model, where it is not the adapter's own; upstream: the model's name")
    group.add_argument("--gguf", metavar="FILE", help="llama.cpp: the compressor as a GGUF file")
    group.add_argument("--upstream", metavar="URL", help="upstream: the server, http://.../v1")
    group.add_argument("--budget", type=int, metavar="N", help="tokens of a message where a request names none")
    group.add_argument(
        "--most-budget", type=int, default=4096, metavar="N", help="largest budget of a request (default %(default)s)"
    )
    group.add_argument("--window", type=int, metavar="N", help="llama.cpp and upstream: tokens that the model reads")
    group.add_argument("--threads", type=int, metavar="N", help="threads of the CPU (default: all cores)")
    group.add_argument(
        "--predictor", metavar="MODEL", help="a model or an adapter that answers on the page, from the message alone"
    )
    group.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible server that runs the predictor")
    group.add_argument("--question", metavar="TEXT", help="what a history without a question is compressed for")
    group.add_argument("--no-bits", action="store_true", help="do not tell what messages carry: half of the time")


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--mcp", action="store_true", help="tools on standard input and output instead of a server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    group.add_argument("--port", type=int, default=8181, help="port; 0 takes a free one (default %(default)s)")
    group.add_argument("--name", help="the model's name in requests (default: the adapter's last folder)")
    group.add_argument("--key", metavar="KEY", action="append", default=[], help="a key that requests need")
    group.add_argument("--key-file", metavar="FILE", help="a file of keys, one a line; a key on the command line shows")
    group.add_argument("--queue", type=int, default=16, metavar="N", help="requests that wait (default %(default)s)")
    group.add_argument(
        "--seconds", type=float, default=300.0, metavar="S", help="longest work for one request (default %(default)g)"
    )
    group.add_argument(
        "--body-mib", type=float, default=2.0, metavar="M", help="largest body of a request (default %(default)g MiB)"
    )
    group.add_argument(
        "--body-seconds", type=float, default=30.0, metavar="S", help="longest time of a body (default %(default)g)"
    )


def mistake(options: argparse.Namespace) -> str | None:
    """What options do not go together, or are out of range; None where all is right."""
    needed = {"torch": ("adapter",), "llama.cpp": ("adapter", "gguf"), "upstream": ("upstream", "model")}
    for name in needed[options.backend]:
        if getattr(options, name) is None:
            return f"--{name}: is needed with --backend {options.backend}"
    for name, backend in (("gguf", "llama.cpp"), ("upstream", "upstream")):
        if getattr(options, name) is not None and options.backend != backend:
            return f"--{name}: is for --backend {backend}"
    if options.window is not None and options.backend == "torch":
        return "--window: is for --backend llama.cpp and upstream"
    if options.endpoint is not None and options.predictor is None:
        return "--endpoint: needs --predictor, the name of the model on that server"
    for name in ("budget", "most_budget", "window", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            return f"--{name.replace('_', '-')} {getattr(options, name)}: should be at least 1"
    for name, least in (("queue", 0), ("seconds", 0.001), ("body_mib", 0.001), ("body_seconds", 0.001)):
        if not least <= getattr(options, name) < float("inf"):
            return f"--{name.replace('_', '-')} {getattr(options, name)}: should be at least {least:g}"
    return None if 0 <= options.port < 65536 else f"--port {options.port}: should be between 0 and 65535"


def check_installed(options: argparse.Namespace) -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        ModelError: one is missing.
    """
    for package in ("mcp",) if options.mcp else ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{package} is not installed; pip install 'shorthand[serve]'")


def check_streams(options: argparse.Namespace) -> None:
    """Refuse to serve tools on standard streams that are closed, as the shell's ``<&-`` leaves them.

    Raises:
        ModelError: naming one.
    """
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if options.mcp and stream is None:
            raise ModelError(f"--mcp: standard {name} is closed; tools are served on standard input and output")


def check_names(options: argparse.Namespace) -> None:
    """Refuse an adapter, a model or a file that is not there.

    Raises:
        ModelError: naming it.
    """
    models = {} if options.backend == "upstream" else {f"model {options.model!r}": options.model}
    if options.endpoint is None and options.predictor is not None:
        if names_adapter(options.predictor):
            adapter_folder(options.predictor)
        else:
            models[f"predictor {options.predictor!r}"] = options.predictor
    if options.adapter is not None and names_adapter(options.adapter):
        adapter_folder(options.adapter)
    else:
        models[f"model {options.adapter!r}"] = options.adapter
    for subject, model in models.items():
        if model is not None and model_folder(model, subject) is None and (file := gguf_file(model, subject)):
            read_header(file, subject)
    if options.gguf is not None:
        subject = f"--gguf {options.gguf!r}"
        file = gguf_file(options.gguf, subject)
        if file is None:
            raise ModelError(f"{subject}: should be a file that ends with .gguf")
        read_header(file, subject)


def keys(options: argparse.Namespace) -> list[str]:
    """The keys that requests need; none are needed where there are none.

    Raises:
        ModelError: the file cannot be read or has none, or a key is none that a header can hold.
    """
    found = [key.strip() for key in options.key]
    if options.key_file is not None:
        path = Path(os.path.expanduser(options.key_file))
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ModelError(f"--key-file {options.key_file!r}: {one_line(error)}") from error
        inside = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not inside:
            raise ModelError(f"--key-file {options.key_file!r}: has no key")
        found += inside
    for key in found:
        if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise ModelError(f"a key should have at least {LEAST_KEY} printable ASCII characters and no space")
    return found


if __name__ == "__main__":
    sys.exit(main())
