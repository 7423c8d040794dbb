"""Options that commands share, and the settings that they make. Imports nothing heavy before it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storage.limits import HIGHEST_PENALTY, HIGHEST_TEMPERATURE, HIGHEST_TOP_K, LOWEST_PENALTY, LOWEST_TEMPERATURE

if TYPE_CHECKING:
    from tamer_tui.views import SessionSettings

OF_A_TERMINAL = ("k", "best_of", "system", "temperatures", "name")
"""Options that an engine which goes on without one does not know of."""
STAGES = ("sft", "reward", "distill", "ppo")
HIGHEST_SEED = 2**32 - 1
ANSWER_TOKENS = 256
POCKET_TOKENS = 80
NATS = 6.0


class FiniteRange(click.FloatRange):
    """A number within bounds, which 'nan' is not, though no comparison says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Temperatures(click.ParamType):
    """Numbers with commas between them."""

    name = "T,T,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        parts = [str(part) for part in value] if isinstance(value, list | tuple) else str(value).split(",")
        return tuple(TEMPERATURE.convert(part.strip(), param, ctx) for part in parts)


class Text(click.ParamType):
    """What is not empty; a backslash and n is a new line, and bytes that are no UTF-8 become U+FFFD."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not (text := str(value).encode("utf-8", "replace").decode().replace("\\n", "\n")):
            self.fail("it is empty, and would end every answer at its start.", param, ctx)
        return text


class Device(click.ParamType):
    """auto, cpu, mps, cuda, or one of several GPUs as cuda:1."""

    name = "auto|cpu|mps|cuda[:N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        kind, colon, number = str(value).partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdecimal() and number.isascii())):
            self.fail(f"{value!r} is none of auto, cpu, mps, cuda and cuda:N.", param, ctx)
        return str(value)


def tell(text: str, err: bool = False) -> None:
    """Print what may hold somebody else's text."""
    from tamer_tui.text import visible

    click.echo(visible(text), err=err)


def option(flag: str, **attributes: Any) -> Callable[..., Any]:
    """An option that the environment sets too: --max-new-tokens is TAMER_MAX_NEW_TOKENS, in every command."""
    return click.option(flag, envvar="TAMER_" + flag.lstrip("-").upper().replace("-", "_"), **attributes)


