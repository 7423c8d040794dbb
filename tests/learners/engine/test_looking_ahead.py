"""What the generator does while nobody asks for anything: only the fit is left at a commit, and a restart gives the same Ĥ, bit for bit."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from learners import protocol
from learners.engine import assembly
from learners.engine.streamed_answer import AnsweredSet
from learners.protocol import AnswerRequest, Ended, Learned, Lesson, Load, Replay
from learners.rlhf.rollouts import Trace
from storage.records import Correction, Ranking, Rating, Sampling
from tests.learners.engine.test_serving import PROMPTS, SAMPLING, Engine
from tests.learners.models import STORIES, needs_stories

pytestmark = needs_stories


class Looks:
    """Counts forwards over answers, and lets a test wait for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sets: list[tuple[tuple[int, ...], ...]] = []
        original = assembly.states_before

        def counted(backbone, tree, prompt_ids, answers):  # type: ignore[no-untyped-def]
            self.sets.append(tuple(map(tuple, answers)))
            return original(backbone, tree, prompt_ids, answers)

        monkeypatch.setattr(assembly, "states_before", counted)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
def engine(looks: Looks) -> Iterator[Engine]:
    engine = Engine(Load(model=str(STORIES), paused=True, sampling=SAMPLING))
    engine.send(Replay(lessons=(), last=True))
    yield engine
    engine.send(protocol.Set(paused=True))


def draw_set(engine: Engine, seq: int) -> list[str]:
    names = [f"{seq}/{i}" for i in range(4)]
    engine.draw(*(AnswerRequest(uid=n, seed=100 * seq + i, messages=PROMPTS[seq % 6], policy="base") for i, n in enumerate(names)))
    return names


def idle(engine: Engine, looks: Looks, sets: int) -> None:
    """Until so many sets were looked at. What answers a command next has seen the work before it done."""
    import time

    deadline = time.monotonic() + 30
    while len(looks.sets) < sets and time.monotonic() < deadline:
        engine.send(protocol.Set(nats=6.0))
        engine.until(protocol.Acting)
    assert len(looks.sets) == sets


def ranking(engine: Engine, seq: int, names: list[str]) -> Lesson:
    answers = tuple(engine.answer(n, PROMPTS[seq % 6]) for n in names)
    return Lesson(seq=seq, judgement=Ranking("s", {n: i + 1 for i, n in enumerate(names)}), answers=answers)


def test_answers_are_looked_at_when_they_end_and_a_commit_only_fits(engine: Engine, looks: Looks) -> None:
    names = draw_set(engine, 1)
    idle(engine, looks, 1)
    assert looks.sets[0] == tuple(sorted({tuple(engine.ids(n)) for n in names})), "the whole set in one forward, in canonical order"
    engine.send(protocol.AddJudgement(lesson=ranking(engine, 1, names)))
    assert engine.until(Learned).rankings == 1
    assert len(looks.sets) == 1, "nothing was left to look at"


def test_a_rating_uses_what_was_computed_for_its_whole_set(engine: Engine, looks: Looks) -> None:
    names = draw_set(engine, 2)
    idle(engine, looks, 1)
    first, *others = (engine.answer(n, PROMPTS[2]) for n in names)
    engine.send(protocol.AddJudgement(lesson=Lesson(seq=1, judgement=Rating("s", first.uid, 7), answers=(first,), beside=tuple(others))))
    assert engine.until(Learned).ratings == 1 and len(looks.sets) == 1


def test_a_restart_gives_the_same_bits(engine: Engine, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[torch.Tensor] = []
    original = assembly.Generator.use_head
    monkeypatch.setattr(assembly.Generator, "use_head", lambda self, head: (heads.append(head.weights), original(self, head))[1])
    lessons: list[Lesson] = []
    for seq in (1, 2, 3):
        names = draw_set(engine, seq)
        idle(engine, looks, seq)
        if seq == 1:
            lessons.append(ranking(engine, seq, names))
        else:
            first, *others = (engine.answer(n, PROMPTS[seq]) for n in names)
            judgement = Rating("s", first.uid, 6) if seq == 2 else Correction("s", first.uid, first.text.replace("a", "o").replace("e", "i"))
            lessons.append(Lesson(seq=seq, judgement=judgement, answers=(first,), beside=tuple(others)))
        engine.send(protocol.AddJudgement(lesson=lessons[-1]))
        engine.until(Learned)
    taught = heads[-1]
    again = Engine(Load(model=str(STORIES), paused=True, sampling=SAMPLING))
    again.send(Replay(lessons=tuple(lessons), last=True))
    again.until(Learned, lambda e: e.rankings == 1 and e.ratings == 1 and e.corrections == 1)
    assert torch.equal(heads[-1], taught)


def test_answers_to_several_prompts_and_single_ones_are_not_looked_at(engine: Engine, looks: Looks) -> None:
    engine.draw(*(AnswerRequest(uid=f"p{i}", seed=i, messages=PROMPTS[i], policy="base") for i in range(3)))
    engine.draw(AnswerRequest(uid="single", seed=1, messages=PROMPTS[0], policy="base"))
    draw_set(engine, 3)
    idle(engine, looks, 1)


def test_a_set_that_was_stopped_before_it_began_is_none(engine: Engine) -> None:
    assert AnsweredSet.of([], None) is None  # type: ignore[arg-type]


def test_finished_answers_hold_ids_and_no_states(looks: Looks) -> None:
    engine = Engine(Load(model=str(STORIES), paused=True, sampling=SAMPLING))
    gc.collect()
    others = [each for each in gc.get_objects() if type(each) is Trace]  # of engines before; held, so that no new one has its id
    theirs = {id(each) for each in others}
    engine.draw(*(AnswerRequest(uid=f"{i}", seed=i, messages=PROMPTS[i % 6]) for i in range(30)))
    engine.send(protocol.Set(nats=6.0))
    engine.until(protocol.Acting)
    finished = [o for o in gc.get_objects() if type(o) is Trace and id(o) not in theirs and o.stop is None and len(o.ids) > 0]
    assert len([t for t in finished if not (t._hidden or t._base or t._policy)]) >= 30
    assert not [t for t in finished if t.stride and (t._hidden or t._base or t._policy)], "the KL budget has its own copy of the last ones"
    engine.send(protocol.ResumeFrom(uid="3", n_tokens=2))
    before = engine.ids("3")
    engine.until(Ended, lambda e: e.uid == "3")
    assert engine.ids("3")[:2] == before[:2], "and they can be resumed"


def test_a_command_interrupts_a_rehearsal(engine: Engine) -> None:
    from learners.engine.generator import Generator

    calls: list[bool] = []

    def interrupted() -> bool:
        calls.append(True)
        return len(calls) > 3

    parts = assembly.assemble(Load(model=str(STORIES), sampling=Sampling(1.0, 60)), lambda event: None)
    generator: Generator = parts.generator
    names = draw_set(engine, 1)
    generator.use_head(parts.live_reward.learn(ranking(engine, 1, names)).head)
    beta = generator.beta
    assert not generator.calibrate_beta([tuple(parts.backbone.encode(PROMPTS[0]))], Sampling(1.0, 60), interrupted)
    assert len(calls) == 4 and generator.beta == beta
    assert generator.calibrate_beta([tuple(parts.backbone.encode(PROMPTS[0]))], Sampling(1.0, 60))
