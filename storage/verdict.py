"""What the blind sets prove, as a statistician would have it: a win rate at equal length, strengths of all versions on one scale, and a word
("better", "worse") that may be looked at after every judgement without becoming true by chance.

Everything is computed from the log when it is asked for; nothing here is kept.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import exp, lgamma, log, sqrt, tanh

from msgspec import Struct

from storage.blind import DUELLED, OUTCOME, Z95
from storage.records import BASE_VERSION
from storage.thoughts import count_what_is_said

SURE = 20.0
"""Odds at which a word is said: by Ville's inequality a sitting at chance is ever told "better" with probability 1/20 or less, and "worse" likewise;
one of the two, then, with 1/10 or less (exactly: 0.034 each and 0.068 within 400 votes)."""
PRIOR_SPREAD = 2.5
"""Standard deviation of the coefficients before any data, in log-odds (Gelman et al. 2008 take the same scale): keeps the fit finite where every
answer won."""
SHAPES = (0.03, 0.3, 1.0, 3.0)
"""What a difference in length may do, from a step (the longer one is liked) to nearly a line: the size at which its effect bends, in the differences'
root mean square."""


class Rate(Struct, frozen=True):
    """A win rate in [0, 1] with its 95 % interval."""

    rate: float
    low: float
    high: float
    n: int

    def in_words(self) -> str:
        """'61 % (48-73 %)'."""
        return f"{100 * self.rate:.0f} % ({100 * self.low:.0f}-{100 * self.high:.0f} %)"


class Strength(Struct, frozen=True):
    """Bradley-Terry strength in log-odds of whoever wrote answers; the base has 0. 95 % interval."""

    version: str  # 'base', a version as it acted, or either with more in brackets: see `comparisons`
    strength: float
    low: float
    high: float
    n: int  # comparisons


class Verdict(Struct, frozen=True):
    """What can be said of the acting policy against the base."""

    word: str  # 'better', 'worse', or '' while neither is proven
    odds: float  # for what the word says, or for the likelier of both; a word needs 20
    flips: int | None  # so many other votes and the word would not stand; None without a word
    at_equal_length: Rate | None  # None before anything was counted
    strengths: tuple[Strength, ...]  # of all that were compared blind, strongest first, the base among them


class Vote(Struct, frozen=True):
    """One blind comparison of two answers."""

    version: str
    outcome: float  # 1 the version's answer won, 0.5 tied, 0 lost
    longer: int = 0  # characters, the version's answer less the other
    against: str = BASE_VERSION


def votes(connection: sqlite3.Connection) -> list[Vote]:
    """Of the acting policy in all counted sets, oldest first."""
    count_what_is_said(connection)
    rows = connection.execute("""
        SELECT o.version, o.outcome, said_length(a.content) - said_length(b.content)
        FROM blind_outcomes o JOIN sample_sets s ON s.id = o.set_id
        JOIN responses ra ON ra.uid = s.blind_acting JOIN nodes a ON a.id = ra.node_id
        JOIN responses rb ON rb.uid = s.blind_base JOIN nodes b ON b.id = rb.node_id
        WHERE o.policy = 'acting' ORDER BY o.seq""")
    return [Vote(*row) for row in rows]


_WROTE = """CASE {r}.policy WHEN 'base' THEN 'base' WHEN 'adapter' THEN {r}.version || ' (adapter alone)' ELSE {r}.version || coalesce(
    (SELECT ' (best of ' || c.drawn || ')' FROM selections c WHERE c.set_id = {r}.set_id), iif({r}.version = 'base', ' (steered)', '')) END"""
"""Who wrote an answer `r`."""


def comparisons(connection: sqlite3.Connection) -> list[Vote]:
    """All that was compared blind, in counted sets and in duels, by who wrote the two answers. A version as it acted, steered by Ĥ and words, is one,
    'v2'; its adapter alone is another, 'v2 (adapter alone)', and so is what was chosen from several, 'v2 (best of 16)'. Before there was a version
    it was 'base (steered)'; 'base' is the untouched model."""
    one, other = (_WROTE.format(r=each) for each in "ab")
    counted = f"""SELECT o.seq, {one}, o.outcome, {other} FROM blind_outcomes o JOIN sample_sets s ON s.id = o.set_id
        JOIN responses a ON a.uid = s.blind_acting JOIN responses b ON b.uid = s.blind_base"""
    duelled = f"SELECT e.seq, {one}, {OUTCOME}, {other} {DUELLED} AND a.slot < b.slot"
    rows = connection.execute(f"{counted} UNION ALL {duelled} ORDER BY 1")
    return [Vote(one, outcome, against=other) for _, one, outcome, other in rows]


def verdict(found: Sequence[Vote], compared: Sequence[Vote] | None = None) -> Verdict:
    """Of the acting policy, whichever version it was, against the base. `compared`: all comparisons, for the strengths; None where there are no
    more."""
    wins, losses = (sum(vote.outcome == value for vote in found) for value in (1.0, 0.0))
    word, odds = proven(wins, losses)
    flips = flips_needed(max(wins, losses), min(wins, losses)) if word else None
    return Verdict(word, round(odds, 3), flips, rate_at_equal_length(found), strengths(found if compared is None else compared))


# --- a word that may be looked at at any time ------------------------------------------------------------------------------------


def proven(wins: int, losses: int) -> tuple[str, float]:
    """'better', 'worse' or '', and the odds: for what the word says, or for the likelier of both."""
    better, worse = odds_of_better(wins, losses), odds_of_better(losses, wins)
    return "better" if better >= SURE else "worse" if worse >= SURE else "", max(better, worse)


@lru_cache(maxsize=64)
def odds_of_better(wins: int, losses: int) -> float:
    """How many times likelier the votes are if the policy wins with some probability above 1/2, all alike, than if it wins with 1/2.

    E-value of a one-sided binomial test with a uniform mixture (Robbins 1970; Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic
    confidence sequences"): a supermartingale at chance, so it may be looked at after every vote. Ties say nothing and are left out.
    """
    n = wins + losses
    log_beta = lgamma(wins + 1) + lgamma(losses + 1) - lgamma(n + 2)
    # 2^(n + 1) times the probability that Beta(wins + 1, losses + 1) is above 1/2: a sum of binomial coefficients
    upper_half = coefficient = 1
    for i in range(wins):
        coefficient = coefficient * (n + 1 - i) // (i + 1)
        upper_half += coefficient
    return exp(min(700.0, log_beta + log(upper_half)))  # the powers of 2 cancel


def flips_needed(wins: int, losses: int) -> int:
    """The fewest wins that would have to be losses for `wins` against `losses` not to be proven."""
    return bisect_left(range(wins), True, key=lambda flips: odds_of_better(wins - flips, losses + flips) < SURE)


# --- what length explains, and one scale for all versions -----------------------------------------------------------------------------


def rate_at_equal_length(found: Sequence[Vote]) -> Rate | None:
    """The win rate that is left when both answers are equally long: logistic regression on tanh(difference / size), read off at 0.

    Dubois et al. 2024 (length-controlled AlpacaEval), without their terms for single prompts, of which each is asked once here. What differs: their
    size is the differences' standard one, and what an operator makes of length is then part of the rate wherever it has another shape, above all
    where nearly all answers of a policy are longer. So all of SHAPES are fitted; the interval covers what each says that the votes do not refute.
    """
    if not found:
        return None
    size = sqrt(sum(vote.longer**2 for vote in found) / len(found)) or 1.0
    outcomes = [vote.outcome for vote in found]
    fits = [_logistic([(1.0, tanh(vote.longer / (shape * size))) for vote in found], outcomes) for shape in SHAPES]
    best = max(fits, key=lambda fit: fit.log_posterior)
    kept = [fit.interval(0) for fit in fits if 2 * (best.log_posterior - fit.log_posterior) <= Z95**2]
    ends = best.mean[0], min(low for _, low, _ in kept), max(high for *_, high in kept)
    rate, low, high = (round(_sigmoid(end), 4) for end in ends)
    return Rate(rate, low, high, len(found))


def strengths(found: Sequence[Vote]) -> tuple[Strength, ...]:
    """Of the base and all others that were compared, from whatever was compared with what (Bradley and Terry 1952; a tie is half a win)."""
    found = [vote for vote in found if vote.version != vote.against]
    played = Counter(name for vote in found for name in (vote.version, vote.against))
    versions = [name for name in played if name != BASE_VERSION]
    if not versions:
        return ()
    rows = Counter((vote.version, vote.against, vote.outcome) for vote in found)
    design = [[float(name == version) - float(name == against) for name in versions] for version, against, _ in rows]
    fit = _logistic(design, [outcome for *_, outcome in rows], list(rows.values()))
    of_versions = [Strength(name, *_rounded(fit.interval(i)), played[name]) for i, name in enumerate(versions)]
    base = [Strength(BASE_VERSION, 0.0, 0.0, 0.0, played[BASE_VERSION])] if BASE_VERSION in played else []
    return tuple(sorted([*of_versions, *base], key=lambda each: -each.strength))


class _Fit(Struct, frozen=True):
    mean: list[float]
    covariance: list[list[float]]  # inverse Hessian at the mode
    log_posterior: float  # there, but for a constant

    def interval(self, i: int) -> tuple[float, float, float]:
        """A coefficient and its 95 % interval."""
        mean, spread = self.mean[i], Z95 * sqrt(self.covariance[i][i])
        return mean, mean - spread, mean + spread


def _logistic(rows: Sequence[Sequence[float]], outcomes: Sequence[float], counts: Sequence[int] | None = None) -> _Fit:
    """Mode and curvature of a logistic regression with a normal prior of PRIOR_SPREAD on each coefficient, by Newton's method.

    rows: n x m, outcomes in [0, 1], counts: how often each row was seen. The objective is strictly concave, and each step is halved until it rises.
    """
    m = len(rows[0])
    weights = counts or [1] * len(rows)

    def objective(mean: Sequence[float]) -> float:
        likely = 0.0
        for row, y, count in zip(rows, outcomes, weights, strict=True):
            z = _dot(row, mean)
            likely += count * (y * z - max(z, 0.0) - log(1 + exp(-abs(z))))
        return likely - _dot(mean, mean) / (2 * PRIOR_SPREAD**2)

    mean = [0.0] * m
    for _ in range(100):
        gradient = [-value / PRIOR_SPREAD**2 for value in mean]
        hessian = [[float(i == j) / PRIOR_SPREAD**2 for j in range(m)] for i in range(m)]
        for row, y, count in zip(rows, outcomes, weights, strict=True):
            p = _sigmoid(_dot(row, mean))
            there = [i for i, value in enumerate(row) if value]  # two of many players
            for i in there:
                gradient[i] += count * (y - p) * row[i]
                for j in there:
                    hessian[i][j] += count * p * (1 - p) * row[i] * row[j]
        covariance = _inverse(hessian)
        step = [_dot(line, gradient) for line in covariance]
        if max(map(abs, step)) < 1e-9:
            break
        now, scale = objective(mean), 1.0
        while scale > 1e-6 and objective([a + scale * b for a, b in zip(mean, step, strict=True)]) < now:
            scale /= 2
        if scale <= 1e-6:  # it is as high as numbers tell
            break
        mean = [a + scale * b for a, b in zip(mean, step, strict=True)]
    return _Fit(mean, covariance, objective(mean))


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Of a positive definite matrix, by elimination, which needs no pivots."""
    m = len(matrix)
    lines = [[*line, *(float(i == j) for j in range(m))] for i, line in enumerate(matrix)]
    for i in range(m):
        lines[i] = [value / lines[i][i] for value in lines[i]]
        for j in range(m):
            if j != i and lines[j][i]:
                lines[j] = [a - lines[j][i] * b for a, b in zip(lines[j], lines[i], strict=True)]
    return [line[m:] for line in lines]


def _rounded(interval: tuple[float, float, float]) -> tuple[float, float, float]:
    mean, low, high = interval
    return round(mean, 3), round(low, 3), round(high, 3)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))
