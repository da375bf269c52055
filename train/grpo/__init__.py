"""TRL's GRPO with every context read once, whole checkpoints, and a guard against divergence."""
