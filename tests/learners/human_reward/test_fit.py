"""Ĥ's fit against oracles derived another way, and its exactness."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.human_reward import features as features_module
from learners.human_reward.features import LEAST_PROBABILITY as LEAST
from learners.human_reward.features import SURENESS_SCALE as NAT
from learners.human_reward.features import Features, FeatureSettings, Seen, token_similarity
from learners.human_reward.fit import HumanRewardSettings, RewardFit
from learners.human_reward.gram import LinearFunctional
from learners.human_reward.head import RewardHead
from learners.human_reward.likelihood import Contrasts, Level, Pairs

WIDTH = 6
VOCABULARY = 11


def features(seed: int = 0) -> Features:
    return Features.fit(torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(seed)) * 3 + 1)


def alike(seed: int = 0) -> torch.Tensor:
    return token_similarity(torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(seed + 5)))


def looked_at(length: int, generator: torch.Generator, width: int = WIDTH, vocabulary: int = VOCABULARY) -> Seen:
    """States in which the base had a few next tokens in mind."""
    return Seen.of(torch.randn(length, width, generator=generator), 2 * torch.randn(length, vocabulary, generator=generator))


def taught(n: int, seed: int = 0, **overrides: object) -> tuple[RewardFit, dict[str, tuple[list[int], Seen]]]:
    """A RewardFit that knows n random answers, and the answers."""
    generator = torch.Generator().manual_seed(seed)
    human_reward = RewardFit(features(), alike(), HumanRewardSettings(**overrides))  # type: ignore[arg-type]
    answers = {}
    for i in range(n):
        uid = f"a{i}"
        length = int(torch.randint(1, 4 if is_word(uid) else 9, (1,), generator=generator))
        ids = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        answers[uid] = (ids, looked_at(length, generator))
        add(human_reward, uid, *answers[uid])
    return human_reward, answers


def is_word(uid: str) -> bool:
    """A third of what is judged are words, as those of taps."""
    return int(uid[1:]) % 3 == 2


def add(human_reward: RewardFit, uid: str, ids: list[int], seen: Seen) -> None:
    if is_word(uid):
        human_reward.add_word(uid, ids, seen, (0, len(ids)))
    else:
        human_reward.add_answer(uid, ids, seen)


def dense(human_reward: RewardFit, answers: dict, uids: list[str]) -> torch.Tensor:
    """(n, V·(f + 1) + 1) answer features, one long vector each: the primal form that the fit never builds."""
    x = torch.zeros(len(uids), VOCABULARY, human_reward.features.width, dtype=torch.float64)
    surer = torch.zeros(len(uids), 1, dtype=torch.float64)
    for row, uid in enumerate(uids):
        ids, seen = answers[uid]
        each, sure = (1.0, 0.0) if is_word(uid) else (1 / len(ids), NAT / len(ids))
        for token, phi, likely, probabilities in zip(ids, human_reward.features(seen.hidden).double(), seen.likely, seen.probabilities, strict=True):
            x[row, token] += each * phi
            for other, probability in zip(likely, probabilities, strict=True):
                x[row, other] -= each * probability * phi
                nats = max(0.0, math.log(float(probability) / LEAST)) if probability > 0 else 0.0
                surer[row] += (float(other == token) - float(probability)) * sure * nats
    return torch.cat([x.flatten(1), surer], 1)


def right(human_reward: RewardFit, head: RewardHead, pairs: Pairs) -> int:
    """Pairs in the operator's order."""
    return sum(margin > 0 for margin in human_reward.margins(head, pairs))


