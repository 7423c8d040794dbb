"""`tamer export` and `tamer import`, as they are typed. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tamer_tui.options import DATABASE, FiniteRange, Since, one_line_errors, person, tell

if TYPE_CHECKING:
    from storage.records import Prompt
    from tamer_tui.exchange import Answering


@click.command()
@DATABASE
@click.option("--format", "format", required=True, help="Such as trl-preference, trl-kto, parquet, tamer: see docs/data.md.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A file, or a folder for formats of several files.")
@click.option("--since", type=Since(), help="Only judgements from this number of the log, or this time, on.")
@click.option("--split-by-prompt", "test_share", type=FiniteRange(0, 1, max_open=True), default=0.0, help="Share of prompts for a test split.")
@click.option("--redact", is_flag=True, help="Replace e-mail addresses, telephone numbers, keys and home folders.")
@click.option("--columns", is_flag=True, help="Also the other columns that imported rows had.")
@click.option("--min-margin", type=FiniteRange(0), default=0.0, help="Leave out comparisons with a smaller margin.")
@click.option("--balance", is_flag=True, help="As many good labels as bad ones.")
@click.option("--version-answers", metavar="VERSION", help="Add what a version (acting, latest, an id, base) says now to each prompt.")
@click.option("--version", "version", help="For a model: acting, latest or a version's id. [default: acting]")
@click.option("--model", help="The base, where it is not where the last sitting found it.")
@click.option("--outtype", type=click.Choice(["f16", "q8_0"]), help="For gguf and ollama. [default: f16]")
@click.option("--trust-remote-code", is_flag=True, help="For a model, and for answers of one: run Python code that comes with the base.")
@click.option("--force", is_flag=True, help="Replace what is there.")
def export(
    database: Path, out: Path, force: bool, version: str | None, model: str | None, outtype: str | None, trust_remote_code: bool, **chosen: Any
) -> None:
    """Write the judgements for a trainer, or a version for where models run; also while the program runs."""
    from storage.exchange.formats import FORMATS, WHOLE
    from tamer_tui.model_export import FORMATS as MODELS
    from tamer_tui.progress import Progress

    given = {"version": version, "model": model, "outtype": outtype, "trust_remote_code": trust_remote_code or None}
    of_model = {name: value for name, value in given.items() if value is not None}
    with one_line_errors():
        if chosen["format"] in MODELS:
            from tamer_tui.model_export import Wanted, export_model

            _check_no_choice_of_rows(chosen)
            with Progress("") as progress:
                said = export_model(database, out, Wanted(chosen["format"], **of_model), force, progress.stage)  # type: ignore[arg-type]
            tell(said)
            return
        if chosen["format"] not in (*FORMATS, *WHOLE):
            raise click.UsageError(f"there is no format {chosen['format']!r}: use one of {', '.join((*FORMATS, *WHOLE, *MODELS))}")
        answering = chosen.pop("version_answers")
        if wrong := sorted(of_model.keys() - ({"model", "trust_remote_code"} if answering else set())):
            raise click.UsageError(f"--{wrong[0].replace('_', '-')} is for {', '.join(MODELS)}")
        from storage.exchange.exporting import Options
        from tamer_tui.exchange import export_to

        answer = _answers_of(database, answering, model, trust_remote_code) if answering else None
        with Progress("judgements read:") as step:
            said = export_to(database, out, Options(**chosen, version_answers=answering or ""), force, answer, step)
        tell(said)


def _answers_of(database: Path, version: str, model: str | None, trust_remote_code: bool) -> Answering:
    """What asks a version, drawing as the last sitting did."""
    from tamer_tui.generate import generated
    from tamer_tui.options import session_settings
    from tamer_tui.published import find

    found = find(database, version)
    usual = {"max_new_tokens": None, "seed": 0, "device": "auto", "trust_remote_code": trust_remote_code}
    settings = session_settings(usual | found.drawing_options() | found.model_options(model), metered=True, autostart=False, bias=False)

    def answer(prompts: Sequence[Prompt]) -> dict[str, str]:
        drawn = generated(settings, prompts, database, version, 1, None, lambda line: tell(line, err=True)) if prompts else []
        return {prompt.uid: answer.response for prompt, answer in drawn}

    return answer


def _check_no_choice_of_rows(chosen: dict[str, Any]) -> None:
    given = next((name for name, value in chosen.items() if name != "format" and value), None)
    if given is not None:
        flag = {"test_share": "split-by-prompt"}.get(given, given.replace("_", "-"))
        raise click.UsageError(f"{chosen['format']} is a model and has no rows: leave out --{flag}")


@click.command("import")
@DATABASE
@click.argument("source")
@click.argument("pairs", nargs=-1, metavar="")
@click.option("--map", "columns", multiple=True, metavar="prompt=PATH …", help="Which columns are what, where they are not recognised; dotted paths.")
@click.option("--operator", callback=person, metavar="NAME", help="Who judged. [default: the file]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what it would be, and stop.")
@click.option("--format", "format", default="", help="Do not look: such as hh, oasst, trl-preference. Nothing is asked then.")
@click.option("--skip-bad", is_flag=True, help="With --format: leave malformed rows out instead of importing nothing.")
def import_(database: Path, source: str, pairs: tuple[str, ...], columns: tuple[str, ...], yes: bool, **chosen: Any) -> None:
    """Take over judgements made elsewhere: a file, a folder, a data set of the hub, another database. They teach like your own."""
    from tamer_tui.importing import Wanted, parsed_map, run

    if pairs and not columns:
        raise click.UsageError(f"{pairs[0]}: one source at a time")
    if columns and chosen["format"]:
        raise click.UsageError("--map and --format exclude each other")

    def agree() -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise click.ClickException("nothing was imported: --yes takes it over without asking")
        return click.confirm(f"Import into {database}?", default=True)

    with one_line_errors():
        run(Wanted(database, source, mapping=parsed_map((*columns, *pairs)), **chosen), tell, agree)
