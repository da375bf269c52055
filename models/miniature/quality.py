"""Measures a member of the miniature family in both its roles, on documents that training and evaluation never draw.

Names, pairs of key and number, and part of the wordings belong to the test split alone. Every figure comes with the
95% interval of a percentile bootstrap over whole documents, because questions of one document are not independent; the
evaluation's own intervals (`eval.analysis.significance`) are bias-corrected ones, which differ in the last digits.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.miniature.documents import (
    DEFAULT_FILLER,
    NOT_STATED,
    QUALIFIERS,
    SHAPES,
    Fact,
    Layout,
    absent_keys,
    ask,
    ask_absent,
    make_layout,
)
from data.miniature.papers import PAPERS
from data.miniature.shape import Shape
from data.sample import Question
from models.compressor import Compressor, Message
from models.miniature.corpus import OPENERS, STYLES, absent_key, restate
from models.predictor import LocalPredictor, Query
from models.shared_prefix import generate
from objectives.accuracy import score

FIRST_SEED = 1 << 41
"""The first seed of documents to measure members on: training draws below 2**40, evaluation counts from 0."""

FACT_COUNTS = (4, 8, 12, 16, 20, 24)
"""Facts a document for which lookup is measured, up to those of the other measurements."""

FACTS = FACT_COUNTS[-1]
"""Facts a document in the measurements of messages and answers."""

QUALIFIED_LOOKUP = f"lookup of shared keys/{FACTS}"
"""The measure of lookup among facts that share their keys."""

MOST_OTHER_FACTS = 8
"""The most facts that stand beside the needed one in a message whose answers are measured."""

MAX_MESSAGE_TOKENS = 192
"""The budget of a message: half as much again as the longest of the corpus (128 tokens), so that none is cut off."""

MAX_ANSWER_TOKENS = 32
"""The limit of an answer: twice the longest of the corpus (15 tokens)."""

MAX_VALUE_TOKENS = 6
"""Tokens generated to read a value, which has at most four."""

RESAMPLES = 2000
"""Resamples of an interval: with this many, its ends vary by about a fiftieth of its width between two draws."""

UNANSWERABLE_QUESTIONS = 0.1
"""The share of questions about papers that ask for what the paper does not state."""

ALL = "all"
"""The group of every observation."""


@dataclass(frozen=True)
class HeldOutCase:
    """One question about one held-out document, with what only the generator knows about it.

    Attributes:
        document: the document's id, the cluster of every interval.
        layout: what the document is rendered from.
        question: the question and its gold answer.
        key: what is asked about.
        needed: the sentence by which a message answers the question.
        fact: the fact asked for; None where the document does not state it.
    """

    document: str
    layout: Layout
    question: Question
    key: str
    needed: str
    fact: Fact | None

    @property
    def value_type(self) -> str:
        """The type of the value asked for, or ``unanswerable``."""
        return self.fact.relation.value if self.fact else "unanswerable"

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in which an observation of this case counts."""
        groups = (ALL, self.layout.shape.name, self.value_type)
        if self.fact is None:
            return groups
        held_out = self.fact.template == self.fact.relation.document[-1]
        return (*groups, "held-out wording" if held_out else "known wording")

    @property
    def chance(self) -> float:
        """The chance of a right answer without the fact when every value is equally likely; about 0 for a name."""
        if self.question.options:
            return 1 / len(self.question.options)
        return {"yes_no": 1 / 2, "number": 1 / 90}.get(self.value_type, 0.0)


class Observation(NamedTuple):
    """One measured value, the document it comes from and the groups it counts in."""

    measure: str
    value: float
    document: str
    groups: tuple[str, ...]


class Claim(NamedTuple):
    """What one sentence of a message says; ``value`` is None where it says that the key is not stated."""

    key: str
    value: str | None


