"""`tamer simulate`: a program in the operator's place, over the same Session that the screens drive, and an evaluation at the end."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from learners.protocol import Idle
from storage.journal import JournalError
from storage.queries import Record
from storage.records import Calibration, Policy, Prompt
from tamer_tui.dealing import Split
from tamer_tui.operators import Judge, RunningQuantiles, ask, ranks_of, rewrite, say
from tamer_tui.session import Session, SessionError
from tamer_tui.simulated_taps import TapReader
from tamer_tui.views import CandidateView, Change, EngineState, SessionSettings

ANSWERS = 4
"""Of each policy to each held-out prompt."""
HELD_OUT = 0.2
"""Share of the prompts, by hash, that are kept for the end."""


@dataclass(frozen=True)
class Plan:
    """What the simulated operator does."""

    rounds: int
    feedback: str  # 'ranking', 'rating', 'correction', 'critique' or 'taps'
    operator: str  # as it was named
    function: Callable[..., Any]  # the operator: a Judge, Corrector, Critic or Tapper, by the feedback
    judge: Judge  # of the end
    judge_name: str
    train_seconds: float | None
    train_steps: int | None
    seed: int
    taps: int | None = None  # go no further than this many
    silence: bool = False  # counts: words that pass untapped are worth 0
    window: tuple[float, float] | None = None  # for comparison: credit taps by another window than the operator's (benchmarks)


class Seconds(Struct, frozen=True):
    """Where the time went. Reward and policy are the learner's, rollouts included."""

    generate: float
    judge: float
    human_reward: float
    reward: float
    policy: float
    total: float


class Outcome(Struct, frozen=True):
    """What `tamer simulate` prints. KL is in nats per held-out answer, acting policy against base."""

    rounds: int
    versions: int
    published: int
    refused: dict[str, int]
    win_rate: float
    wins: int
    ties: int
    losses: int
    win_rate_adapter_only: float | None
    kl_per_response: float
    kl_adapter_only: float | None
    reward_pair_accuracy: float | None
    base_score: float
    policy_score: float
    seconds: Seconds
    quantize: str
    seed: int
    taps: int | UnsetType = UNSET  # with --feedback taps
    prompts_refused: int | UnsetType = UNSET  # that the model cannot read, where there are any
    prompts_cut: int | UnsetType = UNSET  # that were longer than the context …
    prompt_tokens_cut: int | UnsetType = UNSET  # … and by how many tokens in all


