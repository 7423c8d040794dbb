"""Two answers side by side: which words differ, in the Arena and between versions."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Static

from tamer_tui.differences import word_differences
from tamer_tui.screens.differences import DifferencesScreen
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, table

WORDS = st.lists(st.sampled_from(["a", "cat", "sat", " ", "\n", ".", "漢字", "e\u0301"]), max_size=30).map("".join)


@given(one=WORDS, other=WORDS)
def test_parts_make_up_both_texts_and_what_is_not_their_own_is_the_same_in_both(one: str, other: str) -> None:
    ours, theirs = word_differences(one, other)
    assert ("".join(part.text for part in ours), "".join(part.text for part in theirs)) == (one, other)
    shared = ["".join(part.text for part in parts if not part.own) for parts in (ours, theirs)]
    assert shared[0] == shared[1]
    if one == other:
        assert not any(part.own for part in (*ours, *theirs))


def test_the_words_that_differ_are_found() -> None:
    ours, theirs = word_differences("The dog was sad.", "The old dog was glad.")
    assert [part.text for part in ours if part.own] == ["sad"]
    assert [part.text.strip() for part in theirs if part.own] == ["old", "glad"]


def looks(t: Table) -> list[dict[str, str]]:
    """Of both sides: each styled piece of text and its style."""
    sides = [each for each in t.pilot.app.screen.query(Static) if each.parent is not None and each.parent.id is None]
    return [{side.content.plain[span.start : span.end]: str(span.style) for span in side.content.spans} for side in sides]  # type: ignore[union-attr]


async def test_the_focused_answer_beside_each_other_one(tmp_path: Path) -> None:
    texts = ["The dog was sad.", "The dog was glad.", "A [/b] cat."]
    async with table(tmp_path, FakeEngine(texts), (80, 24), k=3) as t:
        await t.press("z")
        assert isinstance(t.pilot.app.screen, DifferencesScreen)
        await t.until(lambda: "glad" in t.shown())
        assert "underline" in looks(t)[0]["sad"] and "italic" in looks(t)[1]["glad"]
        await t.press("tab")
        await t.until(lambda: "[/b]" in t.shown())
        await t.press("escape")
        assert t.pilot.app.screen is t.arena and t.live() == []


async def test_a_version_is_shown_beside_another_on_the_prompts_that_both_answered(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await t.press("a", "enter")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        await t.press("V", "d")
        await t.until(lambda: "no prompt was answered by v1 and by another version yet" in t.shown())
        await t.press("escape")
        for _ in range(5):  # around the four prompts once, so that the first comes again
            await t.press("a", "enter")
        await t.press("V", "d")
        await t.until(lambda: isinstance(t.pilot.app.screen, DifferencesScreen))
        await t.until(lambda: "base" in t.shown() and "v1" in t.shown() and "Once upon a time" in t.shown())
