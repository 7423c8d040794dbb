"""How often an operator slips: says the opposite of what they mean.

Two ways to tell. From the same comparison judged twice: where each judgement is wrong with probability ε, two agree with a = ε² + (1 - ε)²,
whatever the question. And from what a learner foresaw: the margin m of a ranking, before it was learned from, is a stimulus, and the share of
rankings that go its way a psychometric function with a lapse rate,

    P(the operator's order | m) = ε + (1 - 2ε) · sigmoid(s · m)

(Wichmann and Hill 2001, with one lapse rate for both sides). ε and the scale s are fitted together; ε has an interval, by its profile likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt

from storage.verdict import Rate

RATES = tuple(i / 50 for i in range(26))
SCALES = tuple(0.1 * 1.8**i for i in range(12))
"""In units of one over the margins' size: from nearly flat to a step."""
LEAST = 1e-9
CHI2_95 = 3.841458820694124
"""95 % quantile of the chi-square distribution with one degree of freedom."""
FEWEST = 20
"""Rankings that were foreseen, before anything is said."""
LATEST = 400


def slips_of_agreement(agree: float) -> float:
    """ε in [0, 0.5] at which two judgements of one question agree so often; 0.5 where they agree no oftener than coins."""
    return (1 - sqrt(max(0.0, 2 * agree - 1))) / 2


def lapse_rate(margins: Sequence[float]) -> Rate | None:
    """ε of the latest rankings, from the margins that were foreseen, the preferred answer's score first. None for fewer than FEWEST."""
    found = [m for m in margins[-LATEST:] if m == m]
    size = sqrt(sum(m * m for m in found) / len(found)) if found else 0.0
    if len(found) < FEWEST or not size:
        return None
    likely = [[_sigmoid(scale * m / size) for m in found] for scale in SCALES]
    profile = [max(_log_likelihood(rate, column) for column in likely) for rate in RATES]
    best = max(profile)
    inside = [rate for rate, value in zip(RATES, profile, strict=True) if 2 * (best - value) <= CHI2_95]
    return Rate(RATES[profile.index(best)], inside[0], inside[-1], len(found))


def _log_likelihood(rate: float, likely: Sequence[float]) -> float:
    return sum(log(max(LEAST, rate + (1 - 2 * rate) * p)) for p in likely)


def _sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))
