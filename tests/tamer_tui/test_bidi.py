"""Right-to-left words in terminals that paint from the left: as the Unicode algorithm has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style

from tamer_tui import bidi
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table


def shown(text: str, width: int = 0) -> str:
    return "".join(segment.text for segment in bidi.reordered([Segment(text)], width))


@pytest.mark.parametrize(
    ("text", "painted"),
    [
        ("plain words (1)", "plain words (1)"),
        ("he said שלום to me", "he said םולש to me"),
        ("he said שלום עולם, twice", "he said םלוע םולש, twice"),
        ("שלום world", "world םולש"),
        ("אב (גד)", "(דג) בא"),
        ("מחיר 12.50 ש", "ש 12.50 ריחמ"),
        ("abc سلام 123 def", "abc 123 مالس def"),
        ("שָׁלוֹם", "םוֹלשָׁ"),
    ],
)
def test_lines_are_painted_as_fribidi_paints_them(text: str, painted: str) -> None:
    assert shown(text) == painted


@given(text=st.text(st.sampled_from("ab 12.,()אבגسل\u05b8+")))
def test_every_character_is_painted_once_and_keeps_its_style(text: str) -> None:
    styles = [Style(color=f"rgb({n % 256},0,0)") for n in range(len(text))]
    found = bidi.reordered([Segment(character, style) for character, style in zip(text, styles)], 0)
    by_style = {segment.style: segment.text for segment in found if segment.style is not None}
    assert len(found) == len(text)
    assert all(by_style[style] in (character, character.translate(bidi.MIRRORED)) for character, style in zip(text, styles))


def test_a_line_that_begins_from_the_right_ends_at_the_right() -> None:
    assert shown("שלום", 10) == " " * 6 + "םולש"


async def test_answers_are_turned_where_the_terminal_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bidi, "wanted", lambda: True)
    async with table(tmp_path, FakeEngine(["he said שלום to me", "**שלום**"]), (120, 36), k=2) as t:
        await t.press("a")
        await t.until(lambda: "he said םולש to me" in t.shown() and t.shown().count("םולש") == 2)
