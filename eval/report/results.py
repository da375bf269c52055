"""The shape of ``results.json``, as far as the report reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from data.errors import DataError
from eval.diagnostics import DiagnosticFigure

FigureName = Literal[
    "accuracy",
    "message_tokens",
    "bits_per_token",
    "information_bits",
    "information_ceiling_bits",
    "task_information_bits",
    "information_upper_bits",
    "second_information_bits",
    "perplexity",
    "saturated_share",
]
"""The figures of one stage; `eval.analysis.density` defines them."""

Stage = Literal["before", "after"]
"""Before training: the compressor's model without its adapter, or the adapter that reinforcement learning started from.
After: the adapter it left."""


class Figure(TypedDict):
    """A value with the ends of its 95% interval; None where nothing was measured, or where an end is open."""

    value: float | None
    low: float | None
    high: float | None
    method: NotRequired[str]
    """How the interval was made, where it is not by the bootstrap: see `eval.analysis.significance.Method`."""


class StageFigures(TypedDict):
    """The figures of one stage; results of an older version may lack some of them."""

    accuracy: Figure
    message_tokens: Figure
    bits_per_token: Figure
    information_bits: Figure
    information_ceiling_bits: NotRequired[Figure]
    """The most that ``information_bits`` could be; absent from results of an older version."""
    task_information_bits: Figure
    information_upper_bits: Figure
    second_information_bits: Figure
    perplexity: Figure
    saturated_share: Figure
    n: int
    """Records."""
    documents: int
    missing: int
    """Records without some score that others of their stage have."""


class Stages(TypedDict):
    """The figures before and after training; ``n`` is 0 at a stage that was not evaluated."""

    before: StageFigures
    after: StageFigures


class Changes(TypedDict):
    """What changed over the questions scored at both stages."""

    accuracy: Figure
    """After - before, as a share."""
    accuracy_ratio: NotRequired[Figure]
    """After / before; absent from results of an older version."""
    message_tokens_ratio: Figure
    """Before / after."""
    information_bits: NotRequired[Figure]
    """After - before, bits; absent from results of an older version."""
    information_ratio: NotRequired[Figure]
    """After / before; absent from results of an older version."""
    bits_per_token_ratio: Figure
    """After / before."""


class Summary(TypedDict):
    """What `eval.analysis.density.summarise` makes of one set of records."""

    overall: Stages
    tasks: dict[str, Stages]
    kinds: NotRequired[dict[str, dict[str, Stages]]]
    """By task and kind of question, for every task that has several kinds."""
    change: Changes


class BaselineFigures(TypedDict):
    """The messages of one baseline at one budget; any other figure of ``StageFigures`` may stand beside these."""

    name: str
    budget_tokens: NotRequired[int | None]
    accuracy: Figure
    message_tokens: Figure


class LeadEntry(TypedDict):
    """How far the compressor's accuracy lies above a baseline's line where both are, as `eval.analysis.curves.lead`."""

    name: str
    """The baseline."""
    accuracy: Figure
    from_tokens: float
    to_tokens: float


class CorrelationEntry(TypedDict):
    """How two figures of the same questions move together."""

    x: str
    y: str
    method: str
    coefficient: Figure
    over: str
    """What the points are, such as "samples"."""
    n: int
    """Points."""
    missing: int
    """Records left out for want of a score."""


class CostEntry(TypedDict):
    """What one model spends on an answer, as a mean over questions: tokens, floating-point operations, seconds."""

    name: str
    prompt_tokens: NotRequired[float | None]
    generated_tokens: NotRequired[float | None]
    prefill_flops: NotRequired[float | None]
    generation_flops: NotRequired[float | None]
    flops_per_generated_token: NotRequired[float | None]
    prefill_seconds: NotRequired[float | None]


class ModelCosts(TypedDict):
    """What one model costs, or both together; None where nobody measured or counted it."""

    seconds: float | None
    joules: float | None
    flops: float | None
    dollars: float | None
    tokens_read: NotRequired[float | None]
    """Absent of both together, as is ``tokens_written``."""
    tokens_written: NotRequired[float | None]


class CostRow(TypedDict):
    """What the questions of one stage, decoding or baseline cost: see `eval.costs.cost_row`."""

    name: str
    budget_tokens: NotRequired[int | None]
    n: int
    """Questions."""
    correct: float | None
    """The sum of their accuracies; None where none has one."""
    per_question: dict[str, ModelCosts]
    """Means, of ``compressor``, ``predictor`` and ``total``."""
    per_correct: dict[str, ModelCosts]
    """The same for each correct answer."""
    missing: dict[str, dict[str, int]]
    """Questions that a mean leaves out because nobody measured them, by model and figure."""


class SentenceEntry(TypedDict):
    """How far messages keep to a number of sentences, as `eval.analysis.sentences.obedience` counts them."""

    name: str
    asked: int
    """Sentences asked for."""
    obeyed: Figure
    """Share of messages with exactly as many."""
    sentences: Figure
    """Sentences written, a message."""
    n: int
    """Messages."""


class ReaderFigures(TypedDict):
    """What another reader makes of the messages of one stage, as `eval.readers.portability`."""

    accuracy: Figure
    portability: Figure
    """Its accuracy over that of the evaluation's predictor."""
    n: int
    """Questions."""


