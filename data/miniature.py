"""The embedded five-task suite: seeded documents in natural-looking English whose every fact is known.

Each task mirrors one of the five real ones in shape: patient notes with multiple-choice questions (LongHealth), filings
with tables and numeric answers (FinanceBench), papers with span, yes/no and unanswerable questions (QASPER), web pages
with extractive and open tasks (FineWeb), chat sessions with memory questions (WildChat). Every question carries
counterfactual twins of its document: the same text with only the answer-bearing fact changed.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Literal

from data.sample import Document, Question

VERSION = 2
"""Of the documents and questions: the same version and arguments give the same bytes."""

DEFAULT_FACTS = 24
"""Facts a document states."""

DEFAULT_FILLER = 0.6
"""Probability of a sentence that states no fact behind each one that does."""

SPARE_KEYS = 4
"""Keys that even the longest document leaves out, so that there is something it does not answer."""

Split = Literal["train", "test"]
ValueType = Literal["number", "name", "yes_no"]


def words(text: str) -> tuple[str, ...]:
    """The words of a list written with spaces."""
    return tuple(text.split())


FIRST_SYLLABLES = words(
    "Bal Ber Bol Cal Cor Dal Del Dor Fal Fen Gar Gil Hal Hen Hol Jar Jon Kal Kel Kor Lan Lor Lun Mal Mar Mel Mor Nal "
    "Nor Pal Pel Pol Ral Ren Rol Sal Sel Sor Tal Ten Tol Tor Ulm Val Ver Vol Wal Wen Wil Yar Zan Zel Zor Bram Crom "
    "Drev Flin Grat Klos Prin Stel Trov"
)
SECOND_SYLLABLES = words(
    "bex dak dim fop gat gix hup jev kesh kip lodd mox neb nuck pim quat rax sopp tiv tuz vack vish wopp yod zeth "
    "bruk crit drup flom glim plit skev"
)


@dataclass(frozen=True)
class Relation:
    """A kind of fact: what can be asked about, the type of its value, and the ways to write it down.

    ``document`` and ``questions`` end with the wording that only the ``test`` split uses. ``statement`` is the plain
    sentence in which a message restates the fact; ``metric`` scores an answer.
    """

    keys: tuple[str, ...]
    value: ValueType
    document: tuple[str, ...]
    questions: tuple[str, ...]
    statement: str
    metric: str
    kind: str


@dataclass(frozen=True)
class Shape:
    """One of the five kinds of document."""

    name: str
    header: str
    fillers: tuple[str, ...]
    relations: tuple[Relation, ...]
    separator: str = " "
    sections: tuple[str, ...] = ()

    @property
    def max_facts(self) -> int:
        """The most facts a document can state: every key but ``SPARE_KEYS``."""
        return sum(len(relation.keys) for relation in self.relations) - SPARE_KEYS


@dataclass(frozen=True)
class Fact:
    """One fact of one document: ``key`` has ``value``, written with ``template``."""

    key: str
    value: str
    relation: Relation = field(repr=False)
    template: str = field(repr=False)

    @property
    def sentence(self) -> str:
        """The fact as the document words it."""
        return self.template.format(k=self.key, v=self.value)

    @property
    def statement(self) -> str:
        """The fact as a message restates it."""
        return self.relation.statement.format(k=self.key, v=self.value)


@dataclass(frozen=True)
class Layout:
    """Everything a document is rendered from, so that a twin differs in one value and in nothing else.

    ``order`` interleaves facts (their index) and filler or section texts.
    """

    shape: Shape
    split: Split
    title: tuple[str, str]
    facts: tuple[Fact, ...]
    order: tuple[int | str, ...]

    def render(self) -> str:
        """The document's text."""
        parts = [part if isinstance(part, str) else self.facts[part].sentence for part in self.order]
        return self.shape.header.format(a=self.title[0], b=self.title[1]) + "\n" + self.shape.separator.join(parts)

    def with_value(self, index: int, value: str) -> "Layout":
        """The same layout with one fact's value replaced."""
        facts = list(self.facts)
        facts[index] = replace(facts[index], value=value)
        return replace(self, facts=tuple(facts))


