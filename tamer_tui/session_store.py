"""The record as a sitting uses it: judgements go to disk first, then the engine is told what changed; versions are kept whole.

The terminal process alone writes; what the engine lacks after a restart is read back from here.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, get_args

from learners import protocol
from learners.protocol import Answer, Blob, Command, Gated, Lesson
from learners.versions.blobs import Assembler, BlobError, read_directory, split, write_directory
from storage.journal import Journal, JournalError
from storage.queries import Record, Taught
from storage.records import (
    BASE_VERSION,
    Activation,
    Arm,
    BaseModel,
    Judgement,
    Message,
    Prequential,
    Response,
    Run,
    SampleSet,
    Selection,
    Shown,
    Sitting,
    Tap,
    Teaching,
    Version,
)
from storage.repeats import said_again

TEACHING = get_args(Teaching)
READ_AT_ONCE = 512
"""Lessons in memory at once."""
REPLAY_CHUNK = 32
"""Judgements in one `replay` line, at most …"""
REPLAY_CHARACTERS = 500_000
"""… and characters of text, which keeps the line under the protocol's longest; a judgement with more has a line of its own."""


class SessionError(Exception):
    """What cannot be done, in one clear line, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message, self.hint = message, hint


class SessionStore:
    """One open database. Raises SessionError wherever it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unused = not path.exists()  # made here, and nothing is in it yet
        try:
            self._journal = Journal.open(path)
            self.record = Record(path)
        except JournalError as error:
            raise SessionError(error.message, error.hint) from error
        self._numbering = asyncio.Lock()  # a version's id is free until its row is written
        self._root = self.root_of(path)
        self._assembler = Assembler()
        self._owed: list[SampleSet | Response] = []  # what could not be written yet, in its order
        self._sent: dict[str, set[int]] = {}  # set uid -> seqs that the engine has learned from

    @staticmethod
    def root_of(path: Path) -> Path:
        """The folder of a database's versions."""
        return path.with_name(path.name + ".versions")

    def bind(self, base: BaseModel, sitting: Sitting) -> None:
        """Begin a sitting with this base model."""
        try:
            self._journal.bind(base, sitting)
        except JournalError as error:
            raise SessionError(error.message, error.hint) from error
        self._unused = False

    def close(self) -> None:
        """Everything that was handed in is on disk afterwards. A database that was made for a sitting that never began goes."""
        self.record.close()
        self._journal.close()
        if self._unused:
            self._journal.path.unlink(missing_ok=True)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def append(self, judgement: Judgement) -> int:
        """The seq, after the commit."""
        try:
            return await asyncio.wrap_future(self._journal.append(judgement))
        except JournalError as error:
            if not await self._made_up_for(getattr(judgement, "set_uid", "")):
                raise SessionError(error.message, error.hint) from error
        try:
            return await asyncio.wrap_future(self._journal.append(judgement))
        except JournalError as error:
            raise SessionError(error.message, error.hint) from error

    async def _made_up_for(self, set_uid: str) -> bool:
        """Write what of a set could not be written when it was due (the disk was full). Raises SessionError if it still cannot be."""
        owed = [record for record in self._owed if set_uid in (getattr(record, "set_uid", None), record.uid)]
        for record in owed:
            await self._write(record)
            self._owed.remove(record)
        return bool(owed)

    def keep(self, record: SampleSet | Response | Run | Prequential | Selection, complain: Callable[[str], None]) -> None:
        """Write without waiting; a failure is told."""

        def settled(future: Future[None]) -> None:
            error = future.exception()
            if error is not None:
                problem = SessionError(error.message, error.hint) if isinstance(error, JournalError) else error
                if not isinstance(record, Run | Prequential | Selection):
                    self._owed.append(record)
                loop.call_soon_threadsafe(complain, str(problem))

        loop = asyncio.get_running_loop()
        self._journal.write(record).add_done_callback(settled)

    async def write_shown(self, shown: Shown) -> None:
        """Tokens that have appeared, before the tap that is about them."""
        await self._write(shown)

    async def activate(self, version: str, why: Literal["published", "rollback", "resumed"]) -> None:
        """From here on this version acts."""
        await self._write(Activation(version, why))

    async def _write(self, record: SampleSet | Response | Shown | Version | Activation) -> None:
        try:
            await asyncio.wrap_future(self._journal.write(record))
        except JournalError as error:
            raise SessionError(error.message, error.hint) from error

    # --- what the engine knows -----------------------------------------------------------------------------------------

    def replay(self) -> Iterator[Command]:
        """Everything live, for an engine that knows nothing, and the end of it."""
        self._sent.clear()
        chunk: list[Lesson] = []
        characters = 0
        for taught in self._lessons():
            self._sent.setdefault(taught.sample_set.uid, set()).add(taught.logged.seq)
            lesson = lesson_of(taught)
            size = _characters(lesson)
            if chunk and (len(chunk) == REPLAY_CHUNK or characters + size > REPLAY_CHARACTERS):
                yield protocol.Replay(lessons=tuple(chunk))
                chunk, characters = [], 0
            chunk.append(lesson)
            characters += size
        yield protocol.Replay(lessons=tuple(chunk), last=True)

    def _lessons(self) -> Iterator[Taught]:
        """All of them, read a piece at a time: an imported log may have a hundred thousand."""
        seqs = [each.seq for each in self.record.teaching()]
        for start in range(0, len(seqs), READ_AT_ONCE):
            yield from self.record.lessons_of(seqs[start : start + READ_AT_ONCE])

    def changes(self, set_uid: str) -> Iterator[Command]:
        """What the engine must be told so that it knows what is live of one set: a newer score replaces an older, an undo brings it back."""
        sent = self._sent.get(set_uid, set())
        teaches, purpose = self.record.teaches(set_uid), self.record.sample_set(set_uid).purpose
        live = {
            logged.seq
            for logged in self.record.live(set_uid)
            if teaches and isinstance(logged.judgement, TEACHING) and not said_again(purpose, logged.judgement)
        }
        self._sent[set_uid] = live
        for seq in sorted(sent - live):
            yield protocol.Retract(seq=seq)
        for seq in sorted(live - sent):
            yield protocol.AddJudgement(lesson=lesson_of(self.record.lesson(seq)))

    # --- versions --------------------------------------------------------------------------------------------------------

    def receive(self, blob: Blob) -> None:
        """A piece of a version that the engine publishes."""
        try:
            self._assembler.add(blob)
        except BlobError as error:
            raise SessionError(str(error)) from error

    async def keep_version(self, judged: Gated) -> str:
        """Write a verdict down: a published version's files first, then its row. Returns its id; ids follow the order of the verdicts."""
        async with self._numbering:
            if judged.published:
                await self._keep_files(judged.sha256)
            version = await asyncio.to_thread(self._journal.new_version_id)
            await self._write(Version(
                version, judged.sha256, judged.parent, judged.stage, judged.published, judged.reason, judged.reason_code, judged.runs,
                judged.seed, judged.kl, judged.win_rate, judged.h_epoch, canary=judged.canary,
            ))  # fmt: skip
            if judged.published:
                await self.activate(version, "published")
        return version

    async def _keep_files(self, sha256: str) -> None:
        try:
            files = self._assembler.take(sha256)
            if files is None:
                raise SessionError("a version came without its files")
            await asyncio.to_thread(write_directory, files, self._root)
        except (BlobError, OSError) as error:
            raise SessionError(f"the new version could not be kept: {error}") from error

    def blobs_of(self, sha256: str) -> list[Blob]:
        """A version's files for the engine."""
        return blobs_in(self._root, sha256)

    def acting_version(self) -> tuple[str, str] | None:
        """Id and sha256 of the version to resume from; None for the base."""
        found = self.record.acting_version()
        return (found.id, found.sha256) if found is not None and found.id != BASE_VERSION else None


