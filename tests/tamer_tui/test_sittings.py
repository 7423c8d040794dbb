"""Finding yesterday's sitting: listed with what was taught, renamed and deleted with its versions, never while a program has it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.journal import Journal
from storage.queries import Record
from storage.records import Calibration
from tamer_tui.reports import keep_calibration
from tamer_tui.screens.sittings import SittingsApp
from tamer_tui.session import SessionError
from tamer_tui.sittings import Known, delete, known, rename
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import painted
from tests.tamer_tui.test_session import sitting, uids, until


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def taught(path: Path) -> None:
    async with sitting(path, FakeEngine(publish_after=1)) as session:
        await session.judging.rank({uids(session)[0]: 1})
        await until(session, lambda: session.status.acting[0] == "v1")


async def test_sittings_are_listed_renamed_and_deleted_with_their_versions(tmp_path: Path) -> None:
    await taught(tmp_path / "a.db")
    (tmp_path / "bad.db").write_text("not a database")
    found = {each.path.stem: each for each in known(tmp_path)}
    assert (found["a"].model, found["a"].judged, found["a"].acting, found["a"].problem) == ("fake", 1, "v1", "")
    assert found["bad"].problem
    (tmp_path / "taken.db").touch()
    for name in ("", "x/y", "..", "taken"):
        with pytest.raises(SessionError):
            rename(tmp_path / "a.db", name)
    path = rename(tmp_path / "a.db", "poetry")
    with Record(path) as record:
        assert record.counts().judged == 1
    assert names(tmp_path) >= {"poetry.db", "poetry.db.versions"} and not any(name.startswith("a.db") for name in names(tmp_path))
    delete(path)
    assert names(tmp_path) == {"bad.db", "taken.db"}
    assert known(tmp_path / "nowhere") == []


async def test_what_a_program_has_open_is_left_alone(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "a.db")
    try:
        for attempt in (lambda: delete(tmp_path / "a.db"), lambda: rename(tmp_path / "a.db", "b")):
            with pytest.raises(SessionError):
                attempt()
        assert (tmp_path / "a.db").exists()
    finally:
        journal.close()


async def test_the_browser_opens_one_and_deletes_only_after_a_confirmation(tmp_path: Path) -> None:
    await taught(tmp_path / "[b]a.db")
    app = SittingsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(100):
            await pilot.pause(0.01)
            if app._known:
                break
        assert "[b]a" in painted(app)  # type: ignore[arg-type]
        await pilot.press("X")
        await pilot.pause()
        assert "for good?" in painted(app)  # type: ignore[arg-type]
        await pilot.press("enter")
        await pilot.pause()
    assert isinstance(app.return_value, Known) and app.return_value.path.name == "[b]a.db" and app.return_value.path.exists()


async def test_a_database_of_an_older_version_opens_too(tmp_path: Path) -> None:
    path, fixture = tmp_path / "old.db", Path(__file__).parents[1] / "storage" / "fixtures" / "v12.sql"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(fixture.read_text(encoding="utf-8"))
    (found,) = known(tmp_path)
    assert found.older and found.problem
    app = SittingsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        while not app._known:
            await pilot.pause(0.01)
        await pilot.press("enter")
        while app.is_running and app.return_value is None:
            await pilot.pause(0.01)
    assert isinstance(app.return_value, Known) and app.return_value.model and not app.return_value.problem


async def test_a_sitting_is_found_with_what_it_was_taught_on(tmp_path: Path) -> None:
    """Also after taps were calibrated, which is no sitting of the model's."""
    async with sitting(tmp_path / "a.db", FakeEngine(), peft_adapter="/somewhere/lora", system="Be kind.") as session:
        await session.judging.rank({uids(session)[0]: 1})
    keep_calibration(tmp_path / "a.db", Calibration(low=0.3, high=1.1))
    (found,) = known(tmp_path)
    assert found.adapter == "/somewhere/lora"
    with Record(tmp_path / "a.db") as record:
        assert record.settings()["system"] == "Be kind."


async def test_keys_in_a_folder_without_databases_choose_nothing(tmp_path: Path) -> None:
    async with SittingsApp(tmp_path).run_test() as pilot:
        await pilot.press("end", "home", "enter", "r", "X", "y")
        await pilot.pause()
        assert pilot.app.is_running and pilot.app.return_value is None
