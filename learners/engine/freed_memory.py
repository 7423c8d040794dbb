"""Memory that was freed, given back to the system: glibc keeps what large tensors leave, a few hundred megabytes at a vocabulary of 150,000."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

MOST_KEPT = 128e6
"""Bytes of freed memory that may stay for the next tensors: to fetch it anew takes time."""


class _Mallinfo2(ctypes.Structure):
    """What glibc's mallinfo2 returns; of it only `fordblks`, the free bytes, is read."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


@cache
def _glibc() -> Any:
    """None where the C library is another, or older than 2.33."""
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallinfo2.restype = _Mallinfo2
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError):
        return None
    return library


def return_freed_memory() -> None:
    """From any thread, when nobody waits. Nothing where little is kept, or where the system has another C library."""
    library = _glibc()
    if library is not None and library.mallinfo2().fordblks > MOST_KEPT:
        library.malloc_trim(0)
