"""The generator where memory is short: embeddings that refuse more rows than fit stand for a device that is full."""

from __future__ import annotations

import pytest
import torch

from learners.engine.generator import Generator
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.model.forward import causal_model
from learners.model.lora import LoraSettings
from learners.protocol import AnswerRequest, Ended, Error, Event, Started, Tokens
from learners.rlhf.rollouts import states_before
from storage.records import Message, Sampling
from tests.learners.models import cpu_only, needs_stories, prompt, stories

pytestmark = needs_stories
SAMPLING = Sampling(1.0, 16)
REQUESTS = tuple(AnswerRequest(uid=f"a{i}", seed=i, messages=(Message("user", "Once upon a time"),), policy="base") for i in range(4))


class Memory:
    """Of a device that holds `rows` rows; from the `after`-th forward on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, after: int = 0) -> None:
        self.backbone, self.forwards = stories(), 0
        embed = causal_model(self.backbone.model).get_input_embeddings()
        whole = embed.forward

        def forward(ids: torch.Tensor) -> torch.Tensor:
            self.forwards += 1
            if self.forwards > after and ids.shape[0] > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return whole(ids)

        monkeypatch.setattr(embed, "forward", forward)


def drawn(requests: tuple[AnswerRequest, ...] = REQUESTS) -> tuple[dict[str, list[int]], list[Event]]:
    """Tokens of each answer as they crossed the wire, and all events."""
    backbone, events = stories(), list[Event]()
    head = RewardHead.empty(Features.fit(torch.randn(100, backbone.width, generator=torch.Generator().manual_seed(0))))
    generator = Generator(backbone, backbone.adapter_tree(LoraSettings()), head, 6.0, True, events.append)
    for _ in generator.draw(requests, SAMPLING):
        pass
    assert generator.drawing == []
    ids: dict[str, list[int]] = {request.uid: [] for request in requests}
    for event in events:
        for piece in event.pieces if isinstance(event, Tokens) else ():
            assert piece.start == len(ids[piece.uid]), "no token is sent twice"
            ids[piece.uid] += piece.ids
    return ids, events


@pytest.mark.parametrize(("rows", "after"), [(2, 0), (1, 0), (3, 6), (1, 9)])
def test_answers_that_do_not_fit_at_once_are_drawn_one_after_another_with_the_same_tokens(
    monkeypatch: pytest.MonkeyPatch, rows: int, after: int
) -> None:
    expected, _ = drawn()
    Memory(monkeypatch, rows, after)
    found, events = drawn()
    assert found == expected
    assert [event.uid for event in events if isinstance(event, Started)] == [request.uid for request in REQUESTS]
    assert sorted(event.uid for event in events if isinstance(event, Ended)) == [request.uid for request in REQUESTS]
    assert not any(isinstance(event, Error) for event in events)


@cpu_only
def test_an_answer_that_fits_nowhere_ends_with_one_line_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, rows=0, after=5)
    _, events = drawn()
    errors = [event for event in events if isinstance(event, Error)]
    assert {error.uid for error in errors} == {request.uid for request in REQUESTS}
    assert all("out of memory" in error.what and error.hint and not error.fatal for error in errors)
    assert all(event.reason == "stopped" for event in events if isinstance(event, Ended))
    memory.forwards = -(10**6)
    found, _ = drawn()
    assert all(found.values())


@cpu_only
def test_other_errors_of_a_forward_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ids: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(causal_model(stories().model).get_input_embeddings(), "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        drawn()


@cpu_only
def test_states_of_a_set_that_does_not_fit_are_computed_answer_by_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, answers = stories(), [(300,), (400, 401, 402), (400, 401, 402, 403)]
    start = prompt(backbone)
    expected = states_before(backbone, backbone.model, start, answers)
    Memory(monkeypatch, rows=1)
    for seen, wanted in zip(states_before(backbone, backbone.model, start, answers), expected, strict=True):
        assert torch.allclose(seen.hidden, wanted.hidden, atol=1e-4)
