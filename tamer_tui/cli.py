"""The `tamer` command. Everything heavy is imported by the command that needs it: `tamer --version` answers at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tamer_tui import __version__

if TYPE_CHECKING:
    from tamer_tui.session import Session
    from tamer_tui.views import SessionSettings

T = TypeVar("T")
STAGES = ("sft", "reward", "distill", "ppo")


class _Commands(click.Group):
    """`tamer`, `tamer --model M` and `tamer FILE.db` mean `tamer run …`; every failure is one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--version", "--help", "-h"}
        if not args or (args[0] not in self.commands and args[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from tamer_tui.config import ConfigError, file_defaults

        try:
            defaults = file_defaults()
        except ConfigError as error:
            raise click.ClickException(str(error)) from error
        ctx.default_map = dict.fromkeys(self.commands, defaults)
        return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TAMER"})
@click.version_option(__version__, prog_name="tamer", message="%(prog)s %(version)s")
def main() -> None:
    """Teach a language model by hand, and see it learn."""


# --- options that commands share ----------------------------------------------------------------------------------------

_OPTIONS: dict[str, Callable[..., Any]] = {
    "model": click.option("--model", default="pocket", show_default=True, help="Directory, hub id or 'pocket'."),
    "quantize": click.option("--quantize", type=click.Choice(["auto", "nf4", "int8", "none"]), default="auto", show_default=True),
    "device": click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    "k": click.option("-k", type=click.IntRange(1, 9), default=4, show_default=True, help="Answers to each prompt."),
    "prompts": click.option("--prompts", type=click.Path(path_type=Path), help="One prompt a line, or JSON lines."),
    "system": click.option("--system", help="A system message before every prompt."),
    "temperature": click.option("--temperature", type=click.FloatRange(0, 10, min_open=True), default=1.0, show_default=True),
    "max_new_tokens": click.option("--max-new-tokens", type=click.IntRange(1, 100_000), default=256, show_default=True),
    "nats": click.option(
        "--nats", type=click.FloatRange(0, 1000), default=6.0, show_default=True, help="Budget against the base, per 64 tokens."
    ),
    "no_bias": click.option("--no-bias", is_flag=True, help="No steering by Ĥ: only adapters act."),
    "seed": click.option("--seed", type=int, default=0, show_default=True),
    "engine": click.option("--engine", metavar="CMD", help="How to start the engine, such as 'ssh gpu-box tamer engine'."),
    "trust_remote_code": click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model."),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
}


def _options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return decorate


_MODEL_OPTIONS = ("model", "quantize", "device", "trust_remote_code", "engine", "seed")
_DATABASE = click.argument("database", type=click.Path(path_type=Path, dir_okay=False))


# --- commands ---------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("database", required=False, type=click.Path(path_type=Path, dir_okay=False))
@_options(*_MODEL_OPTIONS, "k", "prompts", "system", "temperature", "max_new_tokens", "nats", "no_bias")
def run(database: Path | None, **options: Any) -> None:
    """Open the Arena (also: `tamer`, `tamer DB`)."""
    settings = _settings(options)

    from tamer_tui.app import run as run_app

    sys.exit(run_app(settings, database, _engine_command(options)))


@main.command()
@_DATABASE
@_options(*_MODEL_OPTIONS, "k", "prompts", "system", "temperature", "max_new_tokens", "nats", "no_bias", "json")
@click.option("--operator", required=True, metavar="FILE.py:FUNC", help="judge(prompt, responses) -> scores, or correct(prompt, response).")
@click.option("--judge", metavar="FILE.py:FUNC", help="For the end, with --feedback correction.")
@click.option("--feedback", type=click.Choice(["ranking", "rating", "correction"]), default="ranking", show_default=True)
@click.option("--rounds", type=click.IntRange(0), default=25, show_default=True)
@click.option("--train-seconds", type=click.FloatRange(0), help="The learner's wall time in all; 0 trains no adapter.")
@click.option("--train-steps", type=click.IntRange(0), help="Optimizer steps in all, instead of seconds.")
@click.option("--stages", default=",".join(STAGES), show_default=True)
@click.option("--resume", is_flag=True, help="Go on with a database that has judgements.")
@click.option("--unigram", is_flag=True, hidden=True)
@click.option("--frozen-ppo", is_flag=True, hidden=True)
def simulate(database: Path, as_json: bool, **options: Any) -> None:
    """Let a program judge in the operator's place, and report what came of it as JSON."""
    import msgspec

    from tamer_tui.operators import OperatorError, load_function
    from tamer_tui.simulate import Plan, Simulation, check_database, check_prompts

    if options["prompts"] is None:
        raise click.UsageError("simulate needs --prompts FILE")
    if options["train_seconds"] is not None and options["train_steps"] is not None:
        raise click.UsageError("--train-seconds and --train-steps exclude each other")
    correcting = options["feedback"] == "correction"
    if correcting and not options["judge"]:
        raise click.UsageError("--feedback correction needs --judge FILE.py:FUNC for the end")
    if options["rounds"] == 0 and not options["resume"]:
        raise click.UsageError("--rounds 0 only makes sense with --resume")
    try:
        operator = load_function(options["operator"])
        judge = load_function(options["judge"]) if options["judge"] else operator
    except OperatorError as error:
        raise click.ClickException(str(error)) from error
    plan = Plan(
        options["rounds"], options["feedback"], options["operator"], judge, options["judge"] or options["operator"],
        operator if correcting else None, options["train_seconds"], options["train_steps"], options["seed"],
    )  # fmt: skip
    settings = _settings(options, metered=True, held_out=0.2, autostart=False, operator=options["operator"])

    async def simulated(session: Session) -> Any:
        check_database(session, options["resume"])
        check_prompts(session, plan.rounds)
        return await Simulation(session, plan, _progress).run()

    outcome = _with_session(settings, database, _engine_command(options), simulated)
    click.echo(msgspec.json.encode(outcome).decode())


@main.command()
@_options(*_MODEL_OPTIONS, "prompts", "system", "temperature", "max_new_tokens", "json")
@click.option("--db", "database", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--version", "version", default="latest", show_default=True, help="base, latest or a version's id.")
@click.option("-n", "n", type=click.IntRange(1, 1000), default=1, show_default=True, help="Answers to each prompt.")
def generate(database: Path | None, version: str, n: int, as_json: bool, **options: Any) -> None:
    """Answer prompts with the base or a version, as JSON lines."""
    from tamer_tui.generate import answers

    if options["prompts"] is None:
        raise click.UsageError("generate needs --prompts FILE")
    if database is None and version not in ("base", "latest"):
        raise click.UsageError(f"--version {version} needs --db")
    for line in answers(_settings(options, metered=True, autostart=False, bias=False), database, version, n, _engine_command(options)):
        click.echo(line)


@main.command()
@_DATABASE
@_options("json")
def versions(database: Path, as_json: bool) -> None:
    """List the versions of a database, with the reasons."""
    from tamer_tui.reports import versions_report

    click.echo(_report(versions_report, database, as_json))


@main.command()
@_DATABASE
@_options("json")
def stats(database: Path, as_json: bool) -> None:
    """Say what a database holds."""
    from tamer_tui.reports import stats_report

    click.echo(_report(stats_report, database, as_json))


@main.command()
@_DATABASE
@click.argument("version")
def rollback(database: Path, version: str) -> None:
    """Let the next sitting act with an earlier VERSION ('base' for none)."""
    from tamer_tui.notebook import SessionError
    from tamer_tui.reports import roll_back

    try:
        click.echo(roll_back(database, version))
    except SessionError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_options("json")
@click.option("--model", help="A model's directory: its size and what it takes.")
@click.option("--quantize", type=click.Choice(["auto", "nf4", "int8", "none"]), default="auto")
def doctor(model: str | None, quantize: str, as_json: bool) -> None:
    """Look at the machine: what is here, what is missing, what to do."""
    from tamer_tui.doctor import examine

    report = examine(model, quantize)
    click.echo(report.as_json() if as_json else report.as_text())
    sys.exit(0 if report.healthy else 1)


@main.command()
def engine() -> None:
    """Run the engine on stdin and stdout (for --engine over ssh)."""
    from runpy import run_module

    run_module("learners.engine", run_name="__main__")


# --- what they share --------------------------------------------------------------------------------------------------------


def _settings(options: dict[str, Any], **more: Any) -> SessionSettings:
    from storage.records import Sampling
    from tamer_tui.prompts import PromptError, read_prompts
    from tamer_tui.views import SessionSettings

    stages = tuple(part.strip() for part in options.get("stages", ",".join(STAGES)).split(",") if part.strip())
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise click.UsageError(f"--stages takes {', '.join(STAGES)}, not {unknown[0]}")
    try:
        prompts = read_prompts(options["prompts"], options["system"]) if options["prompts"] is not None else ()
    except PromptError as error:
        raise click.UsageError(str(error)) from error
    settings = {
        "bias": not options.get("no_bias", False), "k": options.get("k", 4), "nats": options.get("nats", 6.0),
        "unigram": options.get("unigram", False), "frozen_ppo": options.get("frozen_ppo", False), **more,
    }  # fmt: skip
    return SessionSettings(
        options["model"], prompts, sampling=Sampling(options["temperature"], options["max_new_tokens"]), quantize=options["quantize"],
        device=options["device"], seed=options["seed"], system=options["system"], trust_remote_code=options["trust_remote_code"],
        stages=stages, **settings,
    )  # type: ignore[arg-type]  # fmt: skip


def _engine_command(options: dict[str, Any]) -> tuple[str, ...] | None:
    import shlex

    return tuple(shlex.split(options["engine"])) if options.get("engine") else None


def _with_session(
    settings: SessionSettings, database: Path, command: tuple[str, ...] | None, work: Callable[[Session], Coroutine[Any, Any, T]]
) -> T:
    """Run something over a session that is ready; failures are one line and exit code 1."""
    from tamer_tui.headless import with_session
    from tamer_tui.operators import OperatorError
    from tamer_tui.session import SessionError

    try:
        return asyncio.run(with_session(settings, database, command, work))
    except (SessionError, OperatorError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped: everything judged is in {database}") from None


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[2K{line}", nl=False, err=True)


def _report(report: Callable[[Path, bool], str], database: Path, as_json: bool) -> str:
    from tamer_tui.notebook import SessionError

    try:
        return report(database, as_json)
    except SessionError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
