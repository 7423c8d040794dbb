"""Prompts that the model cannot read, or not all of: the others go on, and it is said."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from learners import protocol
from learners.protocol import Started
from storage.records import Prompt, Ranking, Rating
from tamer_tui.cli import main
from tamer_tui.session import Session, SessionError
from tamer_tui.session.engine import PROMPT_CHARACTERS, _messages
from tamer_tui.simulate import Simulation
from tamer_tui.told_lessons import REPLAY_CHARACTERS
from tamer_tui.views import CandidateView
from tamer_tui.widgets.candidate_pane import CandidatePane
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.test_session import sitting, uids, until
from tests.tamer_tui.test_simulate import PROMPTS as MANY
from tests.tamer_tui.test_simulate import plan, settings, simulated

STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ m.content }}\n{% endfor %}"
)


class Picky(FakeEngine):
    """Cannot read prompts with these words, and cuts all others by 40 tokens."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    def _draw(self, candidate: protocol.AnswerRequest, text: str) -> None:
        if any(word in candidate.messages[-1].content for word in self.words):
            self.emit(protocol.Error(what="the template refuses it", hint="the other prompts are used", uid=candidate.uid))
        else:
            super()._draw(candidate, text)

    def emit(self, event: protocol.Event) -> None:
        if isinstance(event, Started):
            event = Started(**{name: getattr(event, name) for name in event.__struct_fields__} | {"truncated": 40})
        super().emit(event)


async def test_a_set_whose_prompt_is_refused_ends_and_the_next_one_can_be_opened(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db", Picky("dog")) as session:
        assert session.current is not None and session.current.ended
        assert {candidate.refused for candidate in session.current.candidates} == {"the template refuses it"}
        assert "the template refuses it" in session.notice
        await session.judging.skip()
        await session.sets.open_next()
        view = await session.sets.wait_ended()
        assert all(candidate.text and not candidate.refused and candidate.cut == 40 for candidate in view.candidates)


def test_a_pane_says_what_was_cut_and_what_was_refused() -> None:
    view = CandidateView("u", 0, "base", 1)
    pane = CandidatePane(view)
    view.begin(Started(uid="u", prompt_ids=(1,), version="base", h_epoch=0, beta=0.0, policy="base", truncated=1234))
    view.ended = "eos"
    assert pane._progress(False) == "done · prompt cut by 1,234 tokens"
    view.refused = "roles must alternate"
    assert pane._progress(False) == "the model cannot read this prompt"


async def test_simulate_passes_over_refused_prompts_and_counts_what_was_cut(tmp_path: Path) -> None:
    outcome = await simulated(tmp_path / "a.db", plan(rounds=20), Picky("dog"))
    dogs = [prompt for prompt in MANY if "dog" in prompt.text]
    assert outcome.rounds == 20 and 0 < outcome.prompts_refused <= len(dogs)  # type: ignore[operator]
    assert outcome.prompt_tokens_cut == 40 * outcome.prompts_cut > 0  # type: ignore[operator]
    whole = await simulated(tmp_path / "b.db", plan(rounds=2))
    assert isinstance(whole.prompts_refused, type(whole.prompts_cut)) and not isinstance(whole.prompts_refused, int)


async def test_simulate_says_when_it_can_use_none_of_the_prompts(tmp_path: Path) -> None:
    session = Session(settings(), lambda: Picky("Once"), tmp_path / "a.db")
    await session.start()
    told: list[str] = []
    try:
        await session.wait_ready()
        with pytest.raises(SessionError, match="none of the held-out prompts can be used: the template refuses it"):
            await Simulation(session, plan(rounds=1), tell=told.append).run()
    finally:
        await session.close()
    assert told[0] == "a prompt was left out: the template refuses it"


def test_generate_leaves_refused_prompts_out_and_says_what_was_cut(stories260k: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(stories260k, tmp_path / "model"))
    (model / "chat_template.jinja").write_text(STRICT)
    refused = [{"role": "assistant", "content": "Once"}, {"role": "user", "content": "upon"}]
    long = [{"role": "user", "content": "Old words. " * 400}, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "One day"}]
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps(line) for line in ({"messages": refused}, {"messages": long}, {"prompt": "A dog"})))
    arguments = ["generate", "--model", str(model), "--prompts", str(prompts), "--max-new-tokens", "6", "-n", "2"]
    done = CliRunner().invoke(main, arguments)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and [line["prompt"] for line in lines] == ["One day", "One day", "A dog", "A dog"]
    assert [line.get("prompt_tokens_cut", 0) > 800 for line in lines] == [True, True, False, False]
    assert "1 of 3 prompts were left out: " in done.stderr and "roles must alternate" in done.stderr
    assert "1 of 3 prompts were longer than the context: " in done.stderr
    prompts.write_text(json.dumps({"messages": refused}))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1 and "none of the prompts can be used" in done.stderr


