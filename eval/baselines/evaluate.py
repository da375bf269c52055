"""Baselines as a configuration names them, measured like any compressor."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from configs.build import device
from configs.command import say
from data.sample import Sample
from eval.baselines.retrieval import Embedder, Retrieval, bm25_relevance
from eval.baselines.writers import Baseline, FullContext, LLMLingua2, NoContext, Truncation
from eval.config import WITHOUT_BUDGET, BaselineConfig, EvaluationConfig
from eval.evaluation import Write
from eval.record import Record
from eval.stages import evaluate
from models.channel import Channel
from models.compressor import Compressor, default_context_tokens
from models.loading import load_model
from models.predictor import LocalPredictor


def evaluate_baseline(
    config: EvaluationConfig,
    baseline: BaselineConfig,
    samples: Sequence[Sample],
    compressor: Compressor,
    channel: Channel,
    identity: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Any], list[Record]]]:
    """What a baseline is called and its records, at each of its budgets."""
    writer = build_baseline(baseline.name, compressor.tokenizer, config, channel)
    free = {"no-context": 1, "full-context": _room(channel, compressor, samples)}
    for budget in [free[baseline.name]] if baseline.name in WITHOUT_BUDGET else baseline.budgets:
        made = {"stage": f"{baseline.name} {budget}", "temperature": None, "budget_tokens": budget}
        records = evaluate(config, samples, by_baseline(writer, budget), channel, made, identity, True)
        if long := sum(record["information_nats"] is None for record in records):
            say(f"{baseline.name}: {long} messages are too long to be scored beside their contexts, so not measured")
        yield {"name": baseline.name, "budget_tokens": None if baseline.name in WITHOUT_BUDGET else budget}, records


def build_baseline(
    name: str, tokenizer: PreTrainedTokenizerBase, config: EvaluationConfig, channel: Channel
) -> Baseline:
    """A baseline by its name; sentences are embedded with the compressor's model, without its adapter.

    Raises:
        ModelError: its package is not installed.
    """
    if name == "embedding":
        one = config.compressor
        model, embedded = load_model(one.model, one.dtype, device(), one.revision)
        return Retrieval(tokenizer, name, Embedder(model, embedded).relevance)
    reader = channel.predictor.tokenizer if isinstance(channel.predictor, LocalPredictor) else None
    built = {
        "no-context": lambda: NoContext(tokenizer),
        "full-context": lambda: FullContext(tokenizer, reader),
        "head": lambda: Truncation(tokenizer, "head"),
        "head-and-tail": lambda: Truncation(tokenizer, "middle"),
        "bm25": lambda: Retrieval(tokenizer, name, bm25_relevance),
        "llmlingua-2": lambda: LLMLingua2(tokenizer),
    }
    return built[name]()


def by_baseline(baseline: Baseline, budget_tokens: int) -> Write:
    """Messages of a baseline; it is told the question whether or not the compressor is."""

    def write(samples: Sequence[Sample]) -> Any:
        contexts = [sample.document.text for sample in samples]
        return baseline.write(contexts, [sample.question.text for sample in samples], budget_tokens)

    return write


def _room(channel: Channel, compressor: Compressor, samples: Sequence[Sample]) -> int:
    """Tokens of a full context that the predictor can read; each part of a document gets an equal share."""
    predictor = channel.predictor
    room = compressor.prompts.max_first_tokens
    if isinstance(predictor, LocalPredictor):
        room = default_context_tokens(predictor.model, predictor.max_answer_tokens)
    return max(1, room // max(len(sample.document.parts) or 1 for sample in samples))
