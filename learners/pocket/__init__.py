"""Pocket: the small chat model that ships with the program; its corpus, its training, its weights."""
