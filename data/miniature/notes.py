"""Embedded patient notes, after LongHealth: word lists and wordings."""

from data.miniature.shape import Relation, Shape, words

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
