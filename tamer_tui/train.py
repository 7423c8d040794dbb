"""`tamer train`: the judgements of a database go into a run's folder, a process of the learners trains there, and what came of it is recorded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from learners.protocol import Error, Event, Gated, Load, Metrics, Notice, Ready, encode
from learners.train.request import LESSONS, REQUEST, STOPPED, VERSIONS, Planned, Rebuilt, TrainRequest, read_request
from learners.versions.blobs import BlobError, read_directory, write_directory
from storage.journal import Journal, JournalError
from storage.queries import Record
from storage.records import BASE_VERSION, Activation, BaseModel, Sitting, Version, new_uid
from tamer_tui import __version__
from tamer_tui.options import NATS, session_settings
from tamer_tui.progress import paint
from tamer_tui.published import Published, find
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.text import duration, one_line
from tamer_tui.told_lessons import ToldLessons
from tamer_tui.views import SessionSettings

LOG = "log.txt"
"""In the run's folder: what the processes say on stderr."""
_told = msgspec.json.Decoder(Event | Planned | Rebuilt)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Wanted:
    """What to do, beside what to train with."""

    iterations: int
    threads: int = 1
    dry_run: bool = False
    prepare: bool = False
    launch: str = ""
    record: bool = False
    as_json: bool = False


def run(database: Path, out: Path | None, chosen: dict[str, Any], wanted: Wanted, tell: Callable[[str], None]) -> str:
    """What came of it, in words or JSON; `tell` takes lines for a person meanwhile. Raises SessionError."""
    found = find(database, BASE_VERSION)
    settings = settings_of(found, chosen)
    with contextlib.ExitStack() as stack:
        folder = out if out is not None and not wanted.dry_run else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tamer-train-")))
        left_out = prepare(database, folder, settings, wanted, found.base.base_hash if found.base else "")
        if wanted.prepare:
            return f"{folder} is ready: accelerate launch -m learners.train {shlex.quote(str(folder))}"
        worker = Worker(folder, wanted.launch, tell)
        worker.run("--plan") if wanted.dry_run else worker.run()
        if wanted.dry_run:
            assert worker.planned is not None and worker.ready is not None
            return _as_json(worker.planned) if wanted.as_json else plan_in_words(worker.planned, worker.ready, left_out)
        rebuilt = worker.rebuilt
        if rebuilt is None:
            raise SessionError("the run ended without a result", f"see {folder / LOG}")
        recorded = record_version(database, folder, rebuilt) if wanted.record else ""
    if wanted.as_json:
        return _as_json(rebuilt)
    return "\n".join(line for line in (result_in_words(folder, rebuilt), recorded) if line)


def settings_of(found: Published, chosen: dict[str, Any]) -> SessionSettings:
    """As the last sitting had them, where nothing else is said."""
    if found.base is None and chosen["model"] is None:
        raise SessionError("no sitting has named a model for this database", "pass --model")
    known = found.model_options(chosen["model"]) | found.drawing_options() | {"nats": found.settings.get("nats", NATS)}
    known |= {"learn_thoughts": bool(found.settings.get("learn_thoughts")), "system": found.settings.get("system")}
    if chosen["model"] is not None and found.base is not None and chosen["model"] != found.base.name:
        known |= {"adapter": None, "quantize": "auto"}  # those were of another base
    said = {name: value for name, value in chosen.items() if name not in known or value not in (None, (), "auto")}
    if not chosen["no_bias"] and found.settings.get("bias") is False:
        said["no_bias"] = True
    settings = session_settings({"max_new_tokens": None, **known, **said})
    if not {"sft", "distill", "ppo"} & {*settings.stages}:
        raise SessionError(f"--stages {','.join(settings.stages)} trains no policy", "add sft, distill or ppo")
    return settings


# --- the run's folder ------------------------------------------------------------------------------------------------------


