"""Whatever is pressed, on whatever screen: the program goes on, and nothing is on disk that nobody said."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from storage.records import Flag, Ranking, Rating, Tap
from tamer_tui.keys import ARENA
from tamer_tui.screens.choice import FLAGS
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table

KEYS = int(os.environ.get("TAMER_RANDOM_KEYS", "80"))
OTHERS = ["ctrl+s", "slash", "home", "end", "ctrl+a", "delete", "q", "i", "A", "é", *[f"f{n}" for n in range(1, 10)]] * 2
"""Those that move from screen to screen come often."""


@pytest.mark.parametrize("seed", [1])
async def test_random_keys_on_every_screen_end_nothing_and_label_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.chdir(tmp_path)  # E writes there
    rng = random.Random(seed)
    keys = [key for binding in ARENA for key in binding.key.split(",") if key not in ("ctrl+q", "T")] + OTHERS
    pressed: list[str] = []
    async with table(tmp_path, FakeEngine(publish_after=3), (100, 30)) as t:
        for _ in range(KEYS):
            pressed.append(rng.choice(keys))
            t.arena._opened = 0.0
            await t.pilot.press(pressed[-1])
            assert t.pilot.app.is_running, pressed
        judgements = t.live()
        assert t.session.notice == "" or "\n" not in t.session.notice
    digits = {int(key) for key in pressed if key in set("1234567")}
    by_other_keys = {1} if "x" in pressed or "minus" in pressed else set()
    by_other_keys |= {7} if "plus" in pressed or "equals_sign" in pressed else set()
    for judgement in judgements:
        match judgement:
            case Rating(value=value):
                assert value in digits | by_other_keys, pressed
            case Ranking(ranks=ranks, set_uid=uid):
                assert ranks and all(answer.startswith(uid) for answer in ranks), pressed
            case Tap(value=value):
                assert value in (1.0, -1.0) and ({"plus", "equals_sign"} if value > 0 else {"minus"}) & set(pressed), pressed
            case Flag(label=label):
                assert "F" in pressed and any(label == name and letter in pressed for letter, (name, _) in FLAGS.items()), pressed
