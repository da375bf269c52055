"""The embedded suite as tasks: documents generated for a request."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import cast, get_args

from data.errors import DataError
from data.miniature.computed import KINDS, MOST_OPERANDS, Kind, ask_computed, number_facts
from data.miniature.documents import DEFAULT_FACTS, DEFAULT_FILLER, Layout, make_documents, make_layout
from data.miniature.shape import Shape
from data.miniature.values import Split, Values
from data.sample import Document
from data.task import Loaded, Request

SPLITS: tuple[Split, ...] = get_args(Split)

STATED, QUALIFIED, COMPUTED = "stated", "qualified", "computed"

VARIANTS = (STATED, QUALIFIED, COMPUTED, *KINDS)
"""What questions ask for: a fact that is stated, one of several about the same key, which a qualifier tells apart, what
can be computed from several facts, or one kind of that alone."""

SHARING = 3
"""Facts about the same key in a document of the ``qualified`` variant."""

LEAST_FACTS = 8
"""Facts of the shortest document about which something is computed: a third to two thirds of them are numbers."""

TWINS = 3
"""Counterfactual twins of each question, its hard negatives: with three other documents beside them, the seven columns
allow at most log2(7), almost 3 bits."""

SEED_STRIDE = 1_000_000
"""Distance between the first documents of two seeds: more documents than a run reads, so that seeds share none."""


def load(shape: Shape, request: Request) -> Loaded:
    """Documents of one shape.

    Raises:
        DataError: the request names a source or no number of documents, or more facts than the shape can state, or so
            few that there is nothing to compute.
    """
    facts = DEFAULT_FACTS if request.facts is None else request.facts
    variant = request.variant or STATED
    if request.source is not None:
        raise DataError(f"{shape.name}: source = {request.source!r}, but it is generated and reads nothing")
    if request.documents is None:
        raise DataError(f"{shape.name}: set documents: this task is generated without limit")
    if facts > shape.max_facts:
        raise DataError(f"{shape.name}: facts = {facts}, but a document states {shape.max_facts} at most")
    if variant not in (STATED, QUALIFIED) and facts < LEAST_FACTS:
        raise DataError(f"{shape.name}: facts = {facts}, but variant = {variant} needs {LEAST_FACTS} at least")
    per_document = facts if request.questions_per_document is None else min(request.questions_per_document, facts)
    split: Split = "test" if request.split == "test" else "train"
    first = request.seed * SEED_STRIDE
    skipped: Counter[str] = Counter()
    if variant in (STATED, QUALIFIED):
        sharing = SHARING if variant == QUALIFIED else 1
        documents = make_documents(
            shape.name, first, request.documents, split, facts, questions=per_document, twins=TWINS, sharing=sharing
        )
    else:
        kinds = KINDS if variant == COMPUTED else (cast(Kind, variant),)
        layouts = _computable(shape, first, request.documents, split, facts, skipped)
        documents = [_computed(*drawn, per_document, kinds) for drawn in layouts]
    skipped["questions asked twice"] = sum(per_document - len(document.questions) for document in documents)
    return Loaded(documents, dict(+skipped))


def _computable(
    shape: Shape, first: int, count: int, split: Split, facts: int, skipped: Counter[str]
) -> Iterator[tuple[str, int, Layout, Values]]:
    """``count`` documents with numbers enough to compute from, by id and place; ``skipped`` counts the others."""
    place = 0
    for seed in itertools.count(first):
        if place == count:
            return
        layout, values = make_layout(shape, seed, split, facts, DEFAULT_FILLER)
        if len(number_facts(layout)) < MOST_OPERANDS:
            skipped["documents with too few numbers"] += 1
            continue
        yield f"{split}-{seed}", place, layout, values
        place += 1


def _computed(
    name: str, place: int, layout: Layout, values: Values, questions: int, kinds: tuple[Kind, ...]
) -> Document:
    """A document with questions that take turns over kinds of computation; what would be asked twice is asked once.

    The turns go on from one document to the next, so that documents with a question each have all kinds too.
    """
    asked = [
        ask_computed(layout, kinds[(place * questions + turn) % len(kinds)], values.fork(), values.generator, TWINS)
        for turn in range(questions)
    ]
    unique = {question.id: question for question in asked}
    return Document(name, layout.shape.name, layout.render(), tuple(unique.values()), group=name)
