"""Embedded filings, after FinanceBench: word lists and wordings."""

from data.miniature.shape import Relation, Shape, words

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
