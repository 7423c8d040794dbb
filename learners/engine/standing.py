"""What the engine has been told and has said so far, as far as a terminal that comes back, or another one, must know it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from learners import protocol
from learners.link import runs_of
from learners.protocol import Command, Event, Load

LIVE_SETTINGS = ("nats", "bias", "train_prompts", "gate_prompts")
"""Of `load`, what a running engine takes from each terminal anew."""
OF_THE_TERMINAL = (*LIVE_SETTINGS, "adapter", "version", "paused", "blob_bytes")
"""… and what is a matter of the terminal's state, not of the model."""


class Standing:
    """Follows commands and events. Belongs to whoever holds the hub's lock."""

    def __init__(self) -> None:
        self.load: Load | None = None
        self.ready: protocol.Ready | None = None
        self.database = self.place = ""
        self._taught: set[int] = set()
        self._replayed = False
        self._said: dict[str, Event] = {}  # the latest of what the next one replaces
        self._drawn: list[Event] = []  # of the answers that were asked for last
        self._runs: list[Event] = []  # since the last verdict
        self.proposal: list[Event] = []  # a version that the gate let pass, and that no terminal has said is on disk
        self._blobs: list[Event] = []

    def told(self, command: Command) -> None:
        """A command goes to the engine."""
        match command:
            case Load():
                self.load = command
            case protocol.Set() if self.load is not None:
                now = {name: value for name in LIVE_SETTINGS if (value := getattr(command, name)) is not None}
                self.load = msgspec.structs.replace(self.load, **now)
            case protocol.Teaches(database=database, place=place):
                self.database, self.place = database, place
            case protocol.Replay(lessons=lessons, last=last, sample=sample):
                self._taught |= {lesson.seq for lesson in lessons}
                self._replayed |= last and not sample
            case protocol.AddJudgement(lesson=lesson):
                self._taught.add(lesson.seq)
            case protocol.Retract(seq=seq):
                self._taught.discard(seq)
            case protocol.Generate(requests=requests):
                self._drawn = [protocol.Asked(requests=requests)]
            case protocol.PublishAck(sha256=sha256):
                if self.proposed == sha256:
                    self.proposal = []

    def said(self, event: Event) -> None:
        """The engine says something."""
        match event:
            case protocol.Ready():
                self.ready = event
            case protocol.Started() | protocol.Tokens() | protocol.Ended():
                self._drawn.append(event)
            case protocol.Metrics(stage=stage):
                self._said[f"metrics {stage}"] = event
            case protocol.Learned() | protocol.Acting():
                self._said[type(event).__name__] = event
            case protocol.Trained():
                self._runs.append(event)
            case protocol.Blob():
                self._blobs.append(event)
            case protocol.Gated(published=published):
                if published:
                    self.proposal = [*self._runs, *self._blobs, event]
                self._runs, self._blobs = [], []

    @property
    def proposed(self) -> str:
        """sha256 of the version that waits to be on a disk; '' for none."""
        return self.proposal[-1].sha256 if self.proposal and isinstance(self.proposal[-1], protocol.Gated) else ""

    def greeting(self) -> Iterator[Event]:
        """For a terminal that is new here: what is loaded, who acts, and what is known of which log."""
        if self.ready is None:
            return
        acting = self._said.get("Acting")
        version = acting.version if isinstance(acting, protocol.Acting) else self.ready.version
        taught = runs_of(self._taught) if self.database else None
        yield msgspec.structs.replace(self.ready, version=version, database=self.database, place=self.place, taught=taught)
        yield from self._said.values()

    def drawn(self) -> list[Event]:
        """For a terminal that watches: the answers that were asked for last, as far as they came."""
        return self._drawn

    def misfit(self, load: Load) -> str:
        """What of this `load` is not as the engine was loaded, in words; '' where it goes on as it is."""
        assert self.load is not None
        for name in load.__struct_fields__:
            here, wanted = getattr(self.load, name), getattr(load, name)
            if name not in OF_THE_TERMINAL and here != wanted:
                return f"{name.replace('_', '-')} {_in_words(here)} is loaded, and {_in_words(wanted)} is asked for"
        return ""

    def changed(self, load: Load) -> protocol.Set | None:
        """What a terminal that found a loaded engine wants otherwise."""
        assert self.load is not None
        changed = {name: getattr(load, name) for name in LIVE_SETTINGS if getattr(load, name) != getattr(self.load, name)}
        self.load = msgspec.structs.replace(self.load, **changed)
        return protocol.Set(**changed) if changed else None


def _in_words(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{name} {_in_words(found)}" for name, found in msgspec.structs.asdict(value).items() if found)
    return str(list(value)) if isinstance(value, tuple) else str(value)
