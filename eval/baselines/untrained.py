"""Rivals that cost no training: messages of the evaluated compressor's model without its adapter, and rules over them.

A budget cuts a message where it ends, to the token, as if it had been written under that budget: what is cut has no end
token. Each message is written once, whatever the budgets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from data.arrangement import AS_IT_IS
from data.sample import Document, Sample
from data.sentences import sentences
from eval.baselines.writers import Budget
from eval.evaluation import Evaluation, by_compressor
from eval.metering import Stopwatch
from eval.parts import parts_of
from models.channel import Channel
from models.compressor import Compressor, Effort, Message
from models.shared_prefix import sampling_seed
from objectives.mutual_information import contrastive
from objectives.negatives import Columns, NegativeCounts


class Rival(Protocol):
    """A way to make messages with an untrained model."""

    @property
    def compressor(self) -> Compressor:
        """The untrained compressor that writes."""
        ...

    def write(self, samples: Sequence[Sample], budget_tokens: int) -> list[Message]:
        """One message for each sample, none longer than the budget."""
        ...


class Untrained:
    """Messages as the model writes them, those of one sample drawn from seeds of its own.

    Attributes:
        compressor: the model, what it is told, and the most tokens it writes.
        temperature: 0 takes the most likely tokens.
    """

    def __init__(self, compressor: Compressor, temperature: float, seed: int, group_size: int = 1) -> None:
        """Write ``group_size`` messages for each sample.

        Args:
            compressor: without an adapter.
            temperature: 0 takes the most likely tokens.
            seed: seed of what is drawn, the evaluation's.
            group_size: messages for each sample.
        """
        self.compressor = compressor
        self.temperature = temperature
        self._seed = seed
        self._group_size = group_size
        self._written: dict[str, list[Message]] = {}
        self._took: dict[str, tuple[float | None, float | None]] = {}

    def write(self, samples: Sequence[Sample], budget_tokens: int) -> list[Message]:
        """The first message for each sample; see `Rival.write`."""
        return [group[0] for group in self.groups(samples, budget_tokens)]

    def groups(self, samples: Sequence[Sample], budget_tokens: int) -> list[list[Message]]:
        """All messages for each sample, none longer than the budget; the time of one is that of its sample's group.

        What a budget below the compressor's own takes is not measured: messages are written whole, and then cut.
        """
        new = [
            sample for sample in {sample.id: sample for sample in samples}.values() if sample.id not in self._written
        ]
        if new:
            with Stopwatch() as watch:
                messages = self.compressor.write(
                    [sample.document.text for sample in new],
                    [sample.compressor_question for sample in new],
                    self._group_size,
                    self.temperature,
                    [sampling_seed(self._seed, sample.id) for sample in new],
                )
            for number, sample in enumerate(new):
                self._written[sample.id] = messages[number * self._group_size : (number + 1) * self._group_size]
                self._took[sample.id] = watch.share(len(new))
        now = {sample.id for sample in new}
        return [
            [self._within(message, budget_tokens, sample.id not in now, sample) for message in self._written[sample.id]]
            for sample in samples
        ]

    def _within(self, message: Message, budget_tokens: int, kept: bool, sample: Sample) -> Message:
        """The message within a budget, and what it took; ``kept`` says that it was written in an earlier call."""
        whole = budget_tokens >= self.compressor.budget_tokens
        seconds, joules = (None, None) if not whole else self._took[sample.id] if kept else (0.0, 0.0)
        shorter = self.cut(message, budget_tokens)
        return replace(shorter, effort=Effort(message.effort.read_tokens, shorter.tokens, seconds, joules))

    def cut(self, message: Message, budget_tokens: int) -> Message:
        """The message as the budget ends it.

        Raises:
            ValueError: a budget below one token.
        """
        if budget_tokens < 1:
            raise ValueError(f"budget_tokens must be at least 1, not {budget_tokens}")
        if message.tokens <= budget_tokens:
            return message
        ids = message.token_ids[:budget_tokens]
        kept = message.log_probs[:budget_tokens]
        return replace(message, text=self.compressor.text(ids), token_ids=ids, ended=False, log_probs=kept)


class AskedFor:
    """Messages of a compressor whose prompt asks for the budget, which ends what is longer."""

    def __init__(self, compressor: Compressor, temperature: float, seed: int) -> None:
        self.compressor = compressor
        self._temperature = temperature
        self._seed = seed

    def write(self, samples: Sequence[Sample], budget_tokens: int) -> list[Message]:
        """See `Rival.write`."""
        return by_compressor(self.compressor.under(budget_tokens), self._temperature, self._seed)(samples)


class KeptSentences:
    """Some of the sentences of every message of an untrained model: a rule that costs nothing."""

    def __init__(self, untrained: Untrained, keep: Callable[[list[str]], list[str]]) -> None:
        """Keep what ``keep`` leaves of a message's sentences, such as `first` or `distinct`."""
        self._untrained = untrained
        self._keep = keep
        self._budget = Budget(untrained.compressor.tokenizer)

    @property
    def compressor(self) -> Compressor:
        """The one that writes."""
        return self._untrained.compressor

    def write(self, samples: Sequence[Sample], budget_tokens: int) -> list[Message]:
        """See `Rival.write`; a message of which nothing is left out stays as it is."""
        whole = self._untrained.write(samples, self.compressor.budget_tokens)
        return [self._untrained.cut(self._kept(message), budget_tokens) for message in whole]

    def _kept(self, message: Message) -> Message:
        written = [piece.strip() for piece in sentences(message.text) if piece.strip()]
        kept = self._keep(written)
        if kept == written:
            return message
        return self._budget.message(" ".join(kept), message.truncated_tokens, message.effort)


