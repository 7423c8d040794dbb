"""Answers as people read them: Markdown, folded thoughts, code to copy; and conversations as files."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import Span
from tamer_tui.markdown import code_blocks, fold_thoughts, has_markdown, has_thoughts, markdown_lines
from tamer_tui.text import plain
from tamer_tui.widgets.details import detailed_lines
from tamer_tui.widgets.plot import plot
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table

TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n"
ANSWER = f"<think>Hm, let me see.</think># Title\n\n- one **bold**\n- <b>two</b> [link](http://x.y)\n\n```python\nprint('hi')\n```\n\n{TABLE}"


def only_file(folder: Path) -> str:
    (path,) = folder.glob("*.md")
    return path.read_text()


def rendered(text: str, width: int = 60) -> str:
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in markdown_lines(text, width, True))


def test_markdown_is_rendered_and_html_is_shown_as_it_is_written() -> None:
    shown = rendered(ANSWER)
    assert "Title" in shown and "# Title" not in shown and "see.</think>" in shown and "**" not in shown and "• one bold" in shown
    assert "<b>two</b> link (http://x.y)" in shown and "print('hi')" in shown and "```" not in shown
    assert not any(segment.style and segment.style.link for line in markdown_lines(ANSWER, 60, True) for segment in line), "no link to click"


@given(st.text(st.sampled_from("a *_`#[]()<>|-\n1.~!\x1b\x9b\u202e漢é\\&;"), max_size=80), st.integers(8, 40))
def test_whatever_is_written_lines_fit_and_control_nothing(text: str, width: int) -> None:
    lines = markdown_lines(text, width, False)
    assert all(sum(segment.cell_length for segment in line) <= width for line in lines)
    assert not any(set(segment.text) & set("\x1b\x9b\u202e") for line in lines for segment in line)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("<think>one two</think>\nyes", "▸ thought, 2 words (Z unfolds)\n\n\nyes"),
        ("one two three</think>yes", "▸ thought, 3 words (Z unfolds)\n\nyes"),
        ("<think></think>yes", "yes"),
        ("yes <THINKING>cut in the mid", "yes ▸ thought, 4 words (Z unfolds)"),
        ("no thought < think", "no thought < think"),
    ],
)
def test_thoughts_are_folded_to_a_line_with_their_length(text: str, folded: str) -> None:
    assert has_thoughts(text) == (folded != text) and fold_thoughts(text) == folded


def test_plain_prose_stays_plain_and_code_blocks_are_found() -> None:
    assert not has_markdown("Once upon a time - it rained. He said 3 * 4.\nThe end.") and has_markdown("1. one\n2. two")
    assert code_blocks("```py\na = 1\n```\ntext\n~~~\nb\n~~~\n```\ncut") == ["a = 1", "b", "cut"]


def test_a_chart_spans_its_cells_whatever_the_numbers_are() -> None:
    assert plot([], 4, 2) == ["    ", "    "] and plot([float("nan")], 3, 1) == ["   "]
    rows = plot([0.0, 1.0], 1, 1)
    assert rows == [chr(0x2800 + 0x40 + 0x08)], "low at the left, high at the right"
    assert plot([1e308, -1e308, 5.0] * 1000, 10, 3)[0] and len(plot(list(range(10_000)), 10, 3)[0]) == 10


async def test_a_finished_answer_is_markdown_m_shows_it_plain_and_tints_are_over_plain_words(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine((ANSWER,)), size=(200, 50), k=2) as t:
        await t.press("a")
        pane = t.arena.answers.panes[0]
        await t.until(lambda: "• one bold" in t.shown())
        assert "thought, 4 words" in t.shown() and "Hm, let me see" not in t.shown() and pane.reading is not pane.stream
        await t.press("Z")
        await t.until(lambda: "Hm, let me see" in t.shown())
        await t.press("M")
        assert pane.reading is pane.stream and "- one **bold**" in t.shown()
        await t.press("M", "v", "enter")
        assert pane.stream.tinted and pane.reading is pane.stream
        await t.press("v", "v")
        assert pane.reading is not pane.stream


async def test_answers_and_code_go_to_the_clipboard_and_the_conversation_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMUX", raising=False)
    async with table(tmp_path, FakeEngine((ANSWER + "\x1b[2J", "plain")), k=2) as t:
        await t.press("y")
        folded = t.pilot.app.clipboard
        assert folded and "think" not in folded and "without its thoughts" in t.line("said")
        await t.press("Z", "y")
        assert t.pilot.app.clipboard.startswith("<think>") and t.pilot.app.clipboard.endswith(folded)
        assert "\x1b" not in t.pilot.app.clipboard and t.line("said").endswith("in the clipboard")
        assert base64.b64encode(t.pilot.app.clipboard.encode()), "text that OSC 52 takes"
        await t.press("Y")
        assert t.pilot.app.clipboard == "print('hi')"
        await t.press("tab", "Y")
        assert "no code block" in t.line("said")
        await t.press("shift+tab", "E")
        await t.until(lambda: "written to" in t.line("said"))
        text = only_file(tmp_path)
        assert text.startswith("# Once upon a time") and "## assistant (answer a)" in text and "acting" not in text, "blind before the commit"


async def test_the_rail_speaks_plainly_and_d_shows_the_figures(tmp_path: Path) -> None:
    async with table(tmp_path, size=(200, 50)) as t:
        await t.press("a", "enter", "b", "enter")
        await t.until(lambda: "Answers follow your 2 rankings" in t.shown())
        assert "β" not in t.line("rail") and "Ĥ" not in t.line("rail") and "of the 6 units" in " ".join(t.line("rail").split())
        await t.press("D")
        assert "β" in t.line("rail") and t.line("rail").split()[0] == detailed_lines(t.session)[0].plain.split()[0]


async def test_text_is_selected_with_the_mouse_as_it_was_written(tmp_path: Path) -> None:
    text = "漢字 one two three " * 30
    async with table(tmp_path, FakeEngine((text,)), size=(80, 24)) as t:
        await t.press("a")
        stream = t.arena.answers.panes[0].stream
        await t.pilot.mouse_down(stream, offset=(6, 0))
        await t.pilot.hover(stream, offset=(9, 2))
        await t.pilot.mouse_up(stream, offset=(9, 2))
        selected = t.pilot.app.screen.get_selected_text()
        assert selected and selected in text and len(selected) > 100 and "\n" not in selected
        await t.pilot.press("ctrl+c")
        await t.pilot.pause()
        assert t.pilot.app.clipboard == selected and t.pilot.app.is_running
        await t.press("F", "m")
        (span,) = t.live()
        assert isinstance(span, Span) and (text[span.start : span.stop], span.label) == (selected, "made up")
        assert "flagged: made up" in t.line("said") and not t.pilot.app.screen.get_selected_text()
        await t.press("u")
        assert t.live() == []


def test_an_entity_is_no_way_around_what_is_plain() -> None:
    text = "# a &#8238;b\n\n- c &#x2028; `d&#27;e` **f&#x9b;g**\n\n| h&#8297; |\n|---|\n| i&rlm; |\n\n[j&#8237;](http://k&#8238;)"
    said = "".join(segment.text for line in markdown_lines(text, 60, True) for segment in line)
    assert plain(said) == said and all(letter in said for letter in "abcdefghij")
