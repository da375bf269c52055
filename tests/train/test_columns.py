"""The contexts that messages of a step are compared over, where the scorer reads evidence last."""

from data.arrangement import LAST, arranged
from data.sample import Document, Question, Sample, samples_of
from objectives.negatives import Columns, NegativeCounts
from train.reward.columns import StepColumns


def mill(name: str, year: int) -> Document:
    text = f"The mill of {name} was built in {year}. It is old. Its owner was called Olaf {name[:1]}ansen. Oats grew."
    questions = (
        Question("built", "When was the mill built?", (str(year),), "exact"),
        Question("owner", "Who was the owner of the mill?", (f"Olaf {name[:1]}ansen",), "exact"),
    )
    return Document(name, "records", text, questions)


MILLS = [mill(name, 1800 + 10 * number) for number, name in enumerate(("Alpha", "Beta", "Gamma", "Delta", "Epsilon"))]
SAMPLES = samples_of(MILLS)
BY_ID = {sample.id: sample for sample in SAMPLES}


def read(sample: Sample) -> str:
    return arranged(sample.document, sample.question, LAST).text


def row(columns: Columns, number: int) -> set[str]:
    """The negatives of one sample."""
    own = int(columns.own[number])
    return {columns.contexts[column] for column in columns.valid[number].nonzero()[:, 0].tolist() if column != own}


def test_documents_of_the_step_are_read_for_its_questions_and_the_own_one_is_no_negative() -> None:
    draw = StepColumns(BY_ID, NegativeCounts(batch=3), 0, lambda own: own, arrangement=LAST)
    step = [SAMPLES[1], SAMPLES[3], SAMPLES[0]]
    columns = draw.draw(step, step=0)
    assert [columns.contexts[column] for column in columns.own] == [read(sample) for sample in step]
    for number, sample in enumerate(step):
        negatives = row(columns, number)
        assert len(negatives) == 3 and not any(f"mill of {sample.document.id} " in text for text in negatives)
    assert columns.valid[0, columns.own[1]]
    # Two documents that are not in the step, as for their first questions, are shared by all.
    added = set(columns.contexts) - {read(sample) for sample in step}
    assert added <= {read(sample) for sample in SAMPLES[::2]} and len(added) == 2


def test_a_step_compares_with_some_of_the_twins_and_another_step_with_others() -> None:
    counts = NegativeCounts(twins=8, batch=1)
    some = StepColumns(BY_ID, counts, 0, lambda own: own, arrangement=LAST, twins_per_step=3)
    every = StepColumns(BY_ID, counts, 0, lambda own: own, arrangement=LAST)
    for number, sample in enumerate(SAMPLES[:4]):
        rows = [row(some.draw(SAMPLES[:4], step), number) for step in range(6)]
        pools = [row(every.draw(SAMPLES[:4], step), number) for step in range(6)]
        assert [len(negatives) for negatives in rows] == [4] * 6 and all(len(pool) == 9 for pool in pools)
        assert all(drawn <= pool for drawn, pool in zip(rows, pools, strict=True))
        assert len({frozenset(negatives) for negatives in rows}) > 3
        assert read(sample) not in set().union(*rows)


def test_the_same_columns_are_drawn_wherever_a_sample_stands() -> None:
    counts = NegativeCounts(twins=12, same_document=1)
    draw = StepColumns(BY_ID, counts, 0, lambda own: own, arrangement=LAST, twins_per_step=3)
    backwards = StepColumns(
        dict(reversed(BY_ID.items())), counts, 0, lambda own: own, arrangement=LAST, twins_per_step=3
    )
    together = draw.draw(SAMPLES[:4], 5)
    for number, sample in enumerate(SAMPLES[:4]):
        assert row(together, number) == row(backwards.draw([sample, sample], 5), 0)