# --- what the engine is told ---------------------------------------------------------------------------------------------


async def test_the_log_always_ends_with_its_last_line_and_long_texts_come_in_more_lines(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        replays = [c for c in engine.received if isinstance(c, protocol.Replay)]
        assert [(r.lessons, r.last) for r in replays] == [((), True)], "an empty log ends too"
        for text in ("short", "x" * REPLAY_CHARACTERS, "y" * (REPLAY_CHARACTERS // 2)):
            await session.judging.demonstrate(text)
            await session.sets.open_next()
            await session.sets.wait_ended()
            await session.judging.correct(uids(session)[0], text)
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine):
        replays = [c for c in engine.received if isinstance(c, protocol.Replay)]
        assert [r.last for r in replays] == [False] * (len(replays) - 1) + [True]
        assert [lesson.seq for r in replays for lesson in r.lessons] == sorted(engine.lessons) and len(engine.lessons) == 6
        assert all(len(protocol.encode(r)) < protocol.MAX_LINE for r in replays)


async def test_what_goes_to_the_engine_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []
    encode = protocol.encode
    monkeypatch.setattr(protocol, "encode", lambda line: (encoded.append(line), encode(line))[1])
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        await session.judging.rank({uids(session)[0]: 1})
    assert {type(command) for command in engine.received} > {protocol.Replay, protocol.Generate, protocol.AddJudgement}
    assert encoded == engine.received


async def test_no_line_is_longer_than_the_engine_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever prompts, answers and judgements hold."""
    monkeypatch.setattr(protocol, "MAX_LINE", 4000)
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        await session.sets.open_prompt("long " * 300)  # one goes into a line, four do not
        view = await session.sets.wait_ended()
        assert all(c.text and not c.refused for c in view.candidates)
        await session.judging.rank({uids(session)[0]: 1})
        await session.sets.open_prompt("longer " * 900)  # not even one does
        view = await session.sets.wait_ended()
        assert all("too long" in c.refused for c in view.candidates)
        await session.judging.demonstrate("short")
        said = []
        monkeypatch.setattr(session, "say", said.append)
        await session.judging.rank({uids(session)[0]: 1})
    assert any("left out" in line for line in said)
    again = FakeEngine()
    async with sitting(tmp_path / "a.db", again):
        pass
    for each in (engine, again):
        assert all(len(protocol.encode(command)) <= 4000 for command in each.received if not isinstance(command, protocol.Load))
    assert [c.last for c in again.received if isinstance(c, protocol.Replay)][-1], "the log ends all the same"


def test_of_very_many_prompts_learners_get_some_of_all() -> None:
    prompts = [Prompt.of(f"{i} " + "x" * 200) for i in range(40_000)]
    found = _messages(prompts)
    assert 1000 < len(found) < 4096 and sum(len(m.content) for (m,) in found) <= PROMPT_CHARACTERS
    assert _messages(prompts[:50]) == tuple(prompt.messages for prompt in prompts[:50])
    assert _messages([Prompt.of("y" * 10**6), *prompts[:3]]) == tuple(prompt.messages for prompt in prompts[:3])


async def test_a_judgement_of_one_answer_names_the_others_of_its_set(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        a, b, c, d = uids(session)
        rated = await session.judging.rate(b, 6)
        ranked = await session.judging.rank({a: 1, b: 2})
        await asyncio.sleep(0)
        assert [answer.uid for answer in engine.lessons[rated].answers] == [b]
        assert [answer.uid for answer in engine.lessons[rated].beside] == [a, c, d]
        assert all(answer.token_ids for answer in engine.lessons[rated].beside)
        assert isinstance(engine.lessons[rated].judgement, Rating) and isinstance(engine.lessons[ranked].judgement, Ranking)
        assert engine.lessons[ranked].beside == (), "it has them all"


async def test_the_screen_says_how_far_the_log_is_learned(tmp_path: Path) -> None:
    from tamer_tui.widgets.rail import narrow_lines, wide_lines

    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        engine.emit(protocol.Metrics(stage="human_reward", step=1200, of=3000, seconds_left=90.0))
        await until(session, lambda: session.status.replay is not None)
        wide, narrow = ("\n".join(line.plain for line in lines) for lines in (wide_lines(session), narrow_lines(session)))
        assert "learning from the log 1,200 of 3,000" in wide and "learning from the log 1,200 of 3,000" in narrow
        engine.emit(protocol.Metrics(stage="human_reward", step=3000, of=3000))
        await until(session, lambda: session.status.replay is None)
        assert "learning from the log" not in "\n".join(line.plain for line in wide_lines(session))
