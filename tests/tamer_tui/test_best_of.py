"""Of sixteen answers the best are shown, the base's place is its own, and the record has what was left out."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from learners import protocol
from learners.protocol import Appraisal, Command
from storage.queries import Record
from tamer_tui.cli import main
from tamer_tui.session import Session
from tamer_tui.widgets.details import detailed_lines
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.test_session import sitting


class Opinionated(FakeEngine):
    """Ĥ gives every token of an answer the same reward, which the answer's seed decides; the reward model knows nothing."""

    def send(self, command: Command) -> None:
        if isinstance(command, protocol.Appraise):
            self.received.append(command)
            known = command.answers if command.by == "human_reward" else ()
            sign = 1 if command.whole else -1  # what steers is no score of whole answers
            found = tuple(Appraisal(uid=a.uid, texts=("",) * 2, rewards=(sign * self.worth[a.uid],) * 2) for a in known)
            self.emit(protocol.Appraised(h_epoch=self.epoch, appraisals=found, by=command.by))
            return
        if isinstance(command, protocol.Generate):
            self.worth = getattr(self, "worth", {}) | {r.uid: r.seed % 1000 / 1000 for r in command.requests}
            self.policies = {r.uid: r.policy for r in command.requests}
        super().send(command)


async def second(session: Session) -> None:
    """The first set is the base's alone; after its ranking there is something to choose by."""
    first = session.set.candidates
    await session.judging.rank({c.uid: i for i, c in enumerate(first, 1)})
    await session.sets.open_next()
    await session.sets.wait_ended()


async def test_the_best_are_shown_and_what_was_left_out_is_recorded(tmp_path: Path) -> None:
    engine, path = Opinionated(), tmp_path / "a.db"
    async with sitting(path, engine, k=4, best_of=16) as session:
        await second(session)
        view = session.set
        assert sorted(engine.policies.values()) == ["acting"] * 16 + ["base"]
        acting = [c for c in view.candidates if c.policy == "acting"]
        (base,) = [c for c in view.candidates if c.policy == "base"]
        worth = sorted((engine.worth[uid] for uid, policy in engine.policies.items() if policy == "acting"), reverse=True)
        assert sorted((c.seed % 1000 / 1000 for c in acting), reverse=True) == worth[:3]
        assert view.ended and base.text and base.started is not None and base.started.policy == "base"
        seq = await session.judging.rank({c.uid: i for i, c in enumerate(view.candidates, 1)})
        with Record(path) as record:
            assert {r.uid for r in record.responses(view.uid)} == {c.uid for c in view.candidates}
            assert [len(lesson.responses) for lesson in record.lessons() if lesson.logged.seq == seq] == [4]
    with closing(sqlite3.connect(path)) as connection:
        ((drawn, judge, scores, left_out),) = connection.execute("SELECT drawn, judge, scores, left_out FROM selections").fetchall()
    left = json.loads(left_out)
    assert (drawn, judge, len(left)) == (16, "human_reward", 13) and json.loads(scores).keys() == {c.uid for c in acting}
    assert {each["seed"] for each in left}.isdisjoint(c.seed for c in acting) and all(each["text"] and each["token_ids"] for each in left)
    assert max(each["score"] for each in left) <= min(json.loads(scores).values())


async def test_the_log_says_which_were_chosen_and_the_rate_of_how_many_that_it_is_of_chosen_answers(tmp_path: Path) -> None:
    engine, path = Opinionated(), tmp_path / "a.db"
    async with sitting(path, engine, k=4, best_of=16) as session:
        await second(session)
        chosen = [c.letter for c in session.set.candidates if c.policy == "acting"]
        base = next(c for c in session.set.candidates if c.policy == "base")
        await session.judging.rank({c.uid: 2 if c is base else 1 for c in session.set.candidates})
        assert session.blind_all.chosen == session.blind_all.n == 1
        assert any(line.plain == "  1 of them the best of several" for line in detailed_lines(session))
    first, ranked = CliRunner().invoke(main, ["log", str(path)]).output.splitlines()
    assert ranked.endswith(f"({', '.join(chosen)}: the best of 16)") and "best of" not in first
    entry = json.loads(CliRunner().invoke(main, ["log", str(path), "--json"]).output.splitlines()[1])
    assert entry["best_of"] == 16 and len(entry["chosen"]) == 3
    told = CliRunner().invoke(main, ["stats", str(path)]).output
    assert told.count("1 of 1 (21-100 %), 1 of them by the best of several answers") == 2


async def test_nothing_is_shown_before_it_is_chosen(tmp_path: Path) -> None:
    engine = Opinionated()
    async with sitting(tmp_path / "a.db", engine, best_of=6) as session:
        engine.finish = False
        await session.judging.rank({session.set.candidates[0].uid: 1})
        await session.sets.open_next()
        assert session.sets.best_of.choosing(session.set)
        assert not any(c.pieces or c.text for c in session.set.candidates), "the base would be known by what streams"
        await session.judging.rank({session.set.candidates[0].uid: 1})
        assert all(c.ended == "stopped" for c in session.set.candidates) and not session.sets.best_of.choosing(session.set)


async def test_a_set_whose_engine_died_shows_what_came(tmp_path: Path) -> None:
    engine = Opinionated()
    async with sitting(tmp_path / "a.db", engine, best_of=6) as session:
        engine.finish = False
        await session.judging.rank({session.set.candidates[0].uid: 1})
        await session.sets.open_next()
        engine.die()
        await session.sets.wait_ended()
        assert all(c.ended for c in session.set.candidates)


async def test_without_anything_learned_each_answer_is_the_only_one_drawn(tmp_path: Path) -> None:
    engine = Opinionated()
    async with sitting(tmp_path / "a.db", engine, best_of=16):
        assert len(engine.policies) == 4


async def test_after_words_alone_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    engine, path = Opinionated(), tmp_path / "a.db"
    async with sitting(path, engine, k=4, best_of=16) as session:
        await session.judging.criticise(None, "shorter", "all")
        await session.sets.open_again()
        await session.sets.wait_ended()
        assert sorted(engine.policies.values()) == ["acting"] * 3 + ["base"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM selections").fetchall() == [(0,)]


def test_answers_are_chosen_among_those_that_were_drawn_alike() -> None:
    found = CliRunner().invoke(main, ["run", "-n", "8", "--temperatures", "0.5,1.0"])
    assert found.exit_code == 2 and "give one of the two" in found.output
