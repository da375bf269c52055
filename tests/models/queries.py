"""What predictors are asked in the tests, with the right answers."""

from models.predictor import Query

QUERIES = [
    Query("The zinc was 41. The iron was 52.", "What was the zinc?"),
    Query("The zinc was 41. The iron was 52.", "What was the iron?"),
    Query("The auditor is Korbex.", "Who is the auditor?"),
    Query("", "Who is the auditor?"),
    Query("The zinc was 41.", "What was the zinc?", ("12", "41", "77", "85", "93")),
]
ANSWERS = ["41", "52", "Korbex", "Korbex", "41"]
