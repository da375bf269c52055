"""Questions about the embedded documents whose answer is stated nowhere: it is computed from two or three numbers.

A message has to hold all of them, or the compressor has to compute; what is left to the predictor can be too much for a
small one.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from data.miniature.documents import Layout
from data.miniature.values import Values, wording
from data.sample import Question

Kind = Literal["larger", "sum", "count"]

KINDS: tuple[Kind, ...] = get_args(Kind)

THRESHOLD = 50
"""What a counted number has to be above: about half of two-digit numbers are."""


@dataclass(frozen=True)
class Computation:
    """A kind of computation.

    Attributes:
        operands: how many numbers of the document it takes.
        questions: its wordings, ``{0}`` and so on for the keys; the last is used by the ``test`` split alone.
        result: the answer, from the numbers in the order of the keys.
    """

    operands: int
    questions: tuple[str, ...]
    result: Callable[[Sequence[int]], int]


COMPUTATIONS: dict[Kind, Computation] = {
    "larger": Computation(
        2,
        (
            "What is the larger of the {0} and the {1}?",
            "Of the {0} and the {1}, how much is the larger?",
            "How much is the {0} or the {1}, whichever is larger?",
        ),
        max,
    ),
    "sum": Computation(
        2,
        (
            "What is the sum of the {0} and the {1}?",
            "How much are the {0} and the {1} together?",
            "What do the {0} and the {1} add up to?",
        ),
        sum,
    ),
    "count": Computation(
        3,
        (
            f"How many of the {{0}}, the {{1}} and the {{2}} are above {THRESHOLD}?",
            f"Of the {{0}}, the {{1}} and the {{2}}, how many are above {THRESHOLD}?",
            f"Above {THRESHOLD}, how many are there of the {{0}}, the {{1}} and the {{2}}?",
        ),
        lambda numbers: sum(number > THRESHOLD for number in numbers),
    ),
}
"""What there is to compute."""

MOST_OPERANDS = max(computation.operands for computation in COMPUTATIONS.values())
"""Numbers that a document needs so that anything can be asked about it."""


def number_facts(layout: Layout) -> list[int]:
    """The indices of the document's facts that are numbers."""
    return [index for index, fact in enumerate(layout.facts) if fact.relation.value == "number"]


def ask_computed(layout: Layout, kind: Kind, values: Values, generator: random.Random, twins: int) -> Question:
    """A question whose answer is computed from numbers of the document, with its counterfactual twins.

    Args:
        layout: the document, with at least ``MOST_OPERANDS`` facts that are numbers.
        kind: what is computed.
        values: those that the document leaves, from which its twins draw.
        generator: draws the numbers, the wording and the twins.
        twins: how many documents with another answer: each has one of the numbers changed.
    """
    computation = COMPUTATIONS[kind]
    indices = generator.sample(number_facts(layout), computation.operands)
    facts = [layout.facts[index] for index in indices]
    numbers = [int(fact.value) for fact in facts]
    answer = computation.result(numbers)
    changes = [
        (index, number)
        for place, index in enumerate(indices)
        for number in values.numbers_left(facts[place].key)
        if computation.result([*numbers[:place], number, *numbers[place + 1 :]]) != answer
    ]
    return Question(
        id="-".join((kind, *(fact.key for fact in facts))),
        text=wording(computation.questions, layout.split, generator).format(*(fact.key for fact in facts)),
        answers=(str(answer),),
        metric="numeric",
        kind=kind,
        evidence=tuple(fact.sentence.strip() for fact in facts),
        negatives=tuple(
            layout.with_value(index, str(number)).render()
            for index, number in generator.sample(changes, min(twins, len(changes)))
        ),
    )
