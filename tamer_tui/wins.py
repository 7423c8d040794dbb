"""What a count of blind choices says, in words."""

from __future__ import annotations

from storage.blind import BlindCount
from storage.statistics import Agreement
from storage.verdict import SURE, Verdict, flips_needed, proven


def called(side: str) -> str:
    """One of those that are compared, as people say it."""
    return {"acting": "your model", "base": "the untouched model"}.get(side, side)


def wins(count: BlindCount) -> str:
    """'your model wins 17.5 of 25 blind', ties as half a win; '' before anything was counted."""
    return f"your model wins {count.wins + count.ties / 2:g} of {count.n} blind" if count.n else ""


def chosen(count: BlindCount) -> str:
    """'12 of them by the best of several answers'; '' where all are as they were drawn."""
    return f"{count.chosen} of them by the best of several answers" if count.chosen else ""


def proof(count: BlindCount) -> str:
    """Whether that proves anything, with odds that may be looked at after every vote, and how many votes it hangs on."""
    return in_words(*proven(count.wins, count.losses), flips_needed(max(count.wins, count.losses), min(count.wins, count.losses)))


def in_words(word: str, odds: float, flips: int) -> str:
    """A verdict: 'it is better than the untouched one: 28 to 1; 1 other vote would undo that'."""
    odds = max(1.0, odds)
    told = "more than a million to 1" if odds > 1e6 else f"{odds:,.0f} to 1" if odds >= 100 else f"{odds:.3g} to 1"
    if word:
        return f"it is {word} than the untouched one: {told}; {flips} other vote{'s' if flips != 1 else ''} would undo that"
    return f"not proven yet: {told} of {SURE:g} to 1"


def equal_length(verdict: Verdict | None) -> str:
    """Of answers that are as long; '' before anything was counted."""
    return f"at equal length {verdict.at_equal_length.in_words()}" if verdict is not None and verdict.at_equal_length is not None else ""


def own_agreement(agreement: Agreement | None) -> str:
    """How often the operator says the same twice: no judge can agree with them more."""
    if agreement is None or agreement.agree is None:
        return "you have judged no two answers twice yet"
    return f"you agree with yourself in {agreement.agree:.2f} of {agreement.comparisons} judged twice"
