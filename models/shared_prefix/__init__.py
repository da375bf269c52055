"""The engine: many messages scored or written after a few long contexts, every context read once.

What is imported from here is all that the rest of the code uses: log-probabilities with gradient (`token_scores`) and
without (`batched_message_log_probs`), replies (`generate`) with the seeds they are sampled by, and the types of both.
"""

from models.shared_prefix.checked import batched_message_log_probs, generate, require_agreement, token_scores
from models.shared_prefix.generation import Reply, sampling_seed
from models.shared_prefix.scoring import MAX_TOKENS_PER_PASS, Continuation, TokenScores

__all__ = [
    "MAX_TOKENS_PER_PASS",
    "Continuation",
    "Reply",
    "TokenScores",
    "batched_message_log_probs",
    "generate",
    "require_agreement",
    "sampling_seed",
    "token_scores",
]
