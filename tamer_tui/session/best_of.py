"""Best-of-n: of more answers than a set has places for, the best by Ĥ and the reward model are shown.

What a bias on tokens cannot reach, a choice among whole answers can (BOND, Sessa et al. 2024, distils it). The base's answer, and one of the adapter
alone, are each the only one that was drawn for their places. Nothing is shown before all are drawn: what streams would be known by it.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from learners import protocol
from learners.protocol import Appraised, RewardLearner
from storage.records import LeftOut, SampleSet, Selection, new_uid
from tamer_tui.told_lessons import answer_of
from tamer_tui.views import CandidateView, Change, EngineState, SetView

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

JUDGES: tuple[RewardLearner, ...] = ("human_reward", "reward")


class BestOf:
    """Draws, asks the learners, chooses."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._choosing: dict[str, asyncio.Future[None]] = {}  # by set
        self._asked: dict[RewardLearner, asyncio.Future[Appraised | None]] = {}

    async def draw(self, record: SampleSet, view: SetView, n: int) -> None:
        """This set takes the place of the current one; it shows nothing until it has been chosen from n answers."""
        pool = [CandidateView(new_uid(), 0, "acting", seed) for seed in self._session.sets.ready_dealer().seeds(n)]
        others = [c for c in view.candidates if c.policy != "acting"]
        alone = {c.uid: CandidateView(new_uid(), c.slot, c.policy, c.seed, temperature=c.temperature) for c in others}
        self._choosing[view.uid] = asyncio.get_running_loop().create_future()
        await self._session.sets.draw(record, view, [*alone.values(), *pool])
        self._session.spawn(self._choose(view, pool, alone))

    async def chosen(self, view: SetView) -> None:
        """Until what it shows has been chosen; at once where nothing is."""
        if (choice := self._choosing.get(view.uid)) is not None:
            await asyncio.shield(choice)

    def choosing(self, view: SetView) -> bool:
        return view.uid in self._choosing

    def take(self, event: Appraised) -> bool:
        """Whether it was asked for here."""
        asked = self._asked.get(event.by)
        if asked is None or asked.done():
            return False
        asked.set_result(event)
        return True

    def break_off(self) -> None:
        """The engine is gone: nobody answers."""
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)

    async def _choose(self, view: SetView, pool: Sequence[CandidateView], alone: Mapping[str, CandidateView]) -> None:
        session = self._session
        try:
            await session.sets.streams.wait([c.uid for c in (*pool, *alone.values())])
            judge, scores = await self._scores(view, pool)
            places = [c for c in view.candidates if c.policy == "acting"]
            best = sorted(range(len(pool)), key=lambda i: -scores[i])[: len(places)]
            for place, i in zip(places, sorted(best), strict=True):  # in the order in which they were drawn: a place tells nothing
                place.adopt(pool[i])
            for place in view.candidates:
                if place.uid in alone:
                    place.adopt(alone[place.uid])
                session.sets.keep(place)
            by_uid = {place.uid: round(scores[i], 4) for place, i in zip(places, sorted(best), strict=True)}
            others = [i for i in range(len(pool)) if i not in best]
            left_out = tuple(LeftOut(pool[i].seed, round(scores[i], 4), tuple(pool[i].token_ids), pool[i].text) for i in others)
            session.opened.keep(Selection(view.uid, len(pool), judge, by_uid, left_out), session.say)
        finally:
            self._choosing.pop(view.uid).set_result(None)
            session.tell(Change.ENDED)

    async def _scores(self, view: SetView, pool: Sequence[CandidateView]) -> tuple[str, list[float]]:
        """Who judged, and the mean reward of each answer's tokens in standard deviations of these answers; of two learners, their sum."""
        found = {by: scores for by in JUDGES if (scores := await self._by(by, view, pool))}
        total = [sum(scores[i] for scores in found.values()) for i in range(len(pool))]
        return "+".join(found) or "human_reward", total

    async def _by(self, by: RewardLearner, view: SetView, pool: Sequence[CandidateView]) -> list[float]:
        """Empty where that learner knows nothing."""
        session = self._session
        if session.engine_state is not EngineState.READY or (by == "reward" and "reward" not in session.settings.stages):
            return []
        messages = view.prompt.messages
        asked = self._asked[by] = asyncio.get_running_loop().create_future()
        session.engine.send(protocol.Appraise(answers=tuple(answer_of(c.response(), messages) for c in pool), by=by, whole=True))
        appraised = await asked
        thought = {c.uid: 0 if session.settings.learn_thoughts else c.thought_tokens or 0 for c in pool}
        said = {a.uid: a.rewards[thought[a.uid] :] for a in (appraised.appraisals if appraised else ())}
        rewards = {uid: statistics.fmean(some) for uid, some in said.items() if some}
        if not rewards:
            return []
        mean, spread = statistics.fmean(rewards.values()), statistics.pstdev(rewards.values()) or 1.0
        worst = min(rewards.values())  # of an answer without a word
        return [(rewards.get(c.uid, worst) - mean) / spread for c in pool]
