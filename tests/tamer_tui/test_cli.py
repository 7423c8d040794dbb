"""Commands as they are typed: what they print, where, and with which exit code."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storage.journal import Journal
from storage.queries import Record
from storage.records import BASE_VERSION, Sampling
from tamer_tui import __version__
from tamer_tui.cli import main
from tamer_tui.config import config_file, default_database, engine_log
from tamer_tui.options import NATS
from tamer_tui.views import SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.test_simulate import HELD, PROMPTS, plan, simulated

JUDGE = "def judge(prompt, responses):\n    return [len(text) for text in responses]\n"


def tamer(*arguments: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, [str(argument) for argument in arguments])


def failed(result: Result, code: int, said: str) -> None:
    """One clear line on stderr, nothing on stdout, and no traceback."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (error,) = result.stderr.splitlines()
    assert error.startswith("Error: ") and said in error


@pytest.fixture
def operator(tmp_path: Path) -> str:
    path = tmp_path / "taste.py"
    path.write_text(JUDGE, encoding="utf-8")
    return f"{path}:judge"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(prompt.text for prompt in PROMPTS), encoding="utf-8")
    return path


@pytest.fixture
async def taught(tmp_path: Path) -> Path:
    """A database with two rankings and one published version."""
    await simulated(tmp_path / "taught.db", plan(rounds=2, train_seconds=1.0), FakeEngine(publish_after=2))
    return tmp_path / "taught.db"


# --- starting ------------------------------------------------------------------------------------------------------


def test_the_version_is_said_without_importing_anything_heavy() -> None:
    code = (
        "import sys\nfrom tamer_tui.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'textual', 'sqlite_utils', 'msgspec'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"tamer {__version__}", "")


def test_the_module_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "tamer_tui.cli", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"tamer {__version__}"


def test_bare_options_and_a_database_mean_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int, Path | None]] = []

    def run_app(settings, database, command):  # type: ignore[no-untyped-def]
        opened.append((settings.model, settings.k, database))
        return 0

    monkeypatch.setattr("tamer_tui.app.run", run_app)
    path = tmp_path / "mine.db"
    for arguments in ([], [path], ["-k", 2], ["run", path, "--model", "m"], [path, "--model", "m"]):
        assert tamer(*arguments).exit_code == 0
    assert opened == [("pocket", 4, None), ("pocket", 4, path), ("pocket", 2, None), ("m", 4, path), ("m", 4, path)]


def test_answers_are_shorter_by_default_for_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr("tamer_tui.app.run", lambda settings, database, command: lengths.append(settings.sampling.max_new_tokens))
    for arguments in ([], ["--model", "m"], ["--max-new-tokens", 5]):
        tamer(*arguments)
    assert lengths == [80, 256, 5]


def test_sampling_is_as_asked_for_and_what_is_left_unset_may_come_from_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SessionSettings] = []
    monkeypatch.setattr("tamer_tui.app.run", lambda settings, *_: seen.append(settings) or 0)
    for arguments in ([], ["--top-p", 0.9, "--top-k", 0, "--stop", "User:", "--stop", "\\n\\n", "--temperatures", "0.6, 1.2", "--max-new-tokens", 9]):
        assert tamer("run", *arguments).exit_code == 0
    assert tamer("run", TAMER_MIN_P="0.1").exit_code == 0
    assert [settings.sampling for settings in seen] == [
        Sampling(1.0, 80), Sampling(1.0, 9, top_p=0.9, stop=("User:", "\n\n")), Sampling(1.0, 80, min_p=0.1),
    ]  # fmt: skip
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    assert [settings.unset for settings in seen] == [names, ("temperature", "min_p", "repetition_penalty"), (*names[:3], names[4])]
    assert [settings.temperatures for settings in seen] == [(), (0.6, 1.2), ()]


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:13"])
def test_a_device_is_a_kind_or_one_of_several_gpus(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("tamer_tui.app.run", lambda settings, database, command: seen.append(settings.device) or 0)
    assert tamer("run", "--device", device).exit_code == 0 and seen == [device]


def test_a_model_that_cannot_work_is_refused_before_a_screen_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamer_tui.app.run", lambda *_: pytest.fail("a screen was opened"))
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\0\0\0")
    failed(tamer("run", "--model", tmp_path), 1, "no attention layers")
    failed(tamer("run", "--model", tmp_path / "cut.gguf"), 1, "cut off")
    failed(tamer("run", "--adapter", tmp_path), 1, "no adapter in")


def test_a_model_of_another_machine_is_looked_at_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None]] = []
    monkeypatch.setattr("tamer_tui.app.run", lambda settings, *_: seen.append((settings.model, settings.peft_adapter)) or 0)
    assert tamer("run", "--model", "/on/it/x.gguf", "--adapter", "/on/it/a", "--engine", "ssh box tamer engine").exit_code == 0
    assert seen == [("/on/it/x.gguf", "/on/it/a")]


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "cpu:0", "mps:0", "cuda:²", ""])
def test_what_is_no_device_is_refused(device: str) -> None:
    failed(tamer("run", "--device", device), 2, "none of auto, cpu, mps, cuda and cuda:N")


