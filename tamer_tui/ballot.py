"""What the operator has typed about the current set and not yet committed: an order, ties, or 'all bad'."""

from __future__ import annotations

from dataclasses import dataclass, field

from tamer_tui.views import SetView


@dataclass
class Ballot:
    """Groups of tied slots, best first."""

    groups: list[list[int]] = field(default_factory=list)
    tie_next: bool = False
    all_bad: bool = False

    @property
    def empty(self) -> bool:
        return not self.groups and not self.all_bad

    def add(self, slot: int) -> bool:
        """Put a slot last so far, or beside the last one after a tie. False if it is ranked already."""
        if any(slot in group for group in self.groups):
            return False
        self.all_bad = False
        if self.tie_next and self.groups:
            self.groups[-1].append(slot)
        else:
            self.groups.append([slot])
        self.tie_next = False
        return True

    def tie(self) -> bool:
        """The next slot ties with the last one. False without a last one."""
        self.tie_next = bool(self.groups)
        return self.tie_next

    def call_equal(self) -> None:
        """Of two answers, neither is better."""
        self.groups, self.tie_next, self.all_bad = [[0, 1]], False, False

    def take_back(self) -> bool:
        """The last tie mark, letter or 'all bad'. False when there is none."""
        if self.tie_next or self.all_bad:
            self.tie_next = self.all_bad = False
            return True
        if not self.groups:
            return False
        self.groups[-1].pop()
        if not self.groups[-1]:
            self.groups.pop()
        else:
            self.tie_next = False
        return True

    def condemn(self) -> None:
        """None is any good."""
        self.groups.clear()
        self.tie_next, self.all_bad = False, True

    def clear(self) -> None:
        self.groups.clear()
        self.tie_next = self.all_bad = False

    def rank_of(self, slot: int) -> str:
        """'1', '2', …; '' for an unranked slot."""
        return next((str(rank) for rank, group in enumerate(self.groups, start=1) if slot in group), "")

    def ranks(self, view: SetView) -> dict[str, int]:
        """Response uid -> rank, of the mentioned answers."""
        return {view.candidates[slot].uid: rank for rank, group in enumerate(self.groups, start=1) for slot in group}

    def keys(self) -> str:
        """As typed: 'ba=c'."""
        return "".join("=".join("abcdefghi"[slot] for slot in group) for group in self.groups)

    def in_words(self) -> str:
        """'b > d = a'."""
        if self.all_bad:
            return "all bad"
        text = " > ".join(" = ".join("abcdefghi"[slot] for slot in group) for group in self.groups)
        return text + (" = " if self.tie_next else "")
