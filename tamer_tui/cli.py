"""The `tamer` command. Everything heavy is imported by the command that needs it: `tamer --version` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from tamer_tui import __version__, exchange_commands, serve_command, simulate_command, train_command
from tamer_tui.options import (
    DATABASE,
    MODEL_OPTIONS,
    OF_A_TERMINAL,
    SAMPLING_OPTIONS,
    Since,
    engine_command,
    need_prompts,
    one_line_errors,
    option,
    options,
    session_settings,
    tell,
)

os.environ.setdefault("TEXTUAL_FPS", "120")  # a key waits half as long to be painted; what did not change is painted no more often


class _Commands(click.Group):
    """`tamer`, `tamer --model M` and `tamer FILE.db` mean `tamer run …`; every failure is one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--version", "--help", "-h"}
        if not args or (args[0] not in self.commands and args[0] not in own):
            self._refuse_misspelt(args)
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def _refuse_misspelt(self, args: list[str]) -> None:
        """A word close to a command is not the name of a new database."""
        word = args[0] if args else ""
        if not word or not word.isalpha() or Path(word).exists():
            return
        from difflib import get_close_matches

        if near := get_close_matches(word, self.commands, 1):
            raise click.UsageError(f"no command {word}: did you mean {near[0]}? (for a new database: tamer run {word})")

    def invoke(self, ctx: click.Context) -> Any:
        from tamer_tui.config import ConfigError, config_file, file_defaults

        try:
            defaults = file_defaults()
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        known = {parameter.name for command in self.commands.values() for parameter in command.params}
        if unknown := sorted(set(defaults) - known):
            raise click.UsageError(f"{config_file()}: there is no option {unknown[0]}")
        ctx.default_map = dict.fromkeys(self.commands, defaults)
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            from tamer_tui.text import visible

            if isinstance(error, click.UsageError):  # without its context: one line says it, and click would print three more of usage before it
                raise click.UsageError(visible(error.format_message())) from error
            raise click.ClickException(visible(error.format_message())) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tamer", message="%(prog)s %(version)s")
def main() -> None:
    """Teach a language model by hand, and see it learn."""


main.add_command(exchange_commands.export)
main.add_command(exchange_commands.import_)
main.add_command(serve_command.serve)
main.add_command(simulate_command.simulate)
main.add_command(train_command.train)


@main.command()
@click.argument("database", required=False, type=click.Path(path_type=Path, dir_okay=False))
@options(*MODEL_OPTIONS, "k", "best_of", "prompts", "system", *SAMPLING_OPTIONS, "temperatures", "learn_thoughts", "nats", "no_bias", "name")
def run(database: Path | None, **chosen: Any) -> None:
    """Open the Arena (also: `tamer`, `tamer DB`)."""
    settings = session_settings(chosen)

    from tamer_tui.app import run as run_app

    sys.exit(run_app(settings, database, engine_command(chosen)))


@main.command("serve-web", context_settings={"ignore_unknown_options": True})
@click.option("--host", default="localhost", show_default=True, help="A name or address of this machine alone.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[DATABASE] [OPTIONS OF RUN]")
@click.pass_context
def serve_web(context: click.Context, host: str, port: int, arguments: tuple[str, ...]) -> None:
    """Show the Arena in a browser of this machine (needs the extra 'web')."""
    from tamer_tui.serve_web import serve

    with run.make_context("run", list(arguments), parent=context.parent):  # what `run` would refuse is refused here
        pass
    with one_line_errors():
        tell(f"http://{host}:{port} shows the Arena; ctrl+c ends it", err=True)
        serve(arguments, host, port)


