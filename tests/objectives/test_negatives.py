"""The choice of negatives, and contexts with a part removed."""

import random
from collections import Counter

import pytest

from objectives.negatives import (
    Candidates,
    Columns,
    NegativeCounts,
    choose_columns,
    evidence_spans,
    part_removed,
    parts_removed,
)

PARAGRAPHS = [f"Paragraph {number} says that value {number} is {number * 7}. It says no more." for number in range(10)]
TEXT = "\n\n".join(PARAGRAPHS)


def negatives_of(columns: Columns, sample: int) -> set[str]:
    """The contexts a sample is compared with, its own left out."""
    own = int(columns.own[sample])
    return {columns.contexts[column] for column in columns.valid[sample].nonzero().flatten().tolist() if column != own}


def choose(
    own: list[str], versions: list[list[str]], n_versions: int, n_batch: int, seed: int, batch: list[str] | None = None
) -> Columns:
    """The columns of samples with these counterfactual versions and a batch of contexts, by default all of ``own``."""
    pool = own if batch is None else batch
    candidates = [Candidates(text, changed, batch=pool) for text, changed in zip(own, versions, strict=True)]
    return choose_columns(candidates, NegativeCounts(counterfactual=n_versions, batch=n_batch), seed)


def test_each_sample_gets_its_own_versions_and_others_of_the_batch() -> None:
    columns = choose(["a", "b", "c"], [["a1", "a2"], ["b1"], []], 2, 2, seed=0)
    assert [columns.contexts[column] for column in columns.own.tolist()] == ["a", "b", "c"]
    assert [negatives_of(columns, sample) for sample in range(3)] == [
        {"a1", "a2", "b", "c"},
        {"b1", "a", "c"},
        {"a", "b"},
    ]
    assert columns.valid[range(3), columns.own].all()


def test_every_kind_is_drawn_by_its_own_number() -> None:
    candidates = Candidates("own", ["c1", "c2", "c3"], ["s1", "s2"], ["n1", "n2", "n3"], ["b1", "b2", "b3", "own"])
    columns = choose_columns([candidates], NegativeCounts(2, 1, 3, 1), seed=0)
    kinds = Counter(context[0] for context in negatives_of(columns, 0))
    assert kinds == Counter(c=2, s=1, n=3, b=1)


def test_duplicates_of_a_context_are_one_column_and_never_negatives_of_each_other() -> None:
    columns = choose(["a", "a", "b"], [["a", "x", "x", "b"], [], ["x"]], 4, 4, seed=0)
    assert Counter(columns.contexts) == Counter(["a", "b", "x"])
    assert columns.own[0] == columns.own[1]
    assert [negatives_of(columns, sample) for sample in range(3)] == [{"x", "b"}, {"b"}, {"x", "a"}]


def test_no_more_negatives_are_taken_than_asked_for() -> None:
    own = [f"document {number}" for number in range(20)]
    versions = [[f"{text} changed {number}" for number in range(5)] for text in own]
    columns = choose(own, versions, 2, 3, seed=0)
    for sample, text in enumerate(own):
        negatives = negatives_of(columns, sample)
        assert len(negatives & set(versions[sample])) == 2
        assert len(negatives & (set(own) - {text})) == 3
        assert len(negatives) == 5


def test_a_context_drawn_as_one_kind_is_not_drawn_as_another() -> None:
    columns = choose(["a", "b", "c"], [["b"], [], []], 1, 1, seed=0)
    assert negatives_of(columns, 0) == {"b", "c"}


def test_the_choice_depends_on_the_seed_and_not_on_the_position_in_the_batch() -> None:
    own = [f"document {number}" for number in range(30)]
    versions: list[list[str]] = [[] for _ in own]
    whole = choose(own, versions, 0, 4, seed=1)
    half = choose(own[15:], versions[15:], 0, 4, seed=1, batch=own[::-1])
    assert [negatives_of(whole, sample) for sample in range(15, 30)] == [
        negatives_of(half, sample) for sample in range(15)
    ]
    reseeded = choose(own, versions, 0, 4, seed=2)
    assert any(negatives_of(whole, sample) != negatives_of(reseeded, sample) for sample in range(30))


