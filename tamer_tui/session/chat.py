"""A conversation with the acting policy: each turn is a set of one answer, so everything that can be said of an answer can be said of any turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from storage.records import Correction, Prompt, Rating
from tamer_tui.session.judging import critique
from tamer_tui.session_store import SessionError
from tamer_tui.views import Change, SetView, conversation

if TYPE_CHECKING:
    from tamer_tui.dealing import Dealer
    from tamer_tui.session.session import Session

GOOD, BAD = 7, 1
"""What a thumb up and a thumb down are worth as scores."""


class Chat:
    """Turns, oldest first. What was branched away from is in the record."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.turns: list[SetView] = []
        self._drawn: dict[str, tuple[str, list[str]]] = {}  # what the model said where the operator wrote something else, by the answer's uid
        self._replaced: dict[str, tuple[SetView, list[SetView]]] = {}  # uid of a criticised turn -> the one in its place, and it with what followed

    async def say(self, text: str) -> None:
        """The operator's next message; the answer is drawn."""
        session = self._session
        if not text.strip():
            raise SessionError("the message is empty")
        dealer = session.sets.ready_dealer()
        if self.turns:
            last = self.turns[-1]
            await session.sets.end([last.candidates[0].uid])
            messages = conversation(last.prompt, last.candidates[0].text, text)
        else:
            messages = Prompt.of(text, session.settings.system).messages
        self._answer(dealer, Prompt(messages, "chat"))

    def _answer(self, dealer: Dealer, prompt: Prompt) -> SetView:
        session = self._session
        record, view = dealer.turn(prompt, session.uid)
        session.opened.keep(record, session.say)
        session.sets.streams.ask(view.candidates, [prompt.messages])
        self.turns.append(view)
        session.tell(Change.CHAT)
        return view

    async def thumb(self, view: SetView, good: bool) -> None:
        """Good or bad, on disk."""
        answer, value = view.candidates[0], GOOD if good else BAD
        if self._written(view):
            raise SessionError("these are your own words", "/undo puts the model's back")
        await self._session.sets.end([answer.uid])
        await self._session.judging.append(Rating(view.uid, answer.uid, value))
        answer.ratings["overall"] = value
        self._session.tell(Change.COMMITTED)

    async def rewrite(self, view: SetView, text: str) -> None:
        """What should have been said: it is learned from, and the conversation goes on from it."""
        answer = view.candidates[0]
        await self._session.sets.end([answer.uid])
        if not text.strip():
            raise SessionError("the answer is empty")
        if text == answer.said:
            raise SessionError("nothing was changed")
        await self._session.judging.append(Correction(view.uid, answer.uid, text))
        self._session.tell(Change.COMMITTED)
        turn = self.turns.index(view)
        self.turns[turn + 1 :] = []
        self._drawn.setdefault(answer.uid, (answer.text, answer.pieces))
        answer.text, answer.pieces = text, [text]
        self._session.tell(Change.CHAT)

    def restore(self, view: SetView) -> None:
        """What stands in a turn after an undo or a redo: what was written there last, else what the model said."""
        answer, written = view.candidates[0], self._written(view)
        if answer.uid in self._drawn:
            answer.text, answer.pieces = (written[-1], [written[-1]]) if written else self._drawn[answer.uid]
            self._session.tell(Change.CHAT)

    def _written(self, view: SetView) -> list[str]:
        return [each.judgement.text for each in self._session.record.live(view.uid) if isinstance(each.judgement, Correction)]

    async def criticise(self, view: SetView, text: str, scope: Literal["prompt", "all"] = "prompt") -> None:
        """What should be otherwise in a turn: it is answered anew, and what came after it is left. Taken back, both are there again."""
        session, answer = self._session, view.candidates[0]
        said = critique(view.uid, answer.uid, text, scope)
        await session.sets.end([answer.uid])
        await session.judging.append(said)
        session.tell(Change.COMMITTED)
        dealer, turn = session.sets.ready_dealer(), self.turns.index(view)
        await self.stop()
        left, self.turns[turn:] = self.turns[turn:], []
        self._replaced[view.uid] = self._answer(dealer, view.prompt), left

    async def take_back(self, set_uid: str) -> None:
        """The critique of a turn was undone: that one is there again, where the one drawn in its place still is."""
        instead, left = self._replaced.pop(set_uid, (None, []))
        if instead in self.turns:
            await self.stop()
            self.turns[self.turns.index(instead) :] = left
            self._session.tell(Change.CHAT)

    async def stop(self) -> None:
        """End the answer that is being drawn."""
        if self.turns:
            await self._session.sets.end([self.turns[-1].candidates[0].uid])

    async def branch(self, view: SetView) -> None:
        """Go on from this turn; what came after it is left."""
        await self.stop()
        del self.turns[self.turns.index(view) + 1 :]
        self._session.tell(Change.CHAT)

    async def begin_anew(self) -> None:
        """An empty conversation."""
        await self.stop()
        self.turns.clear()
        self._session.tell(Change.CHAT)