def prepare(database: Path, folder: Path, settings: SessionSettings, wanted: Wanted, base_hash: str) -> dict[str, int]:
    """Write what is asked for, unless it stands there already; what of the log teaches nothing, and why. Raises SessionError."""
    try:
        with Record(database) as record:
            left_out = record.teaches_nothing()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # as private as the database
            part = folder / f".{LESSONS}"
            digest = hashlib.sha256()
            with part.open("wb") as file:
                for command in ToldLessons(record).begin(whole=True):
                    line = encode(command)
                    digest.update(line)
                    file.write(line)
        request = TrainRequest(
            load=_load(settings), iterations=wanted.iterations, base_hash=base_hash, lessons_sha256=digest.hexdigest(), threads=wanted.threads
        )
        if (folder / REQUEST).exists() and read_request(folder).sha256 != request.sha256:
            part.unlink()
            raise SessionError(f"{folder} holds another run: other judgements, settings or options", "give another --out")
        part.replace(folder / LESSONS)
        (folder / REQUEST).write_bytes(msgspec.json.format(msgspec.json.encode(request)))
        return left_out
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    except (OSError, msgspec.DecodeError) as error:
        raise SessionError(f"{folder} cannot be used: {error}", "give another --out") from error


def _load(s: SessionSettings) -> Load:
    model = str(path.resolve()) if (path := Path(s.model).expanduser()).exists() else s.model
    return Load(
        model=model, peft_adapter=s.peft_adapter, quantize=s.quantize, device=s.device, seed=s.seed, nats=s.nats, bias=s.bias, stages=s.stages,
        metered=True, sampling=s.sampling, unset=s.unset, train_prompts=tuple(prompt.messages for prompt in s.prompts),
        trust_remote_code=s.trust_remote_code, thinking=s.thinking, learn_thoughts=s.learn_thoughts,
    )  # type: ignore[arg-type]  # fmt: skip


# --- the process -----------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """The process that trains, and what it has said."""

    folder: Path
    launch: str
    tell: Callable[[str], None]
    ready: Ready | None = None
    planned: Planned | None = None
    rebuilt: Rebuilt | None = None
    _error: Error | None = None
    _left: TimeLeft | None = None

    def run(self, *options: str) -> None:
        """Until it ends. Raises SessionError, also where it was asked to stop."""
        starter = shlex.split(self.launch) or [sys.executable]
        log = self.folder / LOG
        began = log.stat().st_size if log.exists() else 0
        with log.open("ab") as words:
            try:
                process = subprocess.Popen(
                    [*starter, "-m", "learners.train", str(self.folder), "--events", *options], stdout=subprocess.PIPE, stderr=words
                )
            except OSError as error:
                raise SessionError(f"{starter[0]} cannot be started: {error}", "see --launch") from error
            code = self._follow(process)
        paint("")
        if self._error is not None:
            raise SessionError(self._error.what, self._error.hint)
        if code == STOPPED:
            raise SessionError("stopped between two steps", "the same command goes on from there")
        if code:
            last = next(reversed(log.read_bytes()[began:].decode("utf-8", "replace").strip().splitlines()), "")
            raise SessionError(f"training ended with exit code {code}: {one_line(last)[:200]}", f"{log} has more; the same command goes on")

    def _follow(self, process: subprocess.Popen[bytes]) -> int:
        """Ctrl+c reaches the child too, which finishes its step."""
        assert process.stdout is not None
        while True:
            try:
                for line in process.stdout:
                    with contextlib.suppress(msgspec.DecodeError):  # what a launcher says
                        self._take(_told.decode(line))
                return process.wait()
            except KeyboardInterrupt:
                paint("stopping after this step")

    def _take(self, event: Event | Planned | Rebuilt) -> None:
        match event:
            case Ready():
                self.ready = event
            case Planned():
                self.planned, self._left = event, TimeLeft(event)
            case Rebuilt():
                self.rebuilt = event
            case Notice(what=what):
                self._say(what)
            case Error(fatal=True):
                self._error = event
            case Error(what=what):
                self._say(what)
            case Gated():
                self._say(f"{event.stage}: {'published' if event.published else 'refused'}, {event.reason}")
            case Metrics():
                left = self._left.after(event) if self._left is not None else None
                paint(f"{event.stage} {event.step:,} of {event.of:,}{f' · about {duration(left)} left' if left is not None else ''} · ctrl+c stops")

    def _say(self, line: str) -> None:
        paint("")
        self.tell(line)


@dataclass
class TimeLeft:
    """From the plan's seconds, corrected by how long what is done has taken."""

    planned: Planned
    _began: float = field(default_factory=time.monotonic)
    _first: float | None = None  # planned seconds that were done when this process began

    def after(self, at: Metrics) -> float | None:
        """Seconds; None while that is not known."""
        order = ("sft", "distill", "reward", "ppo")
        costs = {cost.stage: cost for cost in self.planned.stages}
        if at.stage not in costs:
            return None
        before = sum(cost.seconds for name, cost in costs.items() if order.index(name) < order.index(at.stage))
        own = costs[at.stage]
        done = before + own.seconds * min(1.0, at.step / max(1, own.steps))
        self._first = done if self._first is None else self._first
        total, spent = sum(cost.seconds for cost in costs.values()), time.monotonic() - self._began
        rate = spent / (done - self._first) if done - self._first > 0.05 * total else 1.0
        return (total - done) * rate


