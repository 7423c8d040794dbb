"""Which prompt comes next and who answers it: splits by hash, and a blind comparison that nothing gives away."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import Prompt
from tamer_tui.dealing import ADAPTER_EVERY, FEWEST_GATE_PROMPTS, GATE_SHARE, PAIR_EVERY, Dealer, Split
from tests.storage.conftest import answer

PROMPTS = tuple(Prompt.of(f"Prompt number {i}") for i in range(400))


def dealer(k: int = 4, seed: int = 0, judged: frozenset[str] = frozenset(), dealt: int = 0) -> Dealer:
    return Dealer(PROMPTS[:20], k, seed, set(judged), dealt)


@given(st.sets(st.integers(0, 10_000), max_size=120), st.sampled_from([0.0, 0.2]))
def test_every_prompt_is_in_exactly_one_split_and_its_words_alone_decide(numbers: set[int], held_out: float) -> None:
    prompts = [Prompt.of(f"Prompt {n}") for n in sorted(numbers)]
    split = Split.of(prompts, held_out)
    assert Counter(p.uid for part in (split.train, split.gate, split.held_out) for p in part) == Counter(p.uid for p in prompts)
    assert all(p.fraction < held_out for p in split.held_out) and all(p.fraction >= held_out for p in (*split.train, *split.gate))
    assert Split.of(prompts[::-1], held_out).held_out == split.held_out[::-1]


def test_a_tenth_is_for_the_gate_unless_that_is_too_few() -> None:
    split = Split.of(PROMPTS, 0.2)
    assert all(0.2 <= p.fraction < 0.2 + GATE_SHARE for p in split.gate)
    assert 20 < len(split.gate) < 60 and 50 < len(split.held_out) < 110
    few = [*split.gate[: FEWEST_GATE_PROMPTS - 1], *split.train[:20]]
    assert Split.of(few, 0.2).gate == () and len(Split.of(few, 0.2).train) == len(few)


def test_prompts_come_in_the_order_of_the_file_judged_ones_last_and_then_around_again() -> None:
    deal = dealer(judged=frozenset({PROMPTS[0].uid, PROMPTS[3].uid}))
    ring = [p for i, p in enumerate(PROMPTS[:20]) if i not in (0, 3)] + [PROMPTS[0], PROMPTS[3]]
    assert deal.peek() == ring[0]
    assert [deal.next_prompt() for _ in range(21)] == [*ring, ring[0]]
    assert Dealer((), 4, 0, set(), 0).next_prompt() is None


@pytest.mark.parametrize("k", [3, 4, 9])
def test_once_something_is_learned_every_set_has_one_base_slot_anywhere_and_one_acting_slot_beside_it(k: int) -> None:
    deal, places = dealer(k), Counter[tuple[int, int]]()
    for _ in range(40 * k * k):
        record, view = deal.deal(PROMPTS[0], "s", steered=True, adapted=False)
        by_uid = {c.uid: c for c in view.candidates}
        base, acting = by_uid[record.blind_base or ""], by_uid[record.blind_acting or ""]
        assert [c for c in view.candidates if c.policy == "base"] == [base] and acting.policy == "acting"
        assert all(c.policy == "acting" for c in view.candidates if c is not base)
        places[base.slot, acting.slot] += 1
    assert len(places) == k * (k - 1), "every pair of slots"
    expected = 40 * k * k / (k * (k - 1))
    assert sum((n - expected) ** 2 / expected for n in places.values()) < 2.5 * k * (k - 1), "and none more often than chance has it"


@pytest.mark.parametrize("k", [1, 2, 4])
def test_nothing_is_compared_while_the_acting_policy_is_the_base(k: int) -> None:
    deal = dealer(k)
    for _ in range(20):
        record, view = deal.deal(PROMPTS[0], "s", steered=False, adapted=False)
        assert record.blind_base is record.blind_acting is None and {c.policy for c in view.candidates} == {"acting"}


def test_two_answers_are_compared_every_fifth_time_and_one_never() -> None:
    pair, single = dealer(2), dealer(1)
    counted = [pair.deal(PROMPTS[0], "s", True, False)[0].blind_base is not None for _ in range(4 * PAIR_EVERY)]
    assert [i for i, yes in enumerate(counted, start=1) if yes] == [PAIR_EVERY * n for n in range(1, 5)]
    assert all(single.deal(PROMPTS[0], "s", True, True)[0].blind_base is None for _ in range(20))


def test_with_a_version_every_third_comparison_is_of_the_adapter_alone() -> None:
    deal = dealer()
    policies = []
    for _ in range(4 * ADAPTER_EVERY):
        record, view = deal.deal(PROMPTS[0], "s", True, True)
        policies.append(view.candidate(record.blind_acting or "").policy)
    assert policies == (["acting"] * (ADAPTER_EVERY - 1) + ["adapter"]) * 4


def test_the_seed_and_the_number_of_sets_so_far_decide_everything() -> None:
    def seeds(seed: int, dealt: int) -> list[list[tuple[str, int]]]:
        deal = dealer(seed=seed, dealt=dealt)
        return [[(c.policy, c.seed) for c in deal.deal(PROMPTS[0], "s", True, False)[1].candidates] for _ in range(5)]

    assert seeds(1, 7) == seeds(1, 7) and seeds(1, 7) != seeds(2, 7) and seeds(1, 7) != seeds(1, 8)
    drawn = [seed for batch in seeds(1, 7) for _, seed in batch]
    assert len(set(drawn)) == len(drawn), "no two answers share a seed"


def test_a_comparison_asked_for_shows_both_with_one_seed_and_is_never_counted() -> None:
    record, view = dealer().comparison(PROMPTS[5], "s")
    assert [c.policy for c in view.candidates] == ["acting", "base"] and len({c.seed for c in view.candidates}) == 1
    assert record.purpose == view.purpose == "compare" and record.blind_base is None


def test_records_and_views_name_the_same_answers() -> None:
    record, view = dealer(9).deal(PROMPTS[0], "sitting", True, False)
    assert (record.uid, record.k, record.sitting_uid, record.prompt) == (view.uid, 9, "sitting", view.prompt)
    assert [c.slot for c in view.candidates] == list(range(9)) and {c.set_uid for c in view.candidates} == {view.uid}
    assert len({c.uid for c in view.candidates}) == 9


def test_temperatures_are_spread_over_a_set_and_the_compared_two_share_one() -> None:
    dealer = Dealer(PROMPTS[:20], 4, 0, set(), 0, (0.6, 0.8, 1.0, 1.2))
    seen = set()
    for prompt in PROMPTS[:20]:
        record, view = dealer.deal(prompt, "s", steered=False, adapted=False)
        assert sorted(c.temperature for c in view.candidates) == [0.6, 0.8, 1.0, 1.2]  # type: ignore[type-var]
        seen.add(view.candidates[0].temperature)
        record, view = dealer.deal(prompt, "s", steered=True, adapted=False)
        at = {c.uid: c.temperature for c in view.candidates}
        assert at[record.blind_base or ""] == at[record.blind_acting or ""] and len(set(at.values())) == 3
    assert seen == {0.6, 0.8, 1.0, 1.2}  # no slot is always the coldest
    _, view = Dealer(PROMPTS, 5, 0, set(), 0, (0.5, 1.0)).deal(PROMPTS[0], "s", steered=False, adapted=False)
    assert sorted(c.temperature for c in view.candidates) == [0.5, 0.5, 0.5, 1.0, 1.0]  # type: ignore[type-var]
    assert {c.temperature for c in dealer.duel(PROMPTS[0], "s")[1].candidates} == {None}


# --- repeats ------------------------------------------------------------------------------------------------------------------


def repeats_of(seed: int, sets: int) -> list[bool]:
    """Whether each of so many sets was a repeat, where there is always one to repeat."""
    deal, found = dealer(seed=seed), []
    for _ in range(sets):
        found.append(deal.repeat_due)
        if found[-1]:
            deal.repeat(PROMPTS[0], [answer("s1", slot) for slot in range(4)], "s")
        else:
            deal.deal(PROMPTS[0], "s", steered=True, adapted=False)
    return found


def test_one_set_in_twenty_is_repeated_never_two_in_a_row_and_a_seed_says_which() -> None:
    found = [repeats_of(seed, 400) for seed in range(10)]
    assert 0.04 < sum(map(sum, found)) / 4000 < 0.06
    assert not any(a and b for each in found for a, b in pairwise(each))
    assert repeats_of(3, 400) == found[3] != found[4]


def test_what_is_dealt_otherwise_does_not_depend_on_repeats() -> None:
    plain, repeating = dealer(), dealer()
    for _ in range(60):
        if repeating.repeat_due:
            repeating.repeat(PROMPTS[0], [answer("s1", 0)], "s")
        one, other = (deal.deal(PROMPTS[0], "s", steered=True, adapted=True)[1] for deal in (plain, repeating))
        assert [(c.policy, c.seed) for c in one.candidates] == [(c.policy, c.seed) for c in other.candidates]


def test_a_repeat_has_the_same_answers_under_new_names_and_nothing_to_count() -> None:
    answers = [answer("s1", slot, text=f"text {slot}") for slot in range(4)]
    record, moved = dealer().repeat(PROMPTS[5], answers, "s")
    assert (record.purpose, record.k, record.blind_base, record.blind_acting) == ("repeat", 4, None, None)
    assert [r.slot for r in moved] == [0, 1, 2, 3] and {r.set_uid for r in moved} == {record.uid}
    assert sorted(r.text for r in moved) == [r.text for r in answers] and not {r.uid for r in moved} & {r.uid for r in answers}
    orders = {tuple(r.text for r in dealer(seed=seed).repeat(PROMPTS[5], answers, "s")[1]) for seed in range(20)}
    assert len(orders) > 5