class ReaderEntry(TypedDict):
    """Another reader of the same messages."""

    name: str
    model: str
    before: NotRequired[ReaderFigures]
    after: ReaderFigures


class Results(Summary):
    """The contents of ``results.json``."""

    greedy: NotRequired[Summary]
    """The same questions with the most likely message instead of a sampled one."""
    temperature: NotRequired[float]
    """The temperature of the messages that the other figures are of; absent from results of an older version."""
    baselines: NotRequired[list[BaselineFigures]]
    leads: NotRequired[list[LeadEntry]]
    """Of the compressor over the baselines whose lines reach its length."""
    correlations: NotRequired[list[CorrelationEntry]]
    flops: NotRequired[list[CostEntry]]
    costs: NotRequired[list[CostRow]]
    """What a question costs; absent from results of an older version and of a training."""
    sentences: NotRequired[list[SentenceEntry]]
    readers: NotRequired[list[ReaderEntry]]
    """Predictors that took no part in training, where the evaluation was asked for them."""
    diagnostics: NotRequired[dict[str, dict[str, DiagnosticFigure]]]
    """Further estimators of information by stage, where the evaluation was asked for them."""
    meta: NotRequired[dict[str, Any]]
    """How the figures were made: configuration, versions, hashes; and ``start``, what a run started from, where that
    was not the model itself."""


@dataclass(frozen=True)
class Decoding:
    """One way of choosing the tokens of messages, and the figures of these messages.

    Attributes:
        name: ``greedy``, ``sampled``, or empty where results of an older version do not say.
        title: its messages in words, as the subject of a sentence.
        summary: the figures.
    """

    name: str
    title: str
    summary: Summary


def decodings(results: Results) -> list[Decoding]:
    """Greedy messages first, for a compressor that is used takes the most likely tokens; then the sampled ones."""
    if "greedy" in results:
        greedy = Decoding("greedy", "Greedy messages", results["greedy"])
        return [greedy, Decoding("sampled", "Sampled messages", results)]
    temperature = results.get("temperature")
    if temperature is None:
        return [Decoding("", "Messages", results)]
    return [
        Decoding("sampled" if temperature else "greedy", f"{'Sampled' if temperature else 'Greedy'} messages", results)
    ]


def check_entries(part: str, entries: Sequence[Mapping[str, Any]], shape: Any) -> None:
    """Refuse an entry of ``results.json`` that lacks what the report shows of it.

    Args:
        part: the key under which the entries stand.
        entries: the entries.
        shape: their type, a TypedDict.

    Raises:
        DataError: an entry lacks one of the required keys of ``shape``.
    """
    required = [key for key in shape.__annotations__ if key in shape.__required_keys__]
    for index, entry in enumerate(entries):
        for key in required:
            if key not in entry:
                raise DataError(f"results.json: {part}[{index}] has no {key!r}")
