"""A step that no graph can be made of, as on a GPU, by a fake: answers come by ordinary forwards, and the operator is told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
from torch import Tensor, nn

from learners.engine.remarks import Remarks
from learners.model import sampling
from learners.model.static_decoder import Outputs, StaticDecoder
from learners.protocol import AnswerRequest, Event, Load, Notice, Ready, Replay, Set
from tests.learners.engine.test_serving import PROMPTS, SAMPLING, Engine
from tests.learners.models import STORIES, needs_stories

WHY = "operation not permitted when stream is capturing"


@pytest.fixture
def failing_captures(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every tree draws as on a GPU, and none of its steps can be captured. The trees that tried."""
    tried: list[nn.Module] = []

    def fails(step: Callable[[], Outputs], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], Outputs]:
        step()
        raise RuntimeError(f"{WHY} ({len(tried)})")

    def decoder_of(tree: nn.Module) -> StaticDecoder:
        if "_static_decoder" not in tree.__dict__:
            tried.append(tree)
            tree.__dict__["_static_decoder"] = StaticDecoder(tree, fails)
        return tree.__dict__["_static_decoder"]

    monkeypatch.setattr(sampling, "static_decoder", decoder_of)
    return tried


@needs_stories
def test_a_capture_that_fails_is_told_once_after_the_model_is_there_and_answers_come(
    failing_captures: list[nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(Load(model=str(STORIES), metered=True, sampling=SAMPLING, stages=("distill",), train_prompts=PROMPTS))
    engine.send(Replay(lessons=(), last=True))
    ended = engine.draw(*(AnswerRequest(uid=str(i), seed=i, messages=PROMPTS[i], policy="base") for i in range(3)))
    assert all(len(engine.ids(uid)) == each.n_tokens > 0 for uid, each in ended.items())
    tree = engine.workers.learner._trees[1]
    list(sampling.decode(tree, [sampling.Row("a", (1, 2, 3), 0)], SAMPLING, (), 0))  # another tree, for another reason
    engine.draw(AnswerRequest(uid="last", seed=0, messages=PROMPTS[0], policy="base"))
    engine.send(Set(paused=True))

    assert len(failing_captures) >= 2
    notices = [i for i, event in enumerate(engine.seen) if isinstance(event, Notice)]
    ready = next(i for i, event in enumerate(engine.seen) if isinstance(event, Ready))
    assert len(notices) == 1 and notices[0] > ready
    assert WHY in engine.seen[notices[0]].what and "\n" not in engine.seen[notices[0]].what  # type: ignore[union-attr]
    assert capfd.readouterr().err.count(WHY) >= 2, "the log has each"


def test_warnings_before_anybody_listens_are_kept_and_an_engine_loaded_later_hears_them_in_its_place() -> None:
    first: list[Event] = []
    second: list[Event] = []
    logger = logging.getLogger("learners.model.anything")
    remarks = Remarks()
    logger.warning("slow: %s", "this")
    logger.info("nothing of interest")
    assert not first
    remarks.tell(first.append)
    logger.warning("slow: %s", "that")
    logger.warning("another thing")
    Remarks().tell(second.append)
    logger.warning("slow: %s", "again")
    assert [notice.what for notice in first] == ["slow: this", "another thing"]  # type: ignore[union-attr]
    assert [notice.what for notice in second] == ["slow: again"]  # type: ignore[union-attr]
