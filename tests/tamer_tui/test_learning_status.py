"""What the rail and the sentence say, from the engine's events alone."""

from __future__ import annotations

import pytest

from learners.protocol import Acting, Idle, Learned, Metrics
from tamer_tui.learning_status import LearningStatus
from tamer_tui.views import CandidateView


def learned(rankings: int = 0, ratings: int = 0, corrections: int = 0, epoch: int = 1, beta: float = 0.2) -> Learned:
    return Learned(seq=1, h_epoch=epoch, milliseconds=10.0, beta=beta, rankings=rankings, ratings=ratings, corrections=corrections)


def test_before_anything_is_learned_the_base_answers() -> None:
    status = LearningStatus(True, 6.0)
    assert status.sentence == "nothing learned yet · answering now: base"
    assert status.known == 0 and not status.adapted and status.seconds_since_change is None


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (learned(1), "learned from 1 ranking"),
        (learned(7), "learned from 7 rankings"),
        (learned(2, 1, 3), "learned from 2 rankings, 1 rating, 3 corrections"),
        (learned(), "nothing learned yet"),
    ],
)
def test_the_sentence_counts_what_was_learned_from(event: Learned, said: str) -> None:
    status = LearningStatus(True, 6.0)
    status.take(event)
    assert status.sentence.split(" · ")[0] == said


def test_the_sentence_says_who_answers_what_was_refused_and_what_is_held() -> None:
    status = LearningStatus(True, 6.0)
    status.take(learned(7))
    status.take(Acting(version="v2", beta=0.1, h_epoch=3))
    status.refused = "v3 refused: worse on 12 prompts"
    assert status.sentence == "learned from 7 rankings · answering now: v2 + Ĥ · v3 refused: worse on 12 prompts"
    status.bias, status.refused, status.held = False, "", True
    assert status.sentence == "learned from 7 rankings · answering now: v2 · learning is held: p resumes it"


def test_a_new_fit_keeps_the_version_and_a_new_version_is_a_change_of_policy() -> None:
    status = LearningStatus(True, 6.0)
    status.take(Acting(version="v2", beta=0.1, h_epoch=3))
    status.take(learned(1, epoch=4, beta=0.3))
    assert status.acting == ("v2", 0.3, 4) and status.adapted
    assert status.seconds_since_change is not None and status.seconds_since_change >= 0


def test_figures_that_a_line_lacks_stay_and_only_the_stage_at_work_is_marked() -> None:
    status = LearningStatus(True, 6.0)
    status.take(Metrics(stage="reward", step=3, of=10, seconds_left=2.0, loss=0.5, accuracy=0.8, note="warm"))
    status.take(Metrics(stage="reward", step=4, of=10, seconds_left=1.5, loss=0.4))
    status.take(Metrics(stage="ppo", step=1, of=8, reward=0.1))
    reward, ppo = status.learning["reward"], status.learning["ppo"]
    assert (reward.step, reward.of, reward.seconds_left, reward.loss, reward.accuracy, reward.note) == (4, 10, 1.5, 0.4, 0.8, "warm")
    assert ppo.active and not reward.active
    status.take(Metrics(stage="idle"))
    assert not ppo.active and "idle" not in status.learning


def test_an_idle_learner_and_a_lost_engine_mark_no_stage() -> None:
    status = LearningStatus(True, 6.0)
    status.take(Metrics(stage="sft", step=1, of=2))
    status.take(Idle(trained_seconds=3.0))
    assert not status.learning["sft"].active and status.trained == Idle(trained_seconds=3.0)
    status.take(Metrics(stage="sft", step=2, of=2))
    status.take(learned(4))
    status.forget()
    assert not status.learning["sft"].active and status.sentence == "nothing learned yet · answering now: base"


def test_nats_are_pooled_over_answers_and_not_a_mean_of_ratios() -> None:
    status = LearningStatus(True, 6.0)
    answers = ((4.0, 4), (3.0, 60), (2.0, 60), (1.0, 60))
    for kl, n in answers:
        view = CandidateView("u", 0, "acting", 1, token_ids=list(range(n)), kl=kl)
        status.draw(view)
    assert status.spent == pytest.approx(64 * (4 + 3 + 2 + 1) / (4 + 60 + 60 + 60))
    for policy in ("base", "adapter"):
        status.draw(CandidateView("u", 0, policy, 1, token_ids=[1], kl=100.0))
    assert status.spent == pytest.approx(64 * 10 / 184), "those of others do not count"
    assert LearningStatus(True, 6.0).spent is None