@main.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def sittings(context: click.Context, folder: Path | None) -> None:
    """Look at the databases that there are (or those of FOLDER): open, rename, delete."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("sittings needs a terminal: tamer stats DATABASE works without one")
    from tamer_tui.config import databases
    from tamer_tui.screens.sittings import SittingsApp

    found = SittingsApp(folder or databases()).run()
    if found is not None and context.parent is not None:
        told = {"--model": found.model, "--adapter": found.adapter}
        arguments = [str(found.path), *(word for pair in told.items() if pair[1] for word in pair)]
        with run.make_context("run", arguments, parent=context.parent) as opened:
            run.invoke(opened)


@main.command()
@options(*MODEL_OPTIONS, "prompts", "system", *SAMPLING_OPTIONS, "json")
@click.option("--db", "database", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--version", "version", default="latest", show_default=True, help="base, latest or a version's id.")
@click.option("-n", "n", type=click.IntRange(1, 1000), default=1, show_default=True, help="Answers to each prompt.")
def generate(database: Path | None, version: str, n: int, as_json: bool, **chosen: Any) -> None:
    """Answer prompts with the base or a version, as JSON lines."""
    from tamer_tui.generate import answers

    need_prompts("generate", chosen)
    if database is None and version not in ("base", "latest"):
        raise click.UsageError(f"--version {version} needs --db")
    settings = session_settings(chosen, metered=True, autostart=False, bias=False)
    for line in answers(settings, database, version, n, engine_command(chosen), lambda told: tell(told, err=True)):
        tell(line)


@main.command()
@DATABASE
@options("json")
def versions(database: Path, as_json: bool) -> None:
    """List the versions of a database, with the reasons."""
    from tamer_tui.reports import versions_report

    with one_line_errors():
        tell(versions_report(database, as_json))


@main.command()
@DATABASE
@options("json")
def stats(database: Path, as_json: bool) -> None:
    """Say what a database holds."""
    from tamer_tui.reports import stats_report

    with one_line_errors():
        tell(stats_report(database, as_json))


@main.command()
@DATABASE
@options("json")
@click.option("--since", type=Since(), help="From this number of the log, or this time, on.")
@click.option("--kind", help="Only one kind, such as ranking.")
@click.option("--search", default="", help="Only what has to do with texts that contain these words.")
def log(database: Path, since: int | str | None, kind: str | None, search: str, as_json: bool) -> None:
    """Show everything that was said, oldest first."""
    from storage.history import Wanted
    from tamer_tui.history import log_lines

    wanted = Wanted(since if isinstance(since, int) else 0, since if isinstance(since, str) else "", kind or "", search)
    with one_line_errors():
        for line in log_lines(database, wanted, as_json):
            tell(line)


@main.command()
@DATABASE
@options("json")
def verify(database: Path, as_json: bool) -> None:
    """Check that nothing was lost or altered."""
    from tamer_tui import upkeep
    from tamer_tui.progress import Progress

    with one_line_errors(), Progress("checks done:") as step:
        verdict = upkeep.verify(database, step)
    tell(upkeep.as_json(verdict) if as_json else upkeep.in_words(verdict))
    sys.exit(1 if verdict.problems else 0)


@main.command()
@DATABASE
@click.argument("copy", type=click.Path(path_type=Path, dir_okay=False))
def backup(database: Path, copy: Path) -> None:
    """Copy a database and its versions, also while it is in use."""
    from tamer_tui.progress import Progress
    from tamer_tui.upkeep import copy_all

    with one_line_errors():
        with Progress("copying, in bytes:") as step:
            said = copy_all(database, copy, step)
        tell(said)


@main.command()
@DATABASE
@click.argument("version")
def rollback(database: Path, version: str) -> None:
    """Let the next sitting act with an earlier VERSION ('base' for none)."""
    from tamer_tui.reports import roll_back

    with one_line_errors():
        tell(roll_back(database, version))


@main.command()
@options("json")
@option("--model", help="A model's directory, GGUF file or hub id: its size and what it takes.")
@click.option("--quantize", type=click.Choice(["auto", "nf4", "int8", "none"]), default="auto")
def doctor(model: str | None, quantize: str, as_json: bool) -> None:
    """Look at the machine: what is here, what is missing, what to do."""
    from tamer_tui.doctor import examine

    report = examine(model, quantize)
    tell(report.as_json() if as_json else report.as_text())
    sys.exit(0 if report.healthy else 1)


@main.command()
@options("json")
def models(as_json: bool) -> None:
    """List models to begin with, what fits this machine first."""
    import msgspec

    from tamer_tui.models import CatalogueError, as_text, look

    try:
        found = look()
    except CatalogueError as error:
        raise click.ClickException(str(error)) from error
    tell(msgspec.json.encode(found).decode() if as_json else as_text(found))


@main.command()
@DATABASE
@options("name")
def calibrate(database: Path, name: str) -> None:
    """Measure how late your taps come, in a minute: later taps are credited by it."""
    from tamer_tui.reports import keep_calibration

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("calibrate needs a terminal")
    from tamer_tui.screens.calibrate import CalibrateApp

    with one_line_errors():
        keep_calibration(database, None, name)  # what would be refused in the end is refused before
        found = CalibrateApp().run()
        tell(keep_calibration(database, found, name) if found is not None else "nothing was changed")


@main.command()
@click.option("--keys", "keys", is_flag=True, help="List the keys by their ids, for [keymap].")
@click.pass_context
def config(context: click.Context, keys: bool) -> None:
    """Show each setting and where it came from."""
    from tamer_tui.config import config_file
    from tamer_tui.settings import key_table, listed

    assert context.parent is not None
    rows = key_table() if keys else listed(run, context.parent)
    tell(f"settings: {config_file()}")
    for name, value, about in rows:
        tell(f"{name:<22}{value:<26}{about}".rstrip())


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what lets a shell complete commands: eval "$(tamer completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "tamer", "_TAMER_COMPLETE").source())


SOCKET = "unix:PATH"


@main.command()
@click.option("--listen", metavar=SOCKET, help="Go on without a terminal, and let terminals come and go here.")
@click.option("--attach", metavar=SOCKET, help="Lead to an engine that listens here (for --engine over ssh).")
@click.option("--stop", metavar=SOCKET, help="End an engine that listens here.")
def engine(**chosen: str | None) -> None:
    """Run the engine on stdin and stdout (for --engine over ssh), or where terminals come and go."""
    from runpy import run_module

    asked = [(f"--{name}", path) for name, path in chosen.items() if path is not None]
    if len(asked) > 1:
        raise click.UsageError(f"{asked[0][0]} and {asked[1][0]} exclude each other")
    for name, path in asked:
        if not path.startswith("unix:") or path == "unix:":
            raise click.UsageError(f"{name} takes {SOCKET}, not {path!r}")
    sys.argv = ["tamer engine", *(word for pair in asked for word in pair)]
    run_module("learners.engine", run_name="__main__")


@main.command()
@click.argument("engine", metavar="ENGINE")
@click.argument("database", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--watch", is_flag=True, help="Look on while another terminal judges: nothing is asked for, and nothing is written.")
@options(*OF_A_TERMINAL)
def attach(engine: str, database: Path | None, watch: bool, **chosen: Any) -> None:
    """Come back to an ENGINE that listens (unix:PATH, or 'ssh HOST tamer engine --attach unix:PATH'), as it is loaded."""
    from tamer_tui import attaching

    with one_line_errors():
        if watch:
            sys.exit(attaching.watch(attaching.command_of(engine)))
        command, settings, found = attaching.look(engine, chosen)
        if database is None and not found.is_file():
            raise click.UsageError(f"give the database that this engine teaches: it was {found}, which is not on this machine")

    from tamer_tui.app import run as run_app

    sys.exit(run_app(settings, database or found, command))


if __name__ == "__main__":
    main()
