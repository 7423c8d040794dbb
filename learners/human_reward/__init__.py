"""Ĥ, the human's reward (TAMER): features, exact fit, logit bias and KL budget."""
