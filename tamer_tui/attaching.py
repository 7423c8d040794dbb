"""`tamer attach`: a sitting at an engine that listens, with the settings that it was loaded with; or a look at what goes on there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from learners.protocol import Load
from storage.records import Prompt
from tamer_tui.config import engine_log
from tamer_tui.options import check_best_of, engine_command
from tamer_tui.remote_engine import FIRST_SECONDS, Refused, RemoteEngine
from tamer_tui.session_store import SessionError
from tamer_tui.views import SessionSettings


def command_of(engine: str) -> tuple[str, ...]:
    """What leads to an engine. Raises SessionError, click.UsageError."""
    command = engine_command({"engine": engine})
    if not command or engine == "unix:":
        raise SessionError("attach takes unix:PATH, or a command that leads to an engine")
    return command


def look(engine: str, chosen: dict[str, Any]) -> tuple[tuple[str, ...], SessionSettings, Path]:
    """The command that leads there, the settings of the engine with what is chosen here, and the database that it teaches. Raises SessionError."""
    command = command_of(engine)
    check_best_of(chosen)
    try:
        welcome = asyncio.run(asyncio.wait_for(RemoteEngine(command, engine_log(), "look").ask(), FIRST_SECONDS))
    except (OSError, Refused, TimeoutError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise SessionError(why or "no engine answered") from error
    if welcome.load is None:
        raise SessionError("this engine has loaded no model yet", f"the first sitting says which: tamer DATABASE --model MODEL --engine '{engine}'")
    return command, settings_of(welcome.load, chosen), Path(welcome.place)


def settings_of(load: Load, chosen: dict[str, Any]) -> SessionSettings:
    """A sitting as the engine was loaded; how many answers there are, and who judges, is this terminal's own."""
    return SessionSettings(
        load.model,
        tuple(Prompt(messages) for messages in (*load.train_prompts, *load.gate_prompts)),
        k=chosen["k"],
        best_of=chosen["best_of"] or 0,
        sampling=load.sampling,
        unset=load.unset,
        temperatures=chosen["temperatures"] or (),
        nats=load.nats,
        bias=load.bias,
        quantize=load.quantize,
        device=load.device,
        stages=load.stages,
        seed=load.seed,
        metered=load.metered,
        operator=chosen["name"],
        system=chosen["system"],
        trust_remote_code=load.trust_remote_code,
        peft_adapter=load.peft_adapter,
        thinking=load.thinking,
        learn_thoughts=load.learn_thoughts,
        unigram=load.unigram,
        frozen_ppo=load.frozen_ppo,
    )


def watch(command: tuple[str, ...]) -> int:
    """Show what another terminal has drawn, and what is learned, until it is left; the exit code. Raises SessionError."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SessionError("watching needs a terminal")
    from tamer_tui.screens.watching import WatchApp

    app = WatchApp(RemoteEngine(command, engine_log(), "watch"))
    app.run()
    if app.why:
        raise SessionError(app.why)
    return 0


