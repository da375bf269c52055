"""Evaluation: what a compressor's messages carry, what they cost, and how sure the figures are."""
