"""The record as a sitting uses it: judgements go to disk first, then the engine is told what changed; versions are kept whole.

The terminal process alone writes; what the engine lacks after a restart is read back from here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

from learners.protocol import Blob, Gated
from learners.versions.blobs import Assembler, BlobError, read_directory, split, write_directory
from storage.journal import Journal, JournalError
from storage.queries import Record
from storage.records import (
    BASE_VERSION,
    Activation,
    BaseModel,
    Judgement,
    Prequential,
    Response,
    Run,
    SampleSet,
    Selection,
    Shown,
    Sitting,
    Version,
)
from tamer_tui.told_lessons import ToldLessons

KEEPING_SECONDS = 60.0
"""A version that cannot be written down, as on a full disk, is tried again for so long: the engine waits for it."""
RETRY_SECONDS = 2.0


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
        self.abandoned = self._journal.abandoned  # whoever wrote last was cut short
        self._numbering = asyncio.Lock()  # a version's id is free until its row is written
        self._root = self.root_of(path)
        self._assembler = Assembler()
        self._owed: list[SampleSet | Response | Run] = []  # what could not be written yet, in its order
        self.told = ToldLessons(self.record)

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
                if not isinstance(record, Prequential | Selection):
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

    async def _write(self, record: SampleSet | Response | Run | Shown | Activation) -> None:
        try:
            await asyncio.wrap_future(self._journal.write(record))
        except JournalError as error:
            raise SessionError(error.message, error.hint) from error

    # --- versions --------------------------------------------------------------------------------------------------------

    def receive(self, blob: Blob) -> None:
        """A piece of a version that the engine publishes."""
        try:
            self._assembler.add(blob)
        except BlobError as error:
            raise SessionError(str(error)) from error

    async def keep_version(self, judged: Gated, complain: Callable[[str], None] = lambda line: None, acts: Callable[[], bool] = lambda: True) -> str:
        """Write a verdict down: a published version's files first, then its row, and that it acts, where nobody went back to another meanwhile.
        Returns its id; ids follow the order of the verdicts.

        What cannot be written is told, and tried again for a while. Raises SessionError after that, or where the files are not whole.
        """
        async with self._numbering:
            files = self._files_of(judged.sha256) if judged.published else None
            end = time.monotonic() + KEEPING_SECONDS
            while True:
                try:
                    return await self._keep_version(judged, files, acts)
                except (BlobError, JournalError, OSError) as error:
                    problem = SessionError(f"the new version could not be kept: {error}", getattr(error, "hint", ""))
                    if time.monotonic() > end:
                        raise problem from error
                complain(str(problem))
                await asyncio.sleep(RETRY_SECONDS)

    async def _keep_version(self, judged: Gated, files: Mapping[str, bytes] | None, acts: Callable[[], bool]) -> str:
        if files is not None:
            await asyncio.to_thread(write_directory, files, self._root)
        version = await asyncio.to_thread(self._journal.new_version_id)
        row = Version(
            version, judged.sha256, judged.parent, judged.stage, judged.published, judged.reason, judged.reason_code, judged.runs,
            judged.seed, judged.kl, judged.win_rate, judged.h_epoch, canary=judged.canary,
        )  # fmt: skip
        owed = [run for run in self._owed if run.uid in judged.runs]
        activation = [Activation(version, "published")] if judged.published and acts() else []
        await asyncio.wrap_future(self._journal.together([*owed, row, *activation]))
        self._owed = [record for record in self._owed if record not in owed]
        return version

    def _files_of(self, sha256: str) -> Mapping[str, bytes]:
        try:
            files = self._assembler.take(sha256)
        except BlobError as error:
            raise SessionError(f"the new version could not be kept: {error}") from error
        if files is None:
            raise SessionError("a version came without its files")
        return files

    def blobs_of(self, sha256: str) -> list[Blob]:
        """A version's files for the engine."""
        return blobs_in(self._root, sha256)

    def acts_with(self) -> str:
        """Id of the version that the record ends with."""
        return (self.acting_version() or (BASE_VERSION,))[0]

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
