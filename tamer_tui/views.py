"""What an observer of a sitting reads: sets and answers as they grow, what each learner does, and the settings it was started with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import NamedTuple

from learners.protocol import STAGES, Ended, Metrics, Piece, Stage, Started, Thinking
from storage.records import BASE_VERSION, Message, Policy, Prompt, Response, Sampling, StopReason
from storage.thoughts import split_thought


class Change(StrEnum):
    """What an observer is told about. Observers are called in the loop, must not block, and read the session's state."""

    LOADING = "loading"  # session.loading
    READY = "ready"  # session.ready
    SET = "set"  # session.current is another set
    CHAT = "chat"  # session.chat.turns
    DUEL = "duel"  # session.duels.current
    TOKENS = "tokens"  # texts of session.current grew
    ENDED = "ended"  # an answer of session.current is complete
    COMMITTED = "committed"  # a judgement is on disk; session.last_commit
    APPRAISED = "appraised"  # session.appraisals
    LEARNED = "learned"  # session.sentence, session.learning
    METRICS = "metrics"  # session.learning
    MACHINE = "machine"  # what the operator set: session.status
    VERSION = "version"  # session.machine.versions(), session.acting
    ENGINE = "engine"  # session.engine_state
    NOTICE = "notice"  # session.notice: one clear line for the operator


Observer = Callable[[Change], None]


class EngineState(StrEnum):
    """Where the engine stands."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


class SteeredSpan(NamedTuple):
    """From token `start` on, an answer was drawn with this Ĥ, this strongly."""

    start: int
    h_epoch: int
    beta: float


class Side(NamedTuple):
    """Who answers: the policy as it acts, the base, or the adapter of a version alone."""

    name: str  # or the version's id
    policy: Policy
    sha256: str | None = None  # of the version


ACTING, BASE = Side("acting", "acting"), Side(BASE_VERSION, "base")

OWN = ("uid", "slot", "policy", "set_uid", "ratings", "kept")
"""What an answer's place in a set keeps, whichever answer it shows."""


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
    logprobs: list[float] = field(default_factory=list)
    unbiased_logprobs: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    started: Started | None = None
    kl: float = 0.0
    thought_tokens: int | None = None  # the first so many; None: not known
    forced_tokens: int = 0  # the last so many of those
    set_uid: str = ""  # '' for an answer that is not recorded, as in an evaluation
    shown: list[float] = field(default_factory=list)  # of an answer that is tapped: when each token appeared, seconds
    spans: list[SteeredSpan] = field(default_factory=list)  # what steered which part; each begins where the answer was drawn anew
    paced: bool = False  # it is tapped while it appears: what is not on the screen yet may still change
    kept: bool = False  # written down as a whole
    refused: str = ""  # why the model cannot read its prompt: it has no text then
    temperature: float | None = None  # None: as that of all
    sampling: Sampling | None = None  # how it is drawn, once that was asked for
    redrawing: int = 0  # times that its rest was asked for anew and has not begun to come
    version: str = ""  # of one that a version's adapter draws, whether it acts or not: its id,
    sha256: str | None = None  # and its hash

    @property
    def letter(self) -> str:
        return "abcdefghi"[self.slot] if self.slot < 9 else str(self.slot + 1)  # imported sets may have more than can be typed

    @property
    def side(self) -> str:
        """Who drew it, as a `Side` is named."""
        return self.version or self.policy

    @property
    def so_far(self) -> str:
        """Its text, as far as it came."""
        return self.text or "".join(self.pieces).strip()

    def grow(self, piece: Piece) -> None:
        """Take new tokens; where an answer was resumed, what came after its fixed part is dropped."""
        start = piece.start
        self.token_ids[start:] = piece.ids
        self.pieces[start:] = piece.texts
        self.logprobs[start:] = piece.logprobs
        self.unbiased_logprobs[start:] = piece.unbiased_logprobs
        self.times[start:] = piece.times

    def begin(self, started: Started) -> None:
        """It is being drawn: at first, or from where its rest was dropped."""
        self.spans.append(SteeredSpan(len(self.pieces), started.h_epoch, started.beta))
        self.started = self.started or started
        self.redrawing = max(0, self.redrawing - 1)

    @property
    def said(self) -> str:
        """The whole answer without what was thought before it."""
        return split_thought(self.text).answer

    @property
    def cut(self) -> int:
        """Tokens of the prompt that were dropped to fit the context."""
        return self.started.truncated if self.started is not None else 0

    def drop_unseen(self) -> None:
        """What was not on the screen yet is to be drawn anew."""
        n = len(self.shown)
        for column in (self.token_ids, self.pieces, self.logprobs, self.unbiased_logprobs, self.times):
            del column[n:]
        self.ended, self.text = None, ""

    def end(self, ended: Ended) -> None:
        """Nothing more comes."""
        self.ended, self.text, self.kl = ended.reason, ended.text, ended.kl
        self.thought_tokens, self.forced_tokens = ended.thought_tokens, ended.forced_tokens

    def adopt(self, drawn: CandidateView) -> None:
        """Become this answer, under one's own name and in one's own place."""
        for column in fields(self):
            if column.name not in OWN:
                setattr(self, column.name, getattr(drawn, column.name))

    def break_off(self) -> None:
        """The engine is gone: what came is the answer."""
        self.ended, self.text, self.redrawing = "stopped", "".join(self.pieces), 0

    def response(self) -> Response:
        """For the record."""
        started = self.started or Started(uid=self.uid, prompt_ids=(), version=BASE_VERSION, h_epoch=0, beta=0.0, policy=self.policy)
        return Response(
            self.uid, self.set_uid, self.slot, self.policy, started.version, started.h_epoch, started.beta, self.seed, self.sampling or Sampling(),
            started.prompt_ids, tuple(self.token_ids), self.text, tuple(self.logprobs), tuple(self.unbiased_logprobs),
            tuple(self.times), self.ended or "stopped", self.kl, thought_tokens=self.thought_tokens, forced_tokens=self.forced_tokens,
        )  # fmt: skip

    @staticmethod
    def of(response: Response) -> CandidateView:
        """As it was, from the record. Texts of single tokens are not kept: the answer is one piece."""
        view = CandidateView(response.uid, response.slot, response.policy or "base", response.seed or 0, [response.text])
        view.ended, view.text, view.kl = response.stop or "eos", response.text, response.kl or 0.0  # an imported one has none
        view.thought_tokens, view.forced_tokens = response.thought_tokens, response.forced_tokens
        view.token_ids, view.set_uid, view.sampling = list(response.token_ids), response.set_uid, response.sampling
        return view


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

    @property
    def revealed(self) -> bool:
        """Whether it may be shown who wrote what, and what Ĥ thinks of it."""
        return self.committed or self.purpose == "compare"

    def candidate(self, uid: str) -> CandidateView:
        """Raises KeyError."""
        for candidate in self.candidates:
            if candidate.uid == uid:
                return candidate
        raise KeyError(uid)


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

    def update(self, metrics: Metrics) -> None:
        """Take new figures; those that a line lacks stay."""
        self.step, self.of, self.seconds_left = metrics.step, metrics.of, metrics.seconds_left
        self.note = metrics.note or self.note
        for name in ("loss", "accuracy", "reward", "kl"):
            value = getattr(metrics, name)
            if value is not None:
                setattr(self, name, value)


