"""One sitting on a real GPU: rank, tap, correct, train every stage, publish, roll back, restart. Run by `make test-gpu`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from learners.protocol import STAGES
from storage.records import Prompt, Sampling
from tamer_tui.engine_client import LOCAL_ENGINE, EngineClient
from tamer_tui.session import Session, SessionSettings

DEVICE = os.environ.get("TAMER_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device here")

THINGS = ("a dog", "a cat", "the sun", "rain", "a tree", "a boat", "snow", "bread", "a song", "the sea")
PROMPTS = tuple(Prompt.of(f"What is {thing}?") for thing in THINGS)


def session_over(path: Path, quantize: str) -> Session:
    settings = SessionSettings(
        "pocket", PROMPTS, sampling=Sampling(1.0, 24), quantize=quantize, device=DEVICE, metered=True, autostart=False, k=4,
        stages=STAGES,
    )  # fmt: skip
    return Session(settings, lambda: EngineClient(LOCAL_ENGINE, path.with_suffix(".log")), path)


async def until(session: Session, condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    session.observe(lambda change: changed.set())
    while not condition():
        await asyncio.wait_for(changed.wait(), 120)
        changed.clear()


async def rank_by_length(session: Session, rounds: int) -> None:
    for _ in range(rounds):
        await session.sets.open_next()
        view = await session.sets.wait_ended()
        order = sorted(view.candidates, key=lambda c: len(c.text))
        await session.judging.rank({c.uid: i + 1 for i, c in enumerate(order)})


@pytest.mark.timeout(900)
@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
async def test_a_sitting_ranks_taps_corrects_trains_publishes_rolls_back_and_restarts(tmp_path: Path, quantize: str) -> None:
    path = tmp_path / "a.db"
    session = session_over(path, quantize)
    await session.start()
    await session.wait_ready()
    assert session.ready is not None and session.ready.device.startswith(DEVICE)
    await rank_by_length(session, 4)
    await until(session, lambda: session.status.known == 4)
    await session.sets.open_next()
    view = await session.sets.wait_ended()
    await session.judging.correct(view.candidates[0].uid, "It is a small animal.")
    await session.taps.open_next()
    await session.sets.wait_ended()
    for n in range(1, 9):
        session.taps.show(n, n / 6, wall=n / 6)
    await session.taps.tap(1.0, "+", 1.6, wall=1.6)
    await session.sets.wait_ended()
    await session.taps.finish()
    for _ in range(20):
        await session.evaluation.grant(steps=40)
        if {run.stage for run in session.record.runs()} >= set(STAGES) and any(version.published for version in session.machine.versions()):
            break
    await session.evaluation.grant(flush=True)
    assert {run.stage for run in session.record.runs()} == set(STAGES), session.notice
    latest = next(version for version in session.machine.versions() if version.published)
    assert session.status.acting[0] == latest.id
    await session.machine.rollback("base")
    drawn = await session.evaluation.draw([PROMPTS[0]] * 2, ["acting"] * 2, [1, 2])
    assert {view.started.version for view in drawn if view.started} == {"base"}
    await session.machine.rollback(latest.id)
    await session.close()

    session = session_over(path, quantize)
    await session.start()
    await session.wait_ready()
    await until(session, lambda: session.status.known == 6)
    assert session.status.acting[0] == latest.id
    drawn = await session.evaluation.draw([PROMPTS[0]] * 2, ["acting"] * 2, [1, 2])
    assert all(view.text for view in drawn)
    await session.close()
