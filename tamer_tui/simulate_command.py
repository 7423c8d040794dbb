"""`tamer simulate`, as it is typed. Everything heavy is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tamer_tui.options import (
    DATABASE,
    MODEL_OPTIONS,
    SAMPLING_OPTIONS,
    STAGES,
    FiniteRange,
    engine_command,
    need_prompts,
    options,
    session_settings,
    tell,
)

if TYPE_CHECKING:
    from tamer_tui.session import Session
    from tamer_tui.simulate import Plan
    from tamer_tui.views import SessionSettings


@click.command()
@DATABASE
@options(*MODEL_OPTIONS, "k", "best_of", "prompts", "system", *SAMPLING_OPTIONS, "temperatures", "learn_thoughts", "nats", "no_bias", "json")
@click.option("--operator", required=True, metavar="FILE.py:FUNC", help="judge(…), correct(…), critique(…) or tap(…): see the README.")
@click.option("--judge", metavar="FILE.py:FUNC", help="For the end, with --feedback correction, critique or taps.")
@click.option("--feedback", type=click.Choice(["ranking", "rating", "correction", "critique", "taps"]), default="ranking", show_default=True)
@click.option("--rounds", type=click.IntRange(0), default=25, show_default=True)
@click.option("--train-seconds", type=FiniteRange(0), help="The learner's time in all, on a CPU the processor's; 0 trains no adapter.")
@click.option("--train-steps", type=click.IntRange(0), help="Optimizer steps in all, instead of seconds.")
@click.option("--taps", type=click.IntRange(1), help="With --feedback taps: go no further than this many.")
@click.option("--silence", is_flag=True, help="With --feedback taps: words that pass untapped count as 0, as with S in the tap view.")
@click.option("--window", type=(float, float), hidden=True)
@click.option("--stages", default=",".join(STAGES), show_default=True)
@click.option("--resume", is_flag=True, help="Go on with a database that has judgements.")
@click.option("--unigram", is_flag=True, hidden=True)
@click.option("--frozen-ppo", is_flag=True, hidden=True)
def simulate(database: Path, as_json: bool, **chosen: Any) -> None:
    """Let a program judge in the operator's place, and report what came of it as JSON."""
    import asyncio

    import msgspec

    from tamer_tui.headless import with_session
    from tamer_tui.operators import OperatorError
    from tamer_tui.progress import paint
    from tamer_tui.session_store import SessionError
    from tamer_tui.simulate import Simulation

    settings, plan = _plan(database, chosen)

    def say(line: str) -> None:
        paint("")  # else it would stand behind the progress
        tell(line, err=True)

    async def simulated(session: Session) -> Any:
        return await Simulation(session, plan, paint, say).run()

    try:
        report = asyncio.run(with_session(settings, database, engine_command(chosen), simulated, say))
    except (SessionError, OperatorError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped: everything judged is in {database}") from None
    finally:
        paint("")  # what is printed next begins on a clean line
    tell(msgspec.json.encode(report).decode())


def _plan(database: Path, chosen: dict[str, Any]) -> tuple[SessionSettings, Plan]:
    """What `simulate` is asked for; all that can be refused before a model is loaded is refused here."""
    from dataclasses import replace

    from tamer_tui.operators import OperatorError, load_function
    from tamer_tui.session_store import SessionError
    from tamer_tui.simulate import HELD_OUT, Plan, check, shuffled

    _check_usage(chosen)
    settings = session_settings(chosen, metered=True, held_out=HELD_OUT, autostart=False, operator=chosen["operator"])
    settings = replace(settings, prompts=shuffled(settings.prompts, settings.seed))
    try:
        operator = load_function(chosen["operator"])
        judge = load_function(chosen["judge"]) if chosen["judge"] else operator
        plan = Plan(
            chosen["rounds"], chosen["feedback"], chosen["operator"], operator, judge, chosen["judge"] or chosen["operator"],
            chosen["train_seconds"], chosen["train_steps"], settings.seed, chosen["taps"], chosen["silence"], chosen["window"],
        )  # fmt: skip
        check(settings, plan, database, chosen["resume"])
    except (OperatorError, SessionError) as error:
        raise click.ClickException(str(error)) from error
    return settings, plan


def _check_usage(chosen: dict[str, Any]) -> None:
    need_prompts("simulate", chosen)
    if chosen["train_seconds"] is not None and chosen["train_steps"] is not None:
        raise click.UsageError("--train-seconds and --train-steps exclude each other")
    if chosen["feedback"] in ("correction", "critique", "taps") and not chosen["judge"]:
        raise click.UsageError(f"--feedback {chosen['feedback']} needs --judge FILE.py:FUNC for the end")
    if chosen["feedback"] == "ranking" and chosen["rounds"] and chosen["k"] == 1:
        raise click.UsageError("a ranking compares answers: -k 2 to 9, or --feedback rating")
    if chosen["rounds"] == 0 and not chosen["resume"]:
        raise click.UsageError("--rounds 0 only makes sense with --resume")