NOTES = Shape(
    name="miniature/notes",
    header="Patient record of Ms {a}, ward {b}.",
    fillers=(
        "She slept well and had no complaints.",
        "The wound was clean and dry.",
        "Blood pressure was checked twice.",
        "The family visited in the afternoon.",
        "She walked the corridor without help.",
        "Diet was advanced as tolerated.",
        "The next visit was planned.",
        "No fever overnight.",
        "She asked about the parking places and the visiting hours.",
        "The dressing was changed this morning and stays in place until the evening round.",
        "Lungs clear on both sides, abdomen soft, no pain on pressure.",
        "She was seen by the ward team together with the physiotherapist.",
        "A copy of this letter goes to the general practitioner.",
        "The monitor showed a regular rhythm through the whole night.",
        "She prefers the window side and keeps the light on while reading.",
        "We spoke at length about going home and about help in the household.",
        "The results of the earlier visit were not at hand.",
        "Stairs are possible with one pause on each floor.",
        "Consent was given after a talk in which all open points were cleared.",
        "There is nothing new to report since the last entry.",
    ),
    sections=("Admission note.", "Progress note.", "Laboratory report.", "Discharge letter."),
    relations=(
        Relation(
            keys=words(
                "potassium sodium glucose creatinine ferritin albumin bilirubin calcium lipase troponin lactate "
                "magnesium phosphate urea insulin cortisol protein hemoglobin cholesterol amylase zinc iron folate "
                "thyroxine"
            ),
            value="number",
            document=(
                "The {k} was {v}.",
                "Today the {k} came to {v}.",
                "Her {k} measured {v}.",
                "Laboratory: {k} {v}.",
                "We found a {k} of {v}.",
                "On control the {k} stood at {v}.",
            ),
            questions=("What was the {k}?", "What did the {k} come to?", "Which value did the {k} have?"),
            statement="The {k} was {v}.",
            metric="multiple_choice",
            kind="choice",
        ),
        Relation(
            keys=words(
                "asthma gout migraine eczema reflux anemia insomnia psoriasis arthritis bronchitis sinusitis "
                "hypertension nausea vertigo cough edema"
            ),
            value="name",
            document=(
                "For the {k} she takes {v}.",
                "The {k} was treated with {v}.",
                "Her {k} needs {v}.",
                "Plan for the {k}: {v}.",
                "Against the {k} we gave {v}.",
            ),
            questions=(
                "What is the drug for the {k}?",
                "What does she take for the {k}?",
                "Which drug treats the {k}?",
            ),
            statement="The {k} needs {v}.",
            metric="multiple_choice",
            kind="choice",
        ),
    ),
)

FILINGS = Shape(
    name="miniature/filings",
    header="Annual report of {a} Group, form {b}.",
    fillers=(
        "The board approved the plan.",
        "Results reflect market conditions.",
        "Management expects stable demand.",
        "See the notes to the statements.",
        "Figures are in millions.",
        "Prior periods were not restated.",
        "The policy did not change.",
        "Risks are described elsewhere.",
        "The statements were prepared under the same principles as in the year before.",
        "Our people are the reason for the progress that we made this year.",
        "Forward looking statements are subject to uncertainty and may prove wrong.",
        "The segment was affected by weather and by a late start of the season.",
        "Comparable figures are shown where they were available.",
        "We continue to invest in our plants and in the training of our staff.",
        "No event after the balance sheet date needs to be disclosed.",
        "The committee met several times and reviewed the controls.",
        "Exchange rates had only a small effect on the group.",
        "Customers stayed with us although prices moved up in the spring.",
        "Amounts may not add up because of rounding.",
        "The company operates in one segment and in several regions.",
    ),
    sections=("Results of operations.", "Balance sheet.", "Cash flows.", "Notes."),
    relations=(
        Relation(
            keys=words(
                "revenue inventory goodwill depreciation payroll dividend tax debt equity cash turnover surplus rent "
                "royalty interest backlog capex margin pension lease provision deposit freight marketing"
            ),
            value="number",
            document=(
                "The {k} was {v} million.",
                "\n| {k} | {v} |\n",
                "The {k} rose to {v} million.",
                "The {k} fell to {v} million.",
                "\n| total {k} | {v} |\n",
                "We report a {k} of {v} million.",
            ),
            questions=("What was the {k}?", "How large was the {k}?", "How many millions was the {k}?"),
            statement="The {k} was {v} million.",
            metric="numeric",
            kind="numeric",
        ),
        Relation(
            keys=words("auditor lender landlord insurer chairman treasurer supplier custodian broker notary"),
            value="name",
            document=(
                "The {k} is {v}.",
                "Our {k} remains {v}.",
                "The {k}, {v}, was confirmed.",
                "As {k} we chose {v}.",
            ),
            questions=("Who is the {k}?", "What is the name of the {k}?", "Which name has the {k}?"),
            statement="The {k} is {v}.",
            metric="exact",
            kind="name",
        ),
    ),
)

