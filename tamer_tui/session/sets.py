"""Which answers are open: prompts are dealt, answers are drawn and kept, and one set takes the place of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from learners import protocol
from storage.records import Prompt, Ranking, Rating, SampleSet, Skip
from storage.repeats import REPEAT
from tamer_tui.answer_streams import AnswerStreams
from tamer_tui.dealing import Dealer
from tamer_tui.session.best_of import BestOf
from tamer_tui.session.repeats import Repeats
from tamer_tui.session_store import SessionError
from tamer_tui.views import CandidateView, Change, EngineState, SetView, conversation

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

ELSEWHERE = ("chat", "duel")
"""Purposes of sets that are not shown in the Arena."""
NO_PROMPT = ("there is no prompt to open", "press n to type one")


class Sets:
    """Opens sets, one at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.dealer: Dealer | None = None
        self.repeats, self.best_of = Repeats(session), BestOf(session)
        self.streams = AnswerStreams(session.engine.send, lambda: session.sampling)
        self._waiting: SetView | None = None  # while its prompt is compared with the base
        self.typed_early: Prompt | None = None  # before the model was there

    # --- opening -------------------------------------------------------------------------------------------------------

    async def open_next(self) -> None:
        """Open the next prompt of the set: unjudged ones first, then around again."""
        dealer = self.ready_dealer()
        if (again := self.repeats.due(dealer)) is not None:
            await self.leave()
            self._session.current = self.repeats.open(dealer, again)
            self._session.tell(Change.SET)
            return
        prompt = dealer.next_prompt()
        if prompt is None:
            raise SessionError(*NO_PROMPT)
        await self._open(prompt)

    async def open_prompt(self, text: str) -> None:
        """Open a prompt that the operator typed; while the model is loaded, it opens as soon as that is done."""
        if not text.strip():
            raise SessionError("the prompt is empty")
        prompt = Prompt.of(text, self._session.settings.system, "typed")
        if self._session.ready is None and self._session.engine_state is not EngineState.DEAD:
            self.typed_early = prompt
            self._session.tell(Change.MACHINE)
        else:
            await self._open(prompt)

    async def open_first(self) -> None:
        """What the operator typed while the model was loaded, else the next prompt."""
        prompt, self.typed_early = self.typed_early, None
        await (self._open(prompt) if prompt is not None else self.open_next())

    async def open_again(self) -> None:
        """The prompt of the current set, answered anew; as one answer at reading pace where that is how it was."""
        view = self._session.set
        if view.purpose == "tap":
            await self.draw(*self.ready_dealer().single(view.prompt, self._session.uid))
        else:
            await self._open(view.prompt)

    async def continue_from(self, uid: str, text: str) -> None:
        """Go on with the conversation from one of the current answers."""
        view = self._session.set
        if not text.strip():
            raise SessionError("the message is empty")
        await self._open(Prompt(conversation(view.prompt, self.candidate(uid).text, text), "continued"))

    async def compare_with_base(self) -> None:
        """The current prompt again: the acting policy beside the base, same seed, never counted. The set that is open waits."""
        view, dealer = self._session.set, self.ready_dealer()
        counted = view.purpose in ("judge", REPEAT)
        if counted and not view.committed:
            await self._session.judging.peek()  # the base's manner is seen: it is not blind any more
            self._waiting = view
        elif counted:
            self._waiting = None
        await self.draw(*dealer.comparison(view.prompt, self._session.uid))

    async def leave_comparison(self) -> None:
        """Back to the set that waits, or on to the next prompt."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.prompt.uid != self._session.set.prompt.uid:
            await self.open_next()
            return
        await self.stop()
        self._session.current = waiting
        self.restore_marks(waiting)
        self._session.tell(Change.SET)

    async def return_to(self, set_uid: str) -> None:
        """An earlier set, from the record, with what is live of it. Those of the other screens stay there."""
        if self._session.record.sample_set(set_uid).purpose in ELSEWHERE:
            for view in self._elsewhere():
                if view.uid == set_uid:
                    self.restore_marks(view)
                    if view in self._session.chat.turns:
                        self._session.chat.restore(view)
            return
        if self._session.current is None or self._session.current.uid != set_uid:
            self._session.current = self.from_record(set_uid)
            self._session.tell(Change.SET)
        self.restore_marks(self._session.current)

    async def draw(self, record: SampleSet, view: SetView, drawn: Sequence[CandidateView] = ()) -> None:
        """This set takes the place of the current one. `drawn`: what is asked for instead of its own answers, which are chosen from it."""
        await self.leave()
        self._session.opened.keep(record, self._session.say)
        self._session.current = view
        drawn = drawn or view.candidates
        self.streams.ask(drawn, [view.prompt.messages] * len(drawn))
        self._session.tell(Change.SET)

    async def leave(self) -> None:
        """Another set will take the place of the current one."""
        await self._session.taps.finish()
        await self.stop()

    def ready_dealer(self) -> Dealer:
        """Raises SessionError while nothing can be drawn."""
        if self._session.engine_state is EngineState.DEAD:
            raise SessionError("the engine is not running", "press R to restart it")
        if self.dealer is None or self._session.engine_state is not EngineState.READY:
            raise SessionError("the model is not loaded yet")
        return self.dealer

    async def _open(self, prompt: Prompt) -> None:
        dealer, status = self.ready_dealer(), self._session.status
        known = self._session.judged > self._session.in_words
        steered = self._is_steered(prompt, known) or status.adapted
        record, opened = dealer.deal(prompt, self._session.uid, steered, status.adapted)
        if steered and known and self._session.settings.best_of > self._session.settings.k:
            await self.best_of.draw(record, opened, self._session.settings.best_of)
        else:
            await self.draw(record, opened)

    def _is_steered(self, prompt: Prompt, known: bool) -> bool:
        """Whether answers to a prompt follow what was said: what is on disk is learned before the next one is drawn. `known`: to Ĥ."""
        status = self._session.status
        if status.held or not status.bias:
            return False
        return known or any(wish.strength for wish in self._session.judging.wishes()) or self._session.record.criticised(prompt)

    # --- drawing -------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End what is being drawn for the Arena; what there is stays."""
        self.repeats.finish()
        self.streams.stop(self._drawn_here())

    async def settle(self) -> None:
        """Until nothing is being drawn for the Arena."""
        await self.streams.wait(self._drawn_here())

    def _elsewhere(self) -> tuple[SetView, ...]:
        """What the other screens show."""
        return (*self._session.chat.turns, *filter(None, [self._session.duels.current]))

    def _drawn_here(self) -> list[str]:
        """Not for other screens, which keep their state."""
        theirs = {candidate.uid for view in self._elsewhere() for candidate in view.candidates}
        return [uid for uid in self.streams.drawn if uid not in theirs]

    async def wait_ended(self) -> SetView:
        """Until all answers of the current set are complete."""
        view = self._session.set
        await self.streams.wait(c.uid for c in view.candidates)
        await self.best_of.chosen(view)
        return view

    async def end(self, uids: Iterable[str]) -> None:
        """End these answers, if they are still being drawn."""
        unfinished = [uid for uid in uids if uid in self.streams]
        if unfinished:
            self.streams.stop(unfinished)
            await self.streams.wait(unfinished)

    async def end_current(self) -> None:
        """A judgement speaks of whole answers: end those that are still being drawn."""
        view = self._session.set
        await self._session.taps.finish()
        self.repeats.finish()
        if self.best_of.choosing(view):
            self.streams.stop(self._drawn_here())
            await self.best_of.chosen(view)
        await self.end(c.uid for c in view.candidates)

    def follow(self, event: protocol.Started | protocol.Tokens | protocol.Ended) -> None:
        """Answers grow, and are kept when they are complete."""
        complete = self.streams.take(event)
        if complete is not None:
            self._drawn(complete)
            self._session.tell(Change.ENDED)
        elif isinstance(event, protocol.Tokens):
            self._session.tell(Change.TOKENS)

    def give_up(self, uid: str, why: str) -> None:
        """The engine cannot go on with an answer."""
        if (view := self.streams.give_up(uid, why)) is not None:
            self._drawn(view)
            self._session.tell(Change.ENDED)

    def break_off(self) -> None:
        """The engine is gone: what there is of each answer is the answer."""
        self.best_of.break_off()
        for view in self.streams.break_off():
            self._drawn(view)

    def keep(self, view: CandidateView) -> None:
        """Record an answer of a set, also of one that was left while it was drawn. (Those of an evaluation are not kept.)"""
        if view.set_uid and self._session.store is not None and not view.kept:
            view.kept = True
            self._session.store.keep(view.response(), self._session.say)

    def _drawn(self, view: CandidateView) -> None:
        """All of an answer is here. Of one that is tapped, what is not on the screen yet may still change."""
        self._session.status.draw(view)
        if not view.paced:
            self.keep(view)

    # --- from the record -------------------------------------------------------------------------------------------------

    def candidate(self, uid: str) -> CandidateView:
        """One of the current answers. Raises SessionError."""
        try:
            return self._session.set.candidate(uid)
        except KeyError:
            raise SessionError(f"there is no answer {uid} in this set") from None

    def from_record(self, set_uid: str) -> SetView:
        """A set as it was judged."""
        record = self._session.record
        found = record.sample_set(set_uid)
        view = SetView(set_uid, found.prompt, [CandidateView.of(response) for response in record.responses(set_uid)], found.purpose)
        if view.purpose == "tap":
            self._session.taps.restore(view)
        return view

    def restore_marks(self, view: SetView) -> None:
        """What is live of the set: its ranking and its scores."""
        view.ranks, view.committed = {}, False
        for candidate in view.candidates:
            candidate.ratings.clear()
        for logged in self._session.record.live(view.uid):
            judgement = logged.judgement
            if isinstance(judgement, Ranking):
                view.ranks, view.committed = dict(judgement.ranks), True
            elif isinstance(judgement, Skip):
                view.committed = True
            elif isinstance(judgement, Rating):
                view.candidate(judgement.response_uid).ratings[judgement.criterion] = judgement.value
