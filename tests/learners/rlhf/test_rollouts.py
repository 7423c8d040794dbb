"""Base states of whole sets, and nats on visited states, against prompt and answer in one row."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from learners.human_reward.features import Seen
from learners.human_reward.kl_budget import pooled_nats
from learners.model.forward import causal_model, forward
from learners.rlhf.rollouts import draw_answers, look_again, nats_on, states_before
from storage.records import Sampling
from tests.learners.models import needs_stories, prompt, random_llama, stirred, stories, tensor

pytestmark = needs_stories
ANSWERS = [(300,), (400, 401, 402), (400, 401, 402, 403, 404)]


def test_states_of_a_set_are_those_of_each_answer_in_its_own_row() -> None:
    backbone = stories()
    start = prompt(backbone)
    for answer, seen in zip(ANSWERS, states_before(backbone, backbone.model, start, ANSWERS), strict=True):
        with torch.no_grad():
            output = forward(backbone.model, tensor([[*start, *answer]]), keep=len(answer) + 1)
        wanted = Seen.of(output.hidden[0, :-1], output.logits[0, :-1])
        wanted = Seen(*(each.cpu() for each in wanted))
        assert torch.allclose(seen.hidden, wanted.hidden, atol=1e-4)
        assert torch.equal(seen.likely, wanted.likely)
        assert torch.allclose(
            seen.probabilities, output.logits[0, :-1].cpu().softmax(-1).gather(1, wanted.likely) * (wanted.probabilities > 0), atol=1e-5
        )


def test_a_set_takes_its_prompt_once_and_gives_the_same_bits_again() -> None:
    backbone = stories()
    start, shapes = prompt(backbone), []
    hook = causal_model(backbone.model).get_input_embeddings().register_forward_hook(lambda module, ids, output: shapes.append(tuple(ids[0].shape)))
    first, again = (states_before(backbone, backbone.model, start, ANSWERS) for _ in range(2))
    hook.remove()
    assert shapes == [(1, len(start)), (3, 4)] * 2
    assert all(torch.equal(a, b) for one, other in zip(first, again, strict=True) for a, b in zip(one, other, strict=True))
    assert states_before(backbone, backbone.model, start, []) == []


def test_logits_of_a_set_exist_for_a_chunk_of_positions_at_a_time() -> None:
    backbone, rows = random_llama(), []
    head = backbone.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, arguments, output: rows.append(output[..., 0].numel()))
    answers = [tuple(range(10 + i, 110 + i)) for i in range(4)]
    states_before(backbone, backbone.model, (5, 6), answers)
    hook.remove()
    assert sum(rows) >= 400 and max(rows) <= backbone.memory_budget.positions < 400


def test_nats_on_visited_states_are_pooled_and_those_of_the_whole_distributions() -> None:
    backbone, tree = stories(), stirred(stories())
    traces = draw_answers(backbone, backbone.model, [prompt(backbone)] * 3, Sampling(0.8, 12), 5, adapter=False, keep_states=True)
    visited = [trace.visited(0.8) for trace in traces]
    total, states = 0.0, 0
    for trace in traces:
        with torch.no_grad():
            ids = tensor([[*trace.prompt_ids, *trace.ids]])
            p, q = ((forward(t, ids, keep=len(trace.ids) + 1).logits[0, :-1] / 0.8).log_softmax(-1) for t in (tree, backbone.model))
        total, states = total + float((p.exp() * (p - q)).sum()), states + len(trace.ids)
    assert nats_on(backbone, tree, visited, 0.8) == pytest.approx(total / states * 64, rel=1e-3)
    again = look_again(backbone, tree, visited[0], 0.8).policy_logprobs
    assert torch.allclose(again.exp().sum(1), again.new_ones(len(again)), atol=1e-4)


def test_nats_are_a_number_where_the_base_rules_tokens_out() -> None:
    backbone = stories()
    (trace,) = draw_answers(backbone, backbone.model, [prompt(backbone)], Sampling(1.0, 6), 5, adapter=False, keep_states=True)
    visited = trace.visited(1.0)
    head = backbone.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, arguments, output: output.index_fill(-1, tensor([7]), -math.inf))
    base = visited.base_logprobs.index_fill(-1, tensor([7]), -math.inf)
    nats = nats_on(backbone, backbone.model, [replace(visited, base_logprobs=base.log_softmax(-1))], 1.0)
    hook.remove()
    assert nats == pytest.approx(0, abs=1e-3)


def test_nats_of_answers_of_different_lengths_are_pooled() -> None:
    assert pooled_nats([1.0, 1.0], [2, 62]) == pytest.approx(2.0)
    assert pooled_nats([], []) == 0