class Simulation:
    """Runs a plan on a session that is ready. Raises OperatorError, SessionError."""

    def __init__(
        self, session: Session, plan: Plan, progress: Callable[[str], None] = lambda line: None, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        """`progress` takes lines that replace each other, `tell` those that stay: what was left out."""
        self._session, self._plan, self._progress, self._tell = session, plan, progress, tell
        self._refused: dict[str, str] = {}  # prompt uid -> why the model cannot read it
        self._told: set[str] = set()  # what the engine said of critiques
        self._cut: dict[str, int] = {}  # prompt uid -> tokens that did not fit the context
        self._quantiles = RunningQuantiles()
        self._reader = TapReader(session, plan.function, plan.operator, random.Random(f"{plan.seed}/taps"), plan.taps)
        self._random = random.Random(plan.seed)
        self._generating = self._judging = 0.0
        self._fitting = 0.0
        self._idle = Idle(trained_seconds=0.0)
        session.observe(self._notice)

    async def run(self) -> Outcome:
        """All rounds, then the end."""
        started, plan = time.monotonic(), self._plan
        if self._session.status.held:  # training is asked for
            await self._session.machine.set_paused(False)
        if plan.window is not None:
            await self._session.taps.calibrate(Calibration(low=plan.window[0], high=plan.window[1]))
        await self._session.taps.arm(plan.silence)
        for i in range(plan.rounds):
            self._progress(f"round {i + 1} of {plan.rounds} · {self._session.status.sentence}")
            await self._round()
            await self._train(i, plan.rounds)
            if plan.taps is not None and self._reader.taps >= plan.taps:
                break
        if not plan.rounds:
            await self._train(0, 1)
        if plan.train_seconds or plan.train_steps:
            self._progress("the gate")
            self._idle = await self._session.evaluation.grant(flush=True)
        return await self._evaluate(started)

    def _notice(self, change: Change) -> None:
        learned = self._session.status.learned
        if change is Change.LEARNED and learned is not None:
            self._fitting += learned.milliseconds / 1000
        if self._plan.feedback == "critique":
            self._notice_critique(change)

    def _notice_critique(self, change: Change) -> None:
        """What the engine cannot read is told: one that it refuses each time, what it says while it draws once."""
        learned, notice = self._session.status.learned, self._session.notice
        refused = learned.dropped if learned is not None else ""
        if change is Change.LEARNED and refused:
            self._tell(f"a critique was left out: {refused}")
        elif change is Change.NOTICE and self._session.engine_state is EngineState.READY and notice not in {*self._told, *self._session.notes}:
            self._told.add(notice)
            if not (refused and refused in notice):  # which is told already
                self._tell(notice)

    # --- judging -------------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        session, started = self._session, time.monotonic()
        if self._plan.feedback == "taps":
            await self._reader.read()
            self._generating += time.monotonic() - started
            if session.current is not None:
                self._note(session.current.prompt, session.current.candidates)
            return
        await session.sets.open_next()
        view = await session.sets.wait_ended()
        if session.engine_state is EngineState.DEAD:  # what it broke off is no answer to judge
            raise SessionError(session.notice or "the engine is not running", f"go on with --resume: {session.database} has what was judged")
        self._generating += time.monotonic() - started
        started = time.monotonic()
        if not self._note(view.prompt, view.candidates):
            await session.judging.skip()
            return
        await self._say(view.prompt.text, view.candidates)
        self._judging += time.monotonic() - started

    def _note(self, prompt: Prompt, answers: Sequence[CandidateView]) -> bool:
        """Whether the model could read this prompt; what it could not, or not all of it, is told in the end."""
        for answer in answers:
            if answer.refused:
                if prompt.uid not in self._refused:
                    self._tell(f"a prompt was left out: {answer.refused}")
                self._refused[prompt.uid] = answer.refused
            elif answer.cut:
                self._cut[prompt.uid] = answer.cut
        return not any(answer.refused for answer in answers)

    async def _say(self, prompt: str, answers: Sequence[CandidateView]) -> None:
        plan, session = self._plan, self._session
        if plan.feedback == "correction":
            await self._correct(prompt, self._random.choice(answers))
            return
        if plan.feedback == "critique":
            await self._criticise(prompt, [a.said for a in answers])
            return
        scores = ask(plan.function, plan.operator, prompt, [a.said for a in answers])
        if plan.feedback == "rating":
            for answer, rating in zip(answers, self._quantiles.ratings(scores), strict=True):
                await session.judging.rate(answer.uid, rating)
        elif len(answers) > 1:
            await session.judging.rank({a.uid: rank for a, rank in zip(answers, ranks_of(scores), strict=True)})

    async def _correct(self, prompt: str, answer: CandidateView) -> None:
        text = rewrite(self._plan.function, self._plan.operator, prompt, answer.said)
        if text != answer.said and text.strip():
            await self._session.judging.correct(answer.uid, text)

    async def _criticise(self, prompt: str, texts: Sequence[str]) -> None:
        """Of the whole set, for all prompts: the end asks others. What stands already is not said again."""
        plan, judging = self._plan, self._session.judging
        text = say(plan.function, plan.operator, prompt, texts)
        if text is None or not text.strip() or any(wish.text == text.strip() for wish in judging.wishes()):
            await judging.skip()
        else:
            await judging.criticise(None, text, "all")

    async def _train(self, i: int, parts: int) -> None:
        """Part `i` of so many: the parts add up to what the plan grants."""
        plan = self._plan
        if plan.train_seconds:
            self._idle = await self._session.evaluation.grant(seconds=plan.train_seconds / parts)
        elif plan.train_steps and (steps := plan.train_steps * (i + 1) // parts - plan.train_steps * i // parts):
            self._idle = await self._session.evaluation.grant(steps=steps)

    # --- the end -------------------------------------------------------------------------------------------------------

    async def _evaluate(self, started: float) -> Outcome:
        session, prompts = self._session, self._session.split.held_out
        self._progress(f"evaluating on {len(prompts)} held-out prompts")
        began = time.monotonic()
        base = await self._answers(prompts, "base")
        kept = [self._note(prompt, base[i * ANSWERS : (i + 1) * ANSWERS]) for i, prompt in enumerate(prompts)]
        if prompts and not any(kept):
            raise SessionError(f"none of the held-out prompts can be used: {base[0].refused}")
        base = [view for view in base if not view.refused]
        prompts = tuple(prompt for prompt, usable in zip(prompts, kept, strict=True) if usable)
        acting = await self._answers(prompts, "acting")
        adapted = session.status.adapted  # known only now: what was published last acts from the first of these answers on
        adapter = await self._answers(prompts, "adapter") if adapted else []
        self._generating += time.monotonic() - began
        duel, alone = self._compare(prompts, base, acting), self._compare(prompts, base, adapter) if adapted else None
        learned = session.status.learned
        reward = session.status.learning.get("reward")
        versions = session.machine.versions()
        return Outcome(
            rounds=self._plan.rounds,
            versions=len(versions),
            published=sum(v.published for v in versions),
            refused=dict(Counter(v.reason_code for v in versions if not v.published)),
            win_rate=duel.rate,
            wins=duel.wins,
            ties=duel.ties,
            losses=duel.losses,
            win_rate_adapter_only=alone.rate if alone else None,
            kl_per_response=_mean([view.kl for view in acting]),
            kl_adapter_only=_mean([view.kl for view in adapter]) if adapted else None,
            reward_pair_accuracy=reward.accuracy if reward and reward.accuracy is not None else learned.accuracy if learned else None,
            base_score=duel.base_score,
            policy_score=duel.policy_score,
            seconds=self._seconds(started),
            quantize=session.ready.quantize if session.ready else "",
            seed=self._plan.seed,
            taps=self._reader.taps if self._plan.feedback == "taps" else UNSET,
            prompts_refused=len(self._refused) or UNSET,
            prompts_cut=len(self._cut) or UNSET,
            prompt_tokens_cut=sum(self._cut.values()) or UNSET,
        )

    def _seconds(self, started: float) -> Seconds:
        idle = self._idle
        policy, total = idle.trained_seconds - idle.reward_seconds, time.monotonic() - started
        return Seconds(self._generating, self._judging, self._fitting, idle.reward_seconds, policy, total)

    async def _answers(self, prompts: Sequence[Prompt], policy: Policy) -> list[CandidateView]:
        """ANSWERS to each prompt, one prompt after another; a policy's seeds are its own."""
        asked = [prompt for prompt in prompts for _ in range(ANSWERS)]
        rng = random.Random(f"{self._plan.seed}/{policy}")
        return await self._session.evaluation.draw(asked, [policy] * len(asked), [rng.getrandbits(31) for _ in asked])

    def _compare(self, prompts: Sequence[Prompt], base: Sequence[CandidateView], policy: Sequence[CandidateView]) -> _Duel:
        """One call of the judge for each prompt sees both policies' answers, shuffled; they are paired at random."""
        duel = _Duel()
        for i, prompt in enumerate(prompts):
            part = slice(i * ANSWERS, (i + 1) * ANSWERS)
            answers = [*base[part], *policy[part]]
            order = self._random.sample(range(len(answers)), len(answers))
            shuffled = ask(self._plan.judge, self._plan.judge_name, prompt.text, [answers[j].said for j in order])
            scores = [score for _, score in sorted(zip(order, shuffled, strict=True))]
            theirs, ours = scores[:ANSWERS], scores[ANSWERS:]
            self._random.shuffle(theirs)
            duel.add(theirs, ours)
        return duel


class _Duel:
    """Wins, ties and losses of the policy's answers against the base's."""

    def __init__(self) -> None:
        self.wins = self.ties = self.losses = 0
        self._base: list[float] = []
        self._policy: list[float] = []

    def add(self, base: Sequence[float], policy: Sequence[float]) -> None:
        for theirs, ours in zip(base, policy, strict=True):
            self.wins += ours > theirs
            self.ties += ours == theirs
            self.losses += ours < theirs
        self._base += base
        self._policy += policy

    @property
    def rate(self) -> float:
        return (self.wins + self.ties / 2) / max(1, self.wins + self.ties + self.losses)

    @property
    def base_score(self) -> float:
        return _mean(self._base)

    @property
    def policy_score(self) -> float:
        return _mean(self._policy)


def shuffled(prompts: Sequence[Prompt], seed: int) -> tuple[Prompt, ...]:
    """The order in which a seed goes through the prompts."""
    return tuple(random.Random(f"{seed}/prompts").sample(prompts, len(prompts)))


def check(settings: SessionSettings, plan: Plan, database: Path, resume: bool) -> None:
    """What can be refused before a model is loaded. Raises SessionError."""
    split = Split.of(settings.prompts, settings.held_out)
    if not split.held_out:
        raise SessionError("none of the prompts is held out for the end", "a fifth is, by hash: give more prompts")
    if plan.rounds and not split.train:
        raise SessionError("none of the prompts is left to judge", "give more prompts")
    judged = _judged(database)
    if judged and not resume:
        raise SessionError(f"{database} has {judged} judgements already", "pass --resume to go on with them, or another file")
    if not plan.rounds and not judged:
        raise SessionError(f"{database} has no judgements to go on with", "leave out --resume and give --rounds")


def _judged(database: Path) -> int:
    """Judgements in a database; 0 where there is none yet. What else is wrong with the file is said when it is opened to write."""
    try:
        with Record(database) as record:
            return record.counts().judged
    except JournalError:
        return 0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
