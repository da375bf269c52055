"""Excerpts of a message: what a shorter message of the same words could have been.

A policy that writes whole sentences samples few short messages, and of those that succeed the shortest is hardly
shorter than the rest. Its own words with fewer around them are one step away, and need no pass of the policy.
"""

import random


def word_runs(words: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Draw runs of neighbouring words that are shorter than the whole, all of them equally likely and none twice.

    Args:
        words: how many the message has.
        count: how many runs at most; a message of few words has fewer.
        seed: decides which.

    Returns:
        The first word of each run, and the one after its last.

    Raises:
        ValueError: a number is negative.
    """
    if words < 0 or count < 0:
        raise ValueError(f"numbers of words and runs must not be negative, got {words} and {count}")
    runs = [(start, end) for start in range(words) for end in range(start + 1, words + 1) if end - start < words]
    return random.Random(seed).sample(runs, min(count, len(runs)))
