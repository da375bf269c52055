"""How many sentences messages have, and how many of them have as many as were asked for.

The study asks for exactly 3, 6 or 9 (He et al., arXiv 2512.21720); ``EvaluatedConfig.sentences`` puts the same request.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from eval.analysis.significance import BOOTSTRAP, SHARE, Bootstrap, clustered_mean, interval
from eval.record import BaseRecord, cluster


def obedience(records: Sequence[BaseRecord], asked: int, bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, Any]:
    """How far messages keep to the number of sentences that was asked for.

    Args:
        records: the records of one stage, each with ``task``, ``document_id`` and ``message_sentences``: those of its
            message, one number a part where the document was compressed in parts, since each part is asked alone.
        asked: for how many.
        bootstrap: how documents are resampled.

    Returns:
        ``asked``; ``obeyed``, the share of the messages with exactly so many, in every part; ``sentences``, the mean of
        a part; both with their 95% intervals by document; ``n`` messages; ``counts``, how many parts have how many.

    Raises:
        ValueError: there are no records, or one without any part.
    """
    if empty := [record["id"] for record in records if not record["message_sentences"]]:
        raise ValueError(f"record {empty[0]!r} has no message whose sentences could be counted")
    clusters = [cluster(record) for record in records]
    counted = [record["message_sentences"] for record in records]
    obeyed = [float(all(count == asked for count in counts)) for counts in counted]
    means = [sum(counts) / len(counts) for counts in counted]
    figures = {
        name: interval(clustered_mean(values, clusters, bootstrap, limits)).as_dict()
        for name, values, limits in (("obeyed", obeyed, SHARE), ("sentences", means, None))
    }
    counts = Counter(count for counts in counted for count in counts)
    return {"asked": asked, **figures, "n": len(records), "counts": {str(n): counts[n] for n in sorted(counts)}}
