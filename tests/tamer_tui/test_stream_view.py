"""Text that grows: wrapped as if it had come at once, kept at its end unless the reader scrolled up, shown at reading pace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from learners.protocol import Ended, Piece
from tamer_tui.text import plain, wrap
from tamer_tui.views import CandidateView
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.stream_view import StreamView
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import painted, table


class Page(App[None]):
    """One view, alone."""

    def compose(self) -> ComposeResult:
        yield StreamView()


@asynccontextmanager
async def page(size: tuple[int, int] = (42, 10)) -> AsyncIterator[tuple[Pilot[None], StreamView]]:
    app = Page()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield pilot, app.screen.query_one(StreamView)


def lines(pilot: Pilot[None]) -> list[str]:
    """As painted, without padding and scrollbar (a space, where there is nothing to scroll)."""
    return [line.rstrip(" ▁▂▃▄▅▆▇█▎▊")[1:].rstrip() for line in painted(pilot.app).splitlines()]


async def test_what_is_painted_is_what_wrapping_it_at_once_would_give() -> None:
    text = "One two three\n\nfour 漢字漢字 " + "x" * 100 + " five\tsix 👩\u200d👩\u200d👧 \x1b[31mseven" + " " * 50 + "eight"
    async with page((42, 24)) as (pilot, view):
        for start in range(0, len(text), 3):
            view.write(text[start : start + 3])
        await pilot.pause()
        expected = [line.rstrip() for line in wrap(plain(text), 39)]
        assert lines(pilot)[: len(expected)] == expected
        assert view.text == plain(text)


async def test_a_view_that_was_painted_as_it_grew_is_painted_as_one_that_was_not_in_another_theme_too() -> None:
    text = " ".join(f"word{n} 漢字" for n in range(120))
    grown: list[list[str]] = []
    for step in (31, len(text)):
        async with page((42, 12)) as (pilot, view):
            for start in range(0, len(text), step):
                view.write(text[start : start + step])
                await pilot.pause()
            seen = [pilot.app.export_screenshot(simplify=True)]
            pilot.app.theme = "textual-light"
            await pilot.pause()
            seen.append(pilot.app.export_screenshot(simplify=True))
            view.mark([(len(text) - 3, "▲")])
            view.marked = True
            view.scroll_relative(y=-9, animate=False)
            await pilot.pause()
            grown.append([*seen, pilot.app.export_screenshot(simplify=True)])
    assert grown[0] == grown[1] and len(set(grown[0])) == 3


async def test_the_view_stays_at_its_end_until_the_reader_scrolls_up_and_again_when_back() -> None:
    async with page() as (pilot, view):
        view.write("\n".join(str(n) for n in range(30)))
        await pilot.pause()
        assert lines(pilot)[-1] == "29"
        view.scroll_relative(y=-5, animate=False)
        await pilot.pause()
        view.write("\n30\n31")
        await pilot.pause()
        assert lines(pilot)[-1] == "24", "what is read does not move"
        view.scroll_end(animate=False)
        await pilot.pause()
        view.write("\n32")
        await pilot.pause()
        assert lines(pilot)[-1] == "32"


async def test_another_width_wraps_everything_again() -> None:
    text = "word " * 100
    async with page((42, 40)) as (pilot, view):
        view.write(text)
        for columns in (20, 80, 33):
            await pilot.resize_terminal(columns, 40)
            await pilot.pause()
            expected = [line.rstrip() for line in wrap(text, columns - 3)]
            assert [line for line in lines(pilot) if line] == [line for line in expected if line][-40:]


async def test_after_a_clear_nothing_is_left() -> None:
    async with page() as (pilot, view):
        view.write("\n".join(str(n) for n in range(30)))
        view.clear()
        view.write("new")
        await pilot.pause()
        assert [line for line in lines(pilot) if line] == ["new"] and view.max_scroll_y == 0


# --- at reading pace -----------------------------------------------------------------------------------------------


def candidate(words: int, ended: bool = False) -> CandidateView:
    view = CandidateView("u0", 0, "acting", 1)
    texts = tuple(f" w{i}" for i in range(words))
    view.grow(
        Piece(
            uid="u0", start=0, ids=tuple(range(words)), texts=texts, logprobs=(0.0,) * words, unbiased_logprobs=(0.0,) * words, times=(0.0,) * words
        )
    )
    if ended:
        view.end(Ended(uid="u0", reason="eos", text="".join(texts), n_tokens=words, kl=0.0, seconds=1.0))
    return view


@asynccontextmanager
async def pane_of(view: CandidateView) -> AsyncIterator[CandidatePane]:
    pane = CandidatePane(view)
    app: App[None] = App()
    async with app.run_test():
        await app.screen.mount(pane)
        yield pane


async def test_the_first_token_shows_at_once_and_the_others_at_the_pace() -> None:
    async with pane_of(candidate(10)) as pane:
        pane.reveal(0.0)
        assert pane.stream.text == "w0"
        for _ in range(4):
            pane.reveal(0.5)
        assert pane.stream.text == "w0 w1 w2"


async def test_waiting_for_the_engine_earns_nothing() -> None:
    view = candidate(1)
    async with pane_of(view) as pane:
        for _ in range(1000):
            pane.reveal(1.0)
        view.grow(Piece(uid="u0", start=1, ids=(1,) * 50, texts=(" x",) * 50, logprobs=(0.0,) * 50, unbiased_logprobs=(0.0,) * 50, times=(0.0,) * 50))
        pane.reveal(1.0)
        assert pane.stream.text.count("x") <= 2


async def test_an_answer_is_complete_when_it_has_ended_and_all_of_it_is_shown() -> None:
    async with pane_of(candidate(5, ended=True)) as pane:
        pane.reveal(1.0)
        assert not pane.complete
        pane.reveal(INSTANT)
        assert pane.complete and pane.stream.text == "w0 w1 w2 w3 w4"


async def test_another_answer_takes_the_place_of_the_old_one() -> None:
    async with pane_of(candidate(5, ended=True)) as pane:
        pane.reveal(INSTANT)
        pane.open(candidate(2))
        assert pane.stream.text == "" and not pane.begun
        pane.reveal(0.0)
        assert pane.stream.text == "w0"


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_a_judging_key_completes_the_display_also_of_what_is_still_to_come(tmp_path: Path, size: tuple[int, int]) -> None:
    async with table(tmp_path, FakeEngine(finish=False), size) as t:
        assert t.session.current is not None
        view = t.session.current.candidates[3]
        assert len(view.pieces) > 8 and t.arena.answers.panes[3].stream.text != "".join(view.pieces)
        await t.press("a")
        assert all(pane.stream.text == "".join(pane.view.pieces).lstrip() for pane in t.arena.answers.panes)
        view.grow(
            Piece(
                uid=view.uid,
                start=len(view.pieces),
                ids=(1,) * 30,
                texts=(" more",) * 30,
                logprobs=(0.0,) * 30,
                unbiased_logprobs=(0.0,) * 30,
                times=(0.0,) * 30,
            )
        )
        t.arena.answers.frame()
        assert t.arena.answers.panes[3].stream.text.count(" more") == 30


async def test_freezing_holds_the_text_and_counts_what_waits(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(finish=False)) as t:
        await t.press("space")
        held = [pane.stream.text for pane in t.arena.answers.panes]
        for _ in range(5):
            t.arena.answers.frame()
        assert [pane.stream.text for pane in t.arena.answers.panes] == held
        assert "Frozen" in t.line("todo") and "more" in t.subtitle(0)
        await t.press("space")
        t.arena.answers.frame()
        assert not t.arena.frozen and "more" not in t.subtitle(0)


async def test_answers_are_left_and_come_back_whole_whatever_their_number(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        texts = [pane.view.text for pane in t.arena.answers.panes]
        await t.press("o")
        await t.session.sets.wait_ended()
        await t.pilot.pause()
        assert len(t.arena.answers.panes) == len(t.arena.query(CandidatePane)) == 2
        await t.press("enter")
        assert [pane.stream.text for pane in t.arena.answers.panes] == texts and len(t.arena.query(CandidatePane)) == 4