def test_the_fit_is_the_minimum_that_a_general_optimizer_finds_over_the_full_table() -> None:
    human_reward, answers = taught(8, constant_variance=1.0)
    evidence = [
        Pairs.of_ranks({"a0": 1, "a1": 2, "a2": 2, "a3": 3}),
        Pairs.of_ranks({"a4": 1}, unranked=("a5", "a6")),
        Level("a7", 0.6),
        Level("a0", -0.2),
    ]
    uids = list(answers)
    x = dense(human_reward, answers, uids)
    row = {uid: x[i] for i, uid in enumerate(uids)}
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    vectors = human_reward.similarity.double()
    prior = torch.linalg.inv(torch.eye(VOCABULARY, dtype=torch.float64) + vectors @ vectors.T)  # precision over tokens
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        table = w[:-1].view(VOCABULARY, -1)
        total = 0.5 * human_reward.settings.ridge * ((table * (prior @ table)).sum() + w[-1] ** 2)
        for a, b, target, weight in [
            *[("a0", "a1", 1.0, 3 / 6), ("a0", "a2", 1.0, 3 / 6), ("a0", "a3", 1.0, 3 / 6)],
            *[("a1", "a2", 0.5, 3 / 6), ("a1", "a3", 1.0, 3 / 6), ("a2", "a3", 1.0, 3 / 6)],
            *[("a4", "a5", 1.0, 2 / 2), ("a4", "a6", 1.0, 2 / 2)],
        ]:
            margin = (row[a] - row[b]) @ w
            total = total + weight * (torch.nn.functional.softplus(margin) - target * margin)
        total = total + 0.5 * (row["a7"] @ w - 0.6) ** 2 + 0.5 * (row["a0"] @ w + 0.2) ** 2
        total.backward()
        return total

    optimizer.step(loss)
    head = human_reward.fit(evidence, epoch=1)
    found = torch.zeros(VOCABULARY, human_reward.features.width, dtype=torch.float64)
    found[head.tokens] = head.weights.double()
    found = torch.cat([found.flatten(), torch.tensor([head.sureness], dtype=torch.float64)])
    torch.testing.assert_close(found, w.detach(), atol=2e-5, rtol=1e-4)
    assert abs(head.sureness) > 0.1


def test_levels_alone_give_the_solution_of_their_normal_equations() -> None:
    human_reward, answers = taught(9)
    levels = [Level("a2", 0.6, 0.3), Level("a0", -0.2), Level("a5", 1.0, 0.5), Level("a2", 0.1), Level("a8", -1.0, 0.0)]
    head = human_reward.fit(levels, epoch=1)
    x = dense(human_reward, answers, [level.uid for level in levels])
    vectors, width = human_reward.similarity.double(), human_reward.features.width
    precision = torch.linalg.inv(torch.eye(VOCABULARY, dtype=torch.float64) + vectors @ vectors.T)
    prior = torch.block_diag(torch.kron(precision.contiguous(), torch.eye(width, dtype=torch.float64)), torch.eye(1, dtype=torch.float64))
    weights = torch.diag(torch.tensor([level.weight for level in levels], dtype=torch.float64))
    wanted = x.T @ weights @ torch.tensor([level.score for level in levels], dtype=torch.float64)
    w = torch.linalg.solve(x.T @ weights @ x + human_reward.settings.ridge * prior, wanted)
    found = torch.zeros(VOCABULARY, width, dtype=torch.float64)
    found[head.tokens] = head.weights.double()
    torch.testing.assert_close(torch.cat([found.flatten(), torch.tensor([head.sureness], dtype=torch.float64)]), w, atol=2e-5, rtol=1e-4)


def test_a_score_is_the_mean_of_the_token_rewards_and_a_words_is_their_sum_whatever_sureness_is_worth() -> None:
    human_reward, answers = taught(4)
    head = human_reward.fit([Pairs.of_ranks({"a0": 1, "a1": 2, "a2": 3})], epoch=1)
    for uid, (ids, seen) in answers.items():
        rewards = (replace(head, sureness=0.0) if is_word(uid) else head).token_rewards(seen, torch.tensor(ids))
        assert human_reward.score(head, uid) == pytest.approx(float(rewards.sum() if is_word(uid) else rewards.mean()), rel=1e-6, abs=1e-6)


def test_terms_of_a_token_that_comes_often_become_one_and_mean_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    ids, seen, seeing = torch.tensor([1, 2, 1, 1, 4, 1]), looked_at(6, generator), features()
    functional, word = LinearFunctional.of_answer(ids, seen, seeing), LinearFunctional.of_word(ids, seen, seeing)
    assert functional.tokens.tolist().count(1) == 1 < word.tokens.tolist().count(1)
    assert functional.steps.tolist() == sorted(functional.steps.tolist())
    (tokens, rows), (same_tokens, sums) = functional.rows(), word.rows()
    assert torch.equal(tokens, same_tokens)
    torch.testing.assert_close(rows, sums / 6, atol=1e-6, rtol=1e-5)


def test_without_directions_of_similarity_every_token_is_on_its_own() -> None:
    """As in the ablation that learns of each token alone."""
    heads = []
    for similarity in (None, torch.zeros(VOCABULARY, 0)):
        human_reward, generator = RewardFit(features(), similarity), torch.Generator().manual_seed(3)
        for name in ("good", "bad"):
            human_reward.add_answer(name, [1, 2, 3], looked_at(3, generator))
        heads.append(human_reward.fit([Pairs.of_ranks({"good": 1, "bad": 2})], 1))
    assert torch.equal(heads[0].weights, heads[1].weights) and float(heads[0].weights.abs().max()) > 0.1


