"""One teaching sitting: the state machine that the screens and the commands without a screen both drive.

Knows neither Textual nor torch. It owns the journal (writes) and a Record (reads), talks to an engine, and tells observers what
changed. Everything here runs in one asyncio loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from storage.records import Message, Policy, Prompt, Sampling, StopReason


class Change(StrEnum):
    """What an observer is told about. Observers are called in the loop, must not block, and read the session's state."""

    LOADING = "loading"  # session.loading
    READY = "ready"  # session.ready
    SET = "set"  # session.current is another set
    TOKENS = "tokens"  # texts of session.current grew
    ENDED = "ended"  # an answer of session.current is complete
    COMMITTED = "committed"  # a judgement is on disk; session.last_commit
    LEARNED = "learned"  # session.sentence, session.learning
    METRICS = "metrics"  # session.learning
    VERSION = "version"  # session.versions(), session.acting
    ENGINE = "engine"  # session.engine_state
    NOTICE = "notice"  # session.notice: one clear line for the operator


class EngineState(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


@dataclass
class CandidateView:
    """One answer as it grows. `policy` must not be shown before the commit."""

    uid: str
    slot: int
    policy: Policy
    seed: int
    pieces: list[str] = field(default_factory=list)  # text of each token
    token_ids: list[int] = field(default_factory=list)
    ended: StopReason | None = None
    text: str = ""  # '' until ended
    ratings: dict[str, int] = field(default_factory=dict)  # criterion -> score, as on disk

    @property
    def letter(self) -> str:
        return "abcdefghi"[self.slot]


@dataclass
class SetView:
    """K answers to one prompt."""

    uid: str
    prompt: Prompt
    candidates: list[CandidateView]
    purpose: str = "judge"
    committed: bool = False
    ranks: dict[str, int] = field(default_factory=dict)  # as on disk, after the commit

    @property
    def ended(self) -> bool:
        return all(candidate.ended for candidate in self.candidates)


@dataclass
class StageView:
    """What the rail shows of one learner."""

    stage: str
    step: int = 0
    of: int = 0
    seconds_left: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    reward: float | None = None
    kl: float | None = None
    note: str = ""
    active: bool = False


@dataclass(frozen=True)
class SessionSettings:
    """Everything a sitting is started with."""

    model: str
    prompts: tuple[Prompt, ...]
    k: int = 4
    sampling: Sampling = Sampling()
    nats: float = 6.0
    bias: bool = True
    quantize: str = "auto"
    device: str = "auto"
    stages: tuple[str, ...] = ("sft", "distill", "reward", "ppo")
    seed: int = 0
    metered: bool = False  # simulate: train only what is granted
    held_out: float = 0.0  # share of prompts by hash never shown (simulate: 0.2)
    operator: str = "operator"
    system: str | None = None
    adapter: str | None = None  # a PEFT directory to start from


Observer = Callable[[Change], None]


class Session:
    """See the module. Methods that judge return after the commit to disk; they raise SessionError with one clear line."""

    # state that observers read ------------------------------------------------------------------------------------
    #   current: SetView | None        loading: protocol.Loading | None      ready: protocol.Ready | None
    #   engine_state: EngineState      notice: str                           sentence: str   (what the last judgement did, in words)
    #   learning: dict[str, StageView] seconds_since_change: float | None    acting: (version id, beta, h_epoch)
    #   blind: BlindCount (last 30), blind_all, blind_adapter                nats, bias, paused, held: bool  (held after a rollback)
    #   judged: int                    database: Path

    # lifecycle --------------------------------------------------------------------------------------------------
    async def start(self) -> None: ...  # spawn engine, load, (on Ready) bind database, replay, first set if `autostart`
    async def close(self) -> None: ...
    async def restart_engine(self) -> None: ...  # R
    def observe(self, observer: Observer) -> None: ...

    # sets -------------------------------------------------------------------------------------------------------
    async def next_set(self) -> None: ...  # next prompt of the set (unjudged first, then around again)
    async def open_prompt(self, text: str) -> None: ...  # n, paste
    async def continue_from(self, uid: str, text: str) -> None: ...  # l
    async def compare_with_base(self) -> None: ...  # o: same prompt and seed, acting against base, never counted
    async def stop(self) -> None: ...  # esc at the bottom

    # judgements: each returns the seq after the commit ------------------------------------------------------------
    async def rank(self, ranks: dict[str, int], keys: str = "", seconds: float = 0.0) -> int: ...
    async def rate(self, uid: str, value: int, criterion: str = "overall") -> int: ...
    async def clear_rating(self, uid: str, criterion: str = "overall") -> None: ...
    async def correct(self, uid: str, text: str) -> int: ...
    async def demonstrate(self, text: str) -> int: ...
    async def skip(self) -> int: ...
    async def peek(self) -> int: ...
    async def undo(self) -> str: ...  # what was undone, in words; the set comes back as `current`, answers intact
    async def redo(self) -> str: ...

    # the machine ------------------------------------------------------------------------------------------------
    async def set_nats(self, nats: float) -> None: ...
    async def set_bias(self, on: bool) -> None: ...
    async def set_paused(self, paused: bool) -> None: ...
    async def train_now(self) -> None: ...
    async def rollback(self, version: str) -> None: ...
    def versions(self) -> Sequence: ...  # storage.queries versions, newest first

    # commands without a screen -------------------------------------------------------------------------------------
    async def wait_set_ended(self) -> SetView: ...
    async def draw(self, prompts: Sequence[Prompt], policies: Sequence[Policy], purpose: str = "evaluate") -> list: ...
    async def grant(self, seconds: float | None = None, steps: int | None = None, flush: bool = False): ...  # -> protocol.Idle


def conversation(prompt: Prompt, answer: str, text: str) -> tuple[Message, ...]:
    """The prompt that continues from an answer."""
    return (*prompt.messages, Message("assistant", answer), Message("user", text))