@dataclass(frozen=True)
class MeasuredMean:
    """A mean with its 95% interval, from ``n`` observations in ``documents`` documents."""

    value: float
    low: float
    high: float
    n: int
    documents: int


Quality = dict[str, dict[str, MeasuredMean]]
"""Means by measure, then by group: all, a shape, a type of value, a kind of wording."""


def draw_cases(
    documents: int,
    questions: int,
    facts: int = FACTS,
    seed: int = 0,
    shapes: Sequence[str] = tuple(SHAPES),
    twins: int = 0,
    sharing: int = 1,
) -> list[HeldOutCase]:
    """Questions about held-out documents; one in ten about a paper has no answer.

    Args:
        documents: how many documents of each shape.
        questions: how many questions about each document.
        facts: how many facts a document states.
        seed: changes the whole draw; below a million.
        shapes: keys of ``SHAPES``.
        twins: versions of each document with another answer to the question.
        sharing: facts about the same key (`data.miniature.documents.make_layout`).
    """
    first = FIRST_SEED + seed * 1_000_000
    return [
        case
        for name in shapes
        for index in range(first, first + documents)
        for case in _document_cases(SHAPES[name], index, questions, facts, twins, sharing)
    ]


def _document_cases(shape: Shape, seed: int, questions: int, facts: int, twins: int, sharing: int) -> list[HeldOutCase]:
    """The questions about one document."""
    layout, values = make_layout(shape, seed, "test", facts, DEFAULT_FILLER, sharing)
    generator = values.generator
    document = f"{shape.name}/{facts}/{seed}"
    cases = []
    for index in generator.sample(range(len(layout.facts)), min(questions, len(layout.facts))):
        if shape is PAPERS and generator.random() < UNANSWERABLE_QUESTIONS and absent_keys(layout):
            question = ask_absent(layout, generator, values.fork(), twins)
            key = absent_key(question)
            cases.append(HeldOutCase(document, layout, question, key, NOT_STATED.format(k=key), None))
        else:
            fact = layout.facts[index]
            question = ask(layout, index, values.fork(), generator, twins)
            cases.append(HeldOutCase(document, layout, question, fact.key, fact.statement, fact))
    return cases


def measure_member(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: int = 30, questions: int = 4, seed: int = 0
) -> Quality:
    """Every figure of a member's card.

    Args:
        model: the member, in evaluation mode.
        tokenizer: the member's tokenizer.
        documents: how many documents of each shape; for the lookup curve, of each shape and number of facts.
        questions: how many questions about each document.
        seed: changes the documents and all that is sampled.
    """
    cases = draw_cases(documents, questions, seed=seed)
    predictor = LocalPredictor(model, tokenizer, MAX_ANSWER_TOKENS)
    compressor = Compressor(model, tokenizer, MAX_MESSAGE_TOKENS)
    observations = predictor_observations(predictor, cases, seed)
    for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        observations += compressor_observations(compressor, predictor, cases, mode, temperature, seed)
    for facts in FACT_COUNTS:
        shorter = draw_cases(documents, questions, facts, seed)
        observations += lookup_observations(compressor, shorter, f"lookup/{facts}")
    return summarise(observations)


def predictor_observations(predictor: LocalPredictor, cases: Sequence[HeldOutCase], seed: int) -> list[Observation]:
    """Answers from messages that hold the needed statement among one to eight others, and from the others alone."""
    generator = random.Random(f"quality/messages/{seed}")
    message_pairs = [_message_pair(case, generator) for case in cases]
    observations = [Observation("chance", case.chance, case.document, case.groups) for case in cases]
    for condition, messages in zip(("with_fact", "without_fact"), zip(*message_pairs, strict=True), strict=True):
        answers = predictor.answer([query(case, text) for case, text in zip(cases, messages, strict=True)])
        for case, answer in zip(cases, answers, strict=True):
            observations.append(scored(f"accuracy_{condition}", case, answer, case.question.metric))
            observations.append(scored(f"exact_{condition}", case, answer, "exact"))
    return observations


