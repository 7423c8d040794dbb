"""`python -m learners.engine`, which is `tamer engine`. What only passes bytes on imports next to nothing: a terminal waits for it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learners.engine import relay
from learners.engine.sockets import SocketError

HELLO = b'{"type":"hello"'
"""How the first line of a terminal elsewhere begins."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the engine over this process's stdin and stdout, or as it is asked for."""
    parser = argparse.ArgumentParser(prog="tamer engine")
    for name in ("--listen", "--attach", "--stop"):
        parser.add_argument(name, metavar="unix:PATH", type=_socket_path)
    parser.add_argument("--keep", metavar="SECONDS", type=float, help="end when no terminal was there for so long")
    asked = parser.parse_args(arguments)
    if asked.attach or asked.stop or (not asked.listen and _is_greeted()):
        _pass_on(asked.attach, asked.stop)
        return
    from learners.engine.process import listen, run_over_pipes

    if asked.listen:
        listen(asked.listen, asked.keep)
    else:
        run_over_pipes()


def _socket_path(text: str) -> Path:
    kind, _, path = text.partition(":")
    if kind != "unix" or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not unix:PATH")
    return Path(path).expanduser().absolute()


def _is_greeted() -> bool:
    """Whether a terminal elsewhere says hello; nothing is taken of what it says."""
    stdin: Any = sys.stdin.buffer
    return bool(stdin.peek(len(HELLO)).startswith(HELLO))


def _pass_on(attach: Path | None, stop: Path | None) -> None:
    try:
        if stop is not None:
            print(relay.stop(stop))
        elif attach is not None:
            relay.to_socket(attach, sys.stdin.buffer, sys.stdout.buffer)
        else:
            relay.to_own_engine(sys.stdin.buffer, sys.stdout.buffer)
    except (SocketError, ValueError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # a thread still reads stdin


if __name__ == "__main__":
    main()