PAPERS = Shape(
    name="miniature/papers",
    header="{a}: a study, version {b}.",
    fillers=(
        "We follow prior work here.",
        "Details are in the appendix.",
        "Results are averaged over seeds.",
        "This setting is standard.",
        "We leave this to future work.",
        "The gap is small.",
        "All runs used one machine.",
        "Related work is discussed below.",
        "To our knowledge this has not been tried before in this form.",
        "An error analysis shows that most mistakes come from rare words.",
        "We thank the reviewers for comments that improved the text.",
        "The second column of the table repeats the experiment without the extra signal.",
        "Training takes a few hours and fits into the memory of a small machine.",
        "These findings agree with what was seen on other languages.",
        "The method has one knob, which we set by hand on held out material.",
        "We describe the procedure in detail so that it can be repeated.",
        "The difference is significant under a paired test.",
        "As shown in the figure, the curve flattens towards the end.",
        "We stress that the aim is understanding and not a higher score.",
        "Some examples were removed because they were broken.",
    ),
    sections=("Introduction.", "Method.", "Experiments.", "Conclusion."),
    relations=(
        Relation(
            keys=words(
                "encoder corpus baseline optimizer tokenizer parser dataset decoder benchmark toolkit tagger embedding"
            ),
            value="name",
            document=(
                "The {k} is {v}.",
                "As {k} we use {v}.",
                "Our {k} was {v}.",
                "For the {k} we chose {v}.",
                "We rely on the {k} {v}.",
            ),
            questions=("What is the {k}?", "Which {k} is used?", "What do they use as {k}?"),
            statement="The {k} is {v}.",
            metric="qasper_f1",
            kind="span",
        ),
        Relation(
            keys=words("epochs layers sentences annotators speakers questions dialogues tweets parameters tables"),
            value="number",
            document=(
                "The number of {k} is {v}.",
                "For {k} we report {v}.",
                "The count of {k} was {v}.",
                "Regarding {k}, there were {v}.",
            ),
            questions=("How many {k} are there?", "What is the number of {k}?", "What is the count of {k}?"),
            statement="The number of {k} is {v}.",
            metric="qasper_f1",
            kind="span",
        ),
        Relation(
            keys=words("code weights license ethics slides video demo survey translation logs"),
            value="yes_no",
            document=(
                "Checklist, {k}: {v}.",
                "For {k} the answer is {v}.",
                "Released {k}: {v}.",
                "On {k} the form says {v}.",
            ),
            questions=("Is there {k}?", "Do the authors give {k}?", "Do they provide {k}?"),
            statement="The {k} is {v}.",
            metric="qasper_f1",
            kind="yes_no",
        ),
    ),
)

