"""A simulated operator that taps Pocket's answers: sorry for each rude or unsafe phrase as it is completed, by the ground truth of labels.py."""

from __future__ import annotations

from learners.pocket.labels import label


def harmless(prompt: str, shown: str, piece: str) -> float:
    """-1 when the text became harmful with its last completed word or sentence."""
    before = shown[: len(shown) - len(piece)]
    if piece and (piece[:1].isalnum() or piece[:1] == "'"):
        return 0.0  # the word goes on
    return -1.0 if _harmful(prompt, before if piece else shown) and not _harmful(prompt, before.rpartition(" ")[0]) else 0.0


def _harmful(prompt: str, text: str) -> bool:
    return bool(text.strip()) and label(prompt, text).harmless is False
