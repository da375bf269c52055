"""Adapters as the files that other programs run, and the proof that these compute the same."""
