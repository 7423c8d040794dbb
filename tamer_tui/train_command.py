"""`tamer train`, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tamer_tui.options import DATABASE, SAMPLING_OPTIONS, STAGES, FiniteRange, one_line_errors, option, options


@click.command()
@DATABASE
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The run's folder: an interrupted run goes on there.")
@option("--model", help="The base. [default: the one that was taught; judgements carry over to another one by their texts]")
@options("device", "trust_remote_code", "prompts", *SAMPLING_OPTIONS, "no_bias", "json")
@option("--quantize", type=click.Choice(["auto", "nf4", "int8", "none"]), help="[default: as the base was taught]")
@option("--nats", type=FiniteRange(0, 1000), help="Budget against the base, per 64 tokens. [default: the last sitting's]")
@option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--stages", default=",".join(STAGES), show_default=True)
@click.option("--iterations", type=click.IntRange(0), default=18, show_default=True, help="Of PPO, at most: each draws 32 answers.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of each process on a CPU: more for large models.")
@click.option("--dry-run", is_flag=True, help="Only say what would be used, and about what it would take.")
@click.option("--prepare", is_flag=True, help="Only write the run's folder: for `accelerate launch -m learners.train OUT` elsewhere.")
@click.option("--launch", metavar="CMD", default="", help="What starts the processes, such as 'accelerate launch --config_file 1x8.yaml'.")
@click.option("--record", is_flag=True, help="Make the result a version of the database, which acts from then on.")
def train(database: Path, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Train a policy from a database's judgements alone, without a screen."""
    if out is None and not chosen["dry_run"]:
        raise click.UsageError("train needs --out DIR, or --dry-run")
    from tamer_tui import train as training

    with one_line_errors():
        how = {name: chosen.pop(name) for name in ("iterations", "threads", "dry_run", "prepare", "launch", "record")}
        wanted = training.Wanted(**how, as_json=as_json)
        click.echo(training.run(database, out, chosen, wanted, lambda line: click.echo(line, err=True)))
