"""What the operator has typed about the current set and not yet committed: an order, ties, or 'all bad'."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tamer_tui.keys import LETTERS
from tamer_tui.views import SetView


@dataclass(frozen=True)
class Ballot:
    """Groups of tied slots, best first. Every method gives another ballot, or the same where the key means nothing."""

    groups: tuple[tuple[int, ...], ...] = ()
    tie_next: bool = False
    all_bad: bool = False

    @property
    def empty(self) -> bool:
        return not self.groups and not self.all_bad

    def add(self, slot: int) -> Ballot:
        """Put a slot last so far, or beside the last one after a tie; one that is ranked already stays."""
        if any(slot in group for group in self.groups):
            return self
        if self.tie_next and self.groups:
            return Ballot((*self.groups[:-1], (*self.groups[-1], slot)))
        return Ballot((*self.groups, (slot,)))

    def tie(self) -> Ballot:
        """The next slot ties with the last one, if there is one."""
        return replace(self, tie_next=True) if self.groups else self

    def call_equal(self) -> Ballot:
        """Of two answers, neither is better."""
        return Ballot(((0, 1),))

    def take_back(self) -> Ballot:
        """Without the last tie mark, letter or 'all bad'."""
        if self.tie_next or self.all_bad:
            return replace(self, tie_next=False, all_bad=False)
        if not self.groups:
            return self
        shorter = self.groups[-1][:-1]
        return Ballot((*self.groups[:-1], shorter) if shorter else self.groups[:-1])

    def condemn(self) -> Ballot:
        """None is any good."""
        return Ballot(all_bad=True)

    def rank_of(self, slot: int) -> str:
        """'1', '2', …; '' for an unranked slot."""
        return next((str(rank) for rank, group in enumerate(self.groups, start=1) if slot in group), "")

    def ranks(self, view: SetView) -> dict[str, int]:
        """Response uid -> rank, of the mentioned answers. Of two answers the one that is not mentioned is the worse one."""
        ranks = {view.candidates[slot].uid: rank for rank, group in enumerate(self.groups, start=1) for slot in group}
        if len(view.candidates) == 2 and len(ranks) == 1:
            ranks |= {c.uid: 2 for c in view.candidates if c.uid not in ranks}
        return ranks

    def keys(self) -> str:
        """As typed: 'ba=c'."""
        return "".join("=".join(LETTERS[slot] for slot in group) for group in self.groups)

    def in_words(self) -> str:
        """'b > d = a'."""
        if self.all_bad:
            return "all bad"
        text = " > ".join(" = ".join(LETTERS[slot] for slot in group) for group in self.groups)
        return text + (" = " if self.tie_next else "")
