"""A disk of the soak's own that can be made full: a tmpfs where one may be mounted, else a limit on the size of the terminal's files."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOM = 4096
"""Bytes that are left on a full disk."""
MOST = "4g"


class Disk:
    """`folder` is on it."""

    def __init__(self, folder: Path, pid: Callable[[], int]) -> None:
        """`pid`: of the process whose files are limited where nothing can be mounted."""
        folder.mkdir()
        self.folder, self._pid = folder, pid
        self.mounted = os.geteuid() == 0 and _done("mount", "-t", "tmpfs", "-o", f"size={MOST},mode=700", "tmpfs", str(folder))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Nothing more fits, for a while."""
        if self.mounted:
            disk = os.statvfs(self.folder)
            used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            _done("mount", "-o", f"remount,size={used + ROOM}", str(self.folder))
            try:
                yield
            finally:
                _done("mount", "-o", f"remount,size={MOST}", str(self.folder))
        else:
            pid, before = self._pid(), resource.prlimit(self._pid(), resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM, before[1]))
            try:
                yield
            finally:
                with suppress(ProcessLookupError):  # it was ended meanwhile: the next one has no limit
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def close(self) -> None:
        """Nothing is left of it."""
        if self.mounted:
            _done("umount", "-l", str(self.folder))


def _done(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
