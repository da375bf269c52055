"""Names, numbers and dates found in texts, and exchanged for others of their type."""

import random

import pytest

from data.typed_values import exchanged, values
from data.value_choice import others, pools_of

TEXT = (
    "The harbour of Ostrava\n\nOn 14 March 1962 the harbour was opened by Anna Novak, who paid $2,450,000. In 1987 "
    "about 12% of its 340 ships came from abroad, many of these from the docks in Lisbon. Novak said that two ships "
    "of the 3rd fleet, which left at 9:45, were lost (see Table 3). Its owner is Karel Havel's company."
)


def kinds(text: str) -> dict[str, str]:
    """The kind of every value of a text, by its characters."""
    return {value.text: value.kind for value in values(text)}


def first(text: str, wanted: str) -> str:
    """The key of a value."""
    return next(value.key for value in values(text) if value.text == wanted)


def test_values_are_found_with_their_types() -> None:
    found = kinds(TEXT)
    assert (
        found.items()
        >= {
            "14": "day",
            "March": "month",
            "1962": "year",
            "2,450,000": "money",
            "1987": "year",
            "12": "percent",
            "340": "count",
            "two": "spelled",
            "3": "ordinal",
            "9:45": "clock",
            "Lisbon": "place",
            "Anna Novak": "name",
            "Karel Havel": "name",
        }.items()
    )


@pytest.mark.parametrize(
    "text",
    [
        "It may be seen in Table 3 and in Section 4.2 of the paper.",
        "They march on, as others did [12, 14] before.",
        "See https://example.org/2019/12 for more.",
        "BACKGROUND AND AIMS",
        "Results of the Second Study",
        "The rest is silence. However it goes on.",
        "Net Sales | Gross Profit | Other",
        "It was as follows, BACKGROUND first: the rest was told by the Company itself.",
    ],
)
def test_what_only_looks_like_a_value_is_none(text: str) -> None:
    assert values(text) == ()


def test_every_occurrence_of_a_value_is_exchanged_with_and_without_its_unit() -> None:
    text = "Sales | $35,842 | 87\nSales were 35,842 in all, not 135,842 or 35,842.5, and 87 were late."
    changed = exchanged(text, first(text, "35,842"), "41,907")
    assert changed == "Sales | $41,907 | 87\nSales were 41,907 in all, not 135,842 or 35,842.5, and 87 were late."


def test_a_short_number_is_another_value_with_another_unit() -> None:
    text = "Of 12 patients 12% fell ill, the other patients did not. All 12 patients were old."
    assert exchanged(text, first(text, "12"), "15") == text.replace("12 patients", "15 patients")


def test_a_name_is_exchanged_wherever_it_stands_and_so_is_its_last_word() -> None:
    text = "We met Ada Lovelace. Lovelace wrote of engines, and Ada Lovelace's notes are read. Yes, Lovelace again."
    expected = text.replace("Ada Lovelace", "Mary Somerville").replace("Lovelace", "Somerville")
    assert exchanged(text, first(text, "Ada Lovelace"), "Mary Somerville") == expected


def test_a_part_of_a_longer_word_or_name_is_left_alone() -> None:
    text = "He saw Rome and then New Rome and the Romero house in Rome."
    assert exchanged(text, first(text, "Rome"), "Oslo") == "He saw Oslo and then New Rome and the Romero house in Oslo."


def test_a_capital_stays_a_capital() -> None:
    text = "Two men came. The two men left."
    assert exchanged(text, first(text, "Two"), "seven") == "Seven men came. The seven men left."


@pytest.mark.parametrize(
    ("text", "wanted", "plausible"),
    [
        ("It was in 1987 again.", "1987", lambda new: len(new) == 4 and 1975 <= int(new) <= 1999),
        ("It rose by 7.5% then.", "7.5", lambda new: "." in new and 3.7 <= float(new) <= 15),
        ("It cost $2,450,000 then.", "2,450,000", lambda new: len(new) == 9 and new.endswith("0,000")),
        ("He left on 14 March 1962.", "14", lambda new: 10 <= int(new) <= 28),
        (
            "He left in March 1962.",
            "March",
            lambda new: new in ("January", "July", "May", "August") or new[0].isupper(),
        ),
        ("All of 98% were well.", "98", lambda new: 49 <= int(new) <= 99),
        ("The odds were 0.06 there.", "0.06", lambda new: new.startswith("0.") and len(new) == 4),
        ("We left at 9:45 again.", "9:45", lambda new: 1 <= int(new.split(":")[0]) <= 12),
        (
            "It took eleven days then.",
            "eleven",
            lambda new: new in "two three four five six seven eight nine ten twelve",
        ),
    ],
)
def test_a_number_becomes_another_of_its_type_and_format(text: str, wanted: str, plausible: object) -> None:
    assert callable(plausible)
    value = next(value for value in values(text) if value.text == wanted)
    made = list(others(value, text, {}, random.Random(0)))
    assert made and wanted not in made and len(set(made)) == len(made)
    assert [new for new in made if not plausible(new)] == []


def test_names_come_from_other_texts_and_are_of_the_same_type() -> None:
    text = "They met in Lisbon with NATO and Anna Novak said little."
    pools = pools_of([text, "She was born in Madrid, and in Turin. He wrote to UNESCO. There Karel Havel said it."])
    made = {value.text: set(others(value, text, pools, random.Random(0))) for value in values(text)}
    assert made == {"Lisbon": {"Madrid", "Turin"}, "NATO": {"UNESCO"}, "Anna Novak": {"Karel Havel"}}


def test_a_value_that_the_text_has_already_is_none_that_it_is_exchanged_for() -> None:
    text = "It was in 1987, or perhaps in " + ", ".join(str(year) for year in range(1975, 1999) if year != 1987)
    value = values(text)[0]
    assert set(others(value, text, {}, random.Random(0))) <= {"1999"}


def test_other_scripts_and_odd_characters_are_read() -> None:
    text = "El río pasó por Málaga en 1987 y la señora Ángela Ñáñez volvió a Málaga. 東京は1964年に 340 🚢. ١٢٣ \ud800."
    found = kinds(text)
    assert found["Málaga"] in ("place", "name") and found["Ángela Ñáñez"] == "name" and found["340"] == "count"
    changed = exchanged(text, first(text, "Málaga"), "Cádiz")
    assert changed == text.replace("Málaga", "Cádiz")
