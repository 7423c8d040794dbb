"""The real program on a real terminal, with somebody at its keys: `python -m benchmarks.soak.terminal DATABASE FOLDER SEED [--model M]`.

The operator inside ranks, scores, rewrites, undoes, taps, chats and looks at the other screens, restarts an engine that died, and types again what
was refused. What was acknowledged, what was waited for and that the loop is alive goes to `FOLDER/diary`, a JSON line each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from textual.events import Key

from benchmarks.soak.requests import take
from benchmarks.soak.waiting import Waiting
from storage import database as stored
from storage.records import Judgement, Sampling
from tamer_tui import app as program
from tamer_tui import headless
from tamer_tui.engine_client import EngineClient
from tamer_tui.prompts import pocket_prompts, starter_prompts
from tamer_tui.session import EngineState, SessionSettings, SetView
from tamer_tui.session.judging import Judging

BEAT_SECONDS = 0.5
HANG_SECONDS = 10.0
LOADING_SECONDS = 90.0
MOST_STARVED = 6
"""Times what something may take, after which it is a hang also on a machine that had no core for it."""
PATIENCE = 5.0
"""Seconds without a word of an answer, after which the operator restarts the engine."""
READING = (0.3, 0.5)
"""Seconds with a set; a new one ignores enter for 0.25."""
BREAKS = 0.06
"""Share of sets after which the operator rests …"""
BREAK = (4.0, 8.0)
"""… for so many seconds."""
TOKENS = 16


class Diary:
    """Lines that outlive the process that wrote them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, **what: Any) -> None:
        os.write(self._file, json.dumps({"kind": kind, "at": time.monotonic(), **what}).encode() + b"\n")


class Clock:
    """The wall clock of this process: stopped for a while, then an hour slow for a while."""

    SECONDS = 3.0

    def __init__(self) -> None:
        self._real, self._since = time.time, float("-inf")
        time.time = self.time
        stored.datetime = type("Datetime", (datetime,), {"now": lambda zone=UTC: datetime.fromtimestamp(self.time(), zone)})  # type: ignore[misc]

    def stop(self) -> None:
        self._since = self._real()

    def time(self) -> float:
        passed = self._real() - self._since
        if passed < self.SECONDS:
            return self._since
        return self._real() - 3600 if passed < 2 * self.SECONDS else self._real()