def test_a_misspelt_command_is_not_a_new_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed(tamer("verions", "a.db"), 2, "did you mean versions?")
    assert not list(tmp_path.glob("verions*"))


# --- settings ------------------------------------------------------------------------------------------------------


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr("tamer_tui.app.run", lambda settings, database, command: seen.append(settings.nats) or 0)
    tamer()
    config_file().parent.mkdir(parents=True)
    config_file().write_text("nats = 7\nmax-new-tokens = 9\n", encoding="utf-8")
    tamer()
    tamer(TAMER_NATS="8")
    tamer("--nats", "9", TAMER_NATS="8")
    tamer("--model", "elsewhere", "--nats", "10")
    assert seen == [NATS, 7.0, 8.0, 9.0, 10.0]


@pytest.mark.parametrize(("written", "said"), [("nats = ", "config.toml"), ("natz = 4", "no option natz"), ('nats = "x"', "--nats")])
def test_a_wrong_setting_in_the_file_is_named(written: str, said: str) -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text(written, encoding="utf-8")
    failed(tamer("run"), 2, said)


def test_everything_lies_where_the_xdg_rules_say() -> None:
    assert default_database("abcdef0123456789").parent == Path(os.environ["XDG_DATA_HOME"]) / "tamer"
    assert default_database("abcdef0123456789") != default_database("0123456789abcdef")
    assert engine_log().is_relative_to(os.environ["XDG_STATE_HOME"]) and config_file().is_relative_to(os.environ["XDG_CONFIG_HOME"])


# --- bad usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-k", 0], "'-k'"),
        (["-k", 10], "'-k'"),
        (["-k", 1], "a ranking compares answers"),
        (["--rounds", -1], "'--rounds'"),
        (["--rounds", 0], "--resume"),
        (["--nats", "nan"], "not a finite number"),
        (["--nats", -1], "'--nats'"),
        (["--temperature", 0], "'--temperature'"),
        (["--temperature", "1e-300"], "0.01<=x<=10"),
        (["--temperatures", "1,1e-300"], "0.01<=x<=10"),
        (["--repetition-penalty", "1e-300"], "0.1<=x<=10"),
        (["--temperatures", "0.6,,1"], "'--temperatures'"),
        (["--temperatures", "0.6,0"], "'--temperatures'"),
        (["--top-p", 0], "'--top-p'"),
        (["--top-p", 1.1], "'--top-p'"),
        (["--top-k", -1], "'--top-k'"),
        (["--min-p", 1.5], "'--min-p'"),
        (["--repetition-penalty", 0], "'--repetition-penalty'"),
        (["--stop", ""], "it is empty"),
        (["--thinking", "maybe"], "'--thinking'"),
        (["--max-thinking-tokens", 0], "'--max-thinking-tokens'"),
        (["--train-seconds", "inf"], "not a finite number"),
        (["--train-seconds", 1, "--train-steps", 1], "exclude each other"),
        (["--max-new-tokens", 0], "'--max-new-tokens'"),
        (["--quantize", "nf5"], "'--quantize'"),
        (["--stages", "sft,rlhf"], "not rlhf"),
        (["--seed", -1], "'--seed'"),
        (["--feedback", "correction"], "--judge"),
        (["--engine", "'unclosed"], "--engine"),
    ],
)
def test_values_that_make_no_sense_are_bad_usage(tmp_path: Path, prompts: Path, operator: str, arguments: list[object], said: str) -> None:
    failed(tamer("simulate", tmp_path / "a.db", "--prompts", prompts, "--operator", operator, *arguments), 2, said)
    assert not (tmp_path / "a.db").exists()


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
@pytest.mark.parametrize("command", ["run", "simulate", "generate"])
def test_prompts_that_cannot_be_read_are_bad_usage(tmp_path: Path, operator: str, command: str, content: bytes | None) -> None:
    path = tmp_path / "p.txt"
    if content is not None:
        path.write_bytes(content)
    more = [tmp_path / "a.db", "--operator", operator] if command == "simulate" else []
    failed(tamer(command, "--prompts", path, *more), 2, str(path))


