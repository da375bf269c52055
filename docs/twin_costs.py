"""Measures what twins cost the scorer, set by set: ``python docs/twin_costs.py --model MODEL FILE.json ...``.

Files are in QASPER's layout. A row for each way to read the documents: the tokens of a document as it is; as multiples
of these the tokens of its own context, and what its twins add to a token tree of that, without and with the question
behind every version; then the twins by kind. Another document costs 1. Messages are read once a column besides, as with
any negative.
"""

import argparse
import random
import time
from collections import Counter
from pathlib import Path

from data.arrangement import AS_IT_IS, LAST, Arrangement, arranged
from data.registry import load_documents
from data.sample import Document, Sample, samples_of
from data.task import Request
from data.twins import ANSWER, REMOVED, REPLACED, VALUE, Twin, Twins
from models.loading import load_tokenizer
from models.prompts import CompressorPrompts
from models.shared_prefix.token_tree import Leaf, lay_out

KINDS = (ANSWER, REMOVED, REPLACED, VALUE)
WHOLE = 1 << 30
"""Tokens of a pass, and of a context: the whole tree at once, and no context cut."""


def tree_tokens(prompts: CompressorPrompts, texts: list[str], question: str | None) -> int:
    """Tokens of the tree of some contexts, each followed by the question where one is given."""
    suffix = [] if question is None else prompts.suffix(question)
    stems = [prompts.prefix(text)[0] + suffix for text in texts]
    # A message of one token is not read: it is predicted from what it follows.
    passes = lay_out([(stem, Leaf((number, 0), [0])) for number, stem in enumerate(stems)], WHOLE)
    return sum(len(one.ids) for one in passes)


def measured(
    prompts: CompressorPrompts, twins: Twins, samples: list[Sample], count: int, arrangement: Arrangement
) -> tuple[list[float], list[Twin]]:
    """Sums over questions, and the twins.

    The sums are tokens of the document, of its own context, of what its twins add, of the same with the question behind
    each; and seconds.
    """
    sums, every = [0.0] * 5, list[Twin]()
    for sample in samples:
        own = arranged(sample.document, sample.question, arrangement).text
        start = time.perf_counter()
        made = twins.of(sample.document, sample.question, count, 0, arrangement)
        seconds = time.perf_counter() - start
        texts, asked = [own, *(twin.text for twin in made)], sample.question.text
        alone = tree_tokens(prompts, [own], None)
        added = tree_tokens(prompts, texts, None) - alone
        with_question = tree_tokens(prompts, texts, asked) - tree_tokens(prompts, [own], asked)
        whole = tree_tokens(prompts, [sample.document.text], None)
        terms = (whole, alone, added, with_question, seconds)
        sums = [total + term for total, term in zip(sums, terms, strict=True)]
        every += made
    return sums, every


def documents_of(path: Path, prompts: CompressorPrompts) -> list[Document]:
    """The documents of a file in QASPER's layout."""
    request = Request(
        split="test",
        source=str(path),
        documents=None,
        questions_per_document=None,
        facts=None,
        seed=0,
        count_tokens=lambda text: len(prompts.format.text_ids(text)),
    )
    return load_documents("qasper", request).documents


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default="miniature/qwen2-small", help="whose tokens are counted")
    parser.add_argument("--twins", type=int, default=16, help="twins of a question")
    parser.add_argument("--questions", type=int, default=200, help="questions of a file, drawn at random")
    parser.add_argument("--words", type=int, default=150, help="information.context_words of the last row of a set")
    given = parser.parse_args()
    prompts = CompressorPrompts(load_tokenizer(given.model), WHOLE)
    print(f"| set | evidence | tokens | own | twins | twins cost | with questions | ms | {' | '.join(KINDS)} |")
    print("|---" * (8 + len(KINDS)) + "|")
    for path in given.files:
        documents = documents_of(path, prompts)
        twins, samples = Twins(documents), samples_of(documents)
        drawn = random.Random(0).sample(samples, min(given.questions, len(samples)))
        for arrangement in (AS_IT_IS, LAST, Arrangement("last", given.words)):
            (whole, *costs, seconds), made = measured(prompts, twins, drawn, given.twins, arrangement)
            kinds, number = Counter(twin.change for twin in made), len(drawn)
            own, added, asked = (f"{cost / whole:.2f}" for cost in costs)
            shares = " | ".join(f"{kinds[kind] / max(1, len(made)):.0%}" for kind in KINDS)
            read = arrangement.place.replace("_", " ") + (f", {given.words} words" if arrangement.words else "")
            print(
                f"| {path.parent.parent.name} | {read} | {whole / number:.0f} | {own} | {len(made) / number:.1f} | "
                f"{added} | {asked} | {1000 * seconds / number:.0f} | {shares} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
