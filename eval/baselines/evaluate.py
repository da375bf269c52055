"""Baselines as a configuration names them, measured like any compressor."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from configs.build import device
from configs.command import say
from data.sample import Sample
from eval.baselines.minilm import load_minilm
from eval.baselines.retrieval import Embedder, Retrieval, bm25_relevance
from eval.baselines.untrained import AskedFor, BestOfN, KeptSentences, Rival, Untrained, distinct, first
from eval.baselines.writers import Baseline, FullContext, LLMLingua2, NoContext, Truncation
from eval.config import ASKED, BUDGETS, CUT, WITHOUT_BUDGET, WRITTEN, BaselineConfig, EvaluationConfig
from eval.evaluation import Write, documents_by_task
from eval.parts import Pieces
from eval.record import Origin, Record
from eval.record_log import RecordLog
from eval.stages import MEASURED, build_compressor, evaluation_of, origin_of
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


@dataclass(frozen=True)
class Setting:
    """What every baseline of an evaluation is measured with.

    Attributes:
        config: the evaluation.
        samples: every sample of it.
        compressor: the compressor that is measured; budgets count its tokens.
        channel: answers from the messages and scores them.
        log: holds the batches that are done.
        trained_tokens: the mean length of the compressor's messages, of a part where documents are in parts.
    """

    config: EvaluationConfig
    samples: Sequence[Sample]
    compressor: Compressor
    channel: Channel
    log: RecordLog[Record]
    trained_tokens: int

    @cached_property
    def model(self) -> Compressor:
        """The compressor without its adapter, told the same."""
        untrained = self.config.compressor.model_copy(update={"adapter": None, "sentences": None})
        return build_compressor(untrained, self.compressor.instruction)

    @cached_property
    def _written(self) -> dict[tuple[str, float, int], Untrained]:
        return {}

    def untrained(self, more: str = "", temperature: float = 0.0, group_size: int = 1) -> Untrained:
        """The untrained compressor told ``more``; messages that several baselines are made of are written once."""
        key = (more, temperature, group_size)
        if key not in self._written:
            plain = self.model
            told = Compressor(
                plain.model,
                plain.tokenizer,
                plain.budget_tokens,
                plain.max_context_tokens,
                f"{plain.instruction} {more}".strip(),
            )
            self._written[key] = Untrained(told, temperature, self.config.seed, group_size)
        return self._written[key]


def mean_tokens(samples: Sequence[Sample], records: Sequence[Record]) -> int:
    """The mean length of the measured compressor's messages, each of a part where documents are in parts; tokens."""
    written = [record["message_tokens"] for record in records if record["stage"] == MEASURED]
    return max(1, round(sum(written) / len(Pieces.of(samples).samples)))


def evaluate_baseline(setting: Setting, baseline: BaselineConfig) -> Iterator[tuple[BaselinePoint, list[Record]]]:
    """The records of a baseline at each of its budgets, with what it is called."""
    if baseline.name in WRITTEN:
        rival = build_rival(setting, baseline)
        yield from _evaluate_rival(setting, baseline, rival)
        return
    config, samples, channel = setting.config, setting.samples, setting.channel
    writer = build_baseline(baseline.name, setting.compressor.tokenizer, config, channel)
    unlimited = baseline.name in WITHOUT_BUDGET
    if unlimited:
        budgets = [_unlimited_tokens(baseline.name, channel, setting.compressor, samples)]
    else:
        budgets = budgets_of(setting, baseline)
    for budget in budgets:
        origin: Origin = {"stage": f"{baseline.name} {budget}", "temperature": None, "budget_tokens": budget}
        records = _measured(setting, by_baseline(writer, budget), origin, baseline)
        yield {"name": baseline.title, "budget_tokens": None if unlimited else budget}, records


def _evaluate_rival(
    setting: Setting, baseline: BaselineConfig, rival: Rival
) -> Iterator[tuple[BaselinePoint, list[Record]]]:
    rule = baseline.name
    if isinstance(rival, BestOfN):
        rule = f"{rule} {baseline.samples} {baseline.length_weight}"
    for budget in budgets_of(setting, baseline):
        origin = origin_of(f"{rule} {budget}", _temperature(setting.config, baseline), rival.compressor)

        def write(samples: Sequence[Sample], budget: int = budget) -> list[Message]:
            return rival.write(samples, budget)

        records = _measured(setting, write, {**origin, "budget_tokens": budget}, baseline)
        yield {"name": baseline.title, "budget_tokens": budget}, records


def _measured(setting: Setting, write: Write, origin: Origin, baseline: BaselineConfig) -> list[Record]:
    evaluation = replace(evaluation_of(setting.config), skip_long_messages=True, costs=True)
    if not baseline.information:
        evaluation = replace(evaluation, information_questions=0)
    records = evaluation.run(setting.samples, write, setting.channel, origin, setting.log)
    measured = evaluation.measured(setting.samples)
    if long := sum(record["information_nats"] is None for record in records if record["id"] in measured):
        say(f"{baseline.title}: {long} messages are too long to be scored beside their contexts, so not measured")
    return records


def budgets_of(setting: Setting, baseline: BaselineConfig) -> list[int]:
    """The budgets of a baseline, tokens, each once, in the order given."""
    named = {"trained": setting.trained_tokens, "compressor": setting.compressor.budget_tokens}
    default = ("compressor",) if baseline.name in WRITTEN else BUDGETS
    asked = baseline.budgets or (setting.compressor.asked_budgets if baseline.name == ASKED else default)
    return list(dict.fromkeys(budget if isinstance(budget, int) else named[budget] for budget in asked))


def _temperature(config: EvaluationConfig, baseline: BaselineConfig) -> float:
    greedy = baseline.decoding == "greedy" and baseline.name != "best-of-n"
    return 0.0 if greedy else config.eval.temperature or 1.0


def build_rival(setting: Setting, baseline: BaselineConfig) -> Rival:
    """A rival that a model writes, by its name: the untrained one, or of the cut messages the compressor.

    Raises:
        ModelError: the compressor's model cannot be loaded.
    """
    temperature = _temperature(setting.config, baseline)
    if baseline.name == CUT:
        return Untrained(setting.compressor, temperature, setting.config.seed)
    if baseline.name == ASKED:
        return AskedFor(setting.compressor, temperature, setting.config.seed)
    if baseline.name == "best-of-n":
        return BestOfN(
            setting.untrained(temperature=temperature, group_size=baseline.samples),
            evaluation_of(setting.config),
            documents_by_task(setting.samples),
            setting.channel,
            baseline.length_weight,
        )
    untrained = setting.untrained(baseline.instruction if baseline.name == "untrained-brief" else "", temperature)
    rules = {"first-sentence": first, "repeat-free": distinct}
    return KeptSentences(untrained, rules[baseline.name]) if baseline.name in rules else untrained


def build_baseline(
    name: str, tokenizer: PreTrainedTokenizerBase, config: EvaluationConfig, channel: Channel
) -> Baseline:
    """A baseline by its name; sentences are embedded with the compressor's model, without its adapter, or by MiniLM.

    Raises:
        ModelError: its package is not installed, or is not the published one.
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
        "minilm": lambda: Retrieval(tokenizer, name, load_minilm(device()).relevance),
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
