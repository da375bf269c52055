"""Cutting a message short: how little of it would have done.

Samples of one policy are nearly equally long, so that of those that succeed the shortest is hardly shorter than the
rest. The beginning of a success is as likely to be written as the whole, and to learn it is to learn where to stop.
"""

import random


def cut_places(words: int, count: int, seed: int) -> list[int]:
    """Draw numbers of words to cut a message after, all of them equally likely and none twice.

    Args:
        words: how many the message has.
        count: how many places at most; a message of few words has fewer.
        seed: decides which.

    Returns:
        Numbers from 1 to one less than there are words, in ascending order.

    Raises:
        ValueError: a number is negative.
    """
    if words < 0 or count < 0:
        raise ValueError(f"numbers of words and places must not be negative, got {words} and {count}")
    places = range(1, words)
    return sorted(random.Random(seed).sample(places, min(count, len(places))))
