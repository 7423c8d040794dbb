"""Blocks of judgements: the solver against a dense one, finished blocks that are kept, and statistics that are dropped and computed again."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learners.feedback.dataset import FeedbackDataset
from learners.human_reward import fit as fit_module
from learners.human_reward.evidence import EvidenceBlocks
from learners.human_reward.features import Features, Seen, token_similarity
from learners.human_reward.fit import HumanRewardSettings
from learners.human_reward.head import RewardHead
from learners.human_reward.likelihood import Contrasts, Evidence, Level, Pairs, Solution, blocks_of, mentioned, solve
from learners.human_reward.online import OnlineHumanReward
from learners.model.chat_format import PromptError, fit_prompt
from learners.protocol import Answer, Lesson
from storage.records import Correction, Message, Ranking, Rating, Tap

WIDTH, VOCABULARY = 6, 40
PROMPT = (Message("user", "p"),)


# --- the solver ----------------------------------------------------------------------------------------------------------


def dense(evidence: Sequence[Evidence], gram: Tensor, offset: Tensor, ridge: float) -> Tensor:
    """Newton in the answers' own coordinates, with a dense H K + λ I and autograd's derivatives; answers are named by their index."""
    identity = torch.eye(len(offset), dtype=torch.float64)

    def loss(scores: Tensor) -> Tensor:
        total = scores.sum() * 0
        for item in evidence:
            if isinstance(item, Level):
                total = total + 0.5 * item.weight * (scores[int(item.uid)] - item.score) ** 2
            else:
                for a, b, target in zip(item.first, item.second, item.target, strict=True):
                    margin = scores[int(a)] - scores[int(b)]
                    total = total + item.weight * (torch.nn.functional.softplus(margin, threshold=700) - target * margin)  # exact beyond 20 too
        return total

    def objective(alpha: Tensor) -> Tensor:
        return loss(offset + gram @ alpha) + 0.5 * ridge * alpha @ gram @ alpha

    alpha = torch.zeros_like(offset)
    for _ in range(30):
        scores = offset + gram @ alpha
        gradient = torch.autograd.functional.jacobian(loss, scores)
        hessian = torch.autograd.functional.hessian(loss, scores)
        step = torch.linalg.solve(hessian @ gram + ridge * identity, hessian @ (scores - offset) - gradient) - alpha
        scale = 1.0
        while scale > 1e-3 and objective(alpha + scale * step) > objective(alpha):
            scale /= 2
        alpha = alpha + scale * step
        if float(step.abs().max()) < 1e-12:
            break
    return alpha


@given(seed=st.integers(0, 10_000), rated=st.booleans())
@settings(max_examples=6, deadline=None)
def test_the_solution_is_that_of_dense_newton(seed: int, rated: bool) -> None:
    generator, chance = torch.Generator().manual_seed(seed), random.Random(seed)
    n = 14
    factor = torch.randn(n, 20, generator=generator, dtype=torch.float64)
    gram, offset = factor @ factor.T / 10, torch.randn(n, generator=generator, dtype=torch.float64)
    evidence: list[Evidence] = [Level(str(chance.randrange(n)), chance.uniform(-1, 1), chance.random()) for _ in range(3 if rated else 0)]
    for k in (2, 2, 3, 4, 5):
        answers = [str(i) for i in chance.sample(range(n), k)]
        evidence.append(Pairs.of_ranks({uid: chance.randint(1, 3) for uid in answers[:-1]}, answers[-1:]))
    chance.shuffle(evidence)
    found = solve(Contrasts.of(evidence, {str(i): i for i in range(n)}), gram, offset, 1e-3).coefficients(n)
    torch.testing.assert_close(gram @ found, gram @ dense(evidence, gram, offset, 1e-3), atol=1e-9, rtol=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_where_the_prior_foresaw_the_opposite_the_solution_is_stationary(seed: int) -> None:
    """λ α = -∂(negative log-likelihood)/∂f, by autograd, from scores that are off by dozens of nats."""
    generator, chance, n = torch.Generator().manual_seed(seed), random.Random(seed), 24
    factor = torch.randn(n, 30, generator=generator, dtype=torch.float64)
    gram, offset = factor @ factor.T / 10, 30 * torch.randn(n, generator=generator, dtype=torch.float64)
    evidence = [Pairs.of_ranks({str(i): chance.randint(1, 4) for i in range(k, k + 4)}) for k in range(0, n, 4)]
    alpha = solve(Contrasts.of(evidence, {str(i): i for i in range(n)}), gram, offset, 1e-3).coefficients(n)
    scores = (offset + gram @ alpha).requires_grad_()
    loss = scores.sum() * 0
    for item in evidence:
        for a, b, target in zip(item.first, item.second, item.target, strict=True):
            loss = loss - item.weight * (
                target * (scores[int(a)] - scores[int(b)]).sigmoid().log() + (1 - target) * (scores[int(b)] - scores[int(a)]).sigmoid().log()
            )
    (slope,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(1e-3 * alpha, -slope, atol=1e-8, rtol=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_scores_without_a_judgement_are_those_of_a_newton_step_from_where_it_was(seed: int) -> None:
    """The step by autograd, in the space of scores, on all other judgements and the prior."""
    generator, chance, n, ridge = torch.Generator().manual_seed(seed), random.Random(seed), 12, 0.3
    factor = torch.randn(n, 20, generator=generator, dtype=torch.float64)
    gram, offset = factor @ factor.T / 10, torch.randn(n, generator=generator, dtype=torch.float64)
    evidence: list[Evidence] = [Pairs.of_ranks({str(i): chance.randint(1, 9) for i in range(k, k + 4)}) for k in (0, 4)]
    evidence += [Level(str(i), chance.uniform(-1, 1), chance.uniform(0.5, 1)) for i in range(8, n)]
    index = {str(i): i for i in range(n)}
    solution = solve(Contrasts.of(evidence, index), gram, offset, ridge)
    scores, found, precision = offset + gram @ solution.coefficients(n), solution.left_out(), torch.linalg.inv(gram)

    def objective(f: Tensor, without: Evidence) -> Tensor:
        total = 0.5 * ridge * (f - offset) @ precision @ (f - offset)
        for item in evidence:
            if item is without:
                continue
            if isinstance(item, Level):
                total = total + 0.5 * item.weight * (f[int(item.uid)] - item.score) ** 2
            else:
                for a, b, target in zip(item.first, item.second, item.target, strict=True):
                    margin = f[int(a)] - f[int(b)]
                    total = total + item.weight * (torch.nn.functional.softplus(margin) - target * margin)
        return total

    for item in evidence:
        slope = torch.autograd.functional.jacobian(lambda f, item=item: objective(f, item), scores)
        curvature = torch.autograd.functional.hessian(lambda f, item=item: objective(f, item), scores)
        wanted = solution.contrasts.of_scores(scores - torch.linalg.solve(curvature, slope))
        mine = {int(uid) for uid in mentioned(item)}
        coordinates = torch.tensor([int(answer) in mine for answer in solution.contrasts.answer])
        torch.testing.assert_close(found[coordinates], wanted[coordinates], atol=1e-6, rtol=1e-6)


def test_ratings_are_foreseen_as_a_fit_without_them_does() -> None:
    generator, n = torch.Generator().manual_seed(0), 6
    factor = torch.randn(n, 9, generator=generator, dtype=torch.float64)
    gram, index = factor @ factor.T / 9, {str(i): i for i in range(n)}
    ratings = [Level(str(i), score, 0.7) for i, score in enumerate((0.3, -1.0, 0.6, 1.0, -0.2, 0.0))]
    found = solve(Contrasts.of(ratings, index), gram, torch.zeros(n, dtype=torch.float64), 0.1)
    for i, score in zip(found.contrasts.answer.tolist(), found.left_out().tolist(), strict=True):
        without = solve(Contrasts.of(ratings[:i] + ratings[i + 1 :], index), gram, torch.zeros(n, dtype=torch.float64), 0.1)
        assert score == pytest.approx(float(gram[i] @ without.coefficients(n)), abs=1e-9)


def test_blocks_are_as_long_as_the_window_lets_them_be() -> None:
    assert blocks_of([], 4) == [0]
    assert blocks_of([{"a", "b"}, {"b", "c"}, {"d"}, {"e"}, {"f", "g", "h", "i", "j"}, {"a"}], 4) == [0, 3, 4, 5]


# --- the online learner, over a model that is a table -------------------------------------------------------------------------


class Base:
    """A base whose states depend on the prompt, the answer and the answers computed with it; counts forwards."""

    def __init__(self) -> None:
        self.forwards = 0

    def states_before(self, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]]) -> list[Seen]:
        assert list(answers) == sorted({tuple(ids) for ids in answers}), "canonical order"
        self.forwards += 1
        found = []
        for ids in answers:
            generator = torch.Generator().manual_seed(hash((tuple(prompt_ids), tuple(ids), len(answers))) % 2**31)
            logits = 2 * torch.randn(len(ids), VOCABULARY, generator=generator)
            found.append(Seen.of(torch.randn(len(ids), WIDTH, generator=generator), logits))
        return found


def refusing(messages: Sequence[Message], room: int) -> tuple[list[int], int]:
    if messages[-1].content == "refused":
        raise PromptError("the template takes no such conversation")
    return fit_prompt([1, 2, 3], room, 0)


def online(base: Base, window: int = 8) -> OnlineHumanReward:
    generator = torch.Generator().manual_seed(0)
    dataset = FeedbackDataset(refusing, lambda messages, text: [ord(c) % VOCABULARY for c in text], lambda ids: [" x" for _ in ids], frozenset(), 30)
    similarity = token_similarity(torch.randn(VOCABULARY, WIDTH, generator=generator))
    features = Features.fit(torch.randn(50, WIDTH, generator=generator))
    return OnlineHumanReward(dataset, features, base.states_before, similarity, HumanRewardSettings(window=window))


def answers(seq: int, k: int = 3) -> tuple[Answer, ...]:
    chance = random.Random(seq)
    ids = [tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 6))) for _ in range(k)]
    return tuple(Answer(uid=f"{seq}/{i}", messages=PROMPT, text="", prompt_ids=(1, seq), token_ids=each) for i, each in enumerate(ids))


def lesson(seq: int) -> Lesson:
    """Rankings, ratings with the rest of their set, corrections and taps by turns."""
    drawn = answers(seq)
    one, beside = drawn[:1], drawn[1:]
    match seq % 4:
        case 0:
            return Lesson(seq=seq, judgement=Rating("s", drawn[0].uid, 1 + seq % 7), answers=one, beside=beside)
        case 1:
            return Lesson(seq=seq, judgement=Correction("s", drawn[0].uid, "other"), answers=one, beside=beside)
        case 2:
            shown = tuple(i / 3 for i in range(len(drawn[0].token_ids)))
            return Lesson(seq=seq, judgement=Tap("s", drawn[0].uid, 1.0, "+", shown[-1] + 0.5), answers=one, shown=shown)
        case _:
            return Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(drawn)}), answers=drawn)


def same(a: RewardHead, b: RewardHead) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.weights, b.weights) and a.sureness == b.sureness


def settled(live: OnlineHumanReward) -> RewardHead:
    while live.advance():
        pass
    return live.fit()


@given(history=st.lists(st.tuples(st.booleans(), st.integers(1, 16)), max_size=16), seed=st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_whatever_was_judged_undone_and_redone_the_head_is_that_of_a_restart(history: list[tuple[bool, int]], seed: int) -> None:
    """Also where undone judgements lie in blocks whose statistics are gone; those that wait are looked at again."""
    live, alive = online(Base()), set[int]()
    chance = random.Random(seed)
    for judged, seq in [(True, seq) for seq in range(1, 13)] + history:
        if judged:
            live.learn(lesson(seq))
        else:
            live.retract(seq)
        alive = alive | {seq} if judged else alive - {seq}
        if chance.random() < 0.3:
            live.advance()
    restarted = online(Base())
    restarted.replay([lesson(seq) for seq in sorted(alive)])
    assert same(settled(live), settled(restarted))


def test_a_log_of_which_a_sample_was_learned_first_ends_at_the_head_of_a_restart() -> None:
    seqs, chance = list(range(1, 36)), random.Random(3)
    sample = chance.sample(seqs, 12)
    rest = [seq for seq in seqs if seq not in sample]
    live, whole = online(Base()), online(Base())
    live.replay([lesson(seq) for seq in sample], first=True)
    for _ in range(6):
        live.advance()
    early = live.fit()
    assert not set(sample[:6]) & live._waiting and live.waiting, "the sample's own order"
    for start in range(0, len(rest), 10):
        live.replay([lesson(seq) for seq in rest[start : start + 10]])
        for _ in range(4):
            live.advance()
        live.fit()
    whole.replay([lesson(seq) for seq in seqs])
    assert same(settled(live), settled(whole)) and not same(early, live.head)


def test_a_finished_block_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[int] = []

    def counted(contrasts: Contrasts, *rest: object, **named: object) -> Solution:
        solved.append(sum(judgements for judgements, _ in contrasts.shapes))
        return solve(contrasts, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_module, "solve", counted)
    of_one = 2 + 2 + fit_module.EM_STEPS  # of advantages and of rewards, at both variances of the constant; and where it doubts
    live = online(Base())
    for seq in range(3, 60, 4):  # rankings of three, two to a block
        solved.clear()
        live.learn(lesson(seq))
        assert len(solved) == of_one and len({*solved}) == 1 and solved[0] <= 2
    for seq in range(0, 60, 4):  # ratings move the mean of all ratings
        solved.clear()
        live.learn(lesson(400 + seq))
        assert len(solved) <= of_one and len({*solved}) == 1


def test_a_finished_block_that_is_the_newest_again_after_an_undo_has_the_head_of_a_restart_bit_by_bit() -> None:
    live, probe = online(Base()), torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    for seq in (3, 7, 11):  # two to a block
        live.learn(lesson(seq))
    undone, fresh = live.retract(11).head, online(Base())
    fresh.replay([lesson(seq) for seq in (3, 7)])
    restarted = settled(fresh)
    assert same(undone, restarted) and torch.equal(undone.rewards(probe), restarted.rewards(probe))


def test_what_is_kept_of_answers_does_not_grow_with_the_log() -> None:
    live, most = online(Base(), window=12), 0
    for seq in range(1, 90):
        live.learn(lesson(seq))
        most = max(most, len(live._human_reward))
    assert most <= 3 * 12
    assert sum(each.head is not None for each in live._human_reward._of_rewards._solved) <= 3


def test_a_rating_does_not_move_what_was_said_in_finished_blocks() -> None:
    live = online(Base())
    blocks = EvidenceBlocks(4)
    for seq in range(0, 32, 4):
        live.learn(lesson(seq))
    before = blocks.of(live.lessons)
    live.learn(Lesson(seq=100, judgement=Rating("s", "100/0", 7), answers=answers(100)[:1]))
    after = blocks.of(live.lessons)
    assert len(before) == 2 and after[:2] == before and EvidenceBlocks(4).of(live.lessons) == after
    mean = (2 * 4 + sum(1 + seq % 7 for seq in range(0, 16, 4))) / 6
    assert [item.score for item in after[0].evidence if isinstance(item, Level)] == [(1 + seq % 7 - mean) / 3 for seq in range(0, 16, 4)]


def test_a_set_that_was_prepared_takes_no_forward_when_it_is_judged() -> None:
    base = Base()
    live = online(base)
    drawn = answers(7)
    live.prepare(drawn[0].prompt_ids, [a.token_ids for a in reversed(drawn)])
    assert base.forwards == 1
    prepared = live.learn(lesson(7)).head
    assert base.forwards == 1
    assert same(prepared, online(Base()).learn(lesson(7)).head)
    for seq in (8, 12, 16):
        live.learn(lesson(seq))
    assert base.forwards == 4


def test_prepared_sets_are_forgotten_when_there_are_too_many() -> None:
    live = online(Base())
    for seq in range(200):
        live.prepare((1, seq), [a.token_ids for a in answers(seq)])
    assert sum(len(some) for some in live._states._kept.values()) <= 64


def test_judgements_of_the_log_wait_until_they_are_looked_at_one_by_one() -> None:
    base = Base()
    live = online(base)
    live.replay([lesson(seq) for seq in (3, 7, 11)])
    assert base.forwards == 0 and live.waiting == 3 and live.fit().blank
    assert (live.count(Ranking), live.count(Rating)) == (0, 0), "of what waits nothing is known"
    assert live.advance() and base.forwards == 1 and live.waiting == 2
    assert live.count(Ranking) == 1
    assert same(live.fit(), online(Base()).learn(lesson(3)).head)
    live.retract(7)
    assert live.waiting == 1 and live.advance() and not live.advance()


def test_an_undo_in_an_old_block_leaves_no_trace_at_once_and_what_it_takes_waits() -> None:
    base = Base()
    live = online(base)
    for seq in range(3, 60, 4):
        live.learn(lesson(seq))
    before = base.forwards
    live.retract(7)
    assert base.forwards == before and live.waiting > 0
    kept = [lesson for lesson in live.lessons.lessons if all(s.name in live._human_reward for s in live.lessons.read[lesson.seq])]
    fresh = online(Base())
    fresh.replay(kept)
    assert live.head.tokens.tolist() == settled(fresh).tokens.tolist()
    settled(live)
    assert live.waiting == 0


def test_what_cannot_be_used_is_refused_with_a_reason_and_left_out() -> None:
    live = online(Base())
    good = live.learn(lesson(3)).head
    strange = Answer(uid="x", messages=(Message("user", "refused"),), text="hello")
    long = Answer(uid="y", messages=PROMPT, text="", prompt_ids=(1,), token_ids=tuple(range(30)))
    empty = Answer(uid="z", messages=PROMPT, text="", prompt_ids=(1,))
    reasons = [
        live.learn(Lesson(seq=10 + i, judgement=Rating("s", answer.uid, 7), answers=(answer,))).dropped
        for i, answer in enumerate((strange, long, empty))
    ]
    assert "template" in reasons[0] and "longer" in reasons[1] and "words" in reasons[2]
    ranked = Lesson(seq=20, judgement=Ranking("s", {"3/0": 1, "y": 2}), answers=(answers(3)[0], long))
    assert "longer" in live.learn(ranked).dropped
    assert dict(live.refused).keys() == {10, 11, 12, 20} and live.lessons.seqs == (3,)
    assert same(live.fit(), good)
    live.retract(10)
    assert dict(live.refused).keys() == {11, 12, 20}


def test_a_written_answer_that_is_longer_than_the_original_leaves_less_room_to_the_prompt() -> None:
    live = online(Base())
    original = Answer(uid="o", messages=PROMPT, text="", prompt_ids=tuple(range(100, 120)), token_ids=(1, 2, 3))
    live.learn(Lesson(seq=1, judgement=Correction("s", "o", "x" * 25), answers=(original,)))
    written = live.lessons.samples["written:1"]
    assert written.prompt_ids == (100, 116, 117, 118, 119) and len(written.prompt_ids) + len(written.token_ids) == 30
    live.learn(Lesson(seq=2, judgement=Correction("s", "o", "x" * 30), answers=(original,)))
    assert "longer" in live.refused[2]
