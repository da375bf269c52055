"""Training: GRPO on the compressor's adapter, between two evaluations."""
