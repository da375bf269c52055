"""What the messages of a step are paid."""
