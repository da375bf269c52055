"""The options of commands that speak to a server: the keys that recipes have for one, as a command line has them."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from configs.servers import ServerConfig
from configs.tree import refusal
from models.endpoint import ANSWER_SECONDS, KEY_VARIABLE, RETRIES, TIMEOUT_SECONDS


def add_server_options(
    parser: argparse.ArgumentParser, title: str, model: str, required: bool
) -> argparse._ArgumentGroup:
    """The options of one model on a server, in a group of their own, which is returned.

    Args:
        parser: gets them.
        title: of the group.
        model: what ``--model`` is.
        required: whether the command cannot do without the server.
    """
    group = parser.add_argument_group(title)
    add: Callable[..., Any] = group.add_argument
    add("--endpoint", required=required, help="base URL of an OpenAI-compatible server, http://host:port/v1")
    add("--model", required=required, help=model)
    add("--key-variable", help=f"environment variable of the key (default {KEY_VARIABLE}, where set)")
    add("--cache", help="a file that keeps every reply, so that none is paid for twice")
    add(
        "--timeout",
        type=float,
        default=TIMEOUT_SECONDS,
        help="most seconds of one request, to the last byte (default %(default)s)",
    )
    add("--retries", type=int, default=RETRIES, help="times a failed request is sent again (default %(default)s)")
    add(
        "--answer-seconds",
        type=float,
        default=ANSWER_SECONDS,
        help="most seconds of one answer with all its tries (default %(default)s)",
    )
    add("--extra", type=_fields, default={}, help="further fields of a request, as JSON; null leaves one out")
    return group


def server_of(options: argparse.Namespace) -> ServerConfig:
    """The server that a command line describes.

    Raises:
        ConfigError: one of its values is wrong, as it would be in a recipe.
    """
    try:
        return ServerConfig(
            endpoint=options.endpoint,
            api_key_variable=options.key_variable,
            timeout_seconds=options.timeout,
            retries=options.retries,
            answer_seconds=options.answer_seconds,
            request=options.extra,
        )
    except ValidationError as error:
        raise refusal(error, ServerConfig) from None


def _fields(value: str) -> dict[str, Any]:
    try:
        fields = json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value} is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise argparse.ArgumentTypeError(f"{value} should be a JSON object")
    return fields
