"""What the operator says about answers: orders, scores, other words; and takes back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from learners import protocol
from storage.records import (
    BASE_VERSION,
    Arm,
    Comment,
    Correction,
    Critique,
    Demonstration,
    Flag,
    Judgement,
    Peek,
    Ranking,
    Rating,
    Redo,
    Skip,
    Span,
    Tap,
    Undo,
)
from tamer_tui.session.sets import ELSEWHERE
from tamer_tui.session_store import SessionError
from tamer_tui.text import one_line
from tamer_tui.told_lessons import answer_of
from tamer_tui.views import Change

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

STRONGEST = 3
"""Of a wish; the negative asks for the opposite."""


class Judging:
    """Every method returns after the commit to disk."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def rank(self, ranks: dict[str, int], keys: str = "", seconds: float = 0.0) -> int:
        """Commit an order over the current answers; ranks are made dense."""
        view = self._session.set
        if len(view.candidates) < 2 or not ranks:
            raise SessionError("a ranking needs an answer to put first", "type its letter")
        dense = {rank: i for i, rank in enumerate(sorted(set(ranks.values())), start=1)}
        ranks = {uid: dense[rank] for uid, rank in ranks.items()}
        await self._session.sets.end_current()
        seq = await self.append(Ranking(view.uid, ranks, seconds, keys))
        view.ranks, view.committed = ranks, True
        self._session.tell(Change.COMMITTED)
        return seq

    async def rate(self, uid: str, value: int, criterion: str = "overall") -> int:
        """Score one of the current answers from 1 to 7."""
        view, candidate = self._session.set, self._session.sets.candidate(uid)
        await self._session.sets.end_current()
        seq = await self.append(Rating(view.uid, uid, value, criterion))
        candidate.ratings[criterion] = value
        self._session.tell(Change.COMMITTED)
        return seq

    async def clear_rating(self, uid: str, criterion: str = "overall") -> None:
        """Take an answer's scores on a criterion back."""
        view, candidate = self._session.set, self._session.sets.candidate(uid)
        for seq in self._session.record.rating_seqs(uid, criterion):
            await self.append(Undo(seq), view.uid)
        candidate.ratings.pop(criterion, None)
        self._session.tell(Change.COMMITTED)

    async def correct(self, uid: str, text: str) -> int:
        """Keep an answer as the operator rewrote it."""
        view, candidate = self._session.set, self._session.sets.candidate(uid)
        if not text.strip():
            raise SessionError("the answer is empty")
        await self._session.sets.end_current()
        if text == candidate.said:
            raise SessionError("nothing was changed")
        return await self._commit(Correction(view.uid, uid, text))

    async def demonstrate(self, text: str) -> int:
        """Keep the ideal answer to the current prompt."""
        if not text.strip():
            raise SessionError("the answer is empty")
        return await self._commit(Demonstration(self._session.set.uid, text))

    # --- in words --------------------------------------------------------------------------------------------------------

    async def criticise(self, uid: str | None, text: str, scope: Literal["prompt", "all"] = "prompt") -> int:
        """Say what should be otherwise, of one of the current answers or, with None, of all of them. With scope 'all' it is a standing wish, which
        says nothing of a single answer."""
        said = critique(self._session.set.uid, uid, text, scope)
        await self._session.sets.end_current()
        return await self._commit(said)

    def wishes(self) -> list[Critique]:
        """Standing wishes, those that are switched off too, in the order of their sets. Of two in the same words the last one counts."""
        found = [logged.judgement for logged in self._session.record.wishes()]
        latest = {wish.text: wish for wish in found if isinstance(wish, Critique)}
        return sorted(latest.values(), key=lambda wish: (wish.set_uid, wish.text))

    async def set_strength(self, wish: Critique, strength: int) -> str:
        """Make a wish stronger or weaker, or switch it off with 0. An event of its own, which undo takes back. Says what becomes of it."""
        await self._commit(replace(wish, strength=strength))
        said = self.follow(f"answers follow {'it' if strength > 0 else 'its opposite'}") if strength else "it is off"
        return f"✓ {said}{await self.leave_stale(words=True)}"

    async def switch(self, wish: Critique) -> str:
        """Off, and on again as strong as it was."""
        return await self.set_strength(wish, 0 if wish.strength else [1, *self._session.record.strengths(wish.text)][-1])

    def follow(self, what: str) -> str:
        """From when on answers do what was said: at once, unless the operator has switched off what steers them."""
        status = self._session.status
        if status.held:
            return f"{what} once learning goes on: p"
        return f"{what} from here on" if status.bias else f"{what} once steering is on: B"

    async def skip(self) -> int:
        """Pass over the current set."""
        view = self._session.set
        await self._session.sets.stop()
        seq = await self.append(Skip(view.uid))
        view.committed = True
        self._session.tell(Change.COMMITTED)
        return seq

    async def peek(self) -> int:
        """Something hidden was looked at before the commit: the set will not count."""
        return await self.append(Peek(self._session.set.uid))

    def appraise(self, by: protocol.RewardLearner = "human_reward") -> None:
        """Ask what a learner thinks of every word of the current set: Change.APPRAISED follows. Only of what may be known: after the commit."""
        view = self._session.set
        if not view.revealed:
            raise SessionError("opinions are shown after the commit", "it would not be blind before")
        found = tuple(answer_of(candidate.response(), view.prompt.messages) for candidate in view.candidates if candidate.ended)
        self._session.engine.send(protocol.Appraise(answers=found, by=by))

    # --- notes, from which nothing is learned ------------------------------------------------------------------------------

    async def flag(self, uid: str, label: str) -> int:
        """Mark one of the current answers as a case of something."""
        await self._session.sets.end_current()
        return await self.flag_of(self._session.set.uid, self._session.sets.candidate(uid).uid, label)

    async def flag_of(self, set_uid: str, uid: str, label: str) -> int:
        """The same of an answer of the record."""
        return await self._commit(Flag(set_uid, uid, label))

    async def mark(self, uid: str, words: str, near: int, label: str) -> int:
        """Mark words of one of the current answers as a case of something: where they stand next to the character `near`."""
        await self._session.sets.end_current()
        candidate = self._session.sets.candidate(uid)
        starts = [found.start() for found in re.finditer(re.escape(words), candidate.text)] if words.strip() else []
        if not starts:
            raise SessionError("these words do not stand so in the answer", "M shows it as it was written; mark them there")
        start = min(starts, key=lambda at: abs(at - near))
        return await self._commit(Span(self._session.set.uid, candidate.uid, start, start + len(words), label))

    async def comment(self, set_uid: str, uid: str | None, text: str) -> int:
        """A note on a set, or on one of its answers."""
        if not text.strip():
            raise SessionError("the comment is empty")
        return await self._commit(Comment(set_uid, uid, text))

    # --- taking back -----------------------------------------------------------------------------------------------------

    async def undo(self) -> str:
        """Take the newest judgement back; its set comes back, answers intact. Says what was undone."""
        seq = self._session.record.last_undoable()
        if seq is None:
            raise SessionError("there is nothing to undo")
        return await self._turn(Undo(seq), seq, "undone")

    async def redo(self) -> str:
        """Put back what was undone last. Says what."""
        seq = self._session.record.last_redoable()
        if seq is None:
            raise SessionError("there is nothing to redo")
        return await self._turn(Redo(seq), seq, "redone")

    async def _turn(self, event: Undo | Redo, seq: int, how: str) -> str:
        session = self._session
        judgement = session.record.logged(seq).judgement
        set_uid: str = judgement.set_uid  # type: ignore[union-attr]
        if isinstance(judgement, Critique) and judgement.scope == "all" and session.record.said_before(seq):  # a strength, of no set
            await self._commit(event, set_uid)
            (strength,) = (wish.strength for wish in self.wishes() if wish.text == judgement.text)
            return f"{how}: {_in_words(judgement)} is {f'{strength:+d}' if strength else 'off'} again{await self.leave_stale(words=True)}"
        elsewhere = session.record.sample_set(set_uid).purpose in ELSEWHERE
        open_still = session.current is not None and session.current.uid == set_uid
        told = not elsewhere and (not open_still or session.set.revealed)
        if not elsewhere and not open_still:
            await session.sets.leave()
            await session.sets.settle()  # so that the answers of the set are on disk before they are read
        await self.append(event, set_uid)
        if isinstance(event, Undo) and (isinstance(judgement, Ranking) or (isinstance(judgement, Rating) and told)):
            await self.append(Peek(set_uid))  # which answer was the base was shown at the commit: judged again, it is not blind
        if isinstance(event, Undo) and isinstance(judgement, Critique):
            await session.chat.take_back(set_uid)
        await session.sets.return_to(set_uid)
        session.tell(Change.COMMITTED)
        left = await self.leave_stale(isinstance(judgement, Critique)) if isinstance(event, Undo) else ""
        return f"{how}: {_in_words(judgement)}{left}"

    async def leave_stale(self, words: bool) -> str:
        """What becomes of a version that learned from what does not hold any more, in words. It acts on until it is trained anew: Ĥ takes back what
        it said. Of `words` it cannot, and where nothing is left that teaches, nothing would take its place: then the newest version from before
        acts."""
        session, acting = self._session, self._session.record.acting_version()
        if acting is None or not acting.stale or session.status.held:
            return ""
        left = session.judged - sum(not wish.strength for wish in self.wishes())
        if left and not words:
            return f"; {acting.id} learned from it, and is trained anew without"
        before = next((version.id for version in session.machine.versions() if version.published and not version.stale), BASE_VERSION)
        paused = session.status.paused
        await session.machine.rollback(before)
        await session.machine.set_paused(False)
        if paused:
            await session.machine.set_paused(True)
        who = "the untouched model" if before == BASE_VERSION else before
        return f"; {acting.id} learned from it: {who} answers{' until it is trained anew' if left else ''}"

    # --- writing down ----------------------------------------------------------------------------------------------------

    async def append(self, judgement: Judgement, set_uid: str = "") -> int:
        """To disk first; then the engine is told what changed about the set."""
        session = self._session
        store = session.opened
        seq = await store.append(judgement)
        session.last_commit = judgement
        for command in store.told.changes(set_uid or judgement.set_uid):  # type: ignore[union-attr]
            session.engine.send(command)
        session.count()
        return seq

    async def _commit(self, judgement: Judgement, set_uid: str = "") -> int:
        seq = await self.append(judgement, set_uid)
        self._session.tell(Change.COMMITTED)
        return seq


def critique(set_uid: str, uid: str | None, text: str, scope: Literal["prompt", "all"]) -> Critique:
    """Of an answer or of all of a set; a standing wish names none. Raises SessionError."""
    if not text.strip():
        raise SessionError("the critique is empty", "say in a line what should be otherwise")
    return Critique(set_uid, uid if scope == "prompt" else None, text.strip(), scope)


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
        case Critique(text=text):
            return f"«{one_line(text)}»"
        case Skip():
            return "the skip"
        case Tap(value=value):
            return "the praise" if value > 0 else "the blame"
        case Arm():
            return "the stretch in which silence counted"
        case Flag(label=label):
            return f"the flag {label}"
        case Comment():
            return "the comment"
    return "it"
