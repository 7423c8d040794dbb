"""`tamer serve`, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tamer_tui.options import DATABASE, SAMPLING_OPTIONS, engine_command, one_line_errors, option, options, session_settings, tell


@click.command()
@DATABASE
@option("--model", help="The base. [default: the one that the last sitting had]")
@options("device", "trust_remote_code", "engine", "seed", *SAMPLING_OPTIONS, "nats", "no_bias", "name")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with TLS, or --unprotected.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--certfile", "certificate", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="For TLS, in PEM.")
@click.option("--keyfile", "key", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--unprotected", is_flag=True, help="Let other machines come without TLS.")
@click.option("--token", envvar="TAMER_TOKEN", default="", help="What clients have to know. [default: a new one]")
def serve(database: Path, host: str, port: int, certificate: Path | None, key: Path | None, unprotected: bool, token: str, **chosen: Any) -> None:
    """Serve versions to OpenAI's clients; their feedback is learned from at once."""
    from tamer_tui.published import find
    from tamer_tui.serving import run

    place = run.Place(host, port, certificate, key, unprotected, token)
    with one_line_errors():
        run.check(place)
        run.bring_up_to_date(database)
        settings = session_settings(chosen | find(database, "base").model_options(chosen["model"]))
        run.serve(settings, database, engine_command(chosen), place, tell)
