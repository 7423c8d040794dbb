"""Measuring how late taps come: planted words, delays, and the window that is fitted to them."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from textual.app import App

from storage.queries import Record
from storage.records import Calibration
from tamer_tui.calibration import GAP, LONGEST_DELAY, MARKS, WORDS_PER_SECOND, Measurement, connection, fit, text
from tamer_tui.reports import keep_calibration
from tamer_tui.screens.calibrate import CalibrateScreen
from tamer_tui.session_store import SessionError
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table
from tests.tamer_tui.test_tapping import show, tapping


def test_twenty_words_are_marked_and_their_answers_cannot_be_confused() -> None:
    planned = text()
    places = [i for i, (_, marked) in enumerate(planned) if marked]
    assert len(places) == MARKS
    assert min(b - a for a, b in pairwise(places)) > GAP[0]
    assert GAP[0] / WORDS_PER_SECOND > 0.8 * LONGEST_DELAY / 2, "most delays end before the next mark"


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.8), (0.35, 0.6)])
def test_the_window_is_found_again_from_taps_drawn_from_it(low: float, high: float) -> None:
    rng, measured = random.Random(1), Measurement()
    for i in range(200):
        measured.marks.append(3.0 * i)
        measured.press(3.0 * i + rng.uniform(low, high))
    found = fit(measured.delays, "local")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low + 0.05 * (high - low), high - 0.05 * (high - low)), abs=0.03)
    assert found.shape and found.scale and found.shape * found.scale == pytest.approx((low + high) / 2, abs=0.02)


def test_a_mark_is_answered_once_and_stray_keys_are_counted() -> None:
    measured = Measurement()
    assert measured.press(1.0) is None
    measured.marks.append(2.0)
    assert measured.press(2.5) == pytest.approx(0.5)
    assert measured.press(2.6) is None
    measured.marks.append(5.0)
    assert measured.press(5.0 + LONGEST_DELAY + 0.1) is None
    assert (len(measured.delays), measured.stray) == (1, 3)


def test_nothing_is_fitted_to_a_few_taps_nor_a_window_without_width() -> None:
    assert fit([0.4] * 7, "local") is None
    found = fit([0.4] * 8, "local")
    assert found is not None and found.high - found.low == pytest.approx(0.1) and found.low == pytest.approx(0.35)


async def test_the_screen_measures_and_hands_the_window_over() -> None:
    handed: list[Calibration | None] = []

    class Alone(App[None]):
        def on_mount(self) -> None:
            self.push_screen(CalibrateScreen(words_per_second=1e-6), handed.append)

    app = Alone()
    async with app.run_test() as pilot:
        screen = app.screen
        assert isinstance(screen, CalibrateScreen)
        await pilot.press("plus", "space")
        for _, marked in screen._text:
            screen._appear()
            if marked:
                await pilot.pause()
                await pilot.press("plus")
        screen._appear()  # past the end
        await pilot.pause()
    (found,) = handed
    assert found is not None and len(found.delays) == MARKS


def test_the_command_writes_the_window_into_a_database_that_has_a_model(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="no database"):
        keep_calibration(tmp_path / "none.db", None)


async def test_over_another_connection_the_window_is_another_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_TTY", raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    mine = Calibration(low=0.3, high=0.7, delays=(0.3, 0.7))
    async with tapping(tmp_path / "a.db") as session:
        await session.taps.calibrate(mine)
        assert session.taps.window == mine
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    assert connection() == "ssh"
    async with tapping(tmp_path / "a.db") as session:
        assert session.taps.window == Calibration(connection="ssh") and "not measured" in session.notice
        now = show(session, 5)
        seq = await session.taps.tap(1.0, "+", now, wall=now)
    monkeypatch.delenv("SSH_CONNECTION")
    async with tapping(tmp_path / "a.db") as session:
        assert session.taps.window == mine
    with Record(tmp_path / "a.db") as record:
        (taught,) = record.lessons()
        assert taught.logged.seq == seq and taught.window == Calibration(connection="ssh")
    found = keep_calibration(tmp_path / "a.db", mine)
    assert "0.30 to 0.70 s" in found


async def test_calibration_is_found_in_the_palette(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine()) as t:
        await t.arena.run_action("calibrate")
        await t.pilot.pause()
        assert isinstance(t.pilot.app.screen, CalibrateScreen)
        await t.pilot.press("escape")
        await t.pilot.pause()
        assert t.pilot.app.screen is t.arena