def test_the_draw_is_uniform_over_the_batch() -> None:
    own = [f"document {number}" for number in range(5)]
    counts: Counter[str] = Counter()
    for seed in range(1000):
        counts.update(negatives_of(choose(own[:1], [[]], 0, 1, seed, batch=own), 0))
    # 1,000 draws among four: 250 each, standard deviation 13.7.
    assert set(counts) == set(own[1:])
    assert all(abs(count - 250) < 60 for count in counts.values())


@pytest.mark.parametrize(
    ("own", "versions", "n_versions", "n_batch"),
    [(["a", "a"], [["x"], ["a"]], 1, 1), (["b", "a"], [["x"], []], 1, 0), (["b", "a"], [["x"], ["y"]], 0, 0)],
)
def test_a_sample_without_any_negative_is_refused_by_name(
    own: list[str], versions: list[list[str]], n_versions: int, n_batch: int
) -> None:
    with pytest.raises(ValueError, match=r"^sample [01] has no negative context") as error:
        choose(own, versions, n_versions, n_batch, seed=0)
    assert "\n" not in str(error.value)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must not be negative, got \{'batch': -1\}"):
        NegativeCounts(batch=-1)


def test_parts_removed_begin_with_the_evidence_and_are_the_same_for_the_same_seed() -> None:
    removed = parts_removed(TEXT, [PARAGRAPHS[4]], 4, seed=0)
    assert removed[0] == "\n\n".join(PARAGRAPHS[:4] + PARAGRAPHS[5:])
    assert 2 <= len(set(removed)) == len(removed) <= 4
    assert removed == parts_removed(TEXT, [PARAGRAPHS[4]], 4, seed=0) != parts_removed(TEXT, [], 4, seed=1)


def test_the_paragraph_that_holds_the_evidence_is_removed_and_nothing_else() -> None:
    removed = part_removed(TEXT, ["value 4  is\n28"], random.Random(0))
    assert removed == "\n\n".join(PARAGRAPHS[:4] + PARAGRAPHS[5:])


def test_every_passage_and_every_occurrence_of_the_evidence_is_removed() -> None:
    text = "\n".join([*PARAGRAPHS, PARAGRAPHS[1]])
    removed = part_removed(text, [PARAGRAPHS[1], "FLOAT SELECTED: Table 2", PARAGRAPHS[9]], random.Random(0))
    assert removed == "\n".join([PARAGRAPHS[0], *PARAGRAPHS[2:9]])


def test_evidence_in_a_single_paragraph_takes_its_sentence() -> None:
    text = "First one. The dose is 5 mg. Third one is long. The last one is longer."
    assert (
        part_removed(text, ["dose is 5 mg"], random.Random(0))
        == "First one. Third one is long. The last one is longer."
    )


def test_evidence_without_sentences_takes_its_words() -> None:
    assert part_removed("alpha beta gamma delta", ["beta"], random.Random(0)) == "alpha gamma delta"


def test_evidence_that_is_most_of_the_text_is_still_removed() -> None:
    assert part_removed("Short. " + PARAGRAPHS[0], [PARAGRAPHS[0]], random.Random(0)) == "Short."


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        " ".join(PARAGRAPHS),
        " ".join(f"word{number}" for number in range(400)),
        "Title\n\n" + " ".join(PARAGRAPHS) + "\n\nEnd",
    ],
)
def test_without_evidence_a_random_run_of_about_a_quarter_is_removed(text: str) -> None:
    results = {part_removed(text, ["not in the text"], random.Random(seed)) for seed in range(20)}
    assert len(results) > 3
    for result in results:
        assert 0.1 < 1 - len(result) / len(text) < 0.55
        prefix = next(size for size in range(len(result), -1, -1) if text.startswith(result[:size]))
        assert text.rstrip().endswith(result[prefix:].rstrip())


def test_the_same_seed_removes_the_same_part() -> None:
    assert part_removed(TEXT, [], random.Random(3)) == part_removed(TEXT, [], random.Random(3))


@pytest.mark.parametrize(("text", "evidence"), [("", []), (" \n ", []), ("word", []), ("all of it", ["all of it"])])
def test_a_context_of_which_nothing_would_remain_is_refused(text: str, evidence: list[str]) -> None:
    with pytest.raises(ValueError, match="no part of the context can be removed"):
        part_removed(text, evidence, random.Random(0))


def test_evidence_is_found_whatever_its_white_space_and_blank_evidence_never_is() -> None:
    assert evidence_spans("a b\n c. a  b", ["a b", " "]) == [(0, 3), (8, 12)]