# --- what came of it -------------------------------------------------------------------------------------------------------


def record_version(database: Path, folder: Path, rebuilt: Rebuilt) -> str:
    """Make it a version of the database, with its runs; in words. Raises SessionError."""
    if not rebuilt.sha256:
        return "nothing to record"
    ready, gated = rebuilt.ready, next(each for each in reversed(rebuilt.gated) if each.sha256 == rebuilt.sha256)
    with _opened(database) as (record, journal):
        base = record.base()
        if base is not None and base.base_hash != ready.base_hash:
            there = folder / VERSIONS / rebuilt.sha256
            raise SessionError(f"{database} belongs to {base.name}, and this policy to another base", f"it is in {there}")
        known = next((each.id for each in record.versions() if each.sha256 == rebuilt.sha256), None)
        if known is not None:
            return f"{known} of {database} is this policy already"
        write_directory(read_directory(folder / VERSIONS / rebuilt.sha256), SessionStore.root_of(database))
        hashes = (ready.weights_sha256, ready.tokenizer_sha256, ready.template_sha256)
        base = base or BaseModel(ready.base_hash, ready.model, ready.quantize, ready.parameters, ready.layers, *hashes)
        journal.bind(base, Sitting(new_uid(), base.base_hash, __version__, json.dumps(record.settings()), "operator", ready.quantize))
        have = {each.uid for each in record.runs()}
        version = journal.new_version_id()
        journal.together([
            *(each for each in rebuilt.runs if each.uid not in have),
            Version(
                version, rebuilt.sha256, BASE_VERSION, gated.stage, True, gated.reason, gated.reason_code, tuple(each.uid for each in rebuilt.runs),
                gated.seed, gated.kl, gated.win_rate, gated.h_epoch, canary=gated.canary,
            ),
            Activation(version, "published"),
        ]).result()  # fmt: skip
    return f"{version} of {database}: the next sitting acts with it"


@contextlib.contextmanager
def _opened(database: Path) -> Iterator[tuple[Record, Journal]]:
    try:
        with Journal.open(database, create=False) as journal, Record(database) as record:
            yield record, journal
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    except (BlobError, OSError) as error:
        raise SessionError(f"the version cannot be kept: {error}", "make room, then run the same command again") from error


def plan_in_words(planned: Planned, ready: Ready, left_out: dict[str, int]) -> str:
    """For `--dry-run`."""
    stages = [f"  {cost.stage:<8}{cost.steps:>7,} steps{cost.tokens:>14,} tokens   about {duration(cost.seconds)}" for cost in planned.stages]
    reasons = [f"  {n:,}: {one_line(why)}" for why, n in {**left_out, **planned.left_out}.items() if n]
    return "\n".join([
        f"{planned.judgements:,} judgements are used{f', {planned.carried:,} of them by their texts alone' if planned.carried else ''}; "
        f"left out: {'nothing' if not reasons else ''}".rstrip(),
        *reasons,
        *stages,
        f"about {duration(sum(cost.seconds for cost in planned.stages))} in all, and {planned.memory_bytes / 1e9:.1f} GB of memory on {ready.device}",
    ])  # fmt: skip


def result_in_words(folder: Path, rebuilt: Rebuilt) -> str:
    """Where it is, and how it did."""
    if not rebuilt.sha256:
        reasons = "; ".join(f"{each.stage}: {each.reason}" for each in rebuilt.gated) or "there was nothing to learn"
        return f"no version came of it: {reasons}"
    last = next(each for each in reversed(rebuilt.gated) if each.sha256 == rebuilt.sha256)
    kl = f", {last.kl:.1f} nats" if last.kl is not None else ""
    about = f"{last.reason}{kl}, {duration(rebuilt.seconds)} of training (adapter sha256 {rebuilt.adapter_sha256})"
    return f"{folder / VERSIONS / rebuilt.sha256}: {about}"


def _as_json(value: Planned | Rebuilt) -> str:
    return msgspec.json.encode(value).decode()
