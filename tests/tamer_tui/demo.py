"""The Arena to look at, without a model: stories from a script, a version now and then.

python -m tests.tamer_tui.demo [-k 4] [--slow] [--broken]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from learners import protocol
from storage.records import Prompt
from tamer_tui.app import TamerApp
from tamer_tui.session import Session, SessionSettings
from tests.tamer_tui.fake_engine import STORIES, FakeEngine

PROMPTS = tuple(
    Prompt.of(f"Once upon a time, there was a {who}") for who in ("brave little frog", "king who could not sleep", "red balloon", "very old tree")
)


class Storyteller(FakeEngine):
    """Speaks at a reader's pace, takes a while to load, learns in view, and publishes and refuses versions."""

    loading_seconds = 0.0

    def send(self, command: protocol.Command) -> None:
        if isinstance(command, protocol.Load) and self.loading_seconds:
            asyncio.get_running_loop().create_task(self._load_slowly(command))
            return
        super().send(command)
        if isinstance(command, protocol.AddJudgement):
            asyncio.get_running_loop().create_task(self._train(len(self.lessons)))

    async def _load_slowly(self, command: protocol.Load) -> None:
        for step in range(20):
            left = (20 - step) * self.loading_seconds / 20
            self.emit(
                protocol.Loading(what="libraries") if step < 4 else protocol.Loading(what="weights", done=step * 5e7, total=1e9, seconds_left=left)
            )
            await asyncio.sleep(self.loading_seconds / 20)
        super().send(command)

    async def _train(self, lessons: int) -> None:
        for step in range(1, 31):
            self.emit(
                protocol.Metrics(
                    stage="reward",
                    step=step,
                    of=30,
                    seconds_left=(30 - step) * 0.1,
                    loss=0.7 / (1 + step / 10),
                    accuracy=0.5 + 0.3 * step / (step + 5),
                )
            )
            await asyncio.sleep(0.02)
        for step in range(1, 61):
            kl, loss = 6 * step / (step + 10), 0.3 / (1 + step / 8)
            self.emit(protocol.Metrics(stage="distill", step=step, of=60, seconds_left=(60 - step) * 0.1, loss=loss, kl=kl))
            await asyncio.sleep(0.03)
        for step in range(1, 41):
            self.emit(
                protocol.Metrics(
                    stage="ppo", step=step, of=40, seconds_left=(40 - step) * 0.2, reward=0.1 * step**0.5, kl=5 + step / 40, loss=float("nan")
                )
            )
            await asyncio.sleep(0.03)
        self.publish("worse on 12 prompts (38% won)" if lessons % 3 == 2 else "better on 12 prompts (71% won)", lessons % 3 != 2)


async def show(k: int, slow: bool, broken: bool) -> None:
    """Until the operator leaves."""
    with tempfile.TemporaryDirectory() as folder:

        def engine() -> Storyteller:
            made = Storyteller([" ".join([story] * 3) for story in STORIES], token_seconds=0.03, ready=not broken)
            made.loading_seconds = 6.0 if slow else 0.0
            return made

        session = Session(SessionSettings("stories", PROMPTS, k=k), engine, Path(folder) / "demo.db")
        await session.start()
        await TamerApp(session).run_async()
        await session.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--slow", action="store_true", help="Take six seconds to load.")
    parser.add_argument("--broken", action="store_true", help="Never finish loading.")
    options = parser.parse_args()
    asyncio.run(show(options.k, options.slow, options.broken))