@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_a_wider_prior_of_the_constants_weights_is_a_larger_constant(seed: int) -> None:
    wide, answers = taught(9, seed, odds=-1e9, constant_variance=9.0)
    larger = RewardFit(replace(wide.features, constant=3 * wide.features.constant), wide.similarity, HumanRewardSettings(constant_variance=1.0))
    for uid, answer in answers.items():
        add(larger, uid, *answer)
    evidence = [Pairs.of_ranks({"a0": 1, "a1": 2, "a3": 3}), Pairs.of_ranks({"a4": 1, "a6": 2}), Level("a5", 0.7)]
    heads = wide.fit(evidence, 1), larger.fit(evidence, 1)
    for uid in answers:
        assert wide.score(heads[0], uid) == pytest.approx(larger.score(heads[1], uid), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("anywhere", [True, False])
def test_judgements_say_whether_a_token_is_worth_the_same_wherever_it_stands(anywhere: bool) -> None:
    """Liked are some tokens, or they are liked in some states and disliked in the others. Ĥ averages both fits, by what each foresees."""
    generator, width, vocabulary, length = torch.Generator().manual_seed(1), 2, 16, 12
    seeing = Features.fit(torch.randn(400, width, generator=generator))
    answers, evidence = {}, []
    for i in range(40):
        liked = {}
        for uid in (f"{i}/{k}" for k in range(4)):
            ids, seen = torch.randint(0, vocabulary, (length,), generator=generator), looked_at(length, generator, width, vocabulary).alone()
            liked[uid] = float(((ids < 4) * (1.0 if anywhere else seen.hidden[:, 0].sign())).sum())
            answers[uid] = ids.tolist(), seen
        evidence.append(Pairs.of_ranks({uid: int(-score) for uid, score in liked.items()}))
    scores = []
    for odds in (1e9, -1e9, 0.0):
        human_reward = RewardFit(seeing, None, HumanRewardSettings(odds=odds))
        for uid, answer in answers.items():
            human_reward.add_answer(uid, *answer)
        head = human_reward.fit(evidence, 1)
        scores.append(torch.tensor([human_reward.score(head, uid) for uid in answers], dtype=torch.float64))
    usual, other, found = scores
    share = float((found - usual) @ (other - usual) / (other - usual).square().sum())
    torch.testing.assert_close(found, usual + share * (other - usual), atol=1e-4, rtol=1e-4)
    assert share > 0.8 if anywhere else share < 0.4


@pytest.mark.parametrize("seed", range(5))
def test_a_single_judgement_says_nothing_about_which_fit_foresees_better(seed: int) -> None:
    """Rounding would, if its size did not count."""
    scores = []
    for odds in (1e9, -1e9, 1.0):
        human_reward, answers = taught(4, seed, odds=odds)
        head = human_reward.fit([Pairs.of_ranks({"a0": 1, "a1": 2, "a3": 3})], 1)
        scores.append(torch.tensor([human_reward.score(head, uid) for uid in answers], dtype=torch.float64))
    usual, other, found = scores
    torch.testing.assert_close(found, usual + torch.tensor(-1.0).sigmoid() * (other - usual), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("turned_around", [0.0, 0.25])
def test_rankings_that_the_others_contradict_are_doubted(turned_around: bool) -> None:
    """Four tokens are liked. Where a quarter of the rankings are turned around, fits that doubt them order other answers better; where none is, they
    have no say."""
    generator, chance, width, vocabulary = torch.Generator().manual_seed(2), random.Random(1), 2, 16
    seeing = Features.fit(torch.randn(400, width, generator=generator))
    answers, order, said = {}, [], []
    for i in range(140):
        liked = {}
        for uid in (f"{i}/{k}" for k in range(4)):
            ids, seen = torch.randint(0, vocabulary, (12,), generator=generator), looked_at(12, generator, width, vocabulary).alone()
            liked[uid] = int((ids < 4).sum())
            answers[uid] = ids.tolist(), seen
        order.append(Pairs.of_ranks({uid: -n for uid, n in liked.items()}))
        sign = 1 if chance.random() < turned_around else -1
        said.append(Pairs.of_ranks({uid: sign * n for uid, n in liked.items()}))
    scores, right = {}, {}
    for lapse in (0.0, 0.25):
        human_reward = RewardFit(seeing, None, HumanRewardSettings(lapse=lapse), doubts=True)
        for uid, answer in answers.items():
            human_reward.add_answer(uid, *answer)
        head = human_reward.fit(said[:60], 1)
        margins = [margin for pairs in order[60:] for margin in human_reward.margins(head, pairs)]
        right[lapse] = sum(margin > 0 for margin in margins) / len(margins)
        scores[lapse] = torch.tensor([human_reward.score(head, uid) for uid in answers])
    if turned_around:
        assert right[0.25] > right[0.0] + 0.05
    else:
        torch.testing.assert_close(scores[0.25], scores[0.0], atol=0.01 * float(scores[0.0].abs().max()), rtol=0.01)


@given(seed=st.integers(0, 10_000), lapse=st.sampled_from([0.0, 0.1, 0.25]))
@settings(max_examples=8, deadline=None)
def test_a_judgement_that_was_foreseen_otherwise_is_as_likely_meant_as_bayes_says(seed: int, lapse: float) -> None:
    chance = random.Random(seed)
    evidence = [Pairs.of_ranks({f"{i}/{k}": chance.randint(1, 3) for k in range(chance.randint(2, 4))}) for i in range(5)]
    index = {name: i for i, name in enumerate(name for item in evidence for name in sorted({*item.first, *item.second}))}
    contrasts = Contrasts.of(evidence, index)
    scores = torch.tensor([chance.gauss(0, 1) for _ in index], dtype=torch.float64)
    found = contrasts.foreseen(contrasts.of_scores(scores), 1e-12, lapse)

    def likelihoods(item: Pairs, scale: float) -> tuple[float, float]:
        """Of what was said and of the opposite."""
        as_said = opposite = 1.0
        for a, b, target in zip(item.first, item.second, item.target, strict=True):
            p = 1 / (1 + math.exp(-scale * float(scores[index[a]] - scores[index[b]])))
            as_said *= (p**target * (1 - p) ** (1 - target)) ** item.weight
            opposite *= (p ** (1 - target) * (1 - p) ** target) ** item.weight
        return (1 - lapse) * as_said, lapse * opposite

    mean = statistics.fmean(abs(float(margin)) for margin in contrasts.margins(contrasts.of_scores(scores)))
    losses = {scale: -sum(math.log(sum(likelihoods(item, scale / mean))) for item in evidence) for scale in (i / 10 for i in range(41))}
    best = min(losses, key=losses.__getitem__)
    assert found.loss == pytest.approx(losses[best])
    wanted = [said / (said + opposite) for said, opposite in (likelihoods(item, best / mean) for item in evidence)]
    assert found.meant.tolist() == pytest.approx(wanted)


def test_tokens_that_were_never_judged_have_no_reward() -> None:
    human_reward, _ = taught(3)
    head = human_reward.fit([Pairs.of_ranks({"a0": 1, "a1": 2})], epoch=1)
    nothing_else = Seen(torch.randn(2, WIDTH), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1))
    assert head.token_rewards(nothing_else, torch.tensor([VOCABULARY + 5, VOCABULARY + 9])).abs().max() == 0


def test_a_token_that_had_to_come_earns_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    human_reward = RewardFit(features(), alike())
    sure = torch.full((4, VOCABULARY), -50.0)
    ids = [1, 2, 3, 4]
    sure[range(4), ids] = 50.0
    human_reward.add_answer("sure", ids, Seen.of(torch.randn(4, WIDTH, generator=generator), sure))
    free = looked_at(4, generator)
    human_reward.add_answer("free", ids, free)
    head = human_reward.fit([Level("sure", 1.0)], 1)
    assert float(head.weights.abs().max()) < 1e-6
    head = human_reward.fit([Level("sure", 1.0), Level("free", 1.0)], 1)
    assert human_reward.score(head, "free") > 0.5 and abs(human_reward.score(head, "sure")) < 1e-6


def test_who_prefers_what_the_base_says_most_often_is_understood_on_words_never_judged() -> None:
    human_reward, generator = RewardFit(features()), torch.Generator().manual_seed(4)

    def look(name: str, first: int, chosen: int) -> None:
        """An answer of one token: the likelier or the less likely of two that appear nowhere else."""
        seen = Seen(torch.randn(1, WIDTH, generator=generator), torch.tensor([[first, first + 1]]), torch.tensor([[0.6, 0.3]]))
        human_reward.add_answer(name, [first + chosen], seen)

    for i in range(6):
        look(f"sure{i}", 100 + 2 * i, 0), look(f"unsure{i}", 100 + 2 * i, 1)
    margins = Pairs.of_ranks({"sure5": 1, "unsure5": 2})
    for sign in (1, -1):
        head = human_reward.fit([Pairs.of_ranks({f"sure{i}": 1, f"unsure{i}": 1 + sign}) for i in range(5)], 1)
        assert sign * head.sureness > 0 and sign * human_reward.margins(head, margins)[0] > 0.5


def test_what_is_learned_of_a_token_goes_to_those_that_are_like_it() -> None:
    vectors = torch.zeros(VOCABULARY, 2, dtype=torch.float64)
    vectors[3], vectors[5], vectors[7] = torch.tensor([1.0, 0.0]), torch.tensor([0.8, 0.6]), torch.tensor([0.0, 1.0])
    human_reward, state = RewardFit(features(), vectors), torch.randn(1, WIDTH)
    for name, ids in (("said", [3]), ("alike", [5]), ("unlike", [7])):
        human_reward.add_answer(name, ids, Seen(state, torch.tensor([[0]]), torch.tensor([[0.0]])))
    head = human_reward.fit([Level("said", 1.0), Pairs.of_ranks({"alike": 1, "unlike": 1})], 1)
    said, alike_, unlike = (human_reward.score(head, name) for name in ("said", "alike", "unlike"))
    assert said > alike_ > 0.1 and unlike < alike_
    without = RewardFit(features())
    without.add_answer("said", [3], Seen(state, torch.tensor([[0]]), torch.tensor([[0.0]])))
    assert without.fit([Level("said", 1.0)], 1).tokens.tolist() == [3]


def test_undo_gives_the_bits_that_a_fresh_start_without_the_judgement_gives() -> None:
    kept = [Pairs.of_ranks({"a0": 1, "a1": 2, "a2": 3}), Pairs.of_ranks({"a6": 2, "a7": 1})]
    undone = Pairs.of_ranks({"a3": 1, "a4": 2, "a5": 2})
    long_lived, _ = taught(8)
    long_lived.fit([kept[0], undone], epoch=1)
    long_lived.fit([kept[0], undone, kept[1]], epoch=2)
    fresh, _ = taught(8)
    after_undo, from_scratch = long_lived.fit(kept, epoch=3), fresh.fit(kept, epoch=1)
    assert torch.equal(after_undo.tokens, from_scratch.tokens)
    assert torch.equal(after_undo.weights, from_scratch.weights) and after_undo.sureness == from_scratch.sureness


@given(order=st.permutations(range(9)), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_in_which_answers_became_known_changes_no_bit(order: list[int], seed: int) -> None:
    evidence = [Pairs.of_ranks({f"a{i}": 1 + i % 3 for i in range(9)})]
    human_reward, answers = taught(9, seed)
    shuffled = RewardFit(features(), alike())
    for i in order:
        add(shuffled, f"a{i}", *answers[f"a{i}"])
        if random.Random(i).random() < 0.5:
            shuffled.fit([Level(f"a{i}", 1.0)], epoch=0)
    assert torch.equal(human_reward.fit(evidence, 1).weights, shuffled.fit(evidence, 1).weights)


@given(ranks=st.lists(st.integers(1, 4), min_size=2, max_size=6), shift=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_only_the_order_of_ranks_matters(ranks: list[int], shift: int) -> None:
    human_reward, _ = taught(6)
    plain = {f"a{i}": rank for i, rank in enumerate(ranks)}
    stretched = {uid: rank * shift + 7 for uid, rank in plain.items()}
    first, second = (human_reward.fit([Pairs.of_ranks(r)], 1) for r in (plain, stretched))
    assert torch.equal(first.weights, second.weights)


def test_a_ranking_orders_the_scores_and_all_ties_teach_nothing() -> None:
    human_reward, _ = taught(4)
    head = human_reward.fit([Pairs.of_ranks({"a2": 1, "a0": 2, "a3": 3, "a1": 4})], 1)
    scores = [human_reward.score(head, uid) for uid in ("a2", "a0", "a3", "a1")]
    assert scores == sorted(scores, reverse=True)
    tied = human_reward.fit([Pairs.of_ranks({"a0": 1, "a1": 1})], 1)
    assert tied.weights.abs().max() < 1e-12


def test_unranked_answers_are_beaten_but_not_compared_with_each_other() -> None:
    pairs = Pairs.of_ranks({"a": 1}, unranked=("b", "c"))
    assert set(zip(pairs.first, pairs.second, pairs.target, strict=True)) == {("a", "b", 1.0), ("a", "c", 1.0)}


def test_evidence_beyond_the_window_becomes_the_prior_of_what_follows() -> None:
    uids = [uid for i in range(18) if not is_word(uid := f"a{i}")]
    early, late = (Pairs.of_ranks({uid: i + 1 for i, uid in enumerate(some)}) for some in (uids[:6], uids[6:]))
    remembered = never_known = 0
    for seed in range(10):
        human_reward, _ = taught(18, seed, window=6, ridge=1e-4)
        both, only_late = human_reward.fit([early, late], 1), human_reward.fit([late], 1)
        assert right(human_reward, both, late) == 15
        remembered += right(human_reward, both, early)
        never_known += right(human_reward, only_late, early)
    assert remembered > never_known + 10 * 3


def test_a_blank_head_prefers_nothing_and_ties_are_left_out() -> None:
    human_reward, _ = taught(3)
    blank = RewardHead.empty(human_reward.features)
    assert human_reward.margins(blank, Pairs.of_ranks({"a0": 1, "a1": 2})) == [0.0]
    assert human_reward.margins(blank, Pairs.of_ranks({"a0": 1, "a1": 1})) == []


def test_wide_states_are_projected_onto_the_directions_of_most_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(300, 100, generator=generator)
    narrow = Features.fit(hidden, FeatureSettings(dimensions=8))
    assert narrow(hidden).shape == (300, 9)
    assert float(narrow(hidden)[:, :-1].square().sum(1).mean()) == pytest.approx(1.0, abs=1e-4)
    assert float(narrow(hidden)[:, :-1].mean(0).abs().max()) < 1e-5
    assert torch.equal(narrow.basis, Features.fit(hidden, FeatureSettings(dimensions=8)).basis)


def test_a_head_of_a_large_vocabulary_and_a_wide_model_stays_small() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(150_000, 64, generator=generator) / 8
    human_reward = RewardFit(Features.fit(torch.randn(256, 1024, generator=generator)), vectors)
    for i in range(8):
        ids = torch.randint(0, 150_000, (60,), generator=generator).tolist()
        likely = torch.randint(0, 150_000, (60, 8), generator=generator)
        probabilities = torch.tensor([0.5, 0.2, 0.1, 0.05, 0.03, 0.0, 0.0, 0.0]).expand(60, 8)
        human_reward.add_answer(f"a{i}", ids, Seen(torch.randn(60, 1024, generator=generator), likely, probabilities))
    head = human_reward.fit([Pairs.of_ranks({f"a{i}": i + 1 for i in range(8)})], 1)
    assert head.weights.shape[0] <= 480 * 6 and head.weights.shape[1] == 257
    assert right(human_reward, head, Pairs.of_ranks({f"a{i}": i + 1 for i in range(8)})) == 28


@pytest.mark.parametrize("width", [20, 100])
def test_token_similarity_is_that_of_all_rows_at_once_whatever_is_read_at_a_time(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standardised rows, by their singular vectors: L Lᵀ, since the vectors' signs are free."""
    rows = torch.randn(90, width, generator=torch.Generator().manual_seed(6)).mul(torch.rand(width) + 0.5).add(1)
    standard = ((rows - rows.mean(0)) / rows.std(0, correction=0)).double()
    left, values, _ = torch.linalg.svd(standard, full_matrices=False)
    factor = left[:, :64] * values[:64]
    wanted = factor @ factor.T / factor.square().sum(1).mean()
    monkeypatch.setattr(features_module, "CHUNK", 7)
    found = token_similarity(rows)
    assert found.dtype == torch.float32 and found.shape == (90, min(width, 64))
    torch.testing.assert_close(found.double() @ found.double().T, wanted, atol=1e-5, rtol=1e-4)


def test_a_head_survives_its_state() -> None:
    human_reward, answers = taught(4)
    head = human_reward.fit([Pairs.of_ranks({"a0": 1, "a1": 2})], epoch=5)
    again = RewardHead.from_state(head.state())
    ids, seen = answers["a0"]
    assert again.epoch == 5
    assert torch.equal(again.token_rewards(seen, torch.tensor(ids)), head.token_rewards(seen, torch.tensor(ids)))
