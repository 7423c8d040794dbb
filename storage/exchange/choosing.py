"""Which items an export takes, and what their lengths are: a trainer should not learn what only the choice of rows says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from storage.exchange.items import DerivedPair, Item, Labelled, PreferencePair, Written


class Lengths(Struct, frozen=True):
    """Of the answers in one file, in characters: mean by side, and how often the better one is the longer one."""

    mean: dict[str, float]  # chosen and rejected, good and bad, or written
    longer_chosen: float | None = None  # of comparisons of unequal length


class Chooser:
    """Takes items one after another and counts, by reason, those that it leaves out."""

    def __init__(self, min_margin: float = 0.0, balance: bool = False) -> None:
        self._min_margin, self._balance = min_margin, balance
        self.dropped: Counter[str] = Counter()

    def __call__(self, items: Callable[[], Iterable[Item]]) -> Iterator[Item]:
        """Of what `items` gives; for a balance it is asked twice."""
        keep = self._of_each_label(items()) if self._balance else {}
        seen: Counter[bool] = Counter()
        for item in items():
            if isinstance(item, PreferencePair) and item.margin < self._min_margin:
                self.dropped[f"margin below {self._min_margin:g}"] += 1
            elif isinstance(item, Labelled) and self._balance and not _evenly(seen, item.good, keep):
                self.dropped["more of one label than of the other"] += 1
            else:
                yield item

    def _of_each_label(self, items: Iterable[Item]) -> dict[bool, tuple[int, int]]:
        """How many of how many stay."""
        counts = Counter(item.good for item in items if isinstance(item, Labelled))
        fewer = min(counts[True], counts[False])
        return {label: (fewer, n) for label, n in counts.items()}


def _evenly(seen: Counter[bool], label: bool, keep: dict[bool, tuple[int, int]]) -> bool:
    """Whether the next item of this label stays: so many of so many, spread over all of them."""
    some, of = keep[label]
    before = seen[label]
    seen[label] += 1
    return (before + 1) * some // of > before * some // of


class Measure:
    """Lengths of the items that pass."""

    def __init__(self) -> None:
        self._characters: Counter[str] = Counter()
        self._n: Counter[str] = Counter()
        self._longer = self._unequal = 0

    def add(self, item: Item) -> None:
        match item:
            case PreferencePair(_, chosen, rejected) | DerivedPair(_, chosen, rejected):
                self._count("chosen", chosen)
                self._count("rejected", rejected)
                self._unequal += len(chosen) != len(rejected)
                self._longer += len(chosen) > len(rejected)
            case Labelled(_, answer, good):
                self._count("good" if good else "bad", answer)
            case Written(_, text):
                self._count("written", text)

    def _count(self, side: str, text: str) -> None:
        self._characters[side] += len(text)
        self._n[side] += 1

    def lengths(self) -> Lengths | None:
        """None where there was nothing to measure."""
        if not self._n:
            return None
        mean = {side: round(self._characters[side] / n, 1) for side, n in sorted(self._n.items())}
        return Lengths(mean, round(self._longer / self._unequal, 4) if self._unequal else None)
