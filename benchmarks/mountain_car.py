"""Does credit find the action that was meant? Mountain Car at 20 steps a second, taught by an idealised trainer alone: no reward of the task is seen.

    python benchmarks/mountain_car.py [--seeds 8] [--share 0.2]

The trainer approves of pushing the way the car moves and disapproves of the rest, on a share of the steps, 0.2 to 0.8 s late. Ĥ is linear in radial
features and learns by Deep TAMER's loss, weighted by its `tap_credit`; the car does what Ĥ likes best. Prints one JSON line: for the matched
window, a wide one and none at all, in how many seeds the car drives up by itself after five episodes, and its mean return.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from statistics import fmean

from learners.feedback.tap_credit import Uniform, credit

STEP_SECONDS = 0.05
EPISODES = 5
LONGEST = 200
CENTRES = [(x / 7, v / 7) for x in range(8) for v in range(8)]
WIDTH = 0.08 * 2
RATE = 0.3
DELAY = (0.2, 0.8)
WINDOWS = {"matched": Uniform(0.2, 0.8), "wide": Uniform(0.2, 4.0), "none": Uniform(0.0, STEP_SECONDS)}


class Car:
    """Moore's Mountain Car: actions -1, 0, 1; -1 for each step, at most LONGEST."""

    def __init__(self, rng: random.Random) -> None:
        self.x, self.v = rng.uniform(-0.6, -0.4), 0.0

    def push(self, action: int) -> bool:
        """One step; whether it is at the top."""
        self.v = min(0.07, max(-0.07, self.v + 0.001 * action - 0.0025 * math.cos(3 * self.x)))
        self.x = max(-1.2, self.x + self.v)
        self.v = max(0.0, self.v) if self.x == -1.2 else self.v
        return self.x >= 0.5

    def features(self) -> list[float]:
        """Radial features, which sum to 1, and a small constant."""
        x, v = (self.x + 1.2) / 1.8, (self.v + 0.07) / 0.14
        found = [math.exp(-((x - a) ** 2 + (v - b) ** 2) / (2 * WIDTH**2)) for a, b in CENTRES]
        total = math.fsum(found)
        return [value / total for value in found] + [0.1]

    def wish(self) -> int:
        """What the trainer would do: push the way it moves."""
        return 1 if self.v >= 0 else -1


class Head:
    """One reward for each action, linear in the features."""

    def __init__(self) -> None:
        self.weights = {action: [0.0] * (len(CENTRES) + 1) for action in (-1, 0, 1)}

    def value(self, features: list[float], action: int) -> float:
        return math.fsum(w * f for w, f in zip(self.weights[action], features, strict=True))

    def best(self, features: list[float], rng: random.Random) -> int:
        values = {action: self.value(features, action) for action in self.weights}
        top = max(values.values())
        return rng.choice([action for action, value in values.items() if value == top])

    def learn(self, samples: list[tuple[list[float], int, float]], target: float) -> None:
        """One pass of weighted squared loss: (features, action, credit)."""
        for features, action, weight in samples:
            error = target - self.value(features, action)
            norm = math.fsum(f * f for f in features)
            self.weights[action] = [w + RATE * weight * error * f / norm for w, f in zip(self.weights[action], features, strict=True)]


def episode(head: Head, rng: random.Random, share: float, window: Uniform | None) -> int:
    """Steps until the top; with a window the trainer taps and Ĥ learns."""
    car, coming, clock = Car(rng), [], 0.0
    shown: list[float] = []
    steps: list[tuple[list[float], int]] = []
    for n in range(1, LONGEST + 1):
        features = car.features()
        action = head.best(features, rng)
        shown.append(clock)
        steps.append((features, action))
        if window is not None and rng.random() < share:
            heapq.heappush(coming, (clock + rng.uniform(*DELAY), 1.0 if action == car.wish() else -1.0))
        clock += STEP_SECONDS
        while window is not None and coming and coming[0][0] <= clock:
            time, value = heapq.heappop(coming)
            found = credit(time, shown, window)
            if found.usable:
                head.learn([(f, a, share_of) for (f, a), share_of in zip(steps, found.shares, strict=True) if share_of > 0], value)
        if car.push(action):
            return n
    return LONGEST


def run(seed: int, share: float, window: Uniform) -> tuple[bool, float]:
    """Whether the car, left alone after EPISODES, reaches the top from every one of 10 starts, and its mean return."""
    rng, head = random.Random(seed), Head()
    for _ in range(EPISODES):
        episode(head, rng, share, window)
    alone = [episode(head, rng, share, None) for _ in range(10)]
    return max(alone) < LONGEST, -fmean(alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.2, help="of the steps that the trainer says something about")
    options = parser.parse_args()
    found = {}
    for name, window in WINDOWS.items():
        runs = [run(seed, options.share, window) for seed in range(options.seeds)]
        found[name] = {"solved": sum(solved for solved, _ in runs), "of": len(runs), "return": round(fmean(score for _, score in runs), 1)}
    print(json.dumps({"steps_per_second": 1 / STEP_SECONDS, "share": options.share, "episodes": EPISODES, **found}))


if __name__ == "__main__":
    main()
