"""The servers of a run: looked for before anything expensive, and told of at the end where their answers were odd."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate.utils import gather_object

from configs.command import say
from configs.sections import PredictorConfig
from configs.servers import ANSWERS, open_server
from models.endpoint.habits import DAMAGED, notes
from models.predictor import Predictor, RemotePredictor


def probe_predictors(predictors: Sequence[PredictorConfig], folder: Path) -> None:
    """Find out before anything expensive whether the servers of predictors are there.

    Raises:
        EndpointError: one is not, and nothing was answered in this run folder before.
    """
    for predictor in predictors:
        if predictor.endpoint is not None:
            open_server(predictor, predictor.model, folder / ANSWERS, say).probe()


def tell_of_server(predictor: Predictor, limit_key: str = "predictor.max_answer_tokens") -> None:
    """Say what was odd about the answers of a predictor's server in this start; every process calls this.

    Args:
        predictor: any; of one in this process there is nothing to say.
        limit_key: the key that gives its answers more tokens.
    """
    if isinstance(predictor, RemotePredictor):
        _tell(predictor, gather_object([predictor.endpoint.totals()]), limit_key)


def tell_of_reader(predictor: Predictor, limit_key: str) -> None:
    """The same of a predictor that this process alone has asked."""
    if isinstance(predictor, RemotePredictor):
        _tell(predictor, [predictor.endpoint.totals()], limit_key)


def _tell(predictor: RemotePredictor, totals: Sequence[Mapping[str, int]], limit_key: str) -> None:
    counts = sum(map(Counter, totals), Counter())
    # Every process counts these in the same file.
    counts[DAMAGED] = max(process.get(DAMAGED, 0) for process in totals)
    for line in notes(predictor.endpoint.name, counts, limit_key):
        say(line)
