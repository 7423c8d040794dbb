"""Ĥ over a real model's states: what one judgement does, and that taking it back leaves no bit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from learners.engine.assembly import Parts, assemble
from learners.feedback.tap_credit import Uniform, credit
from learners.human_reward.features import Seen
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import REFERENCE_TOKENS
from learners.model.answer_text import pieces_of
from learners.protocol import Answer, AnswerRequest, Ended, Event, Lesson, Load
from learners.rlhf.rollouts import draw_answers
from storage.records import Correction, Message, Ranking, Rating, Sampling, Tap

events: list[Event] = []
PROMPT = (Message("user", "Once upon a time, there was a little dog"),)


@pytest.fixture(scope="module")
def load_parts(request: pytest.FixtureRequest) -> Parts:
    model = Path(request.config.rootpath).parent / "shared" / "data" / "stories260k"
    if not model.is_dir():
        pytest.skip(f"the model is not at {model}")
    return assemble(Load(model=str(model), sampling=Sampling(1.0, 24)), events.append)


def lesson(parts: Parts, seq: int) -> Lesson:
    """Four answers of the base, the shorter the better."""
    ids = tuple(parts.backbone.encode(PROMPT))
    traces = draw_answers(parts.backbone, parts.backbone.model, [ids] * 4, Sampling(1.0, 24), seq * 100, adapter=False)
    answers = [
        Answer(uid=f"{seq}/{i}", messages=PROMPT, text=parts.backbone.decode(t.ids), prompt_ids=t.prompt_ids, token_ids=tuple(t.ids), stop="length")
        for i, t in enumerate(traces)
    ]
    order = sorted(answers, key=lambda a: len(a.text))
    return Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(order)}), answers=tuple(answers))


def test_a_retracted_judgement_leaves_no_bit_and_a_redone_one_brings_all_back(load_parts: Parts) -> None:
    live = load_parts.live_reward
    first = live.learn(lesson(load_parts, 1)).head
    both = live.learn(lesson(load_parts, 2)).head
    assert not torch.equal(both.weights[: len(first.weights)], first.weights)
    back = live.retract(2).head
    assert torch.equal(back.weights, first.weights) and torch.equal(back.tokens, first.tokens)
    again = live.learn(lesson(load_parts, 2)).head
    assert torch.equal(again.weights, both.weights)
    live.retract(1), live.retract(2)


def tap(parts: Parts, seq: int, value: float, seconds: float, n: int = 16) -> Lesson:
    """On an answer of the base of which `n` tokens have appeared, six a second."""
    ids = tuple(parts.backbone.encode(PROMPT))
    (trace,) = draw_answers(parts.backbone, parts.backbone.model, [ids], Sampling(1.0, 24), 7, adapter=False)
    token_ids = tuple(trace.ids[:n])
    answer = Answer(uid="t", messages=PROMPT, text=parts.backbone.decode(token_ids), prompt_ids=ids, token_ids=token_ids)
    return Lesson(seq=seq, judgement=Tap("s", "t", value, "+", seconds), answers=(answer,), shown=tuple(i / 6 for i in range(n)))


def test_a_tap_teaches_the_words_that_it_was_credited_to_beside_what_was_likely_there(load_parts: Parts) -> None:
    live = load_parts.live_reward
    lesson = tap(load_parts, 20, 1.0, 2.3)
    head = live.learn(lesson).head
    token_ids = lesson.answers[0].token_ids
    seen = backbone_states(load_parts, lesson.answers[0].prompt_ids, token_ids)
    rewards = head.token_rewards(seen, torch.tensor(token_ids)).tolist()
    pieces = pieces_of(load_parts.backbone.renderer, token_ids)
    first = [i for i, piece in enumerate(pieces) if i == 0 or not (piece[:1].isalpha() and pieces[i - 1][-1:].isalpha())]  # of each word
    words = list(itertools.pairwise([*first, len(pieces)]))
    shares = credit(2.3, [*(lesson.shown[stop] for _, stop in words[:-1]), lesson.shown[-1] + 1 / 6], Uniform()).shares
    learned = {i for span, share in zip(words, shares, strict=True) if share >= 0.02 for i in range(*span)}
    likely = {int(t) for i in learned for t, p in zip(seen.likely[i], seen.probabilities[i], strict=True) if p > 0}
    assert set(head.tokens.tolist()) == {token_ids[i] for i in learned} | likely
    assert max(stop - start for start, stop in words if start in learned) > 1, "a word of several tokens is among them"
    best = max(range(len(words)), key=lambda i: shares[i])
    assert sum(rewards[slice(*words[best])]) > 0
    blamed = live.learn(tap(load_parts, 21, -1.0, 2.3)).head
    assert float(blamed.weights.abs().max()) < 0.1 * float(head.weights.abs().max()), "as much praise as blame is nothing"
    live.retract(21), live.retract(20)


def test_a_tap_before_the_first_words_is_not_learned_from_and_that_is_said(load_parts: Parts) -> None:
    live = load_parts.live_reward
    fitted = live.learn(tap(load_parts, 22, 1.0, 0.3, n=2))
    assert "before the words" in fitted.dropped and fitted.head.blank
    live.retract(22)


@pytest.mark.parametrize("of", ["_of_advantages", "_of_rewards"])
def test_a_head_that_is_no_number_is_built_anew_from_the_log(load_parts: Parts, of: str) -> None:
    live, before = load_parts.live_reward, load_parts.live_reward.resets
    good = live.learn(lesson(load_parts, 1)).head
    fit = getattr(live._human_reward, of)
    for functional in fit._known.values():
        functional.states.fill_(float("nan"))
    fit._gram.products.fill_(float("nan"))
    fit._solved.clear()
    healed = live.fit()
    assert live.resets == before + 1 and torch.equal(healed.weights, good.weights) and torch.equal(healed.tokens, good.tokens)
    live.retract(1)


def test_where_building_it_anew_does_not_help_nothing_is_scored_either(load_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    live = load_parts.live_reward
    live.learn(lesson(load_parts, 1))
    assert live.rewards is not None
    with monkeypatch.context() as patch:
        patch.setattr(type(live._human_reward), "begun_anew", lambda self: self)
        fit = live._human_reward._of_rewards
        fit._gram.products.fill_(float("nan"))
        fit._solved.clear()
        assert live.fit().blank and live.rewards is None
    live._human_reward = live._human_reward.begun_anew()
    live.retract(1)


def test_a_correction_raises_the_written_word_over_the_one_it_replaced(load_parts: Parts) -> None:
    live, backbone = load_parts.live_reward, load_parts.backbone
    ids = tuple(backbone.encode(PROMPT))
    told = " named Max. Max was sad."
    answer = Answer(uid="c", messages=PROMPT, text=told, prompt_ids=ids, token_ids=tuple(backbone.encode_completion(told)[:-1]), stop="length")
    fitted = live.learn(Lesson(seq=9, judgement=Correction("s", "c", " named Max. Max was happy."), answers=(answer,)))
    (happy,) = [s for s in live.lessons.samples.values() if s.name == "written:9"]
    (sad,) = [s for s in live.lessons.samples.values() if s.name == "original:9"]
    assert happy.span is not None and sad.span is not None and happy.span[0] == sad.span[0]
    rewards = []
    for sample in (happy, sad):
        start, stop = sample.span  # type: ignore[misc]
        seen = backbone_states(load_parts, sample.prompt_ids, sample.token_ids).span(start, stop)
        rewards.append(float(fitted.head.token_rewards(seen, torch.tensor(sample.token_ids[start:stop])).mean()))
    assert rewards[0] > rewards[1]
    assert live.retract(9).head.blank


def backbone_states(parts: Parts, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> Seen:
    from learners.rlhf.rollouts import states_before

    return states_before(parts.backbone, parts.backbone.model, prompt_ids, [token_ids])[0]


def test_a_rating_alone_teaches_and_an_answer_without_words_is_said_to_be_dropped(load_parts: Parts) -> None:
    live = load_parts.live_reward
    one = lesson(load_parts, 3).answers[0]
    assert not live.learn(Lesson(seq=5, judgement=Rating("s", one.uid, 7), answers=(one,))).head.blank
    live.retract(5)
    empty = Answer(uid="e", messages=PROMPT, text="", prompt_ids=tuple(load_parts.backbone.encode(PROMPT)), token_ids=(), stop="stopped")
    eos = live.learn(Lesson(seq=6, judgement=Rating("s", "e", 1), answers=(empty,)))
    assert eos.dropped == "" or "no" in eos.dropped
    live.retract(6)


def test_after_a_few_answers_the_generator_spends_the_budget_it_was_given(load_parts: Parts) -> None:
    live, generator = load_parts.live_reward, load_parts.generator
    for seq in (11, 12, 13):
        head = live.learn(lesson(load_parts, seq)).head
    spent = []
    for seed in range(4):
        generator.use_head(head)
        candidates = [AnswerRequest(uid=f"{seed}-{i}", seed=10 * seed + i, messages=PROMPT) for i in range(8)]
        events.clear()
        for _ in generator.draw(candidates, Sampling(1.0, 48)):
            pass
        ended = [event for event in events if isinstance(event, Ended)]
        spent.append(sum(e.kl for e in ended) / sum(e.n_tokens for e in ended) * REFERENCE_TOKENS)
    assert 0.3 * generator.budget.nats < spent[0] < 2 * generator.budget.nats, "on states of the base: only roughly"
    assert sum(spent[2:]) / 2 == pytest.approx(generator.budget.nats, rel=0.25)


def test_told_again_without_the_earlier_answers_that_it_beat_a_ranking_leaves_no_bit_of_them(load_parts: Parts) -> None:
    live, told = load_parts.live_reward, lesson(load_parts, 40)
    earlier = lesson(load_parts, 41).answers[:1]
    plain = live.learn(told).head
    besides = live.learn(Lesson(seq=40, judgement=told.judgement, answers=told.answers, over=earlier)).head
    best = min(told.answers, key=lambda answer: told.judgement.ranks[answer.uid])  # type: ignore[union-attr]

    def margin(head: RewardHead) -> float:
        of = [head.token_rewards(backbone_states(load_parts, a.prompt_ids, a.token_ids), torch.tensor(a.token_ids)).mean() for a in (best, *earlier)]
        return float(of[0] - of[1])

    assert margin(besides) > margin(plain)
    again = live.learn(told).head
    assert torch.equal(again.weights, plain.weights) and torch.equal(again.tokens, plain.tokens)
    live.retract(40)
