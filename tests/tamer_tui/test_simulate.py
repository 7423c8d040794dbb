"""A program in the operator's place, over a real session and database and a scripted engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from learners import protocol
from storage.queries import Record
from storage.records import Correction, Critique, Prompt, Ranking, Rating
from tamer_tui.operators import OperatorError
from tamer_tui.session import Session, SessionError, SessionSettings
from tamer_tui.simulate import HELD_OUT, Outcome, Plan, Simulation, check, shuffled
from tests.tamer_tui.fake_engine import FakeEngine

PROMPTS = tuple(Prompt.of(f"Once upon a time, there was a {noun} number {i}") for i in range(10) for noun in ("dog", "cat", "frog"))
HELD = tuple(prompt for prompt in PROMPTS if prompt.fraction < HELD_OUT)
Judge = Callable[[str, list[str]], list[float]]


class ScriptedEngine(FakeEngine):
    """Says what its policy says: the base 'dull', the acting policy 'good', the adapter alone 'fair'."""

    says = {"base": "dull", "acting": "good", "adapter": "fair"}

    def _draw(self, candidate: protocol.AnswerRequest, text: str) -> None:
        super()._draw(candidate, self.says[candidate.policy])


def goodness(prompt: str, responses: list[str]) -> list[float]:
    return [{"dull": 0.0, "fair": 1.0, "good": 2.0}[text] for text in responses]


def length(prompt: str, responses: list[str]) -> list[float]:
    return [float(len(text)) for text in responses]


def plan(score: Judge | None = length, **changes: object) -> Plan:
    defaults: dict[str, object] = {
        "rounds": 3, "feedback": "ranking", "operator": "t.py:score", "function": score, "judge": score or length,
        "judge_name": "t.py:judge", "train_seconds": None, "train_steps": None, "seed": 0,
    }  # fmt: skip
    return Plan(**(defaults | changes))  # type: ignore[arg-type]


def settings(prompts: tuple[Prompt, ...] = PROMPTS, **changes: object) -> SessionSettings:
    return SessionSettings("fake", prompts, **({"held_out": HELD_OUT, "autostart": False, "metered": True} | changes))  # type: ignore[arg-type]


async def simulated(path: Path, plan: Plan, engine: FakeEngine | None = None, **changes: object) -> Outcome:
    engine = engine or FakeEngine()
    session = Session(settings(**changes), lambda: engine, path)  # type: ignore[arg-type]
    await session.start()
    try:
        await session.wait_ready()
        return await Simulation(session, plan).run()
    finally:
        await session.close()


def asked(engine: FakeEngine) -> list[list[protocol.AnswerRequest]]:
    return [list(command.requests) for command in engine.received if isinstance(command, protocol.Generate)]


def granted(engine: FakeEngine) -> list[tuple[float | None, int | None, bool]]:
    return [(c.train_seconds, c.train_steps, c.flush) for c in engine.received if isinstance(c, protocol.Set)]


async def test_a_critic_says_each_thing_once_as_a_standing_wish_and_passes_over_the_rest(tmp_path: Path) -> None:
    said = iter(["shorter", None, " shorter ", "warmer"])
    await simulated(tmp_path / "a.db", plan(lambda prompt, responses: next(said), judge=length, rounds=4, feedback="critique"))  # type: ignore[arg-type]
    with Record(tmp_path / "a.db") as record:
        assert [(c.text, c.scope, c.response_uid) for c in (each.judgement for each in record.wishes()) if isinstance(c, Critique)] == [
            ("shorter", "all", None),
            ("warmer", "all", None),
        ]
        assert record.counts().skips == 2


async def test_a_critique_that_the_engine_cannot_read_is_told_in_a_line(tmp_path: Path) -> None:
    why = "the critique takes 300 tokens, more than half of the model's context of 512"

    class Short(FakeEngine):
        """Refuses what is long, and has no room for the rest beside the prompts."""

        def _learn(self, seq: int) -> None:
            critique = self.lessons[seq].judgement
            assert isinstance(critique, Critique)
            dropped = why if len(critique.text) > 20 else ""
            self.emit(protocol.Learned(seq=seq, h_epoch=1, milliseconds=1.0, beta=0.0, rankings=0, ratings=0, corrections=0, dropped=dropped))

        def _draw(self, candidate: protocol.AnswerRequest, text: str) -> None:
            if len(self.lessons) > 2:
                self.emit(protocol.Error(what="your critiques and this prompt do not fit together", hint="the critiques wait"))
            super()._draw(candidate, text)

    said, told = iter(["long " * 9, "shorter", "longer " * 9]), list[str]()
    critic = plan(lambda prompt, responses: next(said), judge=length, feedback="critique")  # type: ignore[arg-type, return-value]
    session = Session(settings(), Short, tmp_path / "a.db")
    await session.start()
    try:
        await session.wait_ready()
        await Simulation(session, critic, tell=told.append).run()
    finally:
        await session.close()
    assert told == [f"a critique was left out: {why}"] * 2 + ["your critiques and this prompt do not fit together: the critiques wait"]


async def test_a_critic_that_gives_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="returned int instead of a text or None"):
        await simulated(tmp_path / "a.db", plan(lambda prompt, responses: 3, judge=length, feedback="critique"))  # type: ignore[arg-type, return-value]


async def test_each_round_ranks_one_set_and_equal_scores_tie(tmp_path: Path) -> None:
    outcome = await simulated(tmp_path / "a.db", plan(lambda prompt, responses: [1.0, 3.0, 3.0, -math.inf], judge=length))
    with Record(tmp_path / "a.db") as record:
        lessons = record.lessons()
    assert outcome.rounds == len(lessons) == 3
    for taught in lessons:
        assert isinstance(taught.logged.judgement, Ranking)
        by_slot = [taught.logged.judgement.ranks[response.uid] for response in sorted(taught.responses, key=lambda r: r.slot)]
        assert by_slot == [2, 1, 1, 3]


async def test_held_out_prompts_are_never_shown_and_only_they_are_asked_at_the_end(tmp_path: Path) -> None:
    engine = FakeEngine()
    await simulated(tmp_path / "a.db", plan(rounds=len(PROMPTS)), engine)
    with Record(tmp_path / "a.db") as record:
        shown = {taught.sample_set.prompt.uid for taught in record.lessons()}
    assert shown and shown.isdisjoint(prompt.uid for prompt in HELD)
    rounds, end = asked(engine)[: len(PROMPTS)], asked(engine)[len(PROMPTS) :]
    held = {prompt.messages for prompt in HELD}
    assert not any(candidate.messages in held for part in rounds for candidate in part)
    for policy in ("base", "acting"):
        drawn = [candidate.messages for part in end for candidate in part if candidate.policy == policy]
        assert {messages: drawn.count(messages) for messages in drawn} == dict.fromkeys(held, 4)


async def test_rounds_go_through_all_prompts_before_any_comes_again(tmp_path: Path) -> None:
    prompts = (*HELD[:1], *[prompt for prompt in PROMPTS if prompt.fraction > 0.3][:3])
    await simulated(tmp_path / "a.db", plan(rounds=6), prompts=prompts)
    with Record(tmp_path / "a.db") as record:
        order = [taught.sample_set.prompt.uid for taught in record.lessons()]
    assert len(set(order[:3])) == 3 and order[3:] == order[:3]


def test_a_seed_decides_the_order_of_the_prompts_and_loses_none() -> None:
    assert shuffled(PROMPTS, 1) == shuffled(PROMPTS, 1) != shuffled(PROMPTS, 2)
    assert set(shuffled(PROMPTS, 1)) == set(PROMPTS) and shuffled(PROMPTS, 1) != PROMPTS


async def test_the_end_counts_wins_over_all_pairs_and_the_mean_scores_of_both(tmp_path: Path) -> None:
    outcome = await simulated(tmp_path / "a.db", plan(goodness, rounds=2), ScriptedEngine())
    assert (outcome.wins, outcome.ties, outcome.losses) == (4 * len(HELD), 0, 0)
    assert (outcome.win_rate, outcome.base_score, outcome.policy_score) == (1.0, 0.0, 2.0)
    assert outcome.win_rate_adapter_only is None and outcome.kl_adapter_only is None, "no version acts"
    assert outcome.kl_per_response == 2.0, "the mean of what the engine said of each acting answer"


async def test_ties_count_half(tmp_path: Path) -> None:
    outcome = await simulated(tmp_path / "a.db", plan(lambda prompt, responses: [0.0] * len(responses)))
    assert (outcome.wins, outcome.ties, outcome.losses, outcome.win_rate) == (0, 4 * len(HELD), 0, 0.5)


async def test_the_judge_of_the_end_sees_eight_shuffled_answers_and_the_operator_judges_the_rounds(tmp_path: Path) -> None:
    rounds: list[list[str]] = []
    end: list[list[str]] = []

    def operator(prompt: str, responses: list[str]) -> list[float]:
        rounds.append(responses)
        return goodness(prompt, responses)

    def judge(prompt: str, responses: list[str]) -> list[float]:
        end.append(responses)
        return goodness(prompt, responses)

    await simulated(tmp_path / "a.db", plan(operator, judge=judge, rounds=2), ScriptedEngine())
    assert len(rounds) == 2 and len(end) == len(HELD)
    assert all(sorted(texts) == ["dull"] * 4 + ["good"] * 4 for texts in end)
    assert len({tuple(texts) for texts in end}) > 1, "not always in one order"


async def test_a_version_is_judged_alone_against_the_same_base_answers(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def judge(prompt: str, responses: list[str]) -> list[float]:
        calls.append(sorted(responses))
        return goodness(prompt, responses)

    engine = ScriptedEngine(publish_after=2)
    outcome = await simulated(tmp_path / "a.db", plan(goodness, judge=judge, rounds=2, train_seconds=1.0), engine)
    assert (outcome.versions, outcome.published, outcome.refused) == (1, 1, {})
    assert outcome.win_rate_adapter_only == 1.0 and outcome.kl_adapter_only == 2.0
    assert outcome.reward_pair_accuracy == 0.83
    assert calls.count(["dull"] * 4 + ["good"] * 4) == calls.count(["dull"] * 4 + ["fair"] * 4) == len(HELD)
    drawn = [candidate.policy for part in asked(engine)[2:] for candidate in part]
    assert {policy: drawn.count(policy) for policy in drawn} == dict.fromkeys(("base", "acting", "adapter"), 4 * len(HELD))


async def test_a_version_that_the_last_flush_published_is_judged_too(tmp_path: Path) -> None:
    class PublishesAtTheGate(ScriptedEngine):
        """Takes the acknowledgement up only when it is asked for answers: that is the latest that commands in order allow."""

        acknowledged: protocol.PublishAck | None = None

        def send(self, command: protocol.Command) -> None:
            if isinstance(command, protocol.PublishAck):
                self.acknowledged = command
                return
            if isinstance(command, protocol.Set) and command.flush:
                self.publish()
            if isinstance(command, protocol.Generate) and self.acknowledged is not None:
                super().send(self.acknowledged)
                self.acknowledged = None
            super().send(command)

    outcome = await simulated(tmp_path / "a.db", plan(goodness, rounds=1, train_seconds=1.0), PublishesAtTheGate())
    assert outcome.published == 1 and outcome.win_rate_adapter_only == 1.0


async def test_refused_versions_are_counted_by_reason(tmp_path: Path) -> None:
    class Refuses(FakeEngine):
        def send(self, command: protocol.Command) -> None:
            if isinstance(command, protocol.Set) and command.train_seconds:
                self.publish("worse on 12 prompts", published=False)
            super().send(command)

    outcome = await simulated(tmp_path / "a.db", plan(rounds=2, train_seconds=1.0), Refuses())
    assert (outcome.versions, outcome.published, outcome.refused) == (2, 0, {"worse": 2})


async def test_ratings_are_quantiles_of_all_scores_so_far(tmp_path: Path) -> None:
    await simulated(tmp_path / "a.db", plan(lambda prompt, responses: [1.0, 2.0, 3.0, 4.0], feedback="rating", judge=length, rounds=2))
    with Record(tmp_path / "a.db") as record:
        values = [logged.judgement.value for logged in record.live() if isinstance(logged.judgement, Rating)]
    assert len(values) == 8 and values[:4] == values[4:] == sorted(values[:4])
    assert values[0] < 4 < values[3]


async def test_a_correction_rewrites_one_answer_a_round_and_what_was_left_alone_is_no_judgement(tmp_path: Path) -> None:
    replies = iter(["Better.", None, "  "])

    def correct(prompt: str, response: str) -> str:
        reply = next(replies)
        return response if reply is None else reply

    await simulated(tmp_path / "a.db", plan(None, feedback="correction", function=correct))
    with Record(tmp_path / "a.db") as record:
        judgements = [logged.judgement for logged in record.live()]
    assert [j.text for j in judgements if isinstance(j, Correction)] == ["Better."] and len(judgements) == 1


@pytest.mark.parametrize(
    ("changes", "grants"),
    [
        ({}, []),
        ({"train_seconds": 0.0}, []),
        ({"train_seconds": 6.0}, [(2.0, None, False)] * 3 + [(None, None, True)]),
        ({"train_steps": 10}, [(None, 3, False), (None, 3, False), (None, 4, False), (None, None, True)]),
        ({"train_steps": 1}, [(None, 1, False), (None, None, True)]),
    ],
)
async def test_training_is_spread_over_the_rounds_and_ends_at_the_gate(
    tmp_path: Path, changes: dict[str, object], grants: list[tuple[float | None, int | None, bool]]
) -> None:
    engine = FakeEngine()
    await simulated(tmp_path / "a.db", plan(**changes), engine)
    assert granted(engine) == grants


async def test_without_rounds_what_is_on_disk_is_trained_on_all_at_once(tmp_path: Path) -> None:
    await simulated(tmp_path / "a.db", plan())
    engine = FakeEngine()
    outcome = await simulated(tmp_path / "a.db", plan(rounds=0, train_seconds=6.0), engine)
    assert outcome.rounds == 0 and granted(engine) == [(6.0, None, False), (None, None, True)]
    assert len(engine.lessons) == 3, "replayed"
    with Record(tmp_path / "a.db") as record:
        assert record.counts().judged == 3


async def test_the_fits_of_the_human_reward_are_timed_without_training_too(tmp_path: Path) -> None:
    outcome = await simulated(tmp_path / "a.db", plan(rounds=3))
    assert outcome.seconds.human_reward == pytest.approx(0.012 * outcome.rounds, abs=0.013), "12 ms each; the replay's may count"
    assert outcome.seconds.reward == outcome.seconds.policy == 0.0


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0, math.nan]])
async def test_an_operator_that_fails_ends_it_and_what_was_judged_stays(tmp_path: Path, scores: list[float]) -> None:
    calls = iter([[1.0, 2.0, 3.0, 4.0], scores])
    with pytest.raises(OperatorError, match=r"t\.py:score gave"):
        await simulated(tmp_path / "a.db", plan(lambda prompt, responses: next(calls)))
    with Record(tmp_path / "a.db") as record:
        assert record.counts().judged == 1


async def test_broken_off_answers_of_a_dead_engine_are_not_judged(tmp_path: Path) -> None:
    class Dies(FakeEngine):
        def _draw(self, candidate: protocol.AnswerRequest, text: str) -> None:
            super()._draw(candidate, text)
            if len(asked(self)) == 2 and self.running:
                self.die()

    with pytest.raises(SessionError, match="signal 9"):
        await simulated(tmp_path / "a.db", plan(), Dies())
    with Record(tmp_path / "a.db") as record:
        assert record.counts().judged == 1


async def test_what_cannot_work_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shown = tuple(prompt for prompt in PROMPTS if prompt not in HELD)
    with pytest.raises(SessionError, match="held out"):
        check(settings(shown), plan(), path, False)
    with pytest.raises(SessionError, match="left to judge"):
        check(settings(HELD), plan(), path, False)
    with pytest.raises(SessionError, match="no judgements to go on with"):
        check(settings(), plan(rounds=0), path, True)
    assert not path.exists(), "looking leaves nothing behind"
    check(settings(), plan(), path, False)
    await simulated(path, plan(rounds=1))
    with pytest.raises(SessionError, match=r"1 judgements already.*--resume"):
        check(settings(), plan(), path, False)
    check(settings(), plan(), path, True)
    check(settings(HELD), plan(rounds=0), path, True)
