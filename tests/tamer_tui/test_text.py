"""Untrusted text: what is painted is plain, and wrapping equals a slow way to wrap, whatever the pieces it comes in."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tamer_tui.text import content, one_line, plain, wrap

WORDS = st.text(alphabet=st.sampled_from("ab-é日本🙂 \n"), max_size=60)
ANY = st.text(st.characters(exclude_categories=()), max_size=60)


def slowly(text: str, width: int) -> list[str]:
    """One character after another: the longest start that fits, cut back to the last space if a word would be broken."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        while True:
            fitting = 0
            while fitting < len(paragraph) and cell_len(paragraph[: fitting + 1]) <= width:
                fitting += 1
            if fitting == len(paragraph):
                break
            cut = max(fitting, 1)
            if paragraph[cut] != " ":
                back = paragraph.rfind(" ", 0, cut) + 1
                cut = back if paragraph[:back].strip(" ") else cut
            while cut < len(paragraph) and paragraph[cut] == " " and paragraph[:cut].strip(" "):
                cut += 1
            lines.append(paragraph[:cut])
            paragraph = paragraph[cut:]
        lines.append(paragraph)
    return lines


# --- wrapping ------------------------------------------------------------------------------------------------------


@given(text=WORDS, width=st.integers(1, 20))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    assert "".join(wrap(text, width)) == text.replace("\n", "")


@given(text=WORDS, width=st.integers(2, 20))
def test_no_line_is_wider_than_the_pane_but_for_spaces_at_its_end(text: str, width: int) -> None:
    assert all(cell_len(line.rstrip(" ")) <= width for line in wrap(text, width))


@given(words=st.lists(st.text(alphabet="abé日", min_size=1, max_size=8), max_size=12), width=st.integers(2, 20))
def test_single_spaces_wrap_as_the_slow_way_does(words: list[str], width: int) -> None:
    assert wrap(" ".join(words), width) == slowly(" ".join(words), width)


@given(pieces=st.lists(st.text(alphabet="ab日 \n", max_size=6), max_size=12), width=st.integers(1, 12))
def test_only_the_last_line_changes_when_more_comes(pieces: list[str], width: int) -> None:
    lines = [""]
    for piece in pieces:
        lines[-1:] = wrap(lines[-1] + piece, width)
    assert lines == wrap("".join(pieces), width)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("a\n\nb", 5, ["a", "", "b"]),
        ("one two three", 7, ["one two ", "three"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("日本語", 4, ["日本", "語"]),
        ("日", 1, ["日"]),
    ],
)
def test_wrapping_by_example(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


# --- what never reaches the terminal -----------------------------------------------------------------------------------


@given(text=ANY)
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    found = plain(text)
    assert not [c for c in found if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"]
    assert not set(found) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert plain(found) == found
    found.encode("utf-8")


@given(text=ANY)
def test_one_line_is_one(text: str) -> None:
    assert "\n" not in one_line(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x9b2Jgone", "2Jgone"),
        ("\x1b]0;title\x07", "]0;title"),
        ("a\tb", "a    b"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\ud800", "?"),
        ("abc\u202etxt", "abctxt"),
        ("[@click=app.quit]x[/] [/b]", "[@click=app.quit]x[/] [/b]"),
    ],
)
def test_control_characters_by_example(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert content(text).plain == shown