def _message_pair(case: HeldOutCase, generator: random.Random) -> tuple[str, str]:
    """A message that holds the needed statement among others, and the same message without it."""
    others = [fact.statement for fact in case.layout.facts if fact.key != case.key]
    chosen = generator.sample(others, generator.randint(1, min(MOST_OTHER_FACTS, len(others))))
    position = generator.randrange(len(chosen) + 1)
    state = generator.getstate()
    with_fact = restate([*chosen[:position], case.needed, *chosen[position:]], generator)
    # Both messages in the same style: the needed statement is the only difference.
    generator.setstate(state)
    return with_fact, restate(chosen, generator)


def query(case: HeldOutCase, message: str) -> Query:
    """A case's question, to be answered from a message."""
    return Query(message, case.question.text, case.question.options)


def scored(name: str, case: HeldOutCase, answer: str, metric: str) -> Observation:
    """How right an answer to a case's question is, in [0, 1]."""
    return Observation(name, score(metric, answer, case.question.answers), case.document, case.groups)


def compressor_observations(
    compressor: Compressor,
    predictor: LocalPredictor,
    cases: Sequence[HeldOutCase],
    mode: str,
    temperature: float,
    seed: int,
) -> list[Observation]:
    """What the compressor's messages hold, whether it is true, their length, and what can be answered from them.

    Args:
        compressor: writes one message for each case.
        predictor: answers from it.
        cases: questions about documents.
        mode: the prefix of the measures' names.
        temperature: temperature of sampling; 0 takes the most likely message.
        seed: changes what is sampled.
    """
    contexts = [case.layout.render() for case in cases]
    seeds = list(range(seed * 1_000_000, seed * 1_000_000 + len(cases)))
    messages = compressor.write(contexts, [case.question.text for case in cases], 1, temperature, seeds)
    answers = predictor.answer([query(case, message.text) for case, message in zip(cases, messages, strict=True)])
    observations = []
    for case, message, answer in zip(cases, messages, answers, strict=True):
        observations += message_observations(mode, case, message)
        observations.append(scored(f"{mode}/accuracy", case, answer, case.question.metric))
    return observations


def message_observations(mode: str, case: HeldOutCase, message: Message) -> list[Observation]:
    """What one message holds, measured against its document; ``honest`` is observed once for every claim."""
    claims, rest = read_claims(case.layout.shape.name, message.text)
    truth = {fact.key: fact.value for fact in case.layout.facts}
    true = [truth.get(claim.key) == claim.value for claim in claims]
    about_key = [right for claim, right in zip(claims, true, strict=True) if claim.key == case.key]
    measured = {
        "kept": float(bool(about_key) and all(about_key)),
        "contradicted": float(bool(about_key) and not all(about_key)),
        "message_tokens": float(message.tokens),
        "facts": float(len(claims)),
        "malformed": float(bool(rest) or not message.ended),
    }
    values = [*measured.items(), *(("honest", float(right)) for right in true)]
    return [Observation(f"{mode}/{name}", value, case.document, case.groups) for name, value in values]


@cache
def _claim_patterns(shape: str) -> tuple[re.Pattern[str], ...]:
    """Patterns of all sentences that a message about a shape may hold."""
    keys: dict[str, list[str]] = defaultdict(list)
    for relation in SHAPES[shape].relations:
        keys[relation.statement] += relation.keys
        keys[NOT_STATED] += relation.keys
    patterns = []
    for statement, names in keys.items():
        key = f"(?P<key>(?:(?:{'|'.join(QUALIFIERS)}) )?(?:{'|'.join(names)}))"
        pattern = re.escape(statement).replace(r"\{k\}", key)
        patterns.append(re.compile(pattern.replace(r"\{v\}", r"(?P<value>[^\s.]+)")))
    return tuple(patterns)


