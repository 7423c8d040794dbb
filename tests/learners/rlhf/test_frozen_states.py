"""Remembered states against those of a forward of their own, and what is computed again."""

from __future__ import annotations

import torch

from learners.model.forward import causal_model
from learners.model.lora import load_lora
from learners.model.shared_prompts import states_in_one_row
from learners.rlhf.frozen_states import FrozenStates
from tests.learners.models import needs_stories, prompt, stirred, stories

pytestmark = needs_stories
ANSWERS = [(300,), (400, 401, 402), (400, 401, 402, 403, 404)]


class Counted:
    """States of a tree, and how many answers went through it."""

    def __init__(self, most_bytes: float = 1e9) -> None:
        self.start = tuple(prompt(stories()))
        self.tree = stirred(stories())
        self.states = FrozenStates(self.tree, most_bytes)
        self.rows = 0
        causal_model(self.tree).get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module: object, arguments: tuple[torch.Tensor, ...], output: object) -> None:
        self.rows += arguments[0].shape[0] if arguments[0].shape[1] != len(self.start) else 0

    def of(self, *answers: tuple[int, ...]) -> torch.Tensor:
        return self.states.before([self.start] * len(answers), answers)


def test_they_are_those_of_each_answer_in_its_own_row_in_the_order_asked_for() -> None:
    counted = Counted()
    alone = [states_in_one_row(counted.tree, [counted.start], [answer])[0, :-1] for answer in ANSWERS]
    for order in ((0, 1, 2), (2, 0), (1, 1, 2)):
        assert torch.allclose(counted.of(*(ANSWERS[i] for i in order)), torch.cat([alone[i] for i in order]), atol=1e-4)
    assert not counted.of(*ANSWERS).requires_grad


def test_an_answer_goes_through_the_tree_once() -> None:
    counted = Counted()
    counted.of(ANSWERS[1], ANSWERS[2])
    first = counted.rows
    counted.of(ANSWERS[2], ANSWERS[1])
    assert counted.rows == first > 0
    counted.of(*ANSWERS[:2], (7, 8))
    assert counted.rows > first


def test_other_weights_have_other_states() -> None:
    counted = Counted()
    before = counted.of(*ANSWERS)
    load_lora(counted.tree, None)
    assert torch.equal(counted.of(*ANSWERS), before)
    counted.states.forget()
    base = states_in_one_row(stories().model, [counted.start], [ANSWERS[2]])[0, :-1]
    assert torch.allclose(counted.of(ANSWERS[2]), base, atol=1e-4) and not torch.allclose(counted.of(ANSWERS[2]), before[4:], atol=1e-2)


def test_what_was_used_longest_ago_goes() -> None:
    counted = Counted(most_bytes=4 * 64 * 6)  # six states
    counted.of(ANSWERS[2])
    counted.of(ANSWERS[0])
    rows = counted.rows
    counted.of(ANSWERS[0])
    counted.of(ANSWERS[2])
    assert counted.rows == rows
    counted.of(ANSWERS[1])
    counted.of(ANSWERS[2])
    assert counted.rows > rows + 1
