"""The family's acceptance test: an untrained member does not select, and no rule over its messages makes it.

What training brings can only be told from what was there where greedy messages, their first statement, a cut and the
request to be brief all fail, and where samples succeed now and then, so that there is something to reinforce.
"""

from collections.abc import Sequence
from dataclasses import replace

from data.sentences import sentences
from models.compressor import Compressor, Message
from models.miniature.corpus import OPENERS
from models.miniature.quality import ALL, HeldOutCase, Observation, Quality, query, scored, summarise
from models.predictor import Predictor

BRIEF = "Be brief: write as few words as you can."
"""What a member is told in the test of brevity: the same as the evaluation's baseline (``eval.config``)."""

CUT_TOKENS = 12
"""Tokens after which a greedy message is cut: enough for a statement of any shape."""

GROUP = 8
"""Messages of a group, as in the default recipe."""

MOST_ACCURATE = 0.4
"""The most that any rule may score without training."""

MIXED_GROUPS = (0.1, 0.75)
"""The share of groups that hold right and wrong answers: below, RL finds nothing; above, the member selects already."""

RULES = {
    "rule/greedy": "greedy, as it is",
    "rule/first": "greedy, its first statement",
    "rule/cut": f"greedy, cut after {CUT_TOKENS} tokens",
    "rule/brief": "greedy, told to be brief",
    "rule/sampled": "sampled",
    "groups/mixed": f"groups of {GROUP} samples with right and wrong answers",
}
"""The rows of the test, and what they are called."""


def measure_selection(compressor: Compressor, predictor: Predictor, cases: Sequence[HeldOutCase], seed: int) -> Quality:
    """The accuracy of each rule over an untrained member's messages, and the share of groups that RL can learn from.

    Args:
        compressor: the member, without an adapter.
        predictor: answers from its messages.
        cases: questions about held-out documents.
        seed: changes what is sampled.
    """
    contexts, questions = [case.layout.render() for case in cases], [case.question.text for case in cases]
    greedy = compressor.write(contexts, questions, 1, 0.0)
    brief = Compressor(compressor.model, compressor.tokenizer, compressor.budget_tokens, instruction=BRIEF)
    groups = compressor.write(
        contexts, questions, GROUP, 1.0, [seed * 1_000_000 + index for index in range(len(cases))]
    )
    written = {
        "rule/greedy": greedy,
        "rule/first": [_first_statement(message) for message in greedy],
        "rule/cut": [_cut(compressor, message) for message in greedy],
        "rule/brief": brief.write(contexts, questions, 1, 0.0),
        "rule/sampled": groups[::GROUP],
    }
    observations: list[Observation] = []
    for rule, messages in written.items():
        observations += _answered(rule, predictor, cases, messages)
    repeated = [case for case in cases for _ in range(GROUP)]
    answered = _answered("", predictor, repeated, groups)
    for index, case in enumerate(cases):
        values = {observation.value >= 0.5 for observation in answered[index * GROUP : (index + 1) * GROUP]}
        observations.append(Observation("groups/mixed", float(len(values) == 2), case.document, case.groups))
    return summarise(observations)


def check_selection(quality: Quality) -> None:
    """Refuse a member that selects without training, or from which training would learn nothing.

    Raises:
        ValueError: a rule scores above ``MOST_ACCURATE``, or the share of mixed groups is outside ``MIXED_GROUPS``.
    """
    rules = {rule: quality[rule][ALL].value for rule in RULES if rule not in ("rule/sampled", "groups/mixed")}
    best = max(rules, key=rules.__getitem__)
    if rules[best] > MOST_ACCURATE:
        raise ValueError(f"{RULES[best]}: {rules[best]:.1%} right without training, more than {MOST_ACCURATE:.0%}")
    mixed, (least, most) = quality["groups/mixed"][ALL].value, MIXED_GROUPS
    if not least <= mixed <= most:
        raise ValueError(f"{RULES['groups/mixed']}: {mixed:.1%}, which should be {least:.0%} to {most:.0%}")


def _answered(
    name: str, predictor: Predictor, cases: Sequence[HeldOutCase], messages: Sequence[Message]
) -> list[Observation]:
    answers = predictor.answer([query(case, message.text) for case, message in zip(cases, messages, strict=True)])
    return [scored(name, case, answer, case.question.metric) for case, answer in zip(cases, answers, strict=True)]


def _first_statement(message: Message) -> Message:
    """The first sentence that is no mere opener."""
    openers = {opener.strip() for opener in OPENERS}
    written = (piece.strip() for piece in sentences(message.text))
    return replace(message, text=next((sentence for sentence in written if sentence not in openers), ""))


def _cut(compressor: Compressor, message: Message) -> Message:
    return replace(message, text=compressor.text(message.token_ids[:CUT_TOKENS]))
