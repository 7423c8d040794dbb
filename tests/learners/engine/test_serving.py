"""Both working threads over a real model, driven by commands as the terminal sends them; the test takes the writer's place."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from learners import protocol
from learners.curriculum.scorers import HumanRewardScorer
from learners.engine.serving import Workers
from learners.protocol import Acting, Answer, AnswerRequest, Blob, Command, Ended, Error, Event, Gated, Idle, Learned, Lesson, Load, Started, Tokens
from storage.records import Critique, Message, Policy, Ranking, Sampling

SAMPLING = Sampling(1.0, 20)
PROMPTS = tuple((Message("user", f"Once upon a time, there was a {noun}"),) for noun in ("dog", "cat", "girl", "king", "frog", "bird"))
T = TypeVar("T")


class Engine:
    """Threads as the engine process has them, without the process."""

    def __init__(self, load: Load, *early: Command) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.seen: list[Event] = []
        self.lessons: list[Lesson] = []
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.wanted = threading.Event()
        self.send(*early)
        self.workers = workers = Workers.load(load, self.events.put, self.commands, self.wanted)
        for work in (workers.generator.run, workers.learner.run):
            threading.Thread(target=work, daemon=True).start()

    def send(self, *commands: Command) -> None:
        for command in commands:
            if isinstance(command, protocol.Generate):
                self.wanted.set()
            self.commands.put(command)

    def until(self, kind: type[T], condition: Callable[[T], bool] = lambda event: True) -> T:
        """The next event of a kind."""
        while True:
            event = self.events.get(timeout=60)
            self.seen.append(event)
            if isinstance(event, kind) and condition(event):
                return event

    def draw(self, *candidates: AnswerRequest) -> dict[str, Ended]:
        self.send(protocol.Generate(requests=candidates, sampling=SAMPLING))
        return {uid: self.until(Ended, lambda e, uid=uid: e.uid == uid) for uid in [c.uid for c in candidates]}  # type: ignore[misc]

    def ids(self, uid: str) -> list[int]:
        """Tokens of an answer as they came over the wire."""
        found: list[int] = []
        for event in self.seen:
            for piece in event.pieces if isinstance(event, Tokens) else ():
                if piece.uid == uid:
                    found[piece.start :] = piece.ids
        return found

    def answer(self, uid: str, prompt: tuple[Message, ...]) -> Answer:
        """As the terminal sends it back."""
        started = next(e for e in self.seen if isinstance(e, Started) and e.uid == uid)
        ended = next(e for e in self.seen if isinstance(e, Ended) and e.uid == uid)
        return Answer(uid=uid, messages=prompt, text=ended.text, prompt_ids=started.prompt_ids, token_ids=tuple(self.ids(uid)), stop=ended.reason)

    def judge(self, seq: int) -> Learned:
        """Rank four answers of the base: more letters e are better."""
        prompt = PROMPTS[seq % len(PROMPTS)]
        names = [f"{seq}/{i}" for i in range(4)]
        self.send(
            protocol.Generate(
                requests=tuple(AnswerRequest(uid=n, seed=100 * seq + i, messages=prompt, policy="base") for i, n in enumerate(names)),
                sampling=SAMPLING,
            )
        )
        ended: dict[str, Ended] = {}
        while len(ended) < 4:
            event = self.until(Ended)
            ended[event.uid] = event
        order = sorted(names, key=lambda n: -ended[n].text.count("e"))
        answers = tuple(self.answer(n, prompt) for n in names)
        self.lessons.append(Lesson(seq=seq, judgement=Ranking("s", {n: order.index(n) + 1 for n in names}), answers=answers))
        self.send(protocol.AddJudgement(lesson=self.lessons[-1]))
        return self.until(Learned)


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> str:
    path = Path(request.config.rootpath).parent / "shared" / "data" / "stories260k"
    if not path.is_dir():
        pytest.skip(f"the model is not at {path}")
    return str(path)


@pytest.fixture
def engine(model: str) -> Iterator[Engine]:
    engine = Engine(Load(model=model, metered=True, sampling=SAMPLING, stages=("distill",), train_prompts=PROMPTS))
    engine.send(protocol.Replay(lessons=(), last=True))
    yield engine
    engine.send(protocol.Set(paused=True))


def publish(engine: Engine) -> Gated:
    """Teach, train and pass the gate; not acknowledged yet. Trains on until a candidate passes."""
    for seq in (1, 2, 3):
        engine.judge(seq)
    while True:
        engine.send(protocol.Set(train_steps=70, flush=True))
        judged = engine.until(Gated)
        if judged.published:
            return judged
        engine.until(Idle)
        engine.judge(4 + len(engine.seen))


def test_a_version_acts_only_after_it_was_acknowledged(engine: Engine) -> None:
    judged = publish(engine)
    blobs = [event for event in engine.seen if isinstance(event, Blob)]
    assert {blob.sha256 for blob in blobs} == {judged.sha256}
    assert {"adapter_config.json", "adapter_model.safetensors", "human_reward.safetensors", "manifest.json"} <= {blob.name for blob in blobs}
    engine.draw(AnswerRequest(uid="before", seed=1, messages=PROMPTS[0]))
    engine.send(protocol.PublishAck(sha256=judged.sha256, version="v1"))
    assert engine.until(Acting).version == "v1"
    engine.draw(AnswerRequest(uid="after", seed=1, messages=PROMPTS[0]))
    versions = {e.uid: e.version for e in engine.seen if isinstance(e, Started)}
    assert versions["before"] == "base" and versions["after"] == "v1"


@pytest.mark.parametrize("stale", [False, True])
def test_until_an_imported_log_has_been_read_a_version_is_steered_by_its_own_reward(engine: Engine, model: str, stale: bool) -> None:
    judged = publish(engine)
    files = [event for event in engine.seen if isinstance(event, Blob)]
    load = Load(model=model, paused=True, sampling=SAMPLING, train_prompts=PROMPTS, adapter=judged.sha256, version="v1")
    again = Engine(load, *files)
    lessons, n = tuple(engine.lessons), len(engine.lessons)
    again.send(protocol.Replay(lessons=(), last=True, sample=True, of=n, stale=stale))
    again.draw(AnswerRequest(uid="acting", seed=1, messages=PROMPTS[0]))
    (started,) = [event for event in again.seen if isinstance(event, Started)]
    assert (started.version, started.h_epoch) == ("v1", 0 if stale else judged.h_epoch)
    again.send(protocol.Replay(lessons=lessons, last=True, of=n))
    again.until(Learned, lambda e: e.rankings == n)
    again.draw(AnswerRequest(uid="read", seed=1, messages=PROMPTS[0]))
    started = next(event for event in reversed(again.seen) if isinstance(event, Started) and event.uid == "read")
    assert started.h_epoch > 0 and started.beta > 0


def test_a_critique_steers_the_next_answer_from_the_log_too_and_taken_back_it_does_not(engine: Engine) -> None:
    def drawn(uid: str, policy: Policy = "acting") -> Ended:
        return engine.draw(AnswerRequest(uid=uid, seed=3, messages=PROMPTS[0], policy=policy))[uid]

    base = drawn("base", "base")
    answers = (Answer(uid="", messages=PROMPTS[0], text=""),)
    said = Lesson(seq=1, judgement=Critique("s", None, "Tom was very, very sad and cried."), answers=answers)
    engine.send(protocol.AddJudgement(lesson=said))
    learned = engine.until(Learned)
    assert (learned.critiques, learned.dropped, learned.beta) == (1, "", 0.0)
    steered = drawn("steered")
    assert steered.kl > 0.01
    engine.send(protocol.Retract(seq=1))
    assert engine.until(Learned).critiques == 0
    undone = drawn("undone")
    assert (undone.text, undone.kl) == (base.text, 0.0)
    engine.send(protocol.Replay(lessons=(said,), last=True))
    assert engine.until(Learned).critiques == 1 and drawn("again").kl > 0.01
    engine.send(protocol.AddJudgement(lesson=Lesson(seq=2, judgement=Critique("s", None, "long " * 500), answers=answers)))
    assert "more than half of the model's context" in engine.until(Learned).dropped


def test_a_rollback_holds_what_steers_until_learning_is_resumed(engine: Engine) -> None:
    engine.judge(1)
    engine.send(protocol.Rollback(version="base"))
    assert engine.until(Acting).version == "base"
    held = engine.judge(2)
    assert held.rankings == 2 and held.beta == 0, "the base's Ĥ knows nothing: nothing steers"
    first = engine.draw(AnswerRequest(uid="a", seed=3, messages=PROMPTS[0]), AnswerRequest(uid="b", seed=3, messages=PROMPTS[0], policy="base"))
    assert first["a"].text == first["b"].text and first["a"].kl == pytest.approx(0, abs=1e-4)
    engine.send(protocol.Set(paused=False))
    resumed = engine.draw(AnswerRequest(uid="c", seed=3, messages=PROMPTS[0]))
    assert resumed["c"].kl > 0.1


def test_while_a_rollback_is_held_no_words_steer_whatever_is_said_or_taken_back(engine: Engine) -> None:
    answers = (Answer(uid="", messages=PROMPTS[0], text=""),)

    def say(seq: int) -> None:
        wish = Critique("s", None, f"Tom was very, very sad and cried {seq} times.", "all")
        engine.send(protocol.AddJudgement(lesson=Lesson(seq=seq, judgement=wish, answers=answers)))
        engine.until(Learned)

    def nats(uid: str) -> float:
        return engine.draw(AnswerRequest(uid=uid, seed=3, messages=PROMPTS[0]))[uid].kl

    say(1), say(2)
    assert nats("before") > 0.01
    engine.send(protocol.Rollback(version="base"))
    engine.until(Acting)
    assert nats("held") == 0.0
    engine.send(protocol.Retract(seq=1))
    engine.until(Learned)
    say(3)
    assert nats("said and taken back") == 0.0
    engine.send(protocol.Set(paused=False))
    assert nats("resumed") > 0.01


def test_resuming_keeps_the_shown_tokens_and_draws_the_rest_anew(engine: Engine) -> None:
    engine.draw(AnswerRequest(uid="a", seed=5, messages=PROMPTS[1]))
    before = engine.ids("a")
    engine.judge(1), engine.judge(2)
    engine.send(protocol.ResumeFrom(uid="a", n_tokens=6))
    engine.until(Ended, lambda e: e.uid == "a")
    after = engine.ids("a")
    assert after[:6] == before[:6] and after[6:] != before[6:] and len(after) <= SAMPLING.max_new_tokens
    engine.send(protocol.ResumeFrom(uid="unknown", n_tokens=1))
    assert engine.until(Error).uid == "unknown"


def test_after_a_replay_the_budget_is_met_from_the_first_answer_on(engine: Engine) -> None:
    for seq in (1, 2, 3):
        engine.judge(seq)
    engine.send(*(protocol.Retract(seq=seq) for seq in (1, 2, 3)))
    engine.send(protocol.Replay(lessons=tuple(engine.lessons)), protocol.Replay(lessons=(), last=True))
    engine.until(Learned, lambda e: e.seq == 0 and e.rankings == 3)
    drawn = engine.draw(*(AnswerRequest(uid=f"r{i}", seed=i, messages=PROMPTS[i % len(PROMPTS)]) for i in range(24)))
    nats = sum(e.kl for e in drawn.values()) / sum(e.n_tokens for e in drawn.values()) * 64
    assert nats == pytest.approx(6.0, rel=0.35)


def test_imported_answers_are_tokenised_here_and_what_does_not_fit_of_their_prompts_is_told_once(engine: Engine) -> None:
    prompt = (Message("user", "One day a little dog ran. " * 200),)
    answers = tuple(Answer(uid=uid, messages=prompt, text=text) for uid, text in (("x", "It was happy."), ("y", "It was sad.")))
    engine.send(
        protocol.Replay(lessons=(Lesson(seq=9, judgement=Ranking("s", {"x": 1, "y": 2}), answers=answers),)), protocol.Replay(lessons=(), last=True)
    )
    learned = engine.until(Learned)
    assert learned.rankings == 1
    assert learned.dropped.startswith("the first ") and learned.dropped.endswith(" tokens of prompts that are longer than the context")
    engine.send(protocol.Retract(seq=9))
    assert engine.until(Learned).dropped == ""


def test_a_damaged_version_is_told_and_the_engine_goes_on(engine: Engine) -> None:
    engine.send(protocol.Blob(sha256="a" * 64, name="../evil", index=0, count=1, data=b""))
    assert "evil" in engine.until(Error).what
    engine.send(protocol.Blob(sha256="b" * 64, name="manifest.json", index=0, count=1, data=b"{}"), protocol.Rollback(version="v7", sha256="b" * 64))
    assert engine.until(Error).what
    assert engine.draw(AnswerRequest(uid="still", seed=1, messages=PROMPTS[0]))["still"].n_tokens > 0


def test_a_version_that_cannot_be_resumed_is_told_after_the_model_is_there_and_early_commands_are_not_lost(model: str) -> None:
    load = Load(model=model, adapter="b" * 64, version="v7", sampling=SAMPLING)
    engine = Engine(
        load, protocol.Blob(sha256="b" * 64, name="manifest.json", index=0, count=1, data=b"{}"), protocol.Set(nats=3.0), protocol.Set(paused=True)
    )
    assert engine.until(protocol.Ready).version == "base"
    assert not any(isinstance(event, Error) for event in engine.seen)
    assert "starts from the base" in engine.until(Error).hint
    assert engine.until(Acting).version == "base", "the answer to the budget that was set early"


def test_stopping_ends_answers_where_they_are(engine: Engine) -> None:
    long = Sampling(1.0, 400)
    engine.send(
        protocol.Generate(
            requests=(AnswerRequest(uid="x", seed=1, messages=PROMPTS[0]), AnswerRequest(uid="y", seed=2, messages=PROMPTS[0])), sampling=long
        )
    )
    engine.until(Tokens)
    engine.send(protocol.Stop(uids=("x",)))
    assert engine.until(Ended, lambda e: e.uid == "x").reason == "stopped"
    engine.send(protocol.Stop())
    ended = engine.until(Ended, lambda e: e.uid == "y")
    assert ended.reason == "stopped" and 0 < ended.n_tokens < 400 and ended.n_tokens == len(engine.ids("y"))


def test_a_set_that_waits_for_its_turn_can_be_stopped_before_it_begins(engine: Engine) -> None:
    long = Sampling(1.0, 400)
    engine.send(*(protocol.Generate(requests=(AnswerRequest(uid=name, seed=1, messages=PROMPTS[0]),), sampling=long) for name in "xyz"))
    engine.until(Tokens)
    engine.send(protocol.Stop(uids=("y",)))
    assert engine.until(Ended).n_tokens > 1
    waited = engine.until(Ended)
    assert (waited.uid, waited.reason, waited.n_tokens) == ("y", "stopped", 0)
    engine.until(Tokens, lambda e: e.pieces[0].uid == "z")
    engine.send(protocol.Stop())
    assert engine.until(Ended).uid == "z"
    engine.draw(AnswerRequest(uid="y", seed=1, messages=PROMPTS[0]))
    assert engine.ids("y"), "what was once stopped can be drawn again"


def test_stopping_all_also_stops_what_waits(engine: Engine) -> None:
    long = Sampling(1.0, 400)
    engine.send(*(protocol.Generate(requests=(AnswerRequest(uid=name, seed=1, messages=PROMPTS[0]),), sampling=long) for name in "xyz"))
    engine.until(Tokens)
    engine.send(protocol.Stop())
    assert [engine.until(Ended).n_tokens for _ in "xyz"][1:] == [0, 0]


def test_a_judgement_between_two_tokens_steers_the_tokens_that_follow(engine: Engine) -> None:
    engine.judge(1), engine.judge(2)
    lessons = engine.lessons
    engine.send(protocol.Retract(seq=1), protocol.Retract(seq=2))
    engine.until(Learned, lambda e: e.rankings == 0)
    assert engine.draw(AnswerRequest(uid="quiet", seed=9, messages=PROMPTS[3]))["quiet"].kl == pytest.approx(0, abs=1e-4)
    engine.send(protocol.Generate(requests=(AnswerRequest(uid="taught", seed=9, messages=PROMPTS[3]),), sampling=Sampling(1.0, 300)))
    engine.until(Tokens)
    engine.send(*(protocol.AddJudgement(lesson=lesson) for lesson in lessons))
    engine.until(Learned, lambda e: e.rankings == 2)
    assert not any(isinstance(e, Ended) and e.uid == "taught" for e in engine.seen), "it was learned while the answer went on"
    for _ in range(3):
        engine.until(Tokens)
    engine.send(protocol.Stop())
    taught = engine.until(Ended, lambda e: e.uid == "taught")
    assert taught.kl > 0.05, "the same answer cost nothing before"


def test_granted_steps_end_with_idle_and_nothing_trains_without_a_grant(engine: Engine) -> None:
    for seq in (1, 2):
        engine.judge(seq)
    engine.send(protocol.Set(train_steps=5))
    first = engine.until(Idle)
    assert first.trained_seconds > 0 and first.reason == "the grant is used up"
    engine.draw(AnswerRequest(uid="between", seed=1, messages=PROMPTS[0]))
    engine.send(protocol.Set(train_steps=1))
    metrics = [e for e in engine.seen if isinstance(e, protocol.Metrics) and e.stage == "distill"]
    second = engine.until(Idle)
    assert second.trained_seconds >= first.trained_seconds and 0 < len(metrics) <= 5


def test_an_appraisal_gives_each_word_what_makes_up_the_answers_score(engine: Engine) -> None:
    engine.draw(*(AnswerRequest(uid=f"x{i}", seed=i, messages=PROMPTS[0]) for i in range(3)))
    answers = tuple(engine.answer(f"x{i}", PROMPTS[0]) for i in range(3))
    engine.send(protocol.Appraise(answers=answers))
    assert all(set(a.rewards) == {0.0} for a in engine.until(protocol.Appraised).appraisals)  # nothing was judged yet
    engine.send(
        protocol.AddJudgement(lesson=Lesson(seq=1, judgement=Ranking("s", {"x0": 1, "x1": 2, "x2": 3}), answers=answers)),
        protocol.Appraise(answers=answers),
    )
    appraised = engine.until(protocol.Appraised)
    means = [sum(a.rewards) / len(a.rewards) for a in appraised.appraisals]
    assert means[0] > means[1] > means[2]  # an answer's score is the mean over its tokens
    for answer, appraisal in zip(answers, appraised.appraisals, strict=True):
        assert "".join(appraisal.texts) == answer.text and len(appraisal.rewards) == len(answer.token_ids)


def test_whole_answers_are_scored_by_the_fit_to_rewards_that_the_learner_makes_for_itself(engine: Engine) -> None:
    engine.draw(*(AnswerRequest(uid=f"x{i}", seed=i, messages=PROMPTS[0]) for i in range(3)))
    answers = tuple(engine.answer(f"x{i}", PROMPTS[0]) for i in range(3))
    lesson = Lesson(seq=1, judgement=Ranking("s", {"x0": 1, "x1": 2, "x2": 3}), answers=answers)
    engine.send(protocol.AddJudgement(lesson=lesson), protocol.Appraise(answers=answers, whole=True), protocol.Appraise(answers=answers))
    by_rewards, by_advantages = engine.until(protocol.Appraised), engine.until(protocol.Appraised)
    live, backbone = engine.workers.generator._learning._reward, engine.workers.generator._backbone
    tree = backbone.tree()
    assert live.rewards is not None
    scores = HumanRewardScorer(tree, live.rewards, rewards=True).score([a.prompt_ids for a in answers], [a.token_ids for a in answers]).tolist()
    assert [sum(a.rewards) / len(a.rewards) for a in by_rewards.appraisals] == pytest.approx(scores, abs=1e-4)
    assert all(a.rewards != b.rewards for a, b in zip(by_rewards.appraisals, by_advantages.appraisals, strict=True))


def test_the_reward_model_is_asked_on_its_own_thread_even_while_learning_is_paused(engine: Engine) -> None:
    engine.draw(*(AnswerRequest(uid=f"x{i}", seed=i, messages=PROMPTS[0]) for i in range(3)))
    answers = tuple(engine.answer(f"x{i}", PROMPTS[0]) for i in range(3))
    engine.send(protocol.Set(paused=True), protocol.Appraise(answers=answers, by="reward"))
    asked = engine.until(protocol.Appraised)
    assert asked.by == "reward" and asked.appraisals == (), "it has learned nothing yet"
