"""Embedded papers, after QASPER: word lists and wordings."""

from data.miniature.shape import Relation, Shape, words

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
