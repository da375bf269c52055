"""The messages of a step: written by the policy itself or by vLLM, and whether the two are one model."""
