"""The contexts that a question's messages may be compared over, as the scorer reads them, before any are drawn."""

from collections.abc import Iterable, Mapping, Sequence

from data.arrangement import Arrangement, arranged
from data.sample import Document, Question
from data.twins import Twins
from objectives.negatives import Candidates, NegativeCounts, parts_removed


def candidates(
    document: Document,
    question: Question,
    counts: NegativeCounts,
    seed: int,
    arrangement: Arrangement,
    neighbours: Sequence[str],
    batch: Iterable[str],
    readings: Mapping[str, str],
    twins: Twins | None,
) -> Candidates:
    """The own context of a question and its candidates of every kind.

    Args:
        document: the document.
        question: what the messages are about.
        counts: how many versions are made of the kinds that are made here.
        seed: changes what is made.
        arrangement: how the scorer reads the own context and all others.
        neighbours: texts of the other documents of its group.
        batch: texts of other documents; the own one among them is passed over.
        readings: how other documents are read, by their texts.
        twins: makes the twins; None makes none.
    """
    read = arranged(document, question, arrangement)
    evidence = read.passages if arrangement.last else question.evidence
    made = twins.of(document, question, counts.twins, seed, arrangement) if twins else ()
    return Candidates(
        own=read.text,
        counterfactual=question.negatives,
        same_document=parts_removed(read.text, evidence, counts.same_document, seed),
        neighbour=[readings[text] for text in neighbours if text != document.text],
        batch=[readings[text] for text in batch if text != document.text],
        twins=[twin.text for twin in made],
    )
