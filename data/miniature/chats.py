"""Embedded chat sessions, after WildChat: word lists and wordings."""

from data.miniature.shape import Relation, Shape, words

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