def test_commands_that_need_prompts_say_so(tmp_path: Path, operator: str) -> None:
    failed(tamer("generate", "--model", tmp_path), 2, "--prompts FILE")
    failed(tamer("simulate", tmp_path / "a.db", "--operator", operator, "--model", tmp_path), 2, "--prompts FILE")
    failed(tamer("generate", "--version", "v1", "--prompts", "x"), 2, "--db")


# --- simulate ------------------------------------------------------------------------------------------------------


def test_simulate_refuses_before_it_starts_an_engine(tmp_path: Path, prompts: Path, operator: str, taught: Path) -> None:
    def simulate(database: Path, *more: object) -> Result:
        return tamer("simulate", database, "--prompts", prompts, "--operator", operator, "--engine", "no-such-engine", *more)

    failed(simulate(tmp_path / "a.db", "--operator", "nowhere.py:judge"), 1, "there is no file nowhere.py")
    failed(simulate(taught), 1, "--resume")
    held = {prompt.text for prompt in HELD}
    prompts.write_text("\n".join(prompt.text for prompt in PROMPTS if prompt.text not in held), encoding="utf-8")
    failed(simulate(tmp_path / "a.db"), 1, "held out")
    assert not (tmp_path / "a.db").exists()


def test_an_engine_that_cannot_be_started_is_one_line(tmp_path: Path, prompts: Path, operator: str) -> None:
    result = tamer("simulate", tmp_path / "a.db", "--prompts", prompts, "--operator", operator, "--engine", "no-such-engine")
    failed(result, 1, "the engine cannot be started")


def test_simulate_prints_one_json_object_and_nothing_else(stories260k: Path, tmp_path: Path, prompts: Path) -> None:
    talkative = tmp_path / "talkative.py"
    talkative.write_text("print('hello')\n" + JUDGE.replace("    return", "    print(prompt)\n    return"), encoding="utf-8")
    arguments = ["--model", stories260k, "--operator", f"{talkative}:judge", "--max-new-tokens", 4, "-k", 2, "--rounds", 1, "--json"]
    result = tamer("simulate", tmp_path / "a.db", "--prompts", prompts, *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) == set(
        """rounds versions published refused win_rate wins ties losses win_rate_adapter_only kl_per_response kl_adapter_only
        reward_pair_accuracy base_score policy_score seconds quantize seed""".split()
    )
    assert set(found["seconds"]) == {"generate", "judge", "human_reward", "reward", "policy", "total"}
    assert found["wins"] + found["ties"] + found["losses"] == 4 * len(HELD)


def test_ctrl_c_ends_simulate_in_one_line_with_everything_judged_on_disk(stories260k: Path, tmp_path: Path, prompts: Path) -> None:
    path = tmp_path / "interrupted.py"
    path.write_text(
        "import os, signal\ncalls = []\ndef judge(prompt, responses):\n    calls.append(1)\n"
        "    if len(calls) == 3:\n        os.kill(os.getpid(), signal.SIGINT)\n    return list(range(len(responses)))\n",
        encoding="utf-8",
    )
    command = [
        sys.executable, "-m", "tamer_tui.cli", "simulate", tmp_path / "a.db", "--model", stories260k, "--operator", f"{path}:judge",
        "--prompts", prompts, "--max-new-tokens", "4", "--rounds", "500",
    ]  # fmt: skip
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background of a shell ignores it
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, preexec_fn=heeded)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("Error: stopped") and len(done.stderr.splitlines()) == 1
    with Record(tmp_path / "a.db") as record:
        assert record.counts().judged >= 2


# --- generate ------------------------------------------------------------------------------------------------------


