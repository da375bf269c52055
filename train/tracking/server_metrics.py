"""What a predictor's server has cost so far: requests, tokens, money, and the answers that could not be had."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from configs.servers import ServerConfig
from models.endpoint import TOKENS_READ, TOKENS_WRITTEN
from models.predictor import Predictor, RemotePredictor

NAMES = {
    "requests": "server/requests",
    "from the cache": "server/from_the_cache",
    "missing": "server/missing",
    TOKENS_READ: "server/tokens_read",
    TOKENS_WRITTEN: "server/tokens_written",
}
"""The metrics of a server by what an endpoint counts; all since the start of the process."""


def server_metrics(
    predictor: Predictor, config: ServerConfig, join: Callable[[list[Any]], list[Any]]
) -> dict[str, float]:
    """Counts over all processes since their start, and dollars where a price is given; nothing of a local predictor.

    Args:
        predictor: any.
        config: says the price.
        join: gathers what each process gives into one list for all.
    """
    if not isinstance(predictor, RemotePredictor):
        return {}
    counts = sum((Counter(part) for part in join([predictor.endpoint.totals()])), Counter())
    metrics = {name: float(counts[event]) for event, name in NAMES.items()}
    if (price := config.dollars_per_million_tokens) is not None:
        metrics["server/dollars"] = price.dollars(counts[TOKENS_READ], counts[TOKENS_WRITTEN])
    return metrics
