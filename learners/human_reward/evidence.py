"""What the live judgements say about scores: evidence for the fit, in blocks whose evidence does not depend on what was judged after them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from learners.feedback.samples import original_name, written_name
from learners.feedback.snapshot import Feedback
from learners.human_reward.fit import Block
from learners.human_reward.likelihood import Evidence, Level, Pairs, blocks_of
from learners.protocol import Lesson
from storage.records import Arm, Correction, Ranking, Tap

TAP_REWARD = 10.0
"""What a tap of 1 says a token is worth, on Ĥ's scale: one tap moves its words about as far as one ranking does."""
TAP_WEIGHT = 0.003
"""Of a tap's squared error beside one comparison, for the whole of its credit; chosen on simulated taps (benchmarks/taps.py)."""
SILENCE_WEIGHT = 0.1 * TAP_WEIGHT
"""Of one word that passed untapped while silence counted: there are many of them to a tap."""


def evidence_of(feedback: Feedback, start: int = 0) -> list[Evidence]:
    """Rankings and corrections as pairs, ratings as centred levels, taps and silence as a level for each word, in the order of the log; after each
    the pairs that follow from it.

    Of the judgements from `start` on; what those before it say of means and of credit counts.
    """
    levels = {seq: Level(name, score) for seq, name, score in feedback.levels()}
    found: list[Evidence] = []
    for lesson in feedback.lessons[start:]:
        if isinstance(tap := lesson.judgement, Tap):
            found += [Level(sample.name, TAP_REWARD * tap.value * trust, TAP_WEIGHT * share) for sample, share, trust in feedback.tapped(lesson)]
        elif isinstance(lesson.judgement, Arm):
            found += [Level(sample.name, 0.0, SILENCE_WEIGHT) for sample in feedback.silent(lesson)]
        else:
            items = (pairs_of(lesson, feedback) or levels.get(lesson.seq), derived_pairs_of(lesson, feedback))
            found += [item for item in items if item is not None]
    return found


def derived_pairs_of(lesson: Lesson, feedback: Feedback) -> Pairs | None:
    """What follows from a judgement besides: its best answer, or what was written, beats earlier ones. All together one comparison."""
    best, over = feedback.surpassed(lesson)
    first, second = [a for a in best for _ in over], over * len(best)
    return Pairs(tuple(first), tuple(second), (1.0,) * len(first), worth=1.0, sure=True) if first else None


def pairs_of(lesson: Lesson, feedback: Feedback) -> Pairs | None:
    """The comparisons of a ranking or a correction."""
    judgement = lesson.judgement
    if isinstance(judgement, Ranking):
        known = [answer.uid for answer in lesson.answers if answer.uid in feedback.samples]
        ranks = {uid: judgement.ranks[uid] for uid in known if uid in judgement.ranks}
        pairs = Pairs.of_ranks(ranks, [uid for uid in known if uid not in ranks])
        return pairs if pairs.first else None
    if isinstance(judgement, Correction) and original_name(lesson.seq) in feedback.samples:
        return replace(Pairs.of_ranks({written_name(lesson.seq): 1, original_name(lesson.seq): 2}), sure=True)
    return None


class EvidenceBlocks:
    """Cuts the live judgements into blocks of at most `window` answers.

    A finished block's evidence is taken as if nothing had come after it (ratings' means, the credit of taps, the words that silence is about): it is
    made once.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._made: list[tuple[tuple[Lesson, ...], Block]] = []  # finished blocks, from the first on

    def of(self, feedback: Feedback) -> list[Block]:
        """All blocks, the newest last; their groups are the samples of each judgement, also those that its evidence does not mention."""
        groups = [tuple(sample.name for sample in feedback.read[lesson.seq]) for lesson in feedback.lessons]
        starts = blocks_of(groups, self._window)
        found: list[Block] = []
        for i, (start, stop) in enumerate(pairwise([*starts, len(groups)])):
            lessons = feedback.lessons[start:stop]
            if i < len(self._made) and self._made[i][0] == lessons:
                found.append(self._made[i][1])
                continue
            del self._made[i:]
            known = feedback if stop == len(groups) else feedback.until(stop)
            found.append(Block(tuple(groups[start:stop]), tuple(evidence_of(known, start))))
            if stop < len(groups):
                self._made.append((lessons, found[-1]))
        return found
