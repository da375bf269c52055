"""The tasks that a run can name: the embedded suite and the published ones."""

from functools import partial

from data import financebench, fineweb, longhealth, qasper, records, wildchat
from data.errors import DataError
from data.miniature import task as miniature
from data.miniature.documents import SHAPES, VERSION
from data.task import Loaded, Request, Task

TASKS: dict[str, Task] = {
    **{
        shape.name: Task(
            name=shape.name,
            version=VERSION,
            # The embedded models know by training what to write and how to answer.
            instruction="",
            answer_instruction="",
            load=partial(miniature.load, shape),
            variants=miniature.VARIANTS,
            splits=miniature.SPLITS,
            generated=True,
        )
        for shape in SHAPES.values()
    },
    **{
        module.NAME: Task(
            name=module.NAME,
            version=module.VERSION,
            instruction=module.INSTRUCTION,
            answer_instruction=module.ANSWER_INSTRUCTION,
            load=module.load,
            variants=module.VARIANTS,
            splits=module.SPLITS,
            mapped=module is records,
        )
        for module in (records, qasper, longhealth, financebench, fineweb, wildchat)
    },
}
"""Every task by name."""


def load_documents(name: str, request: Request) -> Loaded:
    """Documents of a task with their questions.

    Args:
        name: a key of ``TASKS``.
        request: which documents and questions; what a published task has beyond them is counted as skipped.

    Raises:
        DataError: there is no such task, the request does not fit it, or its data cannot be read.
    """
    if name not in TASKS:
        raise DataError(f"no task {name!r}; there are {', '.join(TASKS)}")
    request.check(TASKS[name])
    return TASKS[name].load(request)
