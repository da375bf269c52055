"""The corpus of members that are asked anything: keys that facts share, and answers that are computed."""

import random
import re

import numpy as np
import pytest

from data.miniature.computed import THRESHOLD
from data.miniature.documents import QUALIFIERS
from models.miniature.corpus import COMPUTED, QUALIFIED, Turn, compressor_turns, predictor_turns

NUMBERS = re.compile(r"(?:The number of|The) ((?:\w+ )?\w+) (?:was|is|is at) (\d\d)\b")
"""Keys and values of the statements of a message that are numbers."""

COMPUTING = re.compile(r"larger|sum|together|add up|above")


def conversations(count: int) -> list[list[Turn]]:
    generator = random.Random(4)
    return [predictor_turns(generator, 6, "any") for _ in range(count)]


def computed(question: str, numbers: list[int]) -> int:
    if "above" in question:
        return sum(number > THRESHOLD for number in numbers)
    return max(numbers) if "larger" in question else sum(numbers)


def test_an_answer_that_is_computed_follows_from_the_message() -> None:
    seen = 0
    for turns in conversations(300):
        message = turns[0].prompt.rpartition("\n\nQuestion:")[0]
        values = {key: int(number) for key, number in NUMBERS.findall(message)}
        for turn in turns:
            question = turn.prompt.rpartition("Question: ")[2]
            if not COMPUTING.search(question):
                continue
            # The longer key is in the text of the shorter one, never the other way round.
            keys = [key for key in values if re.search(rf"the {key}\b", question)]
            assert len(keys) == (3 if "above" in question else 2), (message, question)
            assert turn.reply == f"Answer: {computed(question, [values[key] for key in keys])}"
            seen += 1
    assert seen > 500


def test_a_message_about_what_is_computed_holds_every_number_it_takes() -> None:
    generator, asked, all_held = random.Random(5), 0, 0
    for _ in range(200):
        turns = compressor_turns(generator, 16, 0.3, 6, "focused", "any")
        for turn in turns:
            question = turn.prompt.rpartition("Question: ")[2]
            if COMPUTING.search(question):
                asked += 1
                all_held += len(NUMBERS.findall(turn.reply)) == (3 if "above" in question else 2)
    assert asked > 200 and all_held == asked


def test_shares_are_what_they_are_said_to_be() -> None:
    generator = random.Random(6)
    drawn = [compressor_turns(generator, 16, 0.0, 8, "wordy", "any") for _ in range(600)]
    qualified = [any(f" {part} " in turn.reply for part in QUALIFIERS for turn in turns) for turns in drawn]
    assert np.mean(qualified) == pytest.approx(QUALIFIED, abs=0.06)
    with_numbers = [turn for turns in drawn for turn in turns]
    computing = [bool(COMPUTING.search(turn.prompt.rpartition("Question: ")[2])) for turn in with_numbers]
    assert COMPUTED - 0.06 < np.mean(computing) < COMPUTED + 0.03


def test_what_is_stated_is_all_that_a_member_is_asked_by_default() -> None:
    generator = random.Random(7)
    for _ in range(100):
        turns = [*compressor_turns(generator, 16, 0.0, 6), *predictor_turns(generator, 6)]
        assert not any(COMPUTING.search(turn.prompt.rpartition("Question: ")[2]) for turn in turns)
        assert not any(f" {part} " in turn.reply for part in QUALIFIERS for turn in turns)
