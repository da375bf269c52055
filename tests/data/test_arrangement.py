"""Documents as the scorer reads them: as they are, or with the evidence at the end."""

from collections import Counter

import pytest

from data.arrangement import AS_IT_IS, LAST, Arrangement, arranged, arranged_by_text
from data.rivals import candidates
from data.sample import Document, Question
from data.twins import REMOVED, VALUE, Twins, counted
from data.typed_values import values
from models.loading import load_tokenizer
from models.prompts import CompressorPrompts
from models.shared_prefix.token_tree import Leaf, lay_out
from objectives.negatives import NegativeCounts
from tests.data.test_twins import SHIPS, TWINS


def chat() -> Document:
    text = (
        "Chat of Ann and Bob\n\n"
        "Ann: It rained. We went to the zoo in Bern on Friday.\n"
        "Bob: Nice! I was in the zoo in Bern as well. It was in May.\n"
        "Ann: I like May."
    )
    asked = Question("zoo", "Where is the zoo?", ("Bern",), "exact")
    return Document("chat", "records", text, (asked,))


def test_the_evidence_comes_last_and_nothing_is_lost() -> None:
    for document in SHIPS:
        for question in document.questions:
            read = arranged(document, question, LAST)
            assert read.evidence is not None
            assert Counter(read.text.split()) == Counter(document.text.split())
            assert read.evidence.spans[-1][1] == len(read.text)
            assert read.text[: read.evidence.spans[0][0]].endswith("\n\n")
            in_place = arranged(document, question, AS_IT_IS)
            assert in_place.text == document.text
            assert [p.strip() for p in read.passages] == [p.strip() for p in in_place.passages]
            assert [read.text[slice(*span)] for span in read.evidence.answers] == [
                answer for answer in question.answers if answer != "Yes"
            ]


def test_sentences_of_a_dialogue_keep_their_speakers_and_their_lines() -> None:
    document = chat()
    read = arranged(document, document.questions[0], LAST)
    assert read.text == (
        "Chat of Ann and Bob\n\nAnn: It rained.\nBob: Nice! It was in May.\nAnn: I like May.\n\n"
        "Ann: We went to the zoo in Bern on Friday.\nBob: I was in the zoo in Bern as well."
    )


@pytest.mark.parametrize(
    "text", ["", " \n", "The town is Oslo.", "The town is Oslo.  \n", "Nothing of the kind.", "東京"]
)
def test_a_text_without_evidence_or_without_anything_else_stays_as_it_is(text: str) -> None:
    question = Question("q", "Which town is it?", ("Oslo",), "exact")
    assert arranged(Document("d", "records", text, (question,)), question, LAST).text == text


def test_twins_with_the_evidence_last_begin_as_the_document_up_to_its_evidence() -> None:
    for document in SHIPS:
        for question in document.questions:
            read = arranged(document, question, LAST)
            assert read.evidence is not None
            rest = read.text[: read.evidence.spans[0][0]].rstrip()
            twins = TWINS.of(document, question, 40, 0, LAST)
            texts = [twin.text for twin in twins]
            assert all(text.startswith(rest) for text in texts)
            assert len({read.text, *texts}) == len(texts) + 1 > 10
            assert [twin.text for twin in twins if twin.change == REMOVED] == [rest]
            assert set(counted(twins)) == set(counted(TWINS.of(document, question, 40, 0)))


def test_with_the_evidence_last_a_value_is_exchanged_in_the_evidence_alone_and_those_of_it_alone_first() -> None:
    bridge = "Its bridge in Vilnius is 240 feet long."
    text = f"Letters of Vilnius\n\nThe town of Vilnius was old. It is quiet there. {bridge} Many go there."
    question = Question("q", "Is the bridge long?", ("Yes",), "exact", evidence=(bridge,))
    lender = Document("e", "records", "We saw the castle in Krakow.", ())
    document = Document("d", "records", text, (question,))
    twins = Twins([document, lender]).of(document, question, 500, 0, LAST)
    changed = [twin.text for twin in twins if twin.change == VALUE]
    assert ["Krakow" in text for text in changed] == [False] * (len(changed) - 1) + [True] and len(changed) > 10
    assert "The town of Vilnius was old" in changed[-1] and "bridge in Krakow" in changed[-1]
    kinds = [value.kind for value in values(arranged(document, question, LAST).text)]
    assert all([value.kind for value in values(text)] == kinds for text in changed[:-1])


def test_twins_cost_a_token_tree_little_with_the_evidence_last() -> None:
    prompts = CompressorPrompts(load_tokenizer("miniature/qwen2-small"), 1 << 20)
    filler = "The road along the river is quiet there, and nobody goes by at night. " * 20
    document = Document("d", "records", f"{SHIPS[0].text}{filler}", SHIPS[0].questions)
    question = document.questions[0]

    def tokens(texts: list[str]) -> int:
        stems = [(prompts.prefix(text)[0], Leaf((number, 0), [0])) for number, text in enumerate(texts)]
        return sum(len(one.ids) for one in lay_out(stems, 1 << 20))

    own = tokens([document.text])
    in_place = [twin.text for twin in TWINS.of(document, question, 16, 0)]
    last = [twin.text for twin in TWINS.of(document, question, 16, 0, LAST)]
    read = arranged(document, question, LAST).text
    assert len(in_place) == len(last) == 16
    assert tokens([document.text, *in_place]) > 10 * own
    assert tokens([read, *last]) < 3 * own


def test_columns_of_other_documents_are_read_for_a_question_of_theirs_and_versions_lose_the_moved_evidence() -> None:
    readings = arranged_by_text(tuple(SHIPS), LAST)
    own, texts = SHIPS[0], [ship.text for ship in SHIPS]
    counts = NegativeCounts(same_document=2, twins=3)
    rivals = candidates(own, own.questions[1], counts, 0, LAST, texts[:2], texts, readings, TWINS)
    assert rivals.own == arranged(own, own.questions[1], LAST).text != readings[own.text]
    # The own document is no rival, whichever question it is read for.
    assert rivals.batch == [arranged(ship, ship.questions[0], LAST).text for ship in SHIPS[1:]]
    assert rivals.neighbour == rivals.batch[:1]
    assert rivals.own.startswith(rivals.same_document[0]) and "Olaf Lund" not in rivals.same_document[0]
    assert list(rivals.twins) == [twin.text for twin in TWINS.of(own, own.questions[1], 3, 0, LAST)]


def test_a_long_document_is_read_around_its_evidence_for_all_its_columns_alike() -> None:
    fillers = [f"Sentence {number} says nothing of it." for number in range(100)]
    launch = "The ship Aurora was launched in 1871."
    text = " ".join([*fillers[:40], launch, *fillers[40:]])
    question = Question("q", "When was the ship launched?", ("1871",), "exact")
    document, arrangement = Document("d", "records", text, (question,)), Arrangement("last", 24)
    around = f"{' '.join(fillers[38:42])}\n\n"
    assert arranged(document, question, arrangement).text == around + launch
    twins = Twins([document]).of(document, question, 8, 0, arrangement)
    assert len(twins) == 8 and all(f"{twin.text}\n\n".startswith(around) for twin in twins)
    at_the_end = Document("e", "records", f"{' '.join(fillers)} {launch}", (question,))
    assert arranged(at_the_end, question, arrangement).text == f"{' '.join(fillers[96:])}\n\n{launch}"
    assert arranged(document, question, Arrangement("last", 600)).text == arranged(document, question, LAST).text