class Operator:
    """Sits before one program until that ends."""

    def __init__(self, app: program.TamerApp, diary: Diary, folder: Path, seed: str) -> None:
        self.app, self.session, self.diary, self.folder = app, app.session, diary, folder
        self.random = random.Random(seed)
        self.clock = Clock()

    async def beat(self) -> None:
        while True:
            self.diary.write("beat")
            if take(self.folder, "clock"):
                self.clock.stop()
            await asyncio.sleep(BEAT_SECONDS)

    async def sit(self) -> None:
        """Judge one set after another."""
        self.app.run_worker(self.beat())
        session, told = self.session, 0
        while True:
            if session.engine_state is EngineState.DEAD:
                await self.restart()
            elif session.engine_state is not EngineState.READY:
                await self.until(lambda: session.engine_state in (EngineState.READY, EngineState.DEAD), "the model", LOADING_SECONDS)
            elif session.current is None or session.current.committed or session.current.purpose not in ("judge", "repeat"):
                await self.enter()
            else:
                if told != (told := self._engine()):
                    self.diary.write("ready", engine=told)
                await self.set(session.current)

    def _engine(self) -> int:
        """Its process; 0 where there is none."""
        process: Any = getattr(self.session.engine._connection, "_process", None)
        return process.pid if process is not None else 0

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = HANG_SECONDS, hang: bool = True) -> bool:
        """Wait for it; what takes longer than it may is written down, and where that is no hang by itself something else has to be done."""
        waiting = Waiting(os.getpid(), *[pid for pid in [self._engine()] if pid])
        while not condition():
            if waiting.wall > seconds and (waiting.seconds > seconds or waiting.wall > MOST_STARVED * seconds):
                said = {"said": self.app.arena.said, "notice": self.session.notice}
                self.diary.write("hang" if hang else "impatient", what=what, seconds=waiting.seconds, wall=waiting.wall, **said)
                return False
            await asyncio.sleep(0.02)
        self.diary.write("waited", what=what, seconds=waiting.seconds, wall=waiting.wall)
        return True

    async def press(self, *keys: str) -> None:
        """As the terminal's driver hands them on; nothing is waited for."""
        for key in keys:
            event = Key(key, key if len(key) == 1 else None)
            event.set_sender(self.app)
            self.app.post_message(event)
            await asyncio.sleep(0)

    # --- judging -------------------------------------------------------------------------------------------------------

    async def set(self, view: SetView) -> None:
        """One set, from its first token to the next set."""
        session, dice = self.session, self.random.random()
        if not await self.until(lambda: view.ended or session.current is not view, "answers", PATIENCE, hang=False):
            await self.press("R", "R")
            await self.until(lambda: view.ended, "a restart of an engine that does not answer")
        await asyncio.sleep(self.random.uniform(*READING))
        if dice < 0.03:
            await self.commit(view, "s")
        elif dice < 0.12:
            await self.commit(view, str(self.random.randint(1, 7)), "enter")
        else:
            if dice < 0.13:
                answer = self.random.choice(view.candidates)
                await self.app.attempt(lambda: session.judging.correct(answer.uid, answer.said + " Thank you."))
            await self.commit(view, *self.order(view), "enter")
        if view.committed or session.current is not view or self.app.arena.said.startswith("✓"):
            self.diary.write("set", uid=view.uid)
            await self.afterwards(view)

    def order(self, view: SetView) -> list[str]:
        """The letters, best first: this operator likes the letter e."""
        likes = sorted(view.candidates, key=lambda c: -(c.said.count("e") + 1) / (len(c.said) + 20))
        return [candidate.letter for candidate in likes]

    async def commit(self, view: SetView, *keys: str) -> None:
        """Type it, and once more as long as it is refused; every refusal has to come at once."""
        done = False
        while not done and self.session.current is view:
            self.app.arena.said = ""
            typed = keys[:-1] if self.app.arena.ballot.empty else ()
            await self.press(*typed, keys[-1])
            answered = lambda: view.committed or self.session.current is not view or self.app.arena.said != ""  # noqa: E731
            if not await self.until(answered, "a commit"):
                return
            done = view.committed or self.session.current is not view or self.app.arena.said.startswith("✓")  # where no set can follow
            if not done:
                self.diary.write("refused", said=self.app.arena.said)
                await asyncio.sleep(0.4)

    async def enter(self) -> None:
        """On to the next set."""
        session, before = self.session, self.session.current
        self.app.arena.said = ""
        if before is None or before.purpose in ("judge", "repeat"):
            await self.app.arena.advance()
        else:
            await self.app.action_mode("arena")
        if session.current is before:
            await asyncio.sleep(0.2)

    async def afterwards(self, view: SetView) -> None:
        """What people do between two sets."""
        session, dice = self.session, self.random.random()
        if self.random.random() < BREAKS:  # the learner's time
            await asyncio.sleep(self.random.uniform(*BREAK))
        if dice < 0.01 and session.engine_state is EngineState.READY:
            self.app.arena.said = ""
            await self.press("u")
            await self.until(lambda: session.current is view or self.app.arena.said != "", "an undo")
        elif dice < 0.06:
            await self.app.action_mode(self.random.choice(["versions", "learning", "record", "log"]))
            await asyncio.sleep(0.3)
            await self.app.action_mode("arena")
        elif dice < 0.08 and session.engine_state is EngineState.READY:
            await self.tap()
        elif dice < 0.10 and session.engine_state is EngineState.READY:
            await self.talk()
        elif dice < 0.11 and session.engine_state is EngineState.READY:
            await self.roll_back()

    async def tap(self) -> None:
        """One answer at reading pace."""
        await self.app.action_mode("tap")
        taps = self.session.taps
        await self.until(lambda: taps.answer is None or len(taps.answer.shown) > 2 or taps.answer.ended is not None, "words to tap")
        await self.press("plus")
        await asyncio.sleep(0.3)
        await self.app.action_mode("arena")

    async def talk(self) -> None:
        """A turn of a chat, and a thumb."""
        chat = self.session.chat
        if await self.app.attempt(lambda: chat.say(self.random.choice(["Who are you?", "And why?", "What is the opposite of hot?"]))):
            turn = chat.turns[-1]
            await self.until(lambda: turn.ended, "a turn")
            await self.app.attempt(lambda: chat.thumb(turn, self.random.random() < 0.5))
        if len(chat.turns) > 3:
            await self.app.attempt(chat.begin_anew)

    async def roll_back(self) -> None:
        """To some version, and on from there."""
        published = [version.id for version in self.session.machine.versions() if version.published]
        if published and await self.app.attempt(lambda: self.session.machine.rollback(self.random.choice(published))):
            await asyncio.sleep(0.5)
            while not await self.app.attempt(lambda: self.session.machine.set_paused(False)):
                await asyncio.sleep(0.5)

    async def restart(self) -> None:
        """Another engine in the place of one that died."""
        self.diary.write("dead", notice=self.session.notice)
        await self.press("R")
        await self.until(lambda: self.session.engine_state is not EngineState.DEAD, "a restart")


def operated(diary: Diary, folder: Path, seed: str) -> type[program.TamerApp]:
    """The program with an operator of its own."""

    class Operated(program.TamerApp):
        def on_ready(self) -> None:
            self.run_worker(Operator(self, diary, folder, seed).sit())

    return Operated


def acknowledge(diary: Diary) -> None:
    """Whatever the program says is on disk is written down elsewhere too."""
    append = Judging.append

    async def noted(judging: Judging, judgement: Judgement, set_uid: str = "") -> int:
        seq = await append(judging, judgement, set_uid)
        diary.write("ack", seq=seq, judgement=type(judgement).__name__.lower(), set=set_uid or getattr(judgement, "set_uid", ""))
        return seq

    Judging.append = noted  # type: ignore[method-assign]


def settings_of(model: str, seed: int) -> SessionSettings:
    """The same for the sitting and for whoever draws its answers again."""
    prompts = pocket_prompts() if model == "pocket" else starter_prompts(False)
    return SessionSettings(model, prompts, k=3, sampling=Sampling(1.0, TOKENS), seed=seed, quantize="none")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed")
    parser.add_argument("--model", default="pocket")
    chosen = parser.parse_args()
    diary = Diary(chosen.folder / "diary")
    acknowledge(diary)
    program.TamerApp = operated(diary, chosen.folder, chosen.seed)  # type: ignore[misc]
    engine = (sys.executable, "-m", "benchmarks.soak.engine", str(chosen.folder))
    headless.EngineClient = partial(EngineClient, engine)  # type: ignore[misc, assignment]  # an engine of one's own, over pipes
    return program.run(settings_of(chosen.model, 0), chosen.database)


if __name__ == "__main__":
    sys.exit(main())