PAGES = Shape(
    name="miniature/pages",
    header="Welcome to {a}, page {b}.",
    fillers=(
        "Visitors come in every season.",
        "Tickets are sold at the gate.",
        "Bring good shoes.",
        "The view is worth the walk.",
        "Dogs are welcome.",
        "Read more in our letter.",
        "The path is easy.",
        "Photos are allowed.",
        "In the morning the square is quiet and the light is at its best.",
        "Buses leave from the main road every half hour until late in the evening.",
        "Children find a playground behind the old wall.",
        "The river was moved after the great flood, and the town grew around it.",
        "Please leave the gates as you found them.",
        "A small shop sells maps, postcards and cold drinks.",
        "Most people stay for a day, but the place deserves a whole weekend.",
        "The festival fills the streets in early summer.",
        "Volunteers keep the trail clear of branches and stones.",
        "From the hill one sees the lake and, on clear days, the mountains.",
        "Opening times change with the season, so look at the board first.",
        "We update this page whenever something new comes to our ears.",
    ),
    sections=("History.", "Places.", "People.", "Practical matters."),
    relations=(
        Relation(
            keys=words(
                "bakery museum harbour bridge library tower market chapel garden theatre station castle mill school "
                "hospital fountain"
            ),
            value="number",
            document=(
                "The {k} is at number {v}.",
                "Find the {k} at {v}.",
                "The old {k} has number {v}.",
                "Our {k}, number {v}, is open.",
            ),
            questions=(
                "What is the number of the {k}?",
                "Write a short note about the {k}.",
                "At which number is the {k}?",
            ),
            statement="The {k} is at {v}.",
            metric="contains",
            kind="extractive",
        ),
        Relation(
            keys=words("mayor painter guide baker teacher captain poet priest gardener singer doctor smith"),
            value="name",
            document=(
                "The {k} is called {v}.",
                "The {k} was {v}.",
                "Ask the {k}, {v}.",
                "Our {k} is named {v}.",
            ),
            questions=("Who is the {k}?", "Write a short note about the {k}.", "What is the {k} called?"),
            statement="The {k} is {v}.",
            metric="contains",
            kind="extractive",
        ),
    ),
)

CHATS = Shape(
    name="miniature/chats",
    header="Chat history of {a}, account {b}.",
    fillers=(
        "Assistant: Thank you, noted.",
        "Assistant: Happy to help.",
        "User: What a day.",
        "Assistant: Tell me more.",
        "User: Let us talk about the weather.",
        "Assistant: It will be fine.",
        "User: I am tired.",
        "Assistant: Take a rest.",
        "User: I have been thinking about what to cook tonight.",
        "Assistant: A soup is quick, and you can keep the rest for tomorrow.",
        "User: Do you think that I should start running again?",
        "Assistant: Start slowly, and stop when it hurts.",
        "User: The train was late again and I stood in the rain.",
        "Assistant: That sounds unpleasant, I hope that you are dry by now.",
        "User: Can you help me with a letter later on?",
        "Assistant: Of course, just paste it here when you are ready.",
        "User: I watched an old film and fell asleep before the end.",
        "Assistant: Then you have something to look forward to.",
        "User: Thanks, that was all for the moment.",
        "Assistant: You are welcome, come back at any time.",
    ),
    sections=("Session on Monday.", "Session on Tuesday.", "Session on Friday.", "Session on Sunday."),
    separator="\n",
    relations=(
        Relation(
            keys=words(
                "sister brother dog cat boss dentist neighbour cousin uncle aunt tutor nurse friend horse parrot "
                "roommate"
            ),
            value="name",
            document=(
                "User: My {k} is called {v}.",
                "User: The {k} I have is {v}.",
                "User: I met my {k} {v}.",
                "User: You know my {k}, {v}.",
            ),
            questions=("What is my {k} called?", "Who is my {k}?", "What was the name of my {k}?"),
            statement="The {k} is {v}.",
            metric="exact",
            kind="memory",
        ),
        Relation(
            keys=words("locker flat seat hotel gate invoice ticket password parcel bike badge garage booking cabin"),
            value="number",
            document=(
                "User: My {k} has number {v}.",
                "User: The {k} is {v}.",
                "User: Remember my {k}: {v}.",
                "User: I got the {k} {v}.",
            ),
            questions=("What is my {k}?", "Which number has my {k}?", "What was the number of my {k}?"),
            statement="The {k} is {v}.",
            metric="numeric",
            kind="memory",
        ),
    ),
)

