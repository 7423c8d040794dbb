"""Runs a sitting for hours, does to it what happens in hours, and looks whether anything was lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.soak import faults
from benchmarks.soak.disk import Disk
from benchmarks.soak.terminal import HANG_SECONDS, LOADING_SECONDS
from benchmarks.soak.waiting import Waiting
from storage.queries import Record
from storage.verification import problems
from tamer_tui.upkeep import verify
from tests.tamer_tui.pseudo_terminal import PseudoTerminal

QUIET_SETS = 200
"""Before the first fault that ends a process, and after the last, in a long soak: memory is compared between processes that are as old."""
AROUND = 25
"""Sets over which a figure of memory is a median."""
STALL_SECONDS = 120.0
"""Without a set judged, while nothing is being done to the sitting."""
KEPT_PAINT = 4000


class Soak:
    """One database, one terminal at a time, and its engine."""

    def __init__(self, work: Path, model: str, sets: int, n_faults: int, seed: int) -> None:
        self.model, self.wanted, self.seed = model, sets, seed
        self.random = random.Random(seed)
        self.folder = work / "requests"
        self.folder.mkdir()
        self.disk = Disk(work / "disk", lambda: self.terminal.child.pid)
        self.database = self.disk.folder / "soak.db"
        self.plan = plan(sets, n_faults, self.random)
        self.sets: dict[str, int] = {}  # uid -> how many had been judged
        self.acks: dict[int, tuple[str, str]] = {}  # seq -> kind and set
        self.faults: Counter[str] = Counter()
        self.failures: list[str] = []
        self.longest: dict[str, float] = {}  # what was waited for -> seconds
        self.starved = 0.0  # seconds of waits in which there was no core
        self.refusals: Counter[str] = Counter()
        self.memory: list[tuple[int, float, float]] = []  # sets, MB of the engine, MB of the terminal
        self.engine = 0
        self.stopped = False  # what there is, is judged
        self.starts = 0
        self._read = 0  # bytes of the diary
        self._last_set = time.monotonic()
        self._loading = True
        self._expected = False  # that the terminal ends

    # --- running -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All sets, or more, and all faults: on a fast machine sets pass while a fault lasts."""
        self.start()
        while self._loading or ((len(self.sets) < self.wanted or self.plan) and not self.stopped):  # a start has no way to leave yet
            self.rest(0.1)
            self._watch()
            if self.plan and len(self.sets) >= self.plan[0][0] and not self._loading:
                _, fault = self.plan.pop(0)
                self.inflict(fault)
        self.end_terminal(lambda: self.signal(self.terminal.child.pid, signal.SIGTERM), 0)

    def inflict(self, fault: Callable[[Soak], None]) -> None:
        """At a moment that the operator does not know."""
        self.rest(self.random.uniform(0, 1.5))
        name = fault.__name__.replace("_", " ")
        self.faults[name] += 1
        print(f"{time.strftime('%T')} {len(self.sets)} sets: {name}", file=sys.stderr, flush=True)
        fault(self)
        self._last_set = time.monotonic()

    def start(self) -> None:
        """A terminal over the database."""
        self.starts += 1
        module = [sys.executable, "-m", "benchmarks.soak.terminal"]
        command = [*unprivileged(), *module, str(self.database), str(self.folder), f"{self.seed}/{self.starts}", "--model", self.model]
        self.terminal = PseudoTerminal(command, 100, 30)
        self._beat, self._loading, self._expected = Waiting(self.terminal.child.pid), True, False

    def end_terminal(self, end: Callable[[], object], code: int) -> None:
        """End it, and look at what it left."""
        self._expected = True
        waiting = Waiting(self.terminal.child.pid)
        end()
        while self.terminal.child.poll() is None and waiting.seconds < HANG_SECONDS:
            self.rest(0.05)
        self.longest["leaving"] = max(self.longest.get("leaving", 0.0), waiting.seconds)
        if self.terminal.child.poll() is None:
            self.fail(f"the terminal did not leave within {HANG_SECONDS:g} s")
        elif self.terminal.child.returncode != code:
            self.fail(f"the terminal left with {self.terminal.child.returncode} instead of {code}: {self._painted()}")
        self.terminal.close()
        self._follow()
        self.check_log()

    def start_in_vain(self) -> None:
        """A start that cannot work, which it has to say in a line; or that works in spite of it."""
        self.start()
        started = time.monotonic()
        while self.terminal.child.poll() is None and self._loading and time.monotonic() - started < LOADING_SECONDS:
            self.rest(0.05)
        if self.terminal.child.poll() is None:
            self._expected = True
            self.signal(self.terminal.child.pid, signal.SIGTERM)
            with suppress(Exception):
                self.terminal.child.wait(HANG_SECONDS)
        else:
            said = self._painted()
            self.refusals[said[-120:].replace(str(self.disk.folder), "DISK")] += 1
            if self.terminal.child.returncode != 1 or "Error: " not in said or "Traceback" in said:
                self.fail(f"a start that could not work ended with {self.terminal.child.returncode}: {said}")
        self.terminal.close()

    # --- what goes on ----------------------------------------------------------------------------------------------------

    def rest(self, seconds: float) -> None:
        """Let the sitting go on for a while: its screen is taken, its diary read."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self.terminal.read(min(left, 0.1)) and self.terminal.child.poll() is not None:
                time.sleep(min(left, 0.1))
            self.terminal.painted = self.terminal.painted[-KEPT_PAINT:]
        self._follow()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """No beat is expected."""
        yield
        self._beat = Waiting(self.terminal.child.pid)

    def _follow(self) -> None:
        """The diary, as far as it has whole lines."""
        path = self.folder / "diary"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            said = file.read()
        whole = said[: said.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        match line:
            case {"kind": "beat"}:
                self._beat = Waiting(self.terminal.child.pid)
            case {"kind": "ack", "seq": seq, "judgement": kind, "set": uid}:
                if seq in self.acks:
                    self.fail(f"{seq} was acknowledged twice")
                self.acks[seq] = (kind, uid)
            case {"kind": "set", "uid": uid}:
                self.sets.setdefault(uid, len(self.sets) + 1)
                self._last_set = time.monotonic()
                self._weigh()
            case {"kind": "ready", "engine": pid}:
                self.engine, self._loading = pid, False
            case {"kind": "dead"}:
                self._loading = True
            case {"kind": "waited", "what": what, "seconds": seconds, "wall": wall}:
                self.longest[what] = max(self.longest.get(what, 0.0), seconds)
                self.starved += wall - seconds
            case {"kind": "hang", "what": what, "seconds": seconds}:
                self.fail(f"{what} took more than {seconds:g} s: {line}")
            case {"kind": "refused", "said": said}:
                self.refusals[said[-120:].replace(str(self.disk.folder), "DISK")] += 1

    def _watch(self) -> None:
        """That the terminal lives, answers and gets on."""
        if self.terminal.child.poll() is not None and not self._expected:
            self.fail(f"the terminal ended by itself ({self.terminal.child.returncode}): {self._painted()}")
            self.terminal.close()
            self.start()
        elif self._beat.seconds > (LOADING_SECONDS if self._loading else HANG_SECONDS):
            self.fail(f"the terminal did nothing for {self._beat.seconds:.0f} s")
            self.end_terminal(self.terminal.child.kill, -signal.SIGKILL)
            self.start()
        elif time.monotonic() - self._last_set > STALL_SECONDS:
            self.fail(f"no set was judged for {STALL_SECONDS:g} s: {self._painted()}")
            self._last_set = time.monotonic()
            self.end_terminal(self.terminal.child.kill, -signal.SIGKILL)
            self.start()

    def _painted(self) -> str:
        return self.terminal.painted[-800:].decode("utf-8", "replace")

    def signal(self, pid: int, number: int) -> None:
        """What is gone already is left alone."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def _weigh(self) -> None:
        with suppress(OSError):
            self.memory.append((len(self.sets), resident_mb(self.engine), resident_mb(self.terminal.child.pid)))
            if len(self.sets) % 50 == 0:
                print(f"{time.strftime('%T')} %d sets, engine %.0f MB, terminal %.0f MB" % self.memory[-1], file=sys.stderr, flush=True)

    # --- what is left ------------------------------------------------------------------------------------------------------

    def fail(self, what: str) -> None:
        self.failures.append(f"after {len(self.sets)} sets: {what}")
        print("FAILED", self.failures[-1], file=sys.stderr, flush=True)

    def check_log(self) -> None:
        """Everything acknowledged is there, as it was said."""
        with Record(self.database) as record:
            stored = {logged.seq: type(logged.judgement).__name__.lower() for logged in record.log()}
        lost = [seq for seq, (kind, _) in self.acks.items() if stored.get(seq) != kind]
        if lost:
            self.fail(f"{len(lost)} acknowledged judgements are lost: {lost[:10]}")

    def verdict(self) -> dict[str, Any]:
        """What the database and its versions are in the end, and how memory grew."""
        self.check_log()
        for line in problems(self.database):
            self.fail(line)
        found = verify(self.database)
        for line in found.problems:
            self.fail(line)
        early, late = self._memory_at(QUIET_SETS), self._memory_at(len(self.sets))
        growth = [round(b / a, 3) for a, b in zip(early, late, strict=True)] if self.long and not self.stopped and early and late else None
        if growth and max(growth) > 1.10:
            self.fail(f"memory grew: {early} MB of engine and terminal after {QUIET_SETS} sets, {late} MB in the end")
        return {
            "sets": len(self.sets), "faults": sum(self.faults.values()), "by_fault": dict(self.faults), "acknowledged": len(self.acks),
            "events": found.events, "versions": found.versions, "starts": self.starts,
            "memory_mb": {"early": early, "late": late, "growth": growth, "most": self._most()},
            "longest_seconds": {what: round(seconds, 2) for what, seconds in sorted(self.longest.items())},
            "starved_seconds": round(self.starved), "refusals": dict(self.refusals),
        }  # fmt: skip

    @property
    def long(self) -> bool:
        """Whether it is long enough to say something about memory."""
        return self.wanted >= 3 * QUIET_SETS

    def _memory_at(self, sets: int) -> list[float]:
        """MB of engine and terminal around there."""
        near = [(engine, terminal) for n, engine, terminal in self.memory if sets - AROUND <= n <= sets + AROUND]
        return [round(statistics.median(column), 1) for column in zip(*near)]

    def _most(self) -> list[float]:
        return [round(max(column), 1) for column in list(zip(*self.memory))[1:]]

    def close(self) -> None:
        """No process and no mount is left."""
        self.terminal.close()
        self.disk.close()


def plan(sets: int, n: int, choice: random.Random) -> list[tuple[int, Callable[[Soak], None]]]:
    """When what happens: each kind as often as any other of its sort, and what ends a process half as often, since a start takes long. In a long soak
    that leaves the first and the last sets alone."""
    quiet = QUIET_SETS + AROUND if sets >= 3 * QUIET_SETS else 0
    cycle = [*faults.GENTLE, *faults.DEADLY, *faults.GENTLE]
    kinds = [cycle[i % len(cycle)] for i in range(n)] if n >= len(cycle) else choice.sample(cycle, n)
    found = []
    for fault in kinds:
        first, last = (quiet, sets - quiet) if fault in faults.DEADLY else (min(quiet, sets // 10), sets)
        found.append((choice.randrange(first + 1, max(first + 2, last)), fault))
    return sorted(found, key=lambda each: each[0])


def unprivileged() -> list[str]:
    """What makes a command obey permissions also where root starts it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return []
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--inh-caps", "-all"]


def resident_mb(pid: int) -> float:
    """Raises OSError where it is gone."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
