"""The soak in small (`make soak` is the long one): the real program under an operator, a killed terminal and a full disk between."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the soak needs /proc", allow_module_level=True)

from benchmarks.soak import faults
from benchmarks.soak.supervisor import Soak


@pytest.mark.timeout(300)
def test_nothing_that_was_acknowledged_is_lost_on_a_full_disk_and_by_a_kill(tmp_path: Path) -> None:
    soak = Soak(tmp_path, "pocket", sets=4, n_faults=0, seed=0)
    soak.plan = [(1, faults.disk_full), (2, faults.terminal_killed)]
    try:
        soak.run()
        outcome = soak.verdict()
        assert soak.failures == []
        assert soak.refusals or not soak.disk.mounted  # of a score enter says something else than that the disk was full
        assert outcome["sets"] >= 4 and outcome["starts"] == 2 and outcome["acknowledged"] >= 4
        soak.acks[10_000] = ("ranking", "a set")
        soak.check_log()
        assert soak.failures == [f"after {outcome['sets']} sets: 1 acknowledged judgements are lost: [10000]"]
    finally:
        soak.close()