def test_generate_prints_a_line_for_each_answer_and_the_seed_decides(stories260k: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("Once upon a time\nThe dog\n", encoding="utf-8")
    arguments = ("generate", "--model", stories260k, "--prompts", path, "-n", 2, "--max-new-tokens", 6, "--json")
    first, again, other = (tamer(*arguments, "--seed", seed) for seed in (1, 1, 2))
    assert first.exit_code == 0 and first.stdout == again.stdout != other.stdout
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["Once upon a time"] * 2 + ["The dog"] * 2
    for line in lines:
        assert set(line) == {"prompt", "response", "version", "logprob", "n_tokens", "stop"}
        assert line["version"] == BASE_VERSION and line["logprob"] < 0 and 0 < line["n_tokens"] <= 6
        assert (line["stop"] == "length") == (line["n_tokens"] == 6) or line["stop"] == "eos"


def test_generate_and_simulate_tell_what_the_engine_remarks_on_stderr(
    tmp_path: Path, prompts: Path, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = ("the model was converted from x.gguf", "the adapter in a is part of the base")
    monkeypatch.setattr("tamer_tui.headless.EngineClient", lambda log: FakeEngine(notes=notes))
    simulate = ("simulate", tmp_path / "s.db", "--operator", operator, "--rounds", 1, "--train-seconds", 0)
    for command in (("generate",), simulate):
        found = tamer(*command, "--prompts", prompts)
        assert found.exit_code == 0, found.output
        lines = [line.strip() for line in found.stderr.splitlines()]
        assert [line for line in lines if line in notes] == list(notes) and not any(note in found.stdout for note in notes)


def test_generate_refuses_what_is_not_there(tmp_path: Path, prompts: Path, taught: Path) -> None:
    failed(tamer("generate", "--prompts", prompts, "--db", taught, "--version", "v9"), 1, "no published version v9")
    failed(tamer("generate", "--prompts", prompts, "--model", tmp_path / "nowhere"), 1, "nowhere")


def test_generate_refuses_a_version_of_another_base(stories260k: Path, prompts: Path, taught: Path) -> None:
    failed(tamer("generate", "--prompts", prompts, "--db", taught, "--model", stories260k), 1, "adapts fake")


# --- looking at a database -------------------------------------------------------------------------------------------


def test_versions_are_listed_for_people_and_programs(taught: Path) -> None:
    (version,) = json.loads(tamer("versions", taught, "--json").stdout)
    assert version["id"] == "v1" and version["published"] and version["reason"].startswith("better on 12 prompts")
    text = tamer("versions", taught).stdout
    assert all(word in text for word in ("v1", "distill", "published", "better on 12 prompts"))


def test_stats_are_told_to_people_and_programs(taught: Path) -> None:
    found = json.loads(tamer("stats", taught, "--json").stdout)
    assert (found["counts"]["rankings"], found["counts"]["published"], found["acting"]) == (2, 1, "v1")
    assert "2 rankings" in tamer("stats", taught).stdout
    told, verdict = tamer("stats", taught).stdout, found["verdict"]
    assert verdict["word"] == "" and verdict["flips"] is None and verdict["odds"] < 20, "two rankings prove nothing"
    assert ("not proven" in told and "won at equal length" in told) == (verdict["at_equal_length"] is not None)


def test_a_roll_back_is_recorded_and_can_be_taken_back(taught: Path) -> None:
    for version in (BASE_VERSION, "v1"):
        assert tamer("rollback", taught, version).exit_code == 0
        assert json.loads(tamer("stats", taught, "--json").stdout)["acting"] == version
    failed(tamer("rollback", taught, "v9"), 1, "no published version v9")


def test_a_database_in_use_can_be_looked_at_but_not_rolled_back(taught: Path) -> None:
    with Journal.open(taught):
        assert tamer("stats", taught).exit_code == tamer("versions", taught).exit_code == 0
        failed(tamer("rollback", taught, BASE_VERSION), 1, f"in use by PID {os.getpid()}")
    assert json.loads(tamer("stats", taught, "--json").stdout)["acting"] == "v1"


@pytest.mark.parametrize("command", ["versions", "stats", "rollback"])
def test_what_is_no_database_is_said_in_one_line(tmp_path: Path, command: str) -> None:
    more = [BASE_VERSION] if command == "rollback" else []
    failed(tamer(command, tmp_path / "none.db", *more), 1, "none.db")
    assert not (tmp_path / "none.db").exists(), "looking creates nothing"
    (tmp_path / "text.db").write_text("hello")
    failed(tamer(command, tmp_path / "text.db", *more), 1, "is not a database")


def test_doctor_measures_a_model_without_loading_it(stories260k: Path) -> None:
    result = tamer("doctor", "--model", stories260k, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    model = found["model"]
    assert (model["parameters"], model["layers"], model["width"]) == (260_032, 5, 64)
    assert model["base_bytes"] >= 4 * 260_032 and model["roles_bytes"] > 0


def test_doctor_says_what_is_wrong_with_a_model(tmp_path: Path) -> None:
    result = tamer("doctor", "--model", tmp_path)
    assert result.exit_code == 1 and "problem: " in result.stdout and "Traceback" not in result.output
