"""What a message is worth: pure functions from tensors and strings to values and metrics; no models, no logging."""
