"""What an answered question costs: time, tokens, operations, dollars and energy, of the compressor and the predictor.

Every figure is a mean over the questions where it was measured; how many it leaves out stands beside it. Per correct
answer it is the sum over those questions that also have an accuracy, divided by the sum of that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from peft import PeftModel
from transformers import PreTrainedModel

from configs.command import say
from configs.servers import Price
from data.sample import Sample
from eval.analysis.flops import DecoderSize, cost, decoder_size
from eval.parts import Pieces
from eval.record import Record, Spent
from eval.report.results import CostEntry, CostRow, ModelCosts
from models.compressor import Compressor
from models.fingerprint import is_base
from models.predictor import LocalPredictor, Predictor

Model = Literal["compressor", "predictor"]
MODELS: tuple[Model, ...] = ("compressor", "predictor")

MEASURED_FIGURES = ("seconds", "joules", "tokens_read", "tokens_written")
"""The figures of a record, as `eval.record.Spent` names them; dollars and operations follow from the tokens."""

ADDED = ("seconds", "joules", "flops", "dollars")
"""Figures that add up over both models; tokens do not, for each has a vocabulary of its own."""

Values = list[float | None]
"""A figure of each question of a row; None where it was not measured."""


@dataclass(frozen=True)
class Prices:
    """What tokens cost; None is no price.

    Attributes:
        compressor: of the compressor and of what stands in its place; without it they are free.
        predictor: of the predictor; without it an answer has no price.
    """

    compressor: Price | None = None
    predictor: Price | None = None

    def of(self, model: Model, spent: Spent | None) -> float | None:
        """What one question costs of a model, dollars; None where it has no price or its tokens are not known."""
        price = self.compressor if model == "compressor" else self.predictor
        if price is None:
            return 0.0 if model == "compressor" and self.predictor is not None else None
        if spent is None or spent["tokens_read"] is None or spent["tokens_written"] is None:
            return None
        return price.dollars(spent["tokens_read"], spent["tokens_written"])


def size_of(model: PreTrainedModel | PeftModel, whose: str) -> DecoderSize | None:
    """The size of a model without its adapters; None where it cannot be told, which is said.

    Args:
        model: any, adapters and all.
        whose: whose operations are not counted then, in words.
    """
    parameters = sum(p.numel() for name, p in model.named_parameters() if is_base(name, p))
    try:
        return decoder_size(model.config, parameters)
    except ValueError as error:
        say(f"operations are not counted, {whose}: {error}")
        return None


def predictor_size(predictor: Predictor) -> DecoderSize | None:
    """The size of a predictor in this process; None of one on a server, whose operations nobody can count."""
    return size_of(predictor.model, "predictor") if isinstance(predictor, LocalPredictor) else None


def message_flops(
    name: str, size: DecoderSize, samples: Sequence[Sample], compressor: Compressor, message_tokens: int
) -> CostEntry:
    """What a message costs, on average, FLOPs; a document in parts is as many prompts and replies.

    Args:
        name: what the entry is called.
        size: the compressor's.
        samples: the questions.
        compressor: says what is read for them.
        message_tokens: the tokens of all their messages.
    """
    pieces = Pieces.of(samples).samples
    prompts = (compressor.prompt(piece.document.text, piece.compressor_question) for piece in pieces)
    prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
    mean = cost(size, round(prompt_tokens / len(pieces)), max(1, round(message_tokens / len(pieces))))
    return {
        "name": name,
        "prompt_tokens": prompt_tokens / len(samples),
        "generated_tokens": message_tokens / len(samples),
        "prefill_flops": mean.prefill * len(pieces) / len(samples),
        "generation_flops": mean.generation * len(pieces) / len(samples),
        "flops_per_generated_token": mean.per_token,
    }


def all_flops(entry: CostEntry | None) -> float | None:
    """Operations of reading and writing together; None where they are not counted."""
    if entry is None:
        return None
    prefill, generation = entry.get("prefill_flops"), entry.get("generation_flops")
    return None if prefill is None or generation is None else prefill + generation


def flops_of_tokens(
    size: DecoderSize | None, records: Sequence[Record], model: Model, exchanges: float = 1.0
) -> float | None:
    """Operations of a question by the tokens that records tell, at their means; None where nobody counted them.

    Args:
        size: the model's; None where it is not known.
        records: of one row.
        model: whose operations.
        exchanges: prompts, each with a reply, that a question takes.
    """
    spent = [_spent(record, model) for record in records]
    read, written = (mean([one and one[key] for one in spent]) for key in ("tokens_read", "tokens_written"))
    if read is None or written is None:
        return None
    if not read and not written:
        return 0.0
    if size is None:
        return None
    each = cost(size, max(1, round(read / exchanges)), max(1, round(written / exchanges)))
    return (each.prefill + each.generation) * exchanges


def cost_row(
    name: str,
    budget_tokens: int | None,
    records: Sequence[Record],
    flops: Mapping[Model, float | None],
    prices: Prices,
) -> CostRow:
    """What a question costs, on average, and a correct answer.

    Args:
        name: what the row is called.
        budget_tokens: of a baseline that has one.
        records: of one stage, decoding or baseline.
        flops: operations of a question, by model; None where they cannot be counted.
        prices: what tokens cost.
    """
    values: dict[str, dict[str, Values]] = {model: _values(records, model, flops[model], prices) for model in MODELS}
    values["total"] = {figure: _added(*(values[model][figure] for model in MODELS)) for figure in ADDED}
    if prices.compressor is None:
        # What is free has no price to show.
        values["compressor"]["dollars"] = [None] * len(records)
    accuracies = [record["accuracy"] for record in records]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    correct = sum(known) if known else None
    row = {
        "name": name,
        "budget_tokens": budget_tokens,
        "n": len(records),
        "correct": correct,
        "per_question": _by_figure(values, mean),
        "per_correct": _by_figure(values, lambda figure: per_correct(figure, accuracies)),
        "missing": {
            model: {figure: values[model][figure].count(None) for figure in MEASURED_FIGURES} for model in MODELS
        },
    }
    return cast(CostRow, row)


def mean(values: Values) -> float | None:
    """The mean of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def per_correct(values: Values, accuracies: Values) -> float | None:
    """What a correct answer costs: the sum of what was measured over the sum of the accuracies of the same questions.

    None where no question has both, or no answer is right.
    """
    pairs = [
        (value, accuracy)
        for value, accuracy in zip(values, accuracies, strict=True)
        if value is not None and accuracy is not None
    ]
    right = sum(accuracy for _, accuracy in pairs)
    return sum(value for value, _ in pairs) / right if right > 0 else None


def _spent(record: Record, model: Model) -> Spent | None:
    return record.get("compressor_spent") if model == "compressor" else record.get("predictor_spent")


def _values(records: Sequence[Record], model: Model, flops: float | None, prices: Prices) -> dict[str, Values]:
    spent = [_spent(record, model) for record in records]
    figures: dict[str, Values] = {key: [one and one[key] for one in spent] for key in MEASURED_FIGURES}
    return figures | {"flops": [flops] * len(spent), "dollars": [prices.of(model, one) for one in spent]}


def _added(first: Values, second: Values) -> Values:
    return [None if None in pair else sum(cast(tuple[float, float], pair)) for pair in zip(first, second, strict=True)]


def _by_figure(values: Mapping[str, Mapping[str, Values]], made: Any) -> dict[str, ModelCosts]:
    return {
        model: cast(ModelCosts, {figure: made(of_figure) for figure, of_figure in figures.items()})
        for model, figures in values.items()
    }