def person(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """A name, '' where none was given; with a colon it would be a program's."""
    if value is None:
        return ""
    name = value.encode("utf-8", "replace").decode().strip()
    if not name or ":" in name or not name.isprintable() or name.startswith("import "):
        raise click.BadParameter(f"{value!r} is no name of a person: plain letters, without a colon", ctx, param)
    return name


TEMPERATURE = FiniteRange(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)
OWN = "[default: the model's own]"
_SHARED: dict[str, Callable[..., Any]] = {
    "model": option("--model", default="pocket", show_default=True, help="Directory, GGUF file, hub id or 'pocket'."),
    "adapter": option("--adapter", metavar="DIR", help="Somebody's PEFT adapter (or its hub id): it becomes part of the base."),
    "quantize": option("--quantize", type=click.Choice(["auto", "nf4", "int8", "none"]), default="auto", show_default=True),
    "device": option("--device", type=Device(), default="auto", show_default=True),
    "k": option("-k", type=click.IntRange(1, 9), default=4, show_default=True, help="Answers to each prompt."),
    "best_of": click.option(
        "-n",
        "best_of",
        envvar="TAMER_BEST_OF",
        type=click.IntRange(2, 64),
        metavar="N",
        help="Draw N answers, and show the best -k by what was learned.",
    ),
    "prompts": option("--prompts", type=click.Path(path_type=Path), help="One prompt a line, or JSON lines. [default: a set that ships]"),
    "system": option("--system", help="A system message before every prompt."),
    "temperature": option("--temperature", type=TEMPERATURE, help="[default: the model's own, else 1]"),
    "temperatures": option("--temperatures", type=Temperatures(), help="In the Arena: each answer of a set at another, as 0.6,0.8,1.0,1.2."),
    "top_p": option("--top-p", type=FiniteRange(0, 1, min_open=True), help=f"Draw from the likeliest tokens with this probability in all. {OWN}"),
    "top_k": option("--top-k", type=click.IntRange(0, HIGHEST_TOP_K), help=f"Draw from so many likeliest tokens; 0: from all. {OWN}"),
    "min_p": option("--min-p", type=FiniteRange(0, 1), help=f"Draw no token that is less likely than this share of the likeliest. {OWN}"),
    "repetition_penalty": option(
        "--repetition-penalty", type=FiniteRange(LOWEST_PENALTY, HIGHEST_PENALTY), help=f"Above 1: what was said becomes less likely. {OWN}"
    ),
    "stop": option("--stop", type=Text(), multiple=True, help="A text that ends an answer and is not shown. May be given several times."),
    "max_new_tokens": option("--max-new-tokens", type=click.IntRange(1, 100_000), help=f"[default: {ANSWER_TOKENS}; for 'pocket' {POCKET_TOKENS}]"),
    "thinking": option(
        "--thinking", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True, help="Before an answer, where the model can."
    ),
    "max_thinking_tokens": option(
        "--max-thinking-tokens",
        type=click.IntRange(1, 100_000),
        help="Close a thought after so many tokens; --max-new-tokens is the answer's alone then. [default: one limit for both]",
    ),
    "learn_thoughts": option("--learn-thoughts", is_flag=True, help="Learn of thoughts as of answers."),
    "nats": option("--nats", type=FiniteRange(0, 1000), default=NATS, show_default=True, help="Budget against the base, per 64 tokens."),
    "no_bias": option("--no-bias", is_flag=True, help="No steering by Ĥ: only adapters act."),
    "seed": option("--seed", type=click.IntRange(0, HIGHEST_SEED), default=0, show_default=True),
    "engine": option("--engine", metavar="CMD", help="What leads to an engine: 'ssh gpu-box tamer engine', or unix:PATH of one that listens."),
    "trust_remote_code": option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model."),
    "name": option("--name", default="operator", show_default=True, callback=person, help="Who judges."),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
}


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = _SHARED[name](command)
        return command

    return decorate


MODELS_OWN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What a model's generation settings set where no option does."""
SAMPLING_OPTIONS = (*MODELS_OWN, "stop", "max_new_tokens", "thinking", "max_thinking_tokens")
MODEL_OPTIONS = ("model", "adapter", "quantize", "device", "trust_remote_code", "engine", "seed")
DATABASE = click.argument("database", type=click.Path(path_type=Path, dir_okay=False))


def check_best_of(chosen: dict[str, Any]) -> None:
    """Raises UsageError where -n does not go with what else was chosen."""
    if chosen.get("best_of") and chosen.get("temperatures"):
        raise click.UsageError("-n chooses among answers that were drawn alike, and --temperatures spreads them: give one of the two")
    if chosen.get("best_of") and chosen["best_of"] <= chosen["k"]:
        raise click.UsageError(f"-n {chosen['best_of']} leaves nothing to choose from for -k {chosen['k']}: give a larger -n")


def session_settings(chosen: dict[str, Any], **more: Any) -> SessionSettings:
    """What a sitting is started with. Raises click.UsageError for what no command takes."""
    from storage.records import Sampling
    from tamer_tui.prompts import PromptFileError, pocket_prompts, read_prompts
    from tamer_tui.views import SessionSettings

    if not chosen["model"].strip():
        raise click.UsageError("--model takes a directory, a hub id or 'pocket'")
    stages = tuple(part.strip() for part in chosen.get("stages", ",".join(STAGES)).split(",") if part.strip())
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        raise click.UsageError(f"--stages takes some of {', '.join(STAGES)}, not {unknown[0] if unknown else 'none'}")
    try:
        system = chosen["system"] and chosen["system"].encode("utf-8", "replace").decode()  # bytes of the command line that are no UTF-8
        prompts = read_prompts(file, system) if (file := chosen["prompts"]) else pocket_prompts(system) if chosen["model"] == "pocket" else ()
    except PromptFileError as error:
        raise click.UsageError(str(error)) from error
    settings = {
        "best_of": chosen.get("best_of") or 0, "bias": not chosen.get("no_bias", False), "k": chosen.get("k", 4), "nats": chosen.get("nats", NATS),
        "unigram": chosen.get("unigram", False), "frozen_ppo": chosen.get("frozen_ppo", False),
        **({"operator": chosen["name"]} if "name" in chosen else {}), **more,
    }  # fmt: skip
    check_best_of(chosen)
    if not chosen.get("engine"):
        _check_model(chosen["model"], chosen.get("adapter"))
    tokens = chosen["max_new_tokens"] or (POCKET_TOKENS if chosen["model"] == "pocket" else ANSWER_TOKENS)
    drawing = {name: chosen.get(name) for name in MODELS_OWN}
    sampling = Sampling(
        max_new_tokens=tokens, stop=tuple(chosen.get("stop", ())), max_thinking_tokens=chosen.get("max_thinking_tokens"),
        **{name: value for name, value in drawing.items() if value is not None},
    )  # fmt: skip
    return SessionSettings(
        chosen["model"], prompts, sampling=sampling, unset=tuple(name for name, value in drawing.items() if value is None),
        temperatures=chosen.get("temperatures") or (), thinking=chosen.get("thinking", "auto"), learn_thoughts=chosen.get("learn_thoughts", False),
        quantize=chosen["quantize"],
        device=chosen["device"], seed=chosen["seed"], system=system, trust_remote_code=chosen["trust_remote_code"],
        peft_adapter=chosen.get("adapter"), stages=stages, **settings,
    )  # type: ignore[arg-type]  # fmt: skip


def need_prompts(command: str, chosen: dict[str, Any]) -> None:
    """Raises UsageError where there is nothing to ask a model."""
    if chosen["prompts"] is None and chosen["model"] != "pocket":
        raise click.UsageError(f"{command} needs --prompts FILE, or the model that ships")


def _check_model(model: str, adapter: str | None) -> None:
    """What can be refused without loading anything is refused before a screen opens."""
    from learners.model.checkpoint import ModelError
    from learners.model.stored import check_source

    try:
        check_source(model, adapter)
    except ModelError as error:
        raise click.ClickException(str(error)) from error


def engine_command(chosen: dict[str, Any]) -> tuple[str, ...] | None:
    """What leads to the engine, in words; None for the usual way."""
    import shlex
    import sys

    if (chosen.get("engine") or "").startswith("unix:"):
        return (sys.executable, "-m", "learners.engine", "--attach", chosen["engine"])
    try:
        return tuple(shlex.split(chosen["engine"])) if chosen.get("engine") else None
    except ValueError as error:
        raise click.UsageError(f"--engine {chosen['engine']}: {error}") from error


class Since(click.ParamType):
    """A number of the log, or a time such as 2026-11-24 or 2026-11-24T09:30, local unless it says otherwise; becomes an int or UTC."""

    name = "SEQ|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if isinstance(value, int) or value.isdecimal():
            return int(value)
        from datetime import UTC, datetime

        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a number of the log nor a time such as 2026-11-24", param, ctx)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a command cannot do is one line and exit code 1."""
    from tamer_tui.session_store import SessionError

    try:
        yield
    except SessionError as error:
        raise click.ClickException(str(error)) from error
