"""The benchmark of decoding goes on where the other side does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import decoding


@pytest.mark.parametrize("runs", [True, False])
def test_where_the_other_side_does_not_run_its_reason_is_told_beside_our_figures(
    runs: bool, stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[float]:
        raise AssertionError("N must be divisible by block_n")

    monkeypatch.setattr(decoding, "theirs", (lambda *_: [0.1] * 7) if runs else refuse)
    found = decoding.measure(str(stories260k), "none", 2, 8, 1)
    assert isinstance(found["adapter_ms"], float) and ("over_generate" in found) == ("generate_ms" in found) == runs
    assert found.get("generate") == (None if runs else "not run: N must be divisible by block_n")
