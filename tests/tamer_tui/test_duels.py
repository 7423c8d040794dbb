"""Two versions, or a version and the base: blind and counted by pair, and side by side; neither need act."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Static, TextArea

from learners import protocol
from storage.records import Ranking
from tamer_tui.keys import MODES
from tamer_tui.screens.compare import WAITED, CompareScreen
from tamer_tui.screens.differences import DifferencesScreen
from tamer_tui.screens.versions import VersionsScreen
from tamer_tui.session import SessionError, SetView
from tamer_tui.widgets.rows import Rows
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, table


@asynccontextmanager
async def two_versions(tmp_path: Path, engine: FakeEngine, size: tuple[int, int] = (120, 36)) -> AsyncIterator[Table]:
    """v2 acts, v1 did, and v3 was refused."""
    async with table(tmp_path, engine, size) as t:
        await t.press("a", "enter")
        for version in ("v1", "v2"):
            engine.publish()
            await t.until(lambda: t.session.status.acting[0] == version)  # noqa: B023
        engine.publish("worse on 12 prompts", published=False)
        await t.until(lambda: len(t.session.machine.versions()) == 3)
        yield t


def open_set(t: Table) -> SetView:
    assert t.session.duels.current is not None
    return t.session.duels.current


def point_at(t: Table, version: str) -> None:
    """The cursor of the versions screen."""
    rows = t.pilot.app.screen.query_one(Rows)
    rows.move_cursor(row=rows.get_row_index(version))


def asked(engine: FakeEngine) -> list[protocol.Command]:
    """What was sent since the last verdict: blobs and requests."""
    sent = [each for each in engine.received if isinstance(each, protocol.Blob | protocol.Generate | protocol.PublishAck)]
    last = max(i for i, each in enumerate(sent) if isinstance(each, protocol.PublishAck))
    return sent[last + 1 :]


async def test_the_engine_gets_the_files_once_and_the_record_says_which_version_wrote_what(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with two_versions(tmp_path, engine) as t:
        duels, hashes = t.session.duels, {version.id: version.sha256 for version in t.session.machine.versions()}
        blind, ours = t.session.blind_all, duels.count
        await duels.between("v1", "v2")
        for _ in range(2):
            await duels.open_next()
            await t.until(lambda: open_set(t).ended)
        sent = asked(engine)
        first = next(i for i, each in enumerate(sent) if isinstance(each, protocol.Generate))
        assert {each.sha256 for each in sent[:first] if isinstance(each, protocol.Blob)} == {hashes["v1"], hashes["v2"]}
        assert all(isinstance(each, protocol.Generate) for each in sent[first:]), "the files are there already"
        wanted = {(r.version, r.sha256, r.policy) for each in sent[first:] if isinstance(each, protocol.Generate) for r in each.requests}
        assert wanted == {(name, hashes[name], "adapter") for name in ("v1", "v2")}
        better = next(candidate for candidate in open_set(t).candidates if candidate.version == "v1")
        told = await duels.choose(better.slot)
        assert "you preferred v1" in told and f"{better.letter} was v1" in told
        written = {response.uid: (response.policy, response.version) for response in t.session.record.responses(open_set(t).uid)}
        assert set(written.values()) == {("adapter", "v1"), ("adapter", "v2")} and written[better.uid] == ("adapter", "v1")
        assert (duels.count.wins, duels.count.n) == (1, 1) and t.session.record.duel_count("v2", "v1").losses == 1
        assert t.session.record.duel_count() == ours and t.session.blind_all == blind, "no other count has it"
        before = len(engine.received)
        engine.die()
        await t.session.engine.restart()
        await t.session.wait_ready()
        await duels.open_next()
        again = {each.sha256 for each in engine.received[before:] if isinstance(each, protocol.Blob)}
        assert again == {hashes["v1"], hashes["v2"]}, "another engine has none of them"


async def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    async with two_versions(tmp_path, FakeEngine()) as t:
        duels = t.session.duels
        for pair, line in ((("v1", "v1"), "the same model"), (("v3", "base"), "v3 was refused and not kept"), (("v9", "v1"), "v9")):
            with pytest.raises(SessionError, match=line):
                await duels.between(*pair)
        assert duels.pair == ("acting", "base") and duels.names() == ["acting", "base", "v2", "v1"]
        await duels.between("v1", "base")
        await duels.open_next()
        for candidate in open_set(t).candidates:
            if candidate.version:
                t.session.sets.give_up(candidate.uid, "version v1 is not here")
                candidate.refused = "version v1 is not here"
        with pytest.raises(SessionError, match="could not be drawn"):
            await duels.choose(0)
        assert len(t.live()) == 1


async def test_two_versions_appear_together_and_are_named_once_the_choice_is_on_disk(tmp_path: Path) -> None:
    engine = FakeEngine(finish=False)
    async with two_versions(tmp_path, engine, (80, 24)) as t:
        await t.press("V")
        await t.until(lambda: isinstance(t.pilot.app.screen, VersionsScreen))
        point_at(t, "v1")
        await t.press("m")
        assert "◆" in t.shown() and "v1 is marked" in t.shown()
        point_at(t, "v2")
        await t.press("c")
        await t.until(lambda: isinstance(t.pilot.app.screen, CompareScreen))
        await t.press("enter")
        await t.until(lambda: "tokens so far" in t.shown())
        assert WAITED in t.shown() and not any(text.split()[0] in t.shown() for text in engine.texts[:2])
        view = open_set(t)
        await t.press("a")
        assert not view.committed and "both answers appear when both are complete" in t.shown()
        engine.send(protocol.Stop())
        await t.until(lambda: all(text.split()[0] in t.shown() for text in engine.texts[:2]))
        titles = [str(pane.border_title) for pane in t.pilot.app.screen.panes]  # type: ignore[attr-defined]
        assert titles == ["a", "b"] and "which is better" in t.shown()
        await t.press("b")
        assert isinstance(t.live()[-1], Ranking)
        titles = [str(pane.border_title) for pane in t.pilot.app.screen.panes]  # type: ignore[attr-defined]
        assert [title.split(" · ")[-1] for title in titles] == [candidate.version for candidate in view.candidates]
        assert " of 1 (" in t.shown() and "against v1" in t.shown()


async def test_which_two_is_chosen_by_letter_and_every_pair_has_its_line(tmp_path: Path) -> None:
    async with two_versions(tmp_path, FakeEngine()) as t:
        duels = t.session.duels
        await t.press("j", MODES["compare"][0])
        for letters, pair in (("db", ("v1", "base")), ("ac", ("acting", "v1")), ("aa", ("acting", "base"))):
            await t.press("w", *letters)
            assert duels.pair == pair, "the first is not among those that it may be compared with"
            await t.press("enter")
            await t.until(lambda: open_set(t).ended)
            await t.press("t")
            await t.until(lambda: open_set(t).committed)
        await t.press("w", "c", "c")
        told = str(t.pilot.app.screen.query_one("#introduction", Static).content)
        lines = [line.partition(" won 0.5 of 1 ") for line in told.splitlines() if " won " in line]
        assert sorted((one, rest.partition("against ")[2]) for one, _, rest in lines) == [
            ("v1", "the untouched model"), ("your model", "the untouched model"), ("your model", "v1")
        ]  # fmt: skip
        await t.press("w", "escape")
        assert duels.pair == ("v2", "v1")


async def test_a_version_and_another_are_asked_and_their_words_compared(tmp_path: Path) -> None:
    engine = FakeEngine(("The dog was sad.", "The dog was glad."))
    async with two_versions(tmp_path, engine) as t:
        arena = t.session.current
        assert arena is not None
        await t.press("V")
        point_at(t, "v1")
        await t.press("s")
        await t.until(lambda: isinstance(t.pilot.app.screen, DifferencesScreen) and "glad" in t.shown())
        assert arena.prompt.text in t.shown() and "v1" in t.shown() and "base" in t.shown()
        (request,) = [each for each in asked(engine) if isinstance(each, protocol.Generate)]
        assert [(each.version, each.policy) for each in request.requests] == [("v1", "adapter"), ("", "base")]
        assert len({each.seed for each in request.requests}) == 1 and t.session.current is arena
        await t.press("escape", "m")
        point_at(t, "v2")
        await t.press("n")
        t.pilot.app.screen.query_one(TextArea).text = "Tell me of a fox"
        await t.pilot.press("ctrl+s")
        await t.until(lambda: isinstance(t.pilot.app.screen, DifferencesScreen) and "glad" in t.shown())
        assert "Tell me of a fox" in t.shown() and "v2" in t.shown() and "v1" in t.shown()
        await t.press("escape", "d")
        await t.until(lambda: isinstance(t.pilot.app.screen, DifferencesScreen) and "Tell me of a fox" in t.shown())
        counted = t.session.record.counts().judged
        assert counted == 1 and t.session.duels.counts() == {}, "nothing was judged"
        await t.press("escape")
        point_at(t, "v3")
        await t.press("s")
        await t.until(lambda: "v3 was refused" in t.shown())