def read_claims(shape: str, message: str) -> tuple[list[Claim], str]:
    """What a message claims in the sentences of its shape, and the rest of its text without openers and styles."""
    claims = []
    for pattern in _claim_patterns(shape):
        claims += [Claim(match["key"], match.groupdict().get("value")) for match in pattern.finditer(message)]
        message = pattern.sub("", message)
    for phrase in {*OPENERS, *(style.replace("{s}", "") for style in STYLES)}:
        message = message.replace(phrase.strip(), "") if phrase.strip() else message
    return claims, message.strip()


def lookup_observations(compressor: Compressor, cases: Sequence[HeldOutCase], name: str) -> list[Observation]:
    """Whether the value follows when a message opens with the statement about the asked key, by greedy decoding.

    Yes/no facts, of which half are right by chance, and questions without an answer are left out. The observations are
    of the measure ``name``.
    """
    stated = [(case, case.fact) for case in cases if case.fact and case.fact.relation.value != "yes_no"]
    openings = [fact.relation.statement.format(k=fact.key, v="\n").split("\n")[0].rstrip() for _, fact in stated]
    prompts = [
        compressor.prompt(case.layout.render(), case.question.text).ids + compressor.prompts.format.text_ids(opening)
        for (case, _), opening in zip(stated, openings, strict=True)
    ]
    replies = generate(compressor.model, prompts, MAX_VALUE_TOKENS, compressor.end_token_id)
    observations = []
    for (case, fact), reply in zip(stated, replies, strict=True):
        word = re.match(r"\w*", compressor.text(reply.token_ids))
        right = word is not None and word[0] == fact.value
        observations.append(Observation(name, float(right), case.document, case.groups))
    return observations


def summarise(observations: Iterable[Observation]) -> Quality:
    """The mean of every measure in every group, with its interval."""
    gathered: dict[str, dict[str, list[Observation]]] = defaultdict(lambda: defaultdict(list))
    for observation in observations:
        for group in observation.groups:
            gathered[observation.measure][group].append(observation)
    return {
        measure: {group: _mean_of(measure, members) for group, members in groups.items()}
        for measure, groups in gathered.items()
    }


def _mean_of(measure: str, observations: list[Observation]) -> MeasuredMean:
    """The mean of observations of one measure in one group."""
    values = np.array([observation.value for observation in observations])
    return mean_with_interval(values, [observation.document for observation in observations], is_share(measure))


def is_share(measure: str) -> bool:
    """Whether a measure lies in [0, 1]; the others count facts or tokens."""
    return measure.rpartition("/")[2] not in ("facts", "message_tokens")


def mean_with_interval(
    values: Float[np.ndarray, " observations"], documents: Sequence[str], share: bool
) -> MeasuredMean:
    """The mean and its 95% interval, a percentile bootstrap over whole documents with a fixed seed.

    A resample is a multinomial count of each document, so that one product gives the means of all of them. Other draws,
    those of ``scipy.stats.bootstrap`` among them, would move the figures of the shipped cards in the last digit.

    Args:
        values: one value an observation.
        documents: the document that each observation comes from.
        share: whether values lie in [0, 1]. Where all are 0 or all are 1 there is nothing to resample, and the interval
            is the exact binomial one (Clopper and Pearson 1934) with documents as trials.
    """
    names, index = np.unique(np.array(documents), return_inverse=True)
    count = len(names)
    mean = float(values.mean())
    if share and (values == values[0]).all() and mean in (0.0, 1.0):
        exact = 0.025 ** (1 / count)
        low, high = (exact, 1.0) if mean else (0.0, 1 - exact)
    else:
        resamples = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        sums, sizes = np.bincount(index, values, count), np.bincount(index, minlength=count)
        low, high = np.quantile((resamples @ sums) / (resamples @ sizes), (0.025, 0.975)).tolist()
    return MeasuredMean(mean, low, high, len(values), count)
