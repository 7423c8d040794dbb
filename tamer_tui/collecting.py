"""When Python's cyclic collector runs. Over the painted lines of six long answers it holds the loop for 20 to 40 ms; nobody should wait for that.

What dies by its reference count, which is nearly everything, is gone at once as ever.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 2_000, 10, 1_000
"""Objects, and collections: the young are looked at as usual, the old by `tidy`, and by themselves only where that is never called."""
OVERDUE = 10
"""Collections of the middle since the last of all: about 200,000 new objects."""


def settle() -> None:
    """What there is now stays: no collection looks at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def tidy(due: int = 1) -> None:
    """Nobody waits; `due` is how much has to have been made since the last time that this is worth while."""
    if gc.get_count()[2] >= due:
        gc.collect()
