"""`python -m learners.train FOLDER`, or `accelerate launch -m learners.train FOLDER`: trains what the folder asks for, or goes on with it.

The first rank tells how it goes: events as JSON lines on stdout with --events, else words.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from learners.model.checkpoint import ModelError
from learners.protocol import Error, Event, Gated, Metrics, Notice, encode
from learners.train.request import RESULT, STOPPED, Planned, Rebuilt, read_request

GONE = ("Connection closed by peer", "Connection reset", "Socket Timeout", "NCCL", "timed out", "Broken pipe", "recvBytes", "sendBytes")
"""How torch says that another rank is not there any more."""


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="learners.train", description="Train a policy from the judgements in FOLDER, which tamer train writes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", action="store_true", help="tell events as JSON lines")
    parser.add_argument("--plan", action="store_true", help="only tell what it would take")
    options = parser.parse_args()
    first = int(os.environ.get("RANK", "0")) == 0
    tell = (_as_lines() if options.events else _in_words) if first else _not_at_all
    try:
        return _work(options, tell)
    except BrokenPipeError:  # whoever listened is gone
        return STOPPED
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        (tell if first else _in_words)(_failure(error, options.folder))
        sys.stdout.flush()
        os._exit(1)  # the other ranks are told by what they wait for; torch's own goodbye would wait for them


def _work(options: argparse.Namespace, tell: Callable[[Event | Planned | Rebuilt], None]) -> int:
    request = read_request(options.folder)
    if (options.folder / RESULT).exists() and not options.plan:
        tell(msgspec.json.decode((options.folder / RESULT).read_bytes(), type=Rebuilt))
        return 0
    from learners.model import shards
    from learners.train import launched
    from learners.train.plan import planned
    from learners.train.rebuild import Rebuild, Stopped

    launched.join()
    asked: list[int] = []
    if "RANK" not in os.environ:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: asked.append(number))
    elif os.environ["RANK"] == "0":  # ranks cannot agree on a step to stop after: the launcher ends them all when one is gone
        signal.signal(signal.SIGTERM, lambda *_: _ended(tell, options.folder))
    rebuild = Rebuild(options.folder, request, tell)
    tell(planned(rebuild, request))
    if options.plan:
        shards.meet()
        return 0
    try:
        tell(rebuild.run(lambda: bool(asked)))
    except Stopped:
        return STOPPED
    return 0


def _ended(tell: Callable[[Event | Planned | Rebuilt], None], folder: Path) -> None:
    tell(Error(what="the launcher ended the run: another rank is gone, or it was stopped", hint=_again(folder), fatal=True))
    sys.stdout.flush()
    os._exit(1)


def _again(folder: Path) -> str:
    return f"launch it again: {folder} has all but the last steps"


def _failure(error: Exception, folder: Path) -> Error:
    if isinstance(error, ModelError):
        return Error(what=error.what, hint=error.hint, fatal=True)
    words = next(iter(str(error).splitlines()), type(error).__name__)
    if "WORLD_SIZE" in os.environ and isinstance(error, RuntimeError) and any(sign in str(error) for sign in GONE):
        what = f"rank {os.environ.get('RANK')}: another rank is gone"
        return Error(what=what, hint=_again(folder), fatal=True)
    return Error(what=f"{type(error).__name__}: {words[:300]}", hint=f"the same command goes on from the last checkpoint in {folder}", fatal=True)


def _as_lines() -> Callable[[Event | Planned | Rebuilt], None]:
    out = os.fdopen(os.dup(1), "wb")  # libraries print: from here on stdout is stderr
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def tell(event: Event | Planned | Rebuilt) -> None:
        out.write(msgspec.json.encode(event) + b"\n" if isinstance(event, Planned | Rebuilt) else encode(event))
        out.flush()

    return tell


def _in_words(event: Event | Planned | Rebuilt) -> None:
    with contextlib.suppress(BrokenPipeError):
        if said := in_words(event):
            print(said, flush=True)


def _not_at_all(event: Event | Planned | Rebuilt) -> None:
    pass


def in_words(event: Event | Planned | Rebuilt) -> str:
    """A line for a log; '' for what is not worth one."""
    match event:
        case Metrics(step=step, of=of) if step and (step == of or step % 10 == 0):
            figures = {"loss": event.loss, "kl": event.kl, "reward": event.reward}
            return " · ".join([f"{event.stage} {step} of {of}", *(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)])
        case Gated():
            return f"gate: {event.stage} {'published' if event.published else 'refused'}, {event.reason}"
        case Notice(what=what):
            return what
        case Error(what=what, hint=hint):
            return f"{what}: {hint}" if hint else what
        case Planned():
            processes = [f"{event.processes} processes"] if event.processes > 1 else []
            return " · ".join([f"{event.judgements} judgements", *processes, *(f"{each.stage} about {each.seconds:.0f} s" for each in event.stages)])
        case Rebuilt():
            return f"done: {event.sha256 or 'no version passed the gate'}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
