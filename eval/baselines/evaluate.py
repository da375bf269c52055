"""Baselines as a configuration names them, measured like any compressor."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from configs.build import device
from configs.command import say
from data.sample import Sample
from eval.baselines.retrieval import Embedder, Retrieval, bm25_relevance
from eval.baselines.writers import Baseline, FullContext, LLMLingua2, NoContext, Truncation
from eval.config import WITHOUT_BUDGET, BaselineConfig, EvaluationConfig
from eval.evaluation import Write
from eval.record import Origin, Record
from eval.record_log import RecordLog
from eval.stages import evaluation_of
from models.channel import Channel
from models.compressor import Compressor, Message, default_context_tokens
from models.loading import load_model
from models.predictor import LocalPredictor


class BaselinePoint(TypedDict):
    """One point of a baseline's curve: its name and its budget."""

    name: str
    """The name of the baseline."""

    budget_tokens: int | None
    """The most tokens its messages may have. None for a baseline whose length nobody chooses."""


def evaluate_baseline(
    config: EvaluationConfig,
    baseline: BaselineConfig,
    samples: Sequence[Sample],
    compressor: Compressor,
    channel: Channel,
    log: RecordLog[Record],
) -> Iterator[tuple[BaselinePoint, list[Record]]]:
    """The records of a baseline at each of its budgets, with what it is called."""
    writer = build_baseline(baseline.name, compressor.tokenizer, config, channel)
    evaluation = replace(evaluation_of(config), skip_long_messages=True)
    unlimited = baseline.name in WITHOUT_BUDGET
    budgets = [_unlimited_tokens(baseline.name, channel, compressor, samples)] if unlimited else baseline.budgets
    for budget in budgets:
        origin: Origin = {"stage": f"{baseline.name} {budget}", "temperature": None, "budget_tokens": budget}
        records = evaluation.run(samples, by_baseline(writer, budget), channel, origin, log)
        if long := sum(record["information_nats"] is None for record in records):
            say(f"{baseline.name}: {long} messages are too long to be scored beside their contexts, so not measured")
        yield {"name": baseline.name, "budget_tokens": None if unlimited else budget}, records


def build_baseline(
    name: str, tokenizer: PreTrainedTokenizerBase, config: EvaluationConfig, channel: Channel
) -> Baseline:
    """A baseline by its name; sentences are embedded with the compressor's model, without its adapter.

    Raises:
        ModelError: its package is not installed.
    """
    if name == "embedding":
        compressor = config.compressor
        model, model_tokenizer = load_model(compressor.model, compressor.dtype, device(), compressor.revision)
        return Retrieval(tokenizer, name, Embedder(model, model_tokenizer).relevance)
    reader = channel.predictor.tokenizer if isinstance(channel.predictor, LocalPredictor) else None
    builders: dict[str, Callable[[], Baseline]] = {
        "no-context": lambda: NoContext(tokenizer),
        "full-context": lambda: FullContext(tokenizer, reader),
        "head": lambda: Truncation(tokenizer, "head"),
        "head-and-tail": lambda: Truncation(tokenizer, "middle"),
        "bm25": lambda: Retrieval(tokenizer, name, bm25_relevance),
        "llmlingua-2": lambda: LLMLingua2(tokenizer),
    }
    return builders[name]()


def by_baseline(baseline: Baseline, budget_tokens: int) -> Write:
    """Messages of a baseline; it is told the question whether or not the compressor is."""

    def write(samples: Sequence[Sample]) -> list[Message]:
        contexts = [sample.document.text for sample in samples]
        return baseline.write(contexts, [sample.question.text for sample in samples], budget_tokens)

    return write


def _unlimited_tokens(name: str, channel: Channel, compressor: Compressor, samples: Sequence[Sample]) -> int:
    """The budget of a baseline whose length nobody chooses: the end token alone, or what the predictor can read.

    Each part of a document gets an equal share of what the predictor can read.
    """
    if name == "no-context":
        return 1
    predictor = channel.predictor
    tokens = compressor.prompts.max_first_tokens
    if isinstance(predictor, LocalPredictor):
        tokens = default_context_tokens(predictor.model, predictor.max_answer_tokens)
    return max(1, tokens // max(len(sample.document.parts) or 1 for sample in samples))
