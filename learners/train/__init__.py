"""A policy from the judgements of a database alone, on one machine or many (`python -m learners.train`)."""