@dataclass(frozen=True)
class SessionSettings:
    """Everything a sitting is started with."""

    model: str
    prompts: tuple[Prompt, ...] = ()  # none: starter prompts, by whether the model has a chat template
    k: int = 4
    best_of: int = 0  # answers of the acting policy that are drawn where fewer are shown; 0: those that are shown
    sampling: Sampling = field(default_factory=Sampling)
    unset: tuple[str, ...] = ()  # of it, what the model's own generation settings may set
    temperatures: tuple[float, ...] = ()  # of the answers of an Arena set, dealt anew for each
    nats: float = 6.0
    bias: bool = True
    quantize: str = "auto"
    device: str = "auto"
    stages: tuple[Stage, ...] = STAGES
    seed: int = 0
    metered: bool = False  # simulate: train only what is granted
    held_out: float = 0.0  # share of prompts by hash never shown (simulate: 0.2)
    operator: str = "operator"
    system: str | None = None
    trust_remote_code: bool = False
    peft_adapter: str | None = None  # that becomes part of the base
    thinking: Thinking = "auto"
    learn_thoughts: bool = False  # else what was thought before an answer is no part of it
    autostart: bool = True  # open the first set by itself
    unigram: bool = False  # see protocol.Load
    frozen_ppo: bool = False


def conversation(prompt: Prompt, answer: str, text: str) -> tuple[Message, ...]:
    """The prompt that continues from an answer."""
    return (*prompt.messages, Message("assistant", answer), Message("user", text))
