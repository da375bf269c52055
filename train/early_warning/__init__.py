"""Held-out figures while a run trains, and the adapter that was best by them."""
