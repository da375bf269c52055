"""Invented values: names and numbers, and which of them are held out of training."""

import random
from typing import Literal

from data.miniature.shape import ValueType, words

Split = Literal["train", "test"]

# The order and the number of syllables decide every generated document: a change needs another VERSION.
FIRST_SYLLABLES = words(
    "Bal Ber Bol Cal Cor Dal Del Dor Fal Fen Gar Gil Hal Hen Hol Jar Jon Kal Kel Kor Lan Lor Lun Mal Mar Mel Mor Nal "
    "Nor Pal Pel Pol Ral Ren Rol Sal Sel Sor Tal Ten Tol Tor Ulm Val Ver Vol Wal Wen Wil Yar Zan Zel Zor Bram Crom "
    "Drev Flin Grat Klos Prin Stel Trov"
)
SECOND_SYLLABLES = words(
    "bex dak dim fop gat gix hup jev kesh kip lodd mox neb nuck pim quat rax sopp tiv tuz vack vish wopp yod zeth "
    "bruk crit drup flom glim plit skev"
)


def held_out_name(first: int, second: int) -> bool:
    """Whether the name of these two syllables belongs to the test split, by their indices."""
    # A fifth of the names; the two factors spread them, so that either split has every syllable.
    return (first * 7 + second * 3) % 5 == 0


def held_out_number(key: str, number: int) -> bool:
    """Whether this number as this key's value belongs to the test split; in training the key has other values."""
    # A fifth of the pairs, shifted by the key, so that training has every number with some key.
    return (sum(key.encode()) + number) % 5 == 0


class Values:
    """Draws values that are distinct within one document: names by their first syllable, two-digit numbers as such."""

    def __init__(self, generator: random.Random, split: Split) -> None:
        """Start with every first syllable and every two-digit number unused."""
        self.generator, self.held_out = generator, split == "test"
        self.syllables = generator.sample(range(len(FIRST_SYLLABLES)), len(FIRST_SYLLABLES))
        self.numbers = generator.sample(range(10, 100), 90)

    def name(self) -> str:
        """An invented two-syllable name of the split."""
        first = self.syllables.pop()
        seconds = [s for s in range(len(SECOND_SYLLABLES)) if held_out_name(first, s) == self.held_out]
        return FIRST_SYLLABLES[first] + SECOND_SYLLABLES[self.generator.choice(seconds)]

    def number(self, key: str) -> str:
        """A two-digit number of the split for this key."""
        number = self.numbers_left(key)[0]
        self.numbers.remove(number)
        return str(number)

    def numbers_left(self, key: str) -> list[int]:
        """The two-digit numbers of the split for this key that are not drawn yet, in the order they will be."""
        return [number for number in self.numbers if held_out_number(key, number) == self.held_out]

    def fork(self) -> "Values":
        """A copy that draws without using up the values of this one: twins of different questions may share values."""
        twin = object.__new__(Values)
        twin.generator, twin.held_out = self.generator, self.held_out
        twin.syllables, twin.numbers = list(self.syllables), list(self.numbers)
        return twin

    def draw(self, value: ValueType, key: str) -> str:
        """A value of the type for ``key``."""
        if value == "yes_no":
            return self.generator.choice(("yes", "no"))
        return self.name() if value == "name" else self.number(key)


def wording(choices: tuple[str, ...], split: Split, generator: random.Random) -> str:
    """A wording of the split: the last choice is held out for the test split, which takes it half of the time."""
    if split == "test" and generator.random() < 0.5:
        return choices[-1]
    return generator.choice(choices[:-1])
