"""Measures a scorer of the family: how much of the information it sees in texts of every kind that hold the answer.

A scorer that knows one wording alone cannot compare a message with a quotation. So the figures stand side by side: a
statement, a message of several, the document's own sentence, the whole document, and a message without the answer.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.miniature.corpus import restate
from models.miniature.members import WINDOW
from models.miniature.quality import ALL, HeldOutCase, Observation, Quality, draw_cases, summarise
from models.scorer import Scorer
from objectives.mutual_information import contrastive

TWINS, OTHERS = 3, 4
"""Contexts that a text is told from: versions of its document with another answer, and other documents."""

MESSAGE_FACTS = 4
"""The most other facts in a message of several."""

DOCUMENT_AT_LEAST = 0.8
"""The share of the ceiling that the whole document has to reach. It holds everything, so that this should be 0.95: in
wordings that were held out of training, half of those measured, a model of this size does not get there."""

QUOTED_AT_LEAST = 0.85
"""The share of a statement's information that the document's own sentence has to reach. It says the same, so that this
should be 0.9 at least; see ``DOCUMENT_AT_LEAST``."""

TEXTS = {
    "ceiling/statement": "a statement of the answer",
    "ceiling/message": "the same among one to four others",
    "ceiling/quoted": "the document's sentence that holds it",
    "ceiling/document": "the whole document",
    "ceiling/lacking": "one to four other statements",
}
"""The measures, each a mean share of the ceiling and not clipped at 0, and what they are about."""


def measure_scorer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: int = 30, questions: int = 4, seed: int = 0
) -> Quality:
    """The information that a scorer sees in each kind of text, as a share of what could be seen.

    Args:
        model: the scorer, in evaluation mode.
        tokenizer: its own.
        documents: how many documents of each shape; at least ``OTHERS`` + 1.
        questions: how many questions about each.
        seed: changes documents and texts.
    """
    cases = [case for case in draw_cases(documents, questions, seed=seed, twins=TWINS) if case.fact is not None]
    scorer = Scorer(model, tokenizer, WINDOW * 2 // 5)
    generator = random.Random(f"scorer/{seed}")
    texts = [{name: make(case, generator) for name, make in _WRITERS.items()} for case in cases]
    return summarise([seen for index, by_name in enumerate(texts) for seen in _observed(scorer, cases, index, by_name)])


def check_scorer(quality: Quality) -> None:
    """Refuse a scorer that sees less in a quotation or in the document than is there.

    Raises:
        ValueError: the document is below ``DOCUMENT_AT_LEAST``, or its sentence below ``QUOTED_AT_LEAST`` of a
            statement.
    """
    share = {name: quality[name][ALL].value for name in TEXTS}
    if share["ceiling/document"] < DOCUMENT_AT_LEAST:
        raise ValueError(f"the whole document gets {share['ceiling/document']:.1%} of its ceiling")
    if share["ceiling/quoted"] < QUOTED_AT_LEAST * share["ceiling/statement"]:
        raise ValueError(
            f"the document's own sentence gets {share['ceiling/quoted']:.1%} of its ceiling, a statement of the same "
            f"{share['ceiling/statement']:.1%}"
        )


def _observed(
    scorer: Scorer, cases: Sequence[HeldOutCase], index: int, texts: Mapping[str, str]
) -> Iterator[Observation]:
    """The contrastive bound of each text about one case over its ceiling; every context is read once for all."""
    case = cases[index]
    contexts = [case.layout.render(), *case.question.negatives, *_others(cases, index)]
    valid = torch.ones(len(texts), len(contexts), dtype=torch.bool)
    scores = scorer.fill(list(texts.values()), [case.question.text] * len(texts), contexts, valid)
    bound = contrastive(scores.log_probs, torch.zeros(len(texts), dtype=torch.long), valid)
    assert bound.ceiling is not None
    for name, share in zip(texts, (bound.terms / bound.ceiling).tolist(), strict=True):
        yield Observation(name, share, case.document, case.groups)


def _others(cases: Sequence[HeldOutCase], index: int) -> list[str]:
    """The next documents of the same shape."""
    own = cases[index]
    same = [case for case in (*cases[index:], *cases[:index]) if case.layout.shape is own.layout.shape]
    texts = dict.fromkeys(case.layout.render() for case in same if case.document != own.document)
    return list(texts)[:OTHERS]


def _several(case: HeldOutCase, generator: random.Random, needed: bool) -> str:
    others = [fact.statement for fact in case.layout.facts if fact.key != case.key]
    chosen = generator.sample(others, generator.randint(1, MESSAGE_FACTS))
    if needed:
        chosen.insert(generator.randrange(len(chosen) + 1), case.needed)
    return restate(chosen, generator)


_WRITERS: dict[str, Callable[[HeldOutCase, random.Random], str]] = {
    "ceiling/statement": lambda case, _: case.needed,
    "ceiling/message": lambda case, generator: _several(case, generator, needed=True),
    "ceiling/quoted": lambda case, _: case.question.evidence[0],
    "ceiling/document": lambda case, _: case.layout.render(),
    "ceiling/lacking": lambda case, generator: _several(case, generator, needed=False),
}
