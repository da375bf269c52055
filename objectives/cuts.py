"""Leaving the beginning of a message away: how little of it would have done.

Samples of one policy are nearly equally long, so that of those that succeed the shortest is hardly shorter than the
rest. The end of a success tells where it could have begun, which is a choice that a policy makes once, knowing what it
has read. Leaving away the end instead teaches a policy to stop at every word a little more, for a cut is chosen with
hindsight: it then stops before it has said anything.
"""

import random


def cut_places(words: int, count: int, seed: int) -> list[int]:
    """Draw numbers of words to leave away at the beginning of a message, all of them equally likely and none twice.

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
