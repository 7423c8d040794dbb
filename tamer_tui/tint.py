"""How opinions of single tokens become a look: five levels, told apart by weight and line as well as by colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from learners.protocol import RewardLearner

LEVELS = (-2, -1, 0, 1, 2)
NAMES = {2: "liked much", 1: "liked", -1: "disliked", -2: "disliked much"}
OPINIONS: dict[RewardLearner, str] = {"human_reward": "Ĥ", "reward": "the reward model"}
SOME, MUCH = 0.5, 1.5
"""Where the levels begin, in units of the root mean square of the rewards on screen."""


def levels(rewards: Mapping[str, Sequence[float]]) -> dict[str, list[int]]:
    """The level of each token of each answer, on one scale for all of them: the answers of a set can be compared."""
    known = [reward for answer in rewards.values() for reward in answer if reward and math.isfinite(reward)]
    scale = math.hypot(*known) / math.sqrt(len(known)) if known else 1.0
    return {uid: [_level(reward / scale) for reward in answer] for uid, answer in rewards.items()}


def after(by: RewardLearner | None) -> RewardLearner | None:
    """Whose opinion comes next, None being nobody's."""
    order = [None, *OPINIONS, None]
    return order[order.index(by) + 1]


def _level(reward: float) -> int:
    if not math.isfinite(reward):
        return 0
    size = 2 if abs(reward) >= MUCH else 1 if abs(reward) >= SOME else 0
    return size if reward > 0 else -size
