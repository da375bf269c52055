"""Embedded web pages, after FineWeb: word lists and wordings."""

from data.miniature.shape import Relation, Shape, words

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
