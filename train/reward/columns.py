"""The contexts that the messages of a step are compared over: drawn as the evaluation draws them, at the least cost."""

import random
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from data.arrangement import AS_IT_IS, Arrangement, arranged, arranged_first
from data.errors import DataError
from data.rivals import candidates
from data.sample import Document, Sample, neighbours
from data.twins import Twins
from objectives.negatives import Candidates, Columns, NegativeCounts, choose_columns


class StepColumns:
    """Draws the negatives of each step.

    Those of the batch are other documents of the same task, as at evaluation, or of any task. The ones of the step come
    first, since they are read for their own messages anyhow; where they are too few, other documents fill up, the same
    ones for all questions of the task in that step. Where the scorer reads evidence last, documents of the step are
    read as for their own question of the step, others as for their first.
    """

    def __init__(
        self,
        samples: Mapping[str, Sample],
        counts: NegativeCounts,
        seed: int,
        gather: Callable[[list[str]], list[str]],
        of_task: bool = True,
        arrangement: Arrangement = AS_IT_IS,
        twins_per_step: int | None = None,
    ) -> None:
        """Check that every question has a context to be compared with.

        Args:
            samples: the questions by id, those of all processes.
            counts: how many negatives of each kind a message is compared with.
            seed: changes what is drawn.
            gather: joins what each process gives into one list for all.
            of_task: whether negatives of the batch are documents of the question's own task; else of any.
            arrangement: how the scorer reads documents.
            twins_per_step: how many of a question's ``counts.twins`` a step compares with; None is all of them.

        Raises:
            DataError: a question has none.
        """
        self.samples = samples
        self.counts = counts
        self.seed = seed
        self.gather = gather
        self.of_task = of_task
        self.arrangement = arrangement
        self.drawn = counts if twins_per_step is None else replace(counts, twins=twins_per_step)
        self.neighbours = neighbours(sample.document for sample in samples.values())
        texts: dict[str, set[str]] = {}
        self.readings: dict[str, str] = {}
        for sample in samples.values():
            texts.setdefault(self._pool(sample), set()).add(sample.document.text)
            if sample.document.text not in self.readings:
                self.readings[sample.document.text] = arranged_first(sample.document, arrangement)
        self.texts = {pool: sorted(distinct) for pool, distinct in texts.items()}
        self.twins = _twins_by_task(samples.values()) if counts.twins else {}
        self._check()

    def draw(self, samples: Sequence[Sample], step: int) -> Columns:
        """The columns for this process's samples, which do not depend on how many processes share the step."""
        seed = self.seed + step
        pools = self._pools(samples, seed)
        distinct = {sample.id: sample for sample in samples}
        by_id = {
            sample_id: self._candidates(sample, pools[self._pool(sample)], seed, self.counts)
            for sample_id, sample in distinct.items()
        }
        return choose_columns([by_id[sample.id] for sample in samples], self.drawn, seed)

    def _pools(self, samples: Sequence[Sample], seed: int) -> dict[str, dict[str, str]]:
        """By pool the texts of the step and as many more as it has too few, each with how it is read."""
        step = {sample_id: self.samples[sample_id] for sample_id in self.gather([sample.id for sample in samples])}
        pools: dict[str, dict[str, str]] = {}
        for pool in {self._pool(sample) for sample in samples}:
            of_pool = [step[sample_id] for sample_id in sorted(step) if self._pool(step[sample_id]) == pool]
            present = {
                sample.document.text: arranged(sample.document, sample.question, self.arrangement).text
                for sample in of_pool
            }
            missing = max(0, self.counts.batch + 1 - len(present))
            others = [text for text in self.texts[pool] if text not in present] if missing else []
            drawn = random.Random(f"{seed}/{pool}").sample(others, min(missing, len(others)))
            pools[pool] = present | {text: self.readings[text] for text in drawn}
        return pools

    def _pool(self, sample: Sample) -> str:
        """The documents that a sample's negatives of the batch are drawn from, by name."""
        return sample.document.task if self.of_task else "any task"

    def _candidates(self, sample: Sample, pool: Mapping[str, str], seed: int, counts: NegativeCounts) -> Candidates:
        document = sample.document
        return candidates(
            document,
            sample.question,
            counts,
            seed,
            self.arrangement,
            neighbours=self.neighbours[document.task, document.id],
            batch=pool,
            readings=ChainMap(dict(pool), self.readings),
            twins=self.twins.get(document.task) if counts.twins else None,
        )

    def _check(self) -> None:
        """Refuse questions without a negative, before anything is trained on the others."""
        for sample in self.samples.values():
            if not any(self._has_negative(sample, twins) for twins in (0, min(1, self.counts.twins))):
                raise DataError(
                    f"question {sample.id!r}: information.negatives = {self.counts} finds no other context to compare "
                    "its messages with; ask for more documents, or for twins or same_document negatives"
                )

    def _has_negative(self, sample: Sample, twins: int) -> bool:
        """Whether a question has another context, with so many twins: most need none of these, which take time."""
        counts = replace(self.counts, twins=twins)
        # Of any two texts one is another than the sample's own.
        pool = {text: self.readings[text] for text in self.texts[self._pool(sample)][:2]}
        try:
            choose_columns([self._candidates(sample, pool, self.seed, counts)], counts, self.seed)
        except ValueError:
            return False
        return True


def _twins_by_task(samples: Iterable[Sample]) -> dict[str, Twins]:
    documents: dict[str, list[Document]] = {}
    for sample in samples:
        documents.setdefault(sample.document.task, []).append(sample.document)
    return {task: Twins(of_task) for task, of_task in documents.items()}
