"""A desk to teach at: a real journal and a real record over one file, and sets of answers to judge."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.journal import Journal
from storage.queries import Record
from storage.records import (
    Arm,
    BaseModel,
    Calibration,
    Comment,
    Critique,
    Flag,
    Judgement,
    Pace,
    Policy,
    Present,
    Prompt,
    Response,
    Run,
    SampleSet,
    Sampling,
    Sitting,
    Span,
    Tap,
    Version,
)

BASE = BaseModel("b" * 64, "stories", "none", 260_000, 5)
SITTING = Sitting("sitting", BASE.base_hash, "0.1", '{"k": 4}')

WATCHING: tuple[Judgement, ...] = (
    Present("s1", ("s1b", "s1a"), 0.5),
    Arm("s1", "s1a", True, 1.0),
    Tap("s1", "s1a", 1.0, "+", 1.25, "2026-11-24T00:00:01.250Z"),
    Tap("s1", "s1a", -10.0, "_", 2.5, "2026-11-24T00:00:02.500Z", 3, True),
    Pace("s1", 6.5, 3.0),
    Calibration("uniform", 0.2, 0.8, None, None, "local", (0.3, 0.7)),
    Calibration("gamma", 0.1, 1.5, 4.5, 0.1, "gpu-box", (0.4,)),
    Span("s1", "s1a", 1, 3, "made up", -1.0),
    Comment("s1", "s1a", "a note"),
    Comment("s1", None, "on the set"),
    Flag("s1", "s1b", "refusal"),
    Critique("s1", "s1b", "use simple words", "all"),
    Critique("s1", None, "warmer"),
    Critique("s1", "s1b", "use simple words", "all", -2),
)
"""One of every kind that is said while answers appear, or beside a judgement."""


class Desk:
    """Set 's1' has the answers 's1a' to 's1d'; with `blind`, a is the base's slot and b the acting one it is compared with."""

    def __init__(self, path: Path, copy_of: Path) -> None:
        self.path = Path(shutil.copy(copy_of, path))
        self.journal = Journal.open(self.path)
        self.journal.bind(BASE, SITTING)
        self.record = Record(self.path)

    def show(
        self,
        uid: str,
        k: int = 4,
        blind: bool = True,
        purpose: str = "judge",
        acting: Policy = "acting",
        **fields: object,
    ) -> None:
        """Writes a set and its answers. `fields` are those of the acting answers."""
        blind_slots = (f"{uid}a", f"{uid}b") if blind else (None, None)
        written = [self.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(f"prompt of {uid}"), k, purpose, *blind_slots))]
        for slot in range(k):
            policy: Policy = "base" if slot == 0 else acting
            written.append(self.journal.write(answer(uid, slot, policy, **(fields if slot else {}))))
        for future in written:
            future.result()

    def say(self, judgement: Judgement) -> int:
        return self.journal.append(judgement).result()

    def refusal(self, judgement: Judgement) -> str:
        error = self.journal.append(judgement).exception()
        assert error is not None, f"{judgement} was accepted"
        return str(error)

    def train(self, version: str, parent: str, *seqs: int) -> None:
        """One run on these judgements, published as `version`."""
        self.journal.write(Run(f"run of {version}", "ppo", seqs, 0, 10, 1.5, "{}"))
        self.journal.write(a_version(version, parent, runs=(f"run of {version}",))).result()

    def close(self) -> None:
        self.record.close()
        self.journal.close()


def answer(set_uid: str, slot: int, policy: Policy = "acting", **fields: object) -> Response:
    """An answer of three tokens."""
    values: dict[str, object] = {
        "uid": f"{set_uid}{'abcdefghi'[slot]}",
        "set_uid": set_uid,
        "slot": slot,
        "policy": policy,
        "version": "base",
        "h_epoch": 2,
        "beta": 0.25,
        "seed": 2**62 + slot,
        "sampling": Sampling(0.9, 64, top_p=0.95, top_k=40, min_p=0.02, repetition_penalty=1.1, stop=("\n\n", "User:"), max_thinking_tokens=7),
        "prompt_ids": (1, 2, 3),
        "token_ids": (7, 8, 9),
        "text": "[/b] = \x1b[31m\0 ü",
        "logprobs": (-0.1, -2.5, -1e-9),
        "unbiased_logprobs": (-0.2, -2.25, -3.0),
        "times": (0.1, 0.2, 0.30000000000000004),
        "stop": "eos",
        "kl": 1.5,
        "thought_tokens": 2,
        "forced_tokens": 1,
    }
    return Response(**(values | fields))  # type: ignore[arg-type]


def a_version(uid: str, parent: str = "base", published: bool = True, runs: tuple[str, ...] = ()) -> Version:
    """A version that passed the gate, or one that was worse."""
    reason = ("better on 12 prompts: 0.71", "published") if published else ("worse on 12 prompts: 0.38", "worse")
    return Version(uid, "c" * 64 if published else "", parent, "ppo", published, *reason, runs, 0, kl=4.5, win_rate=0.7)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied: a new database costs five synced migrations."""
    path = tmp_path_factory.mktemp("empty") / "tamer.db"
    Journal.open(path).close()
    return path


@pytest.fixture(scope="session")
def shown_database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """The same with two sets of two answers to judge."""
    desk = Desk(tmp_path_factory.mktemp("shown") / "tamer.db", empty_database)
    desk.show("s1", k=2)
    desk.show("s2", k=2)
    desk.close()
    return desk.path


@pytest.fixture
def desk(tmp_path: Path, empty_database: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "tamer.db", empty_database)
    yield desk
    desk.close()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of one's own, as a user whom file permissions bind (root they do not)."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    os.chmod(folder, 0o700)
    shutil.rmtree(folder)