def first(written: list[str]) -> list[str]:
    """The first sentence alone."""
    return written[:1]


def distinct(written: list[str]) -> list[str]:
    """Every sentence where it stands first, without its repeats."""
    return list(dict.fromkeys(written))


@dataclass(frozen=True)
class BestOfN:
    """The best of several messages of an untrained model, by the parts of the reward that need no gold answer.

    A message's worth is its information as a share of the ceiling, by the first scorer, minus ``length_weight`` times
    its tokens as a share of the compressor's budget; of equals the first is taken. Whether the answer is right plays no
    part, and the negatives are made without gold answers and evidence: versions of the document without a random
    quarter stand in for counterfactual versions and twins. The same scorer chooses and then measures, which flatters
    the information reported, less so that of a second scorer.

    Attributes:
        untrained: writes several messages for each sample.
        evaluation: how messages are compared.
        pools: the documents of every task, from which negatives are drawn.
        channel: its first scorer measures.
        length_weight: what the whole budget costs, where all the information is worth 1.
    """

    untrained: Untrained
    evaluation: Evaluation
    pools: Mapping[str, Sequence[Document]]
    channel: Channel
    length_weight: float

    @property
    def compressor(self) -> Compressor:
        """The one that writes."""
        return self.untrained.compressor

    def write(self, samples: Sequence[Sample], budget_tokens: int) -> list[Message]:
        """See `Rival.write`; messages are cut to the budget first, and then compared."""
        groups = self.untrained.groups(samples, budget_tokens)
        size = len(groups[0])
        columns = self._columns(samples)
        own, valid = columns.own.repeat_interleave(size), columns.valid.repeat_interleave(size, dim=0)
        messages = [message for group in groups for message in group]
        repeated = [sample for sample in samples for _ in range(size)]
        scores = self.channel.score(repeated, messages, columns.contexts, valid)
        bound = contrastive(scores.log_probs, own, valid)
        assert bound.ceiling is not None
        worths = [
            self.worth(message, nats, ceiling)
            for message, nats, ceiling in zip(messages, bound.terms.tolist(), bound.ceiling.tolist(), strict=True)
        ]
        best = [max(range(start, start + size), key=worths.__getitem__) for start in range(0, len(messages), size)]
        # Nobody counts the tokens that the scorer reads to choose.
        return [_uncounted(messages[index]) for index in best]

    def worth(self, message: Message, information: float, ceiling: float) -> float:
        """What a message is worth.

        Args:
            message: the message.
            information: its lower bound, nats; a missing one is worth less than any other.
            ceiling: the most that the bound can show, nats.
        """
        if not math.isfinite(information):
            return -math.inf
        return information / ceiling - self.length_weight * message.tokens / self.compressor.budget_tokens

    def _columns(self, samples: Sequence[Sample]) -> Columns:
        """As many contexts as the evaluation compares with, none of them made with a gold answer or its evidence."""
        counts = self.evaluation.negatives
        removed = counts.counterfactual + counts.same_document + counts.twins
        blind = replace(
            self.evaluation,
            negatives=NegativeCounts(same_document=removed, neighbour=counts.neighbour, batch=counts.batch),
            arrangement=AS_IT_IS,
        )
        asked = [
            replace(sample, question=replace(sample.question, negatives=(), evidence=(), answers=("",)))
            for sample in samples
        ]
        return blind.columns(asked, parts_of(self.pools[samples[0].document.task]))


def _uncounted(message: Message) -> Message:
    return replace(message, effort=replace(message.effort, read_tokens=None, written_tokens=None))
