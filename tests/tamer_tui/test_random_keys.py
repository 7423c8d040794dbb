"""Whatever is pressed, on whatever screen: the program goes on, and nothing is on disk that nobody said. TAMER_KEYS=10000 presses more."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import chdir
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from storage.records import Comment, Correction, Demonstration, Flag, Ranking, Rating, Tap
from tamer_tui.keys import ARENA, LETTERS
from tamer_tui.screens.choice import FLAGS
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table

AT_ONCE = 100
EXAMPLES = int(os.environ.get("TAMER_KEYS", "200")) // AT_ONCE
MODES = [f"f{n}" for n in range(1, 10)]
KEYS = sorted({key for binding in ARENA for key in binding.key.split(",")} - {"ctrl+q", "T"})
OTHERS = ["ctrl+s", "slash", "home", "end", "ctrl+a", "delete", "q", "i", "A", "é", "resize"]
PRESSES = st.lists(st.one_of(st.sampled_from(KEYS), st.sampled_from(OTHERS + MODES)), min_size=AT_ONCE, max_size=AT_ONCE)
SIZES = ((20, 5), (80, 24), (200, 50), (100, 30))


@settings(
    max_examples=max(1, EXAMPLES), derandomize=EXAMPLES <= 2, phases=[Phase.generate], deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(presses=PRESSES)
def test_random_keys_on_every_screen_end_nothing_and_label_nothing(presses: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # E writes there
        for judgement in asyncio.run(_judgements_after(presses, Path(folder))):
            assert _was_said(judgement, presses), judgement


async def _judgements_after(presses: Sequence[str], folder: Path) -> list[object]:
    """What is live in the end."""
    async with table(folder, FakeEngine(publish_after=3), (100, 30)) as t:
        for at, key in enumerate(presses):
            t.arena._opened = 0.0
            if key == "resize":
                await t.pilot.resize_terminal(*SIZES[at % len(SIZES)])
            else:
                await t.pilot.press(key)
            assert t.pilot.app.is_running
            assert "\n" not in t.session.notice
        return t.live()


def _was_said(judgement: object, presses: Iterable[str]) -> bool:
    """Whether these keys can have meant it."""
    pressed = set(presses)
    match judgement:
        case Rating(value=value):
            return (
                str(value) in pressed or (value == 1 and bool({"x", "minus"} & pressed)) or (value == 7 and bool({"plus", "equals_sign"} & pressed))
            )
        case Ranking(ranks=ranks, set_uid=uid):
            return bool(ranks) and all(answer.startswith(uid) for answer in ranks) and bool({*LETTERS, "t", "left", "right", "1", "2", "0"} & pressed)
        case Tap(value=value):
            return abs(value) == 1.0 and bool(({"plus", "equals_sign"} if value > 0 else {"minus"}) & pressed)
        case Flag(label=label):
            return "F" in pressed and any(label == name and letter in pressed for letter, (name, _) in FLAGS.items())
        case Correction() | Demonstration() | Comment():
            return bool({"ctrl+s", "enter"} & pressed)
    return True
