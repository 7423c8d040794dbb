"""What is learned from, in tokens: answers as evidence, and their names; targets, comparisons and scores. Small and frozen, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct


@dataclass(frozen=True)
class Sample:
    """A judged or written answer in tokens. `span`: only these are judged, [start, stop): what a correction changed, or a word."""

    name: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    span: tuple[int, int] | None = None
    thought: int = 0  # tokens at the end of `prompt_ids` that were thought, not asked
    word: bool = False  # `span` is a word, of a tap or of silence
    batch: tuple[tuple[int, ...], ...] = field(default=(), repr=False)  # answers to the prompt whose states are computed with its own, sorted

    @property
    def asked(self) -> tuple[int, ...]:
        """The prompt without what was thought."""
        return self.prompt_ids[: max(0, len(self.prompt_ids) - self.thought)]


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


def written_name(seq: int) -> str:
    """Name of the answer that the operator wrote in judgement `seq`."""
    return f"written:{seq}"


def original_name(seq: int) -> str:
    """Name of the rewritten answer as evidence: only the span that the correction changed."""
    return f"original:{seq}"


def whole_name(seq: int) -> str:
    """Name of all that the operator wrote in judgement `seq`, as evidence that it beats the model's own answers."""
    return f"whole:{seq}"


def over_name(seq: int, uid: str) -> str:
    """Name of an answer as evidence: what judgement `seq` puts at its best beats it too."""
    return f"over:{seq}:{uid}"


def tap_name(seq: int, position: int) -> str:
    """Name of a word as evidence: what tap `seq` says of the one that begins at `position`."""
    return f"tap:{seq}@{position}"


def silence_name(seq: int, position: int) -> str:
    """Name of a word as evidence: that stretch `seq` passed without a tap about the one that begins at `position`."""
    return f"silence:{seq}@{position}"