SHAPES: dict[str, Shape] = {shape.name: shape for shape in (NOTES, FILINGS, PAPERS, PAGES, CHATS)}
UNANSWERABLE = "Unanswerable"
NOT_STATED = "The {k} is not stated."
OPEN_QUESTION = "Write a short note about the {k}."
OPEN_ANSWER = "Dear reader, the {k}: {v}. Best wishes."


def held_out_name(first: int, second: int) -> bool:
    """Whether the name of these two syllables belongs to the test split."""
    return (first * 7 + second * 3) % 5 == 0


def held_out_number(key: str, number: int) -> bool:
    """Whether this number as this key's value belongs to the test split: every number is known, the pair is not."""
    return (sum(key.encode()) + number) % 5 == 0


class Values:
    """Draws values that are distinct within one document: names by their first syllable, two-digit numbers as such."""

    def __init__(self, generator: random.Random, split: Split) -> None:
        """Start with every first part unused."""
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
        number = next(n for n in self.numbers if held_out_number(key, n) == self.held_out)
        self.numbers.remove(number)
        return str(number)

    def fork(self) -> "Values":
        """A copy to draw from without using up this one: twins of different questions may share values."""
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
    """A wording of the split: the last is held out for the test split, which uses it half of the time."""
    if split == "test" and generator.random() < 0.5:
        return choices[-1]
    return generator.choice(choices[:-1])


