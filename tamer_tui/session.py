"""What the operator of a sitting can do: open prompts, judge, take back, and set the machine. Screens and commands alike drive this.

Knows neither Textual nor torch. Methods that judge return after the commit to disk; all raise SessionError with one clear line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from learners import protocol
from learners.protocol import Idle
from storage.records import (
    BASE_VERSION,
    Arm,
    Correction,
    Demonstration,
    Judgement,
    Peek,
    Policy,
    Prompt,
    Ranking,
    Rating,
    Redo,
    SampleSet,
    Skip,
    Tap,
    Undo,
    new_uid,
)
from storage.rows import MarkedVersion
from tamer_tui.dealing import Dealer
from tamer_tui.engine_session import EngineSession
from tamer_tui.session_store import SessionError, answer_of, blobs_in
from tamer_tui.views import CandidateView, Change, EngineState, Observer, SessionSettings, SetView, StageView, conversation

__all__ = [
    "CandidateView", "Change", "EngineState", "Observer", "Session", "SessionError", "SessionSettings", "SetView", "StageView", "conversation",
]  # fmt: skip

DRAW_BATCH = 48
"""Answers in one `generate` line of an evaluation."""


class Session(EngineSession):
    """One teaching sitting. See the module."""

    _waiting: SetView | None = None  # while its prompt is compared with the base

    # --- sets --------------------------------------------------------------------------------------------------------

    async def next_set(self) -> None:
        """Open the next prompt of the set: unjudged ones first, then around again."""
        prompt = self._ready_dealer().next_prompt()
        if prompt is None:
            raise SessionError("there is no prompt to open", "press n to type one")
        await self._open_set(prompt)

    async def open_prompt(self, text: str) -> None:
        """Open a prompt that the operator typed."""
        if not text.strip():
            raise SessionError("the prompt is empty")
        await self._open_set(Prompt.of(text, self.settings.system, "typed"))

    async def continue_from(self, uid: str, text: str) -> None:
        """Go on with the conversation from one of the current answers."""
        view = self._set()
        if not text.strip():
            raise SessionError("the message is empty")
        await self._open_set(Prompt(conversation(view.prompt, self._candidate(uid).text, text), "continued"))

    async def compare_with_base(self) -> None:
        """The current prompt again: the acting policy beside the base, same seed, never counted. The set that is open waits."""
        view, dealer = self._set(), self._ready_dealer()
        if view.purpose == "judge" and not view.committed:
            await self.peek()  # the base's manner is seen: it is not blind any more
            self._waiting = view
        elif view.purpose == "judge":
            self._waiting = None
        await self._generate(*dealer.comparison(view.prompt, self._sitting))

    async def leave_comparison(self) -> None:
        """Back to the set that waits, or on to the next prompt."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.prompt.uid != self._set().prompt.uid:
            await self.next_set()
            return
        await self.stop()
        self.current = waiting
        self._restore_marks(waiting)
        self._tell(Change.SET)

    async def stop(self) -> None:
        """End what is being drawn; what there is stays."""
        self._streams.stop()

    async def wait_set_ended(self) -> SetView:
        """Until all answers of the current set are complete."""
        view = self._set()
        await self._streams.wait(c.uid for c in view.candidates)
        return view

    async def _open_set(self, prompt: Prompt) -> None:
        dealer, status = self._ready_dealer(), self.status
        steered = (status.bias and self.judged > 0) or status.adapted  # what is on disk is learned before the next answer is drawn
        await self._generate(*dealer.deal(prompt, self._sitting, steered, status.adapted))

    async def _leave(self) -> None:
        """Another set takes the place of the current one."""
        await self.stop()

    def _ready_dealer(self) -> Dealer:
        if self.engine_state is EngineState.DEAD:
            raise SessionError("the engine is not running", "press R to restart it")
        if self._dealer is None or self.engine_state is not EngineState.READY:
            raise SessionError("the model is not loaded yet")
        return self._dealer

    async def _generate(self, record: SampleSet, view: SetView) -> None:
        await self._leave()
        self._open_store().keep(record, self._say)
        self.current = view
        self._streams.ask(view.candidates, [view.prompt.messages] * len(view.candidates))
        self._tell(Change.SET)

    # --- judgements --------------------------------------------------------------------------------------------------

    async def rank(self, ranks: dict[str, int], keys: str = "", seconds: float = 0.0) -> int:
        """Commit an order over the current answers; ranks are made dense."""
        view = self._set()
        if len(view.candidates) < 2 or not ranks:
            raise SessionError("a ranking needs an answer to put first", "type its letter")
        dense = {rank: i for i, rank in enumerate(sorted(set(ranks.values())), start=1)}
        ranks = {uid: dense[rank] for uid, rank in ranks.items()}
        await self._end_current()
        seq = await self._append(Ranking(view.uid, ranks, seconds, keys))
        view.ranks, view.committed = ranks, True
        self._tell(Change.COMMITTED)
        return seq

    async def rate(self, uid: str, value: int, criterion: str = "overall") -> int:
        """Score one of the current answers from 1 to 7."""
        view = self._set()
        candidate = self._candidate(uid)
        await self._end_current()
        seq = await self._append(Rating(view.uid, uid, value, criterion))
        candidate.ratings[criterion] = value
        self._tell(Change.COMMITTED)
        return seq

    async def clear_rating(self, uid: str, criterion: str = "overall") -> None:
        """Take an answer's scores on a criterion back."""
        view, candidate = self._set(), self._candidate(uid)
        for seq in self.record.rating_seqs(uid, criterion):
            await self._append(Undo(seq), view.uid)
        candidate.ratings.pop(criterion, None)
        self._tell(Change.COMMITTED)

    async def correct(self, uid: str, text: str) -> int:
        """Keep an answer as the operator rewrote it."""
        view, candidate = self._set(), self._candidate(uid)
        if not text.strip():
            raise SessionError("the answer is empty")
        await self._end_current()
        if text == candidate.text:
            raise SessionError("nothing was changed")
        seq = await self._append(Correction(view.uid, uid, text))
        self._tell(Change.COMMITTED)
        return seq

    async def demonstrate(self, text: str) -> int:
        """Keep the ideal answer to the current prompt."""
        if not text.strip():
            raise SessionError("the answer is empty")
        seq = await self._append(Demonstration(self._set().uid, text))
        self._tell(Change.COMMITTED)
        return seq

    async def skip(self) -> int:
        """Pass over the current set."""
        view = self._set()
        await self.stop()
        seq = await self._append(Skip(view.uid))
        view.committed = True
        self._tell(Change.COMMITTED)
        return seq

    async def peek(self) -> int:
        """Something hidden was looked at before the commit: the set will not count."""
        return await self._append(Peek(self._set().uid))

    def appraise(self, by: protocol.RewardLearner = "human_reward") -> None:
        """Ask what a learner thinks of every word of the current set: Change.APPRAISED follows. Only of what may be known: after the commit."""
        view = self._set()
        if not view.revealed:
            raise SessionError("opinions are shown after the commit", "it would not be blind before")
        messages, sampling = view.prompt.messages, self.settings.sampling
        found = [candidate.response(sampling) for candidate in view.candidates if candidate.ended]
        self._send(protocol.Appraise(answers=tuple(answer_of(response, messages) for response in found), by=by))

    async def undo(self) -> str:
        """Take the newest judgement back; its set comes back, answers intact. Says what was undone."""
        seq = self.record.last_undoable()
        if seq is None:
            raise SessionError("there is nothing to undo")
        return await self._turn(Undo(seq), seq, "undone")

    async def redo(self) -> str:
        """Put back what was undone last. Says what."""
        seq = self.record.last_redoable()
        if seq is None:
            raise SessionError("there is nothing to redo")
        return await self._turn(Redo(seq), seq, "redone")

    async def _turn(self, event: Undo | Redo, seq: int, how: str) -> str:
        judgement = self.record.logged(seq).judgement
        set_uid: str = judgement.set_uid  # type: ignore[union-attr]
        if self.current is None or self.current.uid != set_uid:
            await self._leave()
            await self._streams.settle()  # so that the answers of the set are on disk before they are read
        await self._append(event, set_uid)
        if isinstance(event, Undo) and isinstance(judgement, Ranking):
            await self._append(Peek(set_uid))  # which answer was the base was shown at the commit: ranked again, it is not blind
        if self.current is None or self.current.uid != set_uid:
            self.current = self._from_record(set_uid)
            self._tell(Change.SET)
        self._restore_marks(self.current)
        self._tell(Change.COMMITTED)
        return f"{how}: {_in_words(judgement)}"

    def _from_record(self, set_uid: str) -> SetView:
        record = self.record
        found = record.sample_set(set_uid)
        candidates = [CandidateView.of(response) for response in record.responses(set_uid)]
        return SetView(set_uid, found.prompt, candidates, found.purpose)

    def _restore_marks(self, view: SetView) -> None:
        """What is live of the set: its ranking and its scores."""
        view.ranks, view.committed = {}, False
        for candidate in view.candidates:
            candidate.ratings.clear()
        for logged in self.record.live(view.uid):
            judgement = logged.judgement
            if isinstance(judgement, Ranking):
                view.ranks, view.committed = dict(judgement.ranks), True
            elif isinstance(judgement, Skip):
                view.committed = True
            elif isinstance(judgement, Rating):
                view.candidate(judgement.response_uid).ratings[judgement.criterion] = judgement.value

    def _candidate(self, uid: str) -> CandidateView:
        try:
            return self._set().candidate(uid)
        except KeyError:
            raise SessionError(f"there is no answer {uid} in this set") from None

    async def _end_current(self) -> None:
        """A judgement speaks of whole answers: end those that are still being drawn."""
        view = self._set()
        unfinished = [c.uid for c in view.candidates if c.uid in self._streams]
        if unfinished:
            self._streams.stop(unfinished)
            await self._streams.wait(unfinished)

    async def _append(self, judgement: Judgement, set_uid: str = "") -> int:
        """To disk first; then the engine is told what changed about the set."""
        store = self._open_store()
        seq = await store.append(judgement)
        self.last_commit = judgement
        for command in store.changes(set_uid or judgement.set_uid):  # type: ignore[union-attr]
            self._send(command)
        self._count()
        return seq

    # --- the machine -------------------------------------------------------------------------------------------------

    async def set_nats(self, nats: float) -> None:
        """Budget of the acting policy against the base, per 64 tokens."""
        if not 0 <= nats <= 1000:
            raise SessionError("the budget is a number of nats from 0 to 1000")
        self.status.nats = nats
        self._send(protocol.Set(nats=nats))

    async def set_bias(self, on: bool) -> None:
        """Steering by Ĥ on or off."""
        self.status.bias = on
        self._send(protocol.Set(bias=on))
        self._tell(Change.LEARNED)

    async def set_paused(self, paused: bool) -> None:
        """Hold or resume the learning of adapters; resuming also ends the hold after a rollback."""
        if self.status.held and not paused:
            await self._open_store().activate(self.status.acting[0], "resumed")
            self.status.held = False
        self.status.paused = paused
        self._send(protocol.Set(paused=paused))
        self._tell(Change.METRICS)

    async def train_now(self) -> None:
        """Start a round of training, even with little new to learn."""
        if self.status.held:
            raise SessionError("learning is held after the rollback", "press p to resume it")
        self.status.paused = False
        self._send(protocol.Set(train_now=True))
        self._tell(Change.METRICS)

    async def rollback(self, version: str) -> None:
        """Act with an earlier version, 'base' for none; learning is held until the operator resumes it."""
        store = self._open_store()
        found = next((v for v in self.versions() if v.id == version and v.published), None)
        if found is None and version != BASE_VERSION:
            raise SessionError(f"there is no published version {version}")
        blobs = store.blobs_of(found.sha256) if found is not None else []
        await store.activate(version, "rollback")
        for blob in blobs:
            self._send(blob)
        self._send(protocol.Rollback(version=version, sha256=found.sha256 if found is not None else None))
        self.status.held = self.status.paused = True
        self._tell(Change.VERSION)

    async def act_with(self, version: str, sha256: str, root: Path) -> None:
        """Act with a version of another database, whose versions lie under `root`; nothing is recorded."""
        for blob in blobs_in(root, sha256):
            self._send(blob)
        self._send(protocol.Rollback(version=version, sha256=sha256))

    def versions(self) -> list[MarkedVersion]:
        """Newest first."""
        return self._store.record.versions() if self._store is not None else []

    # --- commands without a screen -------------------------------------------------------------------------------------

    async def draw(self, prompts: Sequence[Prompt], policies: Sequence[Policy], seeds: Sequence[int]) -> list[CandidateView]:
        """One answer to each prompt by the policy beside it, in batches, not recorded. Raises SessionError when the engine dies."""
        drawn: list[CandidateView] = []
        for start in range(0, len(prompts), DRAW_BATCH):
            self._raise_if_dead()
            part = slice(start, start + DRAW_BATCH)
            views = [CandidateView(new_uid(), 0, policy, seed) for policy, seed in zip(policies[part], seeds[part], strict=True)]
            self._streams.ask(views, [prompt.messages for prompt in prompts[part]])
            await self._streams.wait(view.uid for view in views)
            self._raise_if_dead()
            drawn += views
        return drawn

    async def grant(self, seconds: float | None = None, steps: int | None = None, flush: bool = False) -> Idle:
        """Metered: let the learner train this much, and wait. With `flush`, bring what was trained to the gate."""
        self._raise_if_dead()
        self._idle = asyncio.get_running_loop().create_future()
        self._send(protocol.Set(train_seconds=seconds, train_steps=steps, flush=flush))
        idle = await self._idle
        await asyncio.gather(*self._tasks)
        return idle


def _in_words(judgement: Judgement) -> str:
    match judgement:
        case Ranking():
            return "the ranking"
        case Rating(value=value, criterion=criterion):
            return f"the score {value} ({criterion})"
        case Correction():
            return "the rewritten answer"
        case Demonstration():
            return "the ideal answer"
        case Skip():
            return "the skip"
        case Tap(value=value):
            return "the praise" if value > 0 else "the blame"
        case Arm():
            return "the stretch in which silence counted"
    return "it"
