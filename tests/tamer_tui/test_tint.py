"""Tinted words: only after the commit, each run of text at the level of its token, told apart without colour too."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from learners import protocol
from storage.records import Ranking
from tamer_tui.text import plain, wrap
from tamer_tui.tint import levels
from tamer_tui.widgets.stream_view import StreamView, along
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, table


def looks(view: StreamView) -> dict[str, tuple[bool, bool]]:
    """Every word of the painted answer: whether it is bold, whether it is underlined."""
    found = {}
    for y in range(view.size.height):
        for segment in view.render_line(y):
            style = segment.style
            found |= dict.fromkeys(segment.text.split(), (bool(style and style.bold), bool(style and style.underline)))
    return found


def asked(t: Table) -> list[protocol.Command]:
    return [command for command in t.engine.received if isinstance(command, protocol.Appraise)]


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(-1e6, 1e6), max_size=8), min_size=1))
def test_levels_keep_the_sign_and_the_order_of_rewards(rewards: dict[str, list[float]]) -> None:
    found = levels(rewards)
    pairs = sorted((r, level) for uid, answer in rewards.items() for r, level in zip(answer, found[uid], strict=True))
    assert all(level == 0 or (level > 0) == (reward > 0) for reward, level in pairs)
    assert [level for _, level in pairs] == sorted(level for _, level in pairs)


def test_levels_do_not_depend_on_the_unit_and_pass_over_what_is_no_number() -> None:
    small = levels({"a": [0.1, -0.3, 0.0], "b": [0.01, math.nan]})
    large = levels({"a": [100.0, -300.0, 0.0], "b": [10.0, math.inf]})
    assert small == large == {"a": [1, -2, 0], "b": [0, 0]}
    assert levels({"a": []}) == {"a": []}


@given(st.text(alphabet="ab \n漢", max_size=60), st.integers(2, 9))
def test_values_follow_their_characters_through_wrapping(text: str, width: int) -> None:
    text = plain(text)
    lines = wrap(text, width)
    cut = along(lines, text, range(len(text)))
    assert ["".join(text[i] for i in values) for values in cut] == lines


async def test_words_are_tinted_after_the_commit_and_the_set_stays_until_a_second_enter(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        first = t.session.current
        await t.press("v")
        assert asked(t) == [] and "once you commit" in t.line("said")
        await t.press("b", "enter")
        assert t.session.current is first and [type(j) for j in t.live()] == [Ranking]
        assert len(asked(t)) == 1
        words = looks(t.arena.answers.panes[0].stream)
        assert words["She"] == words["laughed"] == (True, False)  # the scripted engine likes words with an h
        assert words["red"] == (False, True)  # and dislikes short ones
        assert words["Tom."] == (False, False)
        assert "▸ a" in str(t.arena.answers.panes[0].border_title)
        assert "liked much" in t.line("said") and "disliked" in t.line("said") and "b was" not in t.line("todo")
        await t.press("enter")
        assert t.session.current is not first and not t.arena.answers.panes[0].stream.tinted
        assert "liked" not in t.line("said")


async def test_v_again_gives_plain_words_and_the_same_text(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("v", "b", "enter")
        view = t.arena.answers.panes[1].stream
        text = view.text
        assert view.tinted
        await t.press("v")
        assert [command.by for command in asked(t)] == ["human_reward", "reward"] and view.tinted and "reward model: " in t.line("said")
        await t.press("v")
        assert not view.tinted and view.text == text and text == t.engine.texts[1]
        assert not any(bold or under for bold, under in looks(view).values())
        await t.press("v")
        assert view.tinted


async def test_a_reward_model_that_has_learned_nothing_leaves_no_tints_under_its_name(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("o", "v")
        assert t.arena.answers.panes[0].stream.tinted
        await t.press("v")
        assert not t.arena.answers.panes[0].stream.tinted
        assert "the reward model has learned nothing yet" in t.line("said") and "liked" not in t.line("said")


async def test_what_must_stay_blind_cannot_be_asked_for(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("v", "a", "enter", "enter", "u")  # the set comes back, to be judged again
        assert t.session.current is not None and not t.session.current.committed
        await t.press("v", "v", "v")
        assert len(asked(t)) == 1 and not t.arena.answers.panes[0].stream.tinted


async def test_a_comparison_with_the_base_may_be_tinted_at_once(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("o", "v")
        assert len(asked(t)) == 1 and t.arena.answers.panes[1].stream.tinted


async def test_scores_alone_also_stay_to_be_looked_at(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(), k=1) as t:
        first = t.session.current
        await t.press("v", "7", "enter")
        assert t.session.current is first and t.arena.answers.panes[0].stream.tinted
        await t.press("enter")
        assert t.session.current is not first
