"""The embedded suite as tasks: documents generated for a request."""

from typing import get_args

from data.miniature import documents as miniature
from data.task import Loaded, Request

TWINS = 3
"""Counterfactual twins of each embedded question: its hard negatives."""


SEED_STRIDE = 1_000_000
"""How far the documents of one run's seed are from those of the next: further than a run can count."""


def generate(shape: miniature.Shape, request: Request) -> Loaded:
    """Documents of the embedded suite.

    Raises:
        ValueError: a split it does not have, a source, no number of documents, or more facts than the shape can state.
    """
    splits = get_args(miniature.Split)
    facts = miniature.DEFAULT_FACTS if request.facts is None else request.facts
    if request.split not in splits:
        raise ValueError(f"{shape.name}: no split {request.split!r}; there are {' and '.join(splits)}")
    if request.source is not None:
        raise ValueError(f"{shape.name}: source = {request.source!r}, but it is generated and reads nothing")
    if request.documents is None:
        raise ValueError(f"{shape.name}: is generated without end; say how many documents")
    if facts > shape.max_facts:
        raise ValueError(f"{shape.name}: facts = {facts}, but a document states {shape.max_facts} at most")
    asked = facts if request.questions_per_document is None else min(request.questions_per_document, facts)
    documents = miniature.make_documents(
        shape.name,
        request.seed * SEED_STRIDE,
        request.documents,
        "test" if request.split == "test" else "train",
        facts=facts,
        questions=asked,
        twins=TWINS,
    )
    repeated = sum(asked - len(document.questions) for document in documents)
    return Loaded(documents, {"questions asked twice": repeated} if repeated else {})
