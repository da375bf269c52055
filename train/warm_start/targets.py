"""What a compressor is to write for a question, as the gold evidence tells: learned before rewards and beside them."""

import random
from dataclasses import replace

from data.evidence import Evidence, find_evidence
from data.sample import Sample
from models.compressor import Compressor
from train.sections.starting import Targets

TOGETHER = "; "
"""What stands between the targets of several questions in one message."""


def budget_for(compressor: Compressor, tokens: int) -> int | None:
    """The budget that a message of some length is learned under: the least that is ever asked for and holds it.

    None where it is too long for any.
    """
    fitting = [budget for budget in (*compressor.asked_budgets, compressor.budget_tokens) if tokens <= budget]
    if not fitting:
        return None
    return min(fitting) if compressor.asked_budgets else compressor.budget_tokens


def message_to_learn(compressor: Compressor, sample: Sample, targets: Targets, generator: random.Random) -> str | None:
    """The target of a question; of several that one message serves, those of as many as the budget holds.

    Of questions that the compressor is not told, these are drawn at random: what is asked often is told often.
    """
    question, document = sample.question, sample.document
    if targets == "answer" or not (question.blind or question.together):
        return target_of(sample, targets, generator)
    told: list[str] = []
    budget = generator.choice(compressor.asked_budgets or (compressor.budget_tokens,))
    served = [other for other in document.questions if other.together == question.together]
    for other in generator.sample(served, len(served)) if question.blind else served:
        text = target_of(Sample(document, replace(other, blind=False)), targets, generator)
        together = TOGETHER.join([*told, text or ""])
        if text and text not in told and len(message_ids(compressor, together)) <= budget:
            told.append(text)
    return TOGETHER.join(told) or None


def message_ids(compressor: Compressor, text: str) -> list[int]:
    """The tokens of a message as the compressor writes it, its end token last."""
    return [*compressor.prompts.format.text_ids(text), compressor.end_token_id]


def target_of(sample: Sample, targets: Targets = "evidence", generator: random.Random | None = None) -> str | None:
    """What the compressor is to write for a question; None where the document does not tell.

    A compressor that is not told the question cannot know what its answer rests on.

    Args:
        sample: the question.
        targets: see `train.sections.starting.WarmStartConfig`; where no gold answer is in the text, ``clause`` is the
            evidence.
        generator: draws how much of a sentence a clause keeps.
    """
    if sample.question.blind:
        return None
    if targets == "answer":
        return min(sample.question.answers, key=len)
    evidence = find_evidence(sample.document, sample.question)
    if evidence is None:
        return None
    text = sample.document.text
    if targets == "clause" and evidence.answers:
        assert generator is not None
        return _clause(text, evidence, generator)
    return " ".join(text[slice(*span)].strip() for span in evidence.spans)


def demonstration(compressor: Compressor, sample: Sample, budget_tokens: int, seed: str) -> list[int] | None:
    """A message that tells what the answer rests on: a clause that `target_of` draws.

    Args:
        compressor: whose messages it stands among.
        sample: the question.
        budget_tokens: the most tokens, the end token among them.
        seed: decides how much of a sentence the clause keeps.

    Returns:
        The tokens, the end token last; None where the document does not tell, or the clause is longer than that.
    """
    text = message_to_learn(compressor, sample, "clause", random.Random(seed))
    ids = [] if text is None else message_ids(compressor, text)
    return ids if 0 < len(ids) <= budget_tokens else None


def _clause(text: str, evidence: Evidence, generator: random.Random) -> str:
    """A gold answer with a random share of the words before it in its sentence, and of those after it."""
    inside = [
        (answer, span)
        for span in evidence.spans
        for answer in evidence.answers
        if span[0] <= answer[0] and answer[1] <= span[1]
    ]
    if not inside:
        return " ".join(text[slice(*span)].strip() for span in evidence.spans)
    (begin, end), (start, stop) = generator.choice(inside)
    before, after = text[start:begin].split(" "), text[end:stop].rstrip().split(" ")
    # What touches the answer, such as a bracket or a full stop, stays with it.
    kept_before = before[len(before) - 1 - round(generator.random() * (len(before) - 1)) :]
    kept_after = after[: 1 + round(generator.random() * (len(after) - 1))]
    return f"{' '.join(kept_before)}{text[begin:end]}{' '.join(kept_after)}".strip()
