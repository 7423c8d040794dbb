"""The real engine process, the real stories260k on NF4, a real database: teach, train, publish, die, resume."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.queries import Record
from storage.records import Arm, Prompt, Sampling
from tamer_tui.engine_client import LOCAL_ENGINE, EngineClient
from tamer_tui.session import EngineState, Session, SessionError, SessionSettings

PROMPTS = tuple(
    Prompt.of(f"Once upon a time, there was a {adjective} {noun}") for adjective in ("little", "big", "old") for noun in ("dog", "cat", "girl", "boy")
)


def session_over(model: Path, path: Path, **settings: object) -> tuple[Session, list[EngineClient]]:
    engines: list[EngineClient] = []

    def engine() -> EngineClient:
        engines.append(EngineClient(LOCAL_ENGINE, path.with_suffix(".log")))
        return engines[-1]

    defaults = {"sampling": Sampling(1.0, 24), "quantize": "nf4", "metered": True, "autostart": False, "k": 3, "stages": ("sft", "distill", "reward")}
    return Session(SessionSettings(str(model), PROMPTS, **(defaults | settings)), engine, path), engines  # type: ignore[arg-type]


async def rank_by_length(session: Session, rounds: int) -> None:
    for _ in range(rounds):
        await session.sets.open_next()
        view = await session.sets.wait_ended()
        order = sorted(view.candidates, key=lambda c: len(c.text))
        await session.judging.rank({c.uid: i + 1 for i, c in enumerate(order)})


async def until(session: Session, condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    session.observe(lambda change: changed.set())
    while not condition():
        await asyncio.wait_for(changed.wait(), 60)
        changed.clear()


async def test_rankings_train_a_version_that_peft_loads_and_the_next_sitting_resumes_from(stories260k: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    session, _ = session_over(stories260k, path)
    await session.start()
    await session.wait_ready()
    assert session.ready is not None and session.ready.quantize == "nf4"
    await rank_by_length(session, 4)
    await until(session, lambda: session.status.known == 4)
    assert session.status.acting[1] > 0, "the next answer is steered already"
    await session.evaluation.grant(steps=80)
    await session.evaluation.grant(flush=True)
    version = next(v for v in session.machine.versions() if v.published)
    assert session.status.acting[0] == version.id and version.acting
    runs = {run.stage: run for run in session.record.runs()}
    assert runs["distill"].seqs == tuple(logged.seq for logged in session.record.live())
    prompts = [PROMPTS[0]] * 2
    before = [view.text for view in await session.evaluation.draw(prompts, ["acting"] * 2, [1, 2])]
    await session.close()

    _assert_peft_loads(stories260k, path.with_name("a.db.versions") / version.sha256)

    session, _ = session_over(stories260k, path)
    await session.start()
    await session.wait_ready()
    await until(session, lambda: session.status.known == 4)
    assert session.status.acting[0] == version.id
    with pytest.raises(SessionError, match="no published version"):
        await session.machine.rollback("v99")
    await session.machine.rollback("base")
    drawn = await session.evaluation.draw(prompts, ["acting"] * 2, [1, 2])
    assert {view.started.version for view in drawn if view.started} == {"base"}
    assert [view.text for view in drawn] != before
    await session.close()


def _assert_peft_loads(model: Path, directory: Path) -> None:
    """In a process that knows nothing of this program."""
    script = f"""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(model)!r}).eval()