def blobs_in(root: Path, sha256: str) -> list[Blob]:
    """The pieces of a version in a folder of versions."""
    try:
        return list(split(read_directory(root / sha256)))
    except (BlobError, OSError) as error:
        raise SessionError(f"version {sha256[:12]} cannot be read: {error}", "restore its folder, or roll back to another version") from error


def lesson_of(taught: Taught) -> Lesson:
    """A judgement with the answers that it speaks of, complete enough for an engine that has never seen them."""
    messages, tap = taught.sample_set.prompt.messages, taught.logged.judgement
    if isinstance(tap, Tap | Arm):
        return _watched_lesson(taught, tap, messages)
    answers, beside = (tuple(answer_of(r, messages) for r in responses) for responses in (taught.responses, taught.beside))
    return Lesson(
        seq=taught.logged.seq,
        judgement=taught.logged.judgement,  # type: ignore[arg-type]
        answers=answers or (Answer(uid="", messages=messages, text=""),),
        beside=beside,
    )


def _characters(lesson: Lesson) -> int:
    """Of its texts, and what its tokens take in a line."""
    answers = (*lesson.answers, *lesson.beside)
    return sum(len(a.text) + 6 * (len(a.token_ids) + len(a.prompt_ids)) + sum(len(m.content) for m in a.messages) for a in answers)


def _watched_lesson(taught: Taught, tap: Tap | Arm, messages: tuple[Message, ...]) -> Lesson:
    """A tap, or a stretch of silence, with the answer as it was on the screen then; a tap on a whole answer with all that was shown of it."""
    shown = taught.shown
    if shown is None:
        return Lesson(seq=taught.logged.seq, judgement=tap, answers=tuple(answer_of(r, messages) for r in taught.responses))
    whole = isinstance(tap, Tap) and tap.whole
    n = len(shown.token_ids) if whole else bisect_right(shown.seconds, tap.seconds)
    answer = Answer(
        uid=tap.response_uid, messages=messages, text="".join(shown.texts[:n]), prompt_ids=(), token_ids=shown.token_ids[:n]
    )  # the same while it is drawn, and after
    return Lesson(seq=taught.logged.seq, judgement=tap, answers=(answer,), shown=() if whole else shown.seconds[:n], window=taught.window)


def answer_of(response: Response, messages: tuple[Message, ...]) -> Answer:
    """A recorded answer as the engine reads it."""
    r = response
    return Answer(uid=r.uid, messages=messages, text=r.text, prompt_ids=r.prompt_ids, token_ids=r.token_ids, stop=r.stop)
