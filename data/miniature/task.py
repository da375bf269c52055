"""The embedded suite as tasks: documents generated for a request."""

from typing import get_args

from data.errors import DataError
from data.miniature.documents import DEFAULT_FACTS, make_documents
from data.miniature.shape import Shape
from data.miniature.values import Split
from data.task import Loaded, Request

SPLITS: tuple[Split, ...] = get_args(Split)

TWINS = 3
"""Counterfactual twins of each question, its hard negatives: with three other documents beside them, the seven columns
allow at most log2(7), almost 3 bits."""

SEED_STRIDE = 1_000_000
"""Distance between the first documents of two seeds: more documents than a run reads, so that seeds share none."""


def load(shape: Shape, request: Request) -> Loaded:
    """Documents of one shape.

    Raises:
        DataError: the request names a source or no number of documents, or more facts than the shape can state.
    """
    facts = DEFAULT_FACTS if request.facts is None else request.facts
    if request.source is not None:
        raise DataError(f"{shape.name}: source = {request.source!r}, but it is generated and reads nothing")
    if request.documents is None:
        raise DataError(f"{shape.name}: set documents: this task is generated without limit")
    if facts > shape.max_facts:
        raise DataError(f"{shape.name}: facts = {facts}, but a document states {shape.max_facts} at most")
    per_document = facts if request.questions_per_document is None else min(request.questions_per_document, facts)
    documents = make_documents(
        shape.name,
        request.seed * SEED_STRIDE,
        request.documents,
        "test" if request.split == "test" else "train",
        facts=facts,
        questions=per_document,
        twins=TWINS,
    )
    repeated = sum(per_document - len(document.questions) for document in documents)
    return Loaded(documents, {"questions asked twice": repeated} if repeated else {})
