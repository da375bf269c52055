"""The order in which training goes through its questions: shuffled, or packed so that a step asks a context several.

What a question costs is mostly the reading of its context, in the rollout, the scoring and the update alike; a step
reads every context once, however many of its questions it asks.
"""

import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from trl.trainer.utils import RepeatSampler


def pass_order(contexts: Sequence[int], per_step: int, per_context: int, seed: int, number: int) -> list[int]:
    """The questions of one pass, as many as make whole steps; the same on any number of processes.

    Args:
        contexts: for each question the number of its context.
        per_step: questions of a step.
        per_context: how many questions of a context a step asks together, where it has as many. 1 is TRL's own shuffle,
            which leaves out other questions in every pass where they make no whole step.
        seed: decides the order.
        number: of the pass, from 0.

    Returns:
        Indices of questions.
    """
    length = len(contexts) // per_step * per_step
    if per_context == 1:
        return _shuffled(len(contexts), seed, number)[:length]
    return list(islice(_packed(contexts, per_step, per_context, seed), number * length, (number + 1) * length))


class QuestionSampler(RepeatSampler):
    """TRL's sampler with an order for every pass, which it finds again where a run is resumed in the middle of one."""

    def __init__(
        self, sampler: RepeatSampler, order: Callable[[int], Sequence[int]], steps_done: Callable[[], int]
    ) -> None:
        """Repeat as ``sampler`` does.

        Args:
            sampler: TRL's, of which a pass takes a step for each batch.
            order: gives the indices of a pass, from 0.
            steps_done: gives the steps of the run that are done.
        """
        repeats = (sampler.mini_repeat_count, sampler.batch_size, sampler.repeat_count)
        super().__init__(sampler.data_source, *repeats, shuffle=False)
        self.order = order
        self.steps_done = steps_done

    def __iter__(self) -> Iterator[int]:
        """The indices of the pass that the run is in, from its begin."""
        order = self.order(self.steps_done() // (self.num_samples // self.batch_size))
        for place in super().__iter__():
            yield order[place]


def _shuffled(count: int, seed: int, number: int) -> list[int]:
    """TRL shuffles pass after pass with one generator."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        torch.randperm(count, generator=generator)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _packed(contexts: Sequence[int], per_step: int, per_context: int, seed: int) -> Iterator[int]:
    """Step after step without end: no question comes again before every other has come as often.

    What makes no whole step at the end of a pass begins the first step of the next, in which none of it is repeated.
    """
    left: list[int] = []
    number = 0
    while True:
        generator = random.Random(f"{seed}/questions/{number}")
        late = set(left)
        others = [question for question in range(len(contexts)) if question not in late]
        bundles = _Bundles()
        bundles.add(_bundled(others, contexts, per_context, generator))
        if left:
            yield from _arranged([*left, *bundles.take(per_step - len(left))], contexts)
            bundles.add(_bundled(left, contexts, per_context, generator))
        while bundles.count >= per_step:
            yield from _arranged(bundles.take(per_step), contexts)
        left = bundles.take(bundles.count)
        number += 1


def _bundled(
    questions: Sequence[int], contexts: Sequence[int], per_context: int, generator: random.Random
) -> list[list[int]]:
    """Questions of one context together, at most ``per_context``, in random order."""
    by_context: dict[int, list[int]] = defaultdict(list)
    for question in generator.sample(questions, len(questions)):
        by_context[contexts[question]].append(question)
    bundles = [
        group[start : start + per_context]
        for group in by_context.values()
        for start in range(0, len(group), per_context)
    ]
    return generator.sample(bundles, len(bundles))


def _arranged(step: Sequence[int], contexts: Sequence[int]) -> list[int]:
    """A step with the questions of a context next to each other, most questions first.

    So a process, which takes a part of the step, shares as few contexts as can be with the others.
    """
    asked = Counter(contexts[question] for question in step)
    return sorted(step, key=lambda question: (-asked[contexts[question]], contexts[question]))


class _Bundles:
    """Bundles of questions, first come first taken as far as they fit.

    Attributes:
        count: how many questions there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._added = 0
        # By size, each with when it was added.
        self._queues: dict[int, deque[tuple[int, list[int]]]] = defaultdict(deque)

    def add(self, bundles: Sequence[list[int]]) -> None:
        for bundle in bundles:
            self._queues[len(bundle)].append((self._added, bundle))
            self._added += 1
            self.count += len(bundle)

    def take(self, room: int) -> list[int]:
        """Exactly so many questions, in bundles that fit; where none does, the first is cut in two."""
        taken: list[int] = []
        while len(taken) < room:
            free = room - len(taken)
            sizes = [size for size, queue in self._queues.items() if queue]
            fitting = [size for size in sizes if size <= free]
            size = min(fitting or sizes, key=lambda size: self._queues[size][0][0])
            added, bundle = self._queues[size].popleft()
            taken += bundle[:free]
            if rest := bundle[free:]:
                # None of its size is older: it was the oldest of all that are larger than what fits.
                self._queues[len(rest)].appendleft((added, rest))
        self.count -= room
        return taken
