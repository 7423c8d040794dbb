"""Nothing that the log, an import or a prompts file holds ends the engine: what cannot be used is told, and everything else goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learners import protocol
from learners.protocol import Answer, AnswerRequest, Ended, Error, Learned, Lesson, Load, Metrics, Ready, Replay, Started
from storage.records import Correction, Demonstration, Message, Ranking, Rating, Sampling
from tests.learners.engine.test_serving import PROMPTS, Engine
from tests.learners.models import STORIES, needs_gpt2, needs_stories, saved

STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ m.content }}\n{% endfor %}"
)
REFUSED = (Message("assistant", "Once"), Message("user", "upon a time"))
SCRIPTS = st.text(st.characters(codec="utf-8", exclude_categories=()), max_size=40)
"""What can come over the wire: any character of Unicode, unassigned ones and noncharacters too."""

pytestmark = needs_stories


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """stories260k with a template that wants user and assistant to alternate."""
    path = Path(shutil.copytree(STORIES, tmp_path_factory.mktemp("strict") / "model"))
    (path / "chat_template.jinja").write_text(STRICT)
    return path


@pytest.fixture(scope="module")
def engine(strict: Path) -> Iterator[Engine]:
    engine = Engine(Load(model=str(strict), paused=True, sampling=Sampling(1.0, 8)))
    yield engine
    engine.send(protocol.Set(paused=True))


def ranked(seq: int, messages: tuple[Message, ...], *texts: str) -> Lesson:
    answers = tuple(Answer(uid=f"{seq}/{i}", messages=messages, text=text) for i, text in enumerate(texts))
    return Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(answers)}), answers=answers)


def still_answers(engine: Engine, uid: str) -> bool:
    return engine.draw(AnswerRequest(uid=uid, seed=1, messages=PROMPTS[0], policy="base"))[uid].n_tokens > 0


def test_a_refused_prompt_ends_its_answer_and_the_others_are_drawn(engine: Engine) -> None:
    asked = [AnswerRequest(uid=uid, seed=1, messages=messages) for uid, messages in (("r1", REFUSED), ("g1", PROMPTS[0]), ("r2", REFUSED))]
    engine.send(protocol.Generate(requests=tuple(asked), sampling=Sampling(1.0, 8)))
    ended = engine.until(Ended)
    refused = [event for event in engine.seen if isinstance(event, Error) and event.uid]
    assert ended.uid == "g1" and ended.n_tokens > 0
    assert [error.uid for error in refused] == ["r1", "r2"]
    assert all("roles must alternate" in error.what and not error.fatal for error in refused)
    engine.send(protocol.Generate(requests=(asked[0],), sampling=Sampling(1.0, 8)))  # alone
    assert engine.until(Error).uid == "r1" and still_answers(engine, "after")


def test_refused_judgements_are_counted_told_once_and_left_out(engine: Engine) -> None:
    lessons = (ranked(101, REFUSED, "a dog.", "a cat."), ranked(102, PROMPTS[0], "a dog.", "a cat."), ranked(103, REFUSED, "x", "y"))
    engine.send(Replay(lessons=lessons), Replay(lessons=(), last=True))
    learned = engine.until(Learned)
    assert learned.rankings == 1
    assert learned.dropped.startswith("2 judgements of the log: ") and "roles must alternate" in learned.dropped
    engine.send(protocol.Retract(seq=102))
    assert engine.until(Learned).dropped == ""
    engine.send(protocol.AddJudgement(lesson=ranked(104, REFUSED, "a dog.", "a cat.")))
    assert "roles must alternate" in engine.until(Learned, lambda e: e.seq == 104).dropped
    engine.send(protocol.Retract(seq=104))
    assert "roles" not in engine.until(Learned).dropped, "once"


def test_refused_prompts_of_a_prompts_file_are_told_after_the_model_is_there_and_the_others_are_used(strict: Path) -> None:
    load = Load(model=str(strict), paused=True, sampling=Sampling(1.0, 8), train_prompts=(PROMPTS[0], REFUSED, PROMPTS[1]))
    engine = Engine(load)
    engine.until(Ready)
    assert not any(isinstance(event, Error) for event in engine.seen)
    told = engine.until(Error)
    assert told.what.startswith("1 of 3 prompts cannot be used: ") and not told.fatal
    engine.send(protocol.Set(gate_prompts=(REFUSED, REFUSED, PROMPTS[2])))
    assert engine.until(Error).what.startswith("2 of 3 prompts cannot be used: ")
    assert still_answers(engine, "on")


def test_a_prompt_that_is_cut_says_by_how_much(engine: Engine) -> None:
    long = (Message("user", "Old words. " * 400), Message("assistant", "Yes."), Message("user", "One day a dog"))
    engine.draw(AnswerRequest(uid="cut", seed=1, messages=long, policy="base"), AnswerRequest(uid="whole", seed=1, messages=long[2:], policy="base"))
    started = {event.uid: event for event in engine.seen if isinstance(event, Started)}
    assert started["cut"].truncated > 800 and started["whole"].truncated == 0
    assert started["cut"].prompt_ids == started["whole"].prompt_ids, "the old turns went whole"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.lists(SCRIPTS, min_size=1, max_size=3), texts=st.lists(SCRIPTS, min_size=2, max_size=3), written=SCRIPTS, seq=st.integers(1000, 10**9)
)
def test_text_in_any_script_is_drawn_from_and_learned_from(engine: Engine, prompt: list[str], texts: list[str], written: str, seq: int) -> None:
    messages = tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(prompt))
    lesson = ranked(4 * seq, messages, *texts)
    first = lesson.answers[0]
    lessons = (
        lesson,
        Lesson(seq=4 * seq + 1, judgement=Correction("s", first.uid, written), answers=(first,), beside=lesson.answers[1:]),
        Lesson(seq=4 * seq + 2, judgement=Demonstration("s", written), answers=(Answer(uid="", messages=messages, text=""),)),
        Lesson(seq=4 * seq + 3, judgement=Rating("s", first.uid, 7), answers=(first,), beside=lesson.answers[1:]),
    )
    for each in lessons:
        engine.send(protocol.AddJudgement(lesson=each))
        engine.until(Learned, lambda e, seq=each.seq: e.seq == seq)  # type: ignore[misc]
    engine.send(protocol.Generate(requests=(AnswerRequest(uid=f"u{seq}", seed=seq, messages=messages),), sampling=Sampling(1.0, 4)))
    engine.until(Ended, lambda e: e.uid == f"u{seq}")
    for each in lessons:
        engine.send(protocol.Retract(seq=each.seq))
        engine.until(Learned, lambda e, seq=each.seq: e.seq == seq)  # type: ignore[misc]


@needs_gpt2
def test_answers_longer_than_a_context_of_learned_positions_and_empty_ones_end_nothing() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    path = saved(GPT2LMHeadModel, GPT2Config(vocab_size=50257, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    engine = Engine(Load(model=str(path), paused=True, quantize="none", sampling=Sampling(1.0, 8)))
    lessons = (
        ranked(1, PROMPTS[0], "word " * 200, "short."),
        ranked(2, PROMPTS[0], "", ""),
        ranked(3, PROMPTS[0], "a dog.", "a cat."),
        Lesson(seq=4, judgement=Demonstration("s", "word " * 200), answers=(Answer(uid="", messages=PROMPTS[1], text=""),)),
        ranked(5, (Message("user", "word " * 500),), "a dog.", "a cat."),
    )
    engine.send(Replay(lessons=lessons, last=True))
    learned = engine.until(Learned)
    assert learned.rankings >= 2 and learned.dropped
    for lesson in lessons:  # again, as they would come from the operator
        engine.send(protocol.AddJudgement(lesson=lesson))
        engine.until(Learned, lambda e, seq=lesson.seq: e.seq == seq)  # type: ignore[misc]
    engine.send(protocol.Appraise(answers=lessons[0].answers))
    engine.until(protocol.Appraised)
    assert still_answers(engine, "on")


def test_a_long_log_does_not_delay_the_first_answer_and_the_screen_says_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.online_learning.PATIENCE", 0.0)
    monkeypatch.setattr("learners.engine.replaying.TOLD_SECONDS", 0.0)
    engine = Engine(Load(model=str(STORIES), paused=True, sampling=Sampling(1.0, 8)))
    lessons = tuple(ranked(i, PROMPTS[i % 6], f"It was {i} days old.", f"It had {i} toys.") for i in range(1, 201))
    first = protocol.Generate(requests=(AnswerRequest(uid="first", seed=1, messages=PROMPTS[0]),), sampling=Sampling(1.0, 8))
    engine.send(Replay(lessons=lessons, last=True), first)
    engine.until(Ended)
    before = [event for event in engine.seen if isinstance(event, Metrics) and event.stage == "human_reward"]
    assert len(before) <= 1, "at most one judgement was looked at before the answer"
    steps = [engine.until(Metrics, lambda e: e.stage == "human_reward")]
    while steps[-1].step < steps[-1].of:
        steps.append(engine.until(Metrics, lambda e: e.stage == "human_reward"))
    assert [e.step for e in steps] == list(range(steps[0].step, 201)) and {e.of for e in steps} == {200}
    assert steps[10].seconds_left is not None and steps[10].seconds_left > 0
    assert engine.until(Learned).rankings == 200


def test_a_judgement_is_learned_at_once_while_the_log_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.online_learning.PATIENCE", 0.0)
    engine = Engine(Load(model=str(STORIES), paused=True, sampling=Sampling(1.0, 8)))
    lessons = tuple(ranked(i, PROMPTS[i % 6], f"It was {i} days old.", f"It had {i} toys.") for i in range(1, 301))
    engine.send(Replay(lessons=lessons, last=True), protocol.AddJudgement(lesson=ranked(999, PROMPTS[0], "a dog.", "a cat.")))
    engine.until(Learned, lambda e: e.seq == 999)
    assert engine.until(Metrics, lambda e: e.stage == "human_reward").step < 150, "most of the log waits still"
    engine.until(Metrics, lambda e: e.stage == "human_reward" and e.step == e.of)
    assert engine.until(Learned).rankings == 301


def test_a_correction_that_only_adds_words_ends_nothing(engine: Engine) -> None:
    engine.draw(AnswerRequest(uid="short", seed=4, messages=PROMPTS[3], policy="base"))
    answer = engine.answer("short", PROMPTS[3])
    for seq, text in ((501, answer.text + " The end."), (502, "Well, " + answer.text)):
        engine.send(protocol.AddJudgement(lesson=Lesson(seq=seq, judgement=Correction("s", "short", text), answers=(answer,))))
        assert engine.until(Learned, lambda e, seq=seq: e.seq == seq).corrections > 0  # type: ignore[misc]
        engine.send(protocol.Retract(seq=seq))
        engine.until(Learned, lambda e, seq=seq: e.seq == seq)  # type: ignore[misc]


def test_of_a_long_log_a_sample_teaches_before_the_first_answer_and_the_rest_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.replaying.TOLD_SECONDS", 0.0)
    told: list[bool] = []
    monkeypatch.setattr("learners.engine.training.Learner.tell", lambda self, **what: told.append(what.get("replayed", False)))
    engine = Engine(Load(model=str(STORIES), paused=True, sampling=Sampling(1.0, 8)))
    lessons = [ranked(i, PROMPTS[i % 6], f"It was {i} days old.", f"It had {i} toys.") for i in range(1, 41)]
    sample, rest = tuple(lessons[::5]), [lesson for lesson in lessons if lesson.seq % 5 != 1]
    engine.send(Replay(lessons=sample, last=True, sample=True, of=40))
    assert engine.until(Learned).rankings == 8
    engine.until(protocol.Read)
    assert not any(told), "adapters wait for the whole log"
    engine.send(Replay(lessons=tuple(rest[:20]), of=40))
    engine.until(protocol.Read)
    engine.send(Replay(lessons=tuple(rest[20:]), last=True, of=40))
    steps = [engine.until(Metrics, lambda e: e.stage == "human_reward")]
    while steps[-1].step < 40:
        steps.append(engine.until(Metrics, lambda e: e.stage == "human_reward"))
    assert {e.of for e in steps} == {40}
    assert engine.until(Learned, lambda e: e.rankings == 40) and any(told)


def test_the_first_answer_waits_for_nothing_that_comes_after_it_and_the_reward_model_begins_with_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.online_learning.PATIENCE", 1e9)
    engine = Engine(Load(model=str(STORIES), stages=("reward",), sampling=Sampling(1.0, 8), train_prompts=PROMPTS))
    lessons = [ranked(i, PROMPTS[i % 6], f"It was {i} days old.", f"It had {i} toys.") for i in range(1, 41)]
    first = protocol.Generate(requests=(AnswerRequest(uid="first", seed=1, messages=PROMPTS[0]),), sampling=Sampling(1.0, 8))
    engine.send(Replay(lessons=(), last=True, sample=True, of=40), first)
    engine.until(Ended)
    assert not any(isinstance(event, Learned) or (isinstance(event, Metrics) and event.stage == "reward") for event in engine.seen)
    assert sum(isinstance(event, protocol.Read) for event in engine.seen) == 1
    sample, rest = lessons[::5], [lesson for lesson in lessons if lesson.seq % 5 != 1]
    engine.send(Replay(lessons=tuple(sample[:4]), sample=True, of=40))
    engine.until(protocol.Read)
    engine.send(Replay(lessons=tuple(sample[4:]), last=True, sample=True, of=40))
    assert engine.until(Metrics, lambda e: e.stage == "reward").note == "learns from 8 of 40 judgements"
    engine.send(Replay(lessons=tuple(rest), last=True, of=40))
    assert engine.until(Learned, lambda e: e.rankings == 40)
    assert engine.until(Metrics, lambda e: e.stage == "reward" and e.note == "learns from the whole log")
    engine.send(protocol.Set(paused=True))


def test_the_reward_model_begins_with_the_sample_of_a_long_log_and_goes_on_with_all_of_it() -> None:
    engine = Engine(Load(model=str(STORIES), stages=("reward",), sampling=Sampling(1.0, 8), train_prompts=PROMPTS))
    lessons = [ranked(i, PROMPTS[i % 6], f"It was {i} days old.", f"It had {i} toys.") for i in range(1, 41)]
    sample, rest = tuple(lessons[::5]), tuple(lesson for lesson in lessons if lesson.seq % 5 != 1)
    engine.send(Replay(lessons=sample, last=True, sample=True, of=40))
    assert engine.until(Metrics, lambda e: e.stage == "reward").note == "learns from 8 of 40 judgements"
    engine.send(Replay(lessons=rest, last=True, of=40))
    first = engine.until(protocol.Trained, lambda e: e.run.stage == "reward").run
    assert first.seqs == tuple(lesson.seq for lesson in sample) and first.steps <= 10 + 2 * 8
    whole = engine.until(protocol.Trained, lambda e: e.run.stage == "reward").run
    assert whole.seqs == tuple(range(1, 41)) and first.steps + whole.steps == 10 + 2 * 40
    assert {e.note for e in engine.seen if isinstance(e, Metrics) and e.stage == "reward"} == {
        "learns from 8 of 40 judgements",
        "learns from the whole log",
    }
    engine.send(protocol.Set(paused=True))