def make_layout(shape: Shape, seed: int, split: Split, facts: int, filler: float) -> tuple[Layout, Values]:
    """Draw a document: which facts, their values and wordings, and the filler between them.

    Args:
        shape: what kind of document.
        seed: the document.
        split: ``test`` draws from what is held out.
        facts: how many facts it states; more than ``shape.max_facts`` are that many.
        filler: probability of a filler sentence behind each fact.

    Returns:
        The layout, and the values it has left to draw from.
    """
    generator = random.Random(f"{shape.name}/{split}/{seed}/{facts}")
    values = Values(generator, split)
    title = (values.name(), values.number("title"))
    pairs = [(relation, key) for relation in shape.relations for key in relation.keys]
    chosen = generator.sample(pairs, min(facts, shape.max_facts))
    drawn = tuple(
        Fact(key, values.draw(relation.value, key), relation, wording(relation.document, split, generator))
        for relation, key in chosen
    )
    order: list[int | str] = []
    per_section = max(4, -(-len(drawn) // len(shape.sections)))
    for index in range(len(drawn)):
        if index % per_section == 0:
            order.append("\n" + shape.sections[index // per_section % len(shape.sections)])
        order.append(index)
        if generator.random() < filler:
            order.append(generator.choice(shape.fillers))
    return Layout(shape, split, title, drawn, tuple(order)), values


def options_for(layout: Layout, index: int, values: Values, generator: random.Random) -> tuple[str, ...]:
    """Five options of the fact's type: the right one, others of the same document first."""
    fact = layout.facts[index]
    others = [f.value for i, f in enumerate(layout.facts) if i != index and f.relation.value == fact.relation.value]
    others = generator.sample(others, min(4, len(others)))
    others += [values.draw(fact.relation.value, fact.key) for _ in range(4 - len(others))]
    return tuple(generator.sample([fact.value, *others], 5))


def twin_values(fact: Fact, values: Values, count: int) -> list[str]:
    """Other values the fact could have had: all different; a yes/no fact has only one."""
    if fact.relation.value == "yes_no":
        return ["no" if fact.value == "yes" else "yes"]
    return [values.draw(fact.relation.value, fact.key) for _ in range(count)]


def ask(layout: Layout, index: int, values: Values, generator: random.Random, twins: int) -> Question:
    """The question about one fact of the document, with its counterfactual twins."""
    fact, relation = layout.facts[index], layout.facts[index].relation
    text = wording(relation.questions, layout.split, generator).format(k=fact.key)
    is_open = text == OPEN_QUESTION.format(k=fact.key)
    is_choice = relation.metric == "multiple_choice"
    return Question(
        id=f"{index}-{fact.key}",
        text=text,
        answers=(OPEN_ANSWER.format(k=fact.key, v=fact.value) if is_open else fact.value,),
        metric="exact" if is_open else relation.metric,
        options=options_for(layout, index, values, generator) if is_choice else (),
        kind="open" if is_open else relation.kind,
        evidence=(fact.sentence.strip(),),
        negatives=tuple(layout.with_value(index, value).render() for value in twin_values(fact, values, twins)),
    )


def absent_keys(layout: Layout) -> list[tuple[Relation, str]]:
    """What the document could have stated and does not; a yes/no question always has an answer to guess."""
    present = {fact.key for fact in layout.facts}
    return [(r, k) for r in layout.shape.relations for k in r.keys if k not in present and r.value != "yes_no"]


def ask_absent(layout: Layout, generator: random.Random, values: Values, twins: int) -> Question:
    """A question the document does not answer; its twins are documents that do.

    Raises:
        IndexError: the document leaves out nothing that can be asked (see ``absent_keys``).
    """
    relation, key = generator.choice(absent_keys(layout))
    template = wording(relation.document, layout.split, generator)
    negatives = []
    for _ in range(twins):
        fact = Fact(key, values.draw(relation.value, key), relation, template)
        place = generator.randrange(1, len(layout.order))
        order = (*layout.order[:place], len(layout.facts), *layout.order[place:])
        negatives.append(replace(layout, facts=(*layout.facts, fact), order=order).render())
    return Question(
        id=f"absent-{key}",
        text=wording(relation.questions, layout.split, generator).format(k=key),
        answers=(UNANSWERABLE,),
        metric="qasper_f1",
        kind="unanswerable",
        negatives=tuple(negatives),
    )


def make_document(
    task: str,
    seed: int,
    split: Split,
    facts: int = DEFAULT_FACTS,
    filler: float = DEFAULT_FILLER,
    questions: int | None = None,
    twins: int = 3,
) -> Document:
    """One document with its questions.

    Args:
        task: a key of ``SHAPES``.
        seed: the document; the same arguments give the same document.
        split: ``test`` holds out names, numbers and wordings.
        facts: how many facts the document states; more than the shape's ``max_facts`` are that many.
        filler: probability of a filler sentence behind each fact.
        questions: how many of the facts are asked, all by default. About a tenth of a paper's questions ask for a fact
            it does not state; where two of these are the same, the document has one question fewer.
        twins: counterfactual twins a question; a yes/no question has one.
    """
    layout, values = make_layout(SHAPES[task], seed, split, facts, filler)
    generator = values.generator
    count = len(layout.facts) if questions is None else min(questions, len(layout.facts))
    asked = []
    for index in generator.sample(range(len(layout.facts)), count):
        absent = task == PAPERS.name and generator.random() < 0.1 and bool(absent_keys(layout))
        fork = values.fork()
        asked.append(
            ask_absent(layout, generator, fork, twins) if absent else ask(layout, index, fork, generator, twins)
        )
    unique = {question.id: question for question in asked}
    return Document(f"{split}-{seed}", task, layout.render(), tuple(unique.values()), group=f"{split}-{seed}")


def make_documents(
    task: str,
    first_seed: int,
    count: int,
    split: Split,
    facts: int = DEFAULT_FACTS,
    filler: float = DEFAULT_FILLER,
    questions: int | None = None,
    twins: int = 3,
) -> list[Document]:
    """``count`` documents of consecutive seeds from ``first_seed`` on; the rest as for ``make_document``."""
    seeds = range(first_seed, first_seed + count)
    return [make_document(task, seed, split, facts, filler, questions, twins) for seed in seeds]
