"""What the stages learn from and what they report: small frozen structs without torch."""

from __future__ import annotations

from msgspec import Struct


class Target(Struct, frozen=True):
    """An answer to imitate (SFT): the loss is taken on `token_ids` only."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    weights: tuple[float, ...] = ()  # of each token in the mean loss; empty for 1 everywhere


class Comparison(Struct, frozen=True):
    """K answers to one prompt in an order: one batch element, all C(K,2) pairs of compared answers together."""

    prompt_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]  # token ids
    ranks: tuple[int | None, ...]  # 1 is best, equal is a tie, None is unmentioned: beaten by all mentioned, else not compared
    seq: int = 0
    thought: tuple[tuple[int, ...], ...] = ()  # the prompt of each answer with what was thought before it; empty where all are `prompt_ids`
    derived: bool = False  # it follows from the judgement, and is not what was said

    @property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """Of each answer."""
        return self.thought or (self.prompt_ids,) * len(self.answers)


class Scored(Struct, frozen=True):
    """One answer with a centred score, about -1 to 1 (a rating of 4 is 0)."""

    prompt_ids: tuple[int, ...]
    answer: tuple[int, ...]
    score: float
    seq: int = 0
