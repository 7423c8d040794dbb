"""Bounds of what sampling is set to, by operators, models and clients alike. Imports nothing: the command line shows them at once."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 10.0
"""Far below, logits leave the range of float32, and there is nothing left to draw."""
LOWEST_SERVED_TEMPERATURE = 0.1
"""What clients mean by 0: the lower it is, the smaller is the β that keeps to the budget."""
LOWEST_PENALTY, HIGHEST_PENALTY = 0.1, 10.0
"""By which logits are divided or multiplied: likewise."""
HIGHEST_TOP_K = 1_000_000
"""More tokens than any vocabulary has."""
