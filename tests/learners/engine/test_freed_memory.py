"""What is given back to the system."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from learners.engine import freed_memory


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_many_tensors_leave_is_given_back_and_a_little_is_kept() -> None:
    kept = [torch.zeros(2000) for _ in range(60_000)]  # small enough for the heap: 480 MB
    held = [tensor for i, tensor in enumerate(kept) if i % 100 == 0]
    del kept
    before = resident_bytes()
    freed_memory.return_freed_memory()
    assert resident_bytes() < before - 200e6
    after = resident_bytes()
    freed_memory.return_freed_memory()
    assert abs(resident_bytes() - after) < 20e6 and len(held) == 600


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_glibc", lambda: None)
    freed_memory.return_freed_memory()
