"""A sitting over a real database and a scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from learners import protocol
from storage.journal import Journal, JournalError
from storage.queries import Record
from storage.records import Prompt, Ranking, Response, SampleSet, Sampling
from tamer_tui.learning_status import sampling_in_words
from tamer_tui.session import Change, EngineState, Session, SessionError, SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine

PROMPTS = tuple(Prompt.of(f"Once upon a time, there was a {noun}") for noun in ("dog", "cat", "frog"))


@asynccontextmanager
async def sitting(path: Path, engine: FakeEngine | None = None, k: int = 4, **settings: object) -> AsyncIterator[Session]:
    """A session whose first set is drawn and complete."""
    engine = engine or FakeEngine()
    session = Session(SessionSettings("fake", PROMPTS, k=k, **settings), lambda: engine, path)  # type: ignore[arg-type]
    await session.start()
    try:
        await session.wait_ready()
        await until(session, lambda: session.current is not None)
        if engine.finish:
            await session.sets.wait_ended()
        yield session
    finally:
        await session.close()


async def until(session: Session, condition: Callable[[], bool]) -> None:
    """Wait for changes, not for time."""
    changed = asyncio.Event()
    session.observe(lambda change: changed.set())
    while not condition():
        await asyncio.wait_for(changed.wait(), 5)
        changed.clear()


def uids(session: Session) -> list[str]:
    assert session.current is not None
    return [candidate.uid for candidate in session.current.candidates]


async def test_a_ranking_is_on_disk_before_the_engine_hears_of_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        a, b, c, d = uids(session)
        seq = await session.judging.rank({b: 1, d: 2, a: 2, c: 7}, "bd=ac")
        with Record(tmp_path / "a.db") as record:
            (logged,) = record.live()
        assert logged.seq == seq and isinstance(logged.judgement, Ranking)
        assert logged.judgement.ranks == {b: 1, d: 2, a: 2, c: 3}, "ranks are dense"
        (judge,) = [c for c in engine.received if isinstance(c, protocol.AddJudgement)]
        assert judge.lesson.seq == seq and len(judge.lesson.answers) == 4
        assert all(answer.token_ids for answer in judge.lesson.answers)


async def test_the_first_set_is_not_counted_and_later_ones_have_a_blind_base(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        assert session.current is not None
        assert {c.policy for c in session.current.candidates} == {"acting"}
        await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.known == 1)
        await session.sets.open_next()
        await session.sets.wait_ended()
        assert sorted(c.policy for c in session.current.candidates) == ["acting", "acting", "acting", "base"]
        base = next(c.uid for c in session.current.candidates if c.policy == "base")
        await session.judging.rank({uid: 2 if uid == base else 1 for uid in uids(session)})
        assert (session.blind_all.wins, session.blind_all.n) == (1, 1)


async def test_undo_brings_the_set_back_with_its_answers_and_redo_restores_the_ranking(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        first = session.current
        assert first is not None
        texts = [c.text for c in first.candidates]
        ranks = {uid: i + 1 for i, uid in enumerate(uids(session))}
        seq = await session.judging.rank(ranks)
        await session.sets.open_next()
        assert await session.judging.undo() == "undone: the ranking"
        assert session.current.uid == first.uid and not session.current.committed
        assert [c.text for c in session.current.candidates] == texts
        assert protocol.Retract(seq=seq) in engine.received
        assert await session.judging.redo() == "redone: the ranking"
        assert session.current.committed and session.current.ranks == ranks
        assert [c.lesson.seq for c in engine.received if isinstance(c, protocol.AddJudgement)] == [seq, seq]


async def test_a_newer_score_replaces_the_older_one_and_clearing_takes_it_back(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        uid = uids(session)[0]
        first = await session.judging.rate(uid, 3)
        second = await session.judging.rate(uid, 6)
        assert set(engine.lessons) == {second} and protocol.Retract(seq=first) in engine.received
        await session.judging.undo()
        assert set(engine.lessons) == {first} and session.current.candidate(uid).ratings == {"overall": 3}
        await session.judging.clear_rating(uid)
        assert not engine.lessons and session.current.candidate(uid).ratings == {}


async def test_a_published_version_is_written_recorded_and_acknowledged_in_that_order(tmp_path: Path) -> None:
    engine = FakeEngine(publish_after=1)
    async with sitting(tmp_path / "a.db", engine) as session:
        await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.acting[0] == "v1")
        (version,) = session.machine.versions()
        assert version.published and version.acting and version.reason.startswith("better")
        assert (tmp_path / "a.db.versions" / version.sha256 / "adapter_config.json").read_bytes() == b"{}"
        assert "v1 + Ĥ" in session.status.sentence


async def test_a_refused_version_keeps_its_reason(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        engine.publish("worse on 12 prompts (30% won)", published=False)
        await until(session, lambda: "v1 refused: worse on 12 prompts" in session.status.sentence)
        assert not any(isinstance(c, protocol.PublishAck) for c in engine.received)


async def test_the_next_sitting_resumes_from_the_last_version_and_replays_the_log(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db", FakeEngine(publish_after=1)) as session:
        seq = await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.acting[0] == "v1")
        sha256 = session.machine.versions()[0].sha256
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        blobs = [c for c in engine.received if isinstance(c, protocol.Blob)]
        load = next(c for c in engine.received if isinstance(c, protocol.Load))
        assert {blob.sha256 for blob in blobs} == {sha256} and (load.adapter, load.version) == (sha256, "v1")
        assert set(engine.lessons) == {seq}
        assert session.current is not None and session.current.prompt != PROMPTS[0], "judged prompts come last"


async def test_rolling_back_holds_learning_until_the_operator_resumes(tmp_path: Path) -> None:
    engine = FakeEngine(publish_after=1)
    async with sitting(tmp_path / "a.db", engine) as session:
        await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.acting[0] == "v1")
        await session.machine.rollback("base")
        assert session.status.held
        with pytest.raises(SessionError, match="held"):
            await session.machine.train_now()
        await session.machine.set_paused(False)
        assert not session.status.held
        with pytest.raises(SessionError, match="no published version v9"):
            await session.machine.rollback("v9")


async def test_the_hold_after_a_rollback_outlives_the_sitting_and_the_engine(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db", FakeEngine(publish_after=1)) as session:
        await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.acting[0] == "v1")
        await session.machine.rollback("v1")
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        assert session.status.held and session.status.paused
        order = [type(c) for c in engine.received if isinstance(c, protocol.Rollback | protocol.Replay)]
        assert order[0] is protocol.Rollback, "before the log is replayed: Ĥ stays as the version had it"
        await until(session, lambda: session.status.acting[0] == "v1")
        await session.machine.set_paused(False)
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        load = next(c for c in engine.received if isinstance(c, protocol.Load))
        assert load.version == "v1" and not session.status.held
        assert not any(isinstance(c, protocol.Rollback) for c in engine.received)


class EngineElsewhere(FakeEngine):
    """Behind a link that breaks."""

    remote = True
    knows: tuple[str, str, tuple[tuple[int, int], ...]] | None = None  # a database, where it lies, and its judgements

    def emit(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.Ready) and self.knows is not None:
            database, place, taught = self.knows
            event = replace(event, database=database, place=place, taught=taught)
        super().emit(event)


async def test_an_engine_that_takes_the_place_of_one_that_was_lost_goes_on_with_the_set_on_screen(tmp_path: Path) -> None:
    engine = EngineElsewhere(finish=False)
    async with sitting(tmp_path / "a.db", engine, k=2) as session:
        await until(session, lambda: all(len(c.pieces) > 3 for c in session.set.candidates))
        session.engine._link_changed("nothing came for 8 s", False)
        assert session.engine.away and session.engine_state is EngineState.READY and session.notice.endswith("it comes back by itself")
        view, told = session.set, [list(c.token_ids) for c in session.set.candidates]
        engine.received.clear()
        session.engine._link_changed("", True)
        await until(session, lambda: any(isinstance(said, protocol.Generate) for said in engine.received))
        kinds = [type(said).__name__ for said in engine.received]
        assert kinds[0] == "Load" and kinds[-1] == "Generate" and {"Teaches", "Replay"} <= set(kinds[1:-1])
        again = engine.received[-1]
        assert isinstance(again, protocol.Generate) and [list(each.prefix_ids) for each in again.requests] == told
        assert session.set is view and not any(c.ended for c in view.candidates) and not session.engine.away
        engine.send(protocol.Stop())
        await session.sets.wait_ended()


async def test_an_engine_that_went_on_by_itself_is_told_only_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with sitting(path) as session:
        for _ in range(2):
            await session.judging.rank({uid: i + 1 for i, uid in enumerate(uids(session))})
            await session.sets.open_next()
            await session.sets.wait_ended()
        await session.judging.undo()
        live = [each.seq for each in session.record.teaching()]
        identity = session.record.identity()
    knows = EngineElsewhere()
    undone = next(seq for seq in range(1, 9) if seq not in live)
    knows.knows = (identity, "", ((undone, undone),))
    async with sitting(path, knows) as session:
        told = [said for said in knows.received if isinstance(said, protocol.Retract | protocol.Replay)]
        assert told[0] == protocol.Retract(seq=undone)
        assert [lesson.seq for said in told if isinstance(said, protocol.Replay) for lesson in said.lessons] == live
        await session.judging.redo()
        assert isinstance(knows.received[-1], protocol.AddJudgement)
    knows = EngineElsewhere()
    knows.knows = ("other", "/b.db", ())
    session = Session(SessionSettings("fake", PROMPTS), lambda: knows, path)
    await session.start()
    with pytest.raises(SessionError, match=r"this engine teaches another database: /b\.db"):
        await session.wait_ready()
    assert not any(isinstance(said, protocol.Replay | protocol.Teaches) for said in knows.received)
    await session.close()


async def test_judging_goes_on_when_the_engine_dies_and_a_restart_replays(tmp_path: Path) -> None:
    engines = [FakeEngine(finish=False), FakeEngine()]
    waiting = iter(engines)
    session = Session(SessionSettings("fake", PROMPTS), lambda: next(waiting), tmp_path / "a.db")
    await session.start()
    await session.wait_ready()
    await until(session, lambda: session.current is not None and all(c.pieces for c in session.current.candidates))
    engines[0].die()
    assert session.engine_state is EngineState.DEAD and "engine stopped" in session.notice
    assert session.current is not None and session.current.ended, "what came is the answer"
    seq = await session.judging.rank({uids(session)[1]: 1})
    with pytest.raises(SessionError, match="press R"):
        await session.sets.open_next()
    await session.engine.restart()
    await session.wait_ready()
    assert set(engines[1].lessons) == {seq}
    await session.close()


async def test_judging_ends_answers_that_are_still_being_drawn(tmp_path: Path) -> None:
    engine = FakeEngine(finish=False)
    async with sitting(tmp_path / "a.db", engine) as session:
        await session.judging.rank({uids(session)[2]: 1})
        assert all(c.ended == "stopped" for c in session.current.candidates)


async def test_nonsense_is_refused_with_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        uid = uids(session)[0]
        for attempt in (
            lambda: session.judging.rank({}),
            lambda: session.judging.rate(uid, 9),
            lambda: session.judging.correct(uid, "  "),
            lambda: session.judging.demonstrate(""),
            lambda: session.sets.open_prompt(" "),
            lambda: session.judging.undo(),
            lambda: session.judging.redo(),
            lambda: session.machine.set_nats(-1),
        ):
            with pytest.raises(SessionError) as refused:
                await attempt()
            assert "\n" not in str(refused.value)
        with Record(tmp_path / "a.db") as record:
            assert record.live() == []


async def test_a_database_of_another_base_model_is_refused(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db"):
        pass
    other = FakeEngine(base_hash="e" * 64)
    session = Session(SessionSettings("other", PROMPTS), lambda: other, tmp_path / "a.db")
    await session.start()
    with pytest.raises(SessionError, match="fake"):
        await session.wait_ready()
    await session.close()


async def test_observers_hear_of_the_commit_only_after_it(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        seen: list[int] = []

        def look(change: Change) -> None:
            if change is Change.COMMITTED:
                with Record(tmp_path / "a.db") as record:
                    seen.append(len(record.live()))

        session.observe(look)
        await session.judging.rank({uids(session)[0]: 1})
        assert seen == [1]


async def test_answers_of_a_set_that_was_left_are_recorded_with_what_they_had(tmp_path: Path) -> None:
    engine = FakeEngine(finish=False)
    async with sitting(tmp_path / "a.db", engine) as session:
        left = session.current
        assert left is not None
        await until(session, lambda: all(c.pieces for c in left.candidates))
        await session.judging.skip()
        await session.sets.open_next()
        await session.judging.undo()
        assert left.ended and session.current.uid == left.uid
        assert [c.text for c in session.current.candidates] == [c.text for c in left.candidates]
        assert all(c.ended == "stopped" and c.text for c in session.current.candidates)


async def test_what_a_dying_engine_said_is_the_reason_that_is_given(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine, metered=True) as session:
        engine.silent = True
        waiting = asyncio.ensure_future(session.evaluation.grant(seconds=1.0))
        await asyncio.sleep(0)
        engine.emit(protocol.Error(what="out of memory", hint="try --quantize nf4", fatal=True))
        await until(session, lambda: session.engine_state is EngineState.DEAD)
        engine.die()
        with pytest.raises(SessionError, match="out of memory: try --quantize nf4"):
            await waiting


async def test_an_error_before_the_model_is_there_ends_the_waiting(tmp_path: Path) -> None:
    engine = FakeEngine(ready=False)
    session = Session(SessionSettings("fake", PROMPTS), lambda: engine, tmp_path / "a.db")
    await session.start()
    engine.emit(protocol.Error(what="not a command: nonsense", hint="the terminal and the engine must be of one version"))
    with pytest.raises(SessionError, match="of one version"):
        await session.wait_ready()
    await session.close()


async def test_a_set_that_is_ranked_again_after_an_undo_is_not_blind_any_more(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        await session.judging.rank({uids(session)[0]: 1})
        await session.sets.open_next()
        await session.sets.wait_ended()
        ranks = {uid: i + 1 for i, uid in enumerate(uids(session))}
        await session.judging.rank(ranks)
        assert session.blind_all.n == 1
        await session.judging.undo()
        await session.judging.redo()
        assert session.blind_all.n == 1, "the first ranking was blind, and it is back"
        await session.judging.undo()
        await session.judging.rank(ranks)
        assert session.blind_all.n == 0


async def test_a_set_that_is_scored_again_after_it_was_left_is_not_blind_any_more(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        await session.judging.rank({uids(session)[0]: 1})
        await session.sets.open_next()
        await session.sets.wait_ended()
        mine = session.set

        async def score(acting: int, base: int) -> None:
            for candidate in mine.candidates:
                await session.judging.rate(candidate.uid, base if candidate.policy == "base" else acting)

        await score(4, 7)
        await session.judging.undo()
        await score(4, 5)
        assert (session.blind_all.n, session.blind_all.losses) == (1, 1), "nothing was told yet"
        await session.sets.open_next()
        await session.judging.undo()
        assert session.set.uid == mine.uid
        await score(7, 1)
        assert session.blind_all.n == 0


async def test_verdicts_that_come_together_get_ids_of_their_own(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        for i in range(4):
            engine.publish(f"number {i}", published=i == 1)
        await until(session, lambda: len(session.machine.versions()) == 4)
        assert [(v.id, v.reason, v.published) for v in reversed(session.machine.versions())] == [
            (f"v{i + 1}", f"number {i}", i == 1) for i in range(4)
        ]


async def test_nothing_is_asked_of_an_engine_that_is_dead(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        before = session.current
        engine.die()
        with pytest.raises(SessionError, match="signal 9"):
            await asyncio.wait_for(session.evaluation.draw(PROMPTS[:1], ["base"], [1]), 5)
        for attempt in (session.sets.compare_with_base, session.sets.open_next, lambda: session.sets.open_prompt("Hello")):
            with pytest.raises(SessionError, match="press R"):
                await attempt()
        assert session.current is before, "what can still be judged stays"


async def test_an_answer_that_is_not_of_the_set_is_refused_in_one_line(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        for attempt in (
            session.judging.rate("nobody", 3),
            session.judging.clear_rating("nobody"),
            session.judging.correct("nobody", "text"),
            session.sets.continue_from("nobody", "text"),
            session.judging.rank({"nobody": 1}),
        ):
            with pytest.raises(SessionError, match="no answer nobody"):
                await attempt
        assert session.record.live() == []


async def test_a_database_that_was_made_for_nothing_is_not_left_behind(tmp_path: Path) -> None:
    engine = FakeEngine(ready=False)
    session = Session(SessionSettings("fake", PROMPTS), lambda: engine, tmp_path / "new" / "a.db")
    await session.start()
    engine.emit(protocol.Error(what="no config.json in fake", hint="pass a directory", fatal=True))
    with pytest.raises(SessionError, match="no config"):
        await session.wait_ready()
    assert session.engine.refused == "no config.json in fake: pass a directory"
    await session.close()
    assert list((tmp_path / "new").iterdir()) == []


async def test_a_database_of_another_base_stays_as_it_was(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        await session.judging.rank({uids(session)[0]: 1})
        assert session.engine.refused == ""
    session = Session(SessionSettings("other", PROMPTS), lambda: FakeEngine(base_hash="e" * 64), tmp_path / "a.db")
    await session.start()
    with pytest.raises(SessionError):
        await session.wait_ready()
    assert session.engine.refused
    await session.close()
    with Record(tmp_path / "a.db") as record:
        assert len(record.live()) == 1 and record.counts().sittings == 1


async def test_a_comparison_leads_back_to_the_set_that_was_open_which_is_not_blind_any_more(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.known == 1)
        await session.sets.open_next()
        view = await session.sets.wait_ended()
        await session.judging.rate(view.candidates[1].uid, 5)
        for _ in range(2):
            await session.sets.compare_with_base()
            compared = await session.sets.wait_ended()
            assert (compared.purpose, compared.prompt, len(compared.candidates)) == ("compare", view.prompt, 2)
        await session.sets.leave_comparison()
        assert session.current is view and view.candidates[1].ratings == {"overall": 5} and not view.committed
        await session.judging.rank({view.candidates[0].uid: 1})
        assert session.blind_all.n == 0
        await session.sets.compare_with_base()
        await session.sets.leave_comparison()
        assert session.current.uid != view.uid and session.current.purpose == "judge", "a judged set does not wait"


async def test_answers_that_a_full_disk_refused_are_written_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    write = Journal.write

    def scarce(self: Journal, record: object) -> Future[None]:
        if not (full and isinstance(record, SampleSet | Response)):
            return write(self, record)  # type: ignore[arg-type]
        refused: Future[None] = Future()
        refused.set_exception(JournalError("the disk is full", "free some space"))
        return refused

    monkeypatch.setattr(Journal, "write", scarce)
    async with sitting(tmp_path / "a.db") as session:
        assert session.notice == "the disk is full: free some space"
        with pytest.raises(SessionError, match="the disk is full: free some space"):
            await session.judging.rank({uids(session)[0]: 1})
        assert session.current is not None and not session.current.committed
        full = False
        await session.judging.rank({uids(session)[0]: 1})
        assert session.judged == 1 and len(session.record.responses(session.current.uid)) == 4


async def test_answers_are_asked_for_and_recorded_as_the_model_says_each_at_its_temperature(tmp_path: Path) -> None:
    own = Sampling(0.7, 64, top_p=0.8, top_k=20)
    engine = FakeEngine(sampling=own)
    async with sitting(tmp_path / "a.db", engine, temperatures=(0.6, 1.2), unset=("temperature", "top_p", "top_k")) as session:
        assert session.sampling == own
        (asked,) = [c for c in engine.received if isinstance(c, protocol.Generate)]
        assert asked.sampling == own and sorted(r.temperature for r in asked.requests) == [0.6, 0.6, 1.2, 1.2]  # type: ignore[type-var]
        await session.judging.skip()
        kept = session.record.responses(session.set.uid)
        at = {request.uid: request.temperature for request in asked.requests}
        assert {r.uid: r.sampling for r in kept} == {uid: replace(own, temperature=at[uid]) for uid in at}
        assert sampling_in_words(own, ("top_p",)) == "temperature 0.7, top-p 0.8*, top-k 20 (*the model's own)"
        assert sampling_in_words(Sampling(), ()) == ""


async def test_an_answer_is_rewritten_without_its_thought_and_goes_on_with_it(tmp_path: Path) -> None:
    engine = FakeEngine([f"<think>\nhm {n}\n</think>\n\nSaid {n}." for n in range(4)])
    async with sitting(tmp_path / "a.db", engine) as session:
        (first, *_) = session.set.candidates
        assert first.said == "Said 0." and first.text.startswith("<think>")
        with pytest.raises(SessionError, match="nothing was changed"):
            await session.judging.correct(first.uid, "Said 0.")
        await session.sets.continue_from(first.uid, "And?")
        (*_, asked) = [c for c in engine.received if isinstance(c, protocol.Generate)]
        assert asked.requests[0].messages[1].content == first.text  # what of the thought is said again, the template decides