ids = torch.tensor([[1, 400, 300, 200]])
with torch.no_grad():
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, {str(directory)!r}).eval()(ids).logits
print(float((adapted - plain).abs().max()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=directory)
    assert float(done.stdout.split()[-1]) > 1e-3
    assert "Warning" not in done.stdout
    assert json.loads((directory / "manifest.json").read_text())["stage"] == "distill"


async def test_kill_9_of_the_engine_loses_nothing_and_a_restart_knows_everything(stories260k: Path, tmp_path: Path) -> None:
    session, engines = session_over(stories260k, tmp_path / "a.db", quantize="none")
    await session.start()
    await session.wait_ready()
    await rank_by_length(session, 1)
    await session.sets.open_next()
    view = await session.sets.wait_ended()
    engines[0]._process.kill()  # type: ignore[union-attr]
    await until(session, lambda: session.engine_state is EngineState.DEAD)
    assert "signal 9" in session.notice
    await session.judging.rank({view.candidates[0].uid: 1})
    await session.engine.restart()
    await session.wait_ready()
    await until(session, lambda: session.status.known == 2)
    await session.close()


async def test_the_engine_ends_by_itself_when_the_terminal_is_gone(stories260k: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *LOCAL_ENGINE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(b'{"type":"nonsense"}\n{"type":"load","model":"' + str(stories260k).encode() + b'"}\n')
    await process.stdin.drain()
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.mark.parametrize(("model", "line"), [("/nowhere/at/all", "no such directory"), ("{empty}", "no config.json")])
async def test_a_model_that_is_not_there_is_one_clear_line(tmp_path: Path, model: str, line: str) -> None:
    (tmp_path / "empty").mkdir()
    session, _ = session_over(Path(model.format(empty=tmp_path / "empty")), tmp_path / "a.db")
    await session.start()
    with pytest.raises(SessionError, match=line) as refused:
        await session.wait_ready()
    assert "\n" not in str(refused.value)
    await session.close()


def test_simulate_reports_every_figure_and_refuses_a_used_database(stories260k: Path, tmp_path: Path) -> None:
    (tmp_path / "operator.py").write_text("def judge(prompt, responses):\n    return [-len(r) for r in responses]\n")
    (tmp_path / "prompts.txt").write_text("\n".join(f"Once upon a time, there was a {i} {p.text.split()[-1]}" for i in range(4) for p in PROMPTS))
    command = [
        sys.executable, "-m", "tamer_tui.cli", "simulate", str(tmp_path / "a.db"), "--model", str(stories260k),
        "--operator", f"{tmp_path / 'operator.py'}:judge", "--prompts", str(tmp_path / "prompts.txt"), "--rounds", "3",
        "-k", "3", "--max-new-tokens", "16", "--train-seconds", "0", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert set(report) == {
        "rounds", "versions", "published", "refused", "win_rate", "wins", "ties", "losses", "win_rate_adapter_only", "kl_per_response",
        "kl_adapter_only", "reward_pair_accuracy", "base_score", "policy_score", "seconds", "quantize", "seed",
    }  # fmt: skip
    assert set(report["seconds"]) == {"generate", "judge", "human_reward", "reward", "policy", "total"}
    assert report["rounds"] == 3 and report["versions"] == 0 and report["kl_per_response"] > 0
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "has 3 judgements already" in again.stderr and again.stderr.count("\n") == 1


async def test_a_tap_bends_the_sentence_and_a_restart_gives_the_same_reward_to_every_word(stories260k: Path, tmp_path: Path) -> None:
    path, rewards = tmp_path / "a.db", []
    session, _ = session_over(stories260k, path, sampling=Sampling(1.0, 40))
    await session.start()
    await session.wait_ready()
    await session.taps.arm(True)  # silence counts too
    for value in (1.0, -1.0, 1.0):
        await session.taps.open_next()
        await session.sets.wait_ended()
        answer = session.taps.answer
        assert answer is not None
        for n in range(1, 13):
            session.taps.show(n, n / 6, wall=n / 6)
        kept, unseen = answer.token_ids[:12], answer.token_ids[12:]
        await session.taps.tap(value, "+", 2.3, wall=2.3)
        await session.sets.wait_ended()
        assert answer.token_ids[:12] == kept and answer.token_ids[12:] != unseen and [s.start for s in answer.spans] == [0, 12]
        assert answer.spans[1].h_epoch == answer.spans[0].h_epoch + 1 and answer.spans[1].beta > 0
        session.taps.show(20, 4.5, wall=4.5)
    await session.taps.finish()
    assert sum(isinstance(taught.logged.judgement, Arm) for taught in session.record.lessons()) == 3
    for fresh in (False, True):
        if fresh:
            await session.close()
            session, _ = session_over(stories260k, path, sampling=Sampling(1.0, 40))
            await session.start()
            await session.wait_ready()
        session.current = session.sets.from_record(session.record.lessons()[0].sample_set.uid)
        session.current.committed = True
        session.appraisals = {}
        session.judging.appraise()
        await until(session, lambda opened=session: bool(opened.appraisals))
        rewards.append({uid: appraisal.rewards for uid, appraisal in session.appraisals.items()})
    await session.close()
    assert rewards[0] == rewards[1], "Ĥ is a function of the live taps, to the last bit"
    assert any(any(values) for values in rewards[0].values())


def test_sigterm_ends_both_processes_with_everything_judged_on_disk(stories260k: Path, tmp_path: Path) -> None:
    (tmp_path / "operator.py").write_text("def judge(prompt, responses):\n    return [len(r) for r in responses]\n")
    (tmp_path / "prompts.txt").write_text("\n".join(p.text + f" {i}" for i in range(3) for p in PROMPTS))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tamer_tui.cli", "simulate", str(tmp_path / "a.db"), "--model", str(stories260k),
            "--operator", f"{tmp_path / 'operator.py'}:judge", "--prompts", str(tmp_path / "prompts.txt"), "--rounds", "500",
            "--max-new-tokens", "8", "--train-seconds", "0",
        ],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    judged = 0
    while judged < 2 and process.poll() is None:
        if (tmp_path / "a.db").exists():
            try:
                with Record(tmp_path / "a.db") as record:
                    judged = record.counts().judged
            except Exception:
                continue
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "stopped: everything judged is in" in errors
    with Record(tmp_path / "a.db") as record:
        assert record.counts().judged >= judged >= 2
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
