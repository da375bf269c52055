"""What a message is made of, by the words that SQuAD's normalisation leaves of it."""

from collections.abc import Sequence

from objectives.accuracy import squad_tokens


def is_answer(message: str, answers: Sequence[str]) -> bool:
    """Whether a message is one of the answers and nothing else."""
    words = squad_tokens(message)
    return any(words == squad_tokens(answer) for answer in answers)


def holds_answer(message: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in a message, its words next to each other and in their order."""
    return any(stands_in(answer, message) for answer in answers)


def stands_in(part: str, whole: str) -> bool:
    """Whether the words of a text stand in another, next to each other and in their order; no words stand nowhere."""
    words, among = squad_tokens(part), squad_tokens(whole)
    size = len(words)
    return bool(size) and any(among[at : at + size] == words for at in range(len(among) - size + 1))
