"""The questions of a training run: read and checked, put in an order, and paid for."""
