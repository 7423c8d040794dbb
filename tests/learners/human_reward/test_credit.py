"""Where the fit begins: the three linear problems against loops and least squares, and that nothing but the judgements counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learners.human_reward import credit
from learners.human_reward.credit import Answer, Credit, CreditSettings, advantages, mark, ridge_by_token
from learners.human_reward.features import Features, Seen
from learners.human_reward.fit import Block, HumanReward
from learners.human_reward.gram import LinearFunctional
from learners.human_reward.head import RewardHead, sureness_advantage
from learners.human_reward.likelihood import Evidence, Level, Pairs

WIDTH, VOCABULARY = 5, 9


def features() -> Features:
    return Features.fit(torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(0)))


def credited(settings: CreditSettings | None = None) -> HumanReward:
    return HumanReward(features(), None, None, Credit(HumanReward(features()), settings))


def answer(seed: int, length: int) -> tuple[list[int], Seen]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
    return ids, Seen.of(torch.randn(length, WIDTH, generator=generator), torch.randn(length, VOCABULARY, generator=generator))


def judged(human_reward: HumanReward, rankings: int) -> list[Evidence]:
    """Rankings of three answers, each known to it."""
    for i in range(rankings):
        for j in range(3):
            if f"{i}/{j}" not in human_reward:
                human_reward.add_answer(f"{i}/{j}", *answer(10 * i + j, 6 + (i + j) % 5))
    return [Pairs.of_ranks({f"{i}/{j}": (i + j) % 3 for j in range(3)}) for i in range(rankings)]


def least_squares(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """argmin |x w - y|² + ridge |w|², as least squares with a row more for each weight."""
    more = torch.cat([x.double(), ridge**0.5 * torch.eye(x.shape[1], dtype=torch.float64)])
    return torch.linalg.lstsq(more, torch.cat([y.double(), torch.zeros(x.shape[1], dtype=torch.float64)])[:, None]).solution[:, 0]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_each_tokens_row_is_the_ridge_regression_over_its_positions_alone(ids: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    states, targets, of = torch.randn(len(ids), 4, generator=generator), torch.randn(len(ids), generator=generator), torch.tensor(ids)
    tokens, rows = ridge_by_token(states, of, targets, 0.7)
    assert tokens.tolist() == sorted(set(ids))
    for token, row in zip(tokens, rows, strict=True):
        expected = least_squares(states[of == token], targets[of == token], 0.7)
        assert torch.allclose(row.double(), expected, atol=1e-4)


def test_advantages_are_what_rewards_and_the_value_of_states_say_step_by_step() -> None:
    constants = CreditSettings(discount=0.8, trace=0.5, value_ridge=0.3, ridge=0.6, unfinished=3)
    generator, shape = torch.Generator().manual_seed(1), (VOCABULARY, WIDTH + 1)
    head, prior = (RewardHead(1, torch.arange(VOCABULARY), torch.randn(shape, generator=generator), features(), 0.7) for _ in range(2))
    answers = []
    for seed, length in enumerate((7, 2, 12, 5)):
        ids, seen = answer(seed, length)
        known = LinearFunctional.of_answer(torch.tensor(ids), seen, features()).of_rewards(torch.tensor(ids))
        answers.append(Answer(known.states, known.tokens, sureness_advantage(torch.tensor(ids), seen)))
    rewards = [[float(head.weights[a] @ x) for a, x in zip(each.tokens, each.states, strict=True)] for each in answers]
    inputs, returns = [], []
    for each, earned in zip(answers, rewards, strict=True):
        for t in range(len(earned) - min(3, len(earned) // 2)):
            inputs.append(each.states[t])
            returns.append(sum(0.8**k * r for k, r in enumerate(earned[t:])))
    value = least_squares(torch.stack(inputs), torch.tensor(returns), 0.3)
    rows, targets = [], []  # one long vector a position: of each token its row, and sureness
    for each, earned in zip(answers, rewards, strict=True):
        worth = [float(value @ x.double()) for x in each.states]
        surprise = [earned[t] + 0.8 * worth[t + 1] - worth[t] for t in range(len(earned) - 1)]
        for t in range(len(surprise)):
            token, row = int(each.tokens[t]), torch.zeros(shape)
            row[token] = each.states[t]
            rows.append(torch.cat([row.flatten(), each.sureness[t : t + 1]]))
            already = float(prior.weights[token] @ each.states[t]) + prior.sureness * float(each.sureness[t])
            targets.append(sum((0.8 * 0.5) ** k * d for k, d in enumerate(surprise[t:])) - already)
    expected = least_squares(torch.stack(rows), torch.tensor(targets), 0.6)
    tokens, found, u = advantages(head, prior, answers, constants)
    assert tokens.tolist() == sorted({int(token) for each in answers for token in each.tokens[:-1]})
    assert u == pytest.approx(float(expected[-1]), abs=1e-3)
    assert torch.allclose(found.double(), expected[:-1].view(shape)[tokens], atol=1e-3)


def test_the_fit_starts_there_and_judgements_move_it_from_there() -> None:
    plain, with_credit = HumanReward(features()), credited()
    evidence = judged(with_credit, 6)
    judged(plain, 6)
    assert with_credit.credit is not None
    begun = with_credit.credit.begin(Block.split(evidence, 512), RewardHead.empty(features()))
    head = with_credit.fit(evidence, 1)
    assert not begun.blank and not torch.equal(head.weights[: len(begun.weights)], begun.weights)
    right = [sum(m > 0 for item in evidence for m in fit.margins(fit.fit(evidence, 1), item)) for fit in (plain, with_credit)]  # type: ignore[arg-type]
    assert right[1] >= right[0]
    stiff = HumanReward(features(), None, type(plain.settings)(ridge=1e9), Credit(HumanReward(features())))
    judged(stiff, 6)
    held = stiff.fit(evidence, 1)
    slots = torch.searchsorted(held.tokens, begun.tokens)
    assert torch.allclose(held.weights[slots], begun.weights, atol=1e-5), "a prior that nothing moves"


@pytest.mark.parametrize("undone", [1, 3, 9])
def test_undo_gives_the_bits_of_a_fresh_start_also_where_beginnings_are_made_of_fewer(undone: int) -> None:
    learner, fresh = credited(), credited()
    evidence = judged(learner, 40)
    for n in range(1, 41):
        learner.fit(evidence[:n], n)
    for n in range(1, undone + 1):
        head = learner.fit(evidence[: 40 - n], 99)
    judged(fresh, 40)
    expected = fresh.fit(evidence[: 40 - undone], 99)
    assert torch.equal(head.tokens, expected.tokens) and torch.equal(head.weights, expected.weights)


def test_looking_ahead_leaves_nothing_to_be_found_at_the_next_judgement_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ahead, found = credited(), credited(), []
    evidence = judged(plain, 40)
    judged(ahead, 40)
    whole = credit.advantages
    monkeypatch.setattr(credit, "advantages", lambda *asked: found.append(asked) or whole(*asked))
    for n in range(1, 41):
        blocks = Block.split(evidence[:n], 512)
        expected = plain.fit_blocks(blocks, n)
        found.clear()
        head = ahead.fit_blocks(blocks, n)
        assert torch.equal(head.tokens, expected.tokens) and torch.equal(head.weights, expected.weights)
        assert n <= 17 or not found
        ahead.look_ahead(blocks)


def test_taps_and_silence_begin_nowhere_and_do_not_hinder_what_whole_answers_say() -> None:
    taps: list[Evidence] = [Level("w", 10.0, 0.003)]
    learner, empty = credited(), RewardHead.empty(features())
    assert learner.credit is not None and learner.credit.begin([Block((("w",),), tuple(taps))], empty) is empty
    evidence = judged(learner, 4)
    groups = tuple(tuple(sorted({*item.first, *item.second})) for item in evidence if isinstance(item, Pairs))
    alone = learner.credit.begin([Block(groups, tuple(evidence))], empty)
    beside = learner.credit.begin([Block((*groups, ("w",)), (*evidence, *taps))], empty)
    assert torch.equal(alone.weights, beside.weights) and not alone.blank


def test_only_the_newest_positions_count_and_an_answer_of_one_token_says_nothing() -> None:
    learner, short = credited(CreditSettings(positions=30)), credited()
    evidence = judged(learner, 8)
    assert learner.credit is not None and short.credit is not None
    known = learner.credit._newest([f"{i}/{j}" for i in range(8) for j in range(3)])
    assert sum(len(each.tokens) for each in known) <= 30 and torch.equal(known[-1].tokens, learner.credit._answers["7/2"].tokens)
    for j in range(3):
        short.add_answer(f"0/{j}", *answer(j, 1))
    empty = RewardHead.empty(features())
    assert short.credit.begin(Block.split(evidence[:1], 512), empty) is empty


@given(st.integers(0, 600))
def test_a_beginning_is_made_of_all_but_an_eighth_at_most(judgements: int) -> None:
    made = mark(judgements)
    assert made <= judgements and judgements - made <= judgements / 8 and (made < judgements if judgements > 16 else made == judgements)
    assert len({mark(n) for n in range(judgements + 1)}) <= 17 + 8 * max(0, judgements.bit_length() - 4)
