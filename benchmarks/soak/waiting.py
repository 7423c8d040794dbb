"""How long something took, less the time in which the machine had no core for it: on a busy machine that is nobody's hang."""

from __future__ import annotations

import time
from pathlib import Path


class Waiting:
    """Since it was made, for these processes."""

    def __init__(self, *pids: int) -> None:
        self._before = {pid: delays(pid) for pid in pids}
        self._started = time.monotonic()

    @property
    def wall(self) -> float:
        """Seconds."""
        return time.monotonic() - self._started

    @property
    def starved(self) -> float:
        """Seconds for which the thread that was worst off waited for a core."""
        return max((now - before.get(thread, 0.0) for pid, before in self._before.items() for thread, now in delays(pid).items()), default=0.0)

    @property
    def seconds(self) -> float:
        """Of the wall, less those."""
        return max(0.0, self.wall - self.starved)


def delays(pid: int) -> dict[str, float]:
    """Thread -> seconds that it could have run and did not (schedstat's second figure); nothing where the system does not tell."""
    found = {}
    for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            found[stat.parent.name] = int(stat.read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # the thread is gone
            continue
    return found
